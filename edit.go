package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/pgsession/session/internal/backoff"
	"github.com/pgsession/session/internal/batch"
	"github.com/pgsession/session/internal/jsonobj"
	"github.com/pgsession/session/internal/row"
	"github.com/pgsession/session/internal/seal"
)

const (
	editBatch = 50 // records in memory at a time

	editTagBytes = 2 * row.ProgramBytes // as long as those of Key.Update
)

// errNameless says that a store around a store has lost the IDs.
var errNameless = errors.New("the store does not say the IDs of what it finds, as one around a PostgresStore with HashIDs: give New that store itself")

// Edit lets change work on every live session that f names, one after the other, and
// stores what it has changed: for what users are shown or may do, from a job, an
// administrator's page or another user's request. It returns how many sessions were
// changed, also beside an error.
//
// change reads and changes keys as in a request ([Key.Get], [Key.Set], [Key.Update],
// [Key.Take], [Key.Delete], and helpers that do), for no longer than the call. It runs
// again where a request has changed the session meanwhile, so it should do nothing but
// that: keys that it leaves alone keep what they have, and what requests under way
// change is merged with it, in either order. What it changes is stored once in each
// session. Where it changes nothing, nothing is written. Its error ends Edit, and that
// session stays as it was, those before changed. The session has a Handle and no ID;
// Renew, Bind, Destroy, SetIdleTimeout, Save and Reload are errors ([ErrInvalid]).
//
// Edit moves no expiry and sends no cookie. A session that is renewed meanwhile does
// not escape: Edit looks for more until a look, which sees all of them at one moment, has
// led to every session that f named then. One that no longer has f's value when its turn
// comes is left alone. A login under way may bring its session a moment later, and a
// request that has read the session before may still act on what it read: to take rights
// away, change them where logins read them first, then [Manager.Revoke].
//
// Sessions are loaded and stored in small batches, outside of any transaction; in
// memory are fifty, and the IDs of all. When ctx ends the one under way is finished. Each step
// is bounded by [Config.StoreTimeout], with [Everyone] the look by ctx alone. A store
// that is a [Finder] is needed. With [Config.Encrypt] and [PostgresOptions.HashIDs]
// together it is an error: nothing can be opened without the ID. Where a record does not open, because a
// secret was dropped, the others are changed and that is the error at the end.
func (m *Manager) Edit(ctx context.Context, f Filter, change func(*Session) error) (int64, error) {
	finder, q, err := m.query(f)
	if s, ok := m.store.(*PostgresStore); err == nil && ok && s.opts.HashIDs && m.cfg.Encrypt {
		err = errors.New("the table holds hashes of the session IDs, and nothing can be opened without the ID: change a session in a request of its own, or end it by Revoke")
	}
	if err != nil {
		return 0, &opError{"Edit", err}
	}
	e := &editing{m: m, change: change, everyone: f.everyone, finder: finder, q: q, tag: rand.Text()[:editTagBytes]}
	e.value, _ = jsonobj.Text(f.value)
	e.request = &exchange{Context: ctx, m: m, r: &http.Request{Header: http.Header{}}}
	if err := e.run(ctx); err != nil {
		return e.changed, &opError{"Edit", err}
	}
	return e.changed, nil
}

// editing is one Edit.
type editing struct {
	m        *Manager
	change   func(*Session) error
	everyone bool
	finder   Finder
	q        Query
	value    string // that q.Key must have
	request  *exchange

	// tag is left in every record that is changed. By it a change is known whose
	// answer was lost, and, under whatever ID, one that was made already.
	tag string

	changed  int64
	seen     []string // the IDs that need not be looked at again, in order
	lookedAt time.Time
	missed   bool  // a session has gone on under an ID that was not there at the last look
	unopened error // of a record that is left alone
}

// run goes through the sessions until a look has named none that it cannot find.
func (e *editing) run(ctx context.Context) error {
	for {
		e.lookedAt, e.missed = time.Now(), false
		ids, err := e.look(ctx)
		if err != nil {
			return e.m.engine.countError(err)
		}
		ids = slices.DeleteFunc(ids, func(id string) bool {
			_, seen := slices.BinarySearch(e.seen, id)
			return seen
		})
		var seen []string
		for some := range slices.Chunk(ids, editBatch) {
			done, err := e.batch(ctx, some)
			if err != nil {
				return err
			}
			seen = append(seen, done...)
		}
		if !e.missed {
			return e.unopened
		}
		e.seen = append(e.seen, seen...)
		slices.Sort(e.seen)
	}
}

