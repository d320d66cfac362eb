package main

import (
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/pgsession/session"
)

// The keys of the sessions. Every process reads and writes the same ones.
const (
	user   = session.Key[string]("user")
	clicks = session.Key[clickLog]("clicks")
)

// clickLog counts, and remembers who counted.
type clickLog struct {
	Count int      `json:"count"`
	By    []string `json:"by"` // the processes of the last clicks
}

const (
	maxUserRunes = 40
	maxFormBytes = 64 << 10
	maxBy        = 30
)

var appPage = template.Must(template.ParseFS(files, "app.html"))

// app is an ordinary set of handlers. It does not know how many of it there are.
type app struct{ process string }

func newApp(process string) http.Handler {
	a := &app{process}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.home)
	mux.HandleFunc("POST /login", a.login)
	mux.HandleFunc("POST /logout", a.logout)
	mux.HandleFunc("POST /click", a.click)
	mux.HandleFunc("GET /me", a.me)
	// For the load balancer. It does not ask the database, which all processes
	// share: it would send nobody anywhere when that is down.
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Served-By", process)
		mux.ServeHTTP(w, r)
	})
}

// view is what the page shows.
type view struct {
	User    string // "": the login form
	Clicks  clickLog
	Problem string // with the login form's last input
	Input   string
	MaxUser int
	Process string
	PID     int
}

func (a *app) home(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	v := view{}
	if name, ok := user.Get(s); ok {
		v.User = name
		v.Clicks, _ = clicks.Get(s)
	}
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
		clicks.Delete(s) // what the last user left is not the next one's
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

func (a *app) click(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	if _, ok := user.Get(s); !ok {
		http.Error(w, "You are not logged in.", http.StatusUnauthorized)
		return
	}
	// Update, not Get and Set: two clicks that reach two processes at once both
	// count.
	clicks.Update(s, func(l clickLog) clickLog {
		l.Count++
		l.By = append(l.By, a.process)
		l.By = l.By[max(0, len(l.By)-maxBy):]
		return l
	})
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
	l, _ := clicks.Get(s)
	_ = json.NewEncoder(w).Encode(struct {
		User     string `json:"user"`
		Clicks   int    `json:"clicks"`
		ServedBy string `json:"servedBy"`
	}{name, l.Count, a.process})
}

func (a *app) render(w http.ResponseWriter, code int, v view) {
	v.MaxUser, v.Process, v.PID = maxUserRunes, a.process, os.Getpid()
	render(w, code, appPage, v)
}

// render answers with a page: this application's, or the load balancer's.
func render(w http.ResponseWriter, code int, page *template.Template, v any) {
	var b strings.Builder
	if err := page.Execute(&b, v); err != nil {
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store") // the back button shows nobody's page after logout
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(b.String()))
}
