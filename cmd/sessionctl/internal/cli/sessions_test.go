package cli_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/cmd/sessionctl/internal/cli"
)

type listed struct {
	Handle                                      string
	CreatedAt, RenewedAt, LastSeenAt, ExpiresAt *time.Time
	Token, Bound                                *bool
}

func (r *rig) list(args ...string) []listed {
	r.t.Helper()
	return parse[[]listed](r.run(append([]string{"list", "--json"}, args...)...).want(cli.ExitOK))
}

func handles(list []listed) (h []string) {
	for _, l := range list {
		h = append(h, l.Handle)
	}
	slices.Sort(h)
	return h
}

func TestList(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  session.Config
		opts session.PostgresOptions
	}{
		{"plain", session.Config{Secret: secret}, session.PostgresOptions{}},
		{"encrypted with an old secret", session.Config{Secret: oldSecret, Encrypt: true, UserKey: "userId"}, session.PostgresOptions{}},
		{"hashed IDs", session.Config{Secret: secret}, session.PostgresOptions{HashIDs: true}},
		{"another table", session.Config{Secret: secret}, session.PostgresOptions{Schema: `it's "mine"`, Table: "se.ssion"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			m := r.manager(tt.cfg, tt.opts)
			ada, her, bob := r.login(m, 42), r.login(m, 42), r.login(m, 7)
			her.visit((*session.Session).Renew)
			where := []string{}
			if tt.opts.HashIDs {
				where = append(where, "--hash-ids")
			}
			if tt.opts.Table != "" {
				where = append(where, "--schema", tt.opts.Schema, "--table", tt.opts.Table)
			}
			if got, want := handles(r.list(where...)), slices.Sorted(slices.Values([]string{ada.handle(), her.handle(), bob.handle()})); !slices.Equal(got, want) {
				t.Errorf("all: got %v, want %v", got, want)
			}
			of := r.list(append(where, "--key", "userId", "--value", "42")...)
			if got, want := handles(of), slices.Sorted(slices.Values([]string{ada.handle(), her.handle()})); !slices.Equal(got, want) {
				t.Errorf("of user 42: got %v, want %v", got, want)
			}
			for _, l := range of {
				if l.Token == nil || *l.Token || l.Bound == nil || *l.Bound {
					t.Errorf("client: got %v and %v, want a cookie, not bound", l.Token, l.Bound)
				}
				if l.CreatedAt == nil || l.RenewedAt == nil || l.LastSeenAt == nil || l.ExpiresAt == nil ||
					time.Since(*l.CreatedAt) > time.Minute || time.Until(*l.ExpiresAt) < 23*time.Hour {
					t.Errorf("times: got %+v, want all of them, just now and in a day", l)
				}
			}
			if got := r.list(append(where, "--key", "userId", "--value", "43")...); len(got) != 0 || got == nil {
				t.Errorf("of nobody: got %v, want an empty list", got)
			}
			r.run(append(where, "list")...).want(cli.ExitOK, "HANDLE", "LAST SEEN", ada.handle())
			r.run(append(where, "list", "--limit", "1")...).want(cli.ExitOK, "only the last seen is listed, of 3")

			r.run(append(where, "destroy", her.handle())...).want(cli.ExitOK, "1 live session ended")
			if ada.user() != 42 || her.user() != 0 || bob.user() != 7 {
				t.Errorf("after destroy by handle: got users %d, %d, %d, want 42, 0, 7", ada.user(), her.user(), bob.user())
			}
			if got := parse[struct{ Destroyed int }](r.run(append(where, "destroy", "--json", "--key", "userId", "--value", "42")...).want(cli.ExitOK)); got.Destroyed != 1 || ada.user() != 0 || bob.user() != 7 {
				t.Errorf("after destroy by value: got %d, users %d and %d, want 1, 0 and 7", got.Destroyed, ada.user(), bob.user())
			}
		})
	}
}

