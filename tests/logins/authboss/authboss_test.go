package web

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/volatiletech/authboss/v3"
	"golang.org/x/crypto/bcrypt"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/tests/logins/check"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const cart = session.Key[string]("cart")

// user is authboss.AuthableUser and LockableUser; users are its storage.
type (
	user struct {
		name, password string
		attempts       int
		last, locked   time.Time
	}
	users struct {
		mu  sync.Mutex
		all map[string]user
	}
)

func (u *user) GetPID() string             { return u.name }
func (u *user) PutPID(name string)         { u.name = name }
func (u *user) GetPassword() string        { return u.password }
func (u *user) PutPassword(hash string)    { u.password = hash }
func (u *user) GetAttemptCount() int       { return u.attempts }
func (u *user) PutAttemptCount(n int)      { u.attempts = n }
func (u *user) GetLastAttempt() time.Time  { return u.last }
func (u *user) PutLastAttempt(t time.Time) { u.last = t }
func (u *user) GetLocked() time.Time       { return u.locked }
func (u *user) PutLocked(t time.Time)      { u.locked = t }

func (s *users) Load(_ context.Context, name string) (authboss.User, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, ok := s.all[name]
	if !ok {
		return nil, authboss.ErrUserNotFound
	}
	return &u, nil
}

func (s *users) Save(_ context.Context, changed authboss.User) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[changed.GetPID()] = *changed.(*user)
	return nil
}

// pages are authboss.Renderer.
type pages struct{}

func (pages) Load(...string) error { return nil }
func (pages) Render(_ context.Context, page string, data authboss.HTMLData) ([]byte, string, error) {
	return fmt.Appendf(nil, "%s: %v", page, data[authboss.DataErr]), "text/plain", nil
}

type site struct {
	*check.Browser
	sessions *session.Manager
	ab       *authboss.Authboss
}

