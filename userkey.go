package session

import (
	"context"

	"github.com/pgsession/session/internal/jsonobj"
	"github.com/pgsession/session/internal/row"
)

// passage is what another value of Config.UserKey makes of a session.
type passage int

const (
	sameUser  passage = iota
	loggedIn          // nobody's becomes somebody's: a new ID, its data kept
	otherUser         // somebody's becomes another's: a fresh session in its place
	loggedOut         // somebody's becomes nobody's: the session ends
)

// userOf returns whose session it is by the value of UserKey: nil for nobody's, for
// JSON null reads as absent.
func userOf(value []byte) []byte {
	if string(value) == "null" {
		return nil
	}
	return value
}

// passageOf says what becomes of a session whose UserKey had one value and gets another.
func passageOf(was, now []byte) passage {
	was, now = userOf(was), userOf(now)
	switch {
	case was == nil && now == nil || was != nil && now != nil && jsonobj.Equal(was, now):
		return sameUser
	case was == nil:
		return loggedIn
	case now == nil:
		return loggedOut
	}
	return otherUser
}

// freshFor returns what a request asks for that has just logged another user in:
// nothing of before. A function is not run again, for it was given the user before.
func freshFor(c change) *pending {
	c.update = nil
	return &pending{changes: []change{c}, renew: true, fresh: true}
}

// beginAnew stores a session of its own for a request that logs somebody in and
// whose session another request has renewed, with nothing of that one's data:
// whoever planted the old ID must not get it. Any other request gets ErrRenewed. That a
// request logs in is known by Config.UserKey; without that, one that calls Renew
// and has seen nothing of the old session is taken for one.
func (e *engine) beginAnew(ctx context.Context, p *snapshot, out *outcome) error {
	login := p.asked.renew && (e.limits.userKey == "" && p.rec == nil || e.limits.userKey != "" && p.asked.sets(e.limits.userKey))
	if !login {
		return &opError{"save", ErrRenewed}
	}
	asked, err := p.asked.rebase(nil)
	if err != nil {
		return &opError{"save", err}
	}
	q := *p
	q.rec, q.asked = nil, asked
	return e.create(ctx, &q, out)
}

// foreign reports whether the record has another user by now than the one whose session
// the request has seen. What it has read and computed must not get there. A visitor's
// changes do, as before, unless they are of the user themselves.
//
// No program that knows UserKey changes the user under the same ID of a session that
// others may hold. Express does, where it does not regenerate, and so does a program
// that does not know it.
func (u *updating) foreign() bool {
	key := u.e.limits.userKey
	if key == "" || string(u.rec.Raw) == string(u.p.rec.Raw) {
		return false
	}
	saw := u.p.rec.Get(key)
	if passageOf(saw, u.rec.Get(key)) == sameUser {
		return false
	}
	_, asked := u.p.asked.value(key)
	return asked || userOf(saw) != nil
}

// replace makes another user's session, which takes the record's place under a new
// ID. The old one is left with a mark, as by a renewal: requests of before begin no
// session beside it, and a logout with the old ID ends it.
func (u *updating) replace() (next loaded, c Change, err error) {
	var d row.Row
	u.p.asked.applyTo(&d)
	next = u.e.fresh(u.p, d)
	if next.Raw, err = u.e.encode(u.newID, &next.Row); err != nil {
		return next, c, err
	}
	return next, Change{Old: u.rec.Raw, New: next.Raw, NewID: u.newID, TTL: next.left, Shorten: true}, u.e.checkSize(next.Raw, 0)
}