// A row of Express has no times of its own.
func TestListARowOfExpress(t *testing.T) {
	r := newRig(t)
	r.manager(session.Config{Secret: secret}, session.PostgresOptions{})
	r.exec(`INSERT INTO schema_system.session VALUES ('an-id-of-express-0123456789abcdef', '{"cookie":{"originalMaxAge":60000}}', now() + interval '1 minute')`)
	if got := r.list(); len(got) != 1 || got[0].CreatedAt != nil || got[0].RenewedAt != nil || got[0].LastSeenAt == nil {
		t.Errorf("got %+v, want no creation and no renewal", got)
	}
	r.run("list").want(cli.ExitOK, "-")
}

// Without the secret a search by value would pass over encrypted sessions, and
// destroy would leave them alive.
func TestEncryptedSessionsNeedTheSecret(t *testing.T) {
	r := newRig(t)
	m := r.manager(session.Config{Secret: secret, Encrypt: true, UserKey: "userId"}, session.PostgresOptions{})
	ada := r.login(m, 42)
	t.Setenv("SESSION_SECRET", "")
	for _, command := range []string{"list", "destroy"} {
		r.run(command, "--key", "userId", "--value", "42").want(cli.ExitFailed, "set SESSION_SECRET")
	}
	if got := r.list(); len(got) != 1 {
		t.Errorf("all, without the secret: got %d, want 1", len(got))
	}
	r.run("rotate").want(cli.ExitFailed, "set SESSION_SECRET")
	if ada.user() != 42 {
		t.Error("the session has ended")
	}
}

// The secrets may be in files, as the programs have them. One that cannot be read
// is not a secret that is not there.
func TestSecretsFromFiles(t *testing.T) {
	r := newRig(t)
	m := r.manager(session.Config{Secret: oldSecret, Encrypt: true, UserKey: "userId"}, session.PostgresOptions{})
	r.login(m, 42)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("SESSION_SECRET", "")
	t.Setenv("SESSION_SECRET_OLD", "")
	t.Setenv("SESSION_SECRET_FILE", file("current", secret+"\n"))
	list := []string{"list", "--key", "userId", "--value", "42"}
	r.run(list...).want(cli.ExitFailed, "opened by no secret given here")
	t.Setenv("SESSION_SECRET_OLD_FILE", file("old", oldSecret+"\n"))
	r.run(list...).want(cli.ExitOK, "HANDLE")
	r.run("rotate", "--dry-run").want(cli.ExitFailed)
	r.run("rotate").want(cli.ExitOK)
	r.run("doctor").want(cli.ExitOK, "1 old ones")
	t.Setenv("SESSION_SECRET_FILE", file("weak", "keyboard cat"))
	r.run("doctor").want(cli.ExitErrors, "openssl rand -base64 48")
	r.run("rotate").want(cli.ExitFailed, "tutorials and templates")
	r.run("list").want(cli.ExitOK, "HANDLE") // New refuses such a secret, and its sessions must be ended all the same
	t.Setenv("SESSION_SECRET_FILE", filepath.Join(dir, "missing"))
	for _, args := range [][]string{list, {"destroy", "--key", "userId", "--value", "42"}, {"rotate"}, {"doctor"}} {
		if res := r.run(args...); res.code == cli.ExitOK || !strings.Contains(res.err, "SESSION_SECRET_FILE") || strings.Contains(res.out+res.err, oldSecret) {
			t.Errorf("%v without the file: got code %d, %s, want a failure that names the variable", args, res.code, res.err)
		}
	}
	if got := r.rows(); got != 1 {
		t.Errorf("rows: got %d, want 1", got)
	}
}

// What a trigger of the database says may quote a row.
func TestErrorsAreDiscreet(t *testing.T) {
	r := newRig(t)
	m := r.manager(session.Config{Secret: secret}, session.PostgresOptions{})
	r.login(m, 42)
	r.exec(`CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the row: % %', OLD.sid, OLD.sess USING DETAIL = OLD.sess; END $$;
		CREATE TRIGGER refuse BEFORE DELETE ON schema_system.session FOR EACH ROW EXECUTE FUNCTION public.refuse()`)
	for _, args := range [][]string{{"destroy", "--all", "--yes"}, {"destroy", "--key", "userId", "--value", "42"}} {
		for _, args := range [][]string{args, append(args, "--json")} {
			if res := r.run(args...).want(cli.ExitFailed, "P0001"); strings.Contains(res.out+res.err, "the row") {
				t.Errorf("%v: got %s%s, want no row", args, res.out, res.err)
			}
		}
	}
}

