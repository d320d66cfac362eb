package pgtable_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/pgtable"
	"github.com/pgsession/session/internal/pgtest"
)

// startWith does what a start with a key to index does, and returns its log.
func startWith(t *testing.T, pool *pgxpool.Pool, schema, name string) (*pgtable.Table, *bytes.Buffer) {
	t.Helper()
	return startPatiently(t, pool, schema, name, 0)
}

// inVain is the patience of a start that will have to wait, so as not to wait long.
const inVain = 300 * time.Millisecond

func startPatiently(t *testing.T, pool *pgxpool.Pool, schema, name string, d time.Duration) (*pgtable.Table, *bytes.Buffer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	table, log := newTable(t, pool, schema, name)
	table.SetPatience(d)
	if err := table.Setup(ctx); err != nil {
		t.Fatal(err)
	}
	if err := table.MakeIndexes(ctx, []string{"userId"}); err != nil {
		t.Fatalf("MakeIndexes: got %v, want no error\n%s", err, log)
	}
	return table, log
}

// indexes returns the names of a table's indexes but for its primary key, those
// that are not valid with an exclamation mark.
func indexes(t *testing.T, pool *pgxpool.Pool, table string) string {
	t.Helper()
	var names string
	if err := pool.QueryRow(t.Context(), `SELECT COALESCE(string_agg(c.relname || CASE WHEN i.indisvalid THEN '' ELSE '!' END, ' ' ORDER BY c.relname), '')
		FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = $1::text::regclass AND NOT i.indisprimary`, table).Scan(&names); err != nil {
		t.Fatal(err)
	}
	return names
}

// hold runs statements in a transaction that stays open until release.
func hold(t *testing.T, pool *pgxpool.Pool, statements ...string) (release func()) {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), pool.Config().ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() { _ = conn.Close(context.Background()) })
	t.Cleanup(release)
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	return release
}

const (
	both = "idx_session_expire idx_session_key_userId"
	dump = "BEGIN ISOLATION LEVEL REPEATABLE READ"
)

// A backup is under way, or somebody has forgotten to end a transaction: the
// start goes on without an index, leaves none behind, and says what to run.
func TestIndexBesideALongTransaction(t *testing.T) {
	for _, tt := range []struct {
		name string
		held []string
	}{
		{"a backup", []string{dump, "SELECT FROM schema_system.session"}},
		{"a snapshot of something else", []string{dump, "SELECT FROM pg_class"}},
		{"a writer", []string{"BEGIN", "DELETE FROM schema_system.session"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pool := pgtest.Pool(t)
			table, _ := newTable(t, pool, "schema_system", "session")
			if err := table.Setup(t.Context()); err != nil {
				t.Fatal(err)
			}
			release := hold(t, pool, tt.held...)
			_, log := startPatiently(t, pool, "schema_system", "session", inVain)
			if got := indexes(t, pool, "schema_system.session"); got != "idx_session_expire" {
				t.Errorf("indexes: got %s, want none begun", got)
			}
			got := warnings(log)
			if len(got) != 1 || !strings.Contains(got[0], "could not be made") || !strings.Contains(got[0], "a transaction is open") {
				t.Fatalf("got the warnings %q, want one about the transaction", got)
			}
			release()
			exec(t, pool, toRunIn(t, got[0]))
			if _, log := startWith(t, pool, "schema_system", "session"); indexes(t, pool, "schema_system.session") != both || len(warnings(log)) > 0 {
				t.Errorf("after %s: got the indexes %s and\n%s", toRunIn(t, got[0]), indexes(t, pool, "schema_system.session"), log)
			}
		})
	}
}

// onSettings runs f once, when a build is about to begin.
type onSettings struct{ f func() }

func (o *onSettings) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if strings.Contains(data.SQL, "set_config('lock_timeout'") && o.f != nil {
		f := o.f
		o.f = nil
		f()
	}
	return ctx
}

