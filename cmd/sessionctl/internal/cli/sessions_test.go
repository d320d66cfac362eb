package cli_test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/cmd/sessionctl/internal/cli"
)

type listed struct {
	Handle                                      string
	CreatedAt, RenewedAt, LastSeenAt, ExpiresAt *time.Time
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
				if l.CreatedAt == nil || l.RenewedAt == nil || l.LastSeenAt == nil || l.ExpiresAt == nil ||
					time.Since(*l.CreatedAt) > time.Minute || time.Until(*l.ExpiresAt) < 23*time.Hour {
					t.Errorf("times: got %+v, want all of them, just now and in a day", l)
				}
			}
			if got := r.list(append(where, "--key", "userId", "--value", "43")...); len(got) != 0 || got == nil {
				t.Errorf("of nobody: got %v, want an empty list", got)
			}
			r.run(append(where, "list")...).want(cli.ExitOK, "HANDLE", "LAST SEEN", ada.handle())
			r.run(append(where, "list", "--limit", "1")...).want(cli.ExitOK, "only the 1 last seen")

			r.run(append(where, "destroy", her.handle())...).want(cli.ExitOK, "1 live sessions ended")
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
		{nil, cli.ExitOK, "Available Commands"},
	} {
		res := r.run(tt.args...).want(tt.code, tt.words)
		if strings.Contains(res.out+res.err, id) {
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
		{"not a URL", "postgres://ada:" + password + "%@/shop?port=x", "postgres://user:password@host:5432/database"},
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
