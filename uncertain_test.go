package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/pgsession/session"
)

// Writes whose answer was lost.

// lostAnswer answers the first write of a kind with ErrUncertain. Whether and
// when it happens: at once, never, or late: just before the manager's next
// write, so after it has looked.
type lostAnswer struct {
	when string // applied, lost, late
	mu   sync.Mutex
	n    int
	late func() error
	look func() // once, between the write and the manager's look at the record
}

func (u *lostAnswer) write(do func() error) error {
	u.mu.Lock()
	u.n++
	n, late := u.n, u.late
	u.late = nil
	u.mu.Unlock()
	if n > 1 {
		if late != nil {
			_ = late()
		}
		return do()
	}
	switch u.when {
	case "applied":
		_ = do()
	case "late":
		u.late = do
	}
	if u.look != nil {
		u.look()
	}
	return session.ErrUncertain
}

func (u *lostAnswer) into(s *hookedStore) {
	s.on("Create", func(_ context.Context, _ *storeCall, do func() error) error { return u.write(do) })
	s.on("Update", func(_ context.Context, _ *storeCall, do func() error) error {
		// As PostgreSQL: one statement cannot tell gone from changed.
		err := u.write(do)
		if errors.Is(err, session.ErrNotFound) {
			err = session.ErrConflict
		}
		return err
	})
}

func TestUncertainUpdate(t *testing.T) {
	for _, c := range []struct {
		name  string
		when  string
		other func(*session.Session) // lands between the write and the look
		count int
		a     string
		calls string
	}{
		{"applied", "applied", nil, 11, "mine", "Load Update Load"},
		{"lost", "lost", nil, 11, "mine", "Load Update Load Update"},
		{"late", "late", nil, 11, "mine", "Load Update Load Update Load"},
		{"applied, then another key changed", "applied", func(s *session.Session) { keyB.Set(s, "x") }, 11, "mine", "Load Update Load Update Load"},
		{"lost, then another key changed", "lost", func(s *session.Session) { keyB.Set(s, "x") }, 11, "mine", ""},
		{"late, but another key changed first", "late", func(s *session.Session) { keyB.Set(s, "x") }, 11, "mine", ""},
		{"applied, then the same keys changed", "applied", func(s *session.Session) {
			keyA.Set(s, "theirs")
			countKey.Update(s, func(n int) int { return n + 5 })
		}, 16, "theirs", ""},
		{"lost, then the same keys changed", "lost", func(s *session.Session) {
			keyA.Set(s, "theirs")
			countKey.Update(s, func(n int) int { return n + 5 })
		}, 16, "mine", ""},
		{"applied, then the very same change", "applied", changeBoth, 12, "mine", ""},
		{"lost, then the very same change", "lost", changeBoth, 12, "mine", ""},
		{"late, but the very same change first", "late", changeBoth, 12, "mine", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := newHookedStore()
			m := newManager(t, store, session.Config{})
			other := newManager(t, store.Store, session.Config{})
			b := login(t, m)
			b.visit(func(s *session.Session) { countKey.Set(s, 10); keyA.Set(s, "old") })
			store.took()
			u := &lostAnswer{when: c.when}
			if c.other != nil {
				u.look = func() { b.with(other).visit(c.other) }
			}
			u.into(store)
			resp := b.visit(changeBoth)
			wantResponse(t, "save", resp, 200, "nothing")
			if calls := store.took(); c.calls != "" && calls != c.calls && c.other == nil {
				t.Errorf("got calls %q, want %q", calls, c.calls)
			}
			b.visit(func(s *session.Session) {
				n, _ := countKey.Get(s)
				a, _ := keyA.Get(s)
				if n != c.count || a != c.a {
					t.Errorf("got %d, %q, want %d, %q", n, a, c.count, c.a)
				}
				if _, ok := keyB.Get(s); ok != (c.other != nil && c.count == 11) {
					t.Errorf("the other request's key: got %v", ok)
				}
			})
		})
	}
}

func changeBoth(s *session.Session) {
	countKey.Update(s, func(n int) int { return n + 1 })
	keyA.Set(s, "mine")
}

// A record tells which programs have counted last. So many others that it cannot
// tell any more: the application hears that nobody knows.
func TestUncertainUpdateAmongMany(t *testing.T) {
	for _, when := range []string{"applied", "lost"} {
		for _, others := range []int{7, 8} {
			store := newHookedStore()
			m := newManager(t, store, session.Config{})
			b := login(t, m)
			b.visit(func(s *session.Session) { countKey.Set(s, 10) })
			u := &lostAnswer{when: when}
			u.look = func() {
				for range others {
					b.with(newManager(t, store.Store, session.Config{})).visit(changeBoth)
				}
			}
			u.into(store)
			status, cookie, count := 200, "nothing", 11+others
			if others == 8 {
				status = 503
				if when == "lost" {
					count--
				}
			}
			wantResponse(t, fmt.Sprintf("%s, then %d others", when, others), b.visit(changeBoth), status, cookie)
			b.visit(func(s *session.Session) {
				if n, _ := countKey.Get(s); n != count {
					t.Errorf("%s, then %d others: got count %d, want %d", when, others, n, count)
				}
			})
		}
	}
}

