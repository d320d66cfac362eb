package session_test

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pgsession/session"
)

// handed is a transaction of the application's, of pgx or database/sql.
type handed struct {
	save     func(s *session.Session) error
	exec     func(sql string, args ...any) error
	commit   func() error
	rollback func() error
}

// hands are the ways to begin one.
var hands = []struct {
	name  string
	begin func(testing.TB, *shop) handed
}{
	{"pgx", func(t testing.TB, shop *shop) handed {
		tx, err := shop.pool.Begin(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return handed{
			func(s *session.Session) error { return session.SaveTx(t.Context(), s, tx) },
			func(sql string, args ...any) error { _, err := tx.Exec(context.Background(), sql, args...); return err },
			func() error { return tx.Commit(context.Background()) },
			func() error { return tx.Rollback(context.Background()) },
		}
	}},
	{"database/sql", func(t testing.TB, shop *shop) handed {
		db := stdlib.OpenDBFromPool(shop.pool)
		t.Cleanup(func() { db.Close() })
		tx, err := db.BeginTx(context.Background(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
		if err != nil {
			t.Fatal(err)
		}
		return handed{
			func(s *session.Session) error { return session.SaveSQLTx(t.Context(), s, tx) },
			func(sql string, args ...any) error { _, err := tx.Exec(sql, args...); return err },
			tx.Commit, tx.Rollback,
		}
	}},
}

func TestSaveTx(t *testing.T) {
	for _, h := range hands {
		for _, c := range transactions {
			t.Run(h.name+", "+c.name, func(t *testing.T) {
				shop := newShop(t, c.opts, c.cfg)
				b := shop.fill(t)
				buy := func(end func(handed) error) *response {
					return b.visit(func(s *session.Session) {
						items, _ := cartKey.Get(s)
						tx := h.begin(t, shop)
						cartKey.Delete(s)
						increment(s)
						if err := errors.Join(tx.exec("INSERT INTO orders (what) VALUES ($1)", items[0]), tx.save(s), end(tx)); err != nil {
							t.Error(err)
						}
					})
				}
				wantResponse(t, "rolled back", buy(func(tx handed) error { return tx.rollback() }), 200, "nothing")
				shop.wantOrders(t, 0)
				if got := cartOf(b); len(got) != 1 {
					t.Errorf("cart after ROLLBACK: got %d items, want the one", len(got))
				}
				shop.trace.take()
				wantResponse(t, "committed", buy(func(tx handed) error { return tx.commit() }), 200, "nothing")
				if got := shop.trace.take(); len(got) > 5 || h.name == "pgx" && len(got) != 5 {
					t.Errorf("statements: got %q, want load, begin, insert, save, commit", got)
				}
				shop.wantOrders(t, 1)
				if got, n := cartOf(b), counted(t, shop.m, b.cookie); got != nil || n != 1 {
					t.Errorf("after COMMIT: got %d items and count %d, want none and 1", len(got), n)
				}
			})
		}
	}
}

// A response says an ID that SaveTx has made only once that is committed.
func TestSaveTxNewIDs(t *testing.T) {
	for _, h := range hands {
		t.Run(h.name, func(t *testing.T) {
			shop := newShop(t, session.PostgresOptions{})
			set := func(user string, end func(handed) error) func(*session.Session) {
				return func(s *session.Session) {
					tx := h.begin(t, shop)
					s.Renew()
					userKey.Set(s, user)
					if err := errors.Join(tx.save(s), end(tx)); err != nil {
						t.Error(err)
					}
				}
			}
			commit, rollback := func(tx handed) error { return tx.commit() }, func(tx handed) error { return tx.rollback() }
			b := &browser{m: shop.m}
			wantResponse(t, "a new session, rolled back", b.visit(set("ada", rollback)), 200, "nothing")
			wantResponse(t, "a new session", b.visit(set("ada", commit)), 200, "set")
			b.wantUser(t, "ada")
			wantResponse(t, "a renewal, rolled back", b.visit(set("eve", rollback)), 200, "nothing")
			b.wantUser(t, "ada")
			wantResponse(t, "a renewal, rolled back, and Reload", b.visit(func(s *session.Session) {
				set("eve", rollback)(s)
				if err := s.Reload(t.Context()); err != nil {
					t.Error(err)
				}
				if user, _ := userKey.Get(s); user != "ada" {
					t.Errorf("user after Reload: got %q, want ada", user)
				}
				keyA.Set(s, "after")
			}), 200, "nothing")
			old := b.cookie
			wantResponse(t, "a renewal", b.visit(set("bob", commit)), 200, "set")
			b.wantUser(t, "bob")
			(&browser{shop.m, old}).wantUser(t, "")

			resp := b.begin()
			resp.serve(func(_ http.ResponseWriter, r *http.Request) { set("cem", commit)(session.From(r.Context())) })
			resp.serve(func(w http.ResponseWriter, _ *http.Request) { panic("after it") })
			if r := resp.end(); r.sent() != "set" {
				t.Errorf("after a panic: got cookie %s, want the new ID's", r.sent())
			}
			b.wantUser(t, "cem")

			wantResponse(t, "twice in one transaction, and more", b.visit(func(s *session.Session) {
				tx := h.begin(t, shop)
				s.Renew()
				err := tx.save(s)
				keyA.Set(s, "inside")
				if err := errors.Join(err, tx.save(s), tx.commit()); err != nil {
					t.Error(err)
				}
				keyB.Set(s, "later")
			}), 200, "set")
			b.visit(func(s *session.Session) {
				a, _ := keyA.Get(s)
				z, _ := keyB.Get(s)
				if a != "inside" || z != "later" {
					t.Errorf("got %q and %q, want inside and later", a, z)
				}
			})
			old = b.cookie
			wantResponse(t, "and destroyed", b.visit(func(s *session.Session) { set("dee", commit)(s); s.Destroy() }), 200, "expired")
			if n := countRecords(t, shop.admin); n != 0 {
				t.Errorf("records after Destroy: got %d, want none", n)
			}
			(&browser{shop.m, old}).wantUser(t, "")
		})
	}
}

// Where another request was first nothing is merged: what the transaction holds was
// made from what was loaded.
func TestSaveTxConflict(t *testing.T) {
	for _, c := range []struct {
		name  string
		other func(*session.Session)
		mine  func(*session.Session)
		want  error
	}{
		{"changed", increment, func(s *session.Session) { cartKey.Delete(s) }, session.ErrConflict},
		{"changed, to what this one sets", func(s *session.Session) { keyA.Set(s, "x") }, func(s *session.Session) { keyA.Set(s, "x") }, session.ErrConflict},
		{"changed, and set to what was loaded", increment, func(s *session.Session) { cartKey.Set(s, []string{"tea"}) }, session.ErrConflict},
		{"destroyed", destroy, func(s *session.Session) { cartKey.Delete(s) }, session.ErrDestroyed},
		{"renewed", logIn("bob"), func(s *session.Session) { cartKey.Delete(s) }, session.ErrRenewed},
	} {
		t.Run(c.name, func(t *testing.T) {
			shop := newShop(t, session.PostgresOptions{})
			b := shop.fill(t)
			r := (&browser{shop.m, b.cookie}).begin()
			r.do(func(s *session.Session) { cartKey.Get(s) })
			b.visit(c.other)
			r.do(func(s *session.Session) {
				tx := hands[0].begin(t, shop)
				c.mine(s)
				if err := tx.save(s); !errors.Is(err, c.want) || !errors.Is(s.Err(), c.want) {
					t.Errorf("got %v, want %v, and that it sticks", err, c.want)
				}
				if err := tx.rollback(); err != nil {
					t.Error(err)
				}
			})
			if resp := r.end(); resp.status != 409 || resp.sent() != "nothing" {
				t.Errorf("got status %d, cookie %s, want 409 and none", resp.status, resp.sent())
			}
			if c.name == "changed" {
				if got := cartOf(b); len(got) != 1 {
					t.Errorf("cart: got %d items, want the one", len(got))
				}
			}
		})
	}
}

// It waits for the row, no longer than its context, and leaves the caller's
// lock_timeout alone. Without a change it does nothing.
func TestSaveTxWaits(t *testing.T) {
	shop := newShop(t, session.PostgresOptions{})
	b := shop.fill(t)
	unlock := holdOpen(t, shop.admin, "SELECT FROM schema_system.session FOR UPDATE")
	closed := true
	wait := func(s *session.Session) {
		tx, err := shop.pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback(context.Background())
		cartKey.Get(s)
		shop.trace.take()
		if err := session.SaveTx(t.Context(), s, tx); err != nil || len(shop.trace.take()) != 0 {
			t.Errorf("without a change: got %v, or a statement", err)
		}
		increment(s)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if err := session.SaveTx(ctx, s, tx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
		if closed = tx.Conn().IsClosed(); closed {
			return // a statement was cut short
		}
		var timeout string
		if err := tx.QueryRow(t.Context(), "SELECT current_setting('lock_timeout')").Scan(&timeout); err != nil || timeout != "0" {
			t.Errorf("lock_timeout afterwards: got %s, %v, want the caller's", timeout, err)
		}
	}
	for tries := 0; tries < 10 && closed; tries++ { // on a busy machine one may be under way at the deadline
		if resp := b.visit(wait); resp.status != 503 {
			t.Errorf("got status %d, want 503", resp.status)
		}
	}
	if closed {
		t.Error("the transaction's connection is closed each time, want it as it was")
	}
	unlock()
}

// After the first byte no ID can be made.
func TestSaveTxLate(t *testing.T) {
	shop := newShop(t, session.PostgresOptions{})
	b := &browser{m: shop.m}
	resp := b.serve(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "page")
		s := session.From(r.Context())
		err := session.Transact(t.Context(), s, func(context.Context, pgx.Tx) error { userKey.Set(s, "ada"); return nil })
		if !errors.Is(err, session.ErrHeaderSent) {
			t.Errorf("got %v, want ErrHeaderSent", err)
		}
	})
	if resp.err == nil || countRecords(t, shop.admin) != 0 {
		t.Error("got a complete response, or a record, want neither")
	}
}
