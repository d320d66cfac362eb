package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pgsession/session"
)

// The keys of this application's sessions.
const (
	user   = session.Key[string]("user")
	visits = session.Key[int]("visits")
	flash  = session.Key[string]("flash")
)

const (
	maxUserRunes    = 40
	maxFormBytes    = 64 << 10
	rememberTimeout = 30 * 24 * time.Hour
)

//go:embed page.html
var pageSource string

var page = template.Must(template.New("page").Parse(pageSource))

// app is an ordinary set of handlers; nothing in it saves a session or sets a cookie.
type app struct {
	database string // where sessions are kept, in words
	kept     bool   // whether they outlive the program
}

func newApp(database string, kept bool) http.Handler {
	a := &app{database, kept}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.home)
	mux.HandleFunc("POST /login", a.login)
	mux.HandleFunc("POST /logout", a.logout)
	mux.HandleFunc("GET /me", a.me)
	mux.HandleFunc("GET /public", a.public)
	return mux
}

// view is what the page shows.
type view struct {
	User     string // "": the login form
	Visits   int
	Flash    string
	Problem  string // with the login form's last input
	Input    string
	MaxUser  int
	Remember bool
	Database string
	Kept     bool
}

func (a *app) home(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	v := view{}
	if name, ok := user.Get(s); ok {
		visits.Update(s, func(n int) int { return n + 1 }) // counts right when two tabs load at once
		v.User = name
		v.Visits, _ = visits.Get(s)
		v.Flash, _ = flash.Take(s)
	}
	a.render(w, http.StatusOK, v)
}

func (a *app) login(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		a.render(w, http.StatusBadRequest, view{Problem: "The form could not be read. Please try again."})
		return
	}
	name, remember := strings.TrimSpace(r.PostForm.Get("user")), r.PostForm.Get("remember") != ""
	if problem := checkUser(name); problem != "" {
		a.render(w, http.StatusUnprocessableEntity, view{Problem: problem, Input: name, Remember: remember})
		return
	}
	s := session.From(r.Context())
	s.Renew() // a new session ID: one that an attacker planted is worth nothing now
	if before, ok := user.Get(s); ok && before != name {
		visits.Delete(s) // what the last user left is not the next one's
	}
	user.Set(s, name)
	if remember {
		s.SetIdleTimeout(rememberTimeout)
		flash.Set(s, "You are logged in, for 30 days after your last visit.")
	} else {
		s.SetIdleTimeout(0) // the default again
		flash.Set(s, "You are logged in.")
	}
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
	w.Header().Set("Cache-Control", "no-store")
	name, ok := user.Get(s)
	if !ok {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintln(w, `{"error":"not logged in"}`)
		return
	}
	n, _ := visits.Get(s)
	_ = json.NewEncoder(w).Encode(struct {
		User   string `json:"user"`
		Visits int    `json:"visits"`
	}{name, n})
}

// public does not use the session, so it costs no statement and can be cached.
func (a *app) public(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "public, max-age=60")
	fmt.Fprintln(w, "Everybody sees this, and nobody's session was loaded for it.")
}

func (a *app) render(w http.ResponseWriter, code int, v view) {
	v.MaxUser, v.Database, v.Kept = maxUserRunes, a.database, a.kept
	var b strings.Builder
	if err := page.Execute(&b, v); err != nil {
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store") // the back button shows nobody's page after logout
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(b.String()))
}