func TestDestroyAll(t *testing.T) {
	r := newRig(t)
	m := r.manager(session.Config{Secret: secret}, session.PostgresOptions{})
	for _, tt := range []struct {
		name, typed string
		args        []string
		code, left  int
		words       string
	}{
		{"nobody answers", "", nil, cli.ExitFailed, 3, "use --yes"},
		{"yes is not the name", "yes\n", nil, cli.ExitFailed, 3, "nothing was ended"},
		{"the name", "schema_system.session\n", nil, cli.ExitOK, 0, "all 3 live sessions"},
		{"--yes", "", []string{"--yes"}, cli.ExitOK, 0, "3 live sessions ended"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.exec("DELETE FROM schema_system.session")
			for n := range 3 {
				r.login(m, int64(n))
			}
			r.in = strings.NewReader(tt.typed)
			r.run(append([]string{"destroy", "--all"}, tt.args...)...).want(tt.code, tt.words)
			if got := r.rows(); got != tt.left {
				t.Errorf("sessions left: got %d, want %d", got, tt.left)
			}
		})
	}
	t.Run("Ctrl-C at the question", func(t *testing.T) {
		r.exec("DELETE FROM schema_system.session")
		r.login(m, 1)
		pipe, w := io.Pipe()
		defer w.Close()
		r.in = pipe
		ctx, cancel := context.WithCancel(t.Context())
		r.runWith(ctx, func(s string) {
			if strings.Contains(s, "Type schema_system.session") {
				cancel()
			}
		}, "destroy", "--all").want(cli.ExitInterrupted)
		if got := r.rows(); got != 1 {
			t.Errorf("sessions left: got %d, want 1", got)
		}
	})
}

func TestUsage(t *testing.T) {
	r := newRig(t)
	r.manager(session.Config{Secret: secret}, session.PostgresOptions{})
	id := "Wq3vT8s0ZrYxKcB5nMfLhJdPgUaEoI7t" // as somebody may paste it
	for _, tt := range []struct {
		args  []string
		code  int
		words string
	}{
		{[]string{"frobnicate"}, cli.ExitUsage, "unknown command"},
		{[]string{"list", "--frobnicate"}, cli.ExitUsage, "unknown flag"},
		{[]string{"list", "--key", "userId"}, cli.ExitUsage, "belong together"},
		{[]string{"list", "--limit", "0"}, cli.ExitUsage, "1 to 1000"},
		{[]string{"list", "--key", "cookie", "--value", "x"}, cli.ExitFailed, "reserved"},
		{[]string{"destroy"}, cli.ExitUsage, "name the sessions in one way"},
		{[]string{"destroy", "--all", "--key", "userId", "--value", "1"}, cli.ExitUsage, "in one way"},
		{[]string{"destroy", id}, cli.ExitUsage, "argument 1 is no handle"},
		{[]string{"list", "--table", strings.Repeat("x", 64)}, cli.ExitUsage, "63 bytes"},
		{[]string{"list", "--table", "sessions"}, cli.ExitFailed, "sessionctl schema --apply"},
		{[]string{"prune", "--table", "sessions"}, cli.ExitFailed, "sessionctl schema --apply"},
		{[]string{"stats", "--table", "sessions"}, cli.ExitFailed, "sessionctl schema --apply"},
		{[]string{"rotate", "--hash-ids"}, cli.ExitFailed, "not possible with hashed IDs"},
		{[]string{"prnue"}, cli.ExitUsage, "did you mean prune?"},
		{[]string{"doc"}, cli.ExitUsage, "did you mean doctor?"},
		{[]string{"destory", "--all"}, cli.ExitUsage, "did you mean destroy?"},
		{[]string{"--shcema", "app", "prune"}, cli.ExitUsage, "did you mean --schema?"},
		{[]string{"destroy", "--al", "--yes"}, cli.ExitUsage, "did you mean --all?"},
		{[]string{"list", "--kye", "userId", "--value", "1"}, cli.ExitUsage, "did you mean --key?"},
		{[]string{"prune", "--shcema", "app"}, cli.ExitUsage, "did you mean --schema?"},
		{[]string{"list", "--limit", id}, cli.ExitUsage, "the value of --limit cannot be read"},
		{[]string{id}, cli.ExitUsage, "unknown command"},
		{[]string{"list", id}, cli.ExitUsage, "list takes no arguments"},
		{[]string{"destroy", "-" + id[1:]}, cli.ExitUsage, "no flag of one letter"},
		{[]string{"destroy", "--" + id[2:]}, cli.ExitUsage, "unknown flag"},
		{nil, cli.ExitOK, "Available Commands"},
	} {
		res := r.run(tt.args...).want(tt.code, tt.words)
		if strings.Contains(res.out+res.err, id[2:]) {
			t.Errorf("%v: an argument that may be a session ID is repeated", tt.args[0])
		}
		if tt.code == cli.ExitOK {
			continue
		}
		if res.out != "" {
			t.Errorf("%v: got %q on standard output, want nothing", tt.args, res.out)
		}
		if res := r.run(append([]string{"--json"}, tt.args...)...); tt.words != "unknown flag" && !strings.HasPrefix(res.err, `{"error":"`) {
			t.Errorf("--json %v: got %q, want an object", tt.args, res.err)
		}
	}
	if get[bool](r, "SELECT to_regclass('schema_system.sessions') IS NOT NULL") {
		t.Error("a mistyped name has made a table")
	}
}

