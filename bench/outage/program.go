package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
)

const (
	name  = session.Key[string]("name")
	count = session.Key[int]("count")

	users = 200
)

// program is an application under test: its handler is called directly, so that
// what is measured is the middleware and its store.
type program struct {
	o       options
	pool    *pgxpool.Pool
	manager *session.Manager
	handler http.Handler
	cookies []string
	dials   atomic.Int64
}

func newProgram(ctx context.Context, url string, o options) (*program, error) {
	p := &program{o: o}
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = int32(o.pool)
	dialer := &net.Dialer{KeepAlive: 5 * time.Minute}
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		p.dials.Add(1)
		return dialer.DialContext(ctx, network, addr)
	}
	if p.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelInfo}))
	store, err := session.NewPostgresStore(ctx, p.pool, session.PostgresOptions{Logger: log})
	if err != nil {
		return nil, err
	}
	p.manager, err = session.New(store, session.Config{
		Secret: "for tests only: 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A", StoreTimeout: o.timeout, DisablePrune: true,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		if _, ok := name.Get(session.From(r.Context())); !ok {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	mux.HandleFunc("/save", func(_ http.ResponseWriter, r *http.Request) {
		count.Update(session.From(r.Context()), func(n int) int { return n + 1 })
	})
	mux.HandleFunc("/login", func(_ http.ResponseWriter, r *http.Request) {
		name.Set(session.From(r.Context()), "gerda")
	})
	p.handler = p.manager.Handler(mux)
	for range users {
		res := p.do("/login", "")
		p.cookies = append(p.cookies, strings.SplitN(res.Header().Get("Set-Cookie"), ";", 2)[0])
	}
	return p, nil
}

func (p *program) do(path, cookie string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	w := httptest.NewRecorder()
	p.handler.ServeHTTP(w, r)
	return w
}

func (p *program) close() {
	p.manager.Close()
	p.pool.Close()
}

// answer is one request's.
type answer struct {
	path   string
	began  time.Time
	took   time.Duration
	status int
}

// load sends requests.
type load struct {
	cancel context.CancelFunc
	ended  chan struct{}
	mu     sync.Mutex
	all    []answer
	wg     sync.WaitGroup
}

// mix is what requests ask for.
var mix = []string{"/read", "/read", "/read", "/save", "/read", "/read", "/read", "/save", "/read", "/login"}

func (p *program) start(ctx context.Context) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(l.ended)
		begin := time.Now()
		for i := 0; ctx.Err() == nil; {
			// As many as are due by now, on a machine that has kept us waiting.
			for due := int(time.Since(begin).Seconds() * float64(p.o.rate)); i < due; i++ {
				path, cookie := mix[i%len(mix)], p.cookies[i%users]
				if path == "/login" {
					cookie = ""
				}
				l.wg.Go(func() {
					a := answer{path: path, began: time.Now()}
					a.status = p.do(path, cookie).Code
					a.took = time.Since(a.began)
					l.mu.Lock()
					l.all = append(l.all, a)
					l.mu.Unlock()
				})
			}
			sleep(ctx, time.Millisecond)
		}
	}()
	return l
}

func (l *load) stop() []answer {
	l.cancel()
	<-l.ended
	l.wg.Wait()
	return l.all
}

// vital is what the program needs at a moment.
type vital struct {
	at         time.Time
	goroutines int
	heap       uint64
	dials      int64
}

type vitals struct {
	cancel context.CancelFunc
	ended  chan struct{}
	all    []vital
}

func watchVitals(p *program) *vitals {
	ctx, cancel := context.WithCancel(context.Background())
	v := &vitals{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(v.ended)
		for ctx.Err() == nil {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			v.all = append(v.all, vital{time.Now(), runtime.NumGoroutine(), m.HeapAlloc, p.dials.Load()})
			sleep(ctx, time.Second)
		}
	}()
	return v
}

func (v *vitals) stop() []vital {
	v.cancel()
	<-v.ended
	return v.all
}
