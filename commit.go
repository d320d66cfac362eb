package session

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/pgsession/session/internal/cookie"
)

// moment is when a commit is made.
type moment struct {
	final  bool // before the header leaves, or after it: no cookie can be sent later
	early  bool // by Save: whether a cookie will be sent is not known yet
	public bool // caches may keep the response, which is not spoilt for the sake of a touch

	now *stored // for Key.UpdateNow; else nil
}

// commit saves what has changed since the last one.
func (s *Session) commit(at moment) error {
	if err := s.lockSaving(); err != nil {
		return err
	}
	defer s.unlockSaving()
	return s.commitSaving(at)
}

// commitSaving is commit for who has called lockSaving.
func (s *Session) commitSaving(at moment) error {
	if err := s.settleHanded(); err != nil {
		return err
	}
	if at.early { // it may have waited while the handler ended
		if err := s.saveTooLate(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	late := s.response >= headerSent
	if at.final {
		s.response = max(s.response, headerSent)
		s.extended = s.extended || s.used
	}
	if !s.used || s.response >= refused || s.nothingDueLocked(late || at.early || at.public) {
		defer s.mu.Unlock()
		return s.verdictLocked()
	}
	p := s.snapshotLocked(late)
	p.noCookie, p.public, p.deleteOnly, p.now = late || at.early, at.public, s.err != nil || s.detached, at.now
	if !s.roomUsed {
		p.room, s.roomUsed = &s.room.committed, true
	}
	s.inflight, s.next = p.asked, nil
	s.mu.Unlock()

	out, err := s.apply(p)

	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		return s.failedLocked(p, err)
	}
	s.publishLocked(p, &out)
	if s.next.creates() {
		// Made meanwhile, from data that a merge may have replaced.
		_ = s.replayLocked() // which keeps its error
	}
	if at.final && !p.deleteOnly && errors.Is(s.err, ErrHeaderSent) {
		return nil // another goroutine came too late; what was committed stands
	}
	return s.verdictLocked()
}

// verdictLocked returns what a commit that went well has to say.
func (s *Session) verdictLocked() error {
	switch {
	case s.declined: // a page that says "logged out" must not wait in reserve, whoever sends it
		return errSpeculative
	case s.detached:
		return nil
	}
	return s.err
}

// apply carries out p in the store. A panic of the store's or of an application's
// function passes on.
func (s *Session) apply(p *snapshot) (out outcome, err error) {
	ctx, cancel := s.m.engine.storeContext(s.x.below())
	defer cancel()
	returned, applied := false, false
	defer func() {
		if returned {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if applied { // the look for others of the user has panicked
			s.publishLocked(p, &out)
		}
		s.restoreLocked(p.asked)
		s.failLocked(&opError{"save", errPanic})
	}()
	if out, err = s.m.engine.apply(ctx, p); err == nil {
		applied = true
		s.m.engine.limitUser(ctx, p.rec, &out)
	}
	returned = true
	return out, err
}

// failedLocked notes that p could not be carried out. What Destroy has dropped
// meanwhile does not matter any more.
func (s *Session) failedLocked(p *snapshot, err error) error {
	dropped := s.inflight != p.asked
	s.restoreLocked(p.asked)
	switch {
	case !errors.Is(err, ErrDestroyed):
	case dropped:
		return s.err
	default:
		s.endedLocked()
	}
	s.failLocked(err)
	return err // not s.err: a failed logout is worse than ErrHeaderSent
}

// snapshotLocked is what a commit goes away with. It is late if the header has left.
func (s *Session) snapshotLocked(late bool) *snapshot {
	attributes := s.m.configured(s.x.r)
	if s.next.begins() { // its cookie takes the place of the one the browser has
		attributes = s.attributesLocked()
	}
	return &snapshot{
		rec: s.rec, asked: cmp.Or(s.next, noChange), doomed: s.doomed, superseded: s.superseded,
		late: late, noCookie: true, skipTouch: s.skipTouch, token: s.token,
		device: s.device.confirm, attributes: attributes,
	}
}

// saveTooLate is the error of a Save that comes after the handler and finds what that
// has not saved, as after a panic.
func (s *Session) saveTooLate() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	lost := len(s.doomed) > 0 || !s.detached && (s.next.creates() || s.rec != nil && s.next != nil)
	if s.response != finished || !lost || s.err != nil {
		return nil
	}
	err := error(&opError{"Save", ErrFinished})
	s.failLocked(err)
	s.logLateLocked("session: saved after its handler has returned, nothing was saved", use{call: "Save"})
	return err
}

// madeForNobody is the error of a Hijack after a Save that has made an ID: nobody
// would send its cookie.
func (s *Session) madeForNobody() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made && s.cookie.send {
		s.tooLateLocked("a saved session at a Hijack")
		return s.err
	}
	return nil
}