// look names all sessions that are live now.
func (e *editing) look(ctx context.Context) ([]string, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	timeout := e.m.cfg.StoreTimeout
	if e.everyone {
		timeout = revokeTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return e.list(ctx)
}

// list names the records of e that are live, all as they are at one moment.
func (e *editing) list(ctx context.Context) (ids []string, err error) {
	if l, ok := e.finder.(lister); ok {
		ids, err = l.list(ctx, e.q)
	} else {
		q := e.q
		q.Limit = math.MaxInt32
		var found []Found
		found, err = e.finder.Find(ctx, q)
		for _, r := range found {
			if r.ID == "" {
				return nil, errNameless
			}
			ids = append(ids, r.ID)
		}
	}
	return ids, err
}

// load loads records: those of a PostgresStore at once, others not yet (errAlone).
func (e *editing) load(ctx context.Context, ids []string) []batch.Answer[Record] {
	if l, ok := e.finder.(lister); ok && len(ids) > 1 {
		ctx, cancel := e.m.engine.storeContext(ctx)
		defer cancel()
		return l.loadAll(ctx, ids)
	}
	answers := make([]batch.Answer[Record], len(ids))
	for i := range answers {
		answers[i].Err = errAlone
	}
	return answers
}

// batch changes the sessions of ids, and returns those that need not be looked at
// again.
func (e *editing) batch(ctx context.Context, ids []string) (done []string, err error) {
	answers := e.load(ctx, ids)
	for i, id := range ids {
		if err := context.Cause(ctx); err != nil {
			return done, err
		}
		var rec loaded
		err := answers[i].Err
		if !errors.Is(err, errAlone) {
			rec, err = e.m.engine.read(ctx, id, answers[i].Value, err)
		}
		is, err := e.session(ctx, id, rec, err)
		if err != nil {
			return done, err
		}
		if is {
			done = append(done, id)
		}
	}
	return done, nil
}

// session changes one session, which was loaded with err. done says that its record
// need not be looked at again.
func (e *editing) session(ctx context.Context, id string, rec loaded, err error) (done bool, _ error) {
	began := time.Now()
	var doubt *row.Row // what the last attempt without an answer started from
	for try := 0; ; try++ {
		if try > 0 || errors.Is(err, errAlone) {
			rec, err = e.fetch(ctx, id)
		}
		switch {
		case errors.Is(err, ErrNotFound):
			// Without a mark it has ended, or its mark has.
			e.missed = e.missed || errors.Is(err, ErrRenewed) || time.Since(e.lookedAt) > markLife/2
			return false, nil
		case errors.Is(err, seal.ErrUnopened):
			e.unopened = err
			return true, nil
		case err != nil && doubt != nil:
			return false, fmt.Errorf("%w: %w", ErrUncertain, err)
		case err != nil:
			return false, err
		}
		before := &rec.Row
		if doubt != nil {
			before = doubt
		}
		switch is, known := rec.SavedBy(e.tag, before); {
		case is && doubt != nil:
			e.changed++
			return true, nil
		case is: // before it was renewed
			return true, nil
		case doubt != nil && !known:
			return false, fmt.Errorf("%w: too many others have changed the session since", ErrUncertain)
		}
		if e.q.Key != "" && !e.names(&rec.Row) {
			return false, nil
		}
		again, err := e.attempt(ctx, id, &rec)
		switch {
		case err == nil:
			return true, nil
		case !again:
			return false, err
		case errors.Is(err, ErrUncertain):
			_ = e.m.engine.countError(err)
			if doubt == nil {
				began = time.Now() // it may have taken all the time, and one look is due
			}
			from := rec.Row
			doubt = &from
		case errors.Is(err, ErrConflict):
			e.m.engine.stats.conflicts.Add(1)
		}
		if time.Since(began) > e.m.cfg.StoreTimeout {
			if !errors.Is(err, ErrUncertain) {
				err = fmt.Errorf("no success in time, others change a session all the while: %w", context.DeadlineExceeded)
			}
			return false, err
		}
		_ = backoff.Pause(context.WithoutCancel(ctx), try)
	}
}

func (e *editing) fetch(ctx context.Context, id string) (loaded, error) {
	ctx, cancel := e.m.engine.storeContext(ctx)
	defer cancel()
	return e.m.engine.fetch(ctx, id)
}

// names reports whether the record still has the value that it was found by.
func (e *editing) names(d *row.Row) bool {
	text, ok := jsonobj.Text(d.Get(e.q.Key))
	return ok && text == e.value
}

// attempt lets the change work on a record and stores it. again says of an error that
// nothing was stored, or nobody knows, for what the record holds now to tell.
func (e *editing) attempt(ctx context.Context, id string, rec *loaded) (again bool, err error) {
	d := rec.Clone()
	changed, err := e.call(rec, &d, id)
	if err != nil || len(changed) == 0 {
		return false, err
	}
	d.AddSave(e.tag, &rec.Row, changed)
	engine := &e.m.engine
	data, err := engine.encode(id, &d)
	if err == nil {
		err = engine.checkSize(data, len(rec.Raw))
	}
	if err != nil {
		return false, err
	}
	ctx, cancel := engine.storeContext(ctx)
	defer cancel()
	switch err := engine.store.Update(ctx, id, Change{Old: rec.Raw, New: data}); {
	case err == nil:
		engine.stats.saves.Add(1)
		e.changed++
		return false, nil
	case errors.Is(err, ErrConflict), errors.Is(err, ErrNotFound), errors.Is(err, ErrUncertain):
		return true, err
	default:
		return false, engine.countError(err)
	}
}

// call runs the application's function on a record, makes its changes on d, and
// returns the keys that they are of.
func (e *editing) call(rec *loaded, d *row.Row, id string) (changed []string, err error) {
	s := &Session{
		m: e.m, x: e.request, began: time.Now(), load: loadedNow, used: true, existed: true,
		rec: &view{"", *rec}, edited: &edited{e.finder.Handle(id)},
	}
	defer s.finish() // whoever keeps it is told
	if err := e.change(s); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return nil, s.err
	case s.rec == nil, s.next.renews(), s.next.idleTimeout() != nil, s.next.sets(row.MemberBound):
		return nil, errOwnSession
	case s.next == nil:
		return nil, nil
	}
	for _, c := range s.next.changes {
		if !bytes.Equal(c.value, d.Get(c.name)) {
			d.Set(c.name, c.value)
			changed = append(changed, c.name)
		}
	}
	return changed, nil
}
