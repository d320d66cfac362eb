package session_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/sessiontest"
)

// insertRow stores a record as somebody else would.
func insertRow(t testing.TB, pool *pgxpool.Pool, data string) {
	t.Helper()
	execSQL(t, pool, "INSERT INTO schema_system.session VALUES ($1, $2, now() + interval '1 hour')", rand.Text(), data)
}

// PostgreSQL's ->> fails on a record that has one of these anywhere, and with it
// the whole statement.
func TestFindingPassesOverOddRows(t *testing.T) {
	for _, indexed := range []bool{false, true} {
		t.Run(fmt.Sprintf("indexed %t", indexed), func(t *testing.T) {
			pool := pgtest.Pool(t)
			first := newStore(t, pool)
			odd := []string{
				`{"userId":42,"a":"\u0000"}`, `{"a":"\ud800","userId":"42"}`, `{"a":"\udfff\\u0000","userId":42}`,
				`{"a\u0000":{"b":"\uD800x"},"userId":42}`, `{"a":"\\","userId":42}`, `{"a":"\\\\u0000","userId" : 42 }`,
				`{"a":"\\ud8","userId":42}`, `{"a":"\\\ud800\\u00","userId":42}`, `{"a":"\u2028\u20ac","userId":42}`,
			}
			for _, data := range odd {
				insertRow(t, pool, data)
			}
			for _, data := range []string{`"text"`, `"{\"userId\":42}"`, `[42]`, `42`, `null`, `{}`, `{"userId":null}`, `{"userId":{"a":42}}`, `{"userId":"` + strings.Repeat("42", 3000) + `"}`} {
				insertRow(t, pool, data)
			}
			store := first
			if indexed {
				store = newStore(t, pool, session.PostgresOptions{IndexKeys: []string{"userId"}})
				insertRow(t, pool, odd[0])                // also with the index in place
				insertRow(t, pool, `{"userId":"\u0000"}`) // and in the value itself
			}
			m := patientManager(t, store)
			want := len(odd)
			if indexed {
				want++
			}
			if got := handlesOf(t, m, userIDKey.Is(42)); len(got) != want {
				t.Errorf("Sessions: got %d, want %d", len(got), want)
			}
			before := countRecords(t, pool)
			if n, err := m.Revoke(t.Context(), userIDKey.Is(42)); n != int64(want) || err != nil || countRecords(t, pool) != before-want {
				t.Errorf("Revoke: got %d, %v and %d rows left, want %d and %d", n, err, countRecords(t, pool), want, before-want)
			}
			if got := handlesOf(t, m, session.Everyone()); len(got) != before-want {
				t.Errorf("everyone: got %d, want %d", len(got), before-want)
			}
		})
	}
}

func TestKeysAreQuoted(t *testing.T) {
	pool := pgtest.Pool(t)
	names := []string{`o'hara`, `back\slash`, `a"b`, `%d %[1]s`, `$1`, `ключ`, strings.Repeat("long", 40), `'); DROP TABLE schema_system.session; --`}
	m := patientManager(t, newStore(t, pool, session.PostgresOptions{IndexKeys: names}))
	for _, name := range names {
		key := session.Key[string](name)
		useSession(m, "", func(s *session.Session) { key.Set(s, `it's \ "quoted"`) })
		if got := handlesOf(t, m, key.Is(`it's \ "quoted"`)); len(got) != 1 {
			t.Errorf("key %q: got %d sessions, want 1", name, len(got))
		}
		if got := handlesOf(t, m, key.Is("another")); len(got) != 0 {
			t.Errorf("key %q: got %d sessions of another value, want none", name, len(got))
		}
	}
	if got := queryOne[int](t, pool, "SELECT count(*) FROM pg_index WHERE indrelid = 'schema_system.session'::regclass"); got != len(names)+2 {
		t.Errorf("indexes: got %d, want one for each key and the table's two", got)
	}
}

