package session

import (
	"time"

	"github.com/pgsession/session/internal/row"
)

// SkipTouch says that this request is none of the user's: a poll, a dashboard that
// refreshes itself, a heartbeat. Whatever it does with the session leaves its expiry
// alone, a save included, and no cookie is sent for the sake of a touch; so a page
// that is left open and asks every minute does not keep its user logged in. A touch
// that is due by then is made up for by the next request that does not say so.
//
// It counts for this request alone, and for what is still to be committed: call it
// before the first byte and before [Session.Save]. It needs no load and is no use of
// the session. [Session.SetIdleTimeout] counts from now all the same, for that is what
// it is called for; a session that begins in the request lives as long as any, and
// [Session.Renew] keeps the expiry that it finds.
func (s *Session) SkipTouch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skipTouch = true
}

// ExpiresIn returns how long the session lives after this response if nobody uses it
// again: for "you will be logged out in two minutes". It is the time left, or the
// whole idle timeout where this response extends it, by a touch that is due or by
// [Session.SetIdleTimeout], and never more than [Config.AbsoluteTimeout] leaves. It is
// 0 where there will be no session, as without a record, after [Session.Destroy] and
// where the session could not be loaded.
//
// What the commit then does may differ by a [Config.TouchInterval] on a page that
// shared caches may keep, or where a touch fails. A page that shows it to a user who
// does nothing asks again from a request that says [Session.SkipTouch].
func (s *Session) ExpiresIn() time.Duration {
	s.lockLoaded(use{call: "ExpiresIn"})
	defer s.mu.Unlock()
	e, now := &s.m.engine, time.Now()
	asked := s.next.idleTimeout()
	if asked == nil {
		asked = s.inflight.idleTimeout()
	}
	switch {
	case s.vanished, s.response == finished && s.rec == nil:
		return 0
	case s.rec != nil && (s.detached || s.speculative || s.response >= refused): // nothing is saved any more
		return max(0, e.capped(&s.rec.Row, s.rec.remaining(now), now))
	case s.rec != nil:
		return max(0, e.leaves(&s.rec.loaded, asked, now, s.skipTouch, s.response >= headerSent))
	case s.err == nil && !s.detached && (s.next.creates() || s.inflight.creates()):
		return max(0, e.target(new(row.Row), e.idleFor(asked, idle{e.limits.idleTimeout, false, s.token}), now, false))
	}
	return 0
}

// leaves returns how long a record lives that a commit at now has met, with the idle
// timeout that it is to give it, if any.
func (e *engine) leaves(rec *loaded, asked *time.Duration, now time.Time, skipTouch, cookieless bool) time.Duration {
	i, left := e.idleFor(asked, rec.idle), rec.remaining(now)
	ttl := e.target(&rec.Row, i, now, cookieless)
	if i != rec.idle || e.tooLong(i, left) || !skipTouch && e.touchDue(i, ttl, left) {
		return ttl
	}
	return e.capped(&rec.Row, left, now)
}

// idleFor returns the idle timeout that SetIdleTimeout has asked for, else now.
func (e *engine) idleFor(asked *time.Duration, now idle) idle {
	switch {
	case asked == nil:
		return now
	case *asked == 0: // a browser session's default
		return idle{e.limits.idleTimeout, false, now.token}
	}
	return idle{*asked, true, now.token}
}

// capped returns left, or what the absolute timeout leaves of it: a record that was
// made without one, or by Express, may have more.
func (e *engine) capped(d *row.Row, left time.Duration, now time.Time) time.Duration {
	return min(left, e.target(d, idle{timeout: left}, now, false))
}
