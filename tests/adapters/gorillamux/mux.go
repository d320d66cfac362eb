// Package web is an application of its framework, as docs/adapters.md shows it.
package web

import (
	"fmt"
	"net/http"

	"github.com/gorilla/mux"
	"github.com/pgsession/session"
)

const userID = session.Key[int64]("userId")

// Routes is the application: http.ListenAndServe(":8080", Routes(sessions)).
func Routes(sessions *session.Manager) http.Handler {
	r := mux.NewRouter()
	r.HandleFunc("/login", login).Methods("POST")
	r.HandleFunc("/account", account).Methods("GET")
	r.HandleFunc("/logout", logout).Methods("POST")
	csrf := http.NewCrossOriginProtection()  // no other site logs a user in
	return csrf.Handler(sessions.Handler(r)) // not r.Use, which leaves out the NotFoundHandler
}

func login(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	s.Renew()
	userID.Set(s, 42)
	http.Redirect(w, r, "/account", http.StatusSeeOther)
}

func account(w http.ResponseWriter, r *http.Request) {
	id, ok := userID.Get(session.From(r.Context()))
	if !ok {
		http.Error(w, "log in first", http.StatusUnauthorized)
		return
	}
	fmt.Fprintf(w, "user %d", id)
}

func logout(w http.ResponseWriter, r *http.Request) {
	session.From(r.Context()).Destroy()
	http.Redirect(w, r, "/", http.StatusSeeOther)
}
