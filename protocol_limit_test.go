package session_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
)

// Of a login clicked twice under MaxPerUser the one that has saved and fails then sends no
// ID that the other has ended: its answer may come last.
func TestMaxPerUserAndTwoClicksOfWhichOneFails(t *testing.T) {
	for name, fail := range map[string]http.HandlerFunc{
		"a panic": func(http.ResponseWriter, *http.Request) { panic("of the handler") },
		"a Hijack": func(w http.ResponseWriter, _ *http.Request) {
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				conn.Close()
			}
		},
		"a token beside a cookie": func(_ http.ResponseWriter, r *http.Request) { session.From(r.Context()).UseToken() },
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, newHookedStore().whole(), session.Config{DisablePrune: true, UserKey: string(userKey), MaxPerUser: 1, TokenPrefix: "t_"})
			first := &browser{m: m}
			first.visit(func(s *session.Session) { keyA.Set(s, "a cart") })
			second := first.with(m)
			srv := startServer(t, "HTTP/1.1", recovering(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				logIn("ada")(s)
				save(t)(s)
				time.Sleep(5 * time.Millisecond) // the second is the later one
				second.visit(logIn("ada"))
				fail(w, r)
			}))))
			second.take(srv.do(t, "GET", first.cookie))
			second.wantUser(t, "ada")
		})
	}
}

// A panic in the look for sessions over the limit comes after the login is stored.
func TestPanicInTheLimit(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store.whole(), session.Config{DisablePrune: true, UserKey: string(userKey), MaxPerUser: 1})
	b := &browser{m: m}
	b.visit(func(s *session.Session) { keyA.Set(s, "a cart") })
	store.on("Find", func(context.Context, *storeCall, func() error) error { panic("of the store") })
	resp := ask(recovering(m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		logIn("ada")(session.From(r.Context()))
	}))), request("POST", b.cookie))
	store.on("Find", nil)
	b.take(resp)
	got := ""
	b.visit(func(s *session.Session) { got, _ = keyA.Get(s) })
	if got != "a cart" {
		t.Errorf("status %d, cookie %s: the cart is gone", resp.status, resp.sent())
	}
}

// The same for a login that ends the session before by itself: the cookie of the one
// that lives is not expired.
func TestMaxPerUserAndTwoClicksAfterDestroy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		m := newManager(t, store.whole(), session.Config{DisablePrune: true, UserKey: string(userKey), MaxPerUser: 1})
		first := &browser{m: m}
		first.visit(func(s *session.Session) { keyA.Set(s, "a cart") })
		second := first.with(m)
		enter := func(s *session.Session) { s.Destroy(); userKey.Set(s, "ada") }
		var looked atomic.Bool
		store.on("Find", func(_ context.Context, _ *storeCall, do func() error) error {
			if !looked.Swap(true) {
				time.Sleep(5 * time.Millisecond)
				second.visit(enter)
			}
			return do()
		})
		second.take(first.visit(enter))
		second.wantUser(t, "ada")
	})
}