// One index, whoever starts first; used as soon as it is there, with and
// without statistics.
func TestIndexKeys(t *testing.T) {
	pool := pgtest.Pool(t)
	newStore(t, pool)
	execSQL(t, pool, `INSERT INTO schema_system.session
		SELECT 'user' || n, json_build_object('cookie', json_build_object('originalMaxAge', 60000), 'userId', n, 'pad', repeat('x', 200)), now() + n * interval '1 second'
		FROM generate_series(1, 20000) n`)
	log := &logRecorder{}
	opts := session.PostgresOptions{IndexKeys: []string{"userId"}, Logger: log.logger()}
	together(8, func(int) { newStore(t, pool, opts) })
	if got := strings.Count(log.String(), "session: index made"); got != 1 {
		t.Errorf("programs that made it: got %d of 8, want 1", got)
	}
	if got := queryOne[int](t, pool, "SELECT count(*) FROM pg_index WHERE indrelid = 'schema_system.session'::regclass AND indisvalid"); got != 3 {
		t.Errorf("valid indexes: got %d, want 3", got)
	}
	for _, analyzed := range []bool{false, true} {
		if analyzed {
			execSQL(t, pool, "ANALYZE schema_system.session")
		}
		trace := new(tracer)
		traced := openPool(t, pool.Config().ConnString(), trace.use)
		m := patientManager(t, newStore(t, traced, opts))
		trace.take()
		if got := handlesOf(t, m, userIDKey.Is(777)); len(got) != 1 {
			t.Fatalf("Sessions: got %d, want 1", len(got))
		}
		if n, err := m.Revoke(t.Context(), userIDKey.Is(778)); n > 1 || err != nil {
			t.Fatalf("Revoke: got %d, %v", n, err)
		}
		statements := slices.DeleteFunc(trace.take(), func(sql string) bool { return !strings.Contains(sql, "schema_system") })
		if len(statements) != 2 {
			t.Fatalf("got %d statements, want 2", len(statements))
		}
		for _, sql := range statements {
			plan := planOf(t, pool, sql)
			if !strings.Contains(plan, "idx_session_key_userId") || strings.Contains(plan, "Seq Scan") {
				t.Errorf("analyzed %t: got the plan\n%s\nwant the index", analyzed, plan)
			}
		}
	}
}

