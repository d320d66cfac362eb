// Command cluster is a small application in three processes on one database,
// behind a load balancer. Kill one, restart one, restart all: nobody is logged
// out, and what was answered is kept.
//
//	go run ./examples/cluster
//
// It listens on PORT (default 8080) of this machine only, for its page /cluster
// has buttons that kill. Its database is the one that DATABASE_URL or the DB_*
// variables name; else it starts a PostgreSQL of its own and keeps the data in the
// user's cache directory.
//
//	go run ./examples/cluster -rolling
//
// restarts one process after the other while clients work, prints what they saw,
// and ends: with exit code 1 if one request failed, one client was logged out or
// one change was lost.
//
//	go run ./examples/cluster -patroni
//
// runs the same processes on three PostgreSQL in the care of Patroni, with etcd and
// HAProxy (Debian's packages patroni, etcd-server and haproxy). The page then has
// buttons that kill or freeze a database, and hand the lead over.
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
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pgsession/session/internal/pgtest"
)

const (
	processes = 3

	// shutdownTimeout is what requests under way get to finish in.
	shutdownTimeout = 10 * time.Second
)

func main() {
	failover := flag.Bool("patroni", false, "run on a failover cluster of three databases, whose plugs the page can pull; needs patroni, etcd and haproxy")
	rolling := flag.Bool("rolling", false, "do a rolling restart under load, print what the clients saw, and end")
	clients := flag.Int("clients", 16, "with -rolling: how many `clients`")
	phase := flag.Duration("phase", 2*time.Second, "with -rolling: how `long` to measure before, between and after")
	flag.Parse()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if flag.Arg(0) == roleArg {
		log = log.With("process", flag.Arg(1))
	}
	slog.SetDefault(log)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second Ctrl-C ends the program at once.
	context.AfterFunc(ctx, stop)
	var err error
	switch {
	case flag.Arg(0) == roleArg:
		err = runProcess(ctx, flag.Arg(1))
	case *rolling && (*clients < 1 || *phase <= 0):
		err = errors.New("-clients and -phase must be more than zero")
	case *rolling:
		err = run(ctx, *failover, func(ctx context.Context, url string, c *cluster) error {
			return measure(ctx, os.Stdout, url, c, *clients, *phase)
		})
	default:
		err = run(ctx, *failover, func(ctx context.Context, _ string, _ *cluster) error {
			<-ctx.Done()
			return nil
		})
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			slog.Error(line)
		}
		os.Exit(1)
	}
}

// run starts everything, does its work and stops everything.
func run(ctx context.Context, failover bool, work func(ctx context.Context, url string, c *cluster) error) (err error) {
	// A port that is taken is better known before a database starts.
	ln, err := net.Listen("tcp", "127.0.0.1:"+cmp.Or(os.Getenv("PORT"), "8080"))
	if err != nil {
		return fmt.Errorf("listen on PORT: %w", err)
	}
	defer ln.Close()
	if err := pgtest.EnsureSecret("cluster"); err != nil { // one for all processes
		return err
	}
	databaseURL, databases, closeDatabase, err := open(ctx, failover)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeDatabase()) }()

	c := newCluster(databaseURL)
	c.databases = databases
	defer c.close()
	if err := c.start(ctx); err != nil {
		return err
	}
	front := newServer(newFront(c))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() {
		served <- front.Serve(ln)
		cancel()
	}()
	port := ln.Addr().(*net.TCPAddr).Port
	slog.Info("listening", "url", fmt.Sprintf("http://localhost:%d", port), "control", fmt.Sprintf("http://localhost:%d/cluster", port))

	err = work(ctx, fmt.Sprintf("http://127.0.0.1:%d", port), c)
	slog.Info("shutting down")
	err = errors.Join(err, shutdown(front))
	if failed := <-served; !errors.Is(failed, http.ErrServerClosed) {
		err = errors.Join(err, failed)
	}
	return err // then, as deferred: the processes end, and the database
}

// open opens one database, or a failover cluster of them.
func open(ctx context.Context, failover bool) (url string, _ *databases, closeAll func() error, err error) {
	if failover {
		d, err := openDatabases(ctx)
		if err != nil {
			return "", nil, nil, err
		}
		return d.cluster.URL(), d, d.cluster.Close, nil
	}
	db, err := openDatabase(ctx)
	if err != nil {
		return "", nil, nil, err
	}
	return db.ProgramURL(), nil, db.Close, nil
}

// openDatabase finds a PostgreSQL, or starts one and keeps its data in the user's
// cache directory. Where there is none, the error says what to install: processes
// cannot share sessions in memory.
func openDatabase(ctx context.Context) (*pgtest.Server, error) {
	dir, err := pgtest.CacheDir("cluster")
	if err != nil {
		return nil, err
	}
	server, err := pgtest.Find(ctx, pgtest.Options{DataDir: filepath.Join(dir, "postgresql"), Logger: slog.Default()})
	if err != nil {
		return nil, err
	}
	slog.Info("database", "source", server.Source())
	if psql := server.Psql(); psql != "" {
		slog.Info("to look at the sessions, run: " + psql + " -c 'SELECT sid, sess, expire FROM schema_system.session'")
	}
	return server, nil
}

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
