// Command sse is a message board that is kept up to date by server-sent events:
// responses that go on for hours, with a session that changes and ends meanwhile.
//
//	go run ./examples/sse
//
// It listens on PORT (default 8080). Its database is the one that DATABASE_URL or
// the DB_* variables name; else it starts a PostgreSQL of its own and keeps the
// data in the user's cache directory. The messages themselves are kept in memory.
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
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
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
		for line := range strings.SplitSeq(err.Error(), "\n") {
			slog.Error(line)
		}
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
	if err := pgtest.EnsureSecret("sse"); err != nil {
		return err
	}
	db, err := openDatabase(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	pool, err := pgxpool.New(ctx, db.ProgramURL())
	if err != nil {
		return err
	}
	defer pool.Close()
	sessions, err := session.Open(ctx, pool)
	if err != nil {
		return err
	}
	defer sessions.Close()
	return serve(ctx, ln, sessions, newApp(sessions))
}

// openDatabase finds a PostgreSQL, or starts one; where there is none, the error
// says what to install.
func openDatabase(ctx context.Context) (*pgtest.Server, error) {
	dir, err := pgtest.CacheDir("sse")
	if err != nil {
		return nil, err
	}
	server, err := pgtest.Find(ctx, pgtest.Options{DataDir: filepath.Join(dir, "postgresql"), Logger: slog.Default()})
	if err != nil {
		return nil, err
	}
	slog.Info("database", "source", server.Source())
	return server, nil
}

// serve answers requests until ctx ends, and lets those under way finish. The
// streams would never: they are told to.
func serve(ctx context.Context, ln net.Listener, sessions *session.Manager, a *app) error {
	server := &http.Server{
		// Browsers say where a form was sent from; those of other sites are refused.
		Handler:           http.NewCrossOriginProtection().Handler(http.MaxBytesHandler(sessions.Handler(a), maxFormBytes)),
		ReadHeaderTimeout: 10 * time.Second, // no ReadTimeout: the streams would end with it
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
	server.RegisterOnShutdown(a.endStreams)
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
