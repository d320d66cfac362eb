package citus

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/citustest"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/sessiontest"
)

func TestMain(m *testing.M) {
	if !citustest.Real() {
		fmt.Fprintf(os.Stderr, "*** NO CITUS: %s names no coordinator. The statements for Citus run on plain PostgreSQL, which shows that they are right and nothing about workers.\n", citustest.Env)
	}
	pgtest.Main(m)
}

const columns = "sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamptz(6) NOT NULL"

func newStore(t testing.TB, pool *pgxpool.Pool, opts session.PostgresOptions) *session.PostgresStore {
	t.Helper()
	opts.Logger = slog.New(slog.DiscardHandler)
	store, err := session.NewPostgresStore(t.Context(), pool, opts)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func maxConns(n int32) func(*pgxpool.Config) {
	return func(cfg *pgxpool.Config) { cfg.MaxConns = n }
}

// The whole suite that every store must pass.
func TestConformance(t *testing.T) {
	for i, tt := range []struct {
		name, columns string
		opts          session.PostgresOptions
		sameJSON      bool
	}{
		{name: "varchar, json", columns: columns},
		{name: "text, json, hashed IDs", columns: "sid text PRIMARY KEY, sess json NOT NULL, expire timestamptz NOT NULL", opts: session.PostgresOptions{HashIDs: true}},
		{name: "varchar(255), jsonb, statements of their own", columns: "sid varchar(255) PRIMARY KEY, sess jsonb NOT NULL, expire timestamptz(3) NOT NULL", opts: session.PostgresOptions{DisableBatching: true}, sameJSON: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // it waits: the suite's renewals go from shard to shard, which nobody else's do
			pool := citustest.Pool(t, maxConns(16))
			tt.opts.Schema = fmt.Sprintf("session_test_%d v.sid l.new l.ttl v.old", i) // a name is a name
			citustest.Table(t, pool, tt.opts.Schema, tt.columns)
			store := newStore(t, pool, tt.opts)
			sessiontest.TestStore(t, func(*testing.T) session.Store {
				if tt.sameJSON {
					return sessiontest.SameJSON{Store: store}
				}
				return store
			})
		})
	}
}

// What cannot work is an error at start that says what to run.
func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		name, columns, by string
		opts              session.PostgresOptions
		want              []string
	}{
		{
			name: "no time zone", columns: "sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL", by: "sid",
			want: []string{"has no time zone", "ALTER COLUMN expire TYPE timestamptz(6)", "expire timestamptz(6) NOT NULL", "SELECT create_distributed_table("},
		},
		{name: "another column", columns: "sid varchar, sess json NOT NULL, expire timestamptz(6) NOT NULL, tenant int, UNIQUE (sid, tenant)", by: "tenant", want: []string{"is distributed by tenant", "alter_distributed_table("}},
		{name: "an outbox", columns: columns, by: "sid", opts: session.PostgresOptions{Outbox: "session_outbox"}, want: []string{"an outbox cannot be", "Leave PostgresOptions.Outbox empty"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pool := citustest.Pool(t)
			tt.opts.Schema, tt.opts.Logger = "session_test_refused", slog.New(slog.DiscardHandler)
			citustest.Exec(t, pool, "DROP SCHEMA IF EXISTS session_test_refused CASCADE; CREATE SCHEMA session_test_refused; CREATE TABLE session_test_refused.session ("+tt.columns+")")
			t.Cleanup(func() { citustest.Exec(t, pool, "DROP SCHEMA session_test_refused CASCADE") })
			citustest.Distribute(t, pool, tt.opts.Schema, tt.by)
			_, err := session.NewPostgresStore(t.Context(), pool, tt.opts)
			if err == nil {
				t.Fatal("got no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q in it", err, want)
				}
			}
		})
	}
}
