// Package web is an application of its framework, as docs/adapters.md shows it.
package web

import (
	"fmt"
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/pgsession/session"
)

const userID = session.Key[int64]("userId")

// Routes is the application: http.ListenAndServe(":8080", Routes(sessions)).
func Routes(sessions *session.Manager) http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.Logger, middleware.Recoverer) // first, so that they see what the browser gets
	r.Use(http.NewCrossOriginProtection().Handler) // no other site logs a user in
	r.Use(sessions.Handler)
	r.Post("/login", login)
	r.Get("/account", account)
	r.Post("/logout", logout)
	return r
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
