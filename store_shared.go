package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/batch"
	"github.com/pgsession/session/internal/mark"
	"github.com/pgsession/session/internal/pgrun"
	"github.com/pgsession/session/internal/turn"
)

// Statements that several requests share, with the placeholders of the single
// ones.
//
// Arrays are wrapped in a sub-select: a bare array parameter is planned anew at
// every call while it has up to 8 members. LATERAL with a literal LIMIT never
// becomes a sequential scan, whatever the statistics say. A row that somebody
// has locked is passed over, for its neighbours are not to wait for it; whoever
// wants it asks again alone.
const (
	// Data over 64 KiB comes back as null, and is then loaded alone.
	sqlLoadMany = `SELECT v.n::int, t.sess, t.ttl
		FROM unnest((SELECT $1::text[])) WITH ORDINALITY v(sid, n),
		LATERAL (SELECT CASE WHEN pg_column_size(s.sess) <= 65536 THEN s.sess::text END AS sess,
				extract(epoch FROM s.expire::timestamptz)::float8 - extract(epoch FROM now())::float8 AS ttl
			FROM %[1]s s WHERE s.sid = v.sid AND s.expire >= now() LIMIT 1) t`

	sqlUpdateMany = `WITH l AS MATERIALIZED (
			SELECT v.n, v.new, v.ttl, t.sid, t.same
			FROM unnest((SELECT $1::text[]), (SELECT $2::text[]), (SELECT $3::text[]), (SELECT $4::float8[]))
				WITH ORDINALITY v(sid, old, new, ttl, n),
			LATERAL (SELECT s.sid, s.sess::text = v.old AS same FROM %[1]s s
				WHERE s.sid = v.sid AND s.expire >= now() LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) t),
		u AS (UPDATE %[1]s s SET sess = l.new::%[2]s,
				expire = CASE WHEN l.ttl > 0 THEN GREATEST(s.expire, (now() + make_interval(secs => l.ttl))::%[3]s) ELSE s.expire END
			FROM l WHERE l.same AND s.sid = l.sid RETURNING l.n)
		SELECT l.n::int, u.n IS NOT NULL FROM l LEFT JOIN u USING (n)`

	sqlTouchMany = `WITH l AS MATERIALIZED (
			SELECT v.n, v.ttl, t.sid
			FROM unnest((SELECT $1::text[]), (SELECT $2::float8[])) WITH ORDINALITY v(sid, ttl, n),
			LATERAL (SELECT s.sid FROM %[1]s s
				WHERE s.sid = v.sid AND s.expire >= now() AND NOT ` + mark.SQL + ` LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) t)
		UPDATE %[1]s s SET expire = GREATEST(s.expire, (now() + make_interval(secs => l.ttl))::%[3]s)
		FROM l WHERE s.sid = l.sid RETURNING l.n::int`

	sqlDeleteMany = `WITH l AS MATERIALIZED (
			SELECT v.n, t.sid FROM unnest((SELECT $1::text[])) WITH ORDINALITY v(sid, n),
			LATERAL (SELECT s.sid FROM %[1]s s WHERE s.sid = v.sid AND NOT ` + mark.SQL + ` LIMIT 1 FOR UPDATE SKIP LOCKED) t)
		DELETE FROM %[1]s s USING l WHERE s.sid = l.sid RETURNING l.n::int`
)

// errAlone asks for the statement of one's own: the row is locked, gone or too
// large, or the shared statement failed.
var errAlone = errors.New("session: to be done alone")

// sharing is how a PostgresStore shares statements. Every kind has its slots.
type sharing struct {
	loads   *batch.Group[string, Record]
	saves   *batch.Group[save, struct{}]
	touches *batch.Group[touch, struct{}]
	deletes *batch.Group[string, struct{}]

	// The slow lane, for what is done alone: a third of the pool at most, and
	// one statement per session at a time, so that a row that is locked for
	// long does not take the connections from the others.
	lane  chan struct{}
	queue turn.Queue[struct{}]
}

type save struct {
	id       string
	old, new string
	ttl      time.Duration
}

type touch struct {
	id  string
	ttl time.Duration
}

// share sets s up to share statements.
func (s *PostgresStore) share() {
	slots, most := s.opts.BatchSlots, s.opts.MaxBatch
	s.shared = &sharing{lane: make(chan struct{}, max(1, s.runner.MaxConns()/3))}
	s.shared.loads = batch.New(slots, most, s.loadOne, s.loadMany)
	// Also a single one by the shared statement: it waits for no row lock, so
	// that no slot ever does.
	s.shared.saves = batch.New(slots, most, viaMany(s.saveMany), s.saveMany)
	s.shared.touches = batch.New(slots, most, viaMany(s.touchMany), s.touchMany)
	s.shared.deletes = batch.New(slots, most, viaMany(s.deleteMany), s.deleteMany)
}

func viaMany[Q, A any](many func(context.Context, []Q) []batch.Answer[A]) func(context.Context, Q) (A, error) {
	return func(ctx context.Context, q Q) (A, error) {
		a := many(ctx, []Q{q})[0]
		return a.Value, a.Err
	}
}

