package pgtable_test

import (
	"bytes"
	"context"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/pgtest"
)

// toRun is where an error comes to the SQL that mends the fault, to the end of
// its line.
var toRun = regexp.MustCompile(`(?m)\b[Rr]un: (.*;)$`)

// exec runs statements, one after the other.
func exec(t *testing.T, pool *pgxpool.Pool, sql string) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatalf("%v in %s", err, sql)
	}
}

// warnings returns the lines of a log that are warnings.
func warnings(log *bytes.Buffer) (lines []string) {
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "level=WARN") {
			lines = append(lines, line)
		}
	}
	return lines
}

// toRunIn returns the SQL that a warning says to run, "" if none.
func toRunIn(t *testing.T, line string) string {
	t.Helper()
	_, run, ok := strings.Cut(line, " run=")
	if !ok {
		return ""
	}
	run = strings.TrimSpace(run)
	if !strings.HasPrefix(run, `"`) {
		run, _, _ = strings.Cut(run, " ")
		return run
	}
	quoted, err := strconv.QuotedPrefix(run)
	if err != nil {
		t.Fatal(err)
	}
	sql, err := strconv.Unquote(quoted)
	if err != nil {
		t.Fatal(err)
	}
	return sql
}

// checkWrites does to the table what a store does, in its order.
func checkWrites(t *testing.T, pool *pgxpool.Pool, quoted string) {
	t.Helper()
	for _, step := range []struct {
		sql  string
		rows int64
	}{
		{"INSERT INTO %s (sid, sess, expire) VALUES ('an id of thirty-two characters..', '{\"cookie\":{}}', now() + interval '1 hour') ON CONFLICT (sid) DO NOTHING", 1},
		{"UPDATE %s SET expire = now() + interval '2 hours' WHERE sid = 'an id of thirty-two characters..' AND expire >= now()", 1},
		{"WITH moved AS (UPDATE %s SET sid = 'another of thirty-two characters' WHERE sid = 'an id of thirty-two characters..' RETURNING 1) INSERT INTO %s (sid, sess, expire) SELECT 'an id of thirty-two characters..', '\"0e1\"', now() + interval '1 minute' FROM moved", 1},
		{"WITH gone AS (DELETE FROM %s WHERE sid = 'another of thirty-two characters' RETURNING 1) SELECT FROM gone", 1},
		{"DELETE FROM %s WHERE sid = 'an id of thirty-two characters..'", 1},
	} {
		sql := strings.ReplaceAll(step.sql, "%s", quoted)
		tag, err := pool.Exec(t.Context(), sql)
		if err != nil || tag.RowsAffected() != step.rows {
			t.Errorf("got %d rows, %v, want %d: %s", tag.RowsAffected(), err, step.rows, sql)
		}
	}
}

const (
	goodSid, goodSess, goodExpire = "sid varchar PRIMARY KEY, ", "sess json NOT NULL, ", "expire timestamp(6) NOT NULL"
	goodTable                     = "CREATE TABLE public.session (" + goodSid + goodSess + goodExpire + "); CREATE INDEX ON public.session (expire); "
	aRow                          = `INSERT INTO public.session VALUES ('a', '{}', now()); `
)

