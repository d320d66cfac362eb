package doctor_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/cmd/sessionctl/internal/doctor"
)

// as lets the program and the examination log in as a role that owns nothing and
// may use the table.
func (p *patient) as(role string) {
	p.t.Helper()
	p.exec(fmt.Sprintf("CREATE ROLE %[1]s LOGIN PASSWORD '%[1]s'; GRANT USAGE ON SCHEMA schema_system TO %[1]s; GRANT SELECT, INSERT, UPDATE, DELETE ON schema_system.session TO %[1]s", role))
	p.t.Cleanup(func() { p.exec(fmt.Sprintf("DROP OWNED BY %[1]s; DROP ROLE %[1]s", role)) })
	u, err := url.Parse(p.url)
	if err != nil {
		p.t.Fatal("the URL cannot be parsed")
	}
	u.User = url.UserPassword(role, role)
	if p.Program, err = pgxpool.ParseConfig(u.String()); err != nil {
		p.t.Fatal("the URL cannot be parsed")
	}
	p.Pool = p.open(u.String())
}

// What keeps a logout from deleting its row, or a save from being one.
func TestWhatStandsBeforeTheRows(t *testing.T) {
	const trigger = "CREATE FUNCTION schema_system.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TRIGGER keep BEFORE DELETE ON schema_system.session FOR EACH ROW EXECUTE FUNCTION schema_system.keep()"
	for _, tt := range []struct {
		check, cause string
		level        doctor.Level
		words        []string
		mends        bool // with SQL
	}{
		{"row-security", "ALTER TABLE schema_system.session ENABLE ROW LEVEL SECURITY", doctor.Error, []string{"no policy", "CREATE POLICY", `TO "guarded"`}, true},
		{"row-security", "ALTER TABLE schema_system.session ENABLE ROW LEVEL SECURITY; CREATE POLICY partly ON schema_system.session USING (sid <> 'x')", doctor.Warning, []string{"partly", "CREATE POLICY"}, true},
		{"triggers", trigger, doctor.Warning, []string{"keep", "DELETE", "return OLD"}, false},
		{"triggers", "CREATE RULE keep AS ON DELETE TO schema_system.session DO INSTEAD NOTHING", doctor.Error, []string{"keep", "DROP RULE"}, true},
		{"publication", "ALTER TABLE schema_system.session DROP CONSTRAINT session_pkey, ADD UNIQUE (sid); CREATE PUBLICATION all_tables FOR ALL TABLES", doctor.Error, []string{"all_tables", "replica identity", "55000"}, true},
		{"constraints", "CREATE TABLE schema_system.audit (sid varchar REFERENCES schema_system.session)", doctor.Warning, []string{"audit", "ON DELETE CASCADE"}, false},
	} {
		t.Run(tt.check+" "+tt.words[0], func(t *testing.T) {
			p := healthy(t)
			p.as("guarded")
			p.exec(tt.cause)
			want(t, p.examine(), tt.check, tt.level, tt.words...)
			if tt.mends {
				p.mend(tt.check)
				want(t, p.examine(), "table", doctor.OK)
			}
		})
	}
}

