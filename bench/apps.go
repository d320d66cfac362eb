// Package bench puts this library beside its peers, in one process and one run:
// the benchmarks are in its tests, README.md says what they mean.
package bench

import (
	"encoding/gob"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/alexedwards/scs/v2"
	"github.com/gorilla/sessions"

	"github.com/pgsession/session"

	facts "github.com/pgsession/session/bench/internal/app"
)

// app is one small application on one session library.
type app struct {
	name string
	// handler serves /login (stores 1 KB), /read (answers with the user's name,
	// 401 without a session) and /unused, which does not use the session.
	handler http.Handler
	cookie  string // of a logged-in browser
}

const (
	user   = "ada"
	secret = "a secret of the benchmark, which guards nothing at all"
)

// values are what a login stores beside the user's name: 1 KB together.
func values() map[string]string {
	m := make(map[string]string)
	for i := range facts.Facts {
		m[facts.FactName(i)] = facts.Fact(user, i)
	}
	return m
}

// newApps returns an application on every library, the one without sessions
// first, with a browser logged in.
func newApps() ([]*app, error) {
	apps := []*app{bareApp()}
	for _, make := range []func() (*app, error){sessionApp, scsApp, gorillaApp} {
		a, err := make()
		if err != nil {
			return nil, err
		}
		w := httptest.NewRecorder()
		a.handler.ServeHTTP(w, httptest.NewRequest("GET", "/login", nil))
		for _, c := range w.Result().Cookies() {
			a.cookie = c.Name + "=" + c.Value
		}
		if a.cookie == "" {
			return nil, fmt.Errorf("bench: %s: login gave status %d and no cookie", a.name, w.Code)
		}
		apps = append(apps, a)
	}
	apps[0].cookie = apps[1].cookie // a request as large as the others'
	return apps, nil
}

// routes makes the handler of an application; login reports whether it stored
// everything, read the user's name.
func routes(login func(http.ResponseWriter, *http.Request) error, read func(*http.Request) (string, bool)) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		if err := login(w, r); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		name, ok := read(r)
		if !ok {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		answer(w, name)
	})
	mux.HandleFunc("/unused", func(w http.ResponseWriter, _ *http.Request) { answer(w, user) })
	return mux
}

func answer(w http.ResponseWriter, body string) {
	w.Header()["Content-Type"] = plain
	_, _ = io.WriteString(w, body)
}

var plain = []string{"text/plain"}

func bareApp() *app {
	return &app{name: "bare", handler: routes(
		func(http.ResponseWriter, *http.Request) error { return nil },
		func(*http.Request) (string, bool) { return user, true },
	)}
}

func sessionApp() (*app, error) {
	const userKey = session.Key[string]("user")
	m, err := session.New(session.NewMemoryStore(), session.Config{
		Secret: secret, DisablePrune: true, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	return &app{name: "session", handler: m.Handler(routes(
		func(_ http.ResponseWriter, r *http.Request) error {
			s := session.From(r.Context())
			userKey.Set(s, user)
			for k, v := range values() {
				session.Key[string](k).Set(s, v)
			}
			return s.Err()
		},
		func(r *http.Request) (string, bool) { return userKey.Get(session.From(r.Context())) },
	))}, nil
}

// scsApp is alexedwards/scs with its memory store and its default codec.
func scsApp() (*app, error) {
	m := scs.New()
	return &app{name: "scs", handler: m.LoadAndSave(routes(
		func(_ http.ResponseWriter, r *http.Request) error {
			m.Put(r.Context(), "user", user)
			for k, v := range values() {
				m.Put(r.Context(), k, v)
			}
			return nil
		},
		func(r *http.Request) (string, bool) {
			name := m.GetString(r.Context(), "user")
			return name, name != ""
		},
	))}, nil
}

// gorillaApp is gorilla/sessions with the store that comes with it and needs no
// disk: the data is in the cookie.
func gorillaApp() (*app, error) {
	gob.Register(map[string]string{})
	store := sessions.NewCookieStore([]byte(secret))
	return &app{name: "gorilla", handler: routes(
		func(w http.ResponseWriter, r *http.Request) error {
			s, err := store.Get(r, "session")
			if err != nil {
				return err
			}
			s.Values["user"] = user
			for k, v := range values() {
				s.Values[k] = v
			}
			return s.Save(r, w)
		},
		func(r *http.Request) (string, bool) {
			s, err := store.Get(r, "session")
			if err != nil {
				return "", false
			}
			name, ok := s.Values["user"].(string)
			return name, ok
		},
	)}, nil
}

// request returns a logged-in browser's request.
func (a *app) request(path string) *http.Request {
	r := httptest.NewRequest("GET", path, nil)
	r.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
	r.Header.Set("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
	r.Header.Set("Cookie", a.cookie)
	return r
}

// check reports an answer other than the one that is measured.
func (a *app) check(path string) error {
	w := httptest.NewRecorder()
	a.handler.ServeHTTP(w, a.request(path))
	if w.Code != http.StatusOK || strings.TrimSpace(w.Body.String()) != user {
		return fmt.Errorf("bench: %s: %s got status %d, body %q, want 200, %q", a.name, path, w.Code, w.Body, user)
	}
	return nil
}
