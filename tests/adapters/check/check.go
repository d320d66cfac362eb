// Package check tests an application of any framework: its login over a real
// connection, and what its ways to answer do when the store is down.
package check

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgsession/session"
)

var errDown = errors.New("the test's store is down")

// Store is a memory store that fails when it is told to.
type Store struct {
	*session.MemoryStore
	Down     atomic.Bool // everything fails
	ReadOnly atomic.Bool // everything but Load fails
}

func (s *Store) reads() error {
	if s.Down.Load() {
		return errDown
	}
	return nil
}

func (s *Store) writes() error {
	if s.Down.Load() || s.ReadOnly.Load() {
		return errDown
	}
	return nil
}

// Load implements session.Store.
func (s *Store) Load(ctx context.Context, id string) (session.Record, error) {
	if err := s.reads(); err != nil {
		return session.Record{}, err
	}
	return s.MemoryStore.Load(ctx, id)
}

// Create implements session.Store.
func (s *Store) Create(ctx context.Context, id string, r session.Record) error {
	if err := s.writes(); err != nil {
		return err
	}
	return s.MemoryStore.Create(ctx, id, r)
}

// Update implements session.Store.
func (s *Store) Update(ctx context.Context, id string, c session.Change) error {
	if err := s.writes(); err != nil {
		return err
	}
	return s.MemoryStore.Update(ctx, id, c)
}

// Touch implements session.Store.
func (s *Store) Touch(ctx context.Context, id string, ttl time.Duration) error {
	if err := s.writes(); err != nil {
		return err
	}
	return s.MemoryStore.Touch(ctx, id, ttl)
}

// Delete implements session.Store.
func (s *Store) Delete(ctx context.Context, id string) error {
	if err := s.writes(); err != nil {
		return err
	}
	return s.MemoryStore.Delete(ctx, id)
}

// Site is an application on a real server.
type Site struct {
	Store  *Store
	m      *session.Manager
	url    string
	client *http.Client
	log    buffer
}

