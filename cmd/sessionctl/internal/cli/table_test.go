package cli_test

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/cmd/sessionctl/internal/cli"
)

func TestSchema(t *testing.T) {
	r := newRig(t)
	printed := r.run("schema").want(cli.ExitOK, "CREATE TABLE schema_system.session", "COMMIT;")
	if got := parse[struct{ Table, SQL string }](r.run("schema", "--json").want(cli.ExitOK)); got.SQL != printed.out || got.Table != "schema_system.session" {
		t.Errorf("--json: got table %q and other SQL, want what is printed", got.Table)
	}
	r.run("schema", "--schema", "app", "--table", "visits", "--index-key", "userId").
		want(cli.ExitOK, "CREATE TABLE \"app\".\"visits\"", `CREATE INDEX CONCURRENTLY IF NOT EXISTS "idx_visits_key_userId" ON "app"."visits"`)
	if get[bool](r, "SELECT to_regnamespace('schema_system') IS NOT NULL OR to_regnamespace('app') IS NOT NULL") {
		t.Error("printing has made something")
	}
	r.exec(printed.out) // as psql would
	r.run("doctor").want(cli.ExitOK)
}

type applied struct {
	Table       string
	Made        bool
	OutboxMade  bool
	IndexesMade []string
	Refused     []string
}

func TestSchemaApply(t *testing.T) {
	r := newRig(t)
	r.run("schema", "--apply").want(cli.ExitOK, "made the table schema_system.session")
	r.run("schema", "--apply").want(cli.ExitOK, "was there")
	got := parse[applied](r.run("schema", "--apply", "--json", "--schema", "app", "--index-key", "userId", "--index-key", "tenant").want(cli.ExitOK))
	if !got.Made || got.Table != "app.session" || strings.Join(got.IndexesMade, " ") != "userId tenant" || len(got.Refused) != 0 {
		t.Errorf("got %+v, want a table and two indexes", got)
	}
	r.run("doctor", "--schema", "app", "--index-key", "userId", "--index-key", "tenant").want(cli.ExitOK)
	r.run("doctor", "--schema", "app", "--index-key", "shop").want(cli.ExitFailed, `"shop" has no index`)

	// Somebody who may use the table, and make nothing.
	r.exec("CREATE ROLE maker LOGIN PASSWORD '" + password + "'; GRANT USAGE ON SCHEMA schema_system TO maker; GRANT SELECT, INSERT, UPDATE, DELETE ON schema_system.session TO maker")
	t.Cleanup(func() { r.exec("DROP OWNED BY maker; DROP ROLE maker") })
	u, err := url.Parse(r.url)
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	u.User = url.UserPassword("maker", password)
	t.Setenv("DATABASE_URL", u.String())
	r.run("schema", "--apply").want(cli.ExitOK, "was there")
	r.run("schema", "--apply", "--index-key", "userId").want(cli.ExitFailed, "As the table's owner, run", "CREATE INDEX CONCURRENTLY")
	r.run("schema", "--apply", "--schema", "another").want(cli.ExitFailed, "may not make it", "GRANT", "sessionctl schema --apply --schema 'another' (")
	r.run("schema", "--apply", "--table", "another").want(cli.ExitFailed, "may not make it", "sessionctl schema --apply --table 'another' (")
}

type measured struct {
	Table                                                                                 string
	Uncounted                                                                             bool
	Live, Expired, TableBytes, IndexBytes, ToastBytes, DeadRows, Updates, HeapOnlyUpdates int64
	Marks                                                                                 int64
	LastVacuum, LastAutovacuum, OldestExpiry, NewestExpiry                                *time.Time
	Expiries                                                                              []struct {
		Label                           string
		FromSeconds, UntilSeconds, Rows int64
	}
	Created struct {
		Hours, Days    []int64
		Older, Unknown int64
		Share          float64
	}
}

