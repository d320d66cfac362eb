package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Ledger knows what browsers were told of their sessions, and finds what does
// not agree with it. An answer of 2xx is a promise: what it wrote is stored, what it
// ended is dead. Anything else (503, a broken connection) promises nothing: that
// request may have happened, then or later, or not. A Ledger is safe for
// concurrent use.
type Ledger struct {
	clock  atomic.Int64 // orders requests and answers
	serial atomic.Int64
	marks  atomic.Int64

	mu       sync.Mutex
	entries  []*entry
	findings Findings
	notes    []string
}

// Findings counts what did not agree.
type Findings struct {
	Lost        int // writes that were acknowledged and are not there, or are there twice
	Resurrected int // sessions that were destroyed or renewed and are alive
	LoggedOut   int // sessions that ended though nobody had asked
	Foreign     int // data shown or stored that is not the session's own
}

// Row is what a session holds: its keys and their JSON values.
type Row map[string]json.RawMessage

// NewLedger returns an empty ledger.
func NewLedger() *Ledger { return &Ledger{} }

// Findings returns the counts so far, and says in a line each what was found,
// without a session ID or a value.
func (l *Ledger) Findings() (Findings, []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.findings, append([]string(nil), l.notes...)
}

func (l *Ledger) note(count *int, e *entry, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*count++
	where := "no session of ours"
	if e != nil {
		where = fmt.Sprintf("session %d", e.number)
	}
	if len(l.notes) < 50 {
		l.notes = append(l.notes, where+": "+fmt.Sprintf(format, args...))
	}
}

// entry is one session, from its login to its logout.
type entry struct {
	l            *Ledger
	number       int64
	user, serial string

	mu sync.Mutex
	// What was asked, and whether the answer was a promise.
	born       bool
	leaving    bool // a logout was sent
	renewDoubt bool // a renewal was not answered: the browser may have the old ID
	// What is known of its end.
	dead    bool // it was destroyed
	adrift  bool // it was renewed, and the browser does not know the new ID
	settled bool // something was found; nothing more is asked of it

	marks map[int]*mark
	begun int64 // of the last stored write of a mark

	// The counter: increments asked for, acknowledged, seen stored, and found lost.
	asked, kept, observed, lost int
}

// mark is one write of a key of its own.
type mark struct {
	began, ended       int64 // ended is 0 until it is known to be stored
	dropAsked, dropped bool
}

// seen is what was certain when a request began.
type seen struct {
	dead    bool
	stored  []int        // marks that must be there, unless somebody asks to drop them
	dropped map[int]bool // marks that must not
	count   int          // the least that the counter may say
	begun   int64        // of the last stored write of a mark
}

func (l *Ledger) open(user string) *entry {
	n := l.serial.Add(1)
	e := &entry{l: l, number: n, user: user, serial: strconv.FormatInt(n, 10), marks: map[int]*mark{}}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, e)
	return e
}

// over reports whether the browser can do nothing more with the session.
func (e *entry) over() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.dead || e.adrift || e.settled
}

func (e *entry) begin() seen {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := seen{dead: e.dead, count: max(e.kept-e.lost, e.observed), begun: e.begun, dropped: map[int]bool{}}
	for n, m := range e.marks {
		switch {
		case m.dropped:
			s.dropped[n] = true
		case m.ended != 0 && !m.dropAsked:
			s.stored = append(s.stored, n)
		}
	}
	return s
}

// found counts something and asks nothing more of the session.
func (e *entry) found(count *int, format string, args ...any) {
	if !e.settled {
		e.settled = true
		e.l.note(count, e, format, args...)
	}
}

// absent takes an answer that the browser is not logged in.
func (e *entry) absent() {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.dead, e.adrift, e.settled:
	case e.renewDoubt:
		e.adrift = true
	case e.leaving:
		e.end()
	default:
		e.found(&e.l.findings.LoggedOut, "told that it is not logged in")
	}
}

// end notes that the session was destroyed.
func (e *entry) end() {
	e.dead = true
	clear(e.marks)
}

// present takes an answer that shows the session's data, and reports whether it
// is this session's and may be.
func (e *entry) present(s seen, row Row) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case text(row, keyUser) != e.user || text(row, keySerial) != e.serial:
		e.l.note(&e.l.findings.Foreign, e, "was shown another session")
		return false
	case s.dead:
		e.found(&e.l.findings.Resurrected, "alive after its end")
		return false
	}
	return true
}

