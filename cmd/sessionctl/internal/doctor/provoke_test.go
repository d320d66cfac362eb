package doctor_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/cmd/sessionctl/internal/doctor"
	"github.com/pgsession/session/internal/pgtest"
)

// Each is caused, found, and gone once the SQL that it came with has been run.
func TestFindingsWithSQLThatMends(t *testing.T) {
	const insert = "INSERT INTO schema_system.session SELECT md5(n::text), %s, now() + interval '1 hour' FROM generate_series(1, %d) n; "
	for _, tt := range []struct {
		check string
		cause string
		level doctor.Level
		words []string
	}{
		{"table", "ALTER TABLE schema_system.session ALTER COLUMN sid TYPE varchar(8)", doctor.Error, []string{"varchar or text of 32", "ALTER TABLE"}},
		{"table", "ALTER TABLE schema_system.session DROP CONSTRAINT session_pkey", doctor.Error, []string{"no primary key on sid", "ADD PRIMARY KEY (sid)"}},
		{"table", "ALTER TABLE schema_system.session DROP COLUMN expire", doctor.Error, []string{"no column expire", "ADD COLUMN expire"}},
		{"table", "ALTER TABLE schema_system.session ADD COLUMN tenant int NOT NULL", doctor.Error, []string{"other columns that must have a value", `ALTER COLUMN "tenant" DROP NOT NULL`}},
		{"expire-index", "DROP INDEX schema_system.idx_session_expire", doctor.Warning, []string{"CREATE INDEX CONCURRENTLY"}},
		{"logged", "ALTER TABLE schema_system.session SET UNLOGGED", doctor.Warning, []string{"SET LOGGED"}},
		{"fillfactor", "ALTER TABLE schema_system.session RESET (fillfactor)", doctor.Hint, []string{"fillfactor = 70"}},
		{"autovacuum", "ALTER TABLE schema_system.session SET (autovacuum_enabled = false)", doctor.Warning, []string{"RESET (autovacuum_enabled)"}},
		{"rows", fmt.Sprintf(insert, `'"text"'`, 2) + fmt.Sprintf(strings.Replace(insert, "md5(", "md5('x' || ", 1), "'{}'", 3), doctor.Warning, []string{"2 rows are no JSON object", "DELETE FROM"}},
		{"bloat", fmt.Sprintf(insert, "'{}'", 200_000) + "DELETE FROM schema_system.session", doctor.Hint, []string{"session_pkey", "REINDEX INDEX CONCURRENTLY"}},
	} {
		t.Run(tt.check+" "+tt.words[0], func(t *testing.T) {
			p := healthy(t)
			p.exec(tt.cause)
			want(t, p.examine(), tt.check, tt.level, tt.words...)
			p.mend(tt.check)
		})
	}
}

// How much room is enough depends on what a row takes: at 90 a page has 816 bytes.
func TestFillfactorAndRows(t *testing.T) {
	insert := "INSERT INTO schema_system.session SELECT md5(n::text), to_json(repeat(md5(n::text), %d)), now() + interval '1 hour' FROM generate_series(1, 10) n"
	for _, tt := range []struct {
		name   string
		factor int
		hashes int // of 32 bytes, in a row
		level  doctor.Level
		words  []string
	}{
		{"small rows", 90, 8, doctor.OK, []string{"room for updates"}},
		{"rows of 1 KB", 90, 32, doctor.Hint, []string{"filled to 90%", "about 11", "fillfactor = 70"}},
		{"rows of 1 KB, and our own fillfactor", 70, 32, doctor.OK, []string{"room for updates"}},
		{"rows of 1.9 KB, and our own fillfactor", 70, 58, doctor.OK, []string{"room for updates"}},
		{"small rows, no room", 100, 8, doctor.Hint, []string{"filled to 100%"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := healthy(t)
			p.exec(fmt.Sprintf("ALTER TABLE schema_system.session SET (fillfactor = %d)", tt.factor))
			p.exec(fmt.Sprintf(insert, tt.hashes))
			want(t, p.examine(), "fillfactor", tt.level, tt.words...)
			if tt.level == doctor.Hint {
				p.mend("fillfactor")
			}
		})
	}
}

// Data that is stored out of line leaves small rows behind.
func TestFillfactorOutOfLine(t *testing.T) {
	p := healthy(t)
	p.exec(`ALTER TABLE schema_system.session SET (fillfactor = 90);
		ALTER TABLE schema_system.session ALTER COLUMN sess SET STORAGE EXTERNAL;
		INSERT INTO schema_system.session SELECT md5(n::text), to_json(repeat(md5(n::text), 100)), now() + interval '1 hour' FROM generate_series(1, 10) n`)
	want(t, p.examine(), "fillfactor", doctor.OK, "room for updates")
}

