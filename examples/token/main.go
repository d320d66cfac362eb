// Command token is a server whose clients have no cookies, and one of them: a
// command line that logs in, asks who it is, changes its password and logs out.
//
//	go run ./examples/token                # the server
//	go run ./examples/token login ada      # and in another shell the client
//	go run ./examples/token whoami
//	go run ./examples/token password
//	go run ./examples/token logout
//
// The server listens on PORT (default 8080). Its database is the one that
// DATABASE_URL or the DB_* variables name; else it starts a PostgreSQL of its own and
// keeps the data in the user's cache directory. Pages of the origin that ALLOW_ORIGIN
// names, such as https://shop.example, may be its clients too.
//
// The client asks TOKEN_SERVER (default http://localhost:8080) and keeps its token in
// the file that TOKEN_FILE names, by default one in the user's cache directory.
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
	run := serve
	if len(os.Args) > 1 {
		run = func(ctx context.Context) error { return runClient(ctx, os.Args[1:], os.Stdout) }
	}
	if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			slog.Error(line)
		}
		os.Exit(1)
	}
}

func serve(ctx context.Context) (err error) {
	// A port that is taken is better known before a database starts.
	ln, err := net.Listen("tcp", ":"+cmp.Or(os.Getenv("PORT"), "8080"))
	if err != nil {
		return fmt.Errorf("listen on PORT: %w", err)
	}
	defer ln.Close()
	if err := pgtest.EnsureSecret("token"); err != nil {
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
	sessions, err := openSessions(ctx, pool)
	if err != nil {
		return err
	}
	defer sessions.Close()
	return answer(ctx, ln, newServer(sessions, os.Getenv("ALLOW_ORIGIN")))
}

// openSessions is session.Open with tokens.
func openSessions(ctx context.Context, pool *pgxpool.Pool) (*session.Manager, error) {
	cfg, err := session.ConfigFromEnv()
	if err != nil {
		return nil, err
	}
	cfg.TokenPrefix = "demo_"
	cfg.UserKey = string(user)
	store, err := session.NewPostgresStore(ctx, pool, session.PostgresOptions{})
	if err != nil {
		return nil, err
	}
	return session.New(store, cfg)
}

// openDatabase finds a PostgreSQL, or starts one; where there is none, the error
// says what to install.
func openDatabase(ctx context.Context) (*pgtest.Server, error) {
	dir, err := pgtest.CacheDir("token")
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

// answer answers requests until ctx ends, and lets those under way finish.
func answer(ctx context.Context, ln net.Listener, h http.Handler) error {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(ln) }()
	slog.Info("listening", "url", fmt.Sprintf("http://localhost:%d", ln.Addr().(*net.TCPAddr).Port))
	slog.Info("to be its client, run in another shell: go run ./examples/token login ada")

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
