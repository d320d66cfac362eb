package main

import (
	"context"
	"log/slog"
	"path/filepath"

	"github.com/pgsession/session/internal/pgtest"
)

// findDatabase makes the example run by one command: it gives the connection
// string of the PostgreSQL that DATABASE_URL or DB_HOST and friends name, else of
// one that it starts, and sees to a SESSION_SECRET. A real program has all that in
// its environment and needs none of this file.
func findDatabase(ctx context.Context) (dsn string, closeDatabase func(), err error) {
	if err := pgtest.EnsureSecret("passkey"); err != nil {
		return "", nil, err
	}
	dir, err := pgtest.CacheDir("passkey")
	if err != nil {
		return "", nil, err
	}
	server, err := pgtest.Find(ctx, pgtest.Options{DataDir: filepath.Join(dir, "postgresql"), Logger: slog.Default()})
	if err != nil {
		return "", nil, err
	}
	slog.Info("database", "source", server.Source())
	if psql := server.Psql(); psql != "" {
		slog.Info("to look at the users, run: " + psql + " -c 'TABLE passkey_example.users'")
	}
	return server.ProgramURL(), func() {
		if err := server.Close(); err != nil {
			slog.Error("the database could not be closed", "error", err)
		}
	}, nil
}