func TestNoConnection(t *testing.T) {
	r := newRig(t)
	c := r.pool.Config().ConnConfig
	for _, tt := range []struct{ name, url, words string }{
		{"nobody listens", "postgres://ada:" + password + "@127.0.0.1:1/shop", `database "shop", user "ada" does not answer`},
		{"no such database", strings.Replace(r.url, c.Database, "nowhere", 1), "createdb"},
		{"not a URL", "postgres://ada:" + password + "%@/shop?port=x", "postgres://user:password@host:5432/database?connect_timeout=2"},
		{"none", "", "Set DATABASE_URL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, name := range []string{"DATABASE_URL", "PGHOST", "PGUSER", "PGDATABASE", "PGSERVICE"} {
				t.Setenv(name, "")
			}
			if tt.url != "" {
				for _, command := range []string{"doctor", "stats", "list", "prune", "rotate"} {
					r.run(command, "--database-url", tt.url).want(cli.ExitUnconnected, tt.words)
				}
			}
			t.Setenv("DATABASE_URL", tt.url)
			r.run("list").want(cli.ExitUnconnected, tt.words)
		})
	}
}

func TestCompletionVersionHelp(t *testing.T) {
	r := newRig(t)
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		res := r.run("completion", shell).want(cli.ExitOK, "sessionctl")
		if _, err := exec.LookPath(shell); err != nil || shell == "powershell" {
			continue
		}
		file := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(file, []byte(res.out), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(shell, "-n", file).CombinedOutput(); err != nil {
			t.Errorf("%s -n: %v\n%s", shell, err, out)
		}
	}
	if _, err := exec.LookPath("bash"); err != nil {
		t.Error("no bash to check the script with: apt-get install bash")
	}
	for want, typed := range map[string][]string{"rotate": {"ro"}, "--index-key": {"schema", "--ind"}, "--key": {"destroy", "--k"}} {
		r.run(append([]string{"__complete"}, typed...)...).want(cli.ExitOK, want)
	}
	r.run("version").want(cli.ExitOK, "sessionctl", "library", "go1.")
	if v := parse[struct{ Version, Library, Go, Revision string }](r.run("version", "--json").want(cli.ExitOK)); !strings.HasPrefix(v.Go, "go1.") {
		t.Errorf("version: got %+v, want Go's", v)
	}
	for _, command := range []string{"schema", "doctor", "stats", "list", "destroy", "prune", "rotate", "version", "completion"} {
		r.run(command, "--help").want(cli.ExitOK, "Usage:")
	}
}

