package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgsession/session"
)

// slice is how long the library prunes between two words about progress. Each time
// it goes on where the last one ended.
var slice = 500 * time.Millisecond

// restful lets the library rest between batches however long it takes.
const restful = 24 * time.Hour

// pruned is the answer of prune.
type pruned struct {
	Pruned      int64 `json:"pruned"`
	Left        int64 `json:"left"` // expired rows that are still there
	Interrupted bool  `json:"interrupted"`
}

func (a *app) pruneCommand() *cobra.Command {
	var fast bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Delete expired rows",
		Long: `Delete expired rows, in small batches with rests between them, so that requests
do not feel it (about 6,000 rows a second). It may run beside programs that
prune, and other calls of itself. Ctrl-C stops it after the batch under way.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			d, store, _, err := a.open(ctx)
			if err != nil {
				return err
			}
			defer d.close()
			total, err := d.count(ctx, expired)
			if err != nil {
				return err
			}
			within := restful
			if fast {
				within = 0
			}
			answer, err := a.prune(ctx, store, within, total)
			if err == nil || answer.Interrupted {
				answer.Left, err = d.count(context.WithoutCancel(ctx), expired)
			}
			switch {
			case err != nil && answer.Pruned > 0:
				return fmt.Errorf("%s deleted, then: %w", plural(answer.Pruned, "expired row", "expired rows"), err)
			case err != nil:
				return err
			}
			return a.printPruned(answer)
		},
	}
	cmd.Flags().BoolVar(&fast, "fast", false, "do not rest between batches: for a table that nobody uses")
	return cmd
}

// prune lets the library prune for short times, until one is not used up.
func (a *app) prune(ctx context.Context, store *session.PostgresStore, within time.Duration, total int64) (pruned, error) {
	var answer pruned
	bar := a.progress("pruned", total)
	defer bar.end()
	for {
		short, cancel := context.WithTimeout(ctx, slice)
		n, err := store.Prune(short, within)
		used := short.Err() != nil
		cancel()
		answer.Pruned += n
		bar.set(answer.Pruned)
		answer.Interrupted = ctx.Err() != nil
		if err != nil || answer.Interrupted || !used {
			return answer, err
		}
	}
}

func (a *app) printPruned(p pruned) error {
	if a.json {
		if err := a.printJSON(p); err != nil {
			return err
		}
	}
	if p.Pruned == 0 && p.Left == 0 && !p.Interrupted {
		a.say("no expired row: there is nothing to delete")
	} else {
		a.say("%s deleted, %s left", plural(p.Pruned, "expired row", "expired rows"), number(p.Left))
	}
	switch {
	case p.Interrupted:
		return &codeError{ExitInterrupted, errors.New("interrupted: run it again to go on")}
	case p.Left > 0 && !a.json:
		a.note("those left are locked by somebody, or expired just now: run it again. If they stay, a trigger, a rule or row-level security keeps them: %s", a.where().Command("doctor"))
	}
	return nil
}
