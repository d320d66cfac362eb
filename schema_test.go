package session_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// tryStore makes a store, logging into the log if there is one. Twenty may do so at once.
func tryStore(pool *pgxpool.Pool, log *logRecorder) (*session.PostgresStore, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*patience)
	defer cancel()
	opts := session.PostgresOptions{Logger: slog.New(slog.DiscardHandler)}
	if log != nil {
		opts.Logger = log.logger()
	}
	return session.NewPostgresStore(ctx, pool, opts)
}

// checkStoreWorks uses every statement of a store.
func checkStoreWorks(t testing.TB, store *session.PostgresStore) {
	t.Helper()
	id, newID := rand.Text(), rand.Text()
	note := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: got %v, want no error", what, err)
		}
	}
	note("Create", store.Create(t.Context(), id, session.Record{Data: []byte(`{}`), TTL: time.Hour}))
	r, err := store.Load(t.Context(), id)
	note("Load", err)
	note("Update", store.Update(t.Context(), id, session.Change{Old: r.Data, New: r.Data, TTL: time.Hour}))
	note("renewal", store.Update(t.Context(), id, session.Change{Old: r.Data, New: r.Data, NewID: newID}))
	note("Touch", store.Touch(t.Context(), newID, 2*time.Hour))
	_, err = store.Prune(t.Context(), time.Minute)
	note("Prune", err)
	note("Delete", store.Delete(t.Context(), newID))
}

// tableShape describes schemas that hold sessions, as the catalogs have them.
func tableShape(t testing.TB, pool *pgxpool.Pool) string {
	t.Helper()
	return queryOne[string](t, pool, `SELECT concat_ws(E'\n',
		(SELECT string_agg(concat_ws(' ', n.nspname, c.relname, c.relkind, c.relpersistence, c.reloptions), ', ' ORDER BY c.relname)
			FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname !~ '^(pg_|information_schema)'),
		(SELECT string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.atthasdef), ', ' ORDER BY a.attnum)
			FROM pg_attribute a WHERE a.attrelid = 'schema_system.session'::regclass AND a.attnum > 0),
		(SELECT string_agg(pg_get_indexdef(indexrelid) || indisprimary, ', ' ORDER BY indexrelid::regclass::text)
			FROM pg_index WHERE indrelid = 'schema_system.session'::regclass),
		(SELECT string_agg(conname || pg_get_constraintdef(oid), ', ' ORDER BY conname)
			FROM pg_constraint WHERE conrelid = 'schema_system.session'::regclass AND contype <> 'n'))`) // from 18 on NOT NULL is one too
}

const wantTableShape = `schema_system idx_session_expire i p, schema_system session r p {fillfactor=70}, schema_system session_pkey i p
sid character varying t f, sess json t f, expire timestamp(6) without time zone t f
CREATE INDEX idx_session_expire ON schema_system.session USING btree (expire)false, CREATE UNIQUE INDEX session_pkey ON schema_system.session USING btree (sid)true
session_pkeyPRIMARY KEY (sid)`

// Each round begins on an empty database, with the pools' connections open, so
// that the statements meet, whatever isolation they have by default.
func TestSchemaManyPoolsAtOnce(t *testing.T) {
	for _, isolation := range []string{"read committed", "repeatable read", "serializable"} {
		t.Run(isolation, func(t *testing.T) {
			url := pgtest.URL(t)
			admin := openPool(t, url)
			var pools [20]*pgxpool.Pool
			for i := range pools {
				pools[i] = openPool(t, url, maxConns(1), func(cfg *pgxpool.Config) {
					cfg.ConnConfig.RuntimeParams["default_transaction_isolation"] = isolation
				})
			}
			for range 2 {
				for _, p := range pools {
					warmUp(t, p)
				}
				together(len(pools), func(i int) {
					store, err := tryStore(pools[i], nil)
					if err != nil {
						t.Errorf("NewPostgresStore: got %v, want no error", err)
						return
					}
					checkStoreWorks(t, store)
				})
				if got := tableShape(t, admin); got != wantTableShape {
					t.Errorf("schema: got\n%s\nwant\n%s", got, wantTableShape)
				}
				execSQL(t, admin, "DROP SCHEMA schema_system CASCADE")
			}
		})
	}
}

