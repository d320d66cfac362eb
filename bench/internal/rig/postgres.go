package rig

import (
	"context"
	"maps"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/pgtest"
)

// settings are PostgreSQL's where they differ from its defaults. It is durable:
// fsync, full_page_writes and synchronous_commit are on. No checkpoint and no
// autovacuum falls into a measurement by chance; tables are vacuumed between
// rounds.
var settings = map[string]string{
	"fsync":                            "on",
	"full_page_writes":                 "on",
	"synchronous_commit":               "on",
	"shared_buffers":                   "512MB",
	"max_wal_size":                     "16GB",
	"checkpoint_timeout":               "1h",
	"max_connections":                  "400",
	"autovacuum":                       "off",
	"shared_preload_libraries":         "pg_stat_statements",
	"pg_stat_statements.track":         "none",
	"pg_stat_statements.track_utility": "on",
}

// Postgres is a PostgreSQL of the benchmark's own.
type Postgres struct {
	server   *pgtest.Server
	admin    *pgx.Conn
	dir      string // of its data
	readsWAL bool   // see Updates
	Settings map[string]string
	Version  string
}

// StartPostgres installs PostgreSQL if it is missing and starts one with temporary
// data; more settings come after the usual ones.
func StartPostgres(ctx context.Context, more map[string]string) (*Postgres, error) {
	if err := Install(ctx, PackagePostgres); err != nil {
		return nil, err
	}
	all := maps.Clone(settings)
	maps.Copy(all, more)
	server, err := pgtest.Find(ctx, pgtest.Options{OwnOnly: true, Settings: all})
	if err != nil {
		return nil, err
	}
	p := &Postgres{server: server, Settings: all}
	if p.admin, err = pgx.Connect(ctx, server.ProgramURL()); err == nil {
		err = p.admin.QueryRow(ctx, "SELECT current_setting('server_version'), current_setting('data_directory')").Scan(&p.Version, &p.dir)
	}
	if err == nil {
		_, err = p.admin.Exec(ctx, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
	}
	if err == nil {
		err = p.admin.QueryRow(ctx, "SELECT count(*) > 0 FROM pg_available_extensions WHERE name = 'pg_walinspect'").Scan(&p.readsWAL)
	}
	if err == nil && p.readsWAL {
		_, err = p.admin.Exec(ctx, "CREATE EXTENSION IF NOT EXISTS pg_walinspect")
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close stops the server and removes its data.
func (p *Postgres) Close() {
	if p.admin != nil {
		_ = p.admin.Close(context.Background())
	}
	if err := p.server.Close(); err != nil {
		Log("%v", err)
	}
}

// URL names a database of the server.
func (p *Postgres) URL(database string) string {
	u, err := url.Parse(p.server.ProgramURL())
	if err != nil {
		panic("rig: the server's URL cannot be parsed") // pgtest built it
	}
	u.Path = "/" + database
	return u.String()
}

// Create makes an empty database, or a copy of template unless that is empty.
func (p *Postgres) Create(ctx context.Context, database, template string) error {
	sql := "CREATE DATABASE " + pgx.Identifier{database}.Sanitize()
	if template != "" {
		sql += " TEMPLATE " + pgx.Identifier{template}.Sanitize()
	}
	_, err := p.admin.Exec(ctx, sql)
	return err
}

// Drop drops a database, connections and all.
func (p *Postgres) Drop(ctx context.Context, database string) error {
	_, err := p.admin.Exec(ctx, "DROP DATABASE IF EXISTS "+pgx.Identifier{database}.Sanitize()+" WITH (FORCE)")
	return err
}

// Connect connects to a database.
func (p *Postgres) Connect(ctx context.Context, database string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, p.URL(database))
}

// Exec runs statements outside of any measurement.
func (p *Postgres) Exec(ctx context.Context, sql string) error {
	_, err := p.admin.Exec(ctx, sql)
	return err
}

// CPU returns the CPU time so far of all of the server's processes.
func (p *Postgres) CPU() (time.Duration, error) { return FamilyCPU(p.server.PID()) }

// WAL returns how many bytes of write-ahead log there are so far.
func (p *Postgres) WAL(ctx context.Context) (n int64, err error) {
	err = p.admin.QueryRow(ctx, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").Scan(&n)
	return n, err
}

// Count switches the counting of statements on or off; it costs time, so it is on
// only in passes that are not timed.
func (p *Postgres) Count(ctx context.Context, on bool) error {
	track := "none"
	if on {
		track = "top"
	}
	if _, err := p.admin.Exec(ctx, "ALTER SYSTEM SET pg_stat_statements.track = '"+track+"'"); err != nil {
		return err
	}
	_, err := p.admin.Exec(ctx, "SELECT pg_reload_conf()")
	return err
}

// Statements returns how many statements were run in a database while Count was on.
func (p *Postgres) Statements(ctx context.Context, database string) (n int64, err error) {
	err = p.admin.QueryRow(ctx, `SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements s
		JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = $1`, database).Scan(&n)
	return n, err
}

// Updates are row updates, and those of them that changed no index: heap-only.
type Updates struct{ All, HeapOnly int64 }

// Share returns the share of heap-only ones; ok is false without updates.
func (u Updates) Share() (share float64, ok bool) {
	return float64(u.HeapOnly) / float64(max(1, u.All)), u.All > 0
}

// Updates counts the row updates of all databases in the log between two of WAL's
// results: there each has a record of its own, at once, while the counts of
// pg_stat_user_tables come seconds later or never. PostgreSQL 15 or newer; of an
// older one it returns none.
func (p *Postgres) Updates(ctx context.Context, from, to int64) (u Updates, err error) {
	if !p.readsWAL || to <= from {
		return u, nil
	}
	// Only what has been flushed can be read, and a commit flushes what stands before it.
	if _, err := p.admin.Exec(ctx, "SELECT pg_logical_emit_message(true, 'bench', '')"); err != nil {
		return u, err
	}
	err = p.admin.QueryRow(ctx, `SELECT coalesce(sum(count), 0)::bigint, coalesce(sum(count) FILTER (WHERE "resource_manager/record_type" LIKE 'Heap/HOT_UPDATE%'), 0)::bigint
		FROM pg_get_wal_stats('0/0'::pg_lsn + $1::numeric, '0/0'::pg_lsn + $2::numeric, true)
		WHERE "resource_manager/record_type" ~ '^Heap/(HOT_)?UPDATE'`, from, to).Scan(&u.All, &u.HeapOnly)
	return u, err
}

// CommitTime measures how long the smallest durable write usually takes, disk
// included: it bounds what one connection can save.
func (p *Postgres) CommitTime(ctx context.Context) (time.Duration, error) {
	if _, err := p.admin.Exec(ctx, "CREATE TABLE IF NOT EXISTS commit_time (i int)"); err != nil {
		return 0, err
	}
	return medianTime(func() error {
		_, err := p.admin.Exec(ctx, "INSERT INTO commit_time VALUES (1)")
		return err
	})
}
