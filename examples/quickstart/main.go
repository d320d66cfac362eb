// Command quickstart is a small web application whose logins survive a restart of
// the program and of the database: log in, count visits, log out.
//
//	go run ./examples/quickstart
//
// It listens on PORT (default 8080). Its database is the one that DATABASE_URL or
// DB_HOST, DB_PORT, DB_USER, DB_PASSWORD and DB_NAME name; else it starts a
// PostgreSQL of its own and keeps the data in the user's cache directory; where
// there is no PostgreSQL at all, it says what to install and keeps the sessions in
// memory meanwhile.
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

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// shutdownTimeout is what requests under way get to finish in after Ctrl-C.
const shutdownTimeout = 10 * time.Second

func main() {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second Ctrl-C ends the program at once.
	context.AfterFunc(ctx, stop)
	if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	// A port that is taken is better known before a database starts.
	ln, err := net.Listen("tcp", ":"+cmp.Or(os.Getenv("PORT"), "8080"))
	if err != nil {
		return fmt.Errorf("listen on PORT: %w", err)
	}
	defer ln.Close()
	if err := pgtest.EnsureSecret("quickstart"); err != nil {
		return err
	}
	db, err := openDatabase(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()

	sessions, err := openSessions(ctx, db)
	if err != nil {
		return err
	}
	defer sessions.Close()

	return serve(ctx, ln, http.MaxBytesHandler(sessions.Handler(newApp(db.describe(), db.pool != nil)), maxFormBytes))
}

// openSessions is the whole setup of a program that has its database:
//
//	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
//	sessions, err := session.Open(ctx, pool)
//	defer sessions.Close()
//	http.ListenAndServe(":8080", sessions.Handler(mux))
//
// The memory store is for one that has none.
func openSessions(ctx context.Context, db *database) (*session.Manager, error) {
	if db.pool != nil {
		return session.Open(ctx, db.pool)
	}
	cfg, err := session.ConfigFromEnv()
	if err != nil {
		return nil, err
	}
	return session.New(session.NewMemoryStore(), cfg)
}

// serve answers requests until ctx ends, and lets those under way finish.
func serve(ctx context.Context, ln net.Listener, app http.Handler) error {
	server := &http.Server{
		// Browsers say where a form was sent from; those of other sites are refused.
		Handler:           http.NewCrossOriginProtection().Handler(app),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(ln) }()
	slog.Info("listening", "url", fmt.Sprintf("http://localhost:%d", ln.Addr().(*net.TCPAddr).Port))

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
