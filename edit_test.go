package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
)

const planKey = session.Key[string]("plan")

// usersSessions returns browsers with a session each, of one user.
func usersSessions(t testing.TB, m *session.Manager, user string, n int) (all []*browser) {
	t.Helper()
	for range n {
		b := &browser{m: m}
		b.visit(func(s *session.Session) {
			userKey.Set(s, user)
			countKey.Set(s, 0)
			keyB.Set(s, "as it was")
		})
		all = append(all, b)
	}
	return all
}

// value returns what a browser's session has under a key.
func value[T any](b *browser, k session.Key[T]) (v T) {
	b.visit(func(s *session.Session) { v, _ = k.Get(s) })
	return v
}

func setPlan(s *session.Session) error {
	planKey.Set(s, "gold")
	return nil
}

func addOne(s *session.Session) error {
	countKey.Update(s, plusOne)
	return nil
}

// wantEdit runs an Edit and compares the number of sessions that it says it has
// changed.
func wantEdit(t *testing.T, m *session.Manager, f session.Filter, change func(*session.Session) error, want int64) {
	t.Helper()
	if n, err := m.Edit(t.Context(), f, change); n != want || err != nil {
		t.Errorf("Edit: got %d, %v, want %d", n, err, want)
	}
}

func TestEdit(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store.whole(), session.Config{DisablePrune: true})
	ada, bob := usersSessions(t, m, "ada", 120), usersSessions(t, m, "bob", 2)
	before := map[string]time.Duration{}
	for _, id := range store.named() {
		r, err := store.Store.Load(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		before[id] = r.TTL
	}
	store.took()
	wantEdit(t, m, userKey.Is("ada"), func(s *session.Session) error {
		if user, _ := userKey.Get(s); user != "ada" || s.IsNew() || s.ID() != "" || len(s.Handle()) != 32 || s.CreatedAt().IsZero() || len(s.Keys()) != 3 {
			t.Errorf("got another session than one of ada's, or its ID")
		}
		countKey.Delete(s)
		return setPlan(s)
	}, int64(len(ada)))
	calls := store.took()
	if finds, updates := strings.Count(calls, "Find"), strings.Count(calls, "Update"); finds != 1 || updates != len(ada) {
		t.Errorf("got %d times Find and %d Update, want 1 and %d", finds, updates, len(ada))
	}
	for id, ttl := range before {
		r, err := store.Store.Load(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if r.TTL > ttl {
			t.Fatal("got an expiry that moved")
		}
	}
	for _, b := range ada {
		if value(b, planKey) != "gold" || value(b, keyB) != "as it was" || value(b, countKey) != 0 {
			t.Fatal("got one of ada's sessions without the change, or with more")
		}
	}
	for _, b := range bob {
		if value(b, planKey) != "" {
			t.Error("got one of bob's sessions changed")
		}
	}
	store.took()
	wantEdit(t, m, userKey.Is("ada"), setPlan, 0)
	if calls := store.took(); strings.Contains(calls, "Update") {
		t.Error("where all is there already: got a write")
	}
	wantEdit(t, m, session.Everyone(), addOne, int64(len(ada)+len(bob)))
	bob[0].visit(func(s *session.Session) {
		wantEdit(t, m, userKey.Is("bob").Except(s), addOne, 1)
		wantEdit(t, m, userKey.Is("bob").Handle(s.Handle()), addOne, 1)
	})
	if one, other := value(bob[0], countKey), value(bob[1], countKey); one != 2 || other != 2 {
		t.Errorf("got %d and %d, want 2 and 2", one, other)
	}
}

// A session that is renewed while Edit is under way, before its turn and after it, is
// changed, and once.
func TestEditRenewalDoesNotEscape(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store.whole(), session.Config{DisablePrune: true})
	all := usersSessions(t, m, "ada", 9)
	turns := 0
	wantEdit(t, m, userKey.Is("ada"), func(s *session.Session) error {
		if turns++; turns == 5 {
			for _, b := range all { // half of them had their turn
				b.visit(func(s *session.Session) { s.Renew() })
			}
		}
		return addOne(s)
	}, int64(len(all)))
	for i, b := range all {
		if got := value(b, countKey); got != 1 {
			t.Errorf("session %d: got the change %d times, want once", i, got)
		}
	}
	if turns != len(all)+1 { // that of the fifth ran again
		t.Errorf("got %d calls, want %d", turns, len(all)+1)
	}
}

