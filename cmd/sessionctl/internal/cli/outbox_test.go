package cli_test

import (
	"testing"

	"github.com/pgsession/session/cmd/sessionctl/internal/cli"
)

// What ends from the shell is in the outbox too; a mistyped name makes none.
func TestOutbox(t *testing.T) {
	r := newRig(t)
	r.run("schema", "--apply").want(cli.ExitOK)
	for _, command := range [][]string{{"prune"}, {"doctor"}, {"destroy", "--all", "--yes"}} {
		args := append(command, "--outbox", "box")
		if command[0] == "doctor" {
			r.run(args...).want(cli.ExitErrors, "there is no outbox schema_system.box", "schema --apply --outbox box")
		} else {
			r.run(args...).want(cli.ExitFailed, "there is no outbox schema_system.box")
		}
	}
	if get[bool](r, "SELECT to_regclass('schema_system.box') IS NOT NULL") {
		t.Fatal("looking for an outbox has made one")
	}
	r.run("schema", "--apply", "--outbox", "box", "--outbox-user", "userId").want(cli.ExitOK, "made the outbox schema_system.box")
	r.run("schema", "--outbox", "box").want(cli.ExitOK, `CREATE TABLE "schema_system"."box"`)
	r.run("doctor", "--outbox", "box").want(cli.ExitOK, "is read: 0 rows wait")
	r.exec(`INSERT INTO schema_system.session VALUES ('a', '{"cookie":{},"userId":7}', now() - interval '1 minute'), ('b', '{"cookie":{},"userId":8}', now() + interval '1 hour')`)
	r.run("prune", "--outbox", "box", "--outbox-user", "userId").want(cli.ExitOK)
	r.run("destroy", "--all", "--yes", "--outbox", "box", "--outbox-user", "userId").want(cli.ExitOK)
	if got := get[string](r, "SELECT string_agg(kind || ' ' || user_value, ', ' ORDER BY id) FROM schema_system.box"); got != "expired 7, revoked 8" {
		t.Errorf("the outbox: got %q, want expired 7, revoked 8", got)
	}
	r.exec("UPDATE schema_system.box SET at = now() - interval '2 hours'")
	r.run("doctor", "--outbox", "box").want(cli.ExitFailed, "2 rows, the oldest of 2h0m0s ago")
	r.exec("ALTER TABLE schema_system.box DROP COLUMN reason")
	r.run("doctor", "--outbox", "box").want(cli.ExitErrors, "no column reason of type text")
	r.run("prune", "--outbox-user", "userId").want(cli.ExitUsage)
}