func planOf(t *testing.T, pool *pgxpool.Pool, sql string) string {
	t.Helper()
	args := []any{pgx.QueryExecModeExec, []string{"777"}}
	if strings.Contains(sql, "$2") { // how long it may wait for a row
		args = append(args, "1s", "schema_system.session")
	}
	rows, err := pool.Query(t.Context(), "EXPLAIN "+sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func TestIndexKeysWithoutTheRight(t *testing.T) {
	pool := pgtest.Pool(t)
	newStore(t, pool)
	role := "finder_" + strings.ToLower(rand.Text())
	execSQL(t, pool, fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA schema_system TO %[1]s;
		GRANT SELECT, INSERT, UPDATE, DELETE ON schema_system.session TO %[1]s`, role))
	t.Cleanup(func() { execSQL(t, pool, "DROP OWNED BY "+role+"; DROP ROLE "+role) })
	log := &logRecorder{}
	limited := openPool(t, pool.Config().ConnString(), func(cfg *pgxpool.Config) {
		cfg.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
			_, err := c.Exec(ctx, "SET ROLE "+role)
			return err
		}
	})
	m := patientManager(t, newStore(t, limited, session.PostgresOptions{IndexKeys: []string{"userId"}, Logger: log.logger()}))
	_, handle := loginAs(t, m, 1, "a")
	if got := handlesOf(t, m, userIDKey.Is(1)); !slices.Equal(got, []string{handle}) {
		t.Errorf("Sessions without the index: got %d, want 1", len(got))
	}
	run := regexp.MustCompile(`run="(CREATE INDEX CONCURRENTLY [^\n]*)"\n`).FindStringSubmatch(log.String())
	if run == nil {
		t.Fatal("got no warning with a statement to run")
	}
	execSQL(t, pool, strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(run[1])) // as a person would copy it
	log = &logRecorder{}
	newStore(t, limited, session.PostgresOptions{IndexKeys: []string{"userId"}, Logger: log.logger()})
	if strings.Contains(log.String(), "WARN") {
		t.Errorf("after its owner ran the statement: got\n%s\nwant no warning", log)
	}
	execSQL(t, pool, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'schema_system.\"idx_session_key_userId\"'::regclass")
	newStore(t, pool, session.PostgresOptions{IndexKeys: []string{"userId"}, Logger: log.logger()})
	if !strings.Contains(log.String(), "an index is not valid") {
		t.Errorf("a broken index: got\n%s\nwant a warning", log)
	}
}

// Values and neighbours with backslashes that look like escapes.
func TestFindingByOddValues(t *testing.T) {
	pool := pgtest.Pool(t)
	m := patientManager(t, newStore(t, pool, session.PostgresOptions{IndexKeys: []string{"tenant"}}))
	values := []string{`CORP\udaya`, `a\u0000b`, `\ud8`, `\\u0000`, "é", "\u20ac", "😀", `"quoted"`, "", " ", "victim x"}
	for _, v := range values {
		useSession(m, "", func(s *session.Session) { tenantKey.Set(s, v) })
	}
	useSession(m, "", func(s *session.Session) { tenantKey.Set(s, "victim\x00x") }) // is not "victim x"
	for i, v := range values {
		if n, err := m.Revoke(t.Context(), tenantKey.Is(v)); n != 1 || err != nil {
			t.Errorf("value %d: got %d, %v, want 1, no error", i, n, err)
		}
	}
	if got := countRecords(t, pool); got != 1 {
		t.Errorf("rows: got %d, want that with NUL", got)
	}
}

// A database of another encoding lacks characters that a record may name.
func TestFindingInLatin1(t *testing.T) {
	admin := pgtest.Pool(t)
	name := "latin1_" + strings.ToLower(rand.Text())
	execSQL(t, admin, "CREATE DATABASE "+name+" ENCODING LATIN1 LOCALE 'C' TEMPLATE template0")
	t.Cleanup(func() { execSQL(t, admin, "DROP DATABASE "+name+" WITH (FORCE)") })
	cfg := admin.Config().Copy()
	cfg.ConnConfig.Database = name
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	m := patientManager(t, newStore(t, pool, session.PostgresOptions{IndexKeys: []string{"userId"}}))
	insertRow(t, pool, `{"userId":1,"a":"\u2028\u20ac"}`)
	insertRow(t, pool, `{"userId":2}`)
	for user := range 3 {
		if got := len(handlesOf(t, m, userIDKey.Is(user))); got != min(user, 1) {
			t.Errorf("user %d: got %d sessions, want %d", user, got, min(user, 1))
		}
	}
}

// A database that holds any bytes: one record that is no text fails no list.
func TestFindingInSQLASCII(t *testing.T) {
	admin := pgtest.Pool(t)
	name := "ascii_" + strings.ToLower(rand.Text())
	execSQL(t, admin, "CREATE DATABASE "+name+" ENCODING SQL_ASCII LOCALE 'C' TEMPLATE template0")
	t.Cleanup(func() { execSQL(t, admin, "DROP DATABASE "+name+" WITH (FORCE)") })
	pool := openPool(t, admin.Config().ConnString(), func(cfg *pgxpool.Config) {
		cfg.ConnConfig.Database, cfg.ConnConfig.RuntimeParams["client_encoding"] = name, "UTF8"
	})
	log := &logRecorder{}
	m := patientManager(t, newStore(t, pool), func(cfg *session.Config) { cfg.UserKey, cfg.MaxPerUser, cfg.Logger = "userId", 5, log.logger() })
	loginAs(t, m, 1, "a")
	execSQL(t, pool, `INSERT INTO schema_system.session VALUES
		('odd', convert_from(decode('7b22757365724964223a312c2261223a22e922', 'hex') || '}', 'SQL_ASCII')::json, now() + interval '1 hour'),
		(convert_from('\xe9', 'SQL_ASCII'), '{"cookie":{},"userId":1}', now() + interval '1 hour')`)
	var handles []string
	for _, f := range []session.Filter{userIDKey.Is(1), session.Everyone()} {
		if handles = handlesOf(t, m, f); len(handles) != 3 {
			t.Errorf("got %d sessions, want 3", len(handles))
		}
	}
	for _, h := range handles {
		if got := handlesOf(t, m, session.Everyone().Handle(h)); len(got) != 1 {
			t.Errorf("by handle: got %d sessions, want 1", len(got))
		}
	}
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT FROM schema_system.session WHERE sid = 'odd' FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	odd := fmt.Sprintf("%x", sha256.Sum256([]byte("pgsession handle v1:odd")))[:32]
	time.AfterFunc(time.Second, func() { _ = tx.Rollback(context.Background()) })
	if n, err := m.Revoke(t.Context(), session.Everyone().Handle(odd)); n != 1 || err != nil { // it waits for no lock at last
		t.Errorf("Revoke of a locked row by handle: got %d, %v, want 1", n, err)
	}
	loginAs(t, m, 1, "b") // the limit reads them all
	if strings.Contains(log.String(), "could not be destroyed") {
		t.Error("MaxPerUser: got an error in the log, want none")
	}
	if n, err := m.Revoke(t.Context(), userIDKey.Is(1)); n != 3 || err != nil {
		t.Errorf("Revoke: got %d, %v, want 3", n, err)
	}
}

// A handle is of the ID's UTF-8, as the program has it, whatever the database's bytes.
func TestHandleInLatin1(t *testing.T) {
	admin := pgtest.Pool(t)
	name := "latin1_" + strings.ToLower(rand.Text())
	execSQL(t, admin, "CREATE DATABASE "+name+" ENCODING LATIN1 LOCALE 'C' TEMPLATE template0")
	t.Cleanup(func() { execSQL(t, admin, "DROP DATABASE "+name+" WITH (FORCE)") })
	pool := openPool(t, admin.Config().ConnString(), func(cfg *pgxpool.Config) {
		cfg.ConnConfig.Database, cfg.ConnConfig.RuntimeParams["client_encoding"] = name, "UTF8"
	})
	m := patientManager(t, newStore(t, pool))
	execSQL(t, pool, `INSERT INTO schema_system.session VALUES (E'\u00e9\\\\x', '{"cookie":{},"userId":1}', now() + interval '1 hour')`)
	handles := handlesOf(t, m, userIDKey.Is(1))
	if len(handles) != 1 {
		t.Fatalf("got %d sessions, want 1", len(handles))
	}
	if n, err := m.Revoke(t.Context(), session.Everyone().Handle(handles[0])); n != 1 || err != nil {
		t.Errorf("Revoke by handle: got %d, %v, want 1", n, err)
	}
}

// Settings under which CREATE INDEX CONCURRENTLY would wait for our own
// transaction, or cannot work at all: the store works without the index then.
func TestIndexKeysUnderOddSettings(t *testing.T) {
	for _, tc := range []struct {
		name, value string
		made        bool
	}{
		{"default_transaction_isolation", "serializable", true},
		{"default_transaction_isolation", "repeatable read", true},
		{"standard_conforming_strings", "off", true},
		{"default_transaction_read_only", "on", false},
	} {
		t.Run(tc.name+" "+tc.value, func(t *testing.T) {
			url := pgtest.URL(t)
			newStore(t, openPool(t, url))
			log := &logRecorder{}
			pool := openPool(t, url, func(cfg *pgxpool.Config) { cfg.ConnConfig.RuntimeParams[tc.name] = tc.value })
			m := patientManager(t, newStore(t, pool, session.PostgresOptions{IndexKeys: []string{"userId"}, Logger: log.logger()}))
			if made := strings.Contains(log.String(), "session: index made"); made != tc.made || strings.Contains(log.String(), "could not be made") == made {
				t.Errorf("made: got %t, want %t, or a warning", made, tc.made)
			}
			if got := handlesOf(t, m, userIDKey.Is(1)); len(got) != 0 {
				t.Errorf("Sessions: got %d, want none", len(got))
			}
		})
	}
}

func TestIndexKeysOfOtherTables(t *testing.T) {
	for _, c := range []struct{ name, sql string }{
		{"partitioned", `CREATE SCHEMA schema_system; CREATE TABLE schema_system.session (sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL) PARTITION BY HASH (sid);
			CREATE TABLE schema_system.p0 PARTITION OF schema_system.session FOR VALUES WITH (MODULUS 2, REMAINDER 0);
			CREATE TABLE schema_system.p1 PARTITION OF schema_system.session FOR VALUES WITH (MODULUS 2, REMAINDER 1)`},
		{"jsonb", `CREATE SCHEMA schema_system; CREATE TABLE schema_system.session (sid text PRIMARY KEY, sess jsonb NOT NULL, expire timestamptz NOT NULL)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			pool := pgtest.Pool(t)
			execSQL(t, pool, c.sql)
			m := patientManager(t, newStore(t, pool, session.PostgresOptions{IndexKeys: []string{"userId"}}))
			_, a := loginAs(t, m, 1, "a")
			_, b := loginAs(t, m, 1, "b")
			loginAs(t, m, 2, "c")
			if got := handlesOf(t, m, userIDKey.Is(1)); !slices.Equal(got, sorted(a, b)) {
				t.Errorf("Sessions: got %d, want exactly the user's 2", len(got))
			}
			if n, err := m.Revoke(t.Context(), userIDKey.Is(1)); n != 2 || err != nil {
				t.Errorf("Revoke: got %d, %v, want 2, no error", n, err)
			}
		})
	}
}

