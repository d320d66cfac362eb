package session_test

import (
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/session"
)

// testSite is a manager over a hookedStore.
type testSite struct {
	store *hookedStore
	log   *logRecorder
	m     *session.Manager
	peek  *session.Manager // over the same records, past the hook
}

// login makes a session with a name and returns its cookie.
func (s *testSite) login(t testing.TB) string {
	t.Helper()
	return post(s.peek.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		nameKey.Set(session.From(r.Context()), "ada")
	})), "").cookie(t)
}

// stored returns what the record of a cookie holds; ok is false without one.
func (s *testSite) stored(cookie string, key session.Key[string]) (value string, ok bool) {
	post(s.peek.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		value, ok = key.Get(session.From(r.Context()))
	})), cookie)
	return value, ok
}

func (s *testSite) wantStored(t *testing.T, cookie string, key session.Key[string], want string) {
	t.Helper()
	if got, _ := s.stored(cookie, key); got != want {
		t.Errorf("stored %s: got %q, want %q", key, got, want)
	}
}

func newSite(t testing.TB, opts ...func(*session.Config)) *testSite {
	t.Helper()
	memory := session.NewMemoryStore()
	s := &testSite{store: &hookedStore{Store: memory}, log: &logRecorder{}}
	cfg := session.Config{Secret: "for tests only: 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A", DisablePrune: true, Logger: s.log.logger()}
	for _, opt := range opts {
		opt(&cfg)
	}
	s.m = newManager(t, s.store, cfg)
	cfg.Logger = slog.New(slog.DiscardHandler)
	s.peek = newManager(t, struct{ session.Store }{memory}, cfg)
	s.log.reset()
	t.Cleanup(func() {
		all := strings.Join(s.log.from(slog.LevelDebug), "\n")
		for _, id := range s.store.named() {
			if strings.Contains(all, id) {
				t.Error("the log holds a session ID")
			}
		}
	})
	return s
}

// protocols are the protocols that everything here is tested with.
var protocols = []string{"HTTP/1.1", "HTTP/2.0"}

// testServer is a real server and a client that speaks proto with it.
type testServer struct {
	proto  string
	url    string
	client *http.Client
}

// do makes a request. POST is the usual method: clients repeat a GET whose
// connection breaks.
func (s *testServer) do(t testing.TB, method, cookie string) *response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s.send(t, req, cookie)
}

func (s *testServer) send(t testing.TB, req *http.Request, cookie string) *response {
	t.Helper()
	if cookie != "" {
		req.Header.Set("Cookie", cookie)
	}
	res, err := s.client.Do(req)
	if err != nil {
		return &response{err: err}
	}
	defer res.Body.Close()
	if res.Proto != s.proto {
		t.Fatalf("protocol: got %s, want %s", res.Proto, s.proto)
	}
	body, err := io.ReadAll(res.Body)
	return &response{status: res.StatusCode, header: res.Header, trailer: res.Trailer, body: string(body), err: err}
}

func startServer(t testing.TB, proto string, h http.Handler) *testServer {
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
	client.Timeout = time.Minute // a deadlock fails its test
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client.Transport.(*http.Transport).DisableCompression = true
	return &testServer{proto: proto, url: srv.URL, client: client}
}

// cookie returns the session cookie of a response for the next request.
func (r *response) cookie(t testing.TB) string {
	t.Helper()
	set := r.header["Set-Cookie"]
	if len(set) != 1 || !strings.HasPrefix(set[0], "session=") {
		t.Fatalf("Set-Cookie: got %d of them, want the session's alone", len(set))
	}
	pair, _, _ := strings.Cut(set[0], ";")
	return pair
}

func (r *response) want(t *testing.T, code int, body string) {
	t.Helper()
	if r.err != nil {
		t.Fatalf("reply: got error %v, want a complete one", r.err)
	}
	if r.status != code || r.body != body {
		t.Errorf("reply: got %d %q, want %d %q", r.status, r.body, code, body)
	}
}

// wantRefused checks that a response is the default error handler's, with nothing
// beside it but the headers that outside sets.
func (r *response) wantRefused(t *testing.T, code int) {
	t.Helper()
	r.wantRefusal(t, code, false)
}

// wantRefusal is wantRefused for a handler that flushes: the answer leaves
// before its length is known.
func (r *response) wantRefusal(t *testing.T, code int, flushed bool) {
	t.Helper()
	r.want(t, code, http.StatusText(code)+"\n")
	want := http.Header{
		"Content-Type":                {"text/plain; charset=utf-8"},
		"X-Content-Type-Options":      {"nosniff"},
		"Cache-Control":               {"no-store"},
		"Content-Length":              {fmt.Sprint(len(r.body))},
		"Access-Control-Allow-Origin": {"https://example.com"},
		"Strict-Transport-Security":   {"max-age=60"},
	}
	if code == http.StatusServiceUnavailable {
		want.Set("Retry-After", "5")
	}
	if flushed {
		want.Del("Content-Length")
	}
	for name, got := range r.header {
		if w := want[name]; name != "Date" && !slices.Equal(got, w) {
			t.Errorf("header %s: got %q, want %q", name, got, w)
		}
	}
	for name, w := range want {
		if got := r.header[name]; !slices.Equal(got, w) {
			t.Errorf("header %s: got %q, want %q", name, got, w)
		}
	}
	if len(r.trailer) > 0 {
		t.Errorf("trailers: got %v, want none", r.trailer)
	}
}

// outside is a middleware around the session's, as for CORS and HSTS.
func outside(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "https://example.com")
		w.Header().Set("Strict-Transport-Security", "max-age=60")
		next.ServeHTTP(w, r)
	})
}