// An attempt without an answer that turns out not to have happened, because
// somebody else's change stands there instead, is over: a later conflict is
// merged as any other.
func TestUncertainUpdateThenConflict(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	other := newManager(t, store.Store, session.Config{})
	b := login(t, m)
	b.visit(func(s *session.Session) { countKey.Set(s, 10) })
	try := 0
	store.on("Update", func(_ context.Context, _ *storeCall, do func() error) error {
		switch try++; try {
		case 1: // lost; another program changes another key
			b.with(other).visit(func(s *session.Session) { keyB.Set(s, "x") })
			return session.ErrUncertain
		case 2: // another program counts as well, first
			b.with(other).visit(func(s *session.Session) { countKey.Update(s, func(n int) int { return n + 1 }) })
		}
		return do()
	})
	wantResponse(t, "save", b.visit(func(s *session.Session) { countKey.Update(s, func(n int) int { return n + 1 }) }), 200, "nothing")
	b.visit(func(s *session.Session) {
		if n, _ := countKey.Get(s); n != 12 {
			t.Errorf("count: got %d, want 12", n)
		}
	})
}

func TestUncertainRenew(t *testing.T) {
	for _, c := range []struct {
		when  string
		calls string
	}{
		{"applied", "Load Update Load Load"},
		{"lost", "Load Update Load Update"},
		{"late", "Load Update Load Update Load Load"},
	} {
		t.Run(c.when, func(t *testing.T) {
			store := newHookedStore()
			m := newManager(t, store, session.Config{})
			b := login(t, m)
			b.visit(func(s *session.Session) { countKey.Set(s, 10) })
			old := *b
			store.took()
			(&lostAnswer{when: c.when}).into(store)
			resp := b.visit(func(s *session.Session) {
				s.Renew()
				countKey.Update(s, func(n int) int { return n + 1 })
			})
			wantResponse(t, "renewal", resp, 200, "set")
			wantCalls(t, "renewal", store, c.calls)
			b.visit(func(s *session.Session) {
				if n, _ := countKey.Get(s); n != 11 {
					t.Errorf("count: got %d, want 11", n)
				}
			})
			if old.user() != "" {
				t.Error("old ID: got the session, want nothing")
			}
			if n := len(store.live(t)); n != 1 {
				t.Errorf("got %d records, want 1", n)
			}
		})
	}
}

func TestUncertainCreate(t *testing.T) {
	for _, c := range []struct {
		when  string
		calls string
	}{
		{"applied", "Create Load"},
		{"lost", "Create Load Create"},
		{"late", "Create Load Create Load"},
	} {
		t.Run(c.when, func(t *testing.T) {
			store := newHookedStore()
			b := &browser{m: newManager(t, store, session.Config{})}
			(&lostAnswer{when: c.when}).into(store)
			resp := b.visit(func(s *session.Session) { countKey.Update(s, func(n int) int { return n + 1 }) })
			wantResponse(t, "create", resp, 200, "set")
			wantCalls(t, "create", store, c.calls)
			b.visit(func(s *session.Session) {
				if n, _ := countKey.Get(s); n != 1 {
					t.Errorf("count: got %d, want 1", n)
				}
			})
			if n := len(store.live(t)); n != 1 {
				t.Errorf("got %d records, want 1: no duplicate, no orphan", n)
			}
		})
	}
}

// A renewal that has not happened is made with all its changes, whoever has
// changed the same keys meanwhile.
func TestUncertainRenewThenChanged(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	other := newManager(t, store.Store, session.Config{})
	b := login(t, m)
	b.visit(func(s *session.Session) { countKey.Set(s, 10) })
	u := &lostAnswer{when: "lost", look: func() { b.with(other).visit(changeBoth) }}
	u.into(store)
	wantResponse(t, "renewal", b.visit(func(s *session.Session) { s.Renew(); changeBoth(s) }), 200, "set")
	b.visit(func(s *session.Session) {
		if n, _ := countKey.Get(s); n != 12 {
			t.Errorf("count: got %d, want 12", n)
		}
	})
}

// A session that ended after the write without an answer: nothing comes back.
func TestUncertainThenGone(t *testing.T) {
	for _, when := range []string{"applied", "lost", "late"} {
		for _, what := range []string{"update", "renew"} {
			store := newHookedStore()
			m := newManager(t, store, session.Config{})
			b := login(t, m)
			u := &lostAnswer{when: when}
			u.look = func() {
				for id := range store.live(t) { // a logout of all sessions
					_ = store.Store.Delete(t.Context(), id)
				}
			}
			u.into(store)
			resp := b.visit(func(s *session.Session) {
				if what == "renew" {
					s.Renew()
				}
				keyA.Set(s, "1")
			})
			wantResponse(t, when+" "+what, resp, 409, "nothing")
			if n := len(store.live(t)); n != 0 {
				t.Errorf("%s %s: got %d records, want none", when, what, n)
			}
		}
	}
}

// No look possible: the application must hear that nobody knows.
func TestUncertainWithoutALook(t *testing.T) {
	for _, what := range []string{"update", "create"} {
		store := newHookedStore()
		var got error
		m := newManager(t, store, session.Config{ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			got = err
			w.WriteHeader(503)
		}})
		b := &browser{m: m}
		if what == "update" {
			b = login(t, m)
		}
		u := &lostAnswer{when: "applied"}
		u.look = func() {
			store.on("Load", fails(errStoreDown))
		}
		u.into(store)
		wantResponse(t, what, b.visit(func(s *session.Session) { keyA.Set(s, "1") }), 503, "nothing")
		if !errors.Is(got, session.ErrUncertain) || !errors.Is(got, errStoreDown) {
			t.Errorf("%s: got %v, want ErrUncertain and the store's error", what, got)
		}
	}
}
