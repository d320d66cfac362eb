package cli_test

import (
	"strings"
	"testing"

	"github.com/pgsession/session"
	"github.com/pgsession/session/cmd/sessionctl/internal/cli"
	"github.com/pgsession/session/internal/hostile"
)

// Every command, in a database where somebody has made a twin of everything that
// a statement can name, on either search path: none is ever called.
func TestHostileSchema(t *testing.T) {
	db := hostile.New(t)
	for _, path := range hostile.Paths {
		for _, column := range []string{"timestamp(6)", "timestamptz"} {
			t.Run(path+" "+column, func(t *testing.T) {
				r := newRigOn(t, db.Clean())
				run := func(code int, args ...string) {
					t.Helper()
					res := r.run(args...)
					if name := hostile.Named(res.out + res.err); name != "" {
						t.Errorf("%s called: %s", strings.Join(args, " "), name)
					}
					res.want(code)
				}
				r.exec("DROP SCHEMA IF EXISTS schema_system CASCADE")
				t.Setenv("DATABASE_URL", db.URL(path)+"&connect_timeout=5")
				run(cli.ExitOK, "schema", "--apply", "--index-key", "userId")
				r.exec("ALTER TABLE schema_system.session ALTER COLUMN expire TYPE " + column)
				run(cli.ExitOK, "schema", "--apply", "--index-key", "userId")
				run(cli.ExitErrors, "doctor", "--table", "none")
				m := r.manager(session.Config{Secret: oldSecret, Encrypt: true, UserKey: "userId"}, session.PostgresOptions{})
				plain := r.manager(session.Config{Secret: secret}, session.PostgresOptions{})
				ada, bob := r.login(m, 42), r.login(plain, 7)
				r.exec(insertExpired, 120)
				run(cli.ExitOK, "doctor", "--index-key", "userId")
				run(cli.ExitOK, "stats")
				run(cli.ExitOK, "list")
				run(cli.ExitOK, "list", "--key", "userId", "--value", "42")
				run(cli.ExitFailed, "rotate", "--dry-run")
				run(cli.ExitOK, "rotate")
				run(cli.ExitOK, "prune")
				run(cli.ExitOK, "destroy", bob.handle())
				run(cli.ExitOK, "destroy", "--key", "userId", "--value", "42")
				run(cli.ExitOK, "destroy", "--all", "--yes")
				if ada.user() != 0 || bob.user() != 0 || r.rows() != 0 {
					t.Errorf("got users %d and %d and %d rows, want all ended and pruned", ada.user(), bob.user(), r.rows())
				}
			})
		}
	}
}
