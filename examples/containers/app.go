package main

import (
	"fmt"
	"html"
	"net/http"
	"os"
	"strings"

	"github.com/pgsession/session"
)

// The keys of this application's sessions.
const (
	user   = session.Key[string]("user")
	visits = session.Key[int]("visits")
)

func newApp() http.Handler {
	// A container's host name is its own, so the page can say who has answered.
	instance, _ := os.Hostname()
	if name := os.Getenv("INSTANCE"); name != "" {
		instance = name
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		form := `<form method="post" action="/login"><input name="user" required maxlength="40"> <button>Log in</button></form>`
		if name, ok := user.Get(s); ok {
			visits.Update(s, func(n int) int { return n + 1 })
			n, _ := visits.Get(s)
			form = fmt.Sprintf(`<p>Hello, %s: visit %d.</p><form method="post" action="/logout"><button>Log out</button></form>`, html.EscapeString(name), n)
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		fmt.Fprintf(w, "<!doctype html><html lang=\"en\"><title>Containers</title>%s<p>Answered by %s.</p></html>\n", form, html.EscapeString(instance))
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
		name := strings.ToValidUTF8(strings.TrimSpace(r.PostFormValue("user")), "")
		if name == "" || len(name) > 160 {
			http.Error(w, "Who are you? Up to 40 characters.", http.StatusUnprocessableEntity)
			return
		}
		user.Set(session.From(r.Context()), name) // Config.UserKey: this is the login, and renews
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		session.From(r.Context()).Destroy()
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	return mux
}