func TestIndexKeysRefusals(t *testing.T) {
	pool := pgtest.Pool(t)
	for _, key := range []string{"", "cookie", "__created", "__find_userId", "\xff", "a\x00b"} {
		if _, err := session.NewPostgresStore(t.Context(), pool, session.PostgresOptions{IndexKeys: []string{key}}); err == nil || !strings.Contains(err.Error(), "IndexKeys") {
			t.Errorf("%q: got %v, want an error that names IndexKeys", key, err)
		}
	}
}

func TestPostgresStoreWithHashedIDs(t *testing.T) {
	t.Parallel()
	for _, sharing := range []bool{true, false} {
		t.Run(fmt.Sprintf("sharing %t", sharing), func(t *testing.T) {
			store := newStore(t, pgtest.Pool(t), session.PostgresOptions{HashIDs: true, DisableBatching: !sharing})
			sessiontest.TestStore(t, func(*testing.T) session.Store { return store })
		})
	}
}

// Whoever reads the table, and knows the secret, cannot be anybody in it.
func TestHashedIDs(t *testing.T) {
	pool := pgtest.Pool(t)
	m := patientManager(t, newStore(t, pool, session.PostgresOptions{HashIDs: true}))
	cookie, _ := loginAs(t, m, 1, "a")
	var id string
	useSession(m, cookie, func(s *session.Session) {
		id = s.ID()
		s.Renew()
		if err := s.Save(t.Context()); err != nil {
			t.Errorf("Renew: got %v, want no error", err)
		}
		if s.ID() == id {
			t.Error("Renew: got the same ID, want another")
		}
		id = s.ID()
	})
	stored := queryOne[string](t, pool, "SELECT sid FROM schema_system.session")
	if stored == id || strings.Contains(stored, id) || len(stored) != 43 {
		t.Fatal("the table holds the session ID, want its hash")
	}
	if queryOne[bool](t, pool, "SELECT EXISTS (SELECT FROM schema_system.session s WHERE s::text LIKE '%' || $1 || '%')", id) {
		t.Error("the row holds the session ID somewhere")
	}
	for _, stolen := range []string{stored, stored[:32], "x" + stored[:31]} {
		if value, err := m.SignCookie(stolen); err == nil {
			if user := userIn(m, "session="+value); user != 0 {
				t.Errorf("a cookie made from the table: got user %d, want nobody", user)
			}
		}
	}
	_, err := session.New(newStore(t, pool, session.PostgresOptions{HashIDs: true}), session.Config{
		Secret: postgresSecret, Cookie: session.CookieConfig{Format: session.FormatExpress}, Logger: slog.New(slog.DiscardHandler),
	})
	if err == nil || !strings.Contains(err.Error(), "HashIDs") {
		t.Errorf("with the Express format: got %v, want an error that names HashIDs", err)
	}
}

