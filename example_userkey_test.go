package session_test

import (
	"fmt"
	"net/http"

	"github.com/pgsession/session"
)

// With UserKey the value of one key makes the session what it has to be: a visitor who
// logs in keeps his cart under another ID, who logs in after him begins with nothing of
// his, and without a user the session ends.
func ExampleConfig_userKey() {
	const (
		userID = session.Key[string]("userId")
		cart   = session.Key[[]string]("cart")
	)
	mux := http.NewServeMux()
	mux.HandleFunc("/add", func(w http.ResponseWriter, r *http.Request) {
		cart.Update(session.From(r.Context()), func(c []string) []string { return append(c, "tea") })
	})
	mux.HandleFunc("/login/{user}", func(w http.ResponseWriter, r *http.Request) {
		// ... having checked the password:
		userID.Set(session.From(r.Context()), r.PathValue("user"))
	})
	mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) {
		userID.Delete(session.From(r.Context()))
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		user, _ := userID.Get(s)
		items, _ := cart.Get(s)
		fmt.Fprintf(w, "user %q, cart %q", user, items)
	})

	sessions := newExampleManager(session.Config{UserKey: string(userID)})
	browse(sessions.Handler(mux), "/add", "/login/ada", "/", "/login/bob", "/", "/logout", "/")
	// Output:
	// /add 200
	// /login/ada 200
	// / 200 user "ada", cart ["tea"]
	// /login/bob 200
	// / 200 user "bob", cart []
	// /logout 200
	// / 200 user "", cart []
}
