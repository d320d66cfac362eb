package webtest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	visits   = session.Key[int]("visits")
	patience = time.Minute
)

// pruned is a store that tells when pruning begins.
type pruned struct {
	session.Store
	begun chan struct{}
	once  sync.Once
}

func (p *pruned) Prune(ctx context.Context, within time.Duration) (int64, error) {
	p.once.Do(func() { close(p.begun) })
	return p.Store.(session.Pruner).Prune(ctx, within)
}

// openPool returns a pool on an empty database, for its user to close.
func openPool(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	return pool
}

func postgresStore(t *testing.T, pool *pgxpool.Pool, opts session.PostgresOptions) session.Store {
	t.Helper()
	opts.Logger = slog.New(slog.DiscardHandler)
	store, err := session.NewPostgresStore(t.Context(), pool, opts)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func newManager(t *testing.T, store session.Store, timeout time.Duration) *session.Manager {
	t.Helper()
	m, err := session.New(store, session.Config{
		Secret: "for tests only: 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A", StoreTimeout: timeout,
		PruneInterval: 10 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// wantNothingLeft looks for goroutines, longer than goleak does, for on a busy machine
// those that end may not have had a turn. What is left is left for ever.
func wantNothingLeft(t *testing.T, ignore goleak.Option) {
	t.Helper()
	err := goleak.Find(ignore)
	for end := time.Now().Add(5 * time.Second); err != nil && time.Now().Before(end); {
		err = goleak.Find(ignore)
	}
	if err != nil {
		t.Error(err)
	}
}

// After Close, and the end of the requests and of the pool, no goroutine is left:
// not of pruning, nor of streams and sockets that were open at Close.
func TestNothingIsLeftAfterClose(t *testing.T) {
	for name, opts := range map[string]*session.PostgresOptions{
		"memory": nil, "PostgreSQL": {}, "PostgreSQL, not shared": {DisableBatching: true},
	} {
		t.Run(name, func(t *testing.T) {
			url := pgtest.URL(t)
			ignore := goleak.IgnoreCurrent()
			closePool, store := func() {}, session.Store(session.NewMemoryStore())
			if opts != nil {
				pool := openPool(t, url)
				closePool, store = pool.Close, postgresStore(t, pool, *opts)
				const backlog = `INSERT INTO schema_system.session SELECT 'expired' || n, '{}', now() - interval '1 hour' FROM generate_series(1, 20000) n`
				if _, err := pool.Exec(t.Context(), backlog); err != nil {
					t.Fatal(err)
				}
			}
			p := &pruned{Store: store, begun: make(chan struct{})}
			m := newManager(t, p, patience)
			s := startLeakSite(t, m)
			<-p.begun
			s.answered() // while rows are pruned
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					if err := m.Close(); err != nil {
						t.Errorf("Close: got %v, want no error", err)
					}
				})
			}
			wg.Wait()
			s.answered() // sessions go on
			if err := m.Close(); err != nil {
				t.Errorf("Close once more: got %v, want no error", err)
			}
			s.end()
			closePool()
			wantNothingLeft(t, ignore)
		})
	}
}

// The check finds what it is for.
func TestWhatIsLeftWithoutClose(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	m := newManager(t, session.NewMemoryStore(), patience)
	if err := goleak.Find(ignore); err == nil || !strings.Contains(err.Error(), "startPruning") {
		t.Errorf("without Close: got %v, want the goroutine that prunes", err)
	}
	if err := m.Close(); err != nil {
		t.Errorf("Close: got %v, want no error", err)
	}
	wantNothingLeft(t, ignore)
}

// Requests that have given up waiting for a locked row leave nothing behind, even
// while it stays locked.
func TestNothingIsLeftOfThoseWhoGaveUp(t *testing.T) {
	url := pgtest.URL(t)
	pool := openPool(t, url)
	m := newManager(t, postgresStore(t, pool, session.PostgresOptions{}), 5*time.Second)
	cookie := visit(m, "", func(s *session.Session) { visits.Set(s, 1) }).Header().Get("Set-Cookie")
	cookie, _, _ = strings.Cut(cookie, ";")
	locker, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer locker.Close(context.Background())
	for _, sql := range []string{"BEGIN", "SELECT FROM schema_system.session FOR UPDATE"} {
		if _, err := locker.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	ignore := goleak.IgnoreCurrent()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			w := visit(m, cookie, func(s *session.Session) {
				visits.Update(s, func(n int) int { return n + 1 })
				if i%2 == 1 {
					return
				}
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
				defer cancel()
				if err := s.Save(ctx); err == nil { // which stops waiting, not saving
					t.Error("Save of a locked row: got no error, want one")
				}
			})
			if w.Code != http.StatusServiceUnavailable {
				t.Errorf("a change of a locked row: got status %d, want 503", w.Code)
			}
		})
	}
	wg.Wait()
	if err := m.Close(); err != nil {
		t.Errorf("Close: got %v, want no error", err)
	}
	pool.Close()
	wantNothingLeft(t, ignore)
}

func visit(m *session.Manager, cookie string, f func(*session.Session)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Cookie", cookie)
	w := httptest.NewRecorder()
	m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		f(session.From(r.Context()))
	})).ServeHTTP(w, r)
	return w
}

