package pgtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	findTimeout  = 5 * time.Minute // a download, at worst
	adminTimeout = time.Minute
)

// shared is the server of this process's tests.
var shared struct {
	sync.Mutex
	server *Server
	err    error
}

// admin makes and drops databases, on one connection: one for each statement would take
// longer than most tests.
var admin struct {
	sync.Mutex
	conn *pgx.Conn
}

// Main runs a package's tests (m is a *testing.M, or what wraps one), closes the server that they shared and exits. A
// package without it loses nothing but time: the server ends with the process.
func Main(m interface{ Run() int }) {
	code := m.Run()
	shared.Lock()
	defer shared.Unlock()
	if shared.server != nil {
		if err := shared.server.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// URL gives a fresh, empty database on the server that this process's tests share,
// and drops it when the test ends. The test fails, with what to install, when
// there is no PostgreSQL: a skipped test would look like one that passed.
func URL(t testing.TB) string {
	t.Helper()
	server := sharedServer(t)
	name := "pgtest_" + strings.ToLower(rand.Text())
	if err := create(server, name); err != nil {
		t.Fatalf("make a database for the test: %v", err)
	}
	t.Cleanup(func() {
		if err := drop(server, name); err != nil {
			t.Errorf("drop the test's database: %v", err)
		}
	})
	u, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal("the server's URL cannot be parsed") // the error would quote it, password and all
	}
	u.Path = "/" + name
	if q := u.Query(); !q.Has("connect_timeout") { // as every program should, or it is told at start
		q.Set("connect_timeout", "5")
		u.RawQuery = q.Encode()
	}
	return u.String()
}

// Pool is a pool on a database of its own, closed when the test ends; opts change
// its configuration.
func Pool(t testing.TB, opts ...func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(URL(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, opt := range opts {
		opt(cfg)
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// Own is a server of this test's own, which it may stop and kill; it is closed when
// the test ends.
func Own(t testing.TB, o Options) *Server {
	t.Helper()
	o.OwnOnly = true
	ctx, cancel := context.WithTimeout(context.Background(), findTimeout)
	defer cancel()
	server, err := Find(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("close the test's server: %v", err)
		}
	})
	return server
}

// sharedServer finds the shared server once: a second search would not find more.
func sharedServer(t testing.TB) *Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil && shared.err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), findTimeout)
		defer cancel()
		shared.server, shared.err = Find(ctx, Options{})
		if shared.server != nil {
			t.Logf("the tests use: %s", shared.server.Source())
		}
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server
}

// create makes a database.
func create(server *Server, name string) error {
	return administer(server, func(ctx context.Context) error {
		_, err := admin.conn.Exec(ctx, "CREATE DATABASE "+name)
		return err
	})
}

// drop drops a database, connections and all.
func drop(server *Server, name string) error {
	return administer(server, func(ctx context.Context) error {
		_, err := admin.conn.Exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
		if err == nil {
			return nil
		}
		// Before PostgreSQL 13 that is a syntax error.
		_, err = admin.conn.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
		if err != nil {
			return err
		}
		_, err = admin.conn.Exec(ctx, "DROP DATABASE IF EXISTS "+name)
		return err
	})
}

// administer calls f when [admin]'s connection is there, to the database of the server's
// own URL.
func administer(server *Server, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	admin.Lock()
	defer admin.Unlock()
	if admin.conn == nil || admin.conn.Ping(ctx) != nil { // a test may end what it finds
		conn, err := pgx.Connect(ctx, server.URL())
		if err != nil {
			return err
		}
		admin.conn = conn
	}
	return f(ctx)
}
