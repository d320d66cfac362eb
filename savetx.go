package session

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/cookie"
)

// SaveTx saves s in a transaction of the caller's, on the database of the session's
// store and as a user who may write its table: what is saved so far counts once the
// caller has committed, which must be before the first byte of the response.
//
// Nothing runs again, since what the transaction holds besides was made from
// the session as it was loaded: where another request has changed it since, SaveTx
// is [ErrConflict] (409 by default), where it has ended [ErrDestroyed]. Roll back
// then. Every error sticks, as in [Session.Save]: the response is the error
// handler's. The row stays locked until the transaction ends, so let SaveTx be
// its last statement. [Transact] does all of this itself, locks first and loads
// then, so that there is no conflict; prefer it.
//
// If the caller's COMMIT fails, what was handed to SaveTx is lost with it and is
// not saved again; after it [Session.Reload] shows what is stored. An
// ID that SaveTx has made, for a new session or by Renew, is sent with the response
// only after one more load has shown that it was committed: else the browser keeps
// what it has. A Destroy is not part of the transaction. Without changes SaveTx does
// nothing.
//
// ctx bounds SaveTx, which waits for the row within it, and [Config.StoreTimeout].
// Every other use is [ErrInvalid] where that of [Transact] is, and so is SaveTx in its
// function.
func SaveTx(ctx context.Context, s *Session, tx pgx.Tx) error {
	return s.saveTx(ctx, "SaveTx", func(store *PostgresStore) rower { return store.pgxRows(tx) })
}

// SaveSQLTx is [SaveTx] for a transaction of database/sql, of any driver for
// PostgreSQL.
func SaveSQLTx(ctx context.Context, s *Session, tx *sql.Tx) error {
	return s.saveTx(ctx, "SaveSQLTx", func(*PostgresStore) rower { return sqlRows(tx) })
}

func (s *Session) saveTx(ctx context.Context, op string, rows func(*PostgresStore) rower) error {
	store, err := s.lockForTransaction(op)
	if err != nil {
		return err
	}
	defer s.unlockSaving()
	s.mu.Lock()
	p := s.snapshotLocked(s.response >= headerSent)
	p.doomed = nil // a Destroy is the response's
	if !p.asked.any() {
		defer s.mu.Unlock()
		return s.verdictLocked()
	}
	s.inflight, s.next = p.asked, nil
	s.mu.Unlock()
	settled := false
	defer func() {
		if !settled { // a panic, of an application's function
			s.mu.Lock()
			defer s.mu.Unlock()
			s.restoreLocked(p.asked)
			s.failLocked(&opError{op, errPanic})
		}
	}()
	x := &txStore{s: store, row: rows(store)}
	if p.rec != nil {
		x.id, x.old = p.rec.id, p.rec.Raw
	}
	in := s.m.engine.inside(x)
	bounded, cancel := context.WithTimeout(ctx, s.m.cfg.StoreTimeout)
	defer cancel()
	out, err := in.apply(bounded, p)
	if err == nil {
		err = x.failed
	}
	settled = true
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if errors.Is(err, errTaken) {
			err = fmt.Errorf("%w: %w", ErrConflict, err)
		}
		return s.failedLocked(p, &opError{op, s.m.engine.countError(err)})
	}
	s.m.engine.stats.count(&in.stats)
	s.handOverLocked(p, &out, in.events)
	return s.verdictLocked()
}

// handOverLocked takes over what a transaction holds that nobody has committed yet.
// It needs no look at what has become of it where that would change nothing:
// a later save of the same record compares anyway.
func (s *Session) handOverLocked(p *snapshot, out *outcome, told *events) {
	if s.inflight != p.asked { // destroyed meanwhile
		if out.rec != nil {
			s.doomLocked(out.rec.id)
		}
		return
	}
	h := &handed{before: p.rec, last: p.rec}
	if under := s.handed; under != nil {
		h.before, h.told = under.before, under.told
		if h.under = under; idOf(out.rec) == idOf(p.rec) {
			h.last, h.under = under.last, under.under
		}
	}
	h.told = append(h.told, told)
	s.inflight, s.rec, s.device.confirm, s.alive = nil, out.rec, nil, false
	if out.rec == nil || out.rec.id == idOf(h.before) && !out.cookie.send && !s.m.engine.limitDue(h.before, out) {
		return
	}
	sent := *out
	h.settle = func(ctx context.Context) error { return s.settleTx(ctx, h, &sent) }
	s.handed = h
	// Destroy ends the record under either ID.
	if p.rec != nil && p.rec.id != out.rec.id && !slices.ContainsFunc(s.presented, func(c cookie.Signed) bool { return c.ID == p.rec.id }) {
		s.presented = append(slices.Clone(s.presented), cookie.Signed{ID: p.rec.id})
	}
}

// settleTx finds out by a load whether the transaction was committed, which alone
// lets the response say the ID that it has made.
func (s *Session) settleTx(ctx context.Context, h *handed, out *outcome) error {
	now, err := s.m.engine.fetch(ctx, out.rec.id)
	if errors.Is(err, ErrNotFound) && s.takeUnder(h, out) {
		return h.under.settle(ctx)
	}
	found := err == nil
	if err := s.takeTx(h, out, now, err); err != nil || !found {
		return err
	}
	is := outcome{rec: &view{out.rec.id, now}, fresh: out.fresh, alive: true}
	s.m.engine.limitUser(ctx, h.before, &is)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.alive = s.alive && is.alive
	return nil
}

// takeUnder goes back to what an earlier transaction of the request may have made, if
// there is one.
func (s *Session) takeUnder(h *handed, out *outcome) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.under == nil || s.handed != h || s.rec != out.rec {
		return false
	}
	for _, told := range h.told[len(h.under.told):] {
		told.settle(s.m.engine.events, false)
	}
	s.handed, s.rec = h.under, h.last
	return true
}

// takeTx takes over what a load has said of what a transaction has made.
func (s *Session) takeTx(h *handed, out *outcome, now loaded, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handed != h {
		return nil
	}
	if err != nil && !errors.Is(err, ErrNotFound) { // to send the ID, or to keep it, may be wrong
		s.failLocked(&opError{"SaveTx: finding out whether its transaction was committed", err})
		return s.err
	}
	s.handed = nil
	for _, told := range h.told {
		told.settle(s.m.engine.events, err == nil)
	}
	if s.rec != out.rec { // destroyed since
		return nil
	}
	made := out.rec.id != idOf(h.before)
	switch {
	case err == nil:
		s.rec = &view{out.rec.id, now}
		if made {
			s.watches.moved(&s.m.engine, h.before, &outcome{rec: s.rec, fresh: out.fresh})
		}
		s.made, s.alive = s.made || made, true
		if made || out.cookie.send {
			s.cookie.send, s.cookie.refreshOnly = true, false
		}
	case made: // rolled back, or ended since
		s.rec = h.before
	default:
		s.vanished, s.cookie.send = true, false
	}
	return s.replayLocked()
}