// The processes say that they are ready and wait until all are.
func TestSchemaManyProcessesAtOnce(t *testing.T) {
	const variable = "SESSION_TEST_SCHEMA_URL"
	if url := os.Getenv(variable); url != "" {
		pool := openPool(t, url, maxConns(1))
		warmUp(t, pool)
		fmt.Println("ready")
		_, _ = io.Copy(io.Discard, os.Stdin)
		store, err := tryStore(pool, nil)
		if err != nil {
			t.Fatal(err)
		}
		checkStoreWorks(t, store)
		return
	}
	url := pgtest.URL(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var stdins []io.Closer
	var ready, done sync.WaitGroup
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*patience) // each of the twenty is a program to start
		defer cancel()
		cmd := exec.CommandContext(ctx, self, "-test.run=^TestSchemaManyProcessesAtOnce$")
		cmd.Env = append(os.Environ(), variable+"="+url)
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdins = append(stdins, stdin)
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ready.Add(1)
		done.Go(func() {
			first := make([]byte, len("ready\n"))
			_, _ = io.ReadFull(stdout, first)
			ready.Done()
			rest, _ := io.ReadAll(stdout)
			if err := cmd.Wait(); err != nil || string(first) != "ready\n" {
				t.Errorf("a process: got %v, want success\n%s%s", err, first, rest)
			}
		})
	}
	ready.Wait()
	for _, c := range stdins {
		c.Close()
	}
	done.Wait()
	if got := tableShape(t, openPool(t, url)); got != wantTableShape {
		t.Errorf("schema: got\n%s\nwant\n%s", got, wantTableShape)
	}
}

// serverProgram finds a client program of PostgreSQL, "" if there is none.
func serverProgram(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	paths, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(paths) == 0 {
		return ""
	}
	return paths[len(paths)-1]
}

// runClient runs a client program of PostgreSQL against the database of the URL.
func runClient(t testing.TB, dbURL, program string, args ...string) {
	t.Helper()
	u, err := url.Parse(dbURL)
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	password, _ := u.User.Password()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "PGHOST="+u.Hostname(), "PGPORT="+u.Port(), "PGUSER="+u.User.Username(),
		"PGPASSWORD="+password, "PGDATABASE="+strings.TrimPrefix(u.Path, "/"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", filepath.Base(program), err, out)
	}
}

func TestSchemaByHand(t *testing.T) {
	url := pgtest.URL(t)
	pool := openPool(t, url)
	for range 2 {
		if psql := serverProgram("psql"); psql != "" {
			runClient(t, url, psql, "-v", "ON_ERROR_STOP=1", "-f", "schema.sql")
		} else {
			t.Log("no psql on this machine: schema.sql runs without it")
			sql, err := os.ReadFile("schema.sql")
			if err != nil {
				t.Fatal(err)
			}
			execSQL(t, pool, string(sql))
		}
		if got := tableShape(t, pool); got != wantTableShape {
			t.Errorf("schema: got\n%s\nwant\n%s", got, wantTableShape)
		}
	}
	checkStoreWorks(t, newStore(t, pool))
	if got := tableShape(t, pool); got != wantTableShape {
		t.Errorf("schema after NewPostgresStore: got\n%s\nwant\n%s", got, wantTableShape)
	}
}

