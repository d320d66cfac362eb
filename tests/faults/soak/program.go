package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/tests/faults"
)

// processVariable, in the environment, makes this program one process of the
// application. It holds its settings.
const processVariable = "SOAK_PROCESS"

const (
	storeTimeout  = 3 * time.Second
	touchInterval = 200 * time.Millisecond
	pruneInterval = time.Second

	startTimeout    = 20 * time.Second
	shutdownTimeout = 15 * time.Second

	// applicationName, and the process's own name, mark its connections.
	applicationName = "soak process "
)

// Exit codes of a process.
const (
	exitStart  = 3 // it could not start, as where the database is down
	exitOrphan = 4 // the soak has ended
	exitStop   = 5 // it could not end in order
)

// settings are those of a process.
type settings struct {
	Name            string
	DatabaseURL     string
	Connections     int32
	Slots           int
	MaxBatch        int
	DisableBatching bool
	HashIDs         bool
	Encrypt         bool
	Broken          string // a way in which its store breaks promises
}

// started is what a process says first.
type started struct{ URL, Error string }

// vitals is what a process says of itself.
type vitals struct {
	Goroutines int
	Heap       float64 // bytes, after a garbage collection
	RSS        float64 // bytes, 0 where that is not known
	Pruned     uint64
}

func isProcess() bool { return os.Getenv(processVariable) != "" }

// runProcess is one process of the application, until it is told to end. wrap
// breaks its store on purpose.
func runProcess(wrap func(name string, s *session.PostgresStore) session.Store) (code int) {
	go func() { // our standard input ends when the soak does, however that happens
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(exitOrphan)
	}()
	signal.Ignore(os.Interrupt) // Ctrl-C is for the soak, which still needs us
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()

	p, err := startProgram(ctx, wrap)
	if err != nil {
		say(started{Error: err.Error()})
		return exitStart
	}
	say(started{URL: p.url})
	select {
	case err = <-p.failed:
	case <-ctx.Done():
	}
	if err = errors.Join(err, p.close()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitStop
	}
	return 0
}

func say(s started) { _ = json.NewEncoder(os.Stdout).Encode(s) }

type program struct {
	pool    *pgxpool.Pool
	manager *session.Manager
	server  *http.Server
	url     string
	failed  chan error
}

func startProgram(ctx context.Context, wrap func(string, *session.PostgresStore) session.Store) (*program, error) {
	var set settings
	if err := json.Unmarshal([]byte(os.Getenv(processVariable)), &set); err != nil {
		return nil, errors.New("the settings cannot be read")
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	pool, err := newPool(ctx, set.DatabaseURL, applicationName+set.Name, set.Connections)
	if err != nil {
		return nil, err
	}
	p := &program{pool: pool, failed: make(chan error, 1)}
	if p.manager, err = newManager(ctx, pool, set, wrap); err != nil {
		pool.Close()
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		pool.Close()
		return nil, errors.Join(err, p.manager.Close())
	}
	p.url = "http://" + ln.Addr().String()
	p.server = &http.Server{Handler: p.handler(), ErrorLog: log.New(os.Stderr, "", 0)}
	go func() { p.failed <- p.server.Serve(ln) }()
	return p, nil
}

func newPool(ctx context.Context, dbURL, name string, size int32) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(dbURL)
	if err != nil {
		return nil, errors.New("the connection string cannot be parsed")
	}
	cfg.MaxConns = size
	cfg.ConnConfig.RuntimeParams["application_name"] = name
	return pgxpool.NewWithConfig(ctx, cfg)
}

func newManager(ctx context.Context, pool *pgxpool.Pool, set settings, wrap func(string, *session.PostgresStore) session.Store) (*session.Manager, error) {
	quiet := slog.New(slog.DiscardHandler)
	pg, err := session.NewPostgresStore(ctx, pool, session.PostgresOptions{
		BatchSlots: set.Slots, MaxBatch: set.MaxBatch, DisableBatching: set.DisableBatching, HashIDs: set.HashIDs,
		IndexKeys: []string{string(keyUser)}, Logger: quiet,
	})
	if err != nil {
		return nil, err
	}
	var store session.Store = pg
	if wrap != nil {
		store = wrap(set.Broken, pg)
	}
	return session.New(store, session.Config{
		Secret: faults.Secret, Encrypt: set.Encrypt, UserKey: string(keyUser),
		StoreTimeout: storeTimeout, TouchInterval: touchInterval, PruneInterval: pruneInterval, Logger: quiet,
	})
}

// close ends in the order that the documents name.
func (p *program) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	err := errors.Join(p.server.Shutdown(ctx), p.manager.Close())
	p.pool.Close()
	return err
}

// handler is the application of the fault tests, with a login that may be for a
// short time, revoking, and a page about the process.
func (p *program) handler() http.Handler {
	app := faults.App(p.manager)
	mux := http.NewServeMux()
	mux.Handle("/", app)
	mux.Handle("POST /login", p.manager.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d, err := time.ParseDuration(r.URL.Query().Get("idle")); err == nil {
			session.From(r.Context()).SetIdleTimeout(d)
		}
		app.ServeHTTP(w, r)
	})))
	mux.HandleFunc("POST /soak/revoke", func(w http.ResponseWriter, r *http.Request) {
		if _, err := p.manager.Revoke(r.Context(), keyUser.Is(r.URL.Query().Get("user"))); err != nil {
			notRevoked(w)
		}
	})
	mux.Handle("POST /soak/others", p.manager.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if user, ok := keyUser.Get(s); ok {
			if _, err := p.manager.Revoke(r.Context(), keyUser.Is(user).Except(s)); err != nil {
				s.Detach() // an answer without a cookie, though a touch may be due
				notRevoked(w)
				return
			}
		}
		r = r.Clone(r.Context())
		r.Method, r.URL.Path = http.MethodGet, "/all"
		app.ServeHTTP(w, r)
	})))
	mux.HandleFunc("GET /soak/vitals", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(p.vitals())
	})
	return mux
}

func notRevoked(w http.ResponseWriter) {
	http.Error(w, "not revoked", http.StatusServiceUnavailable)
}

func (p *program) vitals() vitals {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	v := vitals{Goroutines: runtime.NumGoroutine(), Heap: float64(m.HeapAlloc), Pruned: p.manager.Stats().Pruned}
	if text, err := os.ReadFile("/proc/self/statm"); err == nil { // Linux
		var size, resident int // pages
		_, _ = fmt.Sscan(string(text), &size, &resident)
		v.RSS = float64(resident * os.Getpagesize())
	}
	return v
}
