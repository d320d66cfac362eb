package sessiontest_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/pgsession/session"
	"github.com/pgsession/session/sessiontest"
)

// t is the *testing.T of a test; an Example has none.
var t standIn

const userID = session.Key[int64]("userId")

func account(w http.ResponseWriter, r *http.Request) {
	id, ok := userID.Get(session.From(r.Context()))
	if !ok {
		http.Error(w, "please log in", http.StatusUnauthorized)
		return
	}
	fmt.Fprintf(w, "account of user %d", id)
}

func login(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	s.Renew()
	userID.Set(s, 42)
	http.Redirect(w, r, "/account", http.StatusSeeOther)
}

func logout(w http.ResponseWriter, r *http.Request) {
	session.From(r.Context()).Destroy()
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// A test of a page for users who are logged in. t is the test's *testing.T.
func ExampleLogin() {
	m := sessiontest.NewManager(t)
	handler := m.Handler(http.HandlerFunc(account))

	r := httptest.NewRequest("GET", "/account", nil)
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	fmt.Println(w.Code)

	sessiontest.Login(t, m, r, func(s *session.Session) { userID.Set(s, 42) })
	w = httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body)

	// Output:
	// 401
	// 200 account of user 42
}

// A test of what login and logout leave in the session. t is the test's
// *testing.T.
func ExampleLook() {
	m := sessiontest.NewManager(t)

	r := httptest.NewRequest("POST", "/login", nil)
	w := httptest.NewRecorder()
	m.Handler(http.HandlerFunc(login)).ServeHTTP(w, r)
	s := sessiontest.Look(t, m, r, w.Result())
	fmt.Println(userID.Get(s))

	r = httptest.NewRequest("POST", "/logout", nil)
	sessiontest.Login(t, m, r, func(s *session.Session) { userID.Set(s, 42) })
	w = httptest.NewRecorder()
	m.Handler(http.HandlerFunc(logout)).ServeHTTP(w, r)
	s = sessiontest.Look(t, m, r, w.Result())
	fmt.Println(s.IsNew(), s.Keys())

	// Output:
	// 42 true
	// true []
}

// greeting is a service: it has a context, no request.
func greeting(ctx context.Context) string {
	id, ok := userID.Get(session.From(ctx))
	if !ok {
		return "Hello, stranger"
	}
	return fmt.Sprint("Hello, ", id)
}

// A test of code that is no handler. t is the test's *testing.T.
func ExampleContext() {
	m := sessiontest.NewManager(t)
	fmt.Println(greeting(sessiontest.Context(t, m, nil)))
	fmt.Println(greeting(sessiontest.Context(t, m, func(s *session.Session) { userID.Set(s, 42) })))

	// Output:
	// Hello, stranger
	// Hello, 42
}
