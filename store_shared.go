package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/pgsession/session/internal/batch"
	"github.com/pgsession/session/internal/pgrun"
)

// errAlone asks for the statement of one's own: the data is too large, or the
// shared statement failed.
var errAlone = errors.New("session: to be done alone")

// patience is how long shared statements of a kind have to come back before one more
// begins beside them: several times what they usually take. What begins so costs a
// fiftieth of a processor at most. Far from the database they take longer.
const (
	patience    = 5 * time.Millisecond
	farPatience = 10 * time.Millisecond
)

// sharing is how a PostgresStore shares statements. Every kind has its slots.
type sharing struct {
	loads     *batch.Group[string, Record]
	creations *batch.Group[creation, fate]
	saves     *batch.Group[save, fate]
	touches   *batch.Group[touch, fate]
	hurried   *batch.Group[touch, fate] // the impatient ones: a statement is patient for all its members or for none
	deletes   *batch.Group[deletion, fate]

	// Renewals, a statement each. However many there are, as at a rush of logins,
	// other writes do not stand in line behind all of them.
	renewals *batch.Group[func(context.Context) (fate, error), fate]

	// The same for the limits of users, Config.MaxPerUser.
	limits *batch.Group[func(context.Context) (int64, error), int64]

	// For the members of a write that failed: one of them may be the reason, and
	// finds it out alone. A third of the pool at most. None of them waits for a row.
	alone *batch.Group[func(context.Context) (fate, error), fate]

	way *way // nil: the slots are fixed
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

type deletion struct {
	id, why string
	told    bool // what was deleted is asked for
	now     time.Time
}

// share sets s up to share statements.
func (s *PostgresStore) share() {
	most := s.opts.MaxBatch
	reads, writes := s.slots()
	s.shared = &sharing{
		loads:     batch.New(reads, most, s.loadOne, s.loadMany),
		creations: batch.New(writes, most, viaMany(s.createMany), s.createMany),
		saves:     batch.New(writes, most, viaMany(s.saveMany), s.saveMany),
		touches:   batch.New(writes, most, viaMany(s.touchMany), s.touchMany),
		hurried:   batch.New(writes, most, viaMany(s.touchMany), s.touchMany),
		deletes:   batch.New(writes, most, viaMany(s.deleteMany), s.deleteMany),
		renewals:  batch.New(s.renewalSlots(), 1, ask[fate], nil),
		limits:    batch.New(s.limitSlots(), 1, ask[int64], nil),
		alone:     batch.New(fixed(max(1, s.runner.MaxConns()/3)), 1, ask[fate], nil),
	}
	if s.opts.BatchSlots == 0 {
		s.shared.way = &way{changed: s.farther}
	}
}

// alone reports whether writes share no statement.
func (s *PostgresStore) alone() bool { return s.shared == nil || s.table.Distributed }

// slots returns how many shared statements of a kind may be under way, to begin with.
func (s *PostgresStore) slots() (reads, writes batch.Slots) {
	if n := s.opts.BatchSlots; n > 0 {
		return fixed(n), fixed(n)
	}
	return s.adaptive(false)
}

// adaptive returns how many shared statements of a kind are under way near the
// database, or far from it. While a write commits the others are better off
// together. Far away the time goes by on the way, and a second costs little. All
// writes together may have no more connections than those of a kind.
func (s *PostgresStore) adaptive(far bool) (reads, writes batch.Slots) {
	conns := s.runner.MaxConns()
	reads = batch.Slots{Usual: 2, Most: max(2, conns/2), Patience: patience}
	writes = batch.Slots{Usual: 1, Most: max(2, conns/4), Patience: patience}
	if far {
		writes.Usual = 2
		reads.Patience, writes.Patience = farPatience, farPatience
	}
	return reads, writes
}

// renewalSlots leave a place to other writes, if there are as many: each renewal has a
// statement of its own.
func (s *PostgresStore) renewalSlots() batch.Slots {
	if n := s.opts.BatchSlots; n > 0 {
		return fixed(n)
	}
	return batch.Slots{Usual: 2, Most: max(2, s.runner.MaxConns()/4-1), Patience: patience}
}

// limitSlots are one, and one more beside a statement that hangs or waits for a row.
func (s *PostgresStore) limitSlots() batch.Slots {
	if s.opts.BatchSlots > 0 {
		return fixed(1)
	}
	return batch.Slots{Usual: 1, Most: 2, Patience: patience}
}

// farther sets the slots by how far away the database is.
func (s *PostgresStore) farther(far bool) {
	reads, writes := s.adaptive(far)
	s.shared.loads.SetSlots(reads)
	s.shared.creations.SetSlots(writes)
	s.shared.saves.SetSlots(writes)
	s.shared.touches.SetSlots(writes)
	s.shared.hurried.SetSlots(writes)
	s.shared.deletes.SetSlots(writes)
}

// fixed is n slots, however long statements take.
func fixed(n int) batch.Slots { return batch.Slots{Usual: n} }

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
		began := time.Now()
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
		var sid string
		var at pgtype.TID
		var data []byte
		var left float64
		into := []any{&n, &at, &data, &left}
		if s.table.Distributed {
			into[0] = &sid
		}
		for rows.Next() {
			if err := rows.Scan(into...); err != nil {
				return nil, err
			}
			s.plans.found(at)
			var a batch.Answer[Record]
			if a.Err = errAlone; data != nil {
				a.Value, a.Err = loadedRow(data, left)
			}
			if !s.table.Distributed {
				answers[n-1] = a
				continue
			}
			for i, id := range ids { // several may ask for it
				if id == sid {
					answers[i] = a
				}
			}
		}
		if err := rows.Err(); err != nil {
			return nil, err
		}
		s.shared.way.took(time.Since(began))
		return answers, nil
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
	return s.many(ctx, pgrun.Once, m, s.sql.create, ids, column(data), column(ttls))
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
	return s.many(ctx, pgrun.Once, m, s.sql.update, ids, column(olds), column(news), column(ttls))
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
	return s.many(ctx, pgrun.Repeatable, m, s.sql.touch, ids, column(ttls))
}

