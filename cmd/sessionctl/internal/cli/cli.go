// Package cli is the command sessionctl.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgsession/session/internal/pgrun"
)

// Exit codes. Those up to 3 are what monitoring systems know as ok, warning,
// critical and unknown.
const (
	ExitOK          = 0
	ExitFailed      = 1 // doctor: warnings; rotate: records remain under an old secret
	ExitErrors      = 2 // doctor only
	ExitUnconnected = 3
	ExitUsage       = 64
	ExitInterrupted = 130
)

// IO is what a command talks to.
type IO struct {
	In       io.Reader
	Out, Err io.Writer
}

// app is one call of the command.
type app struct {
	IO
	url, schema, table string
	outbox, outboxUser string
	hashIDs, json      bool
	started            bool // its arguments made sense
}

// codeError ends the command with a code. Without an error the command has said
// itself what there is to say.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *codeError) Unwrap() error { return e.err }

func usage(format string, args ...any) error {
	return &codeError{ExitUsage, fmt.Errorf(format, args...)}
}

// Run carries out the command and returns its exit code. When ctx ends it stops
// after the batch under way.
func Run(ctx context.Context, args []string, std IO) int {
	a := &app{IO: std}
	root := a.root(args)
	root.SetArgs(args)
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	readable(root)
	err := root.ExecuteContext(ctx)
	var code *codeError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &code):
		if code.err != nil {
			a.fail(err)
		}
		return code.code
	case ctx.Err() != nil:
		a.fail(errors.New("interrupted"))
		return ExitInterrupted
	case !a.started:
		a.fail(fmt.Errorf("%w (sessionctl help shows the usage)", err))
		return ExitUsage
	}
	a.fail(err)
	return ExitFailed
}

// fail prints an error.
func (a *app) fail(err error) {
	text := strings.ReplaceAll(pgrun.Scrub(err).Error(), "session: ", "")
	if a.json {
		_ = json.NewEncoder(a.Err).Encode(map[string]string{"error": text})
		return
	}
	fmt.Fprintln(a.Err, "sessionctl: "+text)
}

func (a *app) root(args []string) *cobra.Command {
	root := &cobra.Command{
		Use:   "sessionctl",
		Short: "Look after the table of sessions of github.com/pgsession/session",
		Long: `Look after the table of sessions of github.com/pgsession/session.

The database is that of --database-url, else of DATABASE_URL, else of PGHOST,
PGUSER and the other variables that psql knows. A URL on the command line can be
seen by other users of this machine, so DATABASE_URL is better. Commands that
meet encrypted sessions need SESSION_SECRET and SESSION_SECRET_OLD.

Nothing ever shows a session ID, data, a password or a secret. What names a
session is a handle, from which nobody can tell the ID.

Exit codes: 0 done; 1 failed (doctor: warnings); 2 doctor: errors;
3 no connection to the database; 64 wrong usage; 130 interrupted.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArguments,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			const longest = 63
			if a.schema == "" || a.table == "" || len(a.schema) > longest || len(a.table) > longest {
				return fmt.Errorf("--schema and --table must have 1 to %d bytes, as every name in PostgreSQL", longest)
			}
			if a.outboxUser != "" && a.outbox == "" || len(a.outbox) > longest {
				return fmt.Errorf("--outbox-user needs --outbox, which must have at most %d bytes", longest)
			}
			a.started = true
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.url, "database-url", "", "where the database is, such as\npostgres://user:password@host:5432/database?connect_timeout=2 (default $DATABASE_URL)")
	flags.StringVar(&a.schema, "schema", "schema_system", "the table's schema, as in PostgresOptions.Schema")
	flags.StringVar(&a.table, "table", "session", "the table, as in PostgresOptions.Table")
	flags.StringVar(&a.outbox, "outbox", "", "the programs' PostgresOptions.Outbox: what ends here is in it too (default none)")
	flags.StringVar(&a.outboxUser, "outbox-user", "", "the programs' PostgresOptions.OutboxUser (default none)")
	flags.BoolVar(&a.hashIDs, "hash-ids", false, "the programs set PostgresOptions.HashIDs")
	flags.BoolVar(&a.json, "json", false, "print JSON, with field names that do not change")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return flagError(cmd, err, args) })
	root.AddCommand(a.schemaCommand(), a.doctorCommand(), a.statsCommand(), a.listCommand(), a.destroyCommand(),
		a.pruneCommand(), a.rotateCommand(), a.versionCommand())
	return root
}
