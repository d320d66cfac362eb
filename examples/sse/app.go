package main

import (
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/pgsession/session"
)

// The keys of this application's sessions.
const (
	user = session.Key[string]("user")
	read = session.Key[progress]("read")
)

// progress is how far a session has read.
type progress struct {
	Last  int64 `json:"last"`
	Count int   `json:"count"`
}

const (
	maxUserRunes = 40
	maxTextRunes = 200
	maxFormBytes = 64 << 10
)

//go:embed page.html board.js
var files embed.FS

var page = template.Must(template.ParseFS(files, "page.html"))

// app is a message board.
type app struct {
	http.Handler
	sessions   *session.Manager
	board      *board
	ending     chan struct{} // closed when the program ends
	endStreams func()
}

func newApp(sessions *session.Manager) *app {
	mux := http.NewServeMux()
	a := &app{Handler: fresh(mux), sessions: sessions, board: newBoard(), ending: make(chan struct{})}
	a.endStreams = sync.OnceFunc(func() { close(a.ending) })
	mux.HandleFunc("GET /{$}", a.home)
	mux.HandleFunc("POST /login", a.login)
	mux.HandleFunc("POST /logout", a.logout)
	mux.HandleFunc("POST /logout-everywhere", a.logoutEverywhere)
	mux.HandleFunc("POST /say", a.say)
	mux.HandleFunc("GET /stream", a.stream)
	mux.HandleFunc("GET /me", a.me)
	mux.HandleFunc("GET /board.js", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		http.ServeFileFS(w, r, files, "board.js")
	})
	return a
}

func fresh(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store") // the back button shows nobody's page after logout
		next.ServeHTTP(w, r)
	})
}

// view is what the page shows.
type view struct {
	User    string // "": the login form
	Count   int
	Problem string // with the login form's last input
	Input   string
	MaxUser int
	MaxText int
}

func (a *app) home(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	v := view{}
	v.User, _ = user.Get(s)
	p, _ := read.Get(s)
	v.Count = p.Count
	a.render(w, http.StatusOK, v)
}

func (a *app) login(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimSpace(r.PostFormValue("user"))
	if problem := check(name, maxUserRunes); problem != "" {
		a.render(w, http.StatusUnprocessableEntity, view{Problem: problem, Input: name})
		return
	}
	s := session.From(r.Context())
	s.Renew() // a new session ID: one that an attacker planted is worth nothing now
	if before, ok := user.Get(s); ok && before != name {
		read.Delete(s) // what the last user left is not the next one's
	}
	user.Set(s, name)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// check says what is wrong with a text, in words for its writer.
func check(text string, maxRunes int) string {
	switch {
	case text == "":
		return "Please write something."
	case !utf8.ValidString(text):
		return "This has characters that we cannot read. Please type it again."
	case utf8.RuneCountInString(text) > maxRunes:
		return fmt.Sprintf("That is long! Up to %d characters fit here.", maxRunes)
	}
	return ""
}

func (a *app) logout(w http.ResponseWriter, r *http.Request) {
	session.From(r.Context()).Destroy()
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// logoutEverywhere ends the user's sessions on all devices: their streams too, within
// a second, at whichever program they are.
func (a *app) logoutEverywhere(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	if name, ok := user.Get(s); ok {
		if _, err := a.sessions.Revoke(r.Context(), user.Is(name).Except(s)); err != nil {
			http.Error(w, "Please try again in a moment.", http.StatusServiceUnavailable)
			return
		}
	}
	s.Destroy()
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (a *app) say(w http.ResponseWriter, r *http.Request) {
	name, ok := user.Get(session.From(r.Context()))
	if !ok {
		http.Error(w, "You are not logged in.", http.StatusUnauthorized)
		return
	}
	text := strings.TrimSpace(r.PostFormValue("text"))
	if problem := check(text, maxTextRunes); problem != "" {
		http.Error(w, problem, http.StatusUnprocessableEntity)
		return
	}
	a.board.add(name, text)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (a *app) me(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	w.Header().Set("Content-Type", "application/json")
	name, ok := user.Get(s)
	if !ok {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintln(w, `{"error":"not logged in"}`)
		return
	}
	p, _ := read.Get(s)
	_ = json.NewEncoder(w).Encode(struct {
		User string `json:"user"`
		Read int    `json:"read"`
	}{name, p.Count})
}

func (a *app) render(w http.ResponseWriter, code int, v view) {
	v.MaxUser, v.MaxText = maxUserRunes, maxTextRunes
	var b strings.Builder
	if err := page.Execute(&b, v); err != nil {
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(b.String()))
}
