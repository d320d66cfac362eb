package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pgsession/session/internal/pgtest"
)

// database is where the sessions live. Without a PostgreSQL its pool is nil.
type database struct {
	server *pgtest.Server
	pool   *pgxpool.Pool
}

// openDatabase finds a PostgreSQL, or starts one. Finding none is no error.
func openDatabase(ctx context.Context) (*database, error) {
	dir, err := pgtest.CacheDir("quickstart")
	if err != nil {
		return nil, err
	}
	server, err := pgtest.Find(ctx, pgtest.Options{DataDir: filepath.Join(dir, "postgresql"), Logger: slog.Default()})
	if errors.Is(err, pgtest.ErrNone) {
		slog.Warn("sessions are kept in memory and end with this program")
		for line := range strings.SplitSeq(err.Error(), "\n") {
			slog.Warn(line)
		}
		return &database{}, nil
	}
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.New(ctx, server.ProgramURL())
	if err != nil {
		return nil, errors.Join(err, server.Close())
	}
	slog.Info("database", "source", server.Source())
	if psql := server.Psql(); psql != "" {
		slog.Info("to look at the sessions, run: " + psql + " -c 'SELECT sid, expire FROM schema_system.session'")
	}
	return &database{server, pool}, nil
}

// describe says for the page where sessions are kept.
func (db *database) describe() string {
	if db.pool == nil {
		return "this program’s memory, because no PostgreSQL was found (the log says what to install)"
	}
	c := db.pool.Config().ConnConfig
	return fmt.Sprintf("PostgreSQL at %s:%d, database %s, table schema_system.session", c.Host, c.Port, c.Database)
}

// Close closes the pool, and stops a server that this program started and no other
// uses.
func (db *database) Close() error {
	if db.pool == nil {
		return nil
	}
	db.pool.Close()
	return db.server.Close()
}