// Data is compressed with lz4 where the server knows it: not before 14, nor when
// it was built without.
func TestSchemaCompression(t *testing.T) {
	pool := pgtest.Pool(t)
	checkStoreWorks(t, newStore(t, pool))
	want := queryOne[string](t, pool, "SELECT COALESCE((SELECT 'lz4' FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY(enumvals)), 'pglz')")
	id, data := rand.Text(), `{"a":"`+strings.Repeat("compressible ", 1000)+`"}`
	if err := newStore(t, pool).Create(t.Context(), id, session.Record{Data: []byte(data), TTL: time.Hour}); err != nil {
		t.Fatalf("Create: got %v, want no error", err)
	}
	if got := queryOne[int](t, pool, "SELECT pg_column_size(sess) FROM schema_system.session WHERE sid = $1", id); got > len(data)/10 {
		t.Errorf("size of %d bytes in the table: got %d, want them compressed", len(data), got)
	}
	if queryOne[int](t, pool, "SELECT current_setting('server_version_num')::int") < 140000 {
		return // pglz is all there is, and nothing says so
	}
	if got := queryOne[string](t, pool, "SELECT pg_column_compression(sess) FROM schema_system.session WHERE sid = $1", id); got != want {
		t.Errorf("compression: got %s, want %s", got, want)
	}
}

// newRole makes a role that may log in and nothing else, and returns a pool of
// its own.
func newRole(t testing.TB, url string, admin *pgxpool.Pool) (name string, pool *pgxpool.Pool) {
	t.Helper()
	name = "role \"" + strings.ToLower(rand.Text()) + "'s"
	id := pgx.Identifier{name}.Sanitize()
	execSQL(t, admin, "CREATE ROLE "+id+" LOGIN PASSWORD 'of the role'")
	t.Cleanup(func() { execSQL(t, admin, "DROP OWNED BY "+id+" CASCADE; DROP ROLE "+id) })
	return name, openPool(t, url, maxConns(2), func(cfg *pgxpool.Config) {
		cfg.ConnConfig.User, cfg.ConnConfig.Password = name, "of the role"
	})
}

var mendingSQL = regexp.MustCompile(`(?:GRANT|ALTER TABLE|CREATE INDEX) [^;]*;`)

// repairTable runs the statements in an error, as the owner.
func repairTable(t testing.TB, owner *pgxpool.Pool, err error) {
	t.Helper()
	statements := mendingSQL.FindAllString(err.Error(), -1)
	if len(statements) == 0 {
		t.Errorf("got %v, want an error with the SQL that mends it", err)
	}
	for _, sql := range statements {
		execSQL(t, owner, sql)
	}
}

func TestSchemaRoles(t *testing.T) {
	const all = "GRANT USAGE ON SCHEMA schema_system TO %[1]s; GRANT SELECT, INSERT, UPDATE, DELETE ON schema_system.session TO %[1]s;"
	byHand, err := os.ReadFile("schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	table := string(byHand)
	url := pgtest.URL(t)
	admin := openPool(t, url)
	for _, tt := range []struct {
		name   string
		before string // run by the owner; %[1]s is the role
		fails  bool
		after  string // run by the owner, besides what the error says
	}{
		{name: "may create nothing, the table is there", before: table + all},
		{name: "may create in the schema but no schemas", before: "CREATE SCHEMA schema_system; GRANT USAGE, CREATE ON SCHEMA schema_system TO %[1]s"},
		{name: "may create schemas", before: "GRANT CREATE ON DATABASE %[2]s TO %[1]s"},
		{name: "may create nothing and there is no schema", fails: true, after: table},
		{name: "may create nothing and there is no table", before: "CREATE SCHEMA schema_system; GRANT USAGE ON SCHEMA schema_system TO %[1]s", fails: true, after: table},
		{name: "may not use the schema", before: table + "GRANT SELECT, INSERT, UPDATE, DELETE ON schema_system.session TO %[1]s", fails: true},
		{name: "may not select", before: table + all + "REVOKE SELECT ON schema_system.session FROM %[1]s", fails: true},
		{name: "may not insert", before: table + all + "REVOKE INSERT ON schema_system.session FROM %[1]s", fails: true},
		{name: "may not update", before: table + all + "REVOKE UPDATE ON schema_system.session FROM %[1]s", fails: true},
		{name: "may not delete", before: table + all + "REVOKE DELETE ON schema_system.session FROM %[1]s", fails: true},
		{name: "may do nothing", before: table, fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			execSQL(t, admin, "DROP SCHEMA IF EXISTS schema_system CASCADE")
			name, pool := newRole(t, url, admin)
			execSQL(t, admin, fmt.Sprintf(tt.before+" -- %[1]s %[2]s", pgx.Identifier{name}.Sanitize(), admin.Config().ConnConfig.Database))
			store, err := tryStore(pool, nil)
			if tt.fails {
				if err == nil {
					t.Fatal("got no error, want one")
				}
				if tt.after != "" && !strings.Contains(err.Error(), "sessionctl schema --apply") {
					t.Errorf("got %v, want one that says how to make the table", err)
				}
				if tt.after != "" {
					execSQL(t, admin, tt.after)
				}
				repairTable(t, admin, err)
				store, err = tryStore(pool, nil)
			}
			if err != nil {
				t.Fatalf("got %v, want no error", err)
			}
			checkStoreWorks(t, store)
		})
	}
}

