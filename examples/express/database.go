package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
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
	pool, err := pgxpool.New(ctx, server.URL())
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

// ensureSecret gives SESSION_SECRET a value of this machine's own where it has
// none, kept so that logins survive a restart. In a real move it is the secret
// that Express has had all along.
func ensureSecret() error {
	if os.Getenv("SESSION_SECRET") != "" {
		return nil
	}
	dir, err := pgtest.CacheDir("express")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "session-secret")
	secret, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		secret, err = makeSecret(path)
	}
	if err != nil {
		return fmt.Errorf("SESSION_SECRET is not set, and the one of this machine cannot be used: %w", err)
	}
	slog.Info("SESSION_SECRET is not set: using one made for this machine", "file", path)
	return os.Setenv("SESSION_SECRET", string(secret))
}

// makeSecret writes aside and links into place: of two programs that start at once
// both use the first one's, and none reads half of it.
func makeSecret(path string) ([]byte, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "secret-*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(rand.Text() + rand.Text())
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return os.ReadFile(path)
}
