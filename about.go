package session

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/pgsession/session/internal/row"
)

// ID returns the session's ID, "" until there is a record. A renewal changes
// it when it is committed. Never log it.
func (s *Session) ID() string {
	s.lockLoaded(use{call: "ID"})
	defer s.mu.Unlock()
	if rec := s.recordLocked(); rec != nil {
		return rec.id
	}
	return ""
}

// Handle names the session without giving access to it, "" until there is a
// record: for audit logs, and to tell one's own in a list ([Info.Handle]). It is
// a hash of the ID, and changes with it.
func (s *Session) Handle() string {
	if s.edited != nil {
		return s.edited.handle
	}
	id := s.ID()
	if id == "" {
		return ""
	}
	if f, ok := s.m.store.(Finder); ok {
		return f.Handle(id)
	}
	return handleOf(id)
}

// CreatedAt returns when the record was created, by the clock of the program
// that did it; where Express created it, when it was first seen with an
// [Config.AbsoluteTimeout], else zero. It is zero without a record.
func (s *Session) CreatedAt() time.Time {
	s.lockLoaded(use{call: "CreatedAt"})
	defer s.mu.Unlock()
	rec := s.recordLocked()
	if rec == nil {
		return time.Time{}
	}
	t, _ := rec.Created()
	return t
}

// RenewedAt returns when the session was last renewed, else when it was
// created, zero if that is not known. A program that calls [Session.Renew] at
// login and whenever a password was asked for again can demand a recent one
// before what must not be done with a browser left alone (step-up
// authentication, OWASP ASVS 5.0, 7.5):
//
//	if time.Since(s.RenewedAt()) > 10*time.Minute { … ask for the password … }
//
// After Renew it is now, if there is a record.
func (s *Session) RenewedAt() time.Time {
	s.lockLoaded(use{call: "RenewedAt"})
	defer s.mu.Unlock()
	rec := s.recordLocked()
	switch {
	case rec == nil:
		return time.Time{}
	case s.inflight.renews() || s.next.renews():
		return time.Now()
	}
	return rec.Renewed()
}

// IsNew reports whether there was no record when the request began.
func (s *Session) IsNew() bool {
	s.lockLoaded(use{call: "IsNew"})
	defer s.mu.Unlock()
	return !s.existed
}

// Keys returns the names of the keys that have a value, in the record's order.
func (s *Session) Keys() []string {
	s.lockLoaded(use{call: "Keys"})
	defer s.mu.Unlock()
	var d row.Row
	if rec := s.recordLocked(); rec != nil {
		d = rec.Clone()
	}
	if !s.next.begins() {
		s.inflight.applyTo(&d)
	}
	s.next.applyTo(&d)
	return d.Keys()
}

// LogValue shows neither ID nor data.
func (s *Session) LogValue() slog.Value { return slog.StringValue("session") }

// Format shows neither ID nor data, whatever the verb.
func (s *Session) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("session")) }