// An Edit takes so long that the mark of a renewal is gone when the session's turn comes.
func TestEditOutlivesMarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, session.NewMemoryStore(), session.Config{DisablePrune: true})
		all := usersSessions(t, m, "ada", 2)
		turns := 0
		wantEdit(t, m, userKey.Is("ada"), func(s *session.Session) error {
			if turns++; turns == 1 {
				first := s.Handle()
				for _, b := range all {
					b.visit(func(s *session.Session) {
						if s.Handle() != first {
							s.Renew()
						}
					})
				}
				<-time.After(16 * time.Minute)
				if n, err := m.Prune(t.Context()); n != 1 || err != nil {
					t.Errorf("got %d pruned, %v, want the mark", n, err)
				}
			}
			return addOne(s)
		}, 2)
		for _, b := range all {
			if got := value(b, countKey); got != 1 {
				t.Errorf("got the change %d times, want once", got)
			}
		}
	})
}

// A session that no longer is the user's when its turn comes is left alone, renewed
// or not.
func TestEditLeavesWhatIsNoLongerNamed(t *testing.T) {
	for _, renewed := range []bool{false, true} {
		m := newManager(t, session.NewMemoryStore(), session.Config{DisablePrune: true})
		all := usersSessions(t, m, "ada", 4)
		var first string
		wantEdit(t, m, userKey.Is("ada"), func(s *session.Session) error {
			if first == "" {
				first = s.Handle()
				for _, b := range all {
					b.visit(func(s *session.Session) {
						if s.Handle() == first {
							return
						}
						if renewed {
							s.Renew()
						}
						userKey.Set(s, "bob")
					})
				}
			}
			return setPlan(s)
		}, 1)
		for _, b := range all {
			if (value(b, planKey) == "gold") != (b.user() == "ada") {
				t.Errorf("renewed %t: got bob's session changed, or ada's not", renewed)
			}
		}
	}
}

// A request and an Edit change one session at once: neither loses what the other has
// stored, whoever comes first, and a function counts once.
func TestEditMergesWithRequests(t *testing.T) {
	m := newManager(t, session.NewMemoryStore(), session.Config{DisablePrune: true})
	t.Run("the request has loaded before", func(t *testing.T) {
		b := usersSessions(t, m, "ada", 1)[0]
		b.visit(func(s *session.Session) {
			increment(s)
			keyA.Set(s, "the request's")
			wantEdit(t, m, userKey.Is("ada").Handle(s.Handle()), func(s *session.Session) error {
				_ = addOne(s)
				return setPlan(s)
			}, 1)
		})
		if value(b, countKey) != 2 || value(b, planKey) != "gold" || value(b, keyA) != "the request's" {
			t.Error("got a change lost")
		}
	})
	t.Run("Edit has loaded before", func(t *testing.T) {
		b := usersSessions(t, m, "bob", 1)[0]
		runs := 0
		wantEdit(t, m, userKey.Is("bob"), func(s *session.Session) error {
			if runs++; runs == 1 {
				b.visit(func(s *session.Session) {
					increment(s)
					keyA.Set(s, "the request's")
				})
			}
			_ = addOne(s)
			return setPlan(s)
		}, 1)
		if value(b, countKey) != 2 || value(b, planKey) != "gold" || value(b, keyA) != "the request's" || runs != 2 {
			t.Errorf("got a change lost; %d runs, want 2", runs)
		}
	})
}

