// Package web is an application of its framework, as docs/adapters.md shows it.
package web

import (
	"net/http"

	"github.com/a-h/templ"
	"github.com/pgsession/session"
)

// Routes is the application: http.ListenAndServe(":8080", Routes(sessions)).
func Routes(sessions *session.Manager) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", templ.Handler(home()))
	return sessions.Handler(mux)
}
