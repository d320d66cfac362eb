package session_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
)

// The rules that every store keeps are tested by package sessiontest; here is
// what only a fake clock or knowledge of this store can show.

func createFor(t *testing.T, s *session.MemoryStore, id, data string, ttl time.Duration) {
	t.Helper()
	if err := s.Create(t.Context(), id, session.Record{Data: []byte(data), TTL: ttl}); err != nil {
		t.Fatalf("Create: got %v, want no error", err)
	}
}

func wantTTL(t *testing.T, s *session.MemoryStore, id string, want time.Duration) {
	t.Helper()
	r, err := s.Load(t.Context(), id)
	if err != nil {
		t.Fatalf("Load: got %v, want no error", err)
	}
	if r.TTL != want {
		t.Errorf("time left: got %v, want %v", r.TTL, want)
	}
}

// pass lets d pass on the bubble's clock.
func pass(d time.Duration) { <-time.After(d) }

func TestMemoryStoreIsLiveToTheVeryEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := session.NewMemoryStore()
		createFor(t, s, "a", `{}`, time.Minute)
		wantTTL(t, s, "a", time.Minute)

		pass(time.Minute - time.Nanosecond)
		wantTTL(t, s, "a", time.Nanosecond)

		pass(time.Nanosecond) // expiry == now
		wantTTL(t, s, "a", 0)
		if n, err := s.Prune(t.Context(), 0); n != 0 || err != nil {
			t.Errorf("Prune at the expiry: got %d, %v, want 0, no error", n, err)
		}
		if err := s.Update(t.Context(), "a", session.Change{Old: []byte(`{}`), New: []byte(`{}`)}); err != nil {
			t.Errorf("Update at the expiry: got %v, want no error", err)
		}
		if err := s.Touch(t.Context(), "a", 0); err != nil {
			t.Errorf("Touch at the expiry: got %v, want no error", err)
		}

		pass(time.Nanosecond)
		if _, err := s.Load(t.Context(), "a"); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("Load after the expiry: got %v, want ErrNotFound", err)
		}
		if err := s.Update(t.Context(), "a", session.Change{Old: []byte(`{}`), New: []byte(`{}`), TTL: time.Hour}); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("Update after the expiry: got %v, want ErrNotFound", err)
		}
		if err := s.Touch(t.Context(), "a", time.Hour); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("Touch after the expiry: got %v, want ErrNotFound", err)
		}
		if n, err := s.Prune(t.Context(), 0); n != 1 || err != nil {
			t.Errorf("Prune after the expiry: got %d, %v, want 1, no error", n, err)
		}
	})
}

func TestMemoryStoreExpiryToTheNanosecond(t *testing.T) {
	touch := func(ttl time.Duration) func(*testing.T, *session.MemoryStore) error {
		return func(t *testing.T, s *session.MemoryStore) error { return s.Touch(t.Context(), "a", ttl) }
	}
	update := func(ttl time.Duration, shorten bool) func(*testing.T, *session.MemoryStore) error {
		return func(t *testing.T, s *session.MemoryStore) error {
			c := session.Change{Old: []byte(`{}`), New: []byte(`{}`), TTL: ttl, Shorten: shorten}
			return s.Update(t.Context(), "a", c)
		}
	}
	for _, tc := range []struct {
		name string
		do   func(*testing.T, *session.MemoryStore) error
		want time.Duration // of an hour, half an hour after Create
	}{
		{"touch forward", touch(30*time.Minute + 1), 30*time.Minute + 1},
		{"touch backward", touch(30*time.Minute - 1), 30 * time.Minute},
		{"touch zero", touch(0), 30 * time.Minute},
		{"touch negative", touch(-time.Hour), 30 * time.Minute},
		{"touch without end", touch(math.MaxInt64), math.MaxInt64},
		{"update forward", update(30*time.Minute+1, false), 30*time.Minute + 1},
		{"update backward", update(30*time.Minute-1, false), 30 * time.Minute},
		{"update zero", update(0, false), 30 * time.Minute},
		{"update zero, shorten", update(0, true), 30 * time.Minute},
		{"update negative, shorten", update(-1, true), 30 * time.Minute},
		{"update shorten", update(1, true), 1},
		{"update shorten, but longer", update(time.Hour, true), time.Hour},
		{"update without end", update(math.MaxInt64, false), math.MaxInt64},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := session.NewMemoryStore()
				createFor(t, s, "a", `{}`, time.Hour)
				pass(30 * time.Minute)
				if err := tc.do(t, s); err != nil {
					t.Fatalf("got %v, want no error", err)
				}
				wantTTL(t, s, "a", tc.want)
			})
		})
	}
}

