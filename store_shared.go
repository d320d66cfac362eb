package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/pgsession/session/internal/batch"
	"github.com/pgsession/session/internal/pgrun"
)

// errAlone asks for the statement of one's own: the data is too large, or the
// shared statement failed.
var errAlone = errors.New("session: to be done alone")

// sharing is how a PostgresStore shares statements. Every kind has its slots.
type sharing struct {
	loads     *batch.Group[string, Record]
	creations *batch.Group[creation, fate]
	saves     *batch.Group[save, fate]
	touches   *batch.Group[touch, fate]
	hurried   *batch.Group[touch, fate] // the impatient ones: a statement is patient for all its members or for none
	deletes   *batch.Group[string, fate]

	// Renewals, a statement each. However many there are, as at a rush of logins,
	// other writes do not stand in line behind all of them.
	renewals *batch.Group[func(context.Context) (fate, error), fate]

	// The same for the limits of users, Config.MaxPerUser.
	limits *batch.Group[func(context.Context) (int64, error), int64]

	// For the members of a write that failed: one of them may be the reason, and
	// finds it out alone. A third of the pool at most. None of them waits for a row.
	alone *batch.Group[func(context.Context) (fate, error), fate]
}

type creation struct {
	id, data string
	ttl      time.Duration
}

type save struct {
	id       string
	old, new string
	ttl      float64 // seconds, as sqlUpdate has it
}

type touch struct {
	id  string
	ttl time.Duration
}

// share sets s up to share statements.
func (s *PostgresStore) share() {
	slots, most := s.opts.BatchSlots, s.opts.MaxBatch
	s.shared = &sharing{
		loads:     batch.New(slots, most, s.loadOne, s.loadMany),
		creations: batch.New(slots, most, viaMany(s.createMany), s.createMany),
		saves:     batch.New(slots, most, viaMany(s.saveMany), s.saveMany),
		touches:   batch.New(slots, most, viaMany(s.touchMany), s.touchMany),
		hurried:   batch.New(slots, most, viaMany(s.touchMany), s.touchMany),
		deletes:   batch.New(slots, most, viaMany(s.deleteMany), s.deleteMany),
		renewals:  batch.New(slots, 1, ask[fate], nil),
		limits:    batch.New(1, 1, ask[int64], nil),
		alone:     batch.New(max(1, s.runner.MaxConns()/3), 1, ask[fate], nil),
	}
}

// refuse answers those who wait for a shared statement: nothing was sent for them.
func (s *sharing) refuse(reads bool, err error) {
	switch {
	case s == nil:
	case reads:
		s.loads.Refuse(err)
	default:
		s.creations.Refuse(err)
		s.saves.Refuse(err)
		s.touches.Refuse(err)
		s.hurried.Refuse(err)
		s.deletes.Refuse(err)
		s.renewals.Refuse(err)
		s.limits.Refuse(err)
		s.alone.Refuse(err)
	}
}

func ask[A any](ctx context.Context, f func(context.Context) (A, error)) (A, error) { return f(ctx) }

func viaMany[Q, A any](many func(context.Context, []Q) []batch.Answer[A]) func(context.Context, Q) (A, error) {
	return func(ctx context.Context, q Q) (A, error) {
		a := many(ctx, []Q{q})[0]
		return a.Value, a.Err
	}
}

