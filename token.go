package session

import "github.com/pgsession/session/internal/row"

// UseToken makes the session that this request begins one for a client without
// cookies: it gets a token in the response header Session-Token, and never a cookie.
// Call it before the login of such a client, at a path of its own:
//
//	func login(w http.ResponseWriter, r *http.Request) {
//		s := session.From(r.Context())
//		s.UseToken()
//		s.Renew()
//		userID.Set(s, 42)
//	}
//
// The client brings the token as "Authorization: Bearer" with every request, and keeps
// the new one wherever a response has that header: it comes once the session is
// committed, at its beginning, after [Session.Renew], and when the token was made with
// one of [Config.OldSecrets]. As a cookie it is sent only with what was stored, and such
// a response is no-store. Everything else works as with a cookie, [Session.Destroy]
// and a fresh session in the same request too. It needs [Config.TokenPrefix], else it
// is an error: [ErrInvalid].
//
// The record says which of the two its client holds, and neither passes for the other.
// A request that brings both, one with a session cookie that calls UseToken, and one with
// a token of ours among several Authorization headers, are answered with 400, past
// [Config.ErrorHandler]: nobody can say whose session is meant, and a script in a page
// is to get no token for a session whose cookie it cannot read. A token that does not
// verify counts as none; the session that such a request may begin gets a token too.
//
// In a request with a token it does nothing. It comes too late, and is [ErrInvalid],
// after a [Session.Save] or a [Session.Bind].
func (s *Session) UseToken() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = true
	s.presentLocked()
	if s.rejectChangeLocked(use{call: "UseToken"}) {
		return
	}
	switch {
	case s.m.cfg.TokenPrefix == "":
		s.failLocked(invalid("UseToken", "Config.TokenPrefix is not set"))
	case s.token:
	case s.byCookie:
		s.failLocked(errBoth)
	case s.rec != nil || s.inflight.creates() || s.inflight.sets(row.MemberBound) || s.next.sets(row.MemberBound):
		s.failLocked(invalid("UseToken", "the session has begun with a cookie: call it before Save, and without Bind"))
	default:
		s.token = true
	}
}