func TestMemoryStoreHugeTTL(t *testing.T) {
	s := session.NewMemoryStore()
	createFor(t, s, "a", `{}`, math.MaxInt64)
	r, err := s.Load(t.Context(), "a")
	if err != nil || r.TTL < math.MaxInt64-time.Hour {
		t.Errorf("got %v left, %v, want 292 years, no error", r.TTL, err)
	}
	createFor(t, s, "b", `{}`, math.MinInt64)
	if _, err := s.Load(t.Context(), "b"); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("Load of a record born expired: got %v, want ErrNotFound", err)
	}
}

// An update that several faults stop reports the one that says most: a manager
// that hears ErrConflict loads and merges, which only makes sense for a live
// record, and one that hears ErrExists tries another ID with the same data.
func TestMemoryStoreUpdateOrderOfErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := session.NewMemoryStore()
		createFor(t, s, "expired", `{"a":1}`, time.Second)
		createFor(t, s, "taken by an expired one", `{}`, time.Second)
		createFor(t, s, "live", `{"a":1}`, time.Hour)
		pass(time.Minute)
		for _, tc := range []struct {
			name, id, old string
			want          error
		}{
			{"absent, stale, taken", "absent", `{"a":0}`, session.ErrNotFound},
			{"expired, stale, taken", "expired", `{"a":0}`, session.ErrNotFound},
			{"live, stale, taken", "live", `{"a":0}`, session.ErrConflict},
			{"live, fresh, taken", "live", `{"a":1}`, session.ErrExists},
		} {
			c := session.Change{Old: []byte(tc.old), New: []byte(`{"a":2}`), NewID: "taken by an expired one"}
			if err := s.Update(t.Context(), tc.id, c); !errors.Is(err, tc.want) {
				t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
			}
		}
	})
}

func TestMemoryStorePruneCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := session.NewMemoryStore()
		for _, id := range []string{"a", "b", "c"} {
			createFor(t, s, id, `{}`, time.Minute)
		}
		createFor(t, s, "live", `{}`, time.Hour)
		pass(2 * time.Minute)

		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if n, err := s.Prune(ended, time.Minute); n != 0 || err != nil {
			t.Errorf("Prune with an ended context: got %d, %v, want 0, no error", n, err)
		}
		if n, err := s.Prune(t.Context(), time.Minute); n != 3 || err != nil {
			t.Errorf("first Prune: got %d, %v, want 3, no error", n, err)
		}
		if n, err := s.Prune(t.Context(), time.Minute); n != 0 || err != nil {
			t.Errorf("second Prune: got %d, %v, want 0, no error", n, err)
		}
		wantTTL(t, s, "live", 58*time.Minute)
	})
}

func TestMemoryStoreLoadDoesNotAllocate(t *testing.T) {
	s := session.NewMemoryStore()
	createFor(t, s, "a", `{"a":1}`, time.Hour)
	got := testing.AllocsPerRun(100, func() {
		if _, err := s.Load(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	})
	if got != 0 {
		t.Errorf("allocations of a Load: got %v, want 0", got)
	}
}

func TestMemoryStoreLogs(t *testing.T) {
	s := session.NewMemoryStore()
	createFor(t, s, "the-session-id", `{"a":"the-data"}`, time.Hour)
	var out bytes.Buffer
	noTime := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: noTime})).Info("start", "store", s)
	if got, want := out.String(), "level=INFO msg=start store=memory\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
