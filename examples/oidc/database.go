package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pgsession/session/internal/pgtest"
)

// openDatabase makes the example run by one command: it connects to the PostgreSQL
// that DATABASE_URL or DB_HOST and friends name, else to one that it starts, and sees to
// a SESSION_SECRET. A real program has all that in its environment.
func openDatabase(ctx context.Context) (pool *pgxpool.Pool, closeDatabase func(), err error) {
	if err := pgtest.EnsureSecret("oidc"); err != nil {
		return nil, nil, err
	}
	dir, err := pgtest.CacheDir("oidc")
	if err != nil {
		return nil, nil, err
	}
	server, err := pgtest.Find(ctx, pgtest.Options{DataDir: filepath.Join(dir, "postgresql"), Logger: slog.Default()})
	if err != nil {
		return nil, nil, err
	}
	pool, err = pgxpool.New(ctx, server.ProgramURL())
	if err != nil {
		return nil, nil, errors.Join(err, server.Close())
	}
	slog.Info("database", "source", server.Source())
	return pool, func() {
		pool.Close()
		if err := server.Close(); err != nil {
			slog.Error("the database could not be closed", "error", err)
		}
	}, nil
}