// The statement in the documents keeps everybody logged in, also run twice.
func TestConversionToHashedIDs(t *testing.T) {
	page, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	sql := regexp.MustCompile("(?s)```sql\n(UPDATE schema_system.session SET sid =.*?)```").FindSubmatch(page)
	if sql == nil {
		t.Fatal("docs/operations.md has no statement that converts the rows")
	}
	for _, encrypt := range []bool{false, true} {
		pool := pgtest.Pool(t)
		encrypted := func(cfg *session.Config) { cfg.Encrypt = encrypt }
		cookie, _ := loginAs(t, patientManager(t, newStore(t, pool), encrypted), 1, "a")
		for range 2 {
			execSQL(t, pool, string(sql[1]))
		}
		hashed := patientManager(t, newStore(t, pool, session.PostgresOptions{HashIDs: true}), encrypted)
		if user := userIn(hashed, cookie); user != 1 {
			t.Errorf("encrypted %t: got user %d, want 1", encrypt, user)
		}
	}
}

// The table says which sessions have the same user, and not who that is.
func TestEncryptedSessionsAreFoundByAHash(t *testing.T) {
	pool := pgtest.Pool(t)
	store := newStore(t, pool, session.PostgresOptions{IndexKeys: []string{"userId"}})
	user := session.Key[string]("userId")
	with := func(secret string, old ...string) *session.Manager {
		return newManager(t, store, session.Config{Secret: secret, OldSecrets: old, Encrypt: true, UserKey: "userId", DisablePrune: true})
	}
	m := with(testSecretOld)
	const name = "ada@example.com"
	cookie := useSession(m, "", func(s *session.Session) { user.Set(s, name) }).newCookie()
	plain := patientManager(t, store) // before Encrypt was set
	useSession(plain, "", func(s *session.Session) { user.Set(s, name) })

	const hash = "SELECT sess->>'__find_userId' FROM schema_system.session WHERE sess->>'__sealed' IS NOT NULL"
	first := queryOne[string](t, pool, hash)
	if b, err := base64.RawURLEncoding.DecodeString(first); err != nil || len(b) != 16 {
		t.Errorf("the hash: got %d bytes, %v, want 16", len(b), err)
	}
	if n := queryOne[int](t, pool, "SELECT count(*) FROM schema_system.session WHERE sess::text LIKE '%ada@%' AND sess->>'__sealed' IS NOT NULL"); n != 0 {
		t.Error("an encrypted record shows the value")
	}
	rotated := with(testSecret, testSecretOld)
	if got := handlesOf(t, rotated, user.Is(name)); len(got) != 2 {
		t.Errorf("under an old secret and in plain: got %d sessions, want 2", len(got))
	}
	useSession(rotated, cookie, func(s *session.Session) {
		if keys := s.Keys(); !slices.Equal(keys, []string{"userId"}) {
			t.Errorf("Keys: got %v, want userId alone", keys)
		}
		deviceKey.Set(s, "sealed anew")
	})
	if again := queryOne[string](t, pool, hash); again == first {
		t.Error("saved under the new secret: got the old hash, want another")
	}
	useSession(rotated, cookie, user.Delete)
	if n := queryOne[int](t, pool, "SELECT count(*) FROM schema_system.session WHERE sess->>'__find_userId' IS NOT NULL"); n != 0 {
		t.Error("the user deleted, which ends the session: got the hash still, want none")
	}
	if got := handlesOf(t, rotated, user.Is(name)); len(got) != 1 {
		t.Errorf("the user deleted: got %d sessions, want the other one", len(got))
	}
	var wg sync.WaitGroup
	for range 4 { // logins at once
		wg.Go(func() { useSession(rotated, "", func(s *session.Session) { user.Set(s, name) }) })
	}
	wg.Wait()
	if n, err := rotated.Revoke(t.Context(), user.Is(name)); n != 5 || err != nil {
		t.Errorf("Revoke: got %d, %v, want 5, no error", n, err)
	}
}