// What a stranger may make, and has made, on the search path.
func TestSearchPath(t *testing.T) {
	p := healthy(t)
	p.exec("CREATE ROLE mallory")
	t.Cleanup(func() { p.exec("DROP OWNED BY mallory; DROP ROLE mallory") })
	p.as("app")
	want(t, p.examine(), "search-path", doctor.OK)
	p.exec("GRANT CREATE ON SCHEMA schema_system TO mallory; GRANT CREATE ON SCHEMA public TO app") // not on the path, and its own
	want(t, p.examine(), "search-path", doctor.OK)
	p.exec("GRANT CREATE ON SCHEMA public TO PUBLIC, mallory")
	r := p.examine()
	want(t, r, "search-path", doctor.Warning, "everybody may create in the schema public", `REVOKE CREATE ON SCHEMA "public" FROM PUBLIC;`)
	want(t, r, "search-path", doctor.Warning, "user mallory may create in the schema public", `REVOKE CREATE ON SCHEMA "public" FROM "mallory";`)
	p.exec(`SET ROLE mallory; CREATE FUNCTION public.steal(varchar, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
		CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = text, FUNCTION = public.steal);
		CREATE FUNCTION public.strpos(varchar, text) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE DOMAIN public.json AS pg_catalog.text`)
	want(t, p.examine(), "search-path", doctor.Warning, "operator =(character varying, text)", "function strpos(", "type json", `DROP OPERATOR "public".=(character varying, text);`)
	p.mend("search-path")
	want(t, p.examine(), "search-path", doctor.OK)

	p.exec("GRANT CREATE ON DATABASE " + p.Program.ConnConfig.Database + " TO mallory")
	want(t, p.examine(), "search-path", doctor.Warning, "user mallory may make a schema", "by the name of user app")
	p.mend("search-path")
	p.exec("GRANT CREATE ON DATABASE " + p.Program.ConnConfig.Database + " TO mallory; CREATE SCHEMA app AUTHORIZATION app")
	want(t, p.examine(), "search-path", doctor.OK)
	p.exec("REVOKE CREATE ON DATABASE " + p.Program.ConnConfig.Database + " FROM mallory")

	// What an administrator has installed is no stranger's.
	p.exec("CREATE FUNCTION public.now(int) RETURNS int LANGUAGE sql AS 'SELECT 1'")
	want(t, p.examine(), "search-path", doctor.OK)
}

func TestConnectTimeout(t *testing.T) {
	for value, level := range map[string]doctor.Level{"0": doctor.Warning, "60": doctor.Warning, "2": doctor.OK} {
		p := healthy(t)
		p.with("connect_timeout", value)
		want(t, p.examine(), "connect-timeout", level)
	}
	p := healthy(t)
	p.with("pool_max_conns", "2")
	want(t, p.examine(), "pool", doctor.Warning, "pool_max_conns")
	want(t, p.examine(), "connections", doctor.OK, "opens up to 2")
}

// A table that was analysed when it was nearly empty.
func TestStaleStatistics(t *testing.T) {
	p := healthy(t)
	p.exec("ALTER TABLE schema_system.session SET (autovacuum_enabled = false)")
	p.exec("ANALYZE schema_system.session")
	p.exec(`INSERT INTO schema_system.session SELECT md5(n::text), '{"cookie":{}}', now() + interval '1 hour' FROM generate_series(1, 2000) n`)
	p.await("the statistics are there", "SELECT last_analyze IS NOT NULL FROM pg_stat_all_tables WHERE relid = 'schema_system.session'::regclass")
	want(t, p.examine(), "planner", doctor.Warning, "there are 2000", "ANALYZE")
	p.mend("planner")
	want(t, p.examine(), "planner", doctor.OK, "planned for are 2000")
}

// An index is what it holds, whatever its name.
func TestIndexesByDefinition(t *testing.T) {
	p := healthy(t)
	p.IndexKeys = []string{"userId"}
	p.exec(`CREATE TABLE schema_system.other (userid text); CREATE INDEX "idx_session_key_userId" ON schema_system.other (userid)`)
	want(t, p.examine(), "indexes", doctor.Warning, `"userId" has no index`)
	p.makeTable("userId")
	p.exec(`DROP TABLE schema_system.other`)
	p.exec(`DO $$ DECLARE i text; BEGIN
		SELECT indexrelid::regclass::text INTO i FROM pg_index WHERE indrelid = 'schema_system.session'::regclass AND indkey[0] = 0;
		EXECUTE 'ALTER INDEX ' || i || ' RENAME TO anything'; END $$`)
	want(t, p.examine(), "indexes", doctor.OK, "3 valid")
	if r := p.examine(); r.Level != doctor.OK {
		t.Errorf("got %+v, want ok", r)
	}
}

// Where PostgreSQL counts nothing, nothing is known of dead rows and updates.
func TestUncounted(t *testing.T) {
	p := healthy(t)
	p.exec("ALTER DATABASE " + p.Program.ConnConfig.Database + " SET track_counts = off")
	p.pool.Reset()
	r := p.examine()
	want(t, r, "autovacuum", doctor.Warning, "track_counts")
	for _, check := range []string{"dead-rows", "heap-only"} {
		want(t, r, check, doctor.Warning, "not checked: track_counts is off, or a shard does not answer", "the check autovacuum")
	}
}