// An encrypted session is found by the programs' user key alone, and with their
// secrets alone. Nothing else is "0 ended".
func TestWhatCannotBeFoundIsAnError(t *testing.T) {
	for _, tt := range []struct {
		name   string
		cfg    session.Config
		hashed bool
		secret string
		key    string
		code   int
		words  string
	}{
		{"the user key", session.Config{Secret: secret, Encrypt: true, UserKey: "userId"}, false, secret, "userId", cli.ExitOK, "1 live session ended"},
		{"another key", session.Config{Secret: secret, Encrypt: true, UserKey: "userId"}, false, secret, "note", cli.ExitFailed, `cannot be searched by the key "note": only by the programs' Config.UserKey (here it is userId)`},
		{"no user key", session.Config{Secret: secret, Encrypt: true}, false, secret, "userId", cli.ExitFailed, "the programs set none"},
		{"another secret", session.Config{Secret: strings.ToUpper(secret), Encrypt: true, UserKey: "userId"}, false, secret, "userId", cli.ExitFailed, "1 of 1 encrypted sessions that were looked at are opened by no secret"},
		{"a key that no session has", session.Config{Secret: secret, Encrypt: true, UserKey: "userId"}, false, secret, "tenant", cli.ExitOK, "no live session: none was ended"},
		{"hashed IDs, the user key", session.Config{Secret: secret, Encrypt: true, UserKey: "userId"}, true, secret, "userId", cli.ExitOK, "1 live session ended"},
		{"hashed IDs, another key", session.Config{Secret: secret, Encrypt: true, UserKey: "userId"}, true, secret, "note", cli.ExitFailed, "here it is userId"},
		{"hashed IDs, another secret", session.Config{Secret: strings.ToUpper(secret), Encrypt: true, UserKey: "userId"}, true, secret, "userId", cli.ExitFailed, "cannot be told whether SESSION_SECRET"},
		{"plain", session.Config{Secret: secret}, false, secret, "userId", cli.ExitOK, "1 live session ended"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			ada := r.login(r.manager(tt.cfg, session.PostgresOptions{HashIDs: tt.hashed}), 42)
			t.Setenv("SESSION_SECRET", tt.secret)
			where := []string{}
			if tt.hashed {
				where = append(where, "--hash-ids")
			}
			args := append(where, "--key", tt.key, "--value", "42")
			if tt.code != cli.ExitOK {
				r.run(append([]string{"list"}, args...)...).want(tt.code, tt.words)
			}
			res := r.run(append([]string{"destroy"}, args...)...).want(tt.code, tt.words)
			if ended := strings.Contains(res.out, "1 live"); ended != (ada.user() == 0) || tt.code != cli.ExitOK && strings.Contains(res.out, "0 live") && !tt.hashed {
				t.Errorf("got %q, and user %d", res.out, ada.user())
			}
		})
	}
	t.Run("one of two secrets", func(t *testing.T) {
		r := newRig(t)
		cfg := session.Config{Secret: secret, Encrypt: true, UserKey: "userId"}
		ada := r.login(r.manager(cfg, session.PostgresOptions{}), 42)
		cfg.Secret = strings.ToUpper(secret)
		lost := r.login(r.manager(cfg, session.PostgresOptions{}), 42)
		r.run("destroy", "--key", "userId", "--value", "42").want(cli.ExitFailed, "1 live session ended", "1 of 2 encrypted sessions")
		if ada.user() != 0 || lost.user() != 42 {
			t.Errorf("got users %d and %d, want the one ended that can be found", ada.user(), lost.user())
		}
	})
}