// Where the table exists no DDL is tried.
func TestSchemaNoDDL(t *testing.T) {
	traced := &tracer{}
	url := pgtest.URL(t)
	pool := openPool(t, url, traced.use)
	newStore(t, pool)
	id := func() string {
		return queryOne[string](t, pool, "SELECT xmin::text || (SELECT count(*) FROM pg_class)::text FROM pg_class WHERE oid = 'schema_system.session'::regclass")
	}
	before := id()
	traced.take()
	newStore(t, pool)
	for _, sql := range traced.take() {
		if !strings.HasPrefix(sql, "SELECT") {
			t.Errorf("statement: got %s, want a SELECT", sql)
		}
	}
	if got := id(); got != before {
		t.Errorf("catalog: got %s, want %s", got, before)
	}
}

func TestSchemaOtherShapes(t *testing.T) {
	const (
		sid, sess, expire = "sid varchar PRIMARY KEY", "sess json NOT NULL", "expire timestamp(6) NOT NULL"
	)
	pool := pgtest.Pool(t, maxConns(1))
	for _, tt := range []struct {
		name string
		ddl  string
		want string // in the error
		lost bool   // nothing mends it
	}{
		{"sid integer", "TABLE session (sid integer PRIMARY KEY, " + sess + "," + expire + ")", "column sid", false},
		{"sid uuid", "TABLE session (sid uuid PRIMARY KEY, " + sess + "," + expire + ")", "column sid", false},
		{"sid bytea", "TABLE session (sid bytea PRIMARY KEY, " + sess + "," + expire + ")", "column sid", false},
		{"sid char(32)", "TABLE session (sid char(32) PRIMARY KEY, " + sess + "," + expire + ")", "column sid", false},
		{"sid varchar(10)", "TABLE session (sid varchar(10) PRIMARY KEY, " + sess + "," + expire + ")", "column sid", false},
		{"sess text", "TABLE session (" + sid + ", sess text NOT NULL," + expire + ")", "column sess", false},
		{"sess bytea", "TABLE session (" + sid + ", sess bytea NOT NULL," + expire + ")", "column sess", false},
		{"sess hstore-like", "TABLE session (" + sid + ", sess varchar(100)[] NOT NULL," + expire + ")", "column sess", false},
		{"expire date", "TABLE session (" + sid + "," + sess + ", expire date NOT NULL)", "column expire", false},
		{"expire text", "TABLE session (" + sid + "," + sess + ", expire text NOT NULL)", "column expire", false},
		{"expire bigint", "TABLE session (" + sid + "," + sess + ", expire bigint NOT NULL)", "column expire", true},
		{"expire time", "TABLE session (" + sid + "," + sess + ", expire time NOT NULL)", "column expire", true},
		{"no sid", "TABLE session (" + sess + "," + expire + ")", "no column sid", false},
		{"no sess", "TABLE session (" + sid + "," + expire + ")", "no column sess", false},
		{"no expire", "TABLE session (" + sid + "," + sess + ")", "no column expire", false},
		{"nothing", "TABLE session ()", "no column sid", false},
		{"no primary key", "TABLE session (sid varchar NOT NULL, " + sess + "," + expire + ")", "no primary key", false},
		{"another primary key", "TABLE session (id serial PRIMARY KEY, sid varchar NOT NULL, " + sess + "," + expire + ")", "no primary key", false},
		{"a primary key of two columns", "TABLE session (sid varchar NOT NULL, " + sess + "," + expire + ", PRIMARY KEY (sid, expire))", "no primary key", false},
		{"a deferrable primary key", "TABLE session (sid varchar PRIMARY KEY DEFERRABLE, " + sess + "," + expire + ")", "deferrable", false},
		{"a partial unique index", "TABLE session (sid varchar NOT NULL, " + sess + "," + expire + "); CREATE UNIQUE INDEX ON schema_system.session (sid) WHERE sid <> ''", "no primary key", false},
		{"other columns with NOT NULL", "TABLE session (" + sid + "," + sess + "," + expire + `, "user Id" int NOT NULL, b text NOT NULL)`, "other columns", false},
		{"everything", "TABLE session (sid char(3), sess text, expire date, other int NOT NULL)", "other columns", false},
		{"a view", "VIEW session AS SELECT ''::varchar AS sid, '{}'::json AS sess, now()::timestamp AS expire", "not a table", true},
		{"a materialized view", "MATERIALIZED VIEW session AS SELECT ''::varchar AS sid, '{}'::json AS sess, now()::timestamp AS expire", "not a table", true},
		{"a sequence", "SEQUENCE session", "not a table", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			execSQL(t, pool, "DROP SCHEMA IF EXISTS schema_system CASCADE")
			execSQL(t, pool, "CREATE SCHEMA schema_system; SET search_path = schema_system; CREATE "+tt.ddl+"; RESET search_path")
			_, err := tryStore(pool, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want one with %q", err, tt.want)
			}
			if tt.lost {
				if !strings.Contains(err.Error(), "PostgresOptions") && !strings.Contains(err.Error(), "ALTER TABLE") {
					t.Errorf("got %v, want one that says what to do", err)
				}
				return
			}
			repairTable(t, pool, err)
			store, err := tryStore(pool, nil)
			if err != nil {
				t.Fatalf("mended: got %v, want no error", err)
			}
			checkStoreWorks(t, store)
		})
	}
}

