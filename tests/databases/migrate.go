package databases

import (
	"context"
	"database/sql"
	"io/fs"

	"github.com/golang-migrate/migrate/v4"
	migratepgx "github.com/golang-migrate/migrate/v4/database/pgx/v5"
	"github.com/golang-migrate/migrate/v4/source/iofs"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	tern "github.com/jackc/tern/v2/migrate"
	"github.com/pressly/goose/v3"
)

func openMigrate(pool *pgxpool.Pool, files fs.FS) (*migrate.Migrate, error) {
	source, err := iofs.New(files, ".")
	if err != nil {
		return nil, err
	}
	db := stdlib.OpenDBFromPool(pool) // one of its own: its Close closes it, and not the pool
	target, err := migratepgx.WithInstance(db, &migratepgx.Config{})
	if err != nil {
		return nil, err
	}
	return migrate.NewWithInstance("iofs", source, "pgx5", target) // then Up, and Close: it keeps a connection
}

func openGoose(db *sql.DB, files fs.FS) (*goose.Provider, error) {
	return goose.NewProvider(goose.DialectPostgres, db, files) // then Up
}

func ternTo(ctx context.Context, pool *pgxpool.Pool, files fs.FS, version int32) error {
	return pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error {
		m, err := tern.NewMigrator(ctx, c.Conn(), "public.schema_version")
		if err != nil {
			return err
		}
		if err := m.LoadMigrations(files); err != nil {
			return err
		}
		return m.MigrateTo(ctx, version)
	})
}
