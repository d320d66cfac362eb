package session

import (
	"time"
)

// Renew gives the session a new ID and keeps its data and expiry; the old ID
// is dead at once. Call it whenever a user's rights change, above all at login:
// an ID that an attacker had planted before is then worth nothing (session
// fixation). It happens when the session is committed. Without a record it does
// nothing, for a new session gets a new ID anyway; twice is once.
//
// Setting [Config.UserKey] does it by itself where nobody was logged in, or somebody
// else. Call it where the same user has given the password again.
//
// Where another request has renewed the session meanwhile (a login in two tabs,
// a button clicked twice), a request that sets [Config.UserKey] too begins a
// fresh session with what it sets and nothing of the old one; any other fails
// with [ErrRenewed]. Without [Config.UserKey] nothing tells a login from another
// renewal: then it begins fresh only where it has seen nothing of the old one.
//
// After the first byte it is too late: [ErrHeaderSent]. Once a [Session.Save] has
// carried it out, the new ID is sent with whatever answers the request: the error
// handler, after [Session.Detach], or whoever recovers from a panic.
func (s *Session) Renew() {
	if !s.lockForChange(use{call: "Renew"}) {
		return
	}
	defer s.mu.Unlock()
	switch {
	case s.rec == nil && !s.superseded || s.inflight.renews():
	case s.response >= headerSent:
		s.tooLateLocked("Renew")
	default:
		s.next = s.next.withRenew()
	}
}

// Destroy deletes the record and expires the cookie, at the commit: logout. It
// needs no load, beats an earlier Renew and drops earlier changes. A later Set
// begins a fresh session with a new ID. It is carried out after [Session.Detach],
// too. Over HTTPS the response also tells the browser to drop the pages that it has
// fetched ahead (Clear-Site-Data).
//
// The session ends whatever its ID was or becomes: a renewal by another request,
// a quarter of an hour ago at most or in the same moment, does not save it, nor
// does one that is still to come. Where a browser sends several session cookies
// that verify, all of their sessions end (with [FormatExpress] the first cookie
// alone counts, as there).
func (s *Session) Destroy() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = true
	if s.response >= refused || s.speculative || s.calls.Inside(call.again) {
		s.rejectChangeLocked(use{call: "Destroy"})
		return
	}
	s.destroyLocked()
}

// SetIdleTimeout sets this session's own idle timeout ("remember me"; Express's
// cookie.maxAge) and lets it count from now, even if that is sooner. It is kept
// in the record. d <= 0 returns to [Config.IdleTimeout]; over 400 days, the
// most that browsers keep a cookie, is an error ([ErrInvalid]). Milliseconds
// are the unit; less is one. On its own it creates no record. Should a slow
// request of before extend the session by more, the next request that uses it
// shortens it again.
func (s *Session) SetIdleTimeout(d time.Duration) {
	if !s.lockForChange(use{call: "SetIdleTimeout"}) {
		return
	}
	defer s.mu.Unlock()
	if d > maxCookieLifetime {
		s.failLocked(invalid("SetIdleTimeout", "%v, and browsers keep a cookie for 400 days (9600h) at most", d))
		return
	}
	if d > 0 {
		d = max(d.Truncate(time.Millisecond), time.Millisecond)
	}
	d = max(d, 0)
	if d == 0 && !s.m.cfg.Cookie.BrowserSession {
		d = s.m.cfg.IdleTimeout
	}
	s.next = s.next.withIdle(&d)
}

// Detach leaves this response to the handler: nothing more is saved, no cookie
// is sent, and the page passes even if the session could not be loaded. For
// pages that must appear in an outage. Two things go on: [Session.Destroy] is
// carried out and expires the cookie, and an ID that an earlier [Session.Save] of
// this request has made is sent, for nobody else will send it.
func (s *Session) Detach() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.detached = true
}
