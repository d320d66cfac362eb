package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/pgsession/session"
)

// The keys of this application's sessions.
const (
	user  = session.Key[string]("user")
	calls = session.Key[int]("calls")
)

const (
	maxUserRunes = 40
	maxFormBytes = 64 << 10
)

// newServer returns the server. Pages of one other origin may be its clients, unless
// that is "".
func newServer(sessions *session.Manager, origin string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", login)
	mux.HandleFunc("GET /me", me)
	mux.HandleFunc("POST /password", password)
	mux.HandleFunc("POST /logout", logout)
	// Outside of the sessions' handler, so that a client can read an error too.
	return allow(origin, http.MaxBytesHandler(sessions.Handler(mux), maxFormBytes))
}

// login begins a session whose client gets a token, in the header Session-Token of
// this very response: once it is stored. (Here everybody's word is taken for who
// they are; examples/more/login has passwords.)
func login(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimSpace(r.PostFormValue("user"))
	if name == "" || utf8.RuneCountInString(name) > maxUserRunes || !utf8.ValidString(name) {
		http.Error(w, "who are you? (up to 40 characters)", http.StatusUnprocessableEntity)
		return
	}
	s := session.From(r.Context())
	s.UseToken()
	s.Renew()
	user.Set(s, name)
	calls.Delete(s)
	answerJSON(w, map[string]any{"user": name})
}

// me says who the client is.
func me(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	name, ok := loggedIn(w, s)
	if !ok {
		return
	}
	calls.Update(s, func(n int) int { return n + 1 })
	n, _ := calls.Get(s)
	answerJSON(w, map[string]any{"user": name, "calls": n})
}

// password is where a user's rights change: the token changes with them.
func password(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	name, ok := loggedIn(w, s)
	if !ok {
		return
	}
	s.Renew()
	answerJSON(w, map[string]any{"user": name})
}

func logout(w http.ResponseWriter, r *http.Request) {
	session.From(r.Context()).Destroy()
	w.WriteHeader(http.StatusNoContent)
}

// loggedIn returns who is logged in, or has answered (RFC 6750, section 3).
func loggedIn(w http.ResponseWriter, s *session.Session) (name string, ok bool) {
	if name, ok = user.Get(s); !ok {
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "log in first", http.StatusUnauthorized)
	}
	return name, ok
}

func answerJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v)
}

// allow lets pages of one other origin send Authorization and read Session-Token. It
// does not allow credentials, and none are needed: no browser attaches a token by
// itself, so no page of a third site can send one.
func allow(origin string, next http.Handler) http.Handler {
	if origin == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Add("Vary", "Origin")
		if r.Header.Get("Origin") == origin {
			h.Set("Access-Control-Allow-Origin", origin)
			h.Set("Access-Control-Allow-Headers", "Authorization")
			h.Set("Access-Control-Expose-Headers", "Session-Token")
		}
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}
