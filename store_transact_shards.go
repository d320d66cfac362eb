package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/backoff"
)

// lockInShard loads a record and locks it, in a transaction, as [PostgresStore.begin] does. It
// waits without a connection's doing anything.
func (s *PostgresStore) lockInShard(ctx context.Context, row rower, sid string) (data []byte, left *float64, err error) {
	left = new(float64)
	for try := 0; ; try++ {
		err := row(ctx, s.inTx.lock, []any{sid}, &data, left)
		if !errors.Is(err, pgx.ErrNoRows) {
			return data, left, err
		}
		switch err := row(ctx, s.inTx.see, []any{sid}, &data, left); {
		case errors.Is(err, pgx.ErrNoRows):
			return nil, nil, nil // there is none
		case err != nil:
			return nil, nil, err
		}
		if err := backoff.Pause(ctx, try); err != nil {
			return nil, nil, fmt.Errorf("no answer in time, another transaction holds the session: nothing was written: %w", err)
		}
	}
}

// renewInShards is the renewal of a table that Citus has distributed.
func (x *txStore) renewInShards(ctx context.Context, v *save, newID string) (fate, error) {
	for try := 0; ; try++ {
		removed, err := x.s.inTx.shards.move(ctx, x.row, v.id, v.old, v.new, v.ttl, newID)
		switch {
		case err != nil:
			return fate{}, x.fail(explainRefusal(x.s.runner.Describe(err)))
		case removed:
			return fate{what: fateDone}, nil
		}
		var r scannedFate
		err = x.row(ctx, x.s.inTx.renew[0], []any{"", v.id, v.old}, &r.n, &r.what, &r.mark)
		if err != nil {
			return fate{}, x.fail(explainRefusal(x.s.runner.Describe(err)))
		}
		if f := r.fate(); f.what != fateLocked {
			return f, nil
		}
		if err := backoff.Pause(ctx, try); err != nil {
			return fate{}, x.fail(fmt.Errorf("no answer in time, another transaction holds the row: %w", err))
		}
	}
}

// near is the store's. It asks in the transaction, which may hold the last connection.
func (x *txStore) near(ctx context.Context, old string) func(id string) bool {
	if s := x.s; s.table.Distributed && s.shards.old() {
		s.shards.readAt.Store(time.Now().UnixNano())
		ranges, ok, err := s.table.ShardsBy(ctx, x.row)
		if err != nil {
			_ = x.fail(s.runner.Describe(err)) // the transaction is aborted
		}
		s.warnShards(s.shards.set(s.table, ranges, ok, err))
	}
	return x.s.nearKnown(old)
}
