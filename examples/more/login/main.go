// Command login is a small application as one would ship it: sign-up, login and
// logout, "remember me", "your devices", a change of password that logs out
// everywhere else, a password asked for again before what matters.
//
//	cd examples/more && go run ./login
//
// It listens on HOST (default 127.0.0.1) and PORT (default 8080), by HTTPS where
// TLS_CERT and TLS_KEY name files. Behind a proxy that sets X-Forwarded-Proto and
// X-Forwarded-For, set TRUST_PROXY=true. DATABASE_URL names its database; without
// it, one is found or started. SESSION_SECRET and SESSION_TIMEOUT are the library's.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pgsession/session"
)

const (
	maxPerUser      = 5                   // the sixth login ends the oldest
	absoluteTimeout = 90 * 24 * time.Hour // then even a remembered browser asks for the password
	shutdownTimeout = 10 * time.Second    // for requests under way after Ctrl-C
)

func main() {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	ln, err := net.Listen("tcp", net.JoinHostPort(cmp.Or(os.Getenv("HOST"), "127.0.0.1"), cmp.Or(os.Getenv("PORT"), "8080")))
	if err != nil {
		return fmt.Errorf("listen on HOST and PORT: %w", err)
	}
	defer ln.Close()
	dsn, closeDatabase, err := findDatabase(ctx) // yours: os.Getenv("DATABASE_URL")
	if err != nil {
		return err
	}
	defer closeDatabase()
	pool, err := pgxpool.New(ctx, dsn)
	if err != nil {
		return err
	}
	defer pool.Close()

	users, err := openUsers(ctx, pool)
	if err != nil {
		return err
	}
	trustProxy := os.Getenv("TRUST_PROXY") == "true"
	sessions, err := openSessions(ctx, pool, trustProxy)
	if err != nil {
		return err
	}
	defer sessions.Close()
	return serve(ctx, ln, newApp(users, sessions, trustProxy))
}

func openSessions(ctx context.Context, pool *pgxpool.Pool, trustProxy bool) (*session.Manager, error) {
	cfg, err := session.ConfigFromEnv()
	if err != nil {
		return nil, err
	}
	store, err := session.NewPostgresStore(ctx, pool, session.PostgresOptions{
		IndexKeys: []string{string(userID)}, // a user's sessions are found without reading the table
		HashIDs:   true,                     // a stolen backup logs nobody in
	})
	if err != nil {
		return nil, err
	}
	cfg.Cookie.BrowserSession = true // the cookie ends with the browser, unless the user is remembered
	cfg.AbsoluteTimeout = absoluteTimeout
	cfg.UserKey = string(userID)
	cfg.MaxPerUser = maxPerUser
	cfg.TrustProxy = trustProxy
	cfg.ErrorHandler = sessionFailed
	return session.New(store, cfg)
}

// serve answers requests until ctx ends, and lets those under way finish.
func serve(ctx context.Context, ln net.Listener, app http.Handler) error {
	server := &http.Server{
		Handler:           app,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
	scheme, listen := "http", func() error { return server.Serve(ln) }
	if cert := os.Getenv("TLS_CERT"); cert != "" {
		scheme, listen = "https", func() error { return server.ServeTLS(ln, cert, os.Getenv("TLS_KEY")) }
	}
	failed := make(chan error, 1)
	go func() { failed <- listen() }()
	slog.Info("listening", "url", fmt.Sprintf("%s://localhost:%d", scheme, ln.Addr().(*net.TCPAddr).Port))

	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	slog.Info("shutting down")
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		slog.Warn("requests still under way are cut off", "error", err)
		return server.Close()
	}
	return nil
}
