package pgtable_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/pgrun"
	"github.com/pgsession/session/internal/pgtable"
	"github.com/pgsession/session/internal/pgtest"
)

func readSQL(t *testing.T) string {
	t.Helper()
	sql, err := os.ReadFile("../../schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	return string(sql)
}

// newTable returns a table by a name, and what is logged of it.
func newTable(t *testing.T, pool *pgxpool.Pool, schema, name string) (*pgtable.Table, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer)
	table := &pgtable.Table{
		Logger: slog.New(slog.NewTextHandler(log, nil)),
		Schema: schema, Name: name, SQL: readSQL(t), SIDBytes: 32, FindPrefix: "__find_",
		Hash: func(s string) string {
			sum := sha256.Sum256([]byte(s))
			return hex.EncodeToString(sum[:16])
		},
	}
	if pool != nil {
		table.Runner = pgrun.New(pool, time.Minute, pgrun.Errors{Uncertain: errors.New("uncertain"), Invalid: errors.New("invalid")})
	}
	return table, log
}

// The first makes the table and the index, the second finds them and says
// nothing but that the database has answered.
func TestSetupMakesAndFinds(t *testing.T) {
	pool := pgtest.Pool(t)
	for _, tt := range []struct {
		name string
		made bool
	}{
		{"made", true},
		{"found", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table, log := newTable(t, pool, `it's "mine"`, "se.ssion")
			if err := table.Setup(t.Context()); err != nil {
				t.Fatal(err)
			}
			if table.SessType != "json" || table.ExpireType != "timestamp without time zone" || table.ForeignZone != nil {
				t.Errorf("got sess %s, expire %s, %v, want json and timestamp without time zone", table.SessType, table.ExpireType, table.ForeignZone)
			}
			if err := table.MakeIndexes(t.Context(), []string{"userId", "o'hara"}); err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(log.String(), "table made"); got != tt.made {
				t.Errorf("log: got a table made: %t, want %t", got, tt.made)
			}
			if got, want := strings.Count(log.String(), "index made"), map[bool]int{true: 2}[tt.made]; got != want {
				t.Errorf("log: got %d indexes made, want %d", got, want)
			}
			if strings.Contains(log.String(), "level=WARN") {
				t.Errorf("log: got %s, want no warning", log)
			}
		})
	}
}

// Everything that is wrong is said at once, each with what mends it.
func TestSetupNamesEveryFault(t *testing.T) {
	pool := pgtest.Pool(t)
	if _, err := pool.Exec(t.Context(), `CREATE TABLE public.session (sid char(3), sess text, other int NOT NULL)`); err != nil {
		t.Fatal(err)
	}
	table, _ := newTable(t, pool, "public", "session")
	err := table.Setup(t.Context())
	if err == nil {
		t.Fatal("got no error, want one")
	}
	for _, want := range []string{
		`varchar or text of 32 characters`, `ALTER COLUMN sid TYPE varchar;`,
		`ALTER COLUMN sess TYPE json USING sess::text::json;`,
		`has no column expire`,
		`ALTER COLUMN "other" DROP NOT NULL;`,
		`ADD PRIMARY KEY (sid);`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want one with %q", err, want)
		}
	}
}

func TestDDL(t *testing.T) {
	table, _ := newTable(t, nil, "schema_system", "session")
	if got := table.DDL(); got != table.SQL {
		t.Errorf("the default names: got\n%s\nwant the SQL as it is", got)
	}
	for _, tt := range []struct{ schema, name, want, never string }{
		{"other", "sessions", `"other"."sessions"`, "schema_system"},
		{"it's", "session", `'"it''s"."session"'`, "schema_system"},
		{"$session$", "$ssession$", "$sssession$", "DO $session$"},
	} {
		table, _ := newTable(t, nil, tt.schema, tt.name)
		got := table.DDL()
		if !strings.Contains(got, tt.want) || strings.Contains(got, tt.never) {
			t.Errorf("%s, %s: got\n%s\nwant %s in it and not %s", tt.schema, tt.name, got, tt.want, tt.never)
		}
	}
}

// A key stands in the statements as text, whatever is in it.
func TestValue(t *testing.T) {
	table, _ := newTable(t, nil, "schema_system", "session")
	table.SessType = "json"
	for key, want := range map[string]string{
		"userId":    ` OPERATOR(pg_catalog.->>) E'__find_userId'`,
		"o'hara":    ` OPERATOR(pg_catalog.->>) E'o''hara'`,
		`back\lash`: ` OPERATOR(pg_catalog.->>) E'back\\lash'`,
		"%[2]s":     ` OPERATOR(pg_catalog.->>) E'%[2]s'`,
	} {
		if got := table.Value(key); !strings.Contains(got, want) {
			t.Errorf("%q: got %s, want %s in it", key, got, want)
		}
	}
}

// Long names are told apart by a hash, for PostgreSQL would cut them to the same.
func TestIndexNames(t *testing.T) {
	seen := map[string]bool{}
	keys := []string{"a", "b", strings.Repeat("k", 60) + "1", strings.Repeat("k", 60) + "2"}
	for _, key := range keys {
		table, _ := newTable(t, nil, "schema_system", "session")
		table.SessType = "jsonb"
		name, _, ok := strings.Cut(strings.TrimPrefix(table.IndexSQL(key), `CREATE INDEX CONCURRENTLY IF NOT EXISTS "`), `"`)
		if !ok || len(name) > pgtable.MaxNameBytes || !strings.HasPrefix(name, "idx_session_key_") {
			t.Errorf("%q: got the name %s, want one of %d bytes at most", key, name, pgtable.MaxNameBytes)
		}
		seen[name] = true
	}
	if len(seen) != len(keys) {
		t.Errorf("names: got %d, want %d", len(seen), len(keys))
	}
}
