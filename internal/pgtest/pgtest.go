// Package pgtest finds or starts a real PostgreSQL for tests and examples.
//
// [Find] takes the first of: the server that DATABASE_URL or the DB_* variables
// name; a server of its own, run with the binaries on this machine; a container;
// binaries that it downloads. In tests, [URL] and [Pool] give a fresh database
// each, and [Own] a server that the test may stop and kill.
//
// The package needs nothing beyond pgx. Containers and downloads need heavy
// libraries; they live in the nested module provider, which runs as a program.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
)

// ErrNone reports that no PostgreSQL was found and none could be started. The
// error that wraps it says what was tried and what to install.
var ErrNone = errors.New("no PostgreSQL found")

// errNotOurs reports a Stop, Start or Restart of a server that somebody else runs.
var errNotOurs = errors.New("pgtest: only a server started from binaries on this machine can be stopped and started")

// Options chooses a server. The zero value is a good choice for tests.
type Options struct {
	// DataDir holds the data of a server that is kept: a later Find with the same
	// directory finds the same data, and programs that run at the same time share
	// one server, which the last to close stops. Each major version of PostgreSQL
	// has a folder of its own inside. Empty means a temporary server, which ends
	// with this process (even when it is killed) and leaves nothing behind; on Linux
	// it is in memory where there is room, unless TMPDIR names a directory.
	DataDir string

	// Logger takes one line for each step. Nil discards them.
	Logger *slog.Logger

	// OwnOnly ignores DATABASE_URL, the DB_* variables and Docker: the server is
	// one that can be stopped, started and killed.
	OwnOnly bool

	// Settings are added to postgresql.conf of own servers.
	Settings map[string]string

	// BinDir is the only directory searched for server binaries, to test another
	// major version. Empty means the environment variable PGTEST_BINDIR, and where
	// that is empty too, every usual place.
	BinDir string
}

// Server is a running PostgreSQL. URL, Source and PID are safe for concurrent
// use; Stop, Start, Restart, Kill and Close are not.
type Server struct {
	url    string
	source string
	psql   string
	own    *local       // nil: somebody else's server, or a container
	close  func() error // never nil
}

// Find gives a PostgreSQL that has answered. It takes the first of:
//
//  1. DATABASE_URL,
//  2. DB_HOST, DB_PORT, DB_USER, DB_PASSWORD and DB_NAME, where any of them is set,
//  3. a server of its own, from binaries on this machine,
//  4. a container, where a Docker engine answers (PGTEST_IMAGE, default postgres:17-alpine),
//  5. a server of its own, from binaries that it downloads into the cache directory
//     (PGTEST_BINARY_REPOSITORY, default Maven Central).
//
// A server that is named but does not answer is an error, which says host, port,
// database and user, never the password. The error wraps [ErrNone] when there is
// nothing to use. ctx bounds the search, not the server's life.
func Find(ctx context.Context, o Options) (*Server, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if !o.OwnOnly {
		if s, err := fromEnv(ctx); s != nil || err != nil {
			return s, err
		}
	}
	as, err := serverAccount()
	if err != nil {
		return nil, err
	}
	if all := findBinaries(ctx, o.binDirs(), as); len(all) > 0 {
		return startLocal(ctx, o, all, as)
	}
	tried := []string{"no server binaries (postgres, initdb, pg_ctl) in " + o.searched()}
	if !o.OwnOnly {
		s, err := fromDocker(ctx, o)
		if err == nil {
			return s, nil
		}
		tried = append(tried, "no container: "+err.Error())
	}
	if o.BinDir == "" { // a version that was asked for by its directory is not replaced by another
		dir, err := download(ctx, o, as)
		if err == nil {
			return startLocal(ctx, o, findBinaries(ctx, []string{dir}, as), as)
		}
		tried = append(tried, "no download: "+err.Error())
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("pgtest: the search for a PostgreSQL was cut short: %w", err)
	}
	return nil, fmt.Errorf("pgtest: %w\n  %s\n%s", ErrNone, strings.Join(tried, "\n  "), install(runtime.GOOS))
}

// install says what to do about a missing PostgreSQL.
func install(goos string) string {
	lines := []string{"Install one of:"}
	switch goos {
	case "darwin":
		lines = append(lines,
			"  brew install postgresql@17",
			"  or Postgres.app, https://postgresapp.com")
	case "windows":
		lines = append(lines,
			"  choco install postgresql",
			"  or winget install PostgreSQL.PostgreSQL.17")
	default:
		lines = append(lines,
			"  Debian, Ubuntu:         sudo apt-get install postgresql",
			"  Fedora, Red Hat, Rocky: sudo dnf install postgresql-server")
	}
	return strings.Join(append(lines,
		"or start Docker,",
		"or name a server of yours: DATABASE_URL=postgres://user:password@host:5432/database?connect_timeout=2"), "\n")
}

// URL is a connection string that begins with postgres:// and names a database.
// It contains the password, and stays the same for the life of the server.
func (s *Server) URL() string { return s.url }

// ProgramURL is URL for a program: a server that does not answer is given up after
// two seconds, unless the URL says something else. pgx would wait for two minutes,
// and outlive many an outage in that.
func (s *Server) ProgramURL() string {
	if strings.Contains(s.url, "connect_timeout=") {
		return s.url
	}
	join := "?"
	if strings.Contains(s.url, "?") {
		join = "&"
	}
	return s.url + join + "connect_timeout=2"
}

// Source says in one line where the server comes from. It has no password in it.
func (s *Server) Source() string { return s.source }

// Psql is a command for a Unix shell that connects to the server without showing a
// password, and "" where there is none to give.
func (s *Server) Psql() string { return s.psql }

// Stop stops a server of our own; mode is smart, fast or immediate, as pg_ctl has
// them. A server that has already stopped is no error. Stopping a kept server
// stops it for every program that shares it.
func (s *Server) Stop(ctx context.Context, mode string) error {
	if s.own == nil {
		return errNotOurs
	}
	return s.own.stop(ctx, mode)
}

// Start starts a server of our own again, on the same port, and returns when it
// answers. What a crash left behind does not matter.
func (s *Server) Start(ctx context.Context) error {
	if s.own == nil {
		return errNotOurs
	}
	return s.own.start(ctx)
}

// Restart is Stop and Start.
func (s *Server) Restart(ctx context.Context, mode string) error {
	if err := s.Stop(ctx, mode); err != nil {
		return err
	}
	return s.Start(ctx)
}

// PID is the process ID of the postmaster, and 0 while the server is stopped or
// when it is not our own.
func (s *Server) PID() int {
	if s.own == nil {
		return 0
	}
	return s.own.postmaster().pid
}

// Kill ends the postmaster at once, without a chance to do anything about it.
func (s *Server) Kill() error {
	pid := s.PID()
	if pid == 0 {
		return errNotOurs
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return fmt.Errorf("pgtest: kill the postmaster: %w", err)
	}
	return p.Kill()
}

// Close stops a server of our own and removes it when it is a temporary one. A
// kept server goes on when another program still uses it. Close is idempotent.
func (s *Server) Close() error {
	end := s.close
	s.close = func() error { return nil }
	return end()
}