// A plan that was made while the table had a page reads all of it. It does not
// outlive the page, however often the statement ran.
func TestFindingAndPruningForgetPlansOfASmallTable(t *testing.T) {
	url := pgtest.URL(t)
	admin := openPool(t, url)
	pool := openPool(t, url, maxConns(1))
	m := patientManager(t, newStore(t, pool, session.PostgresOptions{IndexKeys: []string{"userId"}}), func(cfg *session.Config) {
		cfg.UserKey, cfg.MaxPerUser = "userId", 1
	})
	execSQL(t, admin, "INSERT INTO schema_system.session SELECT 'few' || n, '{}', now() + interval '1 hour' FROM generate_series(1, 10) n; ANALYZE schema_system.session")
	all := func() {
		t.Helper()
		loginAs(t, m, 1, "a")
		handlesOf(t, m, userIDKey.Is(2))
		if _, err := m.Revoke(t.Context(), userIDKey.Is(3)); err != nil {
			t.Error(err)
		}
		if _, err := m.Prune(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for range 12 { // PostgreSQL has made up its mind after five
		all()
	}
	execSQL(t, admin, `INSERT INTO schema_system.session SELECT 'many' || n, json_build_object('userId', 10 + n, 'pad', repeat('x', 300)), now() + n * interval '1 second' FROM generate_series(1, 20000) n`)
	const scans = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'session'"
	awaitSQL(t, admin, "the table is counted", "SELECT n_tup_ins >= 20000 FROM pg_stat_user_tables WHERE relname = 'session'")
	before := queryOne[int](t, admin, scans)
	all()
	pids := backendPIDs(t, pool)
	pool.Reset() // a server process reports its counts when it ends
	awaitSQL(t, admin, "the connection has ended", "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = ANY($1::int[]))", pids)
	execSQL(t, admin, "SELECT pg_stat_clear_snapshot()")
	if read := queryOne[int](t, admin, scans) - before; read >= 20_000 {
		t.Errorf("rows read by scans of the whole table: got %d, want none of the 20,000", read)
	}
}