// The list says where it stops.
func TestListStops(t *testing.T) {
	r := newRig(t)
	r.manager(session.Config{Secret: secret}, session.PostgresOptions{})
	const insert = `INSERT INTO schema_system.session SELECT 'many' || n, '{"cookie":{},"userId":9}', now() + n * interval '1 minute' FROM generate_series($1::int, $2::int) n`
	r.exec(insert, 1, 999)
	if res := r.run("list").want(cli.ExitOK); res.err != "" {
		t.Errorf("of 999: got %q, want nothing said", res.err)
	}
	r.exec(insert, 1000, 1001)
	r.run("list").want(cli.ExitOK, "only the 1,000 that expire last are listed", "stats counts all")
	r.run("list", "--key", "userId", "--value", "9").want(cli.ExitOK, "only the 1,000")
	res := r.run("list", "--json").want(cli.ExitOK)
	if got := parse[[]listed](res); len(got) != 1000 || !strings.HasPrefix(res.err, `{"note":"only the 1,000`) {
		t.Errorf("--json: got %d and %q, want 1000 and a note", len(got), res.err)
	}
	r.run("list", "--limit", "5").want(cli.ExitOK, "only the 5 last seen")
}

// Ctrl-C ends destroy after the batch, or the handle, under way, and says how many
// sessions were ended.
func TestDestroyInterrupted(t *testing.T) {
	r := newRig(t)
	r.manager(session.Config{Secret: secret}, session.PostgresOptions{})
	r.exec(`INSERT INTO schema_system.session SELECT md5(n::text), '{"cookie":{}}', now() + interval '1 hour' FROM generate_series(1, 6000) n`)
	ctx, cancel := context.WithCancel(t.Context())
	res := r.runWith(ctx, func(s string) {
		if strings.HasPrefix(s, "ended ") {
			cancel()
		}
	}, "destroy", "--all", "--yes")
	left := r.rows()
	if left == 0 || left == 6000 || left%500 != 0 {
		t.Errorf("got %d of 6000 left, want whole batches of 500 ended", left)
	}
	res.want(cli.ExitInterrupted, fmt.Sprintf("interrupted: %s sessions were ended", strings.TrimPrefix(fmt.Sprintf("%d,%03d", (6000-left)/1000, (6000-left)%1000), "0,")))
	r.run("destroy", "--all", "--yes").want(cli.ExitOK, "live sessions ended")
	if got := r.rows(); got != 0 {
		t.Errorf("again: got %d left, want none", got)
	}

	m := r.manager(session.Config{Secret: secret}, session.PostgresOptions{})
	ada, bob := r.login(m, 1), r.login(m, 2)
	ctx, cancel = context.WithCancel(t.Context())
	tx, err := r.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	unlock := sync.OnceFunc(func() { _ = tx.Rollback(context.Background()) })
	defer unlock()
	if _, err := tx.Exec(t.Context(), "SELECT FROM schema_system.session FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	go func() { // while the first waits for its row
		defer unlock()
		defer cancel()
		for waiting := false; !waiting; {
			err := r.pool.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'sessionctl' AND wait_event_type = 'Lock'), pg_sleep(0.02)::text").Scan(&waiting, nil)
			if err != nil {
				t.Error(err)
				return
			}
		}
	}()
	r.runWith(ctx, nil, "destroy", ada.handle(), bob.handle()).want(cli.ExitInterrupted, "interrupted: 1 session was ended")
	if ada.user() != 0 || bob.user() != 2 {
		t.Errorf("got users %d and %d, want the first ended and the other not", ada.user(), bob.user())
	}
}

// What is renewed while all are ended is ended too, whatever its new ID.
func TestDestroyAllBesideRenewals(t *testing.T) {
	r := newRig(t)
	m := r.manager(session.Config{Secret: secret}, session.PostgresOptions{})
	r.exec(`INSERT INTO schema_system.session SELECT encode(sha256(n::text::bytea), 'base64'), '{"cookie":{}}', now() + interval '1 hour' FROM generate_series(1, 3000) n`)
	var all []*browser
	for n := range 60 { // of 60 new IDs some are among those that were passed
		all = append(all, r.login(m, int64(n+1)))
	}
	renewed := false
	r.runWith(t.Context(), func(s string) {
		if strings.HasPrefix(s, "ended ") && !renewed { // some have been passed
			renewed = true
			for _, b := range all {
				b.visit((*session.Session).Renew)
			}
		}
	}, "destroy", "--all", "--yes").want(cli.ExitOK)
	for _, b := range all {
		if b.user() != 0 {
			t.Fatal("a session that was renewed meanwhile lives on")
		}
	}
	if !renewed {
		t.Error("nothing was renewed")
	}
}
