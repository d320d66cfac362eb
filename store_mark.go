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
	id = s.sid(id)
	doubtful := s.doubts.has(id)
	for {
		began := time.Now()
		f, err := s.settle(ctx, func(ctx context.Context) (fate, error) { return s.deleteHop(ctx, id, doubtful) })
		if err != nil {
			return s.unsure(id, err)
		}
		s.doubts.resolved(id, began)
		next, ok := mark.Target([]byte(f.mark))
		switch {
		case ok:
			id = next
		case f.what == fateNone && !doubtful:
			doubtful = true
		default: // done, or nothing there, or a mark that leads nowhere: not ours
			return nil
		}
	}
}

// deleteHop deletes the record of the ID that the table holds as id, or finds the
// mark that is there.
func (s *PostgresStore) deleteHop(ctx context.Context, id string, doubtful bool) (fate, error) {
	if doubtful {
		return confirmed(ctx, s, func(ctx context.Context) (fate, error) {
			return s.writeOne(ctx, pgrun.Repeatable, s.sql.deleteConfirmed, id)
		}, func(ctx context.Context) (fate, error) { return s.deleteHop(ctx, id, false) })
	}
	one := func(ctx context.Context) (fate, error) {
		return s.writeOne(ctx, pgrun.Repeatable, s.sql.delete, id)
	}
	if s.shared == nil {
		return one(ctx)
	}
	return together(ctx, s, s.shared.deletes, id, one)
}