// confirm is called between the final commit and the header. Where that is to
// say the session's ID for a reason that an earlier step of this request had, the
// record may have been renewed or destroyed since: then the cookie would log the
// browser out. A load tells, and writes nothing. If it fails, an ID that this
// request made itself is sent all the same, for nobody else will send it.
func (s *Session) confirm() {
	s.mu.Lock()
	rec, made := s.rec, s.made
	whole := s.err == nil || errors.Is(s.err, ErrHeaderSent) // another goroutine's, as in commit
	due := s.cookie.send && rec != nil && !s.alive && (made || !s.detached && whole)
	s.mu.Unlock()
	if !due {
		return
	}
	ctx, cancel := s.m.engine.storeContext(s.x.below())
	defer cancel()
	now, err := s.m.engine.fetch(ctx, rec.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case idOf(s.rec) != rec.id: // another goroutine has renewed or ended it
	case err == nil && s.rec == rec:
		moved := *rec
		moved.left, moved.asOf = now.left, now.asOf
		s.rec, s.alive = &moved, true
	case err == nil: // another goroutine has saved it meanwhile, and knows its time
		s.alive = true
	case errors.Is(err, ErrNotFound): // whatever that has found before
		s.vanished, s.cookie.send = true, false
		if s.m.engine.limits.maxPerUser > 0 { // a later login has ended it, and the browser may have that one's cookie
			s.cookie.expire = false // a Destroy's before
		}
	case !made:
		s.cookie.send = false
	}
}

// lockSaving waits until no other commit or Reload of this request is under way,
// no longer than one may take: a store that saves the session it works for would
// wait for itself.
func (s *Session) lockSaving() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mayNotSaveLocked() {
		return s.err
	}
	var timeout <-chan time.Time
	for s.saving {
		if s.saved == nil {
			s.saved = make(chan struct{})
		}
		if timeout == nil {
			t := time.NewTimer(s.m.cfg.StoreTimeout)
			defer t.Stop()
			timeout = t.C
		}
		saved := s.saved
		late := false
		_ = s.unlocked(func() error {
			select {
			case <-saved:
			case <-timeout:
				late = true
			}
			return nil
		})
		if late {
			err := &opError{"save: waiting for another of this request", context.DeadlineExceeded}
			s.failLocked(err)
			return err
		}
	}
	s.saving = true
	return nil
}

// mayNotSaveLocked refuses what would wait for itself, and what is no request's. It
// goes by the goroutine that asks.
func (s *Session) mayNotSaveLocked() bool {
	if s.calls.Inside(call.any) {
		s.failLocked(invalid("Save, Reload, Key.UpdateNow, Transact or the response's first byte", "inside a function of Key.Update, which may run in the middle of one, or of Transact, before its COMMIT"))
		return true
	}
	if s.edited != nil {
		s.failLocked(errOwnSession)
		return true
	}
	return false
}

// settleHanded begins a commit: nothing is known to be alive yet, but what SaveTx has
// handed over, if that was committed.
func (s *Session) settleHanded() error {
	s.mu.Lock()
	s.alive = false
	h := s.handed
	s.mu.Unlock()
	if h == nil {
		return nil
	}
	ctx, cancel := s.m.engine.storeContext(s.x.below())
	defer cancel()
	return h.settle(ctx)
}

func (s *Session) unlockSaving() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saving = false
	if s.saved != nil {
		close(s.saved)
		s.saved = nil
	}
}

// restoreLocked gives back what a commit has not stored, unless Destroy has
// dropped it.
func (s *Session) restoreLocked(asked *pending) {
	if s.inflight == asked {
		s.inflight, s.next = nil, asked.then(s.next)
	}
}

