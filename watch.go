package session

import (
	"context"
	"net/http"
	"time"

	"github.com/pgsession/session/internal/cookie"
	"github.com/pgsession/session/internal/devicebound"
)

// Watch returns a context for a stream or socket, which must not outlive its
// session: it ends with ctx, and about a second after the session has ended, by
// whichever program. [context.Cause] then is
//
//   - [ErrDestroyed] if the session was destroyed or revoked,
//   - [ErrRenewed] (which is one) if another request has renewed it: no logout, the
//     browser can come again with the new cookie,
//   - [ErrExpired] (which is one) if its time is over, by [Config.AbsoluteTimeout] too,
//   - [ErrUnproven] if the session is bound to a device ([Config.DeviceBound]) and
//     the bound cookie that the request came with is not good any more: no logout,
//     the browser can come again with a new one.
//
// All streams of a program that are open share one statement a second, whatever
// their number ([Watcher]). Watching does not extend the session, and nor does the
// end of a request that has watched: only what it uses before its first byte, and
// what it saves. In an outage a stream stays open until the last known expiry.
//
// A Renew of the request itself is followed; a Destroy of it ends the stream at
// once, in a Transact once that is committed. Without a record the stream ends with ctx alone, until the request makes
// one: who must be logged in is the handler's to check. If the session has an
// error ([Session.Err]) or has ended already, the context has ended with that, and
// after the handler has returned with [ErrFinished]. [Manager.Close] ends all, with
// a [context.Canceled].
//
// Call the CancelFunc when the stream ends. A stream that goes on after its handler
// has returned, as a connection that was hijacked may, needs another ctx than the
// request's.
func (s *Session) Watch(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancelCause(ctx)
	w := &watch{ctx: ctx, end: end, renewing: s.renewing, proven: s.proven}
	if cause := s.startWatch(w); cause != nil {
		end(cause)
		return ctx, func() {}
	}
	s.m.watcher.add(w)
	context.AfterFunc(ctx, func() {
		s.m.watcher.remove(w)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watches.open, w)
	})
	return ctx, func() { end(nil) }
}

// startWatch lets w follow the session's record, or says why there is nothing to
// follow.
func (s *Session) startWatch(w *watch) error {
	s.lockLoaded(use{call: "Watch"})
	defer s.mu.Unlock()
	begins := s.next.creates() || s.inflight.creates()
	switch {
	case s.err != nil:
		return s.err
	case s.response == finished:
		return ErrFinished
	case s.superseded:
		return ErrRenewed
	case s.rec != nil:
		w.follow(&s.m.engine, s.rec)
	case (len(s.doomed) > 0 || s.cookie.expire) && !begins:
		return ErrDestroyed
	}
	if s.watches == nil {
		s.watches = &watches{map[*watch]struct{}{}}
	}
	s.watches.open[w] = struct{}{}
	return nil
}

// renewing reports whether a commit under way, or a transaction that has got the
// record by SaveTx, may give it another ID.
func (s *Session) renewing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inflight.renews() || s.handed != nil
}

// proven returns how long the request may use a record; zero for as long as it lives.
func (s *Session) proven(rec *loaded) time.Time {
	return s.m.device.provenUntil(s.x.r, rec)
}

// provenUntil returns when a request may not use a record any more without proving
// the key of its device, zero for never. See admit.
func (d *device) provenUntil(r *http.Request, rec *loaded) time.Time {
	if d == nil {
		return time.Time{}
	}
	b, ok, err := rec.Bound()
	now := time.Now()
	switch {
	case !ok:
		return time.Time{}
	case err != nil:
		return now
	}
	var until time.Time
	for _, value := range cookie.Values(r.Header["Cookie"], d.cookie, maxBoundCookies) {
		if end, ok := d.keys.tokens().End(devicebound.Cookie, b.ID, value); ok && b.Key != "" && end.After(until) {
			until = end
		}
	}
	confirmed := b.ConfirmedAt()
	switch {
	case !until.IsZero():
	case confirmed.IsZero():
		// No key counts yet, and once one does the stream must not go on without it
		// for longer than it could with it.
		until = now.Add(d.refresh + devicebound.Slack)
		if required := b.OfferedAt().Add(d.require); d.require > 0 && required.Before(until) {
			until = required
		}
	default: // the request was under way when the key began to count
		until = confirmed.Add(devicebound.Grace)
	}
	return now.Add(until.Sub(now)) // from now on by a clock that nobody sets
}
