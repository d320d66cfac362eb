package pgtable_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/hostile"
)

// Whoever may create in a schema of the search path is never called by a start:
// not where it makes the table, finds it, compares time zones, looks at odd
// columns, nor where it makes an index, or makes one anew that is not valid.
func TestSetupCallsNobodyElse(t *testing.T) {
	db := hostile.New(t)
	clean, err := pgxpool.New(t.Context(), db.Clean())
	if err != nil {
		t.Fatal(err)
	}
	defer clean.Close()
	exec := func(sql string) {
		t.Helper()
		if _, err := clean.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%v in %s", err, sql)
		}
	}
	for _, path := range hostile.Paths {
		t.Run(path, func(t *testing.T) {
			zone := func(cfg *pgxpool.Config) { cfg.ConnConfig.RuntimeParams["timezone"] = "Asia/Tokyo" }
			pool := db.Pool(t, path, zone)
			for _, step := range []string{
				"", "",
				"ALTER TABLE schema_system.session ALTER COLUMN expire TYPE timestamp(0), ALTER COLUMN expire DROP NOT NULL",
				"DROP INDEX schema_system.idx_session_expire",
				"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'schema_system.\"idx_session_key_userId\"'::regclass",
				"ALTER TABLE schema_system.session DROP CONSTRAINT session_pkey",
			} {
				if step != "" {
					exec(step)
				}
				table, log := newTable(t, pool, "schema_system", "session")
				err := table.Setup(t.Context())
				if broken := strings.Contains(step, "CONSTRAINT"); (err != nil) != broken {
					t.Fatalf("after %q: got %v, want an error: %t", step, err, broken)
				}
				if err == nil {
					if err := table.MakeIndexes(t.Context(), []string{"userId"}); err != nil {
						t.Errorf("after %q: MakeIndexes: got %v, want no error", step, err)
					}
				}
				if strings.Contains(log.String(), "could not be") || strings.Contains(step, "pg_index") && !strings.Contains(log.String(), "index made") {
					t.Errorf("after %q: got\n%s\nwant indexes made and time zones compared", step, log)
				}
			}
			var n int
			if err := clean.QueryRow(context.WithoutCancel(t.Context()), "SELECT count(*) FROM pg_index WHERE indrelid = 'schema_system.session'::regclass").Scan(&n); err != nil || n != 1 {
				t.Errorf("indexes: got %d, %v, want the one on the key, once", n, err)
			}
			exec("DROP SCHEMA schema_system CASCADE")
		})
	}
}
