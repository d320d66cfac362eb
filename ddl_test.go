package session_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// What SchemaSQL says is what NewPostgresStore does, and does no harm twice.
func TestSchemaSQL(t *testing.T) {
	const made = `SELECT string_agg(x, E'\n' ORDER BY x) FROM (
			SELECT pg_get_indexdef(indexrelid) AS x FROM pg_index WHERE indrelid = (SELECT oid FROM pg_class WHERE relname = $1)
			UNION ALL SELECT attname || ' ' || format_type(atttypid, atttypmod) || attnotnull || COALESCE(to_json(a)->>'attcompression', '')
				FROM pg_attribute a WHERE attnum > 0 AND attrelid = (SELECT oid FROM pg_class WHERE relname = $1)
			UNION ALL SELECT reloptions::text FROM pg_class WHERE relname = $1) y`
	for _, tt := range []struct {
		name string
		opts session.PostgresOptions
	}{
		{"defaults", session.PostgresOptions{}},
		{"a name and keys", session.PostgresOptions{Schema: `it's "mine"`, Table: "se.ssion", IndexKeys: []string{"userId", "o'hara"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table := tt.opts.Table
			if table == "" {
				table = "session"
			}
			run := func(pool *pgxpool.Pool) {
				for i, sql := range strings.Split(session.SchemaSQL(tt.opts), "\nCREATE INDEX CONCURRENTLY") {
					if i > 0 {
						sql = "CREATE INDEX CONCURRENTLY" + sql
					}
					execSQL(t, pool, sql)
				}
			}
			byHand, byStore := pgtest.Pool(t), pgtest.Pool(t)
			run(byHand)
			run(byHand)
			newStore(t, byStore, tt.opts)
			got, want := queryOne[string](t, byHand, made, table), queryOne[string](t, byStore, made, table)
			if got != want || strings.Count(got, "INDEX") != 2+len(tt.opts.IndexKeys) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			log := &logRecorder{}
			tt.opts.Logger = log.logger()
			newStore(t, byHand, tt.opts)
			if got := log.String(); strings.Contains(got, " made") || strings.Contains(got, "level=WARN") {
				t.Errorf("a store on it: got %s, want nothing made and no warning", got)
			}
		})
	}
}
