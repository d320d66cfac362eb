package sessiontest_test

import (
	"testing"
	"testing/synctest"

	"github.com/pgsession/session"
	"github.com/pgsession/session/sessiontest"
)

// What code finds in its context is a session as in a handler, and what it does with
// it is stored when the test ends.
func TestContext(t *testing.T) {
	for _, tc := range managers {
		t.Run(tc.name, func(t *testing.T) {
			store := session.NewMemoryStore()
			m := newManager(t, store, tc.cfg)
			t.Run("a visitor's", func(t *testing.T) {
				ctx := sessiontest.Context(t, m, nil)
				wantUser(t, session.From(ctx), "")
				if session.From(ctx) != m.From(ctx) || session.From(ctx).ID() != "" {
					t.Error("got another session of the manager, or one with an ID")
				}
			})
			if got := m.Stats(); got.Creates != 0 {
				t.Errorf("a visitor's: got %d sessions created, want 0", got.Creates)
			}
			var id string
			t.Run("a user's", func(t *testing.T) {
				s := session.From(sessiontest.Context(t, m, asAda))
				wantUser(t, s, "ada")
				before := s.ID()
				s.Renew()
				if err := s.Save(t.Context()); err != nil || s.ID() == before {
					t.Errorf("got %v and the ID of before: %t", err, s.ID() == before)
				}
				id = s.ID()
				cart.Set(s, []string{"tea"})
			})
			if _, err := store.Load(t.Context(), id); err != nil {
				t.Fatalf("got %v, want the session under its new ID", err)
			}
			if got := m.Stats(); got.Saves != 2 {
				t.Errorf("got %d saves, want that of Save and that at the end", got.Saves)
			}
			t.Run("logout", func(t *testing.T) { session.From(sessiontest.Context(t, m, asAda)).Destroy() })
			if got := m.Stats(); got.Destroys != 1 {
				t.Errorf("logout: got %d destroyed, want 1", got.Destroys)
			}
		})
	}
	t.Run("in a bubble", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			wantUser(t, session.From(sessiontest.Context(t, sessiontest.NewManager(t), asAda)), "ada")
		})
	})
	if got := fatal(t, func(t testing.TB) {
		sessiontest.Context(t, sessiontest.NewManager(t), func(*session.Session) {})
	}); got == "" {
		t.Error("nothing set: got no failure")
	}
}
