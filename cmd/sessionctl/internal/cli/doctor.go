package cli

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgsession/session"
	"github.com/pgsession/session/cmd/sessionctl/internal/doctor"
)

func (a *app) doctorCommand() *cobra.Command {
	var keys []string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Examine the table, the database and the secret, and say what to do",
		Long: `Examine the table, the database, the way to it and the secret. It changes nothing.
Run it with the environment of the program: DATABASE_URL, PGTZ, SESSION_SECRET and
SESSION_SECRET_OLD.

The exit code is 0 if there is nothing worse than hints, 1 with warnings, 2 with
errors, 3 if the database cannot be reached: what monitoring systems expect.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			d, err := a.connect(ctx)
			if err != nil {
				return err
			}
			defer d.close()
			cfg, err := session.ConfigFromEnv() // also from files; what is wrong with it the program says
			if err != nil && os.Getenv("SESSION_SECRET_FILE")+os.Getenv("SESSION_SECRET_OLD_FILE") != "" {
				return err
			}
			report, err := doctor.Run(ctx, doctor.Options{
				Program: d.program, Pool: d.pool, Schema: a.schema, Table: a.table, HashIDs: a.hashIDs, IndexKeys: keys,
				Outbox: a.outbox, OutboxUser: a.outboxUser,
				Open: func(ctx context.Context) (*session.Manager, error) {
					_, m, err := d.manager(ctx)
					return m, err
				},
				Secret: cfg.Secret, OldSecrets: cfg.OldSecrets, Now: time.Now,
			})
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil:
				return &codeError{ExitUnconnected, fmt.Errorf("the database has stopped answering: %w", err)}
			}
			if err := a.printReport(&report); err != nil {
				return err
			}
			switch report.Level {
			case doctor.Error:
				return &codeError{code: ExitErrors}
			case doctor.Warning:
				return &codeError{code: ExitFailed}
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&keys, "index-key", nil, "a key of PostgresOptions.IndexKeys, whose index must be there; may be repeated")
	return cmd
}

func (a *app) printReport(r *doctor.Report) error {
	if a.json {
		return a.printJSON(r)
	}
	colours := map[doctor.Level]string{doctor.OK: green, doctor.Hint: blue, doctor.Warning: yellow, doctor.Error: red}
	var rows [][]string
	counts := map[doctor.Level]int{}
	for _, f := range r.Findings {
		counts[f.Level]++
		rows = append(rows, []string{a.colour(colours[f.Level], f.Level.String()), f.Check, f.What})
		if f.Advice != "" {
			rows = append(rows, []string{a.colour(plain, ""), "", "→ " + f.Advice})
		}
		for _, sql := range f.SQL {
			rows = append(rows, []string{a.colour(plain, ""), "", "  " + sql})
		}
	}
	if err := a.printTable(rows); err != nil {
		return err
	}
	a.say("\n%s on PostgreSQL %s: %d errors, %d warnings, %d hints, %d ok", r.Table, r.Server,
		counts[doctor.Error], counts[doctor.Warning], counts[doctor.Hint], counts[doctor.OK])
	return nil
}
