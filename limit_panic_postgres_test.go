package session_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session"
)

func limited(c *session.Config) { c.UserKey, c.MaxPerUser = string(userKey), 1 }

// A tracer that panics in the look for sessions over the limit does so after the login.
func TestTracerPanicsInTheLimit(t *testing.T) {
	for name, enter := range map[string]func(*shop, *session.Session){
		"Save": func(_ *shop, s *session.Session) { logIn("ada")(s); _ = s.Save(context.Background()) },
		"Transact": func(_ *shop, s *session.Session) {
			_ = session.Transact(t.Context(), s, func(context.Context, pgx.Tx) error { logIn("ada")(s); return nil })
		},
		"SaveTx": func(shop *shop, s *session.Session) { handIn(t, shop, s, logIn("ada")) },
	} {
		shop := newShop(t, session.PostgresOptions{}, limited)
		b := &browser{m: shop.m}
		b.visit(func(s *session.Session) { keyA.Set(s, "a cart") })
		var panics atomic.Bool
		shop.trace.start = func(sql string) {
			if strings.Contains(sql, "surplus") && panics.Load() {
				panic("of a tracer")
			}
		}
		panics.Store(true)
		resp := ask(recovering(shop.m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			enter(shop, session.From(r.Context()))
		}))), request("POST", b.cookie))
		panics.Store(false)
		b.take(resp)
		got := ""
		b.visit(func(s *session.Session) { got, _ = keyA.Get(s) })
		if got != "a cart" {
			t.Errorf("%s: status %d, cookie %s: the cart is gone", name, resp.status, resp.sent())
		}
	}
}
