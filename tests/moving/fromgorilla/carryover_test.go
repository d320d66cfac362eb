package fromgorilla

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gorilla/sessions"

	"github.com/pgsession/session"
	"github.com/pgsession/session/sessiontest"
	"github.com/pgsession/session/tests/moving/bridgetest"
)

// browser keeps the cookies that it is sent if no prefix of a name forbids it, and has
// no others.
type browser map[string]string

func (b browser) get(t *testing.T, h http.Handler, path string) string {
	t.Helper()
	r := httptest.NewRequest("GET", path, nil)
	for name, value := range b {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		return fmt.Sprint(w.Code)
	}
	for _, c := range w.Result().Cookies() {
		if bridgetest.Refuses(c) {
			continue
		}
		b[c.Name] = c.Value
		if c.MaxAge < 0 {
			delete(b, c.Name)
		}
	}
	return w.Body.String()
}

var key = bytes.Repeat([]byte("k"), 32)

// loggedIn is a browser that has logged in to the old program, twenty days ago if
// the store's cookies may be older.
func loggedIn(t *testing.T, old sessions.Store) browser {
	t.Helper()
	return loggedInAs(t, old, "app")
}

func loggedInAs(t *testing.T, old sessions.Store, name string) browser {
	t.Helper()
	b := browser{}
	b.get(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, _ := old.Get(r, name)
		s.Values["userID"] = int64(42)
		if err := s.Save(r, w); err != nil {
			t.Error(err)
		}
	}), "/login")
	if len(b) != 1 {
		t.Fatalf("cookies: got %d, want 1", len(b))
	}
	return b
}

func newProgram(sessions *session.Manager, old sessions.Store) http.Handler {
	return sessions.Handler(carryOver(old, "app", pages()))
}

func pages() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if r.URL.Path == "/logout" {
			s.Destroy()
			return
		}
		if r.URL.Path == "/cart" {
			session.Key[int]("cart").Set(s, 1)
		}
		id, _ := userID.Get(s)
		fmt.Fprint(w, id)
	})
}

// A user of the old program stays logged in, with the cookie store and with one that
// keeps sessions elsewhere; then the old cookie is gone.
func TestCarryOver(t *testing.T) {
	t.Parallel()
	for name, old := range map[string]sessions.Store{
		"cookie store":          sessions.NewCookieStore(key),
		"cookie store, sealed":  sessions.NewCookieStore(key, key),
		"the key before it too": sessions.NewCookieStore([]byte("new"), nil, key, nil),
		"filesystem store":      sessions.NewFilesystemStore(t.TempDir(), key),
	} {
		t.Run(name, func(t *testing.T) {
			b := loggedIn(t, old)
			h := newProgram(sessiontest.NewManager(t), old)
			if got := b.get(t, h, "/"); got != "42" {
				t.Fatalf("first request: got user %s, want 42", got)
			}
			if _, ok := b["app"]; ok || len(b) != 1 {
				t.Errorf("cookies: got %d, the old one among them: %v, want the new one alone", len(b), ok)
			}
			if got := b.get(t, h, "/"); got != "42" {
				t.Errorf("second request: got user %s, want 42", got)
			}
			b.get(t, h, "/logout")
			if got := b.get(t, h, "/"); got != "0" {
				t.Errorf("after the logout: got user %s, want nobody", got)
			}
		})
	}
}

// What the guide warns of: a copy of the cookie store's cookie outlives the logout,
// until its key is taken from the program.
func TestCopyOfTheOldCookie(t *testing.T) {
	t.Parallel()
	old := sessions.NewCookieStore(key)
	b := loggedIn(t, old)
	stolen := maps.Clone(b)
	m := sessiontest.NewManager(t)
	h := newProgram(m, old)
	b.get(t, h, "/")
	b.get(t, h, "/logout")
	if got := maps.Clone(stolen).get(t, h, "/"); got != "42" {
		t.Errorf("got user %s, want 42", got)
	}
	h = newProgram(m, sessions.NewCookieStore(bytes.Repeat([]byte("n"), 32)))
	if got := stolen.get(t, h, "/"); got != "0" {
		t.Errorf("with another key: got user %s, want nobody", got)
	}
	if len(stolen) != 0 {
		t.Errorf("a cookie that does not verify: got it kept, want it expired")
	}
}

