package session

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/backoff"
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

// deleteOne deletes the record that has, or once had, the ID that the table
// holds as id. Marks lead from one ID to the next, a statement each, expired
// ones too, and nobody deletes one while it may be needed; so the way is the
// same however often it is begun.
func (s *PostgresStore) deleteOne(ctx context.Context, id string) error {
	ctx, cancel := s.runner.Bounded(ctx)
	defer cancel()
	for try := 0; ; {
		was, err := s.deleteHop(ctx, id)
		if err != nil || was == nil {
			return err
		}
		if next, ok := mark.Target([]byte(*was)); ok {
			id = next
			continue
		}
		if *was != "" {
			return nil // a mark that leads nowhere: not ours
		}
		// It was there when the statement began and not as it was when its turn
		// came: renewed, and the next one finds the mark. Or a trigger refuses.
		if err := backoff.Pause(ctx, try); err != nil {
			return explainTimeout(ctx, err)
		}
		try++
	}
}

// deleteHop deletes the record of the ID that the table holds as id. was is nil
// if that was done or there is nothing, a mark if there is one, else empty: it
// could not be deleted as it was.
func (s *PostgresStore) deleteHop(ctx context.Context, id string) (was *string, err error) {
	return pgrun.Run(ctx, s.runner, pgrun.Repeatable, func(ctx context.Context, c *pgx.Conn) (was *string, err error) {
		var gone bool
		if err = c.QueryRow(ctx, s.sql.delete, id).Scan(&gone, &was); gone {
			was = nil
		}
		return was, err
	})
}
