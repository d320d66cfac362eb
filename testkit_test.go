package session_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/secret"
)

// What all tests share is here and in hooked_store_test.go, server_testkit_test.go
// and postgres_testkit_test.go.

const (
	testSecret    = "semantics-test-secret-0123456789-current"
	testSecretOld = "semantics-test-secret-0123456789-earlier"

	testSecretOther = "semantics-test-secret-0123456789-anybody"
)

// fingerprint is what logs and sessionctl say of a secret.
func fingerprint(s string) string { return secret.Fingerprint(s) }

const (
	userKey  = session.Key[string]("user")
	countKey = session.Key[int]("count")
	keyA     = session.Key[string]("a")
	keyB     = session.Key[string]("b")
)

// newManager returns a manager that ends with its test. A secret and a silent
// logger are filled in.
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

// browser keeps the cookie that a manager's handler sends, and sends it back.
type browser struct {
	m      *session.Manager
	cookie string // name=value; "" for none
}

// visit lets a handler work on this browser's session.
func (b *browser) visit(h func(*session.Session)) *response {
	return b.serve(func(_ http.ResponseWriter, r *http.Request) { h(session.From(r.Context())) })
}

// serve is visit for a handler that wants more than the session.
func (b *browser) serve(h http.HandlerFunc) *response {
	return b.send(request("GET", b.cookie), h)
}

