package session

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/backoff"
	"github.com/pgsession/session/internal/mark"
	"github.com/pgsession/session/internal/pgrun"
)

// rower asks for one row: of a pgx.Tx, or of an *sql.Tx. Without a row the error is
// pgx.ErrNoRows.
type rower func(ctx context.Context, sql string, args []any, into ...any) error

func (s *PostgresStore) pgxRows(tx pgx.Tx) rower {
	return func(ctx context.Context, text string, args []any, into ...any) error {
		if len(args) == 0 {
			return tx.QueryRow(ctx, text, pgx.QueryExecModeExec).Scan(into...)
		}
		return tx.QueryRow(ctx, text, s.plans.args(args[0], args[1:]...)...).Scan(into...)
	}
}

func sqlRows(tx *sql.Tx) rower {
	return func(ctx context.Context, text string, args []any, into ...any) error {
		err := tx.QueryRowContext(ctx, text, args...).Scan(into...)
		if errors.Is(err, sql.ErrNoRows) {
			return pgx.ErrNoRows
		}
		return pgrun.FromDriver(err)
	}
}

// errTaken says that a record is not as it was loaded, and must not be merged: what
// the transaction holds besides was made from what was loaded.
var errTaken = errors.New("another request has changed the session since this one loaded it")

// txStore is a [Store] inside a transaction: what it writes is stored when that is
// committed. It is for one goroutine.
type txStore struct {
	s   *PostgresStore
	row rower

	// The record that it has locked (Transact), or that its caller has loaded (SaveTx).
	id      string
	old     []byte // SaveTx: the data as it was loaded
	locked  bool
	rec     Record
	err     error // of the record that it has locked
	expires time.Time

	failed error // the first: the transaction is worth nothing any more

	// What it has written last, and under which IDs, as the table has them.
	holdsID, holds string
	ids            []string
}

var _ Store = (*txStore)(nil)

// begin begins a transaction and locks the record of id in it, if there is one.
// ctx bounds the wait.
func (s *PostgresStore) begin(ctx context.Context, id string) (*pgrun.Transaction, *txStore, error) {
	x := &txStore{s: s, id: id, locked: id != ""}
	tx, err := s.runner.Begin(ctx, func(ctx context.Context, tx pgx.Tx) (o pgrun.Origin, err error) {
		if id == "" && s.table.Distributed {
			return o, nil // what the coordinator says of itself says nothing of the workers
		} else if id == "" {
			return o, tx.QueryRow(ctx, sqlOrigin, pgx.QueryExecModeExec).Scan(&o.XID, &o.Server, &o.Checkpoint)
		}
		var data []byte
		var left *float64
		var was string
		if s.table.Distributed {
			data, left, err = s.lockInShard(ctx, s.pgxRows(tx), s.sid(id))
		} else {
			err = s.pgxRows(tx)(ctx, s.inTx.lock, []any{s.sid(id), pgrun.LockTimeout(ctx)}, &data, &left, &was, &o.XID, &o.Server, &o.Checkpoint)
		}
		switch {
		case err != nil:
			return o, err
		case left == nil:
			x.err = ErrNotFound
		default:
			x.rec, x.err = loadedRow(data, *left)
			x.expires = time.Now().Add(x.rec.TTL)
		}
		return o, nil
	})
	switch {
	case pgrun.SQLState(err) == "55P03": // lock_not_available
		err = fmt.Errorf("no answer in time, another transaction holds the session: nothing was written: %w: %w", context.DeadlineExceeded, err)
	case pgrun.SQLState(err) == "42501": // insufficient_privilege
		err = fmt.Errorf("the role needs SELECT and UPDATE on the table, and EXECUTE on pg_catalog.pg_control_system() and pg_control_checkpoint(), which everybody has by default: %w", err)
	}
	if err != nil {
		return nil, nil, err
	}
	x.row = s.pgxRows(tx.Tx())
	return tx, x, nil
}

// commit commits what begin has begun.
func (x *txStore) commit(ctx context.Context, tx *pgrun.Transaction) error {
	s, id, holds := x.s, x.holdsID, x.holds
	err := tx.Commit(ctx, func(ctx context.Context, c *pgx.Conn) (there bool, err error) {
		if id == "" {
			return false, nil
		}
		return there, c.QueryRow(ctx, s.inTx.holds, s.plans.args(id, holds)...).Scan(&there)
	})
	if errors.Is(err, ErrUncertain) {
		for _, id := range x.ids {
			s.doubts.add(id)
		}
	}
	return err
}

// fail keeps the first error.
func (x *txStore) fail(err error) error {
	if x.failed == nil {
		x.failed = err
	}
	return err
}

// ask runs a write, again while its row is somebody else's.
func (x *txStore) ask(ctx context.Context, forms []string, args ...any) (fate, error) {
	return x.askTold(ctx, forms, false, args...)
}

func (x *txStore) askTold(ctx context.Context, forms []string, told bool, args ...any) (fate, error) {
	args = append([]any{""}, args...) // in the place of lock_timeout
	for try := 0; ; try++ {
		var r scannedFate
		into := []any{&r.n, &r.what, &r.mark, &r.told}
		if !told {
			into = into[:3]
		}
		var err error
		for _, text := range forms {
			if err = x.row(ctx, text, args, into...); !errors.Is(err, pgx.ErrNoRows) {
				break
			}
		}
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return fate{}, x.fail(explainRefusal(x.s.runner.Describe(err)))
		}
		f := r.fate()
		switch {
		case f.what == fateKept:
			return f, x.fail(errKept)
		case f.what == fateHidden && try >= keptTries:
			return f, x.fail(errHidden)
		case f.what != fateLocked && f.what != fateHidden:
			return f, nil
		}
		if err := backoff.Pause(ctx, try); err != nil {
			return f, x.fail(fmt.Errorf("no answer in time, another transaction holds the row: %w", err))
		}
	}
}