func (o *onSettings) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// The long transaction begins when nobody looks for it any more: the build is cut
// off, and what it leaves is dropped at once, or by the first start that can.
func TestIndexThatIsCutOff(t *testing.T) {
	for _, tt := range []struct {
		name string
		held []string
		left string
	}{
		{"a snapshot", []string{dump, "SELECT FROM pg_class"}, "idx_session_expire"},
		{"a backup", []string{dump, "SELECT FROM schema_system.session"}, "idx_session_expire idx_session_key_userId!"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			admin := pgtest.Pool(t)
			table, _ := newTable(t, admin, "schema_system", "session")
			if err := table.Setup(t.Context()); err != nil {
				t.Fatal(err)
			}
			var release func()
			begin := &onSettings{f: func() { release = hold(t, admin, tt.held...) }}
			cfg := admin.Config().Copy()
			cfg.ConnConfig.Tracer = begin
			cfg.ConnConfig.RuntimeParams["lock_timeout"] = "1h"
			pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			_, log := startPatiently(t, pool, "schema_system", "session", inVain)
			if got := indexes(t, admin, "schema_system.session"); got != tt.left || release == nil {
				t.Errorf("indexes: got %s, want %s\n%s", got, tt.left, log)
			}
			if !strings.Contains(log.String(), "could not be made") || !strings.Contains(log.String(), "55P03") {
				t.Errorf("log: got\n%s\nwant that a lock took too long", log)
			}
			var timeout string
			if err := pool.QueryRow(t.Context(), "SHOW lock_timeout").Scan(&timeout); err != nil || timeout != "1h" {
				t.Errorf("lock_timeout of the pool's connection: got %s, %v, want it as it was", timeout, err)
			}
			release()
			if _, log := startWith(t, admin, "schema_system", "session"); indexes(t, admin, "schema_system.session") != both {
				t.Errorf("the next start: got %s\n%s", indexes(t, admin, "schema_system.session"), log)
			}
		})
	}
}

// Whoever gives up while an index is made leaves no build behind that goes on, no
// index, and a connection that works.
func TestIndexIsGivenUp(t *testing.T) { givenUp(t, 0) }

// What cancels the build hits nothing else, however long the server takes over it.
func TestIndexIsGivenUpBySlowSignals(t *testing.T) { givenUp(t, 300*time.Millisecond) }

func givenUp(t *testing.T, signals time.Duration) {
	admin := pgtest.Pool(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	begin := &onSettings{f: func() {
		hold(t, admin, dump, "SELECT FROM pg_class")
		go func() {
			defer cancel()
			for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
				var waits bool
				err := admin.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'CREATE INDEX%' AND wait_event_type = 'Lock'), pg_sleep(0.01)::text").Scan(&waits, nil)
				if err != nil || waits {
					return
				}
			}
		}()
	}}
	cfg := admin.Config().Copy()
	cfg.ConnConfig.Tracer = begin
	server := &slowSignals{time: signals}
	server.use(cfg)
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	table, log := newTable(t, pool, "schema_system", "session")
	table.SetPatience(2 * patience)
	if err := table.Setup(ctx); err != nil {
		t.Fatal(err)
	}
	if err := table.MakeIndexes(ctx, []string{"userId"}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it cancelled\n%s", err, log)
	}
	if got := indexes(t, admin, "schema_system.session"); got != "idx_session_expire" {
		t.Errorf("indexes: got %s, want none left", got)
	}
	var building int
	if err := admin.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_progress_create_index").Scan(&building); err != nil || building != 0 {
		t.Errorf("builds that go on: got %d, %v, want none", building, err)
	}
	if requests, early := server.requests.Load(), server.early.Load(); requests == 0 || early != 0 {
		t.Errorf("sent before the server was done with %d cancel requests: got %d messages, want some requests and no message", requests, early)
	}
	if err := pool.Ping(t.Context()); err != nil {
		t.Errorf("afterwards: got %v, want no error", err)
	}
	if got := pool.Stat().NewConnsCount(); got != 1 {
		t.Errorf("connections that were made: got %d, want the first to survive", got)
	}
}

