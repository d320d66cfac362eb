package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgsession/session"
)

func (a *app) schemaCommand() *cobra.Command {
	var keys []string
	var apply bool
	cmd := &cobra.Command{
		Use:   "schema",
		Short: "Print the SQL that makes the table, or run it",
		Long: `Print the SQL that makes the table and its indexes where they are missing.
It changes nothing that is there, and may run anywhere at the same time:

  sessionctl schema | psql "$DATABASE_URL"

With --apply sessionctl runs it, and checks what is there. An index on a key
lets sessions be found by that key's value in milliseconds; it is made without
blocking anybody, and makes every save a little more work. With --outbox the
table of PostgresOptions.Outbox is made as well.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts := session.PostgresOptions{Schema: a.schema, Table: a.table, HashIDs: a.hashIDs, IndexKeys: keys, Outbox: a.outbox, OutboxUser: a.outboxUser}
			if apply {
				return a.applySchema(cmd.Context(), opts)
			}
			sql := session.SchemaSQL(opts)
			if a.json {
				return a.printJSON(struct {
					Table string `json:"table"`
					SQL   string `json:"sql"`
				}{a.name(), sql})
			}
			_, err := io.WriteString(a.Out, sql)
			return err
		},
	}
	cmd.Flags().BoolVar(&apply, "apply", false, "run it instead of printing it")
	cmd.Flags().StringArrayVar(&keys, "index-key", nil, "also index this key, such as userId; may be repeated")
	return cmd
}

// applied is the answer of schema --apply.
type applied struct {
	Table       string   `json:"table"`
	Made        bool     `json:"made"`        // the table; false: it was there
	OutboxMade  bool     `json:"outboxMade"`  // false: it was there, or none was asked for
	IndexesMade []string `json:"indexesMade"` // keys
	Refused     []string `json:"refused"`     // what the user may not run, and the owner should
}

func (a *app) applySchema(ctx context.Context, opts session.PostgresOptions) error {
	d, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer d.close()
	answer := applied{Table: a.name(), IndexesMade: []string{}, Refused: []string{}}
	opts.Logger = slog.New(&answer)
	if _, err := session.NewPostgresStore(ctx, d.pool, opts); err != nil {
		return err
	}
	if a.json {
		if err := a.printJSON(answer); err != nil {
			return err
		}
	}
	if answer.Made {
		a.say("made the table %s", a.name())
	} else {
		a.say("the table %s was there, and is as it should be", a.name())
	}
	if answer.OutboxMade {
		a.say("made the outbox %s.%s", a.schema, a.outbox)
	}
	for _, key := range answer.IndexesMade {
		a.say("made the index of the key %s", key)
	}
	if len(answer.Refused) > 0 {
		return fmt.Errorf("user %q may not make an index. As the table's owner, run:\n%s", d.program.ConnConfig.User, strings.Join(answer.Refused, ";\n")+";")
	}
	return nil
}

// As a slog.Handler, applied hears what the library has made.
func (*applied) Enabled(context.Context, slog.Level) bool { return true }
func (p *applied) WithAttrs([]slog.Attr) slog.Handler     { return p }
func (p *applied) WithGroup(string) slog.Handler          { return p }

func (p *applied) Handle(_ context.Context, r slog.Record) error {
	attrs := map[string]string{}
	r.Attrs(func(attr slog.Attr) bool {
		attrs[attr.Key] = attr.Value.String()
		return true
	})
	switch {
	case r.Message == "session: table made":
		p.Made = true
	case r.Message == "session: outbox made":
		p.OutboxMade = true
	case r.Message == "session: index made":
		p.IndexesMade = append(p.IndexesMade, attrs["key"])
	case attrs["key"] != "" && attrs["run"] != "":
		p.Refused = append(p.Refused, attrs["run"])
	}
	return nil
}
