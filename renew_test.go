package session_test

import (
	"context"
	"testing"

	"github.com/pgsession/session"
)

// The end of a session ID, by renewal and by logout. Races are forced: the store
// holds a call at a gate, and each test says which.

func TestRenew(t *testing.T) {
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{}))
	old, oldID := *b, b.id()
	store.took()
	resp := b.visit(func(s *session.Session) {
		s.Renew()
		s.Renew() // twice is once
		keyA.Set(s, "1")
		if s.ID() != oldID {
			t.Error("ID before the commit: got another, want the old one")
		}
	})
	wantResponse(t, "renewal", resp, 200, "set")
	wantCalls(t, "renewal", store, "Load Update")
	if b.id() == oldID {
		t.Error("ID after a renewal: got the old one, want a new one")
	}
	b.visit(func(s *session.Session) {
		user, _ := userKey.Get(s)
		a, _ := keyA.Get(s)
		if user != "ada" || a != "1" {
			t.Errorf("data after a renewal: got %q, %q, want ada, 1", user, a)
		}
	})
	if got := old.user(); got != "" {
		t.Errorf("old ID: got user %q, want nobody", got)
	}
	if n := len(store.live(t)); n != 1 {
		t.Errorf("got %d records, want 1", n)
	}
}

func TestRenewAlone(t *testing.T) {
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{}))
	old := *b
	store.took()
	wantResponse(t, "renewal", b.visit(func(s *session.Session) { s.Renew() }), 200, "set")
	wantCalls(t, "renewal", store, "Load Update")
	if b.user() != "ada" || old.user() != "" {
		t.Error("got the session under the old ID, want it under the new one only")
	}
}

func TestDestroy(t *testing.T) {
	for _, c := range []struct {
		name   string
		do     func(*session.Session)
		calls  string
		cookie string
		user   string // at the next visit
		a      string
	}{
		{"alone, without a load", func(s *session.Session) { s.Destroy() }, "Delete", "expired", "", ""},
		{"twice", func(s *session.Session) { s.Destroy(); s.Destroy() }, "Delete", "expired", "", ""},
		{"after a read", func(s *session.Session) { userKey.Get(s); s.Destroy() }, "Load Delete", "expired", "", ""},
		{"beats Renew", func(s *session.Session) { s.Renew(); s.Destroy() }, "Load Delete", "expired", "", ""},
		{"beats Set", func(s *session.Session) { keyA.Set(s, "1"); s.Destroy() }, "Load Delete", "expired", "", ""},
		{"then Renew", func(s *session.Session) { s.Destroy(); s.Renew() }, "Delete", "expired", "", ""},
		{"then Get", func(s *session.Session) { s.Destroy(); userKey.Get(s) }, "Delete", "expired", "", ""},
		{"then Set", func(s *session.Session) { s.Destroy(); keyA.Set(s, "1") }, "Delete Create", "set", "", "1"},
		{"Set, Destroy, Set", func(s *session.Session) { keyB.Set(s, "0"); s.Destroy(); keyA.Set(s, "1") }, "Load Delete Create", "set", "", "1"},
		{"Destroy, Set, Destroy", func(s *session.Session) { s.Destroy(); keyA.Set(s, "1"); s.Destroy() }, "Delete", "expired", "", ""},
		{"Destroy, Set, Save, Destroy", func(s *session.Session) {
			s.Destroy()
			keyA.Set(s, "1")
			_ = s.Save(context.Background())
			s.Destroy()
		}, "Delete Create Delete", "expired", "", ""},
		{"Set, Save, Destroy", func(s *session.Session) {
			keyA.Set(s, "1")
			_ = s.Save(context.Background())
			s.Destroy()
		}, "Load Update Delete", "expired", "", ""},
		{"Renew, Save, Destroy", func(s *session.Session) {
			s.Renew()
			_ = s.Save(context.Background())
			s.Destroy()
		}, "Load Update Delete", "expired", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := newHookedStore()
			b := login(t, newManager(t, store, session.Config{}))
			old, oldID := *b, b.id()
			store.took()
			wantResponse(t, "destroy", b.visit(func(s *session.Session) {
				c.do(s)
				if s.ID() != "" {
					t.Error("ID after Destroy: got one, want none")
				}
			}), 200, c.cookie)
			wantCalls(t, "destroy", store, c.calls)
			live := store.live(t)
			if want := map[string]int{"set": 1, "expired": 0}[c.cookie]; len(live) != want {
				t.Errorf("got %d records, want %d", len(live), want)
			}
			if _, there := live[oldID]; there {
				t.Error("got the old ID used again, want a new one")
			}
			if got := old.user(); got != "" {
				t.Errorf("replay of the old cookie: got user %q, want nobody", got)
			}
			b.visit(func(s *session.Session) {
				user, _ := userKey.Get(s)
				a, _ := keyA.Get(s)
				if user != c.user || a != c.a {
					t.Errorf("next visit: got %q, %q, want %q, %q", user, a, c.user, c.a)
				}
				if _, ok := keyB.Get(s); ok {
					t.Error("next visit: got a value from before Destroy, want none")
				}
			})
		})
	}
}

func TestDestroyWithoutCookie(t *testing.T) {
	store := newHookedStore()
	b := &browser{m: newManager(t, store, session.Config{})}
	wantResponse(t, "nothing there", b.visit(func(s *session.Session) { s.Destroy() }), 200, "nothing")
	wantResponse(t, "new, changed", b.visit(func(s *session.Session) { keyA.Set(s, "1"); s.Destroy() }), 200, "nothing")
	wantCalls(t, "both", store, "")
}

// The gate is in Load: Destroy happens while another goroutine of the request
// waits for it.
func TestDestroyDuringLoad(t *testing.T) {
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{}))
	reached, release := store.gate("Load")
	resp := b.visit(func(s *session.Session) {
		got := make(chan bool)
		go func() {
			_, ok := userKey.Get(s)
			got <- ok
		}()
		<-reached
		s.Destroy()
		close(release)
		if <-got {
			t.Error("Get that overlapped Destroy: got a value, want none")
		}
	})
	wantResponse(t, "destroy", resp, 200, "expired")
	if n := len(store.live(t)); n != 0 {
		t.Errorf("got %d records, want none", n)
	}
}

// The gate is in Update or Create: the request destroys its session while its
// own commit is under way.
func TestDestroyDuringCommit(t *testing.T) {
	for _, c := range []struct {
		name  string
		fresh bool
		do    func(*session.Session)
	}{
		{"update", false, func(s *session.Session) { keyA.Set(s, "1") }},
		{"renewal", false, func(s *session.Session) { s.Renew() }},
		{"create", true, func(s *session.Session) { keyA.Set(s, "1") }},
	} {
		store := newHookedStore()
		m := newManager(t, store, session.Config{})
		b := &browser{m: m}
		if !c.fresh {
			b = login(t, m)
		}
		reached, release := store.gate("Create", "Update")
		b.visit(func(s *session.Session) {
			c.do(s)
			saved := make(chan error)
			go func() { saved <- s.Save(context.Background()) }()
			<-reached
			s.Destroy()
			close(release)
			if err := <-saved; err != nil {
				t.Errorf("%s: Save: got %v, want no error", c.name, err)
			}
		})
		if n := len(store.live(t)); n != 0 {
			t.Errorf("%s: got %d records, want none", c.name, n)
		}
		if b.user() != "" {
			t.Errorf("%s: got a user after Destroy, want nobody", c.name)
		}
	}
}