// An error that says what to run is mended by that, as it stands; all others say
// that another table is needed, or what is to be done about this one.
func TestAdviceWorksAsPrinted(t *testing.T) {
	for _, tt := range []struct {
		name, ddl string
		want      string // in the error
		mends     bool
		needs     int // the PostgreSQL that has this
	}{
		{"no sess, no rows", "CREATE TABLE public.session (" + goodSid + goodExpire + ")", "no column sess", true, 0},
		{"no sess, and rows", "CREATE TABLE public.session (" + goodSid + goodExpire + "); INSERT INTO public.session VALUES ('a', now())", "no column sess", false, 0},
		{"no expire, and rows", "CREATE TABLE public.session (" + goodSid + "sess json NOT NULL); INSERT INTO public.session VALUES ('a', '{}')", "no column expire", false, 0},
		{"sess bytea", "CREATE TABLE public.session (" + goodSid + "sess bytea NOT NULL DEFAULT '', " + goodExpire + ")", "column sess", true, 0},
		{"sess bytea, and rows", "CREATE TABLE public.session (" + goodSid + "sess bytea NOT NULL, " + goodExpire + ");" + aRow, "column sess", false, 0},
		{"sess text with a default", "CREATE TABLE public.session (" + goodSid + "sess text NOT NULL DEFAULT '{}', " + goodExpire + ")", "column sess", true, 0},
		{"sess text, and rows", "CREATE TABLE public.session (" + goodSid + "sess text NOT NULL, " + goodExpire + ");" + aRow, "column sess", false, 0},
		{"sess text that an index is on", "CREATE TABLE public.session (" + goodSid + "sess text NOT NULL, " + goodExpire + "); CREATE INDEX ON public.session (sess)", "column sess", false, 0},
		{"sess text that is checked", "CREATE TABLE public.session (" + goodSid + "sess text NOT NULL CHECK (sess <> ''), " + goodExpire + ")", "column sess", false, 0},
		{"sess text that a view shows", "CREATE TABLE public.session (" + goodSid + "sess text NOT NULL, " + goodExpire + "); CREATE VIEW public.v AS SELECT sess FROM public.session", "column sess", false, 0},
		{"a domain over json, and rows", "CREATE DOMAIN public.j AS json NOT NULL; CREATE TABLE public.session (" + goodSid + "sess j, " + goodExpire + ");" + aRow, "column sess", true, 0},
		{"a domain over timestamp, and rows", "CREATE DOMAIN public.d AS timestamp(3) NOT NULL; CREATE TABLE public.session (" + goodSid + goodSess + "expire d);" + aRow, "column expire", true, 0},
		{"a domain over varchar, and rows", "CREATE DOMAIN public.s AS varchar; CREATE TABLE public.session (sid s PRIMARY KEY, " + goodSess + goodExpire + ");" + aRow, "column sid", true, 0},
		{"expire bigint", "CREATE TABLE public.session (" + goodSid + goodSess + "expire bigint NOT NULL)", "column expire", false, 0},
		{"expire time", "CREATE TABLE public.session (" + goodSid + goodSess + "expire time NOT NULL)", "column expire", false, 0},
		{"expire date, and rows", "CREATE TABLE public.session (" + goodSid + goodSess + "expire date NOT NULL DEFAULT now());" + aRow + `INSERT INTO public.session VALUES ('b', '{}', '-infinity')`, "column expire", true, 0},
		{"expire text", "CREATE TABLE public.session (" + goodSid + goodSess + "expire text NOT NULL)", "column expire", true, 0},
		{"expire text, and rows", "CREATE TABLE public.session (" + goodSid + goodSess + "expire text NOT NULL);" + aRow, "column expire", false, 0},
		{"sid char(32), and rows", "CREATE TABLE public.session (sid char(32) PRIMARY KEY, " + goodSess + goodExpire + ");" + aRow, "column sid", true, 0},
		{"sid uuid with a default, and rows", "CREATE TABLE public.session (sid uuid PRIMARY KEY DEFAULT md5('a')::uuid, " + goodSess + goodExpire + "); INSERT INTO public.session (sess, expire) VALUES ('{}', now())", "column sid", true, 0},
		{"sid an identity", "CREATE TABLE public.session (sid int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, " + goodSess + goodExpire + ")", "column sid", false, 0},
		{"sid that another table refers to", "CREATE TABLE public.session (sid int PRIMARY KEY, " + goodSess + goodExpire + "); CREATE TABLE public.o (s int REFERENCES public.session ON DELETE CASCADE ON UPDATE CASCADE)", "column sid", false, 0},
		{"a collation of a language that knows no case", `CREATE COLLATION public.ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false); CREATE TABLE public.session (sid varchar COLLATE public.ci PRIMARY KEY, ` + goodSess + goodExpire + ");" + aRow, "nondeterministic", true, 0},
		{"generated", "CREATE TABLE public.session (" + goodSid + goodSess + "n int, expire timestamp(6) NOT NULL GENERATED ALWAYS AS (timestamp '2030-01-01' + n * interval '1 s') STORED)", "is generated", true, 0},
		{"no primary key, and the same sid twice", "CREATE TABLE public.session (sid varchar NOT NULL, " + goodSess + goodExpire + ");" + aRow + aRow, "no primary key", false, 0},
		{"no primary key, and rows", "CREATE TABLE public.session (sid varchar, " + goodSess + goodExpire + ");" + aRow, "no primary key", true, 0},
		{"no primary key, and a row without sid", "CREATE TABLE public.session (sid varchar, " + goodSess + goodExpire + "); INSERT INTO public.session VALUES (NULL, '{}', now())", "no primary key", false, 0},
		{"unique by another collation", `CREATE TABLE public.session (sid varchar NOT NULL, ` + goodSess + goodExpire + `); CREATE UNIQUE INDEX ON public.session (sid COLLATE "C")`, "no primary key", true, 0},
		{"a primary key with a tenant", "CREATE TABLE public.session (tenant int, sid varchar, " + goodSess + goodExpire + ", PRIMARY KEY (tenant, sid))", "another column that must have a value", false, 0},
		{"another column of a domain", "CREATE DOMAIN public.n AS int NOT NULL; CREATE TABLE public.session (" + goodSid + goodSess + goodExpire + ", other n)", "other columns", true, 0},
		{"another column with NOT NULL", "CREATE TABLE public.session (" + goodSid + goodSess + goodExpire + ", other int NOT NULL);", "other columns", true, 0},
		{"partitions by expire", "CREATE TABLE public.session (sid varchar NOT NULL, " + goodSess + goodExpire + ") PARTITION BY RANGE (expire); CREATE TABLE public.p PARTITION OF public.session DEFAULT", "partitioned by RANGE (expire)", false, 0},
		{"a partition", "CREATE TABLE public.whole (" + goodSid + goodSess + goodExpire + ") PARTITION BY HASH (sid); CREATE TABLE public.session PARTITION OF public.whole FOR VALUES WITH (MODULUS 2, REMAINDER 0)", "is a partition of public.whole", false, 0},
		{"no partition", "CREATE TABLE public.session (" + goodSid + goodSess + goodExpire + ") PARTITION BY HASH (sid)", "no partition", false, 0},
		{"partitions without a primary key", "CREATE TABLE public.session (sid varchar NOT NULL, " + goodSess + goodExpire + ") PARTITION BY HASH (sid); CREATE TABLE public.p PARTITION OF public.session FOR VALUES WITH (MODULUS 1, REMAINDER 0)", "no primary key", true, 0},
		{"a rule", goodTable + "CREATE RULE keep AS ON DELETE TO public.session DO INSTEAD NOTHING", "a rule", true, 0},
		{"a rule beside", goodTable + "CREATE TABLE public.l (a text); CREATE RULE note AS ON UPDATE TO public.session DO ALSO INSERT INTO public.l VALUES ('x')", "a rule", true, 0},
		{"published without a primary key", "CREATE TABLE public.session (sid varchar NOT NULL UNIQUE, " + goodSess + goodExpire + "); CREATE PUBLICATION p FOR ALL TABLES", "no replica identity", true, 0},
		{"published without a primary key, and a row without sid", "CREATE TABLE public.session (sid varchar UNIQUE, " + goodSess + goodExpire + "); INSERT INTO public.session VALUES (NULL, '{}', now()); CREATE PUBLICATION p FOR TABLE public.session", "no replica identity", true, 0},
		{"published with NOTHING", goodTable + "ALTER TABLE public.session REPLICA IDENTITY NOTHING; CREATE PUBLICATION p FOR TABLE public.session", "no replica identity", true, 0},
		{"published by an index that is gone", "CREATE TABLE public.session (sid varchar NOT NULL UNIQUE, " + goodSess + goodExpire + "); CREATE UNIQUE INDEX u ON public.session (sid); ALTER TABLE public.session REPLICA IDENTITY USING INDEX u; DROP INDEX public.u; CREATE PUBLICATION p FOR TABLE public.session", "no replica identity", true, 0},
		{"published with its schema", "CREATE TABLE public.session (sid varchar NOT NULL UNIQUE, " + goodSess + goodExpire + "); CREATE PUBLICATION p FOR TABLES IN SCHEMA public", "no replica identity", true, 150000},
		{"published as partitions", "CREATE TABLE public.session (sid varchar NOT NULL UNIQUE, " + goodSess + goodExpire + ") PARTITION BY HASH (sid); CREATE TABLE public.part PARTITION OF public.session FOR VALUES WITH (MODULUS 1, REMAINDER 0); CREATE PUBLICATION p FOR TABLE public.session", "public.part is in a publication", true, 0},
		{"a partition with NOTHING", "CREATE TABLE public.session (" + goodSid + goodSess + goodExpire + ") PARTITION BY HASH (sid); CREATE TABLE public.part PARTITION OF public.session FOR VALUES WITH (MODULUS 1, REMAINDER 0); ALTER TABLE public.part REPLICA IDENTITY NOTHING; CREATE PUBLICATION p FOR TABLE public.session", "public.part is in a publication", true, 0},
		{"published by a filter", goodTable + "CREATE PUBLICATION p FOR TABLE public.session WHERE (expire > '2020-01-01')", "row filter", false, 150000},
		{"published by columns", goodTable + "CREATE PUBLICATION p FOR TABLE public.session (expire)", "list of columns", false, 150000},
		{"everything", "CREATE TABLE public.session (sid char(3), sess text DEFAULT '{}', expire date, other int NOT NULL)", "other columns", true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pool := pgtest.Pool(t)
			var version int
			if err := pool.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
				t.Fatal(err)
			}
			if version < tt.needs {
				return
			}
			exec(t, pool, tt.ddl)
			table, _ := newTable(t, pool, "public", "session")
			err := table.Setup(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want an error with %q", err, tt.want)
			}
			advice := toRun.FindAllStringSubmatch(err.Error(), -1)
			if (len(advice) > 0) != tt.mends {
				t.Fatalf("got %v, want SQL to run: %t", err, tt.mends)
			}
			if !tt.mends {
				if !strings.Contains(err.Error(), "PostgresOptions") && !strings.Contains(err.Error(), "Take the filter away") {
					t.Errorf("got %v, want what to do", err)
				}
				return
			}
			for _, sql := range advice {
				exec(t, pool, sql[1])
			}
			if err := table.Setup(t.Context()); err != nil {
				t.Fatalf("after that: got %v, want no error", err)
			}
			checkWrites(t, pool, table.Quoted())
		})
	}
}