// What somebody was cut off while making is made anew, whatever its name; but not
// what somebody is still making, or whose owner is another.
func TestIndexThatIsNotValid(t *testing.T) {
	const spoil = "ALTER INDEX schema_system.\"idx_session_key_userId\" RENAME TO old; UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'schema_system.old'::regclass"
	for _, tt := range []struct {
		name string
		held []string
		want string
	}{
		{"nobody", nil, both},
		{"somebody is making it", []string{"BEGIN", "LOCK TABLE schema_system.session IN SHARE UPDATE EXCLUSIVE MODE"}, "idx_session_expire old!"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pool := pgtest.Pool(t)
			startWith(t, pool, "schema_system", "session")
			exec(t, pool, spoil)
			if tt.held != nil {
				hold(t, pool, tt.held...)
			}
			_, log := startWith(t, pool, "schema_system", "session")
			if got := indexes(t, pool, "schema_system.session"); got != tt.want {
				t.Errorf("indexes: got %s, want %s\n%s", got, tt.want, log)
			}
			if busy := strings.Contains(log.String(), "somebody is making it, or works on the table"); busy != (tt.held != nil) || !strings.Contains(log.String(), "an index is not valid") {
				t.Errorf("log: got\n%s\nwant a word about the index, and about who is at it", log)
			}
		})
	}
	t.Run("of another owner", func(t *testing.T) {
		admin := pgtest.Pool(t)
		exec(t, admin, goodTable)
		startWith(t, admin, "public", "session")
		exec(t, admin, strings.ReplaceAll(spoil, "schema_system", "public"))
		pool, _ := asRole(t, admin, "")
		_, log := startWith(t, pool, "public", "session")
		got := warnings(log)
		if len(got) != 2 || !strings.Contains(got[0], "not valid") || !strings.Contains(got[1], "could not be made") {
			t.Fatalf("got the warnings %q, want one about the index and one about the key", got)
		}
		exec(t, admin, toRunIn(t, got[0]))
		if _, log := startWith(t, pool, "public", "session"); len(warnings(log)) > 0 {
			t.Errorf("after %s: got\n%s\nwant no warning", toRunIn(t, got[0]), log)
		}
	})
}

// An index is known by its table and what is in it.
func TestIndexByDefinition(t *testing.T) {
	const unqualified = `CREATE INDEX before ON schema_system.session ((left(COALESCE((CASE WHEN strpos(sess::text, E'\\u') = 0 THEN sess::json ELSE regexp_replace(sess::text, E'(?<!\\\\)((\\\\\\\\)*)\\\\u(0000|00[89a-fA-F].|0[1-9a-fA-F]..|[1-9a-fA-F]...)', E'\\1\\\\u001a', 'g')::json END)->>E'__find_userId', (CASE WHEN strpos(sess::text, E'\\u') = 0 THEN sess::json ELSE regexp_replace(sess::text, E'(?<!\\\\)((\\\\\\\\)*)\\\\u(0000|00[89a-fA-F].|0[1-9a-fA-F]..|[1-9a-fA-F]...)', E'\\1\\\\u001a', 'g')::json END)->>E'userId'), 255)))`
	for _, tt := range []struct{ name, sql, want string }{
		{"with another name", `ALTER INDEX schema_system."idx_session_key_userId" RENAME TO mine`, "idx_session_expire mine"},
		{"of before the operators were qualified", `DROP INDEX schema_system."idx_session_key_userId"; ` + unqualified, "before idx_session_expire"},
		{"with a column more", `DROP INDEX schema_system."idx_session_key_userId"; ` + strings.TrimSuffix(unqualified, ")") + ", expire)", "before idx_session_expire"},
		{"of another key", `DROP INDEX schema_system."idx_session_key_userId"; ` + strings.ReplaceAll(unqualified, "userId", "userid"), "before " + both},
		{"with a condition", `DROP INDEX schema_system."idx_session_key_userId"; ` + unqualified + " WHERE sid <> ''", "before " + both},
		{"of an owned function", `DROP INDEX schema_system."idx_session_key_userId"; CREATE FUNCTION public.strpos(text, text) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 0'; SET search_path = public, pg_catalog; ` + unqualified + "; RESET search_path", "before " + both},
		{"whose name another table has taken", `ALTER TABLE schema_system.session RENAME TO session_old`, "idx_session_key_userId_2 session_expire_idx"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pool := pgtest.Pool(t)
			startWith(t, pool, "schema_system", "session")
			exec(t, pool, tt.sql)
			for _, start := range []string{"the first start", "the next"} {
				_, log := startWith(t, pool, "schema_system", "session")
				if got := indexes(t, pool, "schema_system.session"); got != tt.want || len(warnings(log)) > 0 {
					t.Errorf("%s: got %s, want %s\n%s", start, got, tt.want, log)
				}
			}
		})
	}
}