// nothingDueLocked reports whether there is nothing to commit, as after most
// requests: they only read. cookieless says that no cookie can follow a touch.
func (s *Session) nothingDueLocked(cookieless bool) bool {
	switch {
	case len(s.doomed) > 0:
		return false
	case s.err != nil || s.detached || s.speculative:
		return true
	case s.next.creates() || s.superseded && s.next != nil:
		return false
	case s.rec == nil: // an idle timeout alone creates no record
		return true
	case s.next != nil || s.rec.newborn || s.device.confirm != nil:
		return false
	}
	now := time.Now()
	e, i, left := &s.m.engine, s.rec.idle, s.rec.remaining(now)
	return s.vanished || !e.tooLong(i, left) && (s.skipTouch || !e.touchDue(i, e.target(&s.rec.Row, i, now, cookieless), left))
}

// settle saves what was changed after the final header, and extends a session
// that was first used then.
func (s *Session) settle() error {
	s.mu.Lock()
	nothing := !s.next.saves() && !s.inflight.saves() && len(s.doomed) == 0
	err := s.err
	settled := s.detached && len(s.doomed) == 0 || nothing && s.endedByReload
	settled = settled || nothing && err == nil && s.watches != nil && s.extended // the end of a stream is no use of the session
	settled = settled && !s.declined
	s.mu.Unlock()
	switch {
	case settled:
		return nil
	case nothing && err != nil:
		return err
	}
	return s.commit(moment{final: true})
}

// publishLocked takes over what a commit has done.
func (s *Session) publishLocked(p *snapshot, out *outcome) {
	s.doomed = s.doomed[len(p.doomed):]
	s.cookie.expire = s.cookie.expire || out.cookie.expire
	if s.inflight != p.asked { // destroyed meanwhile
		if out.rec != nil && (p.rec == nil || out.rec.id != p.rec.id) {
			s.doomLocked(out.rec.id)
		}
		return
	}
	if out.rec != nil && (p.rec == nil || out.rec.id != p.rec.id) {
		s.made, s.vanished = true, false
		s.watches.moved(&s.m.engine, p.rec, out)
		if p.rec != nil && !out.fresh { // whoever ends the new ID need not end the old one too
			s.presented = slices.DeleteFunc(s.presented, func(c cookie.Signed) bool { return c.ID == p.rec.id })
		}
	}
	s.inflight, s.rec, s.device.confirm = nil, out.rec, nil
	if s.rec == nil && p.asked.idle != nil && s.next.idleTimeout() == nil {
		s.next = s.next.withIdle(p.asked.idle) // for the record that may still come
	}
	s.vanished, s.alive = s.vanished || out.gone, out.alive
	switch {
	case s.vanished:
		s.cookie.send = false
	case out.cookie.send:
		s.cookie.refreshOnly = out.cookie.refreshOnly && (s.cookie.refreshOnly || !s.cookie.send)
		s.cookie.send = true
	}
}

// closeIO makes later calls work in memory only.
func (s *Session) closeIO() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.response = max(s.response, refused)
}

// finish ends the request's use of the session.
func (s *Session) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.response = finished
}

// headerGone notes that the response header is out of the session's hands.
func (s *Session) headerGone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.response = max(s.response, headerSent)
}

// log writes what went wrong. The path stays out: it may hold a token.
func (s *Session) log(level slog.Level, msg string, err error) {
	s.m.cfg.Logger.LogAttrs(s.x.below(), level, msg, slog.Any("error", err), slog.String("method", s.x.r.Method))
}

// replayLocked makes the changes again on a newer record. It unlocks s.mu while
// an application's function runs.
func (s *Session) replayLocked() error {
	for start := time.Now(); ; {
		rec, asked := s.rec, s.next
		var again *pending
		err := s.unlocked(func() (err error) {
			again, err = asked.rebase(rec)
			return err
		})
		if err != nil {
			s.failLocked(err)
			return err
		}
		if s.next == asked {
			s.next = again
			return nil
		}
		if time.Since(start) > s.m.cfg.StoreTimeout {
			s.failLocked(&opError{"Key.Update: other goroutines of the request change the session all the while", context.DeadlineExceeded})
			return s.err
		}
	}
}

// unlocked calls f with s.mu unlocked and locks it again, even if f panics.
func (s *Session) unlocked(f func() error) error {
	s.mu.Unlock()
	defer s.mu.Lock()
	return f()
}