// asRole returns a pool of a role that may read and write the table public.session,
// and its name.
func asRole(t *testing.T, admin *pgxpool.Pool, more string) (pool *pgxpool.Pool, role string) {
	t.Helper()
	role = "role_" + admin.Config().ConnConfig.Database
	exec(t, admin, "CREATE ROLE "+role+" LOGIN PASSWORD 'its own'; GRANT USAGE ON SCHEMA public TO "+role+"; GRANT SELECT, INSERT, UPDATE, DELETE ON public.session TO "+role+";"+strings.ReplaceAll(more, "$role", role))
	cfg := admin.Config().Copy()
	cfg.ConnConfig.User, cfg.ConnConfig.Password = role, "its own"
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pool.Close()
		if _, err := admin.Exec(context.Background(), "DROP OWNED BY "+role+" CASCADE; DROP ROLE "+role, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Error(err)
		}
	})
	return pool, role
}

// Row-level security that leaves a role no row would look like everybody's
// logout. It is an error, the policy in it mends it, and policies with
// conditions are a warning.
func TestRowSecurity(t *testing.T) {
	const on = "ALTER TABLE public.session ENABLE ROW LEVEL SECURITY; "
	for _, tt := range []struct {
		name, ddl string // $role is who starts
		denied    string // in the error
		warned    string // in the warning
	}{
		{"off", "CREATE POLICY p ON public.session USING (false)", "", ""},
		{"no policy", on, "SELECT, INSERT, UPDATE, DELETE its rows", ""},
		{"open to all", on + "CREATE POLICY p ON public.session USING (true)", "", ""},
		{"open to this role", on + "CREATE POLICY p ON public.session TO $role USING (true) WITH CHECK (true)", "", ""},
		{"open to another", on + "CREATE POLICY session_store ON public.session TO pg_monitor USING (true)", "SELECT, INSERT, UPDATE, DELETE its rows", ""},
		{"open to a role that this one is in", on + "CREATE POLICY p ON public.session TO pg_monitor USING (true); GRANT pg_monitor TO $role", "", ""},
		{"one for each command", on + "CREATE POLICY r ON public.session FOR SELECT USING (true); CREATE POLICY a ON public.session FOR INSERT WITH CHECK (true); CREATE POLICY w ON public.session FOR UPDATE USING (true); CREATE POLICY d ON public.session FOR DELETE USING (true)", "", ""},
		{"none for DELETE", on + "CREATE POLICY r ON public.session FOR SELECT USING (true); CREATE POLICY a ON public.session FOR INSERT WITH CHECK (true); CREATE POLICY w ON public.session FOR UPDATE USING (true)", "DELETE its rows", ""},
		{"a condition", on + "CREATE POLICY p ON public.session USING (sid <> 'a')", "", "may hide"},
		{"a condition, and another without", on + "CREATE POLICY p ON public.session USING (sid <> 'a'); CREATE POLICY q ON public.session USING (true)", "", ""},
		{"a condition on what is written", on + "CREATE POLICY p ON public.session USING (true) WITH CHECK (sid <> 'a')", "", "may hide"},
		{"a restrictive one", on + "CREATE POLICY p ON public.session USING (true); CREATE POLICY q ON public.session AS RESTRICTIVE USING (sid <> 'a')", "", "policies=[q]"},
		{"a restrictive one alone", on + "CREATE POLICY q ON public.session AS RESTRICTIVE USING (true)", "SELECT, INSERT, UPDATE, DELETE its rows", ""},
		{"the owner", on + "ALTER TABLE public.session OWNER TO $role", "", ""},
		{"the owner, by force", on + "ALTER TABLE public.session OWNER TO $role; ALTER TABLE public.session FORCE ROW LEVEL SECURITY", "SELECT, INSERT, UPDATE, DELETE its rows", ""},
		{"one that bypasses it", on + "ALTER ROLE $role BYPASSRLS", "", ""},
		{"open, and row_security is off", on + "CREATE POLICY p ON public.session USING (true); ALTER ROLE $role SET row_security = off", "counts for user", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			admin := pgtest.Pool(t)
			exec(t, admin, goodTable)
			pool, _ := asRole(t, admin, tt.ddl)
			for _, start := range []string{"the first instance", "the second"} {
				table, log := newTable(t, pool, "public", "session")
				err := table.Setup(t.Context())
				if (err != nil) != (tt.denied != "") {
					t.Fatalf("%s: got %v, want an error: %t", start, err, tt.denied != "")
				}
				if err != nil && !strings.Contains(err.Error(), tt.denied) {
					t.Errorf("%s: got %v, want one with %q", start, err, tt.denied)
				}
				if got := strings.Join(warnings(log), ""); tt.warned == "" && got != "" || !strings.Contains(got, tt.warned) {
					t.Errorf("%s: got the warnings %q, want %q", start, got, tt.warned)
				}
				if err == nil && tt.warned == "" {
					checkWrites(t, pool, table.Quoted())
				}
				sql := ""
				if err != nil {
					sql = toRun.FindStringSubmatch(err.Error())[1]
				} else if tt.warned == "may hide" {
					sql = toRunIn(t, warnings(log)[0])
				}
				if start == "the second" && sql != "" {
					if !strings.HasPrefix(sql, "CREATE POLICY") && !strings.HasPrefix(sql, "ALTER ROLE") {
						t.Fatalf("got %q, want a policy", sql)
					}
					exec(t, admin, sql)
					pool.Reset()
					table, log := newTable(t, pool, "public", "session")
					if err := table.Setup(t.Context()); err != nil || len(warnings(log)) > 0 {
						t.Errorf("after that: got %v and %q, want nothing", err, warnings(log))
					}
					checkWrites(t, pool, table.Quoted())
				}
			}
		})
	}
}

