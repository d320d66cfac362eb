package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/secret"
)

// rotated is the answer of rotate.
type rotated struct {
	Sessions    int64  `json:"sessions"`    // live ones looked at
	Plain       int64  `json:"plain"`       // not encrypted
	Current     int64  `json:"current"`     // sealed with the current secret before
	Resealed    int64  `json:"resealed"`    // now
	Unopened    int64  `json:"unopened"`    // no secret opens them; left alone
	Remaining   *int64 `json:"remaining"`   // sealed with an old secret afterwards; null: not known
	DryRun      bool   `json:"dryRun"`      //
	Interrupted bool   `json:"interrupted"` //
}

func (a *app) rotateCommand() *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Reseal encrypted sessions after a change of the secret",
		Long: `Seal anew, with SESSION_SECRET, every encrypted session that only a secret of
SESSION_SECRET_OLD opens, so that the old one can be dropped. Run it when every
program has the new secret.

Nothing is lost by requests that run at the same time, and expiries stay as
they are. Ctrl-C stops it after the batch under way; run again, it passes over
what is done. Sessions that no secret given here opens are left alone. The exit
code is 1 while there are any, or while sessions remain under an old secret: do
not drop one yet.

With hashed IDs (--hash-ids) it is not possible: the key of a session's data
comes from its ID, which the table does not have. A session is then sealed anew
when it is next saved.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.hashIDs {
				return &codeError{ExitFailed, errors.New("not possible with hashed IDs: the key of a session's data comes from its ID, which the table does not have. Keep SESSION_SECRET_OLD as long as your longest idle timeout")}
			}
			given, err := secrets()
			if len(given) == 0 {
				return errors.Join(errors.New("set SESSION_SECRET, and SESSION_SECRET_OLD to the secrets before it, as the programs have them"), err)
			}
			if v, why := secret.Judge(given[0]); v == secret.Public {
				return &codeError{ExitFailed, fmt.Errorf("SESSION_SECRET %s. The library refuses it, and nothing is sealed with it: give every program a new one, and this one in SESSION_SECRET_OLD", why)}
			}
			return a.rotate(cmd.Context(), dry)
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "count, and change nothing")
	return cmd
}

func (a *app) rotate(ctx context.Context, dry bool) error {
	d, _, m, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer d.close()
	total, err := d.count(ctx, live)
	if err != nil {
		return err
	}
	bar := a.progress("looked at", total)
	n, err := m.Reseal(ctx, session.ResealOptions{DryRun: dry, Progress: func(n session.ResealCounts) { bar.set(n.Records) }})
	bar.end()
	answer := rotated{
		Sessions: n.Records, Plain: n.Plain, Current: n.Current, Resealed: n.Resealed, Unopened: n.Unopened,
		DryRun: dry, Interrupted: ctx.Err() != nil,
	}
	switch {
	case answer.Interrupted:
	case err != nil && n.Resealed > 0:
		return fmt.Errorf("%s resealed, then: %w", plural(n.Resealed, "session was", "sessions were"), err)
	case err != nil:
		return err
	case dry:
		answer.Remaining = &n.Old
	default:
		if err := a.verify(ctx, m, total, &answer); err != nil {
			return fmt.Errorf("%s resealed, and what remains under an old secret is not known: %w", plural(n.Resealed, "session was", "sessions were"), err)
		}
	}
	return a.printRotated(answer)
}

// verify looks at all sessions once more: others may have sealed with an old secret
// meanwhile.
func (a *app) verify(ctx context.Context, m *session.Manager, total int64, answer *rotated) error {
	bar := a.progress("verified", total)
	n, err := m.Reseal(ctx, session.ResealOptions{DryRun: true, Progress: func(n session.ResealCounts) { bar.set(n.Records) }})
	bar.end()
	answer.Unopened = max(answer.Unopened, n.Unopened)
	switch {
	case err != nil && ctx.Err() != nil:
		answer.Interrupted = true
	case err != nil:
		return err
	default:
		answer.Remaining = &n.Old
	}
	return nil
}

func (a *app) printRotated(r rotated) error {
	remaining := "not known"
	if r.Remaining != nil {
		remaining = number(*r.Remaining)
	}
	if a.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else if err := a.printTable([][]string{
		{"live sessions looked at", number(r.Sessions)},
		{"not encrypted", number(r.Plain)},
		{"sealed with the current secret before", number(r.Current)},
		{"resealed now", number(r.Resealed)},
		{"opened by no secret, left alone", number(r.Unopened)},
		{"remaining under an old secret", remaining},
	}); err != nil {
		return err
	}
	switch {
	case r.Interrupted:
		return &codeError{ExitInterrupted, errors.New("interrupted: run it again to go on, it passes over what is done")}
	case r.Unopened > 0 && r.Current+r.Resealed+*r.Remaining == 0:
		return fmt.Errorf("no secret given here opens any encrypted session (0 of %s). Are SESSION_SECRET and SESSION_SECRET_OLD those of the programs? Keep every old secret", number(r.Unopened))
	case r.Unopened > 0:
		return fmt.Errorf("%s with no secret given here: keep every old secret. Add the one that is missing to SESSION_SECRET_OLD and run this again; where it is lost, wait until they have ended",
			plural(r.Unopened, "session opens", "sessions open"))
	case *r.Remaining > 0 && !r.DryRun:
		return fmt.Errorf("%s under an old secret: some program still seals with it. Give every program the new one, and run this again", plural(*r.Remaining, "session remains", "sessions remain"))
	case *r.Remaining > 0:
		return &codeError{code: ExitFailed}
	case r.Plain == r.Sessions && !a.json:
		a.note("no live session is encrypted: there is nothing to seal anew")
	}
	return nil
}
