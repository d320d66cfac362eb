// Package bridgetest has what the tests of all bridges need.
package bridgetest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/pgsession/session"
)

// StaticPage tests that a page which uses no session costs none under bridge, and
// is there when the store is not, for a browser without an old cookie.
func StaticPage(t *testing.T, bridge func(next http.Handler) http.Handler) {
	t.Helper()
	store := &store{Store: session.NewMemoryStore()}
	m, err := session.New(store, session.Config{ // #nosec G101 -- for tests
		Secret: "kq7Vw2mT9xB4nR8sL1cZ6yH3pD5gJ0fa", DisablePrune: true, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	h := m.Handler(bridge(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/cart" {
			session.Key[int]("cart").Set(session.From(r.Context()), 1)
		}
		fmt.Fprint(w, "page")
	})))
	get := func(path string, cookies []*http.Cookie) *http.Response {
		r := httptest.NewRequest("GET", path, nil)
		for _, c := range cookies {
			r.AddCookie(c)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result()
	}
	cookies := get("/cart", nil).Cookies()
	if len(cookies) != 1 {
		t.Fatalf("cookies: got %d, want a visitor's", len(cookies))
	}
	before := m.Stats().Loads
	res := get("/static", cookies)
	if got := m.Stats().Loads - before; got != 0 {
		t.Errorf("a static page: got %d loads, want none", got)
	}
	if got := res.Header.Get("Vary"); got != "" {
		t.Errorf("a static page: got Vary: %s, want none", got)
	}
	store.down = true
	if got := get("/static", cookies).StatusCode; got != http.StatusOK {
		t.Errorf("a static page while the store is down: got %d, want 200", got)
	}
	if got := get("/cart", cookies).StatusCode; got != http.StatusServiceUnavailable {
		t.Errorf("a page with a session meanwhile: got %d, want 503", got)
	}
}

type store struct {
	session.Store
	down bool
}

func (s *store) Load(ctx context.Context, id string) (session.Record, error) {
	if s.down {
		return session.Record{}, errors.New("connection refused")
	}
	return s.Store.Load(ctx, id)
}
