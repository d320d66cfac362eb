package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/cookie"
	"github.com/pgsession/session/internal/pgrun"
)

// Transact runs f in a transaction that holds the session: what f does in the
// database and what it changes in s are stored together or not at all. A cart
// becomes an order exactly once, however often the button is clicked.
//
// It begins a transaction (READ COMMITTED) on a connection of its own, locks the
// session's record and loads it, so that in f every Get sees what is stored then,
// runs f once, saves the session and commits. Another Transact of the session
// waits for this one, by whichever program; so does its save, within
// [Config.StoreTimeout], but no load, and nobody else's session. What s was to
// save already is saved with it, functions of [Key.Update] included. A Renew, a
// Destroy or a new session of f is part of it, and the cookie waits for COMMIT. A
// session without a record has nothing to lock: two requests of a visitor without
// a cookie do not wait for each other.
//
// An error of f, or one with which PostgreSQL refuses COMMIT, is returned and rolls
// everything back, the changes of s since f began included; so does a panic, which
// passes on. The session is as it was, and the request goes on. Where the session
// ended meanwhile f does not run: [ErrDestroyed], [ErrRenewed]. These stick, as in
// [Session.Save], and so does what cannot be saved, and [ErrUncertain]: COMMIT had no
// answer and nobody could say what has become of it, as after a failover. A
// lost answer alone is found out, on another connection: nil if it was committed.
//
// ctx is f's too, and bounds the wait for the record, f and COMMIT;
// without a deadline the wait and COMMIT have [Config.StoreTimeout] each, and f as
// long as it likes. COMMIT is not cut off when ctx is cancelled. f must not use tx in
// another goroutine once it has returned, nor call Commit or Rollback of it; Save,
// Reload, Transact of s and the first byte of the response are errors in it:
// [ErrInvalid]. So is Transact after [Session.Detach], in a function of
// [Key.Update], and on another store than [PostgresStore].
func Transact(ctx context.Context, s *Session, f func(ctx context.Context, tx pgx.Tx) error) error {
	store, err := s.lockForTransaction("Transact")
	if err != nil {
		return err
	}
	defer s.unlockSaving()
	if err := s.settleHanded(); err != nil {
		return err
	}
	t := transacting{s: s, e: &s.m.engine}
	wait, cancel := t.bounded(ctx)
	defer cancel()
	s.mu.Lock()
	rec := s.rec
	s.mu.Unlock()
	if rec != nil {
		place, err := t.e.lockers.Acquire(wait, rec.id)
		if err != nil {
			return &opError{"Transact: waiting for another of the session", err}
		}
		defer place.Release()
		t.id = rec.id
	}
	if t.tx, t.store, err = store.begin(wait, t.id); err != nil {
		return &opError{"Transact", t.e.countError(err)}
	}
	defer t.tx.End()
	if t.in = t.e.inside(t.store); rec != nil {
		if err := t.load(wait, rec); err != nil {
			return err
		}
	}
	t.before = s.keepState()
	if err := t.run(ctx, f); err != nil {
		return err
	}
	return t.save(ctx)
}

// transacting is one Transact.
type transacting struct {
	s      *Session
	e, in  *engine // in is the one inside the transaction
	id     string  // of the record; "" without one
	tx     *pgrun.Transaction
	store  *txStore
	before kept
}

// lockForTransaction returns the store, with s loaded and no other commit of this
// request under way. The caller calls unlockSaving, unless there is an error.
func (s *Session) lockForTransaction(op string) (*PostgresStore, error) {
	p, ok := s.m.store.(interface{ postgres() *PostgresStore })
	if !ok {
		return nil, invalid(op, "the store is a %T, only a PostgresStore (or what embeds one) has transactions", s.m.store)
	}
	if err := s.declineSave(); err != nil {
		return nil, err
	}
	s.lockLoaded(use{call: op})
	err, detached, over := s.err, s.detached, s.response >= refused
	if err == nil && over && s.rejectChangeLocked(use{call: op}) {
		err = cmp.Or(s.err, error(&opError{op, ErrFinished}))
	}
	s.mu.Unlock()
	switch {
	case err != nil:
		return nil, err
	case detached:
		return nil, invalid(op, "after Detach nothing of the session is saved")
	}
	return p.postgres(), s.lockSaving()
}

// bounded gives a context without a deadline that of an operation on the store.
func (t *transacting) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, t.e.limits.storeTimeout)
}

// load takes over the record as it is now that it is locked.
func (t *transacting) load(ctx context.Context, before *view) error {
	now, err := t.in.fetch(ctx, before.id)
	var ended error
	if errors.Is(err, ErrNotFound) {
		t.tx.End()
		look, cancel := t.e.storeContext(ctx)
		defer cancel()
		ended = t.e.whyGone(look, before.id, err)
	}
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.rec != before: // destroyed by another goroutine of this request
		return &opError{"Transact", ErrDestroyed}
	case ended != nil:
		s.endedLocked()
		s.failLocked(&opError{"Transact", ended})
		return s.err
	case err != nil:
		return &opError{"Transact", err}
	}
	s.rec = &view{before.id, now}
	return s.replayLocked()
}

