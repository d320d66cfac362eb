package session

import (
	"crypto/rand"
	"encoding/base64"

	"github.com/pgsession/session/internal/devicebound"
	"github.com/pgsession/session/internal/row"
)

// Bind asks the browser to bind the session to its device: to make a key pair
// there and to register the public one ([Config.DeviceBound]). Call it where
// credentials were just checked, after [Session.Renew], and nowhere else: whoever
// holds the session then can register a key of his own. Like [Key.Set] it begins
// a session where there is none. A browser that knows nothing of it ignores it.
// Without [Config.DeviceBound] it does nothing. A session whose client holds a token
// ([Session.UseToken]) cannot be bound: [ErrInvalid].
//
// A binding that the session has already ends: its key no longer counts, and the
// new one counts once it is proven. Renew alone keeps it.
//
// After the first byte it is too late: [ErrHeaderSent].
func (s *Session) Bind() {
	if s.m.device == nil || !s.lockForChange(use{call: "Bind"}) {
		return
	}
	defer s.mu.Unlock()
	switch {
	case s.response >= headerSent:
		s.tooLateLocked("Bind")
		return
	case s.token:
		s.failLocked(invalid("Bind", "the session's client holds a token, and no browser that could prove a key"))
		return
	}
	var id [devicebound.IdentifierBytes]byte
	_, _ = rand.Read(id[:]) // never fails
	s.device.offered = base64.RawURLEncoding.EncodeToString(id[:])
	s.putLocked(bindTo(s.device.offered))
}

// Bound reports whether the browser has proven the key of its device: the
// session is bound to it. It is false without [Config.DeviceBound], after
// [Session.Bind] until a request has brought the proof, and for as long as the
// browser knows nothing of device-bound sessions.
func (s *Session) Bound() bool {
	s.lockLoaded(use{call: "Bound"})
	defer s.mu.Unlock()
	if s.m.device == nil || s.recordLocked() == nil || s.inflight.sets(row.MemberBound) || s.next.sets(row.MemberBound) {
		return false
	}
	b, _, err := s.rec.Bound()
	return err == nil && b.Key != "" && (b.Confirmed != 0 || s.device.proven)
}
