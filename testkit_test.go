package session_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/pgsession/session"
)

const (
	testSecret    = "semantics-test-secret-0123456789-current"
	testSecretOld = "semantics-test-secret-0123456789-earlier"
)

const (
	userKey  = session.Key[string]("user")
	countKey = session.Key[int]("count")
	keyA     = session.Key[string]("a")
	keyB     = session.Key[string]("b")
)

// newManager fills in what every test needs.
func newManager(t testing.TB, store session.Store, cfg session.Config) *session.Manager {
	t.Helper()
	if cfg.Secret == "" {
		cfg.Secret = testSecret
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := session.New(store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// browser keeps a cookie and sends it.
type browser struct {
	m      *session.Manager
	cookie string // name=value; "" for none
}

// visit lets a handler work on this browser's session.
func (b *browser) visit(h func(*session.Session)) *response {
	return b.serve(func(_ http.ResponseWriter, r *http.Request) { h(session.From(r.Context())) })
}

func (b *browser) serve(h http.HandlerFunc) *response {
	r := httptest.NewRequest("GET", "/", nil)
	if b.cookie != "" {
		r.Header.Set("Cookie", b.cookie)
	}
	return b.send(r, h)
}

func (b *browser) send(r *http.Request, h http.HandlerFunc) *response {
	w := httptest.NewRecorder()
	b.m.Handler(h).ServeHTTP(w, r)
	resp := &response{status: w.Code, header: w.Header(), body: w.Body.String()}
	if lines := w.Header()["Set-Cookie"]; len(lines) == 1 {
		resp.setCookie = lines[0]
		pair, _, _ := strings.Cut(lines[0], ";")
		b.cookie = pair
		if resp.sent() == "expired" {
			b.cookie = ""
		}
	}
	return resp
}

// with returns another browser that has got hold of the same cookie.
func (b *browser) with(m *session.Manager) *browser {
	return &browser{m: m, cookie: b.cookie}
}

func (b *browser) user() (user string) {
	b.visit(func(s *session.Session) { user, _ = userKey.Get(s) })
	return user
}

func (b *browser) id() (id string) {
	b.visit(func(s *session.Session) { id = s.ID() })
	return id
}

// maxAge returns the Max-Age of a response's cookie, -1 without one.
func (r *response) maxAge(t testing.TB) int {
	t.Helper()
	if r.setCookie == "" {
		return -1
	}
	c, err := http.ParseSetCookie(r.setCookie)
	if err != nil {
		t.Fatal("got a Set-Cookie header that does not parse")
	}
	return c.MaxAge
}

type response struct {
	status    int
	header    http.Header
	body      string
	setCookie string // "" for none
}

// sent says what the response makes of the cookie.
func (r *response) sent() string {
	pair, _, _ := strings.Cut(r.setCookie, ";")
	switch {
	case r.setCookie == "":
		return "nothing"
	case strings.IndexByte(pair, '=') == len(pair)-1:
		return "expired"
	}
	return "set"
}

// attributes is the Set-Cookie header from the first attribute on.
func (r *response) attributes() string {
	_, a, _ := strings.Cut(r.setCookie, "; ")
	return a
}

// login returns a browser with a session whose user is ada.
func login(t testing.TB, m *session.Manager) *browser {
	t.Helper()
	b := &browser{m: m}
	if resp := b.visit(func(s *session.Session) { userKey.Set(s, "ada") }); resp.status != 200 || b.cookie == "" {
		t.Fatalf("login: got status %d, cookie %s, want 200, set", resp.status, resp.sent())
	}
	return b
}

// logRecorder is a log that tests look into.
type logRecorder struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logRecorder) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logRecorder) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logRecorder) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func wantCalls(t testing.TB, what string, s *hookedStore, want string) {
	t.Helper()
	if got := s.took(); got != want {
		t.Errorf("%s: got calls %q, want %q", what, got, want)
	}
}

func wantResponse(t testing.TB, what string, r *response, status int, cookie string) {
	t.Helper()
	if r.status != status || r.sent() != cookie {
		t.Errorf("%s: got status %d, cookie %s, want %d, %s", what, r.status, r.sent(), status, cookie)
	}
}