func TestSchemaOddButFine(t *testing.T) {
	pool := pgtest.Pool(t, maxConns(1))
	for _, tt := range []struct{ name, ddl string }{
		{"other columns that may be empty", "TABLE session (sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamp NOT NULL, a int, b int NOT NULL DEFAULT 1, c serial, d int GENERATED ALWAYS AS IDENTITY, e int NOT NULL GENERATED ALWAYS AS (1) STORED)"},
		{"a dropped column", "TABLE session (x int NOT NULL, sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamp NOT NULL); ALTER TABLE schema_system.session DROP COLUMN x"},
		{"another order", "TABLE session (expire timestamp NOT NULL, sess json NOT NULL, sid varchar PRIMARY KEY)"},
		{"a unique index", "TABLE session (sid varchar, sess json, expire timestamp); CREATE UNIQUE INDEX ON schema_system.session (sid) INCLUDE (expire)"},
		{"another primary key and a unique sid", "TABLE session (id serial PRIMARY KEY, sid varchar UNIQUE, sess json, expire timestamp)"},
		{"unlogged", "UNLOGGED TABLE session (sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamp NOT NULL)"},
		{"sid of 32 characters", "TABLE session (sid varchar(32) PRIMARY KEY, sess json NOT NULL, expire timestamp NOT NULL)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			execSQL(t, pool, "DROP SCHEMA IF EXISTS schema_system CASCADE")
			execSQL(t, pool, "CREATE SCHEMA schema_system; SET search_path = schema_system; CREATE "+tt.ddl+"; RESET search_path")
			store, err := tryStore(pool, nil)
			if err != nil {
				t.Fatalf("got %v, want no error", err)
			}
			checkStoreWorks(t, store)
		})
	}
}