// compare checks data that was loaded by a request that began at s. Only what
// was certain then, and is not contradicted since, must be there.
func (e *entry) compare(s seen, row Row) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f := &e.l.findings
	if e.dead { // meanwhile
		return
	}
	for _, n := range s.stored {
		if _, ok := row[string(markKey(n))]; !ok && !e.marks[n].dropAsked {
			e.marks[n].dropAsked = true // once is enough
			e.l.note(&f.Lost, e, "a stored key is gone")
		}
	}
	for name := range row {
		if n, ok := markNumber(name); ok {
			e.compareMark(s, n, integer(row, name))
		}
	}
	switch count := integer(row, string(keyCount)); {
	case count < s.count:
		e.l.note(&f.Lost, e, "the counter is behind: %d of %d", count, s.count)
		e.lost, e.observed = e.kept-count, count // once is enough
	case count > e.asked:
		e.l.note(&f.Lost, e, "the counter is ahead: %d of %d, an increment was done twice", count, e.asked)
		e.asked, e.observed = count, count
	default:
		e.observed = max(e.observed, count)
	}
	if last := integer(row, string(keyLast)); last != 0 {
		m := e.marks[last]
		switch {
		case m == nil:
			e.l.note(&f.Foreign, e, "a value that it never wrote")
		case m.ended != 0 && m.ended < s.begun:
			e.l.note(&f.Lost, e, "a key has a value that was overwritten")
		}
	}
}

func (e *entry) compareMark(s seen, n, value int) {
	m := e.marks[n]
	switch {
	case m == nil || value != n:
		e.l.note(&e.l.findings.Foreign, e, "a key that it never wrote")
	case s.dropped[n]:
		m.dropped = false // once is enough
		e.l.note(&e.l.findings.Lost, e, "a deleted key is back")
	case m.ended == 0:
		m.ended = e.l.clock.Add(1) // now it is known
	}
}

func markNumber(name string) (int, bool) {
	digits, ok := strings.CutPrefix(name, markPrefix)
	n, err := strconv.Atoi(digits)
	return n, ok && err == nil
}

func integer(row Row, name string) int {
	n, _ := strconv.Atoi(string(row[name]))
	return n
}

func text[K ~string](row Row, key K) string {
	var s string
	_ = json.Unmarshal(row[string(key)], &s)
	return s
}

// Audit compares all rows of the table with the ledger. No request may be under
// way.
func (l *Ledger) Audit(rows []Row) {
	bySerial := map[string][]Row{}
	for _, row := range rows {
		serial := text(row, keySerial)
		bySerial[serial] = append(bySerial[serial], row)
	}
	l.mu.Lock()
	entries := append([]*entry(nil), l.entries...)
	l.mu.Unlock()
	for _, e := range entries {
		e.audit(bySerial[e.serial])
		delete(bySerial, e.serial)
	}
	for _, rows := range bySerial {
		for range rows {
			l.note(&l.findings.Foreign, nil, "a row that no browser has asked for")
		}
	}
}

func (e *entry) audit(rows []Row) {
	s := e.begin()
	e.mu.Lock()
	f := &e.l.findings
	switch {
	case len(rows) > 1:
		e.found(&f.Resurrected, "has %d rows", len(rows))
	case len(rows) == 1 && e.dead:
		e.found(&f.Resurrected, "has a row after its end")
	case len(rows) == 0 && e.born && !e.dead && !e.leaving:
		e.found(&f.LoggedOut, "has no row")
	}
	settled := e.settled
	e.mu.Unlock()
	if len(rows) == 1 && !settled && e.present(s, rows[0]) {
		e.compare(s, rows[0])
	}
}

// ReadRows returns the rows of the table schema_system.session, without the
// members that are not the application's and without marks of renewed IDs.
func ReadRows(ctx context.Context, pool *pgxpool.Pool) ([]Row, error) {
	found, err := pool.Query(ctx, `SELECT sess::text FROM schema_system.session WHERE left(sess::text, 3) <> '"0e'`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(found, func(r pgx.CollectableRow) (Row, error) {
		var data []byte
		if err := r.Scan(&data); err != nil {
			return nil, err
		}
		var row Row
		err := json.Unmarshal(data, &row)
		for name := range row {
			if name == "cookie" || strings.HasPrefix(name, "__") {
				delete(row, name)
			}
		}
		return row, err
	})
}
