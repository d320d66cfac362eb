package session_test

import (
	"errors"
	"testing"

	"github.com/pgsession/session"
)

func TestReload(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	b := login(t, m)
	other := b.with(m)
	resp := b.visit(func(s *session.Session) {
		userKey.Get(s)
		keyB.Set(s, "mine")
		countKey.Update(s, func(n int) int { return n + 1 })
		other.visit(func(s *session.Session) {
			keyA.Set(s, "theirs")
			keyB.Set(s, "theirs")
			countKey.Set(s, 10)
		})
		if err := s.Reload(t.Context()); err != nil {
			t.Errorf("Reload: got %v, want no error", err)
		}
		a, _ := keyA.Get(s)
		bb, _ := keyB.Get(s)
		n, _ := countKey.Get(s)
		if a != "theirs" || bb != "mine" || n != 11 {
			t.Errorf("after Reload: got %q, %q, %d, want theirs, mine, 11", a, bb, n)
		}
	})
	wantResponse(t, "reloaded", resp, 200, "nothing")
	b.visit(func(s *session.Session) {
		a, _ := keyA.Get(s)
		bb, _ := keyB.Get(s)
		n, _ := countKey.Get(s)
		if a != "theirs" || bb != "mine" || n != 11 {
			t.Errorf("stored: got %q, %q, %d, want theirs, mine, 11", a, bb, n)
		}
	})
}

func TestReloadWithoutRecord(t *testing.T) {
	store := newHookedStore()
	b := &browser{m: newManager(t, store, session.Config{})}
	b.visit(func(s *session.Session) {
		if err := s.Reload(t.Context()); err != nil {
			t.Errorf("Reload: got %v, want no error", err)
		}
	})
	wantCalls(t, "no record", store, "")
}

func TestReloadAfterTheEnd(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(*session.Session)
	}{
		{"logout elsewhere", func(s *session.Session) { s.Destroy() }},
		{"renewal elsewhere", func(s *session.Session) { s.Renew() }},
	} {
		store := newHookedStore()
		m := newManager(t, store, session.Config{})
		b := login(t, m)
		other := b.with(m)
		resp := b.visit(func(s *session.Session) {
			userKey.Get(s)
			other.visit(c.end)
			if err := s.Reload(t.Context()); !errors.Is(err, session.ErrDestroyed) {
				t.Errorf("%s: Reload: got %v, want ErrDestroyed", c.name, err)
			}
			if _, ok := userKey.Get(s); ok || s.ID() != "" {
				t.Errorf("%s: got data or an ID after the end, want neither", c.name)
			}
			keyA.Set(s, "1")
			if _, ok := keyA.Get(s); ok {
				t.Errorf("%s: Set after the end: got it accepted, want it refused", c.name)
			}
			if err := s.Err(); !errors.Is(err, session.ErrDestroyed) {
				t.Errorf("%s: Err: got %v, want ErrDestroyed", c.name, err)
			}
		})
		wantResponse(t, c.name, resp, 409, "nothing")
		if c.name == "logout elsewhere" && len(store.live(t)) != 0 {
			t.Errorf("%s: got a record, want none", c.name)
		}
	}
}

func TestReloadTransientErrorDoesNotStick(t *testing.T) {
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{}))
	resp := b.visit(func(s *session.Session) {
		keyA.Set(s, "1")
		store.on("Load", fails(errStoreDown))
		if err := s.Reload(t.Context()); !errors.Is(err, errStoreDown) {
			t.Errorf("Reload: got %v, want the store's error", err)
		}
		store.on("Load", nil)
		if err := s.Err(); err != nil {
			t.Errorf("Err: got %v, want none", err)
		}
		if user, _ := userKey.Get(s); user != "ada" {
			t.Errorf("Get: got %q, want ada", user)
		}
		if err := s.Reload(t.Context()); err != nil {
			t.Errorf("Reload: got %v, want no error", err)
		}
	})
	wantResponse(t, "recovered", resp, 200, "nothing")
	b.visit(func(s *session.Session) {
		if a, _ := keyA.Get(s); a != "1" {
			t.Errorf("stored: got %q, want 1", a)
		}
	})
}

func TestReloadDoesNotExtend(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{TouchInterval: 1})
	b := login(t, m)
	store.took()
	b.visit(func(s *session.Session) {
		userKey.Get(s)
		_ = s.Reload(t.Context())
		wantCalls(t, "Reload", store, "Load Load")
		s.Detach()
	})
}