// loadMany loads the records of ids in one statement.
func (s *PostgresStore) loadMany(ctx context.Context, ids []string) []batch.Answer[Record] {
	answers, err := pgrun.Run(ctx, s.runner, pgrun.Read, func(ctx context.Context, c *pgx.Conn) ([]batch.Answer[Record], error) {
		answers := make([]batch.Answer[Record], len(ids))
		for i := range answers {
			answers[i].Err = ErrNotFound
		}
		rows, err := c.Query(ctx, s.sql.loadMany, s.plans.args(ids)...)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var n int // these once for all rows: what is scanned into is allocated
		var at pgtype.TID
		var data []byte
		var left float64
		into := []any{&n, &at, &data, &left}
		for rows.Next() {
			if err := rows.Scan(into...); err != nil {
				return nil, err
			}
			s.plans.found(at)
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

// createMany stores new records in one statement.
func (s *PostgresStore) createMany(ctx context.Context, creations []creation) []batch.Answer[fate] {
	m := newMembers(len(creations))
	ids, data, ttls := make([]string, m.n), make([]string, m.n), make([]float64, m.n)
	for i, v := range creations {
		if m.takes(i, v.id) {
			ids[i], data[i], ttls[i] = v.id, v.data, v.ttl.Seconds()
		}
	}
	return s.many(ctx, pgrun.Once, m, s.sql.create.many, ids, data, ttls)
}

// saveMany changes records in one statement.
func (s *PostgresStore) saveMany(ctx context.Context, saves []save) []batch.Answer[fate] {
	m := newMembers(len(saves))
	ids, olds, news := make([]string, m.n), make([]string, m.n), make([]string, m.n)
	ttls := make([]float64, m.n)
	for i, v := range saves {
		if m.takes(i, v.id) {
			ids[i], olds[i], news[i], ttls[i] = v.id, v.old, v.new, v.ttl
		}
	}
	return s.many(ctx, pgrun.Once, m, s.sql.update.many, ids, olds, news, ttls)
}

// touchMany moves the expiries of records in one statement.
func (s *PostgresStore) touchMany(ctx context.Context, touches []touch) []batch.Answer[fate] {
	m := newMembers(len(touches))
	ids, ttls := make([]string, m.n), make([]float64, m.n)
	for i, v := range touches {
		if m.takes(i, v.id) {
			ids[i] = v.id
		}
		ttls[m.as[i]] = max(ttls[m.as[i]], v.ttl.Seconds()) // one touch is as good as all
	}
	m.alike = true
	return s.many(ctx, pgrun.Repeatable, m, s.sql.touch.many, ids, ttls)
}

// deleteMany deletes records in one statement.
func (s *PostgresStore) deleteMany(ctx context.Context, deletes []string) []batch.Answer[fate] {
	m := newMembers(len(deletes))
	ids := make([]string, m.n)
	for i, id := range deletes {
		if m.takes(i, id) {
			ids[i] = id
		}
	}
	m.alike = true
	return s.many(ctx, pgrun.Repeatable, m, s.sql.delete.many, ids)
}

// members are those of a shared write, in which an ID takes part once.
type members struct {
	n     int
	first map[string]int
	as    []int // who does the work of each: itself, or the first of its ID
	alike bool  // they ask the same, so that one answer is that of all; else they ask again
}

func newMembers(n int) *members {
	return &members{n: n, first: make(map[string]int, n), as: make([]int, n)}
}

// takes reports whether i is the first of its ID.
func (m *members) takes(i int, id string) bool {
	first, ok := m.first[id]
	if !ok {
		m.first[id], first = i, i
	}
	m.as[i] = first
	return !ok
}

// many runs a write for several members. An answer counts only once the statement
// has ended without an error: it commits then, not when the row comes.
func (s *PostgresStore) many(ctx context.Context, r pgrun.Repetition, m *members, sql string, args ...any) []batch.Answer[fate] {
	answers, err := pgrun.Run(ctx, s.runner, r.Shared(), func(ctx context.Context, c *pgx.Conn) ([]batch.Answer[fate], error) {
		answers := make([]batch.Answer[fate], m.n)
		rows, err := c.Query(ctx, sql, pgrun.Sized(c, s.plans.args(shareOf(pgrun.LockTimeout(ctx)), args...))...)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var f scannedFate
		for rows.Next() {
			if err := f.scan(rows); err != nil {
				return nil, err
			}
			answers[f.n-1].Value = f.fate()
		}
		return answers, rows.Err()
	})
	if err == nil {
		for i, first := range m.as {
			switch {
			case first == i:
			case m.alike:
				answers[i] = answers[first]
			default:
				answers[i].Value.what = fateLocked
			}
		}
	}
	return failAll(answers, m.n, err)
}

// shareOf returns a quarter of a lock_timeout, so that the members have time left to
// find out alone for whom it was.
func shareOf(timeout string) string {
	d, err := time.ParseDuration(timeout)
	if err != nil {
		return timeout
	}
	return fmt.Sprintf("%dms", max(d.Milliseconds()/4, 1))
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
