package web_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pgsession/session"
	"github.com/pgsession/session/sessiontest"
	"github.com/pgsession/session/tests/adapters/check"
	web "github.com/pgsession/session/tests/adapters/template"
)

func TestPage(t *testing.T) {
	const (
		userName = session.Key[string]("userName")
		flash    = session.Key[string]("flash")
	)
	m := sessiontest.NewManager(t)
	r := httptest.NewRequest("GET", "/", nil)
	get := func() string {
		w := httptest.NewRecorder()
		m.Handler(http.HandlerFunc(web.Home)).ServeHTTP(w, r)
		return w.Body.String()
	}
	if got := get(); !strings.Contains(got, "Log in") || !strings.Contains(got, "<h1>News</h1>") {
		t.Errorf("not logged in: got %q, want the page with a link to the login", got)
	}
	sessiontest.Login(t, m, r, func(s *session.Session) {
		userName.Set(s, "<Ada>")
		flash.Set(s, "Saved.")
	})
	if got := get(); !strings.Contains(got, "Hello &lt;Ada&gt;") || !strings.Contains(got, "Saved.") {
		t.Errorf("logged in: got %q, want the name and the message", got)
	}
	if got := get(); !strings.Contains(got, "Hello") || strings.Contains(got, "Saved.") {
		t.Errorf("the next page: got %q, want the message no more", got)
	}
}

func TestOutage(t *testing.T) {
	s := check.New(t, func(m *session.Manager) http.Handler { return m.Handler(http.HandlerFunc(web.Home)) })
	cookie := s.Visit(t)
	s.Store.Down.Store(true)
	s.WantRefused(t, "GET", "/", cookie)
}