// Servers before 14, and some that are built without it, have no lz4.
func TestCompression(t *testing.T) {
	p := healthy(t)
	var lz4 bool
	if err := p.pool.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals))").Scan(&lz4); err != nil {
		t.Fatal(err)
	}
	want(t, p.examine(), "compression", doctor.OK)
	if lz4 {
		p.exec("ALTER TABLE schema_system.session ALTER COLUMN sess SET COMPRESSION pglz")
		want(t, p.examine(), "compression", doctor.Hint, "lz4")
		p.mend("compression")
		want(t, p.examine(), "compression", doctor.OK)
	}
}

// Settings of the role or of the database.
func TestFindingsInSettings(t *testing.T) {
	for _, tt := range []struct {
		check, name, value string
		level              doctor.Level
		words              []string
	}{
		{"primary", "default_transaction_read_only", "on", doctor.Error, []string{"read-only"}},
		{"durability", "synchronous_commit", "off", doctor.Hint, []string{"undo the last moments"}},
		{"daylight-saving", "timezone", "Europe/Berlin", doctor.Warning, []string{"an hour a year"}},
	} {
		t.Run(tt.check, func(t *testing.T) {
			p := healthy(t)
			p.exec(fmt.Sprintf("ALTER DATABASE %s SET %s = '%s'", p.Program.ConnConfig.Database, tt.name, tt.value))
			p.pool.Reset()
			want(t, p.examine(), tt.check, tt.level, tt.words...)
		})
	}
}

func TestNoTable(t *testing.T) {
	p := bare(t, pgtest.URL(t))
	r := p.examine()
	want(t, r, "table", doctor.Error, "no table schema_system.session", "sessionctl schema --apply")
	p.makeTable()
	p.Table = "sessions"
	want(t, p.examine(), "table", doctor.Error, "no table schema_system.sessions")
}

func TestPrivileges(t *testing.T) {
	p := healthy(t)
	p.exec(`CREATE ROLE reader LOGIN PASSWORD 'reader'; GRANT USAGE ON SCHEMA schema_system TO reader; GRANT SELECT ON schema_system.session TO reader`)
	t.Cleanup(func() { p.exec("DROP OWNED BY reader; DROP ROLE reader") })
	p.Program.ConnConfig.User, p.Program.ConnConfig.Password = "reader", "reader"
	want(t, p.examine(), "table", doctor.Error, `user "reader" lacks a privilege`, "GRANT SELECT, INSERT, UPDATE, DELETE")
	p.mend("table")

	p.exec("ALTER TABLE schema_system.session ENABLE ROW LEVEL SECURITY")
	cfg := p.pool.Config()
	cfg.ConnConfig.User, cfg.ConnConfig.Password = "reader", "reader"
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	p.Pool = pool
	want(t, p.examine(), "row-security", doctor.Error, `CREATE POLICY session_store ON "schema_system"."session" TO "reader"`)
	p.mend("row-security")
}

func TestIndexes(t *testing.T) {
	p := healthy(t)
	p.IndexKeys = []string{"userId", `o'dd " ON`}
	r := p.examine()
	want(t, r, "indexes", doctor.Warning, `"userId" has no index`, "sessionctl schema --apply --index-key userId")
	want(t, r, "indexes", doctor.Warning, "o'dd")
	_, err := session.NewPostgresStore(t.Context(), p.pool, session.PostgresOptions{IndexKeys: p.IndexKeys, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if r := p.examine(); r.Level != doctor.OK {
		t.Errorf("with the indexes: got %+v, want ok", r)
	}
	// As CREATE INDEX CONCURRENTLY leaves it when it is cut off.
	p.exec("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'schema_system.\"idx_session_key_userId\"'::regclass")
	want(t, p.examine(), "indexes", doctor.Warning, "idx_session_key_userId is not valid", "REINDEX INDEX CONCURRENTLY")
	p.mend("indexes")
}

func TestTimeZones(t *testing.T) {
	for _, tt := range []struct {
		name, parameter, value string
		level                  doctor.Level
	}{
		{"of its own", "timezone", "Asia/Kolkata", doctor.Error},
		{"of its own, in options", "options", "-cTimeZone=Asia/Kolkata", doctor.Error},
		{"the same by another name", "timezone", "Etc/Universal", doctor.OK},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := healthy(t)
			p.with(tt.parameter, tt.value)
			want(t, p.examine(), "timezone", tt.level)
			p.exec("ALTER TABLE schema_system.session ALTER COLUMN expire TYPE timestamptz")
			want(t, p.examine(), "timezone", doctor.OK)
		})
	}
	t.Run("from PGTZ", func(t *testing.T) {
		p := healthy(t)
		t.Setenv("PGTZ", "Asia/Kolkata")
		p.with("application_name", "x") // reads the environment again
		want(t, p.examine(), "timezone", doctor.Error, "Asia/Kolkata", "UTC", "PGTZ")
	})
}

