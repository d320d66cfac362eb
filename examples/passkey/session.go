package main

import (
	"time"

	"github.com/pgsession/session"
)

// What a session of this application holds, beside the ceremonies.
const (
	userID     = session.Key[int64]("userId")         // it is Config.UserKey
	passkeyID  = session.Key[int64]("passkey")        // the one that was used last
	verifiedAt = session.Key[time.Time]("verifiedAt") // when that was
	device     = session.Key[string]("device")
	flash      = session.Key[string]("flash")
)

const stepUpAfter = 5 * time.Minute // since a passkey was last used

// letIn logs a user in whose passkey was just verified, or confirms that it is still
// the same one.
func letIn(s *session.Session, user, passkey int64, label string) {
	userID.Set(s, user) // what another user has left here is not this one's
	s.Renew()           // an ID that somebody planted in this browser is worth nothing now; also if it is the same user
	passkeyID.Set(s, passkey)
	verifiedAt.Set(s, time.Now())
	device.Set(s, label)
	s.SetIdleTimeout(0) // the default, where a visitor's was shorter
}

// recent reports whether a passkey was used lately: what must not be done with a
// browser left alone asks for it again.
func recent(s *session.Session) bool {
	at, _ := verifiedAt.Get(s)
	return time.Since(at).Abs() <= stepUpAfter // not in the future either, by a clock that is wrong
}
