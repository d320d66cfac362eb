package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/backoff"
	"github.com/pgsession/session/internal/batch"
	"github.com/pgsession/session/internal/pgrun"
)

// fate is what has become of a member of a write.
type fate struct {
	what int
	mark string // of a Delete: what is there instead of a record
	told string // of one that is to say it: what it has deleted, as toldRow reads it
}

// What a write says of a member; sqlFates has the numbers.
const (
	fateNone     = iota // there is no such row; of a Create: neither made nor seen
	fateDone            // written
	fateConflict        // the data differs; of a Create: the ID is taken
	fateLocked          // somebody else has locked the row, or has just changed it
	fateKept            // locked by the statement itself, and yet as it was
	fateHidden          // seen, locked by nobody, and yet not to be had
)

// keptTries is how often the database may keep a row as it was before that is an
// error. Once may be a coincidence.
const keptTries = 3

var (
	errKept   = errors.New("PostgreSQL accepts the statement and leaves the row as it was: a trigger (BEFORE … that returns NULL, or OLD at an UPDATE), a rule of the table, or row-level security without a policy for this command (CREATE POLICY) swallows it")
	errHidden = errors.New("the row can be read and not be changed, and nobody has locked it: row-level security hides it; the role needs a policy FOR ALL (CREATE POLICY)")
)

// settle asks until the answer is one: a locked row is asked for again after a
// pause that grows, in which no connection is held. It ends a little before ctx
// does, so that its caller hears in time that nothing was written.
func (s *PostgresStore) settle(ctx context.Context, ask func(context.Context) (fate, error)) (fate, error) {
	ctx, leave, err := s.runner.Enter(ctx, pgrun.Once, 0)
	if err != nil {
		return fate{}, err
	}
	defer leave()
	var margin time.Duration
	kept, waits := 0, false
	defer func() {
		if waits {
			s.rowWaits.Add(-1)
		}
	}()
	for try := 0; ; try++ {
		f, err := ask(ctx)
		switch {
		case err != nil:
			return f, explainRefusal(err)
		case f.what == fateKept || f.what == fateHidden:
			if kept++; kept >= keptTries && f.what == fateKept {
				return f, errKept
			} else if kept >= keptTries {
				return f, errHidden
			}
		case f.what != fateLocked:
			return f, nil
		case !waits:
			waits = true
			s.rowWaits.Add(1)
		}
		deadline, _ := ctx.Deadline()
		left := time.Until(deadline)
		if margin == 0 {
			margin = min(left/4, 250*time.Millisecond)
		}
		if left <= margin {
			return f, fmt.Errorf("no answer in time, another transaction holds the row: nothing was written: %w", context.DeadlineExceeded)
		}
		if err := backoff.Pause(ctx, try); err != nil {
			return f, fmt.Errorf("no answer in time, another transaction holds the row: nothing was written: %w", err)
		}
	}
}

// explainRefusal says what an error of PostgreSQL's means here.
func explainRefusal(err error) error {
	switch pgrun.SQLState(err) {
	case "55P03": // lock_not_available
		return fmt.Errorf("no answer in time, a trigger waits for a lock, or another transaction inserts the same ID: nothing was written: %w", err)
	case "0A000": // feature_not_supported
		return fmt.Errorf("a rule of the table stands in the way, or it is no plain table: %w", err)
	case "42704": // undefined_object, by sqlUnmarked
		return fmt.Errorf("%w: %w", errKept, err)
	}
	return err
}

// writeOne runs a write for one member. If it was not done, the full form is asked
// what has become of it.
func (s *PostgresStore) writeOne(ctx context.Context, r pgrun.Repetition, w statement, args ...any) (f fate, err error) {
	for _, form := range w.forms() {
		f, err = pgrun.Run(ctx, s.runner, r, func(ctx context.Context, c *pgx.Conn) (fate, error) {
			var row scannedFate
			err := row.scan(c.QueryRow(ctx, form.one, s.plans.args(pgrun.LockTimeout(ctx), args...)...), form.told)
			return row.fate(), err
		})
		if err == nil && f.what == fateDone || err != nil && !errors.Is(err, pgx.ErrNoRows) {
			break
		}
	}
	return f, err
}

// scannedFate is a row of a write: the number of a member, from 1 on, and its fate.
// One serves for all rows, for what is scanned into is allocated.
type scannedFate struct {
	n, what int
	mark    *string
	told    []byte
}

func (f *scannedFate) scan(row pgx.Row, told bool) error {
	if told {
		return row.Scan(&f.n, &f.what, &f.mark, &f.told)
	}
	return row.Scan(&f.n, &f.what, &f.mark)
}

func (f *scannedFate) fate() fate {
	if f.mark == nil {
		return fate{what: f.what, told: string(f.told)}
	}
	return fate{what: f.what, mark: *f.mark}
}

// together asks a question by a statement that others may share; one runs where
// that has failed for what may be another's fault.
func together[Q any](ctx context.Context, s *PostgresStore, g *batch.Group[Q, fate], q Q, one func(context.Context) (fate, error)) (fate, error) {
	f, err := g.Do(ctx, q)
	if errors.Is(err, errAlone) {
		f, err = s.shared.alone.Do(ctx, one)
	}
	switch {
	case errors.Is(err, batch.ErrNotBegun):
		return f, explainTimeout(ctx, err)
	case err != nil && ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		return f, fmt.Errorf("%w: %w", ErrUncertain, explainTimeout(ctx, err)) // others have carried it on
	}
	return f, err
}

// explainTimeout says what it means that a context has ended where requests wait for each
// other.
func explainTimeout(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && (errors.Is(err, batch.ErrNotBegun) || err == context.Cause(ctx)) {
		return fmt.Errorf("no answer in time: statements of other requests are still waiting for theirs: %w", err)
	}
	return err
}