func TestStats(t *testing.T) {
	r := newRig(t)
	m := r.manager(session.Config{Secret: secret}, session.PostgresOptions{})
	empty := parse[measured](r.run("stats", "--json").want(cli.ExitOK))
	if empty.Live != 0 || empty.OldestExpiry != nil || len(empty.Expiries) != 9 || len(empty.Created.Hours) != 24 || len(empty.Created.Days) != 30 {
		t.Errorf("an empty table: got %+v", empty)
	}
	r.login(m, 1)
	r.exec(`INSERT INTO schema_system.session SELECT md5(n::text), '{"cookie":{}}', now() + interval '30 s' - n * interval '1 minute' FROM generate_series(0, 1234) n`)
	got := parse[measured](r.run("stats", "--json").want(cli.ExitOK))
	if got.Live != 2 || got.Expired != 1234 || got.Expiries[0].Rows != 1234 || got.Expiries[1].Rows != 1 || got.Expiries[1].UntilSeconds != 60 ||
		got.Created.Hours[0] != 1 || got.Created.Days[0] != 1 || got.Created.Unknown != 1 || got.Created.Share != 1 || got.Table != "schema_system.session" {
		t.Errorf("got %+v, want 2 live, one of them made now, and 1234 expired", got)
	}
	if got.OldestExpiry == nil || time.Since(*got.OldestExpiry).Round(time.Hour) != 21*time.Hour || got.TableBytes == 0 || got.IndexBytes == 0 {
		t.Errorf("got oldest expiry %v, %d and %d bytes, want 20.6 h ago and more than nothing", got.OldestExpiry, got.TableBytes, got.IndexBytes)
	}
	r.exec(`INSERT INTO schema_system.session SELECT 'mark' || n, '"0e066"', now() + n * interval '1 minute' FROM generate_series(-2, 4) n`)
	marked := parse[measured](r.run("stats", "--json").want(cli.ExitOK))
	if marked.Live != 2 || marked.Expired != 1234 || marked.Marks != 7 || marked.Created.Unknown != 1 {
		t.Errorf("with 7 marks of renewed IDs: got %+v, want no other session", marked)
	}
	human := r.run("stats").want(cli.ExitOK, "live sessions", "marks of renewed IDs", "1,234", "EXPIRE IN", "▇")
	at := -1
	for line := range strings.Lines(human.out) {
		if i := strings.Index(line, "1,234"); i >= 0 && strings.HasPrefix(line, "expired, not") {
			at = i
		}
		if i := strings.Index(line, "schema_system"); i >= 0 && at >= 0 && i != at {
			t.Errorf("columns begin at %d and %d, want them aligned", i, at)
		}
	}
}

type report struct {
	Table, Server, Level string
	Findings             []struct {
		Check, Level, What, Advice string
		SQL                        []string
	}
}

func TestDoctor(t *testing.T) {
	r := newRig(t)
	r.run("doctor").want(cli.ExitErrors, "error", "no table schema_system.session", "sessionctl schema --apply")
	r.manager(session.Config{Secret: secret}, session.PostgresOptions{})
	res := r.run("doctor").want(cli.ExitOK, "0 errors, 0 warnings", "schema_system.session on PostgreSQL")
	if strings.Contains(res.out, "\x1b") {
		t.Error("got colours, and this is no terminal")
	}
	got := parse[report](r.run("doctor", "--json").want(cli.ExitOK))
	if got.Level != "ok" || len(got.Findings) < 24 || got.Server == "" {
		t.Errorf("got level %s and %d findings, want ok and 24 at least", got.Level, len(got.Findings))
	}
	r.exec("ALTER TABLE schema_system.session RESET (fillfactor)")
	r.run("doctor").want(cli.ExitOK, "hint", "fillfactor = 70")
	r.exec("DROP INDEX schema_system.idx_session_expire")
	r.run("doctor").want(cli.ExitFailed, "warning", "expire-index", "CREATE INDEX CONCURRENTLY")
	t.Setenv("PGTZ", "Asia/Kolkata")
	got = parse[report](r.run("doctor", "--json").want(cli.ExitErrors))
	if got.Level != "error" {
		t.Errorf("with PGTZ: got level %s, want error", got.Level)
	}
	t.Setenv("PGTZ", "")
	t.Setenv("SESSION_SECRET", "keyboard cat")
	r.run("doctor").want(cli.ExitErrors, "openssl rand -base64 48")
}

