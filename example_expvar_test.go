package session_test

import (
	"expvar"
	"fmt"
	"net/http"

	"github.com/pgsession/session"
)

// sessions is the program's Manager.
var sessions *session.Manager

// Once per program: expvar's handler then has it at /debug/vars.
func init() {
	expvar.Publish("session", expvar.Func(func() any { return sessions.Stats() }))
}

// One line publishes the counts by expvar, as JSON.
func ExampleManager_Stats() {
	const userID = session.Key[int64]("userId")

	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		userID.Set(session.From(r.Context()), 42)
	})
	mux.HandleFunc("/me", func(w http.ResponseWriter, r *http.Request) {
		id, _ := userID.Get(session.From(r.Context()))
		fmt.Fprint(w, id)
	})

	sessions = newExampleManager(session.Config{})
	browse(sessions.Handler(mux), "/login", "/me", "/me")
	fmt.Println(expvar.Get("session"))
	// Output:
	// /login 200
	// /me 200 42
	// /me 200 42
	// {"Loads":2,"Misses":0,"Creates":1,"Saves":0,"Conflicts":0,"Renewals":0,"Touches":0,"Destroys":0,"Pruned":0,"BadCookies":0,"StoreErrors":0,"Refused":0,"ReadsDown":false,"WritesDown":false,"Bound":0,"Refreshed":0,"Unproven":0,"EventsDropped":0}
}