// send is serve for a request that has more than the cookie.
func (b *browser) send(r *http.Request, h http.HandlerFunc) *response {
	resp := askBroken(b.m.Handler(h), r)
	if line := resp.setCookie(); line != "" {
		b.cookie, _, _ = strings.Cut(line, ";")
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

// login returns a browser with a session whose user is ada.
func login(t testing.TB, m *session.Manager) *browser {
	t.Helper()
	b := &browser{m: m}
	if resp := b.visit(func(s *session.Session) { userKey.Set(s, "ada") }); resp.status != 200 || b.cookie == "" {
		t.Fatalf("login: got status %d, cookie %s, want 200, set", resp.status, resp.sent())
	}
	return b
}

// useSession is visit with whatever cookie, which stays as it is.
func useSession(m *session.Manager, cookie string, f func(*session.Session)) *response {
	return (&browser{m: m, cookie: cookie}).visit(f)
}

// loginCounter makes a session and returns its cookie and ID.
func loginCounter(t testing.TB, m *session.Manager) (cookie, id string) {
	t.Helper()
	resp := useSession(m, "", func(s *session.Session) { countKey.Set(s, 0) })
	if cookie = resp.newCookie(); cookie == "" {
		t.Fatalf("login: got status %d and no cookie", resp.status)
	}
	useSession(m, cookie, func(s *session.Session) { id = s.ID() })
	if id == "" {
		t.Fatal("login: got no session ID")
	}
	return cookie, id
}

// counted returns the count of the cookie's session, -1 without one.
func counted(t testing.TB, m *session.Manager, cookie string) int {
	t.Helper()
	n := -1
	resp := useSession(m, cookie, func(s *session.Session) {
		if got, ok := countKey.Get(s); ok {
			n = got
		}
	})
	if resp.status != http.StatusOK {
		t.Errorf("reading the count: got status %d, want 200", resp.status)
	}
	return n
}

func increment(s *session.Session) { countKey.Update(s, func(n int) int { return n + 1 }) }

// ask makes a request without a server. The response is what was sent: header
// fields that were set too late are not in it.
func ask(h http.Handler, r *http.Request) *response {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return recorded(w)
}

func recorded(w *httptest.ResponseRecorder) *response {
	res := w.Result()
	return &response{status: res.StatusCode, header: res.Header, trailer: res.Trailer, body: w.Body.String()}
}

// askBroken is ask for a response that may be aborted, which is its error then, as
// a browser sees a broken connection.
func askBroken(h http.Handler, r *http.Request) (resp *response) {
	w := httptest.NewRecorder()
	defer func() {
		v := recover()
		if v != nil && v != http.ErrAbortHandler { // as net/http compares it
			panic(v)
		}
		if resp = recorded(w); v != nil {
			resp.err = http.ErrAbortHandler
		}
	}()
	h.ServeHTTP(w, r)
	return nil
}

// request returns one that has nothing but a cookie, "" for none.
func request(method, cookie string) *http.Request {
	r := httptest.NewRequest(method, "/", nil)
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	return r
}

// post is for handlers that are not one manager's.
func post(h http.Handler, cookie string) *response { return ask(h, request("POST", cookie)) }

// response is what a browser sees.
type response struct {
	status  int
	header  http.Header
	trailer http.Header
	body    string
	err     error // the connection or stream broke
}

// cookies returns what was set, each as name=value.
func (r *response) cookies() (pairs []string) {
	for _, line := range r.header["Set-Cookie"] {
		pair, _, _ := strings.Cut(line, ";")
		pairs = append(pairs, pair)
	}
	return pairs
}

// newCookie returns the session cookie that was set, as name=value, "" if there
// is none.
func (r *response) newCookie() string {
	for _, pair := range r.cookies() {
		if strings.HasPrefix(pair, "session=") {
			return pair
		}
	}
	return ""
}

// setCookie returns the only Set-Cookie header, "" for none or several.
func (r *response) setCookie() string {
	if lines := r.header["Set-Cookie"]; len(lines) == 1 {
		return lines[0]
	}
	return ""
}

// sent says what the response makes of the cookie.
func (r *response) sent() string {
	pair, _, _ := strings.Cut(r.setCookie(), ";")
	switch {
	case r.setCookie() == "":
		return "nothing"
	case strings.IndexByte(pair, '=') == len(pair)-1:
		return "expired"
	}
	return "set"
}

// attributes is the Set-Cookie header from the first attribute on.
func (r *response) attributes() string {
	_, a, _ := strings.Cut(r.setCookie(), "; ")
	return a
}

// maxAge returns the Max-Age of a response's cookie, -1 without one.
func (r *response) maxAge(t testing.TB) int {
	t.Helper()
	if r.setCookie() == "" {
		return -1
	}
	c, err := http.ParseSetCookie(r.setCookie())
	if err != nil {
		t.Fatal("got a Set-Cookie header that does not parse")
	}
	return c.MaxAge
}

// logRecorder is a log that tests look into: as text, as slog prints it by
// default, and record by record.
type logRecorder struct {
	mu      sync.Mutex
	b       bytes.Buffer
	records []slog.Record
}

func (l *logRecorder) Enabled(context.Context, slog.Level) bool { return true }

func (l *logRecorder) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l *logRecorder) WithGroup(string) slog.Handler { return l }

func (l *logRecorder) Handle(ctx context.Context, r slog.Record) error {
	l.mu.Lock()
	l.records = append(l.records, r)
	l.mu.Unlock()
	if r.Level < slog.LevelInfo {
		return nil
	}
	return slog.NewTextHandler(l, nil).Handle(ctx, r)
}

// Write takes what another handler, or a log.Logger, prints.
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

// from returns the messages of records of at least level, with their attributes.
func (l *logRecorder) from(level slog.Level) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, r := range l.records {
		if r.Level < level {
			continue
		}
		text := r.Message
		r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
		out = append(out, text)
	}
	return out
}

// reset forgets everything.
func (l *logRecorder) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = nil
	l.b.Reset()
}

func (l *logRecorder) logger() *slog.Logger { return slog.New(l) }

// wantCalls compares the calls since the last look.
func wantCalls(t testing.TB, what string, s *hookedStore, want string) {
	t.Helper()
	if got := s.took(); got != want {
		t.Errorf("%s: got calls %q, want %q", what, got, want)
	}
}

// wantResponse compares the status and what the response makes of the cookie:
// set, expired or nothing.
func wantResponse(t testing.TB, what string, r *response, status int, cookie string) {
	t.Helper()
	if r.status != status || r.sent() != cookie {
		t.Errorf("%s: got status %d, cookie %s, want %d, %s", what, r.status, r.sent(), status, cookie)
	}
}