// A cookie whose file is gone is a visitor's, not an outage.
func TestFileIsGone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old := sessions.NewFilesystemStore(dir, key)
	h := newProgram(sessiontest.NewManager(t), old)
	carried := loggedIn(t, old)
	second := maps.Clone(carried)
	carried.get(t, h, "/")
	deleted := loggedIn(t, old)
	files, err := filepath.Glob(filepath.Join(dir, "session_*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files: got %d, %v, want the one of the second login", len(files), err)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]browser{"carried over by another request": second, "deleted": deleted} {
		if got := b.get(t, h, "/"); got != "0" {
			t.Errorf("%s: got %s, want nobody", name, got)
		}
		if len(b) != 0 {
			t.Errorf("%s: the old cookie is still there", name)
		}
	}
}

// What ends the cookie store's cookie is no login itself, for who reads responses.
func TestEndOfTheOldCookie(t *testing.T) {
	t.Parallel()
	for name, old := range map[string]sessions.Store{
		"signed": sessions.NewCookieStore(key),
		"sealed": sessions.NewCookieStore(key, key),
	} {
		h := newProgram(sessiontest.NewManager(t), old)
		r := httptest.NewRequest("GET", "/", nil)
		r.AddCookie(&http.Cookie{Name: "app", Value: loggedIn(t, old)["app"]})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		read := browser{}
		for _, c := range w.Result().Cookies() {
			if c.Name == "app" {
				read[c.Name] = c.Value
			}
		}
		if len(read) != 1 {
			t.Fatalf("%s: got no cookie that ends the old one", name)
		}
		if got := read.get(t, h, "/"); got != "0" {
			t.Errorf("%s: its value: got user %s, want nobody", name, got)
		}
	}
}

// A store that cannot delete the old session is no reason to leave the browser its cookie.
func TestSaveFails(t *testing.T) {
	t.Parallel()
	old := &store{Store: sessions.NewCookieStore(key)}
	b := loggedIn(t, old)
	h := newProgram(sessiontest.NewManager(t), old)
	old.full = true
	if got := b.get(t, h, "/"); got != "42" {
		t.Errorf("got user %s, want 42", got)
	}
	if b["app"] != "" {
		t.Error("the old cookie is still there")
	}
	b.get(t, h, "/logout")
	if got := b.get(t, h, "/"); got != "0" {
		t.Errorf("after the logout: got user %s, want nobody", got)
	}
}

// A visitor who has no old cookie is sent none.
func TestVisitor(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	newProgram(sessiontest.NewManager(t), sessions.NewCookieStore(key)).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if got := len(w.Result().Cookies()); got != 0 || w.Body.String() != "0" {
		t.Errorf("got %d cookies, user %s, want none and nobody", got, w.Body)
	}
}

// Who has planted a session in a browser does not get its user's login.
func TestCarryOverIntoAPlantedSession(t *testing.T) {
	t.Parallel()
	old := sessions.NewCookieStore(key)
	victim := loggedIn(t, old)
	h := newProgram(sessiontest.NewManager(t), old)
	planted := browser{}
	planted.get(t, h, "/cart")
	if len(planted) != 1 {
		t.Fatalf("cookies: got %d, want a visitor's", len(planted))
	}
	maps.Copy(victim, planted)
	if got := victim.get(t, h, "/"); got != "42" {
		t.Errorf("got user %s, want 42", got)
	}
	if got := planted.get(t, h, "/"); got != "0" {
		t.Errorf("the planted cookie: got user %s, want nobody", got)
	}
}

// Who has an old cookie while a user is here, after a week of the old program again or
// from a login in another tab, loses it: it would undo a logout.
func TestOldCookieBesideAUser(t *testing.T) {
	t.Parallel()
	old := sessions.NewFilesystemStore(t.TempDir(), key)
	b := loggedIn(t, old)
	h := newProgram(sessiontest.NewManager(t), old)
	b.get(t, h, "/")
	again := loggedIn(t, old)
	maps.Copy(b, again)
	if got := b.get(t, h, "/"); got != "42" {
		t.Errorf("got user %s, want 42", got)
	}
	if b["app"] != "" {
		t.Error("the old cookie is still there")
	}
	b.get(t, h, "/logout")
	if got := b.get(t, h, "/"); got != "0" {
		t.Errorf("after the logout: got user %s, want nobody", got)
	}
	if got := again.get(t, h, "/"); got != "0" {
		t.Errorf("a copy of the old cookie: got user %s, want nobody", got)
	}
}

