package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// Features that meet in one request.

// A browser that fetches ahead changes nothing by any of the calls that save, and the
// function of a transaction does not run.
func TestSpeculationDeclinesTransactions(t *testing.T) {
	shop := newShop(t, session.PostgresOptions{})
	b := shop.fill(t)
	tx, err := shop.admin.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	for name, call := range map[string]func(*session.Session) error{
		"Transact": func(s *session.Session) error {
			return session.Transact(t.Context(), s, func(context.Context, pgx.Tx) error {
				t.Error("Transact: the function runs")
				return nil
			})
		},
		"SaveTx": func(s *session.Session) error {
			return session.SaveTx(t.Context(), s, tx)
		},
		"UpdateNow": func(s *session.Session) error {
			_, err := countKey.UpdateNow(t.Context(), s, plusOne)
			return err
		},
	} {
		resp := b.speculate(onSpeculation(func(s *session.Session) {
			if err := call(s); err == nil || errors.Is(err, session.ErrInvalid) || errors.Is(err, session.ErrDestroyed) {
				t.Errorf("%s: got %v, want an error of its own", name, err)
			}
		}))
		if resp.status != 503 || resp.sent() != "nothing" {
			t.Errorf("%s: got status %d and cookie %s, want 503 and nothing", name, resp.status, resp.sent())
		}
	}
	if got := cartOf(b); len(got) != 1 {
		t.Errorf("the cart: got %d items, want the one", len(got))
	}
}

// What Config.UserKey makes of another user, and of none, it makes in a transaction
// too; and Edit, which is no request of the user's, changes no user.
func TestUserKeyInTransactionsAndEdits(t *testing.T) {
	for _, c := range transactions {
		t.Run(c.name, func(t *testing.T) {
			shop := newShop(t, c.opts, c.cfg, func(c *session.Config) { c.UserKey = "user" })
			b := shop.fill(t)
			set := func(user string) {
				t.Helper()
				b.visit(func(s *session.Session) {
					err := session.Transact(t.Context(), s, func(context.Context, pgx.Tx) error {
						if user == "" {
							userKey.Delete(s)
						} else {
							userKey.Set(s, user)
						}
						return nil
					})
					if err != nil {
						t.Errorf("Transact: got %v, want no error", err)
					}
				})
			}
			edit := func(change func(*session.Session) error) {
				t.Helper()
				// With hashed IDs and sealed data Edit is refused altogether.
				if n, err := shop.m.Edit(t.Context(), userKey.Is("ada"), change); n != 0 || !errors.Is(err, session.ErrInvalid) && !c.opts.HashIDs {
					t.Errorf("Edit: got %d, %v, want none and ErrInvalid", n, err)
				}
			}
			edit(func(s *session.Session) error { userKey.Set(s, "bob"); return nil })
			edit(func(s *session.Session) error { userKey.Delete(s); return nil })
			b.wantUser(t, "ada")
			id := b.id()
			set("ada")
			if b.id() != id || len(cartOf(b)) != 1 {
				t.Error("the same user again: got another ID or another cart, want both as they were")
			}
			set("bob")
			b.wantUser(t, "bob")
			if b.id() == id || len(cartOf(b)) != 0 {
				t.Errorf("another user: the same ID %t, %d items, want a fresh session", b.id() == id, len(cartOf(b)))
			}
			set("")
			if got := countRecords(t, shop.admin); got != 0 {
				t.Errorf("records without a user: got %d, want none", got)
			}
		})
	}
}

// A session that begins in a transaction is of the kind that its client asked for.
func TestTokenInTransactions(t *testing.T) {
	shop := newShop(t, session.PostgresOptions{}, func(c *session.Config) { c.TokenPrefix, c.UserKey = testPrefix, "user" })
	c := &client{m: shop.m}
	in := func(f func(*session.Session)) func(*session.Session) {
		return func(s *session.Session) {
			if err := session.Transact(t.Context(), s, func(context.Context, pgx.Tx) error { f(s); return nil }); err != nil {
				t.Errorf("Transact: got %v, want no error", err)
			}
		}
	}
	wantToken(t, "login", c.visit(func(s *session.Session) {
		s.UseToken()
		in(func(s *session.Session) { userKey.Set(s, "ada") })(s)
	}), 200, true)
	first := c.token
	wantToken(t, "another user", c.visit(in(func(s *session.Session) { userKey.Set(s, "bob") })), 200, true)
	if got := c.user(); got != "bob" || c.token == first {
		t.Errorf("got user %q and the token of before: %t, want bob and another", got, c.token == first)
	}
	wantToken(t, "logout", c.visit(in(func(s *session.Session) { s.Destroy() })), 200, false)
	if got := countRecords(t, shop.admin); got != 0 {
		t.Errorf("records after the logout: got %d, want none", got)
	}
}

// A key that is asked for in a transaction is registered, proven and kept by a renewal
// in another as if there were none.
func TestDeviceBoundInTransactions(t *testing.T) {
	var cfg session.Config
	withBinding(&cfg)
	cfg.StoreTimeout = patience
	b := &boundSite{t: t, m: newManager(t, newStore(t, pgtest.Pool(t), session.PostgresOptions{HashIDs: true}), cfg)}
	b.h = b.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		err := session.Transact(r.Context(), s, func(context.Context, pgx.Tx) error {
			switch r.URL.Path {
			case "/login":
				s.Renew()
				s.Bind()
				userKey.Set(s, "ada")
			case "/renew":
				s.Renew()
			case "/logout":
				s.Destroy()
			}
			return nil
		})
		if err != nil {
			t.Errorf("Transact at %s: got %v, want no error", r.URL.Path, err)
		}
		user, ok := userKey.Get(s)
		if !ok {
			user = "nobody"
		}
		fmt.Fprintf(w, "%s %v", user, s.Bound())
	}))
	u := b.unit()
	want(t, "login", u.send("POST", "/login"), 200, "ada false")
	want(t, "registration", u.register(), 200, "refresh_url")
	want(t, "a proven request", u.get("/"), 200, "ada true")
	thief := u.copied()
	want(t, "renewal", u.send("POST", "/renew"), 200, "ada true")
	want(t, "the cookies of before", thief.get("/"), 200, "nobody false")
	want(t, "a refresh after it", u.forget().refresh(), 200, "")
	want(t, "a page after it", u.get("/"), 200, "ada true")
	want(t, "logout", u.send("POST", "/logout"), 200, "nobody false")
}
