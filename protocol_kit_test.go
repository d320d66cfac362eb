package session_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// The tests of protocol_*_test.go are schedules: what several requests of one
// session do, in the order in which it stands there.

// puppet is a request whose handler does what a test tells it, one step after
// another.
type puppet struct {
	b     *browser
	steps chan http.HandlerFunc
	did   chan struct{} // a step is over; closed when the handler has ended
	done  chan *response
}

// begin starts a request of this browser. It is in its handler when begin returns,
// and has not used its session.
func (b *browser) begin() *puppet { return b.beginIn(b.m.Handler) }

// beginIn is begin for a handler that has more around it than its manager.
func (b *browser) beginIn(around func(http.Handler) http.Handler) *puppet {
	p := &puppet{b: b, steps: make(chan http.HandlerFunc), did: make(chan struct{}), done: make(chan *response, 1)}
	r := request("POST", b.cookie)
	h := around(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(p.did)
		p.did <- struct{}{}
		for step := range p.steps {
			step(w, r)
			p.did <- struct{}{}
		}
	}))
	go func() { p.done <- survive(h, r) }()
	<-p.did
	return p
}

// survive makes a request whose handler may panic: that is the response's error.
func survive(h http.Handler, r *http.Request) *response {
	w := httptest.NewRecorder()
	resp := &response{}
	func() {
		defer func() {
			switch v := recover(); v {
			case nil:
			case http.ErrAbortHandler:
				resp.err = http.ErrAbortHandler
			default:
				resp.err = fmt.Errorf("panic: %v", v)
			}
		}()
		h.ServeHTTP(w, r)
	}()
	res := w.Result()
	resp.status, resp.header, resp.trailer, resp.body = res.StatusCode, res.Header, res.Trailer, w.Body.String()
	return resp
}

// do lets the handler use its session; it returns when that is done, or has
// panicked.
func (p *puppet) do(use func(*session.Session)) {
	p.serve(func(_ http.ResponseWriter, r *http.Request) { use(session.From(r.Context())) })
}

// serve is do for more than the session.
func (p *puppet) serve(step http.HandlerFunc) {
	p.steps <- step
	<-p.did
}

// end lets the handler return; the browser takes the cookie of its response. After a
// step that has panicked it only fetches the response.
func (p *puppet) end() *response {
	close(p.steps)
	resp := <-p.done
	p.b.take(resp)
	return resp
}

// take does with a response's session cookie what a browser does.
func (b *browser) take(resp *response) {
	switch resp.sent() {
	case "expired":
		b.cookie = ""
	case "set":
		b.cookie = resp.cookies()[0]
	}
}

// wantUser checks whose session the browser has, "" for nobody's.
func (b *browser) wantUser(t testing.TB, want string) {
	t.Helper()
	if got := b.user(); got != want {
		t.Errorf("the browser's user: got %q, want %q", got, want)
	}
}

// logIn is a login as applications do it.
func logIn(user string) func(*session.Session) {
	return func(s *session.Session) {
		s.Renew()
		userKey.Set(s, user)
	}
}

func destroy(s *session.Session) { s.Destroy() }

func renew(s *session.Session) { s.Renew() }

// save commits, and wants that to work.
func save(t testing.TB) func(*session.Session) {
	return func(s *session.Session) {
		t.Helper()
		if err := s.Save(context.Background()); err != nil {
			t.Errorf("Save: got %v, want no error", err)
		}
	}
}

// wantRecords checks how many records are alive.
func (s *hookedStore) wantRecords(t testing.TB, want int) {
	t.Helper()
	if got := len(s.live(t)); got != want {
		t.Errorf("live records: got %d, want %d", got, want)
	}
}

// age makes the only record expire as one does that nobody has used for d.
func (s *hookedStore) age(t testing.TB, d time.Duration) {
	t.Helper()
	s.express(t, s.ttl(t)-d, func(data string) string { return data })
}

// protocolSecrets lets a manager accept the old secret's cookies.
func protocolSecrets(c *session.Config) {
	c.Secret, c.OldSecrets = testSecret, []string{testSecretOld}
}

func oldSecret(c *session.Config) { c.Secret = testSecretOld }

func keyOfUser(c *session.Config) { c.UserKey = string(userKey) }

// eachProtocolStore runs a test over memory and over PostgreSQL, with shared
// statements and without. open makes a manager over the store.
func eachProtocolStore(t *testing.T, test func(t *testing.T, store *hookedStore, open func(...func(*session.Config)) *session.Manager)) {
	stores := map[string]func(t *testing.T) session.Store{
		"memory":     func(*testing.T) session.Store { return session.NewMemoryStore() },
		"PostgreSQL": func(t *testing.T) session.Store { return newStore(t, pgtest.Pool(t)) },
		"PostgreSQL without sharing": func(t *testing.T) session.Store {
			return newStore(t, pgtest.Pool(t), session.PostgresOptions{DisableBatching: true})
		},
	}
	for _, name := range slices.Sorted(maps.Keys(stores)) {
		t.Run(name, func(t *testing.T) {
			behind := stores[name](t)
			store := &hookedStore{Store: behind}
			test(t, store, func(opts ...func(*session.Config)) *session.Manager {
				cfg := session.Config{DisablePrune: true, StoreTimeout: patience}
				for _, opt := range opts {
					opt(&cfg)
				}
				return newManager(t, store, cfg)
			})
		})
	}
}

// setCookies returns all Set-Cookie lines that are of the session.
func (r *response) setCookies() (lines []string) {
	for _, line := range r.header["Set-Cookie"] {
		if strings.HasPrefix(line, "session=") {
			lines = append(lines, line)
		}
	}
	return lines
}