// What may swallow or refuse a statement is a warning that names it, and what it
// says to run makes it silent.
func TestGuardsAreNamed(t *testing.T) {
	const function = "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; "
	const raises = "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END'; "
	const partitioned = "CREATE TABLE public.session (" + goodSid + goodSess + goodExpire + ") PARTITION BY HASH (sid); CREATE INDEX ON public.session (expire); "
	for _, tt := range []struct {
		name, ddl string
		want      []string // of the one warning; none: no warning
	}{
		{"before delete", goodTable + function + "CREATE TRIGGER keep BEFORE DELETE ON public.session FOR EACH ROW EXECUTE FUNCTION public.f()", []string{"trigger=keep", "events=DELETE", "returns NULL"}},
		{"before anything", goodTable + function + "CREATE TRIGGER keep BEFORE INSERT OR UPDATE OR DELETE ON public.session FOR EACH ROW EXECUTE FUNCTION public.f()", []string{`events="INSERT, UPDATE, DELETE"`}},
		{"disabled", goodTable + function + "CREATE TRIGGER keep BEFORE DELETE ON public.session FOR EACH ROW EXECUTE FUNCTION public.f(); ALTER TABLE public.session DISABLE TRIGGER keep", nil},
		{"for replicas", goodTable + function + "CREATE TRIGGER keep BEFORE DELETE ON public.session FOR EACH ROW EXECUTE FUNCTION public.f(); ALTER TABLE public.session ENABLE REPLICA TRIGGER keep", nil},
		{"always", goodTable + function + "CREATE TRIGGER keep BEFORE DELETE ON public.session FOR EACH ROW EXECUTE FUNCTION public.f(); ALTER TABLE public.session ENABLE ALWAYS TRIGGER keep", []string{"trigger=keep"}},
		{"after, that only looks", goodTable + function + "CREATE TRIGGER note AFTER DELETE ON public.session FOR EACH ROW EXECUTE FUNCTION public.f()", nil},
		{"after, that raises", goodTable + raises + "CREATE TRIGGER no AFTER DELETE ON public.session FOR EACH ROW EXECUTE FUNCTION public.f()", []string{"may refuse", "trigger=no"}},
		{"for a statement, that raises", goodTable + raises + "CREATE TRIGGER no BEFORE UPDATE ON public.session EXECUTE FUNCTION public.f()", []string{"may refuse", "events=UPDATE"}},
		{"before truncate", goodTable + raises + "CREATE TRIGGER no BEFORE TRUNCATE ON public.session EXECUTE FUNCTION public.f()", nil},
		{"on a partition", partitioned + function + "CREATE TABLE public.part PARTITION OF public.session FOR VALUES WITH (MODULUS 1, REMAINDER 0); CREATE TRIGGER keep BEFORE DELETE ON public.part FOR EACH ROW EXECUTE FUNCTION public.f()", []string{"of=public.part"}},
		{"a reference", goodTable + "CREATE TABLE public.cart (s varchar REFERENCES public.session)", []string{"of=public.cart", "ON DELETE CASCADE"}},
		{"a reference that follows", goodTable + "CREATE TABLE public.cart (s varchar REFERENCES public.session ON DELETE CASCADE ON UPDATE CASCADE)", nil},
		{"a check", goodTable + "ALTER TABLE public.session ADD CONSTRAINT object CHECK (json_typeof(sess) = 'object')", []string{"constraint=object", "json_typeof"}},
		{"a check of something else", goodTable + "ALTER TABLE public.session ADD COLUMN n int CHECK (n > 0)", nil},
		{"a child", goodTable + "CREATE TABLE public.kid () INHERITS (public.session)", []string{"child=public.kid"}},
		{"a partition that is not logged", partitioned + "CREATE UNLOGGED TABLE public.part PARTITION OF public.session FOR VALUES WITH (MODULUS 1, REMAINDER 0)", []string{"UNLOGGED", "table=public.part"}},
		{"an index of another kind on expire", "CREATE TABLE public.session (" + goodSid + goodSess + goodExpire + "); CREATE INDEX ON public.session USING brin (expire)", []string{"no index on expire"}},
		{"an index with a condition on expire", "CREATE TABLE public.session (" + goodSid + goodSess + goodExpire + "); CREATE INDEX idx_session_expire ON public.session (expire) WHERE sid <> ''", []string{"no index on expire", "idx_session_expire_2"}},
		{"partitions without an index on expire", "CREATE TABLE public.session (" + goodSid + goodSess + goodExpire + ") PARTITION BY HASH (sid); CREATE TABLE public.part PARTITION OF public.session FOR VALUES WITH (MODULUS 1, REMAINDER 0)", []string{"no index on expire"}},
		{"whole seconds", "CREATE TABLE public.session (" + goodSid + goodSess + "expire timestamptz(0) NOT NULL); CREATE INDEX ON public.session (expire)", []string{"milliseconds"}},
		{"columns that may be empty", "CREATE TABLE public.session (sid varchar PRIMARY KEY, sess json, expire timestamp(6)); CREATE INDEX ON public.session (expire);" + aRow, nil},
		{"columns that are empty", "CREATE TABLE public.session (sid varchar PRIMARY KEY, sess json, expire timestamp(6)); CREATE INDEX ON public.session (expire); INSERT INTO public.session VALUES ('a', NULL, NULL), ('b', '{}', '-infinity'), ('c', '{}', '294276-12-31')", []string{"never pruned"}},
		{"received by a subscription", goodTable + "INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate) VALUES (1, 'public.session'::regclass, 'r')", []string{"subscription"}},
		{"published, inserts only", "CREATE TABLE public.session (sid varchar NOT NULL UNIQUE, " + goodSess + goodExpire + "); CREATE INDEX ON public.session (expire); CREATE PUBLICATION p FOR ALL TABLES WITH (publish = 'insert')", nil},
		{"published with a primary key", goodTable + "CREATE PUBLICATION p FOR ALL TABLES", nil},
		{"published by an index", "CREATE TABLE public.session (sid varchar NOT NULL UNIQUE, " + goodSess + goodExpire + "); CREATE INDEX ON public.session (expire); ALTER TABLE public.session REPLICA IDENTITY USING INDEX session_sid_key; CREATE PUBLICATION p FOR TABLE public.session", nil},
		{"published in full", "CREATE TABLE public.session (sid varchar NOT NULL UNIQUE, " + goodSess + goodExpire + "); CREATE INDEX ON public.session (expire); ALTER TABLE public.session REPLICA IDENTITY FULL; CREATE PUBLICATION p FOR TABLE public.session", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pool := pgtest.Pool(t)
			exec(t, pool, tt.ddl)
			table, log := newTable(t, pool, "public", "session")
			if err := table.Setup(t.Context()); err != nil {
				t.Fatal(err)
			}
			got := warnings(log)
			if len(got) != min(len(tt.want), 1) {
				t.Fatalf("got the warnings %q, want one: %t", got, len(tt.want) > 0)
			}
			for _, want := range tt.want {
				if !strings.Contains(got[0], want) {
					t.Errorf("got the warning %s, want %q in it", got[0], want)
				}
			}
			if len(got) == 0 || toRunIn(t, got[0]) == "" {
				return
			}
			exec(t, pool, toRunIn(t, got[0]))
			table, log = newTable(t, pool, "public", "session")
			if err := table.Setup(t.Context()); err != nil || len(warnings(log)) > 0 {
				t.Errorf("after %s: got %v and %q, want nothing", toRunIn(t, got[0]), err, warnings(log))
			}
		})
	}
}

