// Command containers is a small web application that is made to run as several
// instances in containers: log in, count visits, log out. README.md has the image,
// compose.yaml and the manifests for Kubernetes that it runs by.
//
// What it reads from the environment:
//
//	LISTEN             the address, :8080 by default
//	DATABASE_URL       without a password, which stands in the file PGPASSFILE
//	SESSION_SECRET_FILE
//	DRAIN              how long it goes on serving after SIGTERM, 0s by default
//	SHUTDOWN_TIMEOUT   how long requests under way get after that, 15s by default
//
// With -healthcheck it is a client that asks the instance in the same container
// whether it lives: an image without a shell has nothing else to ask with.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pgsession/session"
)

func main() {
	healthcheck := flag.Bool("healthcheck", false, "ask the instance in this container whether it lives")
	flag.Parse()
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, nil)))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	work := run
	if *healthcheck {
		work = ask
	}
	if err := work(ctx); err != nil {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

func address() string { return cmp.Or(os.Getenv("LISTEN"), ":8080") }

// run begins to listen when the database is there and the table is as it should be:
// whoever asks before that is refused, and so asks another instance.
func run(ctx context.Context) error {
	drain, err := duration("DRAIN", 0)
	if err != nil {
		return err
	}
	timeout, err := duration("SHUTDOWN_TIMEOUT", 15*time.Second)
	if err != nil {
		return err
	}
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return fmt.Errorf("DATABASE_URL: %w", err)
	}
	defer pool.Close()
	store, err := session.NewPostgresStore(ctx, pool, session.PostgresOptions{})
	if err != nil {
		return err
	}
	cfg, err := session.ConfigFromEnv()
	if err != nil {
		return err
	}
	cfg.UserKey = string(user)
	cfg.TrustProxy = true // the balancer sets or removes X-Forwarded-Proto
	sessions, err := session.New(store, cfg)
	if err != nil {
		return err
	}
	defer sessions.Close() // before the pool

	ln, err := net.Listen("tcp", address())
	if err != nil {
		return fmt.Errorf("LISTEN: %w", err)
	}
	draining := new(atomic.Bool)
	return serve(ctx, ln, newServer(sessions, draining), draining, drain, timeout)
}

// newServer has the probes outside of the sessions: no probe loads one, and none
// asks the database.
func newServer(sessions *session.Manager, draining *atomic.Bool) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if draining.Load() {
			http.Error(w, "draining", http.StatusServiceUnavailable)
		}
	})
	mux.Handle("/", http.NewCrossOriginProtection().Handler(sessions.Handler(newApp())))
	return &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second, // a form that comes byte by byte ends, too
		IdleTimeout:       2 * time.Minute,  // longer than a balancer keeps a connection, which would else send on a closed one
		WriteTimeout:      30 * time.Second, // over twice StoreTimeout: the browser is to get that answer
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
}

// serve answers requests until ctx ends. Then it says so at /readyz and goes on
// until the balancer has heard of it, and lets what is under way finish.
func serve(ctx context.Context, ln net.Listener, server *http.Server, draining *atomic.Bool, drain, timeout time.Duration) error {
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(ln) }()
	slog.Info("listening", "address", ln.Addr().String())
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	draining.Store(true)
	slog.Info("draining", "for", drain.String())
	select {
	case err := <-failed:
		return err
	case <-time.After(drain):
	}
	slog.Info("shutting down")
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("requests still under way are cut off: %w", err), server.Close())
	}
	return nil
}

// ask fails unless the instance in this container says that it lives.
func ask(ctx context.Context) error {
	_, port, err := net.SplitHostPort(address())
	if err != nil {
		return fmt.Errorf("LISTEN: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+port+"/livez", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("/livez: got %s", res.Status)
	}
	return nil
}

// duration is what a variable says, or what it is without one.
func duration(name string, otherwise time.Duration) (time.Duration, error) {
	text := os.Getenv(name)
	if text == "" {
		return otherwise, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%s is %q: want a duration, such as 5s", name, text)
	}
	return d, nil
}
