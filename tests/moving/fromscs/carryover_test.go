package fromscs

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"

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

func (b browser) copy() browser {
	c := browser{}
	for name, value := range b {
		c[name] = value
	}
	return c
}

// oldProgram is a program with scs, of which a user has logged in.
func oldProgram(t *testing.T, store scs.Store) (*scs.SessionManager, browser) {
	t.Helper()
	old := scs.New()
	old.Store, old.Cookie.Name = store, "old"
	b := browser{}
	b.get(t, old.LoadAndSave(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		old.Put(r.Context(), "userID", int64(42))
	})), "/login")
	return old, b
}

// newProgram is the same with the session, and what carries over.
func newProgram(sessions *session.Manager, old *scs.SessionManager) http.Handler {
	return sessions.Handler(carryOver(old, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
	})))
}

// A user of the old program stays logged in; once carried over the old cookie is
// gone from the browser, and in a minute worthless to whoever has a copy.
func TestCarryOver(t *testing.T) {
	t.Parallel()
	store := &shortened{MemStore: memstore.NewWithCleanupInterval(0)}
	old, b := oldProgram(t, store)
	h := newProgram(sessiontest.NewManager(t), old)
	meanwhile := b.copy()

	if got := b.get(t, h, "/"); got != "42" {
		t.Fatalf("first request: got user %s, want 42", got)
	}
	if _, ok := b["old"]; ok || len(b) != 1 {
		t.Errorf("cookies: got %d, the old one among them: %v, want the new one alone", len(b), ok)
	}
	if left := time.Until(store.expiry); left > time.Minute {
		t.Errorf("the old session: got %v left, want a minute at most", left)
	}
	if got := meanwhile.get(t, h, "/"); got != "42" {
		t.Errorf("a request that was under way with the old cookie: got user %s, want 42", got)
	}
	if got := b.get(t, h, "/"); got != "42" {
		t.Errorf("second request: got user %s, want 42", got)
	}
	b.get(t, h, "/logout")
	if got := b.get(t, h, "/"); got != "0" {
		t.Errorf("after the logout: got user %s, want nobody", got)
	}
	if got := (browser{"old": "forged"}).get(t, h, "/"); got != "0" {
		t.Errorf("a forged cookie: got user %s, want nobody", got)
	}
}

// A copy of the old cookie has its minute, however often it is used in it.
func TestCopyOfTheOldCookie(t *testing.T) {
	t.Parallel()
	store := &shortened{MemStore: memstore.NewWithCleanupInterval(0)}
	old, b := oldProgram(t, store)
	old.IdleTimeout = time.Hour
	h := newProgram(sessiontest.NewManager(t), old)
	stolen := b.copy()
	b.get(t, h, "/")
	b.get(t, h, "/logout")
	for range 2 {
		before := store.expiry
		if got := stolen.copy().get(t, h, "/"); got != "42" {
			t.Errorf("within the minute: got user %s, want 42", got)
		}
		if store.expiry != before {
			t.Errorf("a copy: got the old session extended by %v, want it left alone", store.expiry.Sub(before))
		}
	}
}

// shortened notes until when the last commit keeps its session.
type shortened struct {
	*memstore.MemStore
	expiry time.Time
	down   bool
}

func (s *shortened) Commit(token string, b []byte, expiry time.Time) error {
	s.expiry = expiry
	return s.MemStore.Commit(token, b, expiry)
}

func (s *shortened) Find(token string) ([]byte, bool, error) {
	if s.down {
		return nil, false, fmt.Errorf("down")
	}
	return s.MemStore.Find(token)
}

// Who has planted a session in a browser does not get its user's login.
func TestCarryOverIntoAPlantedSession(t *testing.T) {
	t.Parallel()
	old, victim := oldProgram(t, memstore.NewWithCleanupInterval(0))
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

// A request that ends while it is carried over is so all the same, and its old session
// ends.
func TestCarryOverOfARequestThatEnds(t *testing.T) {
	t.Parallel()
	store := &shortened{MemStore: memstore.NewWithCleanupInterval(0)}
	old, b := oldProgram(t, store)
	h := newProgram(sessiontest.NewManager(t), old)
	over := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		cancel()
		h.ServeHTTP(w, r.WithContext(ctx))
	})
	b.get(t, over, "/")
	if left := time.Until(store.expiry); left > time.Minute {
		t.Errorf("the old session: got %v left, want a minute at most", left)
	}
	if got := b.get(t, h, "/"); got != "42" {
		t.Errorf("got user %s, want 42", got)
	}
}

// An outage of the old store is no logout: the browser keeps its cookie.
func TestCarryOverOutage(t *testing.T) {
	t.Parallel()
	store := &shortened{MemStore: memstore.NewWithCleanupInterval(0)}
	old, b := oldProgram(t, store)
	h := newProgram(sessiontest.NewManager(t), old)
	store.down = true
	if got := b.get(t, h, "/"); got != "503" {
		t.Errorf("down: got %s, want 503", got)
	}
	store.down = false
	if got := b.get(t, h, "/"); got != "42" {
		t.Errorf("up again: got user %s, want 42", got)
	}
}

// Who has an old cookie while a user is here, after a week of the old program again or
// from a login in another tab, loses it: it would undo a logout.
func TestOldCookieBesideAUser(t *testing.T) {
	t.Parallel()
	store := &shortened{MemStore: memstore.NewWithCleanupInterval(0)}
	old, b := oldProgram(t, store)
	h := newProgram(sessiontest.NewManager(t), old)
	b.get(t, h, "/")
	_, again := oldProgram(t, store)
	maps.Copy(b, again)
	if got := b.get(t, h, "/"); got != "42" {
		t.Errorf("got user %s, want 42", got)
	}
	if b["old"] != "" {
		t.Error("the old cookie is still there")
	}
	if left := time.Until(store.expiry); left > time.Minute {
		t.Errorf("the old session: got %v left, want a minute at most", left)
	}
	b.get(t, h, "/logout")
	if got := b.get(t, h, "/"); got != "0" {
		t.Errorf("after the logout: got user %s, want nobody", got)
	}
}

func TestStaticPage(t *testing.T) {
	t.Parallel()
	old, _ := oldProgram(t, memstore.NewWithCleanupInterval(0))
	bridgetest.StaticPage(t, func(next http.Handler) http.Handler { return carryOver(old, next) })
}

func TestPrefixedCookies(t *testing.T) {
	t.Parallel()
	old, b := oldProgram(t, memstore.NewWithCleanupInterval(0))
	for _, cookie := range bridgetest.Prefixed {
		old.Cookie = scs.SessionCookie{
			Name: cookie.Name, Path: cookie.Path, Domain: cookie.Domain, Secure: cookie.Secure,
			Partitioned: cookie.Partitioned, SameSite: cookie.SameSite,
		}
		cookie.Value = b["old"]
		bridgetest.Ends(t, newProgram(sessiontest.NewManager(t), old), cookie)
	}
}