// The answer to a write is lost: the change is made once, and counted.
func TestEditLostAnswer(t *testing.T) {
	for _, tt := range []struct {
		name          string
		written, then bool // a request changes the session before it is looked at
	}{
		{"written", true, false},
		{"not written", false, false},
		{"written, then changed", true, true},
		{"not written, but changed", false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := newHookedStore()
			m := newManager(t, store.whole(), session.Config{DisablePrune: true})
			b := usersSessions(t, m, "ada", 1)[0]
			store.on("Update", func(_ context.Context, _ *storeCall, do func() error) error {
				store.on("Update", nil)
				if tt.written {
					if err := do(); err != nil {
						return err
					}
				}
				if tt.then {
					b.visit(increment)
				}
				return session.ErrUncertain
			})
			wantEdit(t, m, userKey.Is("ada"), addOne, 1)
			want := 1
			if tt.then {
				want = 2
			}
			if got := value(b, countKey); got != want {
				t.Errorf("got %d, want %d", got, want)
			}
		})
	}
}

// What ends an Edit: those before are changed and counted, the one under way is as it
// was.
func TestEditErrors(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store.whole(), session.Config{DisablePrune: true, MaxBytes: 1000})
	all := usersSessions(t, m, "ada", 3)
	errOfItsOwn := errors.New("the function's own")
	for _, tt := range []struct {
		name   string
		change func(s *session.Session) error
		want   error
	}{
		{"its own error", func(s *session.Session) error { _ = addOne(s); return errOfItsOwn }, errOfItsOwn},
		{"a reserved name", func(s *session.Session) error { session.Key[int]("cookie").Set(s, 1); return nil }, session.ErrInvalid},
		{"a value that does not encode", func(s *session.Session) error { session.Key[func()]("f").Set(s, nil); return nil }, session.ErrInvalid},
		{"too much data", func(s *session.Session) error { keyA.Set(s, strings.Repeat("x", 1000)); return nil }, session.ErrInvalid},
		{"Renew", func(s *session.Session) error { s.Renew(); return nil }, session.ErrInvalid},
		{"Destroy", func(s *session.Session) error { s.Destroy(); return nil }, session.ErrInvalid},
		{"Destroy, then Set", func(s *session.Session) error { s.Destroy(); return addOne(s) }, session.ErrInvalid},
		{"SetIdleTimeout", func(s *session.Session) error { s.SetIdleTimeout(time.Hour); return nil }, session.ErrInvalid},
		{"Save", func(s *session.Session) error { _ = addOne(s); return s.Save(context.Background()) }, session.ErrInvalid},
		{"Save, unheeded", func(s *session.Session) error { _ = s.Save(t.Context()); return addOne(s) }, session.ErrInvalid},
		{"Reload", func(s *session.Session) error { return s.Reload(t.Context()) }, session.ErrInvalid},
		{"UpdateNow", func(s *session.Session) error { _, err := countKey.UpdateNow(t.Context(), s, plusOne); return err }, session.ErrInvalid},
	} {
		turn := 0
		n, err := m.Edit(t.Context(), userKey.Is("ada"), func(s *session.Session) error {
			if turn++; turn == 2 {
				return tt.change(s)
			}
			keyA.Set(s, tt.name)
			return nil
		})
		if n != 1 || !errors.Is(err, tt.want) {
			t.Errorf("%s: got %d, %v, want 1, %v", tt.name, n, err, tt.want)
		}
		changed := 0
		for _, b := range all {
			if value(b, keyA) == tt.name {
				changed++
			}
			if value(b, countKey) != 0 {
				t.Errorf("%s: got the session changed", tt.name)
			}
		}
		if changed != 1 {
			t.Errorf("%s: got %d sessions changed, want 1", tt.name, changed)
		}
	}
	t.Run("the end of its context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		n, err := m.Edit(ctx, userKey.Is("ada"), func(s *session.Session) error { cancel(); return addOne(s) })
		if n != 1 || !errors.Is(err, context.Canceled) {
			t.Errorf("got %d, %v, want the one under way finished", n, err)
		}
		if n, err := m.Edit(ctx, userKey.Is("ada"), addOne); n != 0 || !errors.Is(err, context.Canceled) {
			t.Errorf("ended before: got %d, %v", n, err)
		}
	})
	t.Run("a panic", func(t *testing.T) {
		defer func() {
			if recover() == nil {
				t.Error("got it swallowed")
			}
		}()
		_, _ = m.Edit(t.Context(), userKey.Is("ada"), func(*session.Session) error { panic("the function's") })
	})
	t.Run("a session kept for longer", func(t *testing.T) {
		var kept *session.Session
		wantEdit(t, m, userKey.Is("ada"), func(s *session.Session) error { kept = s; return nil }, 0)
		if countKey.Set(kept, 7); !errors.Is(kept.Err(), session.ErrFinished) {
			t.Errorf("got %v, want ErrFinished", kept.Err())
		}
	})
	t.Run("the store down", func(t *testing.T) {
		for _, op := range []string{"Find", "Load", "Update"} {
			store.fail(op)
			if n, err := m.Edit(t.Context(), userKey.Is("ada"), setPlan); n != 0 || !errors.Is(err, errStoreDown) {
				t.Errorf("%s: got %d, %v", op, n, err)
			}
		}
		store.fail()
	})
}