// A TimeZone of the environment must not make a live session an expired one.
func TestATimeZoneOfItsOwnHarmsNobody(t *testing.T) {
	r := newRig(t)
	m := r.manager(session.Config{Secret: secret}, session.PostgresOptions{})
	ada := r.login(m, 42)
	ada.visit(func(s *session.Session) { s.SetIdleTimeout(time.Hour) })
	t.Setenv("PGTZ", "Asia/Kolkata")
	r.run("prune").want(cli.ExitOK, "no expired row: there is nothing to delete")
	if got := r.list(); len(got) != 1 || time.Until(*got[0].ExpiresAt) > 61*time.Minute {
		t.Errorf("got %+v, want one that expires in an hour", got)
	}
	if ada.user() != 42 {
		t.Error("a live session was pruned")
	}
}

// A TimeZone in the options of the URL is that of every program, Express too; as a
// parameter it is pgx's alone, and refused before anything is deleted.
func TestATimeZoneOfTheURL(t *testing.T) {
	for parameter, followed := range map[string]bool{"options=-cTimeZone%3DAsia/Kolkata": true, "timezone=Asia/Kolkata": false} {
		t.Run(parameter, func(t *testing.T) {
			r := newRig(t)
			t.Setenv("DATABASE_URL", r.url+"&"+parameter)
			pool, err := pgxpool.New(t.Context(), os.Getenv("DATABASE_URL"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			r.pool = pool
			ada := r.login(r.manager(session.Config{Secret: secret}, session.PostgresOptions{}), 42)
			ada.visit(func(s *session.Session) { s.SetIdleTimeout(time.Hour) })
			if followed {
				r.run("prune").want(cli.ExitOK, "no expired row: there is nothing to delete")
				if got := r.list(); len(got) != 1 || time.Until(*got[0].ExpiresAt) > 61*time.Minute {
					t.Errorf("got %+v, want one that expires in an hour", got)
				}
			} else {
				r.run("prune").want(cli.ExitFailed, "Asia/Kolkata", "Unset it")
			}
			if ada.user() != 42 {
				t.Error("a live session was pruned")
			}
		})
	}
}

// Whatever way a TimeZone of its own comes to this command, no live session looks
// expired to it, and doctor says so.
func TestTimeZonesOfTheEnvironment(t *testing.T) {
	services := filepath.Join(t.TempDir(), "services")
	tokyo := []struct {
		name string
		env  map[string]string
	}{
		{"PGTZ", map[string]string{"PGTZ": "Asia/Tokyo"}},
		{"-c", map[string]string{"PGOPTIONS": "-c timezone=Asia/Tokyo"}},
		{"-c without a space", map[string]string{"PGOPTIONS": "-ctimezone=Asia/Tokyo"}},
		{"--", map[string]string{"PGOPTIONS": "--TimeZone=Asia/Tokyo"}},
		{"escaped, the last of several", map[string]string{"PGOPTIONS": `-c geqo=off -c time\zone=Asia\/Tokyo`}},
		{"a service's options", map[string]string{"PGSERVICEFILE": services, "PGSERVICE": "tokyo"}},
		{"a service's timezone", map[string]string{"PGSERVICEFILE": services, "PGSERVICE": "tz"}},
	}
	if err := os.WriteFile(services, []byte("[tokyo]\noptions=-c timezone=Asia/Tokyo\n[tz]\ntimezone=Asia/Tokyo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	// A name that a search for the word would find.
	r.exec("CREATE ROLE timezone SUPERUSER LOGIN PASSWORD '" + password + "'")
	t.Cleanup(func() { r.exec("DROP ROLE timezone") })
	u, err := url.Parse(r.url)
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	u.User = url.UserPassword("timezone", password)
	t.Setenv("DATABASE_URL", u.String())
	ada := r.login(r.manager(session.Config{Secret: secret}, session.PostgresOptions{}), 42)
	ada.visit(func(s *session.Session) { s.SetIdleTimeout(time.Hour) })
	for _, tt := range tokyo {
		t.Run(tt.name, func(t *testing.T) {
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			r.run("prune").want(cli.ExitOK, "no expired row: there is nothing to delete")
			if got := r.list(); len(got) != 1 || time.Until(*got[0].ExpiresAt) > 61*time.Minute {
				t.Errorf("list: got %+v, want one that expires in an hour", got)
			}
			if got := parse[measured](r.run("stats", "--json").want(cli.ExitOK)); got.Live != 1 || got.Expired != 0 {
				t.Errorf("stats: got %d live and %d expired, want 1 and 0", got.Live, got.Expired)
			}
			r.run("doctor").want(cli.ExitErrors, "timezone", "Asia/Tokyo")
			if ada.user() != 42 {
				t.Error("a live session was pruned")
			}
		})
	}
}

// Where the TimeZone is this user's in the database, nothing in the connection
// shows it: the rows do.
func TestATimeZoneThatTheRowsContradict(t *testing.T) {
	for _, way := range []string{"ALTER ROLE", "the URL's options"} {
		t.Run(way, func(t *testing.T) {
			r := newRig(t)
			ada := r.login(r.manager(session.Config{Secret: secret}, session.PostgresOptions{}), 42)
			ada.visit(func(s *session.Session) { s.SetIdleTimeout(time.Hour) })
			if way == "ALTER ROLE" {
				r.exec("CREATE ROLE admin SUPERUSER LOGIN PASSWORD '" + password + "'; ALTER ROLE admin SET timezone = 'Asia/Tokyo'")
				t.Cleanup(func() { r.exec("DROP ROLE admin") })
				u, err := url.Parse(r.url)
				if err != nil {
					t.Fatal("the URL cannot be parsed")
				}
				u.User = url.UserPassword("admin", password)
				t.Setenv("DATABASE_URL", u.String())
			} else {
				t.Setenv("DATABASE_URL", r.url+"&options=--timezone%3DAsia/Tokyo")
			}
			for _, args := range [][]string{{"prune"}, {"list"}, {"destroy", "--all", "--yes"}, {"stats"}, {"rotate"}} {
				r.run(args...).want(cli.ExitFailed, "Asia/Tokyo", "1 of 1 sessions")
			}
			r.run("doctor").want(cli.ExitErrors, "timezone", "Asia/Tokyo")
			if ada.user() != 42 {
				t.Error("a live session has ended")
			}
			r.exec("ALTER TABLE schema_system.session ALTER COLUMN expire TYPE timestamptz USING expire AT TIME ZONE 'UTC'")
			r.pool.Reset()
			r.run("prune").want(cli.ExitOK, "no expired row: there is nothing to delete")
		})
	}
}

// Rows that nobody would write by intention keep no command from its work.
func TestOddRows(t *testing.T) {
	r := newRig(t)
	r.exec("ALTER DATABASE " + r.pool.Config().ConnConfig.Database + " SET timezone = 'America/New_York'")
	r.pool.Reset()
	ada := r.login(r.manager(session.Config{Secret: secret}, session.PostgresOptions{}), 42)
	for i, expire := range []string{"4714-11-24 00:00 BC", "294276-12-31 23:59", "-infinity", "infinity"} {
		r.exec("INSERT INTO schema_system.session VALUES ('odd' || $1::int, $2, $3::text::timestamp)", i, `{"a":"x\\ud8"}`, expire)
	}
	for i, sess := range []string{`[]`, `7`, `null`, `"text"`, `{"cookie":{"expires":"2024-02-30T00:00:00.000Z"}}`, `{"a":"\u0000"}`, `{"a":"\ud800"}`} {
		r.exec("INSERT INTO schema_system.session VALUES ('data' || $1::int, $2, now() + interval '1 hour')", i, sess)
	}
	r.run("stats").want(cli.ExitOK)
	r.run("list").want(cli.ExitOK, ada.handle())
	r.run("list", "--key", "userId", "--value", "42").want(cli.ExitOK, ada.handle())
	r.run("rotate").want(cli.ExitOK)
	r.run("doctor").want(cli.ExitFailed, "rows are no JSON object")
	if strings.Contains(r.run("doctor").out, "not checked") {
		t.Error("doctor: got something not checked")
	}
	r.run("prune").want(cli.ExitOK, "2 expired rows deleted")
	r.run("destroy", "--key", "userId", "--value", "42").want(cli.ExitOK, "1 live session ended")
	r.run("destroy", "--all", "--yes").want(cli.ExitOK)
}
