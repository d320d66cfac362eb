package session

import (
	"context"
	"time"

	"github.com/pgsession/session/internal/mark"
	"github.com/pgsession/session/internal/pgrun"
)

// loadedRow tells a record from a mark.
func loadedRow(data []byte, left float64) (Record, error) {
	rec := Record{Data: data, TTL: fromSeconds(left)}
	if mark.Is(data) {
		return Record{TTL: rec.TTL}, ErrRenewed
	}
	return rec, nil
}

// Delete implements [Store]. Marks lead from one ID to the next, a statement
// each, expired ones too, and nobody deletes one while it may be needed; so the
// way is the same however often it is begun.
//
// Where nothing is found, another program may have deleted it in a commit whose
// wait for the standby was cut short, so that it may yet come back: it is looked
// for once more as if this store's own write were in doubt.
func (s *PostgresStore) Delete(ctx context.Context, id string) error {
	known := id // while it is the ID of what is in the table
	id = s.sid(id)
	doubtful, way := s.doubts.has(id), crossing{shards: &s.shards, table: s.table}
	for {
		began := time.Now()
		f, err := s.settle(ctx, func(ctx context.Context) (fate, error) { return s.deleteHop(ctx, id, doubtful) })
		if err != nil {
			return s.unsure(id, err)
		}
		s.doubts.resolved(id, began)
		if gone, ok := toldRow([]byte(f.told), known, s.opts.HashIDs); ok {
			tellEnded(ctx, []ended{gone}, 0)
		}
		next, ok := mark.Target([]byte(f.mark))
		switch why, _ := whyOf(ctx, whyDestroyed); {
		case ok && why == whyAbsolute: // what came of it has a beginning of its own
			return nil
		case ok:
			way.hop(id, next)
			id = next
			known = ""
		case f.what == fateNone && !doubtful:
			doubtful = true
		case f.what == fateNone && way.again(ctx):
		default: // done, or nothing there, or a mark that leads nowhere: not ours
			return nil
		}
	}
}

// deleteHop deletes the record of the ID that the table holds as id, or finds the
// mark that is there.
func (s *PostgresStore) deleteHop(ctx context.Context, id string, doubtful bool) (fate, error) {
	v := deletion{id: id}
	v.why, v.told = whyOf(ctx, whyDestroyed)
	plain, sure := s.sql.delete, s.sql.deleteConfirmed
	if v.told {
		plain, sure = s.sql.deleteTold, s.sql.deleteToldConfirmed
	}
	if s.table.Distributed && v.told {
		now, err := s.now(ctx)
		if err != nil {
			return fate{}, err
		}
		v.now = now
	}
	if doubtful {
		return confirmed(ctx, s, func(ctx context.Context) (fate, error) {
			return s.writeOne(ctx, pgrun.Repeatable, sure, s.deleteArgs(v)...)
		}, func(ctx context.Context) (fate, error) { return s.deleteHop(ctx, id, false) })
	}
	one := func(ctx context.Context) (fate, error) {
		return s.writeOne(ctx, pgrun.Repeatable, plain, s.deleteArgs(v)...)
	}
	if s.alone() {
		return one(ctx)
	}
	return together(ctx, s, s.shared.deletes, v, one)
}

// deleteArgs are the parameters of a Delete: an outbox is told why, and a worker the
// time.
func (s *PostgresStore) deleteArgs(v deletion) []any {
	switch {
	case s.opts.Outbox != "":
		return []any{v.id, v.why}
	case s.table.Distributed && v.told:
		return []any{v.id, v.now}
	}
	return []any{v.id}
}