// deleteMany deletes records in one statement.
func (s *PostgresStore) deleteMany(ctx context.Context, deletes []deletion) []batch.Answer[fate] {
	m := newMembers(len(deletes))
	ids, whys := make([]string, m.n), make([]string, m.n)
	w := s.sql.delete
	for i, v := range deletes {
		if m.takes(i, v.id) {
			ids[i], whys[i] = v.id, v.why
		}
		if v.told {
			w = s.sql.deleteTold
		}
	}
	m.alike = true
	if s.opts.Outbox == "" {
		return s.many(ctx, pgrun.Repeatable, m, w, ids)
	}
	return s.many(ctx, pgrun.Repeatable, m, w, ids, column(whys))
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

// many runs a write for several members, whose IDs are its first column; one with
// an empty ID is passed over. Of whom it was not done is asked by the full form what
// has become of it.
func (s *PostgresStore) many(ctx context.Context, r pgrun.Repetition, m *members, w statement, ids []string, more ...any) []batch.Answer[fate] {
	answers := make([]batch.Answer[fate], m.n)
	for _, f := range w.forms() {
		fates, err := s.askMany(ctx, r, f, ids, more)
		left := false
		ids = slices.Clone(ids) // the others are the statement's
		for i, id := range ids {
			switch {
			case id == "":
				continue
			case err != nil:
				answers[i].Err = forMember(err)
			default:
				answers[i].Value = fates[i]
			}
			if err == nil && fates[i].what != fateDone {
				left = true
			} else {
				ids[i] = ""
			}
		}
		if !left {
			break
		}
	}
	m.spread(answers)
	return answers
}

// askMany runs a form of a write for several members. An answer counts only once
// the statement has ended without an error: it commits then, not when the row comes.
func (s *PostgresStore) askMany(ctx context.Context, r pgrun.Repetition, f form, ids []string, more []any) ([]fate, error) {
	return pgrun.Run(ctx, s.runner, r.Shared(), func(ctx context.Context, c *pgx.Conn) ([]fate, error) {
		fates := make([]fate, len(ids))
		args := append([]any{column(ids)}, more...)
		rows, err := c.Query(ctx, f.of(len(ids)), pgrun.Sized(c, s.plans.args(shareOf(pgrun.LockTimeout(ctx)), args...))...)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var row scannedFate
		for rows.Next() {
			if err := row.scan(rows, f.told); err != nil {
				return nil, err
			}
			fates[row.n-1] = row.fate()
		}
		return fates, rows.Err()
	})
}

// column is a column of members as a form takes it: the value of the only one, or an
// array.
func column[T any](values []T) any {
	if len(values) == 1 {
		return values[0]
	}
	return values
}

// spread answers those for whom others have done the work.
func (m *members) spread(answers []batch.Answer[fate]) {
	for i, first := range m.as {
		if first == i {
			continue
		}
		answers[i] = answers[first]
		answers[i].Value.told = "" // it was deleted once
		if !m.alike && answers[i].Err == nil {
			answers[i].Value = fate{what: fateLocked}
		}
	}
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

// failAll gives the error of a shared statement to its members.
func failAll[A any](answers []batch.Answer[A], members int, err error) []batch.Answer[A] {
	if err == nil {
		return answers
	}
	answers = make([]batch.Answer[A], members)
	for i := range answers {
		answers[i].Err = forMember(err)
	}
	return answers
}

// forMember makes the error of a shared statement one of its members'. What one of
// them may have caused (data that PostgreSQL refuses, a deadlock) they find out
// alone.
func forMember(err error) error {
	if state := pgrun.SQLState(err); !errors.Is(err, context.DeadlineExceeded) && (errors.Is(err, ErrInvalid) || state != "" && state != "57014" && !errors.Is(err, ErrUncertain)) {
		return errAlone
	}
	return err
}
