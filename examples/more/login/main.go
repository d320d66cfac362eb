// Command login is a small application as one would ship it: sign-up, login and
// logout, "remember me", "your devices", a change of password that logs out
// everywhere else, a password asked for again before what matters.
//
//	cd examples/more && go run ./login
//
// With -tls it makes a certificate on the spot and prints how to start a browser
// that trusts it. It listens on HOST (default 127.0.0.1) and PORT (default 8080), by
// HTTPS also where TLS_CERT and TLS_KEY name files; then sessions are bound to the
// browser's device. Behind a proxy that sets X-Forwarded-Proto and
// X-Forwarded-For, set TRUST_PROXY=true. DATABASE_URL names its database; without
// it, one is found or started. SESSION_SECRET and SESSION_TIMEOUT are the library's.
package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"flag"
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
	boundRefresh    = 10 * time.Minute    // a copy of a browser's cookies works no longer
)

func main() {
	onTheSpot := flag.Bool("tls", false, "HTTPS, with a certificate made on the spot")
	flag.Parse()
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	if err := run(ctx, *onTheSpot); err != nil && !errors.Is(err, context.Canceled) {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context, onTheSpot bool) error {
	cert, pin, err := certificate(onTheSpot)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
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
	sessions, err := openSessions(ctx, pool, trustProxy, cert != nil)
	if err != nil {
		return err
	}
	defer sessions.Close()
	admin, err := openAdmin(pool, sessions)
	if err != nil {
		return err
	}
	defer admin.Close()
	if pin != "" {
		fmt.Fprintln(os.Stderr, tryIt(fmt.Sprintf("https://localhost:%d", ln.Addr().(*net.TCPAddr).Port), pin))
	}
	return serve(ctx, ln, newApp(users, sessions, admin, trustProxy), cert)
}

func openSessions(ctx context.Context, pool *pgxpool.Pool, trustProxy, https bool) (*session.Manager, error) {
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
	cfg.OnEvent = func(e session.Event) { slog.Info("audit", "session", e) } // what an auditor asks for: users and handles, no IDs
	cfg.ErrorHandler = sessionFailed
	if https {
		cfg.Cookie.Secure = session.SecureAlways
		cfg.DeviceBound.Refresh = boundRefresh
	}
	return session.New(store, cfg)
}

// serve answers requests until ctx ends, and lets those under way finish.
func serve(ctx context.Context, ln net.Listener, app http.Handler, cert *tls.Certificate) error {
	server := &http.Server{
		Handler:           app,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
	scheme, listen := "http", func() error { return server.Serve(ln) }
	if cert != nil {
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS12}
		scheme, listen = "https", func() error { return server.ServeTLS(ln, "", "") }
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