func TestCanonical(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{`"left"((sess)::text, 255)`, `pg_catalog.left(sess::pg_catalog.text, 255)`, true},
		{`(a = 0)`, `a OPERATOR(pg_catalog.=) 0`, true},
		{`a::character varying || 'x'`, `a||'x'`, true},
		{`E'a\\b'`, `E'a\\\\b'`, false},
		{`E'\\u'::text`, `'\u'`, true},
		{`'it''s'`, `E'it\'s'`, true},
		{`'a b'`, `'ab'`, false},
		{`'('`, `''`, false},
		{`a = 1`, `a = 2`, false},
		{`a <> 1`, `a = 1`, false},
		{`public.strpos(a)`, `pg_catalog.strpos(a)`, false},
	} {
		if got := pgtable.Canonical(tt.a) == pgtable.Canonical(tt.b); got != tt.same {
			t.Errorf("%s and %s: got the same: %t, want %t", tt.a, tt.b, got, tt.same)
		}
	}
}

// Another program makes indexes, for as long as that takes: this one starts.
func TestIndexThatAnotherProgramMakes(t *testing.T) {
	pool := pgtest.Pool(t)
	hold(t, pool, "BEGIN", "SELECT pg_advisory_xact_lock(7163384699731670)")
	_, log := startPatiently(t, pool, "schema_system", "session", inVain)
	if got := warnings(log); len(got) != 1 || !strings.Contains(got[0], "another program is making indexes") {
		t.Errorf("got the warnings %q, want one about the other program", got)
	}
}

// Two tables whose names differ at the end alone: PostgreSQL cuts the names of
// their indexes to the same.
func TestNamesThatAreCut(t *testing.T) {
	pool := pgtest.Pool(t)
	for _, end := range []string{"a", "b", ""} {
		name := strings.Repeat("n", pgtable.MaxNameBytes-1) + end
		for range 2 {
			table, _ := startWith(t, pool, "public", name)
			if got := indexes(t, pool, table.Quoted()); len(strings.Fields(got)) != 2 {
				t.Errorf("%q: got the indexes %s, want two", name, got)
			}
			exec(t, pool, table.DDL()) // by hand
			exec(t, pool, table.IndexSQL("userId"))
		}
	}
}

// What a function of the database says when something is made may quote a row.
func TestMakingIsDiscreet(t *testing.T) {
	pool := pgtest.Pool(t)
	const refuse = `CREATE FUNCTION public.refuse() RETURNS event_trigger LANGUAGE plpgsql AS
		$$ BEGIN RAISE EXCEPTION 'the row: hidden' USING DETAIL = 'hidden'; END $$;
		CREATE EVENT TRIGGER refuse ON ddl_command_start EXECUTE FUNCTION public.refuse()`
	table, _ := newTable(t, pool, "schema_system", "session")
	if err := table.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec(t, pool, refuse)
	_, log := startWith(t, pool, "schema_system", "session")
	if got := warnings(log); len(got) != 1 || !strings.Contains(got[0], "could not be made") || !strings.Contains(got[0], "P0001") || strings.Contains(log.String(), "hidden") {
		t.Errorf("got %q, want one about the index, without the row", got)
	}
	other, log := newTable(t, pool, "schema_system", "other")
	if err := other.Setup(t.Context()); err == nil || !strings.Contains(err.Error(), "P0001") || strings.Contains(err.Error()+log.String(), "hidden") {
		t.Errorf("making a table: got %v, want PostgreSQL's error without the row", err)
	}
}
