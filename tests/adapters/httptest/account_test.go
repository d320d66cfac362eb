package web

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/pgsession/session"
	"github.com/pgsession/session/sessiontest"
)

func TestAccount(t *testing.T) {
	sessions := sessiontest.NewManager(t)              // in memory, no database
	app := sessions.Handler(http.HandlerFunc(account)) // or Routes(sessions)

	r := httptest.NewRequest("GET", "/account", nil)
	sessiontest.Login(t, sessions, r, func(s *session.Session) { userID.Set(s, 42) })
	w := httptest.NewRecorder()
	app.ServeHTTP(w, r)
	if got := w.Body.String(); got != "user 42" {
		t.Errorf("got %d %q, want user 42", w.Code, got)
	}
}

func TestLogin(t *testing.T) {
	sessions := sessiontest.NewManager(t)
	app := sessions.Handler(http.HandlerFunc(login))

	r := httptest.NewRequest("POST", "/login", nil)
	w := httptest.NewRecorder()
	app.ServeHTTP(w, r)
	after := sessiontest.Look(t, sessions, r, w.Result()) // as the browser's next request finds it
	if id, _ := userID.Get(after); id != 42 {
		t.Errorf("got user %d, want 42", id)
	}
}