// What cannot be edited at all is said before anything is read.
func TestEditRefuses(t *testing.T) {
	m := newManager(t, session.NewMemoryStore(), session.Config{DisablePrune: true})
	nameless := newHookedStore()
	for _, tt := range []struct {
		name string
		m    *session.Manager
		f    session.Filter
		want string
	}{
		{"nobody", m, session.Filter{}, "names no sessions"},
		{"an encrypted key", newManager(t, session.NewMemoryStore(), session.Config{Encrypt: true}), userKey.Is("ada"), "is encrypted"},
		{"a store that cannot find", newManager(t, newHookedStore(), session.Config{}), userKey.Is("ada"), "no Finder"},
		{"a store that loses the IDs", newManager(t, namelessStore{nameless.Store}, session.Config{}), session.Everyone(), "does not say the IDs"},
	} {
		n, err := tt.m.Edit(t.Context(), tt.f, func(*session.Session) error { t.Error("called"); return nil })
		if n != 0 || err == nil || !strings.Contains(err.Error(), "session: Edit: ") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %d, %v, want an error with %q", tt.name, n, err, tt.want)
		}
	}
}

// namelessStore is one that finds records and does not know their IDs.
type namelessStore struct{ session.Store }

func (namelessStore) Find(context.Context, session.Query) ([]session.Found, error) {
	return []session.Found{{Handle: "h"}}, nil
}

func (namelessStore) DeleteFound(context.Context, session.Query) (int64, error) { return 0, nil }

func (namelessStore) Handle(string) string { return "h" }

// A record that no secret opens is left alone, and said at the end; the others are
// changed.
func TestEditUnopened(t *testing.T) {
	store := session.NewMemoryStore()
	lost := newManager(t, store, session.Config{Secret: testSecretOld, Encrypt: true, UserKey: "user", DisablePrune: true})
	m := newManager(t, store, session.Config{Encrypt: true, UserKey: "user", DisablePrune: true})
	closed := usersSessions(t, lost, "ada", 1)
	all := usersSessions(t, m, "ada", 3)
	n, err := m.Edit(t.Context(), session.Everyone(), setPlan)
	if n != 3 || err == nil || !strings.Contains(err.Error(), "does not open") {
		t.Errorf("got %d, %v, want 3 changed, and the error", n, err)
	}
	for _, b := range all {
		if value(b, planKey) != "gold" {
			t.Error("got one not changed")
		}
	}
	if value(closed[0], planKey) != "" || closed[0].user() != "ada" {
		t.Error("got the record that does not open changed")
	}
}

// An expired or destroyed session is no error and is not brought back.
func TestEditEndsAreNoErrors(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store.whole(), session.Config{DisablePrune: true})
	all := usersSessions(t, m, "ada", 3)
	runs := 0
	n, err := m.Edit(t.Context(), userKey.Is("ada"), func(s *session.Session) error {
		if runs++; runs == 1 {
			for _, b := range all { // that one too
				if resp := b.with(m).visit(func(s *session.Session) { s.Destroy() }); resp.status != http.StatusOK {
					t.Fatal(fmt.Sprint("logout: got ", resp.status))
				}
			}
		}
		return addOne(s)
	})
	if n != 0 || err != nil || runs != 1 {
		t.Errorf("got %d, %v, %d runs, want 0 and one run", n, err, runs)
	}
	if len(store.live(t)) != 0 {
		t.Error("got a session back")
	}
}
