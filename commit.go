package session

import (
	"errors"
	"log/slog"
	"time"
)

// commit saves what has changed since the last one. final is the one before
// the header leaves, or any after it.
func (s *Session) commit(final bool) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	late, failed := s.headerSent, s.err != nil
	s.headerSent = late || final
	if !s.used || s.detached || s.offline || failed && len(s.doomed) == 0 || s.nothingDueLocked() {
		defer s.mu.Unlock()
		if s.detached {
			return nil
		}
		return s.err
	}
	p := snapshot{
		attributes: s.m.configured(s.r), id: s.id, changes: s.changes[:len(s.changes):len(s.changes)], idle: s.idle,
		rec:   loaded{Row: s.base, left: s.left - time.Since(s.asOf), asOf: time.Now(), newborn: s.newborn},
		renew: s.renew, doomed: s.doomed, epoch: s.epoch, late: late, failed: failed,
	}
	s.taken = len(p.changes)
	s.mu.Unlock()

	ctx, cancel := s.m.engine.storeContext(s.r.Context())
	defer cancel()
	returned := false
	defer func() {
		if !returned {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.taken = 0
			s.failLocked(&opError{"save", errPanic})
		}
	}()
	out, err := s.m.engine.apply(ctx, &p)
	if err == nil {
		s.m.engine.limitUser(ctx, &p.rec.Row, &out)
	}
	returned = true

	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = 0
	if err != nil {
		if errors.Is(err, ErrDestroyed) {
			s.forgetLocked()
		}
		s.failLocked(err)
		return err // not s.err: a failed logout is worse than ErrHeaderSent
	}
	s.publishLocked(&p, &out)
	if len(s.changes) > 0 {
		// Made meanwhile, from data that a merge may have replaced.
		_ = s.replayLocked() // which keeps its error
	}
	if final && !failed && errors.Is(s.err, ErrHeaderSent) {
		return nil // another goroutine came too late; what was committed stands
	}
	return s.err
}

// nothingDueLocked reports whether there is nothing to commit, as after most
// requests: they only read.
func (s *Session) nothingDueLocked() bool {
	switch {
	case len(s.changes) > 0 || len(s.doomed) > 0:
		return false
	case s.id == "": // an idle timeout alone creates no record
		return true
	case s.idle != nil || s.renew || s.newborn:
		return false
	}
	now := time.Now()
	ttl := s.m.engine.target(&s.base, now)
	return !s.m.engine.touchDue(&s.base, ttl, s.left-now.Sub(s.asOf))
}

// settle saves what was changed after the final header.
func (s *Session) settle() error {
	s.mu.Lock()
	nothing := len(s.changes) == 0 && len(s.doomed) == 0 && s.idle == nil
	err, settled := s.err, s.detached || nothing && s.endedByReload
	s.mu.Unlock()
	switch {
	case settled:
		return nil
	case nothing:
		return err
	}
	return s.commit(true)
}

// publishLocked takes over what a commit has done.
func (s *Session) publishLocked(p *snapshot, out *outcome) {
	s.doomed = s.doomed[len(p.doomed):]
	s.cookie.expire = s.cookie.expire || out.cookie.expire
	if s.epoch != p.epoch { // destroyed meanwhile
		if out.id != p.id {
			s.doomed = append(s.doomed, out.id)
		}
		return
	}
	s.id, s.base, s.left, s.asOf, s.newborn = out.id, out.rec.Row, out.rec.left, out.rec.asOf, out.rec.newborn
	s.changes = s.changes[len(p.changes):]
	if s.idle == p.idle && s.id != "" {
		s.idle = nil
	}
	s.renew = s.renew && !p.renew
	s.vanished = s.vanished || out.gone
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
	s.offline = true
}

// finish ends the request's use of the session.
func (s *Session) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offline, s.finished = true, true
}

// headerGone notes that the response header is out of the session's hands.
func (s *Session) headerGone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.headerSent = true
}

// log writes what went wrong. The path stays out: it may hold a token.
func (s *Session) log(level slog.Level, msg string, err error) {
	s.m.cfg.Logger.LogAttrs(s.r.Context(), level, msg, slog.Any("error", err), slog.String("method", s.r.Method))
}