func newSite(t *testing.T) *site {
	t.Helper()
	all := &users{all: map[string]user{}}
	for _, name := range []string{"ada", "bob"} {
		hash, err := bcrypt.GenerateFromPassword([]byte("password of "+name), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		all.all[name] = user{name: name, password: string(hash)}
	}
	mux := http.NewServeMux()
	sessions, _ := check.Open(t, string(userID))
	app, ab, err := App(sessions, mux, all, pages{})
	if err != nil {
		t.Fatal(err)
	}
	mux.HandleFunc("GET /cart", func(w http.ResponseWriter, r *http.Request) {
		cart.Set(session.From(r.Context()), "tea")
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /account", func(w http.ResponseWriter, r *http.Request) {
		id, _ := ab.CurrentUserID(r)
		item, _ := cart.Get(session.From(r.Context()))
		flash := authboss.FlashSuccess(w, r) + authboss.FlashError(w, r)
		fmt.Fprintf(w, "user %q, cart %q, message %q, ends in %v", id, item, flash, session.From(r.Context()).ExpiresIn().Round(time.Hour))
	})
	mux.HandleFunc("GET /second-factor", func(w http.ResponseWriter, _ *http.Request) {
		authboss.PutSession(w, authboss.Session2FA, "totp")
		w.WriteHeader(http.StatusNoContent)
	})
	return &site{&check.Browser{T: t, App: app}, sessions, ab}
}

func (s *site) logIn(name, password string, more ...string) check.Answer {
	form := url.Values{"username": {name}, "password": {password}}
	for i := 0; i+1 < len(more); i += 2 {
		form.Set(more[i], more[i+1])
	}
	return s.Post("/auth/login", form)
}

func (s *site) thief(cookie string) *check.Browser {
	return &check.Browser{T: s.T, App: s.App, Cookie: cookie}
}

func TestAuthboss(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.Get("/cart")
	before := s.Cookie
	s.logIn("ada", "password of bob").Want(t, http.StatusOK, "login: ")
	s.Get("/account").Want(t, http.StatusOK, `user "", cart "tea"`)
	s.logIn("ada", "password of ada").Want(t, http.StatusFound, "/account")
	s.Get("/account").Want(t, http.StatusOK, `user "ada", cart "tea", message "", ends in 24h0m0s`)
	if s.Cookie == before {
		t.Error("the session is not renewed")
	}
	s.thief(before).Get("/account").Want(t, http.StatusOK, `user "", cart ""`)

	// A second factor lets a session do more, so it gets a new ID as well.
	one := s.Cookie
	s.Get("/second-factor")
	if s.Cookie == one {
		t.Error("the session is not renewed by the second factor")
	}
	s.thief(one).Get("/account").Want(t, http.StatusOK, `user ""`)
	if found, err := s.sessions.Sessions(t.Context(), userID.Is("ada")); err != nil || len(found) != 1 {
		t.Errorf("sessions of ada: got %d, %v, want 1", len(found), err)
	}

	// Another user finds nothing of the first one's.
	s.logIn("bob", "password of bob").Want(t, http.StatusFound, "/account")
	s.Get("/account").Want(t, http.StatusOK, `user "bob", cart ""`)
	last := s.Cookie
	s.Post("/auth/logout", nil, "Sec-Fetch-Site", "cross-site").Want(t, http.StatusForbidden, "")
	s.Cookie = last
	s.Post("/auth/logout", nil).Want(t, http.StatusFound, "/")
	s.thief(last).Get("/account").Want(t, http.StatusOK, `user ""`)
	s.Get("/account").Want(t, http.StatusOK, `user "", cart "", message "You have been logged out"`)
	s.Get("/account").Want(t, http.StatusOK, `user "", cart "", message ""`)
}

func TestAuthbossRemember(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.logIn("ada", "password of ada", authboss.CookieRemember, "true").Want(t, http.StatusFound, "/account")
	s.Get("/account").Want(t, http.StatusOK, `user "ada", cart "", message "", ends in 720h0m0s`)
	s.logIn("ada", "password of ada").Want(t, http.StatusFound, "/account")
	s.Get("/account").Want(t, http.StatusOK, `ends in 24h0m0s`)
	s.logIn("bob", "password of bob", authboss.CookieRemember, "true").Want(t, http.StatusFound, "/account")
	s.Get("/account").Want(t, http.StatusOK, `user "bob", cart "", message "", ends in 720h0m0s`)
}

func TestAuthbossLock(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	there := s.thief("")
	there.Post("/auth/login", url.Values{"username": {"ada"}, "password": {"password of ada"}}).Want(t, http.StatusFound, "/account")
	for range 2 {
		s.logIn("ada", "guess").Want(t, http.StatusOK, "login: ")
	}
	s.logIn("ada", "guess").Want(t, http.StatusFound, "/auth/login")
	s.logIn("ada", "password of ada").Want(t, http.StatusFound, "/auth/login")
	s.Get("/account").Want(t, http.StatusOK, `user ""`)
	there.Get("/account").Want(t, http.StatusOK, `user "ada"`) // whoever guesses logs nobody out
}

func TestAuthbossRedirects(t *testing.T) {
	t.Parallel()
	for to, want := range map[string]string{
		"/orders?page=2": "/orders?page=2", "//evil.example": "/account", `/\evil.example`: "/account", "/\t/evil.example": "/account",
		"https://evil.example": "/account", "javascript:alert(1)": "/account", "": "/account",
	} {
		s := newSite(t)
		s.logIn("ada", "password of ada", authboss.FormValueRedirect, to).Want(t, http.StatusFound, want)
	}
}

// What is to be kept of a session that ends is kept in another one.
func TestAuthbossKeeps(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ab.Config.Storage.SessionStateWhitelistKeys = []string{"cart", "uid"}
	s.Get("/cart")
	s.logIn("ada", "password of ada")
	last := s.Cookie
	s.Post("/auth/logout", nil)
	s.Get("/account").Want(t, http.StatusOK, `user "", cart "tea"`)
	s.thief(last).Get("/account").Want(t, http.StatusOK, `user "", cart ""`)
}

// The session cannot be had: a 503, and not a page for somebody who is not logged in.
func TestAuthbossOutage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	sessions, pool := check.Open(t, string(userID))
	s.App = sessions.Handler(s.ab.LoadClientStateMiddleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		authboss.PutSession(w, authboss.SessionKey, "ada")
		w.WriteHeader(http.StatusOK) // where authboss would panic
		_, _ = w.Write([]byte("Hello"))
	})))
	s.Get("/").Want(t, http.StatusOK, "Hello")
	check.Rename(t, pool, "session", "away")
	s.Get("/").Want(t, http.StatusServiceUnavailable, "")
	check.Rename(t, pool, "away", "session")
	s.Get("/").Want(t, http.StatusOK, "Hello")
}