// The table as connect-pg-simple makes it.
func TestSchemaOfConnectPgSimple(t *testing.T) {
	pool := pgtest.Pool(t)
	execSQL(t, pool, `CREATE SCHEMA schema_system;
		CREATE TABLE "schema_system"."session" (
			"sid" varchar NOT NULL COLLATE "default",
			"sess" json NOT NULL,
			"expire" timestamp(6) NOT NULL
		)
		WITH (OIDS=FALSE);
		ALTER TABLE "schema_system"."session" ADD CONSTRAINT "session_pkey" PRIMARY KEY ("sid") NOT DEFERRABLE INITIALLY IMMEDIATE;
		CREATE INDEX "IDX_session_expire" ON "schema_system"."session" ("expire");`)
	before := tableShape(t, pool)
	log := &logRecorder{}
	store, err := tryStore(pool, log)
	if err != nil {
		t.Fatal(err)
	}
	checkStoreWorks(t, store)
	// By hand as well, on top of it.
	sql, err := os.ReadFile("schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	execSQL(t, pool, string(sql))
	if got := tableShape(t, pool); got != before {
		t.Errorf("schema: got\n%s\nwant\n%s", got, before)
	}
	if strings.Contains(log.String(), "level=WARN") {
		t.Errorf("log: got %s, want no warning", log)
	}
}

func TestSchemaNamesAreIdentifiers(t *testing.T) {
	pool := pgtest.Pool(t)
	execSQL(t, pool, "CREATE TABLE public.victim (a int); CREATE SCHEMA public2; CREATE TABLE public2.session (a int)")
	names := []string{
		"session", "schema_system", "schema_system.session", "public.victim",
		"UPPER and lower", "two  spaces\tand\na line", `a"b`, `a'b`, `a''b`, `a\b`, `a\'b`,
		"a.b", `"."`, "$1", "$do$", "$session$", "$ssession$", "$$", "%[1]s", "%s", "%", "'schema_system'", "idx_session_expire",
		`x"; DROP TABLE public.victim; --`, `x'; DROP TABLE public.victim; --`, `$do$; DROP TABLE public.victim; --`,
		`'||(SELECT 1)||'`, "select", "naïve 名前", "--", "/*", ";", strings.Repeat("n", 63), " ",
	}
	for i, name := range names {
		other := names[(i+7)%len(names)]
		for range 2 { // made, and found
			store, err := session.NewPostgresStore(t.Context(), pool, session.PostgresOptions{Schema: name, Table: other, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Errorf("schema %q, table %q: got %v, want no error", name, other, err)
				continue
			}
			checkStoreWorks(t, store)
		}
		if got := queryOne[int](t, pool, "SELECT count(*) FROM pg_tables WHERE schemaname = $1 AND tablename = $2", name, other); got != 1 {
			t.Errorf("schema %q, table %q: got %d tables of this name, want 1", name, other, got)
		}
		if got := queryOne[int](t, pool, "SELECT count(*) FROM pg_indexes WHERE schemaname = $1", name); got != 2 {
			t.Errorf("schema %q, table %q: got %d indexes, want 2", name, other, got)
		}
	}
	if got := queryOne[int](t, pool, "SELECT count(*) FROM pg_tables WHERE schemaname !~ '^(pg_|information_schema)'"); got != len(names)+2 {
		t.Errorf("tables: got %d, want %d", got, len(names)+2)
	}
	for _, name := range []string{strings.Repeat("n", 64), "a\x00b"} {
		for _, opts := range []session.PostgresOptions{{Schema: name}, {Table: name}} {
			if _, err := session.NewPostgresStore(t.Context(), pool, opts); err == nil || !strings.Contains(err.Error(), "PostgresOptions") {
				t.Errorf("a name of %d bytes: got %v, want an error about PostgresOptions", len(name), err)
			}
		}
	}
}

// errorTexts returns the texts of an error and of all that it wraps.
func errorTexts(err error) string {
	var b strings.Builder
	var walk func(error)
	walk = func(err error) {
		if err == nil {
			return
		}
		fmt.Fprintf(&b, "%v|%+v|%q\n", err, err, err)
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			walk(e.Unwrap())
		case interface{ Unwrap() []error }:
			for _, err := range e.Unwrap() {
				walk(err)
			}
		}
	}
	walk(err)
	return b.String()
}

func TestSchemaConnectionFails(t *testing.T) {
	dbURL := pgtest.URL(t)
	const password = "never-to-be-seen"
	const closed = 1 // tcpmux, which nobody is given who asks for any port
	missing := "missing " + strings.ToLower(rand.Text()) + " it's"
	var real pgxpool.Config
	for _, tt := range []struct {
		name string
		opt  func(*pgxpool.Config)
		want []string
		wait bool // it may pass
	}{
		{"wrong password", func(cfg *pgxpool.Config) {}, []string{"password is wrong"}, false},
		{"unknown user", func(cfg *pgxpool.Config) { cfg.ConnConfig.User = "nobody" }, []string{`user "nobody"`}, false},
		{"nothing listens", func(cfg *pgxpool.Config) { cfg.ConnConfig.Port = closed }, []string{"is it running", "connection refused", "waited for"}, true},
		{"unknown host", func(cfg *pgxpool.Config) { cfg.ConnConfig.Host = "host.invalid" }, []string{"is it running", "host.invalid", "waited for"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pool := openPool(t, dbURL, func(cfg *pgxpool.Config) {
				real = *cfg.Copy()
				cfg.ConnConfig.Password = password
				tt.opt(cfg)
			})
			log := &logRecorder{}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if tt.wait { // until it says so
				go func() {
					defer cancel()
					for !strings.Contains(log.String(), "session: waiting for the database") {
						select {
						case <-ctx.Done():
							return
						case <-time.After(time.Millisecond):
						}
					}
				}()
			}
			_, err := session.NewPostgresStore(ctx, pool, session.PostgresOptions{Logger: log.logger()})
			if err == nil {
				t.Fatal("got no error, want one")
			}
			if said := strings.Count(log.String(), "session: waiting for the database"); said > 0 != tt.wait || said > 1 {
				t.Errorf("log: got %d lines about waiting, want one: %t", said, tt.wait)
			}
			c := pool.Config().ConnConfig
			for _, want := range append(tt.want, net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), c.Database, c.User) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want one with %q", err, want)
				}
			}
			for _, secret := range []string{password, real.ConnConfig.Password} {
				if secret != "" && strings.Contains(errorTexts(err)+log.String(), secret) {
					t.Error("the password is in the error or in the log")
				}
			}
		})
	}
	t.Run("missing database", func(t *testing.T) {
		pool := openPool(t, dbURL, func(cfg *pgxpool.Config) { cfg.ConnConfig.Database = missing })
		_, err := tryStore(pool, nil)
		if err == nil {
			t.Fatal("got no error, want one")
		}
		_, command, ok := strings.Cut(err.Error(), "createdb ")
		if !ok || strings.Contains(errorTexts(err), real.ConnConfig.Password) && real.ConnConfig.Password != "" {
			t.Fatal("got an error without createdb or with the password, want createdb")
		}
		admin := openPool(t, dbURL)
		quoted := pgx.Identifier{missing}.Sanitize()
		t.Cleanup(func() {
			pool.Close()
			execSQL(t, admin, "DROP DATABASE IF EXISTS "+quoted)
		})
		sh, errSh := exec.LookPath("sh")
		if createdb := serverProgram("createdb"); createdb != "" && errSh == nil {
			command, _, _ = strings.Cut(command, ": ") // the error that it wraps
			runClient(t, dbURL, sh, "-c", `"$0" `+command, createdb)
		} else {
			t.Log("no createdb on this machine: the database is made without it")
			execSQL(t, admin, "CREATE DATABASE "+quoted)
		}
		store, err := tryStore(pool, nil)
		if err != nil {
			t.Fatalf("got %v, want no error", err)
		}
		checkStoreWorks(t, store)
	})
}