// What could not be read is not called ok.
func TestNotChecked(t *testing.T) {
	p := healthy(t)
	p.as("blind")
	p.exec("REVOKE SELECT ON schema_system.session FROM blind")
	r := p.examine()
	want(t, r, "table", doctor.Error, "lacks a privilege")
	for _, check := range []string{"timezone", "statistics", "expired", "autovacuum", "dead-rows", "bloat", "heap-only", "rows", "planner", "encryption", "expire-index", "logged", "triggers"} {
		want(t, r, check, doctor.Warning, "not checked: ")
		for _, f := range r.Findings {
			if f.Check == check && f.Level == doctor.OK {
				t.Errorf("%s: got ok, %s, of what it could not read", check, f.What)
			}
		}
	}
	p.exec("GRANT SELECT ON schema_system.session TO blind")
	if r := p.examine(); r.Level != doctor.OK {
		t.Errorf("with the right to read: got %+v, want ok", r)
	}

	t.Run("a transaction that is not shown", func(t *testing.T) {
		conn := p.connect()
		defer conn.Close(context.Background())
		if _, err := conn.Exec(t.Context(), "BEGIN; SELECT 1"); err != nil {
			t.Fatal(err)
		}
		want(t, p.examine(), "held-back", doctor.Warning, "not checked: 1 transactions of other users", "pg_monitor")
		p.exec("GRANT pg_monitor TO blind")
		want(t, p.examine(), "held-back", doctor.OK)
	})
	t.Run("a table that is locked", func(t *testing.T) {
		conn := p.connect()
		defer conn.Close(context.Background())
		if _, err := conn.Exec(t.Context(), "BEGIN; LOCK schema_system.session"); err != nil {
			t.Fatal(err)
		}
		defer doctor.SetCheckTimeout(1)()
		r := p.examine()
		want(t, r, "statistics", doctor.Warning, "not checked: ")
		if i := slices.IndexFunc(r.Findings, func(f doctor.Finding) bool { return f.Check == "durability" }); i < 0 {
			t.Error("durability: got nothing, want the other checks carried out")
		}
	})
}

// Every command that is printed means the same table.
func TestCommandsNameTheTable(t *testing.T) {
	p := healthy(t)
	p.exec(`ALTER SCHEMA schema_system RENAME TO "my app"; ALTER TABLE "my app".session RENAME TO visits`)
	p.Schema, p.Table, p.IndexKeys = "my app", "visits", []string{"userId"}
	p.exec(`INSERT INTO "my app".visits SELECT 'old' || n, '{"cookie":{}}', now() - interval '2 days' FROM generate_series(1, 3) n`)
	const flags = "--schema 'my app' --table visits"
	r := p.examine()
	want(t, r, "indexes", doctor.Warning, "sessionctl schema --apply --index-key userId "+flags)
	want(t, r, "expired", doctor.Warning, "sessionctl prune "+flags)
	p.Table = "none"
	want(t, p.examine(), "table", doctor.Error, "sessionctl schema --apply --schema 'my app' --table none")
	for _, f := range append(r.Findings, p.examine().Findings...) {
		for _, piece := range strings.Split(f.What+f.Advice, "sessionctl ")[1:] {
			if !strings.Contains(piece, "--schema 'my app' --table ") {
				t.Errorf("%s: got %q, want the table's flags in each command", f.Check, f.Advice)
			}
		}
	}
}

// Every warning that the library may log about a table has a check, and every
// check a warning: words that change on one side alone would be lost.
func TestEveryWarningHasACheck(t *testing.T) {
	files, err := filepath.Glob("../../../../internal/pgtable/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("the library's files: got %v, %v", files, err)
	}
	warned := regexp.MustCompile(`\.Warn\("session: ([^"]*)"`)
	known, seen := doctor.StartMessages(), map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range warned.FindAllStringSubmatch(string(text), -1) {
			i := slices.IndexFunc(known, func(k string) bool { return strings.HasPrefix(m[1], k) })
			switch {
			case i >= 0:
				seen[known[i]] = true
			case !strings.HasPrefix(m[1], "no index on a key"): // of MakeIndexes, which doctor does not call
				t.Errorf("%s: no check knows %q", filepath.Base(file), m[1])
			}
		}
	}
	for _, k := range known {
		if !seen[k] {
			t.Errorf("nobody warns of %q", k)
		}
	}
}