// buffer is a log that is read while others write it.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *buffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// String returns what was logged.
func (l *buffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// New serves what app returns. The handler is given the manager, and is served
// as it is.
func New(t *testing.T, app func(*session.Manager) http.Handler) *Site {
	t.Helper()
	s := &Site{Store: &Store{MemoryStore: session.NewMemoryStore()}}
	var err error
	s.m, err = session.New(s.Store, session.Config{
		Secret:       "for tests only: 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A",
		DisablePrune: true,
		Logger:       slog.New(slog.NewTextHandler(&s.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(app(s.m))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Start()
	t.Cleanup(server.Close)
	s.url, s.client = server.URL, server.Client()
	s.client.Timeout = time.Minute
	s.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return s
}

// Response is an answer whose body has been read.
type Response struct {
	Code   int
	Body   string
	Header http.Header
	Err    error // the body, or all of it, was cut off
}

// Do sends a request with a cookie and returns the answer and the cookie for the
// next one. Headers are pairs of name and value.
func (s *Site) Do(t *testing.T, method, path, cookie string, headers ...string) (Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if cookie != "" {
		req.Header.Set("Cookie", cookie)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := s.client.Do(req)
	if err != nil {
		return Response{Err: err}, cookie
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	for _, c := range res.Cookies() {
		if c.Name == "session" {
			cookie = c.Name + "=" + c.Value
			if c.MaxAge < 0 {
				cookie = ""
			}
		}
	}
	return Response{res.StatusCode, string(body), res.Header, err}, cookie
}

func (s *Site) want(t *testing.T, method, path, cookie string, code int, body string) string {
	t.Helper()
	got, next := s.Do(t, method, path, cookie)
	if got.Err != nil || got.Code != code || !strings.Contains(got.Body, body) {
		t.Errorf("%s %s: got %d %q, %v, want %d and %q", method, path, got.Code, got.Body, got.Err, code, body)
	}
	return next
}

// WantRefused asks while the store is down: the answer is the error handler's
// and nothing else.
func (s *Site) WantRefused(t *testing.T, method, path, cookie string) {
	t.Helper()
	got, next := s.Do(t, method, path, cookie)
	if got.Err != nil || got.Code != http.StatusServiceUnavailable || got.Body != "Service Unavailable\n" {
		t.Errorf("%s %s, store down: got %d %q, %v, want 503 and nothing of the page", method, path, got.Code, got.Body, got.Err)
	}
	for _, name := range []string{"Location", "X-Handler", "Content-Encoding", "Set-Cookie"} {
		if v := got.Header.Get(name); v != "" {
			t.Errorf("%s %s, store down: got a header %s, want none of the handler's", method, path, name)
		}
	}
	if v := got.Header.Get("Cache-Control"); v != "no-store" {
		t.Errorf("%s %s, store down: Cache-Control: got %q, want no-store", method, path, v)
	}
	if next != cookie {
		t.Errorf("%s %s, store down: the cookie changed, want it kept", method, path)
	}
}

// Login logs in, looks and logs out, in an application with POST /login,
// GET /account and POST /logout; then again while the store is down.
func Login(t *testing.T, app func(*session.Manager) http.Handler) {
	t.Helper()
	s := New(t, app)
	s.want(t, "GET", "/account", "", 401, "")
	cookie := s.want(t, "POST", "/login", "", 303, "")
	if cookie == "" {
		t.Fatal("login: got no cookie")
	}
	s.want(t, "GET", "/account", cookie, 200, "user 42")
	renewed := s.want(t, "POST", "/login", cookie, 303, "")
	if renewed == cookie {
		t.Error("the next login: got the same cookie, want a new session ID")
	}
	s.want(t, "GET", "/account", cookie, 401, "")
	s.want(t, "GET", "/account", renewed, 200, "user 42")

	s.Store.Down.Store(true)
	s.WantRefused(t, "GET", "/account", renewed)
	s.WantRefused(t, "POST", "/login", "")
	s.WantRefused(t, "POST", "/logout", renewed)
	s.Store.Down.Store(false)
	s.want(t, "GET", "/account", renewed, 200, "user 42")

	if after := s.want(t, "POST", "/logout", renewed, 303, ""); after != "" {
		t.Error("logout: got a cookie, want it expired")
	}
	s.want(t, "GET", "/account", renewed, 401, "")
}

// CrossSite sends the login's form from another site, which knows a name and a
// password: its own. The browser takes what the answer sets, whatever SameSite says,
// so there must be no cookie in it.
func CrossSite(t *testing.T, app func(*session.Manager) http.Handler) {
	t.Helper()
	s := New(t, app)
	for _, from := range [][]string{
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
		{"Origin", "https://evil.example"}, // a browser from before Sec-Fetch-Site
	} {
		got, cookie := s.Do(t, "POST", "/login", "", from...)
		if got.Err != nil || got.Code != http.StatusForbidden || cookie != "" {
			t.Errorf("login from %s: got %d, %v, a cookie: %t, want 403 and none", from, got.Code, got.Err, cookie != "")
		}
	}
	if got, cookie := s.Do(t, "POST", "/login", "", "Sec-Fetch-Site", "same-origin", "Origin", s.url); got.Code != http.StatusSeeOther || cookie == "" {
		t.Errorf("login from its own page: got %d, %v, a cookie: %t, want 303 and one", got.Code, got.Err, cookie != "")
	}
}

// Route asks for a page that uses its session, while the store is down: the
// library's log says on which route, and nothing of the path.
func Route(t *testing.T, app func(*session.Manager) http.Handler, method, path, route string) {
	t.Helper()
	s := New(t, app)
	s.Store.Down.Store(true)
	s.WantRefused(t, method, path, "")
	got := s.log.String()
	if want := "route=" + strconv.Quote(route); !strings.Contains(got, want) && !strings.Contains(got, "route="+route) {
		t.Errorf("%s: logged: got %q, want %s in it", path, got, want)
	}
	if path != route && strings.Contains(got, path) {
		t.Errorf("%s: logged: got %q, want nothing of the path", path, got)
	}
}

// Answer is one way in which a handler may answer after it has changed its
// session by [Change].
type Answer struct {
	Path string
	Code int
	Body string // a part of it
	Lost bool   // what the handler has changed is not saved, as is right
}

var changes = session.Key[int]("changes")

// Change changes the session and gives the response a header, which is not to
// survive where the change cannot be saved.
func Change(w http.ResponseWriter, s *session.Session) {
	w.Header().Set("X-Handler", "yes")
	changes.Update(s, func(n int) int { return n + 1 })
}

// Answers asks for each path: with a store that works the answer arrives and the
// change is saved; with one that does not there is a 503 and nothing else.
func Answers(t *testing.T, app func(*session.Manager) http.Handler, answers []Answer) {
	t.Helper()
	for _, a := range answers {
		t.Run(strings.TrimPrefix(a.Path, "/"), func(t *testing.T) {
			s := New(t, app)
			cookie := s.want(t, "POST", a.Path, "", a.Code, a.Body)
			if got, want := s.Changes(t, cookie), map[bool]int{true: 0, false: 1}[a.Lost]; got != want {
				t.Errorf("saved changes: got %d, want %d", got, want)
			}
			if a.Lost {
				return
			}
			s.want(t, "POST", a.Path, cookie, a.Code, a.Body)
			if got := s.Changes(t, cookie); got != 2 {
				t.Errorf("saved changes, a second time: got %d, want 2", got)
			}
			s.Store.Down.Store(true)
			s.WantRefused(t, "POST", a.Path, "")
			s.WantRefused(t, "POST", a.Path, cookie)
			s.Store.Down.Store(false)
			s.Store.ReadOnly.Store(true)
			s.WantRefused(t, "POST", a.Path, "")
			s.WantRefused(t, "POST", a.Path, cookie)
		})
	}
}

// Changes returns how often [Change] has been saved.
func (s *Site) Changes(t *testing.T, cookie string) (n int) {
	t.Helper()
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Cookie", cookie)
	s.m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		x := session.From(r.Context())
		n, _ = changes.Get(x)
		x.Detach()
	})).ServeHTTP(httptest.NewRecorder(), r)
	return n
}

// Public asks for a page that does not use the session: it passes in an outage.
func Public(t *testing.T, app func(*session.Manager) http.Handler, method, path string, code int, body string) {
	t.Helper()
	s := New(t, app)
	s.Store.Down.Store(true)
	s.want(t, method, path, "session=forged", code, body)
}

// Late asks for a page that changes its session after its first bytes, in vain:
// the response does not look complete.
func Late(t *testing.T, app func(*session.Manager) http.Handler, path string) {
	t.Helper()
	s := New(t, app)
	cookie := s.Visit(t)
	s.want(t, "POST", path, cookie, 200, "page")
	s.Store.ReadOnly.Store(true)
	if got, _ := s.Do(t, "POST", path, cookie); got.Err == nil {
		t.Errorf("%s, not saved after the first byte: got a complete %d %q, want a truncated response", path, got.Code, got.Body)
	}
}

// Upgrade asks for a page that reads the session and then takes over the
// connection; the store that is down is noticed before.
func Upgrade(t *testing.T, app func(*session.Manager) http.Handler, path string) {
	t.Helper()
	s := New(t, app)
	cookie := s.Visit(t)
	s.want(t, "POST", path, cookie, 200, "page")
	s.Store.Down.Store(true)
	s.WantRefused(t, "POST", path, cookie)
}

// Visit makes a session, past the application, and returns its cookie.
func (s *Site) Visit(t *testing.T) string {
	t.Helper()
	w := httptest.NewRecorder()
	s.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Change(w, session.From(r.Context()))
	})).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	c := w.Result().Cookies()
	if len(c) != 1 {
		t.Fatalf("visit: got %d cookies, want 1", len(c))
	}
	return c[0].Name + "=" + c[0].Value
}
