package session

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/pgrun"
)

// Watcher is implemented by stores that can say of many records at once whether they
// live. The manager asks once a second, for all the streams of a program that are
// open ([Session.Watch]); of a store without it, it loads the records one after the
// other.
type Watcher interface {
	// Peek returns what has become of the records of ids, one [Peeked] for each, in
	// their order. It writes nothing: no record lives longer for it. The caller has
	// no more than 20,000 IDs at a time. An error is one of all of them.
	Peek(ctx context.Context, ids []string) ([]Peeked, error)
}

// Peeked is what a [Watcher] says of a session ID.
type Peeked struct {
	_ struct{}

	// Err is nil if there is a live record. It is [ErrRenewed] if there is a mark,
	// [ErrExpired] if there is a record that has expired, [ErrNotFound] if there is
	// nothing, or if the store cannot tell that from an expired record. Any other
	// error says that the store does not know.
	Err error

	// TTL is the time left until a live record expires, else 0.
	TTL time.Duration
}

// Of a record that is not live, sqlPeek has one of these in place of its time left.
const (
	peekExpired = -1
	peekRenewed = -2
	peekNone    = -3
)

// Peek implements [Watcher], by one statement. It tells an expired record from one
// that is gone until it is pruned.
func (s *PostgresStore) Peek(ctx context.Context, ids []string) ([]Peeked, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	sids := make([]string, len(ids)) // a late statement may outlive the call
	for i, id := range ids {
		sids[i] = s.sid(id)
	}
	switch {
	case s.table.Distributed:
		return s.peekShards(ctx, sids)
	case s.shared != nil:
		return s.peek(ctx, s.sql.peek.many, sids, len(sids))
	}
	// Each where its key lives: elsewhere it would look like one that is gone.
	ctx, cancel := s.runner.Bounded(ctx)
	defer cancel()
	peeked := make([]Peeked, 0, len(ids))
	for _, sid := range sids {
		one, err := s.peek(ctx, s.sql.peek.one, sid, 1)
		if err != nil {
			return nil, err
		}
		peeked = append(peeked, one...)
	}
	return peeked, nil
}

// peek asks for n records.
func (s *PostgresStore) peek(ctx context.Context, sql string, sids any, n int) ([]Peeked, error) {
	left, err := pgrun.Run(ctx, s.runner, pgrun.Read, func(ctx context.Context, c *pgx.Conn) (left []float64, err error) {
		return left, c.QueryRow(ctx, sql, pgrun.Sized(c, s.plans.args(sids))...).Scan(&left)
	})
	switch {
	case err != nil:
		return nil, err
	case len(left) != n:
		return nil, fmt.Errorf("the database answers for %d sessions, and was asked for %d", len(left), n)
	}
	return peeked(left), nil
}

// peeked reads what sqlPeek has of each.
func peeked(left []float64) []Peeked {
	peeked := make([]Peeked, len(left))
	for i, seconds := range left {
		switch {
		case seconds >= 0:
			peeked[i].TTL = fromSeconds(seconds)
		case seconds == peekRenewed:
			peeked[i].Err = ErrRenewed
		case seconds == peekExpired:
			peeked[i].Err = ErrExpired
		default:
			peeked[i].Err = ErrNotFound
		}
	}
	return peeked
}

// peekShards is peek of many.
func (s *PostgresStore) peekShards(ctx context.Context, sids []string) ([]Peeked, error) {
	left, err := pgrun.Run(ctx, s.runner, pgrun.Read, func(ctx context.Context, c *pgx.Conn) (map[string]float64, error) {
		rows, err := c.Query(ctx, s.sql.shards.peek, pgrun.Sized(c, s.plans.args(sids))...)
		if err != nil {
			return nil, err
		}
		left := make(map[string]float64, len(sids))
		var sid string
		var seconds float64
		_, err = pgx.ForEachRow(rows, []any{&sid, &seconds}, func() error {
			left[sid] = seconds
			return nil
		})
		return left, err
	})
	if err != nil {
		return nil, err
	}
	seconds := make([]float64, len(sids))
	for i, sid := range sids {
		var ok bool
		if seconds[i], ok = left[sid]; !ok {
			seconds[i] = peekNone
		}
	}
	return peeked(seconds), nil
}