// run runs f, and takes back what it has changed in the session if it fails.
func (t *transacting) run(ctx context.Context, f func(context.Context, pgx.Tx) error) (err error) {
	s, returned := t.s, false
	defer func() {
		if !returned || err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.putBackLocked(&t.before, nil)
		}
	}()
	s.calls.Do(call{transact: true}, func() { err = f(ctx, t.tx.Lent()) })
	returned = true
	if err == nil {
		err = s.Err()
	}
	if err == nil && ctx.Err() != nil {
		err = &opError{"Transact", context.Cause(ctx)}
	}
	if err == nil {
		if err = t.tx.Check(); err != nil {
			err = &opError{"Transact", err}
		}
	}
	return err
}

// save saves the session in the transaction, and commits.
func (t *transacting) save(ctx context.Context) error {
	s := t.s
	s.mu.Lock()
	p := s.snapshotLocked(s.response >= headerSent)
	s.inflight, s.next = p.asked, nil
	s.mu.Unlock()
	settled, committed := false, false
	var out outcome
	defer func() {
		if settled {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if committed { // the look for others of the user has panicked
			s.publishLocked(p, &out)
		} else { // an application's function has
			s.putBackLocked(&t.before, s.next)
		}
		s.failLocked(&opError{"Transact", errPanic})
	}()
	out, sent, err := t.write(ctx, p)
	if err == nil {
		committed = true
		t.e.stats.count(&t.in.stats)
		limit, cancel := t.e.storeContext(ctx)
		t.e.limitUser(limit, p.rec, &out)
		cancel()
	}
	settled = true
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.publishLocked(p, &out)
		if s.next.creates() {
			_ = s.replayLocked() // as in commit
		}
		return s.verdictLocked()
	case sent && errors.Is(err, pgrun.ErrNotCommitted): // COMMIT refused, as by a constraint of the application's
		s.putBackLocked(&t.before, s.next)
		return err
	}
	s.putBackLocked(&t.before, s.next)
	if errors.Is(err, ErrDestroyed) {
		s.endedLocked()
	}
	s.failLocked(err)
	return err
}

// write writes p and commits. sent says that COMMIT was, or was about to be.
func (t *transacting) write(ctx context.Context, p *snapshot) (out outcome, sent bool, err error) {
	wait, cancel := t.bounded(ctx)
	defer cancel()
	out, err = t.in.apply(wait, p)
	if err == nil && t.store.failed != nil { // what the page would not depend on, but the transaction does
		err = t.store.failed
	}
	if err != nil {
		if errors.Is(err, errTaken) {
			err = fmt.Errorf("%w: the function has changed the session's row itself", ErrInvalid)
		}
		return out, false, &opError{"Transact", t.e.countError(err)}
	}
	t.in.events.announce(t.e.events)
	err = t.store.commit(wait, t.tx)
	t.in.events.settle(t.e.events, err == nil)
	if err != nil {
		return out, true, &opError{"Transact", err}
	}
	return out, true, nil
}

// kept is what a session was before a transaction's function ran.
type kept struct {
	rec        *view
	next       *pending
	presented  []cookie.Signed
	superseded bool
	marked     bool
	existed    bool
	device     deviceState
	doomed     []string
	vanished   bool
	cookie     cookieState
	made       bool
	expireAs   []cookie.Attributes
	token      bool
}

// keepState returns what putBackLocked needs.
func (s *Session) keepState() kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil { // what comes is another array's
		next := *s.next
		next.changes = slices.Clip(next.changes)
		s.next = &next
	}
	s.doomed, s.expireAs = slices.Clip(s.doomed), slices.Clip(s.expireAs)
	return kept{
		s.rec, s.next, slices.Clone(s.presented), s.superseded, s.marked, s.existed, s.device,
		s.doomed, s.vanished, s.cookie, s.made, s.expireAs, s.token,
	}
}

// putBackLocked makes s what it was, with what was asked for later.
func (s *Session) putBackLocked(k *kept, later *pending) {
	s.rec, s.inflight, s.next = k.rec, nil, k.next
	if later != nil {
		s.next = k.next.then(later)
	}
	s.presented, s.superseded, s.marked, s.existed, s.device = k.presented, k.superseded, k.marked, k.existed, k.device
	s.doomed, s.vanished, s.cookie, s.made, s.expireAs = k.doomed, k.vanished, k.cookie, k.made, k.expireAs
	s.alive, s.token = false, k.token
}
