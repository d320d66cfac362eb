package main

import (
	"context"
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
	taps = session.Key[int]("taps")
)

const (
	maxUserRunes = 40
	maxFormBytes = 64 << 10
)

//go:embed page.html tap.js
var files embed.FS

var page = template.Must(template.ParseFS(files, "page.html"))

// app is a button.
type app struct {
	http.Handler
	total   *total
	sockets sync.WaitGroup
	end     func()
	ending  chan struct{} // closed by end
}

func newApp() *app {
	mux := http.NewServeMux()
	a := &app{Handler: fresh(mux), total: &total{more: make(chan struct{})}, ending: make(chan struct{})}
	a.end = sync.OnceFunc(func() { close(a.ending) })
	mux.HandleFunc("GET /{$}", a.home)
	mux.HandleFunc("POST /login", a.login)
	mux.HandleFunc("POST /logout", a.logout)
	mux.HandleFunc("GET /socket", a.socket)
	mux.HandleFunc("GET /me", a.me)
	mux.HandleFunc("GET /tap.js", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		http.ServeFileFS(w, r, files, "tap.js")
	})
	return a
}

// endSockets closes all sockets and waits until the last has saved what it had to.
func (a *app) endSockets(ctx context.Context) error {
	a.end()
	ended := make(chan struct{})
	go func() {
		a.sockets.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func fresh(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store") // the back button shows nobody's page after logout
		next.ServeHTTP(w, r)
	})
}

// total counts everybody's taps, in memory. It is safe for concurrent use.
type total struct {
	mu   sync.Mutex
	n    int
	more chan struct{} // closed when n grows
}

func (t *total) add(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n += n
	close(t.more)
	t.more = make(chan struct{})
}

// now returns the count, and a channel that is closed when it grows.
func (t *total) now() (int, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n, t.more
}

// view is what the page shows.
type view struct {
	User    string // "": the login form
	Taps    int
	Problem string // with the login form's last input
	Input   string
	MaxUser int
}

func (a *app) home(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	v := view{}
	v.User, _ = user.Get(s)
	v.Taps, _ = taps.Get(s)
	a.render(w, http.StatusOK, v)
}

func (a *app) login(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimSpace(r.PostFormValue("user"))
	if problem := checkUser(name); problem != "" {
		a.render(w, http.StatusUnprocessableEntity, view{Problem: problem, Input: name})
		return
	}
	s := session.From(r.Context())
	s.Renew() // a new session ID: one that an attacker planted is worth nothing now
	if before, ok := user.Get(s); ok && before != name {
		taps.Delete(s) // what the last user left is not the next one's
	}
	user.Set(s, name)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// checkUser says what is wrong with a name, in words for its owner.
func checkUser(name string) string {
	switch {
	case name == "":
		return "Please tell us your name."
	case !utf8.ValidString(name):
		return "This name has characters that we cannot read. Please type it again."
	case utf8.RuneCountInString(name) > maxUserRunes:
		return fmt.Sprintf("That is a long name! Up to %d characters fit here.", maxUserRunes)
	}
	return ""
}

func (a *app) logout(w http.ResponseWriter, r *http.Request) {
	session.From(r.Context()).Destroy()
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
	n, _ := taps.Get(s)
	_ = json.NewEncoder(w).Encode(struct {
		User string `json:"user"`
		Taps int    `json:"taps"`
	}{name, n})
}

func (a *app) render(w http.ResponseWriter, code int, v view) {
	v.MaxUser = maxUserRunes
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