func TestClock(t *testing.T) {
	p := healthy(t)
	for _, tt := range []struct {
		skew  time.Duration
		level doctor.Level
		words string
	}{
		{time.Second, doctor.OK, ""},
		{20 * time.Second, doctor.Hint, "ahead of"},
		{-2 * time.Minute, doctor.Warning, "behind"},
	} {
		p.Now = func() time.Time { return time.Now().Add(tt.skew) }
		want(t, p.examine(), "clock", tt.level, tt.words)
	}
}

func TestExpiredRows(t *testing.T) {
	const insert = "INSERT INTO schema_system.session SELECT md5(random()::text || n), '{\"cookie\":{}}', now() - interval '%s' FROM generate_series(1, %d) n"
	p := healthy(t)
	p.exec(fmt.Sprintf(insert, "50 minutes", 500))
	want(t, p.examine(), "expired", doctor.OK, "500 expired rows")
	p.exec(fmt.Sprintf(insert, "2 hours", 5))
	want(t, p.examine(), "expired", doctor.Hint, "5 rows expired over an hour ago, the oldest 2h0m0s ago", "sessionctl prune")
	p.exec(fmt.Sprintf(insert, "2 hours", 100))
	want(t, p.examine(), "expired", doctor.Warning, "105 rows")
	p.exec("DELETE FROM schema_system.session")
	p.exec(fmt.Sprintf(insert, "2 days", 1))
	want(t, p.examine(), "expired", doctor.Warning, "1 rows", "48h0m0s")
}

func TestRows(t *testing.T) {
	const insert = "INSERT INTO schema_system.session SELECT md5(random()::text || n), %s, now() + interval '1 hour' FROM generate_series(1, %d) n"
	for _, tt := range []struct {
		name, data string
		level      doctor.Level
		words      string
	}{
		{"of Express and ours", `'{"cookie":{"originalMaxAge":null},"a":"\u0000 \ud800"}'`, doctor.OK, "all readable"},
		{"an object in a string", `'"{\"cookie\":{}}"'`, doctor.OK, "all readable"},
		{"marks of renewed IDs", `('"0e' || repeat('065', 32) || '"')::json`, doctor.OK, "all readable"},
		{"an array", `'["cookie"]'`, doctor.Warning, "3 rows are no JSON object"},
		{"no cookie", `'{"userId":1}'`, doctor.Hint, "3 rows have no cookie object"},
		{"large", `json_build_object('cookie', (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 4000)))`, doctor.Hint, "3 rows have over 64 KiB"},
		{"over 2 KB", `json_build_object('cookie', (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 100)))`, doctor.Hint, "bytes of data on average"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := healthy(t)
			p.exec(fmt.Sprintf(insert, tt.data, 3))
			want(t, p.examine(), "rows", tt.level, tt.words)
		})
	}
}

// The SQL that deletes what cannot be read leaves marks of renewed IDs alone.
func TestRowsMendedBesideMarks(t *testing.T) {
	p := healthy(t)
	p.exec(`INSERT INTO schema_system.session VALUES ('a', '"0e066"', now() + interval '15 minutes'), ('b', '"text"', now() + interval '1 hour'), ('c', '5', now() + interval '1 hour')`)
	want(t, p.examine(), "rows", doctor.Warning, "2 rows are no JSON object")
	p.mend("rows")
	var left string
	if err := p.pool.QueryRow(t.Context(), "SELECT string_agg(sid, ' ') FROM schema_system.session").Scan(&left); err != nil || left != "a" {
		t.Errorf("rows left: got %q, %v, want the mark alone", left, err)
	}
}

// login makes encrypted sessions.
func (p *patient) login(secret string, n int) {
	p.t.Helper()
	store, err := session.NewPostgresStore(p.t.Context(), p.pool, session.PostgresOptions{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		p.t.Fatal(err)
	}
	m, err := session.New(store, session.Config{Secret: secret, Encrypt: true, DisablePrune: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		p.t.Fatal(err)
	}
	h := m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		session.Key[int]("userId").Set(session.From(r.Context()), 42)
	}))
	for range n {
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil)); w.Code != http.StatusOK {
			p.t.Fatalf("login: got status %d, want 200", w.Code)
		}
	}
}