// leakSite is a real server under load: browsers, a stream, a hijacked connection
// and a websocket.
type leakSite struct {
	t        *testing.T
	m        *session.Manager
	server   *httptest.Server
	stop     context.CancelFunc
	clients  sync.WaitGroup
	handlers sync.WaitGroup // Server.Close does not wait for those that hijack
	progress []*atomic.Int64
}

func startLeakSite(t *testing.T, m *session.Manager) *leakSite {
	t.Helper()
	s := &leakSite{t: t, m: m}
	mux := http.NewServeMux()
	mux.HandleFunc("/count", func(_ http.ResponseWriter, r *http.Request) { addVisit(r) })
	mux.HandleFunc("/stream", s.stream)
	mux.HandleFunc("/hijack", s.hijack)
	mux.HandleFunc("/socket", s.socket)
	handler := m.Handler(mux)
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.handlers.Add(1)
		defer s.handlers.Done()
		handler.ServeHTTP(w, r)
	}))
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	for range 8 {
		s.client(ctx, func(client *http.Client, progress func()) {
			for ctx.Err() == nil {
				s.get(ctx, client, "/count", func(io.Reader) { progress() })
			}
		})
	}
	for _, path := range []string{"/stream", "/hijack"} {
		s.client(ctx, func(client *http.Client, progress func()) {
			s.get(ctx, client, "/count", func(io.Reader) {}) // a stream changes a session, it cannot begin one
			s.get(ctx, client, path, func(body io.Reader) {
				for lines := bufio.NewScanner(body); lines.Scan(); {
					progress()
				}
			})
		})
	}
	s.client(ctx, func(client *http.Client, progress func()) {
		s.get(ctx, client, "/count", func(io.Reader) {})
		c, _, err := websocket.Dial(ctx, s.server.URL+"/socket", &websocket.DialOptions{HTTPClient: client})
		if err != nil {
			t.Errorf("websocket: got %v, want no error", err)
			return
		}
		defer c.CloseNow()
		for ctx.Err() == nil {
			if _, _, err := c.Read(ctx); err == nil {
				progress()
			}
		}
	})
	return s
}

// client runs f with a browser of its own until the site ends.
func (s *leakSite) client(ctx context.Context, f func(client *http.Client, progress func())) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	transport := &http.Transport{}
	var n atomic.Int64
	s.progress = append(s.progress, &n)
	s.clients.Go(func() {
		defer transport.CloseIdleConnections()
		f(&http.Client{Transport: transport, Jar: jar}, func() { n.Add(1) })
		if ctx.Err() == nil {
			s.t.Error("a client ended before the test did")
		}
	})
}

// get reads an answer, unless the site ends first.
func (s *leakSite) get(ctx context.Context, client *http.Client, path string, read func(io.Reader)) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.server.URL+path, nil)
	if err != nil {
		s.t.Error(err)
		return
	}
	resp, err := client.Do(r)
	if err != nil {
		if ctx.Err() == nil {
			s.t.Errorf("%s: got %v, want an answer", path, err)
		}
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		s.t.Errorf("%s: got status %d, want 200", path, resp.StatusCode)
	}
	read(resp.Body)
}

// answered waits until each client has had three more answers.
func (s *leakSite) answered() {
	s.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for i, n := range s.progress {
		for begin := n.Load(); n.Load() < begin+3; {
			select {
			case <-poll.C:
			case <-limit.C:
				s.t.Fatalf("client %d: got %d answers in %v, want 3", i, n.Load()-begin, patience)
			}
		}
	}
}

func (s *leakSite) end() {
	s.stop()
	s.clients.Wait()
	s.server.Close()
	s.handlers.Wait()
}

func addVisit(r *http.Request) *session.Session {
	s := session.From(r.Context())
	visits.Update(s, func(n int) int { return n + 1 })
	return s
}

// stream sends an event for each change that it has saved, until the browser goes.
func (s *leakSite) stream(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		sess := addVisit(r)
		if err := sess.Save(r.Context()); err != nil && r.Context().Err() == nil {
			s.t.Errorf("Save in a stream: got %v, want no error", err)
			return
		}
		fmt.Fprintln(w, "data: saved")
		_ = http.NewResponseController(w).Flush()
	}
}

// hijack writes lines until the browser goes, in a goroutine that outlives the
// handler.
func (s *leakSite) hijack(w http.ResponseWriter, r *http.Request) {
	sess := addVisit(r)
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.t.Errorf("Hijack: got %v, want no error", err)
		return
	}
	s.handlers.Add(1)
	go func() {
		defer s.handlers.Done()
		defer conn.Close()
		_, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
		for err == nil {
			visits.Get(sess)
			_, err = io.WriteString(conn, "a line\n")
		}
		if _, ok := err.(*net.OpError); !ok {
			s.t.Errorf("hijacked connection: got %v, want the end of it", err)
		}
	}()
}

// socket looks at the session for each message that it sends, until the browser goes.
func (s *leakSite) socket(w http.ResponseWriter, r *http.Request) {
	sess := session.From(r.Context())
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		s.t.Errorf("websocket: got %v, want no error", err)
		return
	}
	defer c.CloseNow()
	ctx := c.CloseRead(context.Background())
	for ctx.Err() == nil {
		if err := sess.Reload(ctx); err != nil && ctx.Err() == nil {
			s.t.Errorf("Reload in a socket: got %v, want no error", err)
			return
		}
		_ = c.Write(ctx, websocket.MessageText, []byte("still there"))
	}
}
