package webtest

import (
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/session"
)

const (
	name = session.Key[string]("name")
	city = session.Key[string]("city")
)

var errStore = errors.New("the test's store is down")

// store is a memory store that can be made to fail.
type store struct {
	session.Store

	mu    sync.Mutex
	fails []string
	calls map[string]int
}

func (s *store) before(op string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[op]++
	if slices.Contains(s.fails, op) {
		return errStore
	}
	return nil
}

func (s *store) fail(ops ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails, s.calls = ops, make(map[string]int)
}

// writes returns how often anything was written since fail.
func (s *store) writes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls["Create"] + s.calls["Update"] + s.calls["Delete"]
}

func (s *store) Load(ctx context.Context, id string) (session.Record, error) {
	if err := s.before("Load"); err != nil {
		return session.Record{}, err
	}
	return s.Store.Load(ctx, id)
}

func (s *store) Create(ctx context.Context, id string, r session.Record) error {
	if err := s.before("Create"); err != nil {
		return err
	}
	return s.Store.Create(ctx, id, r)
}

func (s *store) Update(ctx context.Context, id string, c session.Change) error {
	if err := s.before("Update"); err != nil {
		return err
	}
	return s.Store.Update(ctx, id, c)
}

func (s *store) Delete(ctx context.Context, id string) error {
	if err := s.before("Delete"); err != nil {
		return err
	}
	return s.Store.Delete(ctx, id)
}

// site is a manager over a store, and one over the same records that never
// fails.
type site struct {
	store   *store
	m, peek *session.Manager
}

func newSite(t *testing.T, opts ...func(*session.Config)) *site {
	t.Helper()
	memory := session.NewMemoryStore()
	s := &site{store: &store{Store: memory}}
	s.store.fail()
	cfg := session.Config{
		Secret:       "for tests only: 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A",
		DisablePrune: true,
		Logger:       slog.New(slog.DiscardHandler),
	}
	for _, opt := range opts {
		opt(&cfg)
	}
	for _, m := range []struct {
		dst   **session.Manager
		store session.Store
	}{{&s.m, s.store}, {&s.peek, memory}} {
		made, err := session.New(m.store, cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = made.Close() })
		*m.dst = made
	}
	return s
}

// visit runs f on the session of a cookie, past the failing store, and returns
// the cookie that the response set.
func (s *site) visit(t *testing.T, cookie string, f func(s *session.Session)) string {
	t.Helper()
	r := httptest.NewRequest("POST", "/", nil)
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	rec := httptest.NewRecorder()
	s.peek.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		f(session.From(r.Context()))
	})).ServeHTTP(rec, r)
	if rec.Code != http.StatusOK {
		t.Fatalf("visit: got %d, want 200", rec.Code)
	}
	return sessionCookie(rec.Header())
}

func (s *site) login(t *testing.T) string {
	t.Helper()
	return s.visit(t, "", func(s *session.Session) { name.Set(s, "ada") })
}

func (s *site) wantStored(t *testing.T, cookie string, key session.Key[string], want string) {
	t.Helper()
	var got string
	s.visit(t, cookie, func(s *session.Session) { got, _ = key.Get(s) })
	if got != want {
		t.Errorf("stored %s: got %q, want %q", key, got, want)
	}
}

// sessionCookie returns the session's cookie for the next request, "" if the
// header sets none.
func sessionCookie(h http.Header) string {
	for _, c := range h["Set-Cookie"] {
		if pair, _, _ := strings.Cut(c, ";"); strings.HasPrefix(pair, "session=") {
			return pair
		}
	}
	return ""
}

var protocols = []string{"HTTP/1.1", "HTTP/2.0"}

// serve starts a real server and returns its URL and a client that speaks proto
// with it.
func serve(t *testing.T, proto string, h http.Handler) (string, *http.Client) {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	if proto == "HTTP/2.0" {
		srv.EnableHTTP2 = true
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	client := srv.Client()
	client.Timeout = time.Minute
	client.Transport.(*http.Transport).DisableCompression = true
	return srv.URL, client
}

// outside is a middleware around the session's, as for CORS and HSTS.
func outside(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "https://example.com")
		w.Header().Set("Strict-Transport-Security", "max-age=60")
		next.ServeHTTP(w, r)
	})
}

// wantRefused checks that a response is the default error handler's with
// nothing of the handler's. Names in also may be there besides.
func wantRefused(t *testing.T, res *http.Response, body string, code int, also ...string) {
	t.Helper()
	if res.StatusCode != code || body != http.StatusText(code)+"\n" {
		t.Errorf("response: got %d %q, want the error handler's %d", res.StatusCode, body, code)
	}
	want := map[string]string{
		"Content-Type":                "text/plain; charset=utf-8",
		"X-Content-Type-Options":      "nosniff",
		"Cache-Control":               "no-store",
		"Access-Control-Allow-Origin": "https://example.com",
		"Strict-Transport-Security":   "max-age=60",
	}
	if code == http.StatusServiceUnavailable {
		want["Retry-After"] = "5"
	}
	for name, v := range want {
		if got := res.Header.Get(name); got != v {
			t.Errorf("header %s: got %q, want %q", name, got, v)
		}
	}
	for name, got := range res.Header {
		if want[name] == "" && !slices.Contains(append(also, "Date", "Content-Length"), name) {
			t.Errorf("header %s: got %q, want none", name, got)
		}
	}
	if len(res.Trailer) > 0 {
		t.Errorf("trailers: got %v, want none", res.Trailer)
	}
}