func TestEncryptedRows(t *testing.T) {
	old, lost := strings.ToLower(goodSecret), strings.ToUpper(goodSecret)
	p := healthy(t)
	p.login(goodSecret, 2)
	want(t, p.examine(), "encryption", doctor.OK, "2 live sessions")
	p.Secret = ""
	want(t, p.examine(), "encryption", doctor.Hint, "not checked")
	p.Secret, p.OldSecrets = goodSecret, []string{old}
	p.login(old, 3)
	want(t, p.examine(), "encryption", doctor.Hint, "3 live sessions", "sessionctl rotate")
	p.login(lost, 1)
	want(t, p.examine(), "encryption", doctor.Error, "1 live sessions", "503")
	p.HashIDs = true
	want(t, p.examine(), "encryption", doctor.OK)
}

// Dead rows, a share of heap-only updates, and an open transaction that keeps
// the dead ones from being removed.
func TestVacuum(t *testing.T) {
	p := healthy(t)
	p.exec(`ALTER TABLE schema_system.session SET (autovacuum_enabled = false);
		CREATE INDEX by_user ON schema_system.session ((sess->>'userId'));
		INSERT INTO schema_system.session SELECT md5(n::text), '{"cookie":{},"userId":1}', now() + interval '1 hour' FROM generate_series(1, 6000) n`)
	open := p.connect()
	defer open.Close(context.Background())
	if _, err := open.Exec(t.Context(), "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM schema_system.session"); err != nil {
		t.Fatal(err)
	}
	want(t, p.examine(), "held-back", doctor.OK)
	defer doctor.SetLongTransaction(0)()
	p.exec(`UPDATE schema_system.session SET sess = '{"cookie":{},"userId":2}'; UPDATE schema_system.session SET sess = '{"cookie":{},"userId":3}'`)
	p.await("the updates are counted", "SELECT n_dead_tup >= 12000 AND n_tup_upd >= 12000 FROM pg_stat_user_tables WHERE relname = 'session'")
	r := p.examine()
	want(t, r, "dead-rows", doctor.Warning, "12000 dead row versions beside 6000 rows", "VACUUM")
	want(t, r, "heap-only", doctor.Hint, "0% of 12000 updates", "fillfactor 70")
	want(t, r, "held-back", doctor.Warning, fmt.Sprintf("process %d ", open.PgConn().PID()), "pg_terminate_backend")
	if err := open.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.await("the transaction has ended", "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid()")
	p.exec("VACUUM (VERBOSE, ANALYZE) schema_system.session") // as the finding says
	p.await("vacuum is counted", "SELECT n_dead_tup = 0 FROM pg_stat_user_tables WHERE relname = 'session'")
	want(t, p.examine(), "dead-rows", doctor.OK, "0 dead row versions")
}

func TestALargeTableWithLazyAutovacuum(t *testing.T) {
	p := healthy(t)
	p.exec(`INSERT INTO schema_system.session SELECT md5(n::text), '{"cookie":{}}', now() + interval '1 hour' FROM generate_series(1, 100000) n`)
	want(t, p.examine(), "autovacuum", doctor.Hint, "20% of 100000 rows", "autovacuum_vacuum_scale_factor = 0.02")
	p.mend("autovacuum")
	want(t, p.examine(), "autovacuum", doctor.OK)
}

func TestAPartitionedTable(t *testing.T) {
	p := bare(t, pgtest.URL(t))
	p.exec(`CREATE SCHEMA schema_system;
		CREATE TABLE schema_system.session (sid varchar NOT NULL PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL) PARTITION BY HASH (sid);
		CREATE TABLE schema_system.p0 PARTITION OF schema_system.session FOR VALUES WITH (MODULUS 2, REMAINDER 0) WITH (fillfactor = 90);
		CREATE TABLE schema_system.p1 PARTITION OF schema_system.session FOR VALUES WITH (MODULUS 2, REMAINDER 1);
		CREATE INDEX ON schema_system.session (expire)`)
	p.exec("ALTER TABLE schema_system.p1 SET (autovacuum_enabled = false)")
	r := p.examine()
	want(t, r, "fillfactor", doctor.Hint, "ALTER TABLE schema_system.p1")
	want(t, r, "autovacuum", doctor.Warning, "ALTER TABLE schema_system.p1")
	want(t, r, "indexes", doctor.OK, "6 valid")
	for _, f := range r.Findings {
		if strings.Contains(strings.Join(f.SQL, " "), "p0 SET (fillfactor") {
			t.Error("fillfactor: got advice for a partition that has it")
		}
	}
}
