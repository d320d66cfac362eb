// Package interop runs this library and the real Express packages on one table
// and drives both by HTTP: every crossing, random sequences, random values, time
// zones, overlapping requests, odd rows.
//
// app.js is the Express side, this file the same small set of routes in Go. The
// packages are pinned by package-lock.json; the tests run "npm ci" themselves
// where they are missing.
package interop

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/pgsession/session"
)

// App is a Go application with the routes of app.js.
type App struct {
	Sessions *session.Manager

	mu    sync.Mutex
	gates map[string]*gate
}

// gate lets a test hold a request in the middle.
type gate struct {
	entered, released chan struct{}
}

// gate returns the gate of a token, made by whoever comes first.
func (a *App) gate(token string) *gate {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gates == nil {
		a.gates = make(map[string]*gate)
	}
	g := a.gates[token]
	if g == nil {
		g = &gate{entered: make(chan struct{}), released: make(chan struct{})}
		a.gates[token] = g
	}
	return g
}

// Entered waits until the request with this token is being held.
func (a *App) Entered(token string) { <-a.gate(token).entered }

// Release lets it go on.
func (a *App) Release(token string) { close(a.gate(token).released) }

func (a *App) wait(r *http.Request) {
	g := a.gate(r.URL.Query().Get("token"))
	close(g.entered)
	<-g.released
}

// State is what both sides answer on /state. ID is empty without a session.
type State struct {
	ID   string                     `json:"id"`
	Data map[string]json.RawMessage `json:"data"`
}

const (
	user     = session.Key[string]("user")
	count    = session.Key[int]("n")
	flash    = session.Key[json.RawMessage]("flash")
	remember = session.Key[int64]("remember")
)

// form is the body of a request.
type form struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
	User  string          `json:"user"`
	MS    int64           `json:"ms"`
	Plain bool            `json:"plain"` // decode Value first, as applications do
}

// Handler returns the application.
func (a *App) Handler() http.Handler {
	mux := http.NewServeMux()
	route := func(path string, h func(*session.Session, *http.Request, form) any) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			var f form
			if r.Method == http.MethodPost {
				if err := json.NewDecoder(r.Body).Decode(&f); err != nil {
					http.Error(w, "not JSON", http.StatusBadRequest)
					return
				}
			}
			answer := h(session.From(r.Context()), r, f)
			if answer == nil {
				answer = map[string]bool{"ok": true}
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(answer)
		})
	}
	route("GET /state", func(s *session.Session, _ *http.Request, _ form) any {
		state := State{ID: s.ID(), Data: map[string]json.RawMessage{}}
		for _, name := range s.Keys() {
			state.Data[name], _ = session.Key[json.RawMessage](name).Get(s)
		}
		return state
	})
	route("POST /set", func(s *session.Session, _ *http.Request, f form) any {
		set(s, f)
		return nil
	})
	route("POST /delete", func(s *session.Session, _ *http.Request, f form) any {
		session.Key[json.RawMessage](f.Key).Delete(s)
		return nil
	})
	route("POST /count", func(s *session.Session, _ *http.Request, _ form) any {
		count.Update(s, func(n int) int { return n + 1 })
		return nil
	})
	route("POST /take", func(s *session.Session, _ *http.Request, _ form) any {
		value, _ := flash.Take(s)
		return map[string]json.RawMessage{"value": value}
	})
	route("POST /login", func(s *session.Session, _ *http.Request, f form) any {
		s.Destroy() // as Express's regenerate: nothing of before is kept
		user.Set(s, f.User)
		return nil
	})
	route("POST /renew", func(s *session.Session, _ *http.Request, _ form) any {
		s.Renew()
		return nil
	})
	route("POST /logout", func(s *session.Session, _ *http.Request, _ form) any {
		s.Destroy()
		return nil
	})
	route("POST /maxage", func(s *session.Session, _ *http.Request, f form) any {
		remember.Set(s, f.MS)
		s.SetIdleTimeout(time.Duration(f.MS) * time.Millisecond)
		return nil
	})
	route("POST /hold", func(s *session.Session, r *http.Request, f form) any {
		_ = s.ID() // loads it
		a.wait(r)
		set(s, f)
		return nil
	})
	route("POST /holdread", func(s *session.Session, r *http.Request, _ form) any {
		_ = s.ID()
		a.wait(r)
		return nil
	})
	return a.Sessions.Handler(mux)
}

func set(s *session.Session, f form) {
	if !f.Plain {
		session.Key[json.RawMessage](f.Key).Set(s, f.Value)
		return
	}
	var v any
	if json.Unmarshal(f.Value, &v) == nil {
		session.Key[any](f.Key).Set(s, v)
	}
}
