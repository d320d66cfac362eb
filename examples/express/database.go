package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pgsession/session/internal/pgtest"
)

// database is where the sessions of both programs live.
type database struct {
	server *pgtest.Server
	pool   *pgxpool.Pool
}

// openDatabase finds a PostgreSQL, or starts one and keeps its data in the user's
// cache directory. Where there is none, the error says what to install: two
// programs cannot share sessions in memory.
func openDatabase(ctx context.Context) (*database, error) {
	dir, err := pgtest.CacheDir("express")
	if err != nil {
		return nil, err
	}
	server, err := pgtest.Find(ctx, pgtest.Options{DataDir: filepath.Join(dir, "postgresql"), Logger: slog.Default()})
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.New(ctx, server.ProgramURL())
	if err != nil {
		return nil, errors.Join(err, server.Close())
	}
	slog.Info("database", "source", server.Source())
	if psql := server.Psql(); psql != "" {
		slog.Info("to look at the sessions, run: " + psql + " -c 'SELECT sid, sess, expire FROM schema_system.session'")
	}
	return &database{server, pool}, nil
}

// Close closes the pool, and stops a server that this program started and no other
// uses.
func (db *database) Close() error {
	db.pool.Close()
	return db.server.Close()
}
