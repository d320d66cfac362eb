package session_test

import (
	"fmt"
	"net/http"
	"time"

	"github.com/pgsession/session"
)

// A page asks every minute how long its user is still logged in, to say so in time.
// It is the page that asks: SkipTouch keeps it from being taken for the user, who
// would otherwise never be logged out. The page itself, and a button "Stay logged in",
// are requests like all others.
func ExampleSession_SkipTouch() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /left", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.SkipTouch()
		fmt.Fprint(w, s.ExpiresIn().Round(time.Minute))
	})
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		session.Key[string]("user").Set(s, "ada")
		s.SetIdleTimeout(30 * time.Minute)
		fmt.Fprint(w, s.ExpiresIn())
	})
	mux.HandleFunc("GET /logout", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Destroy()
		fmt.Fprint(w, s.ExpiresIn())
	})

	sessions := newExampleManager(session.Config{IdleTimeout: time.Hour})
	browse(sessions.Handler(mux), "/left", "/login", "/left", "/logout", "/left")
	// Output:
	// /left 200 0s
	// /login 200 30m0s
	// /left 200 30m0s
	// /logout 200 0s
	// /left 200 0s
}
