package citus

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/citustest"
)

const cart = session.Key[int]("cart")

// Two programs, and all that a Manager does beside the usual: what one statement does on
// PostgreSQL takes several here.
func TestManager(t *testing.T) {
	pool, store := openTable(t, session.PostgresOptions{IndexKeys: []string{"user"}})
	citustest.Exec(t, pool, "CREATE TABLE "+schema+".orders (n int)")
	var mu sync.Mutex
	told := map[string]int{}
	m, err := session.New(store, session.Config{
		Secret: "kq7Vw2mT9xB4nR8sL1cZ6yH3pD5gJ0fa", DisablePrune: true, StoreTimeout: patience, UserKey: "user", MaxPerUser: 2,
		OnEvent: func(e session.Event) {
			mu.Lock()
			defer mu.Unlock()
			told[e.Kind+" "+e.Reason]++
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	login := func() *http.Cookie {
		return visit(t, m, nil, func(s *session.Session) {
			user.Set(s, "mia")
			cart.Set(s, 1)
		})
	}
	loggedIn := func(c *http.Cookie) (is bool) {
		visit(t, m, c, func(s *session.Session) { _, is = user.Get(s) })
		return is
	}

	t.Run("Transact: however many click, one order", func(t *testing.T) {
		c := login()
		var ordered atomic.Int64
		var clicks sync.WaitGroup
		for range 8 {
			clicks.Go(func() {
				visit(t, m, c, func(s *session.Session) {
					err := session.Transact(t.Context(), s, func(ctx context.Context, tx pgx.Tx) error {
						if n, _ := cart.Get(s); n == 0 {
							return nil
						}
						cart.Set(s, 0)
						ordered.Add(1)
						_, err := tx.Exec(ctx, "INSERT INTO "+schema+".orders VALUES (1)")
						return err
					})
					if err != nil {
						t.Errorf("Transact: %v", err)
					}
				})
			})
		}
		clicks.Wait()
		var orders int
		if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM "+schema+".orders").Scan(&orders); err != nil || orders != 1 || ordered.Load() != 1 {
			t.Errorf("orders: got %d of %d, %v, want 1", orders, ordered.Load(), err)
		}
	})
	t.Run("SaveTx, with a renewal", func(t *testing.T) {
		c := login()
		old := c
		c = visit(t, m, c, func(s *session.Session) {
			tx, err := pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			s.Renew()
			cart.Set(s, 7)
			if err := session.SaveTx(t.Context(), s, tx); err != nil {
				t.Errorf("SaveTx: %v", err)
			}
			if err := tx.Commit(t.Context()); err != nil {
				t.Error(err)
			}
		})
		visit(t, m, c, func(s *session.Session) {
			if n, _ := cart.Get(s); n != 7 {
				t.Errorf("cart: got %d, want 7", n)
			}
		})
		if loggedIn(old) {
			t.Error("the old ID is alive")
		}
	})
	t.Run("MaxPerUser", func(t *testing.T) {
		first := login()
		time.Sleep(5 * time.Millisecond) // of two logins in a millisecond either may be the later
		login()
		login()
		if loggedIn(first) {
			t.Error("the first of three sessions is alive, want two")
		}
	})
	t.Run("Edit", func(t *testing.T) {
		n, err := m.Edit(t.Context(), user.Is("mia"), func(s *session.Session) error { cart.Set(s, 9); return nil })
		if err != nil || n != 2 {
			t.Errorf("got %d, %v, want 2", n, err)
		}
	})
	t.Run("SetIdleTimeout moves an expiry back", func(t *testing.T) {
		c := login()
		visit(t, m, c, func(s *session.Session) { s.SetIdleTimeout(time.Minute) })
		visit(t, m, c, func(s *session.Session) {
			if left := s.ExpiresIn(); left > time.Minute {
				t.Errorf("left: got %v, want a minute", left)
			}
		})
	})
	t.Run("events of what is deleted", func(t *testing.T) {
		mu.Lock()
		clear(told)
		mu.Unlock()
		c := login()
		visit(t, m, c, func(s *session.Session) { s.Destroy() })
		if n, err := m.Revoke(t.Context(), user.Is("mia")); err != nil || n == 0 {
			t.Errorf("Revoke: got %d, %v", n, err)
		}
		if err := m.Close(); err != nil { // tells what is left
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if told["destroyed "] != 1 || told["revoked "] == 0 || told["revoked limit"] == 0 {
			t.Errorf("got %v, want one destroyed, and some revoked, by the limit too", told)
		}
	})
}