func TestSchemaWarnings(t *testing.T) {
	url := pgtest.URL(t)
	admin := openPool(t, url)
	name, _ := newRole(t, url, admin)
	role := pgx.Identifier{name}.Sanitize()
	newStore(t, admin)
	execSQL(t, admin, "GRANT USAGE ON SCHEMA schema_system TO "+role+"; GRANT ALL ON schema_system.session TO "+role)
	for _, tt := range []struct {
		name   string
		before string
		want   string // in a warning; "" for none
		after  string
	}{
		{name: "UTC", before: "ALTER ROLE %s SET timezone = 'UTC'"},
		{name: "Kolkata", before: "ALTER ROLE %s SET timezone = 'Asia/Kolkata'"},
		{name: "New York", before: "ALTER ROLE %s SET timezone = 'America/New_York'", want: "timeZone=America/New_York"},
		{name: "Dublin, whose winter is the exception", before: "ALTER ROLE %s SET timezone = 'Europe/Dublin'", want: "daylight saving"},
		{name: "Auckland, with timestamptz", before: "ALTER ROLE %s SET timezone = 'Pacific/Auckland'; ALTER TABLE schema_system.session ALTER expire TYPE timestamptz"},
		{name: "no index", before: "ALTER ROLE %s SET timezone = 'UTC'; DROP INDEX schema_system.idx_session_expire", want: "CREATE INDEX CONCURRENTLY"},
		{name: "the index made"},
		{name: "an index that begins with another column", before: "DROP INDEX schema_system.idx_session_expire; CREATE INDEX other ON schema_system.session (sid, expire)", want: "no index on expire"},
		{name: "an index that begins with expire", before: "DROP INDEX schema_system.other; CREATE INDEX other ON schema_system.session (expire, sid)"},
		{name: "unlogged", before: "ALTER TABLE schema_system.session SET UNLOGGED", want: "SET LOGGED"},
		{name: "logged again"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.before != "" {
				execSQL(t, admin, fmt.Sprintf(tt.before+" -- %[1]s", role))
			}
			log := &logRecorder{}
			pool := openPool(t, url, func(cfg *pgxpool.Config) {
				cfg.ConnConfig.User, cfg.ConnConfig.Password = name, "of the role"
			})
			if _, err := tryStore(pool, log); err != nil {
				t.Fatal(err)
			}
			var warnings []string
			for line := range strings.Lines(log.String()) {
				if strings.Contains(line, "level=WARN") {
					warnings = append(warnings, line)
				}
			}
			got := strings.Join(warnings, "")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) || len(warnings) > 1 {
				t.Errorf("warnings: got %q, want one with %q", got, tt.want)
			}
			if _, run, ok := strings.Cut(got, `run="`); ok {
				sql, err := strconv.Unquote(`"` + strings.TrimSuffix(strings.TrimSpace(run), `"`) + `"`)
				if err != nil {
					t.Fatal(err)
				}
				execSQL(t, admin, sql)
			}
		})
	}
}

func TestSchemaNilPool(t *testing.T) {
	if _, err := session.NewPostgresStore(t.Context(), nil, session.PostgresOptions{}); err == nil {
		t.Error("got no error, want one")
	}
}

// The setup ends with its context, also while another program makes the table.
func TestSchemaSetupIsBounded(t *testing.T) {
	url := pgtest.URL(t)
	admin := openPool(t, url)
	release := holdOpen(t, admin, "SELECT pg_advisory_xact_lock(7163384699731669)")
	pool := openPool(t, url, maxConns(1))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := session.NewPostgresStore(ctx, pool, session.PostgresOptions{Logger: slog.New(slog.DiscardHandler)}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want a deadline exceeded", err)
	}
	release()
	checkStoreWorks(t, newStore(t, pool))
}