// So does who has two old cookies with a user each: "remember me" beside the login.
func TestTwoOldCookies(t *testing.T) {
	t.Parallel()
	old := sessions.NewCookieStore(key)
	b := loggedInAs(t, old, "auth")
	maps.Copy(b, loggedInAs(t, old, "remember"))
	h := sessiontest.NewManager(t).Handler(carryOver(old, "auth", carryOver(old, "remember", pages())))
	if got := b.get(t, h, "/"); got != "42" {
		t.Errorf("got user %s, want 42", got)
	}
	if len(b) != 1 {
		t.Errorf("cookies: got %d, want the new one alone", len(b))
	}
	b.get(t, h, "/logout")
	if got := b.get(t, h, "/"); got != "0" {
		t.Errorf("after the logout: got user %s, want nobody", got)
	}
}

func TestStaticPage(t *testing.T) {
	t.Parallel()
	old := sessions.NewCookieStore(key)
	bridgetest.StaticPage(t, func(next http.Handler) http.Handler { return carryOver(old, "app", next) })
}

// A request that ends while it is carried over is so all the same, and its browser's old
// cookie is gone.
func TestCarryOverOfARequestThatEnds(t *testing.T) {
	t.Parallel()
	old := sessions.NewCookieStore(key)
	b := loggedIn(t, old)
	h := newProgram(sessiontest.NewManager(t), old)
	over := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		cancel()
		h.ServeHTTP(w, r.WithContext(ctx))
	})
	b.get(t, over, "/")
	if b["app"] != "" {
		t.Error("the old cookie is still there")
	}
	if got := b.get(t, h, "/"); got != "42" {
		t.Errorf("got user %s, want 42", got)
	}
}

// An outage of the old store is no logout: the browser keeps its cookie.
func TestCarryOverOutage(t *testing.T) {
	t.Parallel()
	old := &store{Store: sessions.NewCookieStore(key)}
	b := loggedIn(t, old)
	h := newProgram(sessiontest.NewManager(t), old)
	old.down = true
	if got := b.get(t, h, "/"); got != "503" {
		t.Errorf("down: got %s, want 503", got)
	}
	old.down = false
	if got := b.get(t, h, "/"); got != "42" {
		t.Errorf("up again: got user %s, want 42", got)
	}
}

// store is down for all, or for who saves.
type store struct {
	sessions.Store
	down, full bool
}

func (s *store) Get(r *http.Request, name string) (*sessions.Session, error) {
	return sessions.GetRegistry(r).Get(s, name)
}

func (s *store) New(r *http.Request, name string) (*sessions.Session, error) {
	before := sessions.NewSession(s, name)
	if s.down {
		return before, errors.New("connection refused")
	}
	found, err := s.Store.New(r, name)
	before.Values, before.Options, before.IsNew = found.Values, found.Options, found.IsNew
	return before, err // whose Save is the one below
}

func (s *store) Save(r *http.Request, w http.ResponseWriter, before *sessions.Session) error {
	if s.full {
		return errors.New("no space left on device")
	}
	return s.Store.Save(r, w, before)
}

// Two sessions with lifetimes of their own are two Managers, one around the other.
func TestTwoManagers(t *testing.T) {
	t.Parallel()
	h, err := twoManagers(session.NewMemoryStore(), session.NewMemoryStore(), strings.Repeat("two managers ", 4))
	if err != nil {
		t.Fatal(err)
	}
	b := browser{}
	if got := b.get(t, h, "/theme?is=dark"); got != "dark, user 0" {
		t.Errorf("theme: got %q", got)
	}
	if got := b.get(t, h, "/login"); got != "dark, user 42" {
		t.Errorf("login: got %q", got)
	}
	if len(b) != 2 {
		t.Errorf("cookies: got %d, want 2", len(b))
	}
	if got := b.get(t, h, "/logout"); got != "dark, user 0" {
		t.Errorf("logout: got %q, want the theme kept", got)
	}
}

func TestPrefixedCookies(t *testing.T) {
	t.Parallel()
	old := sessions.NewCookieStore(key)
	for _, cookie := range bridgetest.Prefixed {
		old.Options = &sessions.Options{
			Path: cookie.Path, Domain: cookie.Domain, MaxAge: 3600, Secure: cookie.Secure,
			Partitioned: cookie.Partitioned, SameSite: cookie.SameSite,
		}
		h := sessiontest.NewManager(t).Handler(carryOver(old, cookie.Name, pages()))
		cookie.Value = loggedInAs(t, old, cookie.Name)[cookie.Name]
		bridgetest.Ends(t, h, cookie)
	}
}