// wrote notes what the table holds of an ID if the transaction is committed.
func (x *txStore) wrote(id string, data []byte) {
	x.ids = append(x.ids, id)
	x.holdsID, x.holds = id, string(data)
}

// Load implements [Store]. The record that is locked is known.
func (x *txStore) Load(ctx context.Context, id string) (rec Record, err error) {
	if x.locked && id == x.id {
		x.rec.TTL = time.Until(x.expires)
		return x.rec, x.err
	}
	var data []byte
	var left float64
	switch err := x.row(ctx, x.s.inTx.see, []any{x.s.sid(id)}, &data, &left); {
	case errors.Is(err, pgx.ErrNoRows):
		return Record{}, ErrNotFound
	case err != nil:
		return Record{}, x.fail(x.s.runner.Describe(err))
	}
	rec, err = loadedRow(data, left)
	if err == nil && !x.locked && id == x.id && string(x.old) != string(data) {
		return Record{}, x.fail(errTaken)
	}
	return rec, err
}

// Create implements [Store].
func (x *txStore) Create(ctx context.Context, id string, r Record) error {
	sid := x.s.sid(id)
	f, err := x.ask(ctx, x.s.inTx.create, sid, string(r.Data), r.TTL.Seconds())
	switch {
	case err != nil:
		return err
	case f.what == fateConflict:
		return ErrExists
	}
	x.wrote(sid, r.Data)
	return nil
}

// Update implements [Store], but for what is worth another try: there is none.
func (x *txStore) Update(ctx context.Context, id string, c Change) (err error) {
	ttl := max(c.TTL.Seconds(), 0)
	if c.Shorten {
		ttl = -ttl
	}
	sid, newID := x.s.sid(id), x.s.sid(c.NewID)
	var f fate
	if c.NewID == "" {
		f, err = x.ask(ctx, x.s.inTx.update, sid, string(c.Old), string(c.New), ttl)
	} else if x.s.table.Distributed {
		f, err = x.renewInShards(ctx, &save{id: sid, old: string(c.Old), new: string(c.New), ttl: ttl}, newID)
	} else {
		f, err = x.ask(ctx, x.s.inTx.renew, sid, string(c.Old), string(c.New), ttl, newID, mark.Of(newID), markLife.Seconds())
	}
	switch {
	case err != nil:
		return err
	case f.what == fateNone:
		return x.fail(ErrNotFound)
	case f.what != fateDone:
		if _, err := x.Load(ctx, id); errors.Is(err, ErrNotFound) {
			return x.fail(err) // a mark differs as well
		}
		return x.fail(errTaken)
	}
	x.wrote(sid, c.New)
	if c.NewID != "" {
		x.wrote(newID, c.New)
	}
	return nil
}

// Touch implements [Store].
func (x *txStore) Touch(ctx context.Context, id string, ttl time.Duration) error {
	f, err := x.ask(ctx, x.s.inTx.touch, x.s.sid(id), ttl.Seconds())
	if err == nil && f.what == fateNone {
		return ErrNotFound
	}
	return err
}

// Delete implements [Store]. What it does not find at first may be moving: it looks
// again, as a statement of its own sees a mark that was made meanwhile.
func (x *txStore) Delete(ctx context.Context, id string) error {
	known, sid := id, x.s.sid(id)
	for again := true; ; {
		v := deletion{id: sid}
		v.why, v.told = whyOf(ctx, whyDestroyed)
		forms := x.s.inTx.delete
		if v.told {
			forms = x.s.inTx.deleteTold
		}
		if v.told && x.s.table.Distributed {
			now, err := x.now(ctx)
			if err != nil {
				return err
			}
			v.now = now
		}
		f, err := x.askTold(ctx, forms, v.told, x.s.deleteArgs(v)...)
		if err != nil {
			return err
		}
		x.ids = append(x.ids, sid)
		if gone, ok := toldRow([]byte(f.told), known, x.s.opts.HashIDs); ok {
			tellEnded(ctx, []ended{gone}, 0)
		}
		next, ok := mark.Target([]byte(f.mark))
		switch {
		case ok:
			known, sid, again = "", next, true
		case f.what == fateNone && again:
			again = false
		default:
			return nil
		}
	}
}

// Handle is [Finder]'s.
func (x *txStore) Handle(id string) string { return x.s.Handle(id) }

// now returns the database's time.
func (x *txStore) now(ctx context.Context) (time.Time, error) {
	var seconds float64
	if err := x.row(ctx, x.s.inTx.now, nil, &seconds); err != nil {
		return time.Time{}, x.fail(x.s.runner.Describe(err))
	}
	return time.UnixMilli(int64(seconds * 1000)), nil
}

// postgres returns the store in which transactions can be had, also where somebody
// has embedded it.
func (s *PostgresStore) postgres() *PostgresStore { return s }

// inside returns an engine for what one transaction writes. Its queue is its own:
// nobody waits behind a transaction but by the row.
func (e *engine) inside(x *txStore) *engine {
	in := &engine{store: x, limits: e.limits, log: e.log, rand: e.rand, name: e.name, events: e.events.inside()}
	in.sealer.Store(e.sealer.Load())
	in.saves.Store(e.saves.Add(1) - 1) // one tag of the program's
	return in
}

// count adds what a transaction has written, once that is stored.
func (c *counters) count(in *counters) {
	c.creates.Add(in.creates.Load())
	c.saves.Add(in.saves.Load())
	c.renewals.Add(in.renewals.Load())
	c.touches.Add(in.touches.Load())
	c.destroys.Add(in.destroys.Load())
}