// Privileges on columns do as well, and a sequence that a default uses needs its own.
func TestPrivilegesOfColumns(t *testing.T) {
	for _, tt := range []struct{ name, ddl, want string }{
		{"of columns", "REVOKE ALL ON public.session FROM $role; GRANT DELETE, SELECT (sid, sess, expire), INSERT (sid, sess, expire), UPDATE (sid, sess, expire) ON public.session TO $role", ""},
		{"of all columns but one", "REVOKE ALL ON public.session FROM $role; GRANT DELETE, SELECT, INSERT, UPDATE (sid, expire) ON public.session TO $role", "lacks a privilege"},
		{"a sequence", "ALTER TABLE public.session ADD COLUMN n serial", "may not use a sequence"},
		{"an identity", "ALTER TABLE public.session ADD COLUMN n int GENERATED ALWAYS AS IDENTITY", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			admin := pgtest.Pool(t)
			exec(t, admin, goodTable)
			pool, _ := asRole(t, admin, tt.ddl)
			table, _ := newTable(t, pool, "public", "session")
			err := table.Setup(t.Context())
			if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if err != nil {
				exec(t, admin, toRun.FindStringSubmatch(err.Error())[1])
				if err := table.Setup(t.Context()); err != nil {
					t.Fatalf("after that: got %v, want no error", err)
				}
			}
			checkWrites(t, pool, table.Quoted())
		})
	}
}
