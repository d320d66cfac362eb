// Command express is a move from Express to Go under way: one shop, served by two
// programs at once, route by route, with one login and one cart.
//
//	go run ./examples/express
//	go run ./examples/express -go /cart,/login
//
// It starts a PostgreSQL (or takes the one that DATABASE_URL or the DB_*
// variables name), the Express application in app, a Go application with the same
// pages, and in front of both a proxy on PORT (default 8080) that knows which
// routes have moved. It needs Node.js and npm.
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
	"strings"
	"syscall"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// shutdownTimeout is what requests under way get to finish in after Ctrl-C.
const shutdownTimeout = 10 * time.Second

func main() {
	moved := flag.String("go", cmp.Or(os.Getenv("GO_ROUTES"), defaultMoved), "the `routes` that Go serves, separated by commas; or all, or none. Also GO_ROUTES")
	flag.Parse()
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second Ctrl-C ends the program at once.
	context.AfterFunc(ctx, stop)
	if err := run(ctx, *moved); err != nil && !errors.Is(err, context.Canceled) {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			slog.Error(line)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, moved string) (err error) {
	// What can be wrong on this machine is better known before a database starts.
	routes, err := newTable(moved)
	if err != nil {
		return err
	}
	node, err := findNode()
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", ":"+cmp.Or(os.Getenv("PORT"), "8080"))
	if err != nil {
		return fmt.Errorf("listen on PORT: %w", err)
	}
	defer ln.Close()
	if err := pgtest.EnsureSecret("express"); err != nil {
		return err
	}
	if err := node.install(ctx); err != nil {
		return err
	}
	db, err := openDatabase(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()

	// Go makes the table, before Node starts: connect-pg-simple does not create a
	// schema, and a program that loses the race for the table stays broken until it
	// is restarted. NewPostgresStore has neither problem, and connect-pg-simple
	// takes the table as it finds it.
	store, err := session.NewPostgresStore(ctx, db.pool, session.PostgresOptions{})
	if err != nil {
		return err
	}
	cfg, err := session.ConfigFromEnv() // the same SESSION_SECRET and SESSION_TIMEOUT
	if err != nil {
		return err
	}
	cfg.Cookie.Format = session.FormatExpress // the same cookie: connect.sid
	cfg.TrustProxy = true                     // as app.set('trust proxy', …)
	sessions, err := session.New(store, cfg)
	if err != nil {
		return err
	}
	defer sessions.Close()

	shop, err := startShop(http.MaxBytesHandler(sessions.Handler(newShop(routes)), maxFormBytes))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, shop.stop()) }()

	express, err := node.start(ctx, db.server.ProgramURL(), cfg.IdleTimeout, routes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, express.stop()) }()

	for _, r := range routes {
		slog.Info("route", "path", r.Path, "program", r.Program)
	}
	front := newServer(newProxy(routes, shop.url, express.url))
	failed := make(chan error, 1)
	go func() { failed <- front.Serve(ln) }()
	slog.Info("listening", "url", fmt.Sprintf("http://localhost:%d", ln.Addr().(*net.TCPAddr).Port))

	select {
	case err := <-failed:
		return err
	case <-express.ended:
		return errors.New("the Express application has ended; what it said is above")
	case <-ctx.Done():
	}
	slog.Info("shutting down")
	return shutdown(front) // then, as deferred: Express, the Go application, the database
}

// server is the Go application, listening on this machine only.
type server struct {
	*http.Server
	url string
}

func startShop(handler http.Handler) (*server, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("the Go application: %w", err)
	}
	s := &server{newServer(handler), "http://" + ln.Addr().String()}
	go func() { _ = s.Serve(ln) }() // until Shutdown; nothing else ends it
	slog.Info("the Go application is up", "program", programGo, "url", s.url)
	return s, nil
}

func (s *server) stop() error { return shutdown(s.Server) }

func newServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute, // longer than whoever is in front keeps a connection
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
}

// shutdown lets requests under way finish.
func shutdown(s *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		slog.Warn("requests still under way are cut off", "error", err)
		return s.Close()
	}
	return nil
}