// runAlone runs f in the slow lane.
func (s *PostgresStore) runAlone(ctx context.Context, id string, f func() error) error {
	place, err := s.shared.queue.Acquire(ctx, id)
	if err != nil {
		return explainTimeout(ctx, err)
	}
	defer place.Release()
	select {
	case s.shared.lane <- struct{}{}:
		defer func() { <-s.shared.lane }()
		return f()
	case <-ctx.Done():
		return fmt.Errorf("no answer in time: rows are locked, and the slow lane of %d connections is full: %w", cap(s.shared.lane), context.Cause(ctx))
	}
}

// loadMany loads the records of ids in one statement.
func (s *PostgresStore) loadMany(ctx context.Context, ids []string) []batch.Answer[Record] {
	answers, err := pgrun.Run(ctx, s.runner, pgrun.Repeatable, func(ctx context.Context, c *pgx.Conn) ([]batch.Answer[Record], error) {
		answers := make([]batch.Answer[Record], len(ids))
		for i := range answers {
			answers[i].Err = ErrNotFound
		}
		rows, err := c.Query(ctx, s.sql.loadMany, ids)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for rows.Next() {
			var n int
			var data []byte
			var left float64
			if err := rows.Scan(&n, &data, &left); err != nil {
				return nil, err
			}
			if data == nil {
				answers[n-1].Err = errAlone
				continue
			}
			answers[n-1].Value, answers[n-1].Err = loadedRow(data, left)
		}
		return answers, rows.Err()
	})
	return failAll(answers, len(ids), err)
}

// saveMany changes records in one statement. A session takes part in it once;
// its others are done alone.
func (s *PostgresStore) saveMany(ctx context.Context, saves []save) []batch.Answer[struct{}] {
	ids, olds, news := make([]string, len(saves)), make([]string, len(saves)), make([]string, len(saves))
	ttls := make([]float64, len(saves))
	seen := make(map[string]bool, len(saves))
	for i, v := range saves {
		if seen[v.id] {
			continue // an empty ID has no row
		}
		seen[v.id] = true
		ids[i], olds[i], news[i], ttls[i] = v.id, v.old, v.new, v.ttl.Seconds()
	}
	return s.many(ctx, pgrun.Once, len(saves), func(ctx context.Context, c *pgx.Conn) (pgx.Rows, error) {
		return c.Query(ctx, s.sql.updateMany, ids, olds, news, ttls)
	}, func(rows pgx.Rows) (n int, err error) {
		var saved bool
		if err := rows.Scan(&n, &saved); err != nil {
			return 0, err
		}
		if !saved {
			return n, ErrConflict
		}
		return n, nil
	})
}

// touchMany moves the expiries of records in one statement.
func (s *PostgresStore) touchMany(ctx context.Context, touches []touch) []batch.Answer[struct{}] {
	ids, ttls := make([]string, len(touches)), make([]float64, len(touches))
	for i, v := range touches {
		ids[i], ttls[i] = v.id, v.ttl.Seconds()
	}
	return s.many(ctx, pgrun.Repeatable, len(touches), func(ctx context.Context, c *pgx.Conn) (pgx.Rows, error) {
		return c.Query(ctx, s.sql.touchMany, ids, ttls)
	}, scanIndex)
}

// deleteMany deletes records in one statement.
func (s *PostgresStore) deleteMany(ctx context.Context, ids []string) []batch.Answer[struct{}] {
	return s.many(ctx, pgrun.Repeatable, len(ids), func(ctx context.Context, c *pgx.Conn) (pgx.Rows, error) {
		return c.Query(ctx, s.sql.deleteMany, ids)
	}, scanIndex)
}

// scanIndex reads a row that is only the number of a member, from 1 on.
func scanIndex(rows pgx.Rows) (n int, err error) {
	return n, rows.Scan(&n)
}

// many runs a statement that answers with a row for each member it was done for.
// A member without one was passed over. An answer counts only once the statement
// has ended without an error: it commits then, not when the row comes.
func (s *PostgresStore) many(ctx context.Context, r pgrun.Repetition, members int, query func(context.Context, *pgx.Conn) (pgx.Rows, error), row func(pgx.Rows) (int, error)) []batch.Answer[struct{}] {
	answers, err := pgrun.Run(ctx, s.runner, r.Shared(), func(ctx context.Context, c *pgx.Conn) ([]batch.Answer[struct{}], error) {
		answers := make([]batch.Answer[struct{}], members)
		for i := range answers {
			answers[i].Err = errAlone
		}
		rows, err := query(ctx, c)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for rows.Next() {
			n, err := row(rows)
			if n == 0 {
				return nil, err
			}
			answers[n-1].Err = err
		}
		return answers, rows.Err()
	})
	return failAll(answers, members, err)
}

// failAll gives the error of a shared statement to its members. What one of them
// may have caused (data that PostgreSQL refuses, a deadlock) they find out alone.
func failAll[A any](answers []batch.Answer[A], members int, err error) []batch.Answer[A] {
	if err == nil {
		return answers
	}
	if state := pgrun.SQLState(err); !errors.Is(err, context.DeadlineExceeded) && (errors.Is(err, ErrInvalid) || state != "" && state != "57014" && !errors.Is(err, ErrUncertain)) {
		err = errAlone
	}
	answers = make([]batch.Answer[A], members)
	for i := range answers {
		answers[i].Err = err
	}
	return answers
}
