package session

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/pgsession/session/internal/row"
)

// loadState is how far the record of the request's cookie is known.
type loadState uint8

const (
	unloaded  loadState = iota
	loading             // a goroutine of this request is at it
	loadedNow           // its record or none, or an error that sticks
)

// responseState is how far the response is. It only grows.
type responseState uint8

const (
	open       responseState = iota
	headerSent               // no cookie can be sent any more
	refused                  // the error handler answers: no more I/O
	finished                 // the handler has returned: no more I/O, and changes are errors
)

// call is one that is under way of a function of Key.Update, or of Transact.
type call struct {
	key      string
	rerun    bool // on a newer value
	transact bool
}

func (c call) any() bool   { return true }
func (c call) again() bool { return c.rerun }
func (c call) first() bool { return !c.rerun }

// change is one change of a key.
type change struct {
	name   string
	value  []byte                           // after this change; nil: deleted
	update func(old []byte) ([]byte, error) // nil for a plain set or delete
}

// handed is what SaveTx has written into a transaction of the application's, of
// which nobody knows yet whether it was committed.
type handed struct {
	before *view     // the record before the first of them; nil without one
	told   []*events // of each
	last   *view     // the record before the last of them
	under  *handed   // what counts if that was rolled back and another ID's was not; may be nil
	settle func(ctx context.Context) error
}

// bindTo is the change that asks for a key under an identifier.
func bindTo(id string) change {
	return change{name: row.MemberBound, value: row.NewBound(id, time.Now()).Encode()}
}

// pending is what a request has asked for and nobody has stored yet. It never
// changes; nil asks for nothing. Its methods that change something return another,
// and share the array of changes with it, so only the latest may be built upon.
type pending struct {
	changes []change       // in the order they were made
	idle    *time.Duration // SetIdleTimeout; 0 for a browser session's default
	renew   bool
	fresh   bool // of a session of its own, in place of the record: for another user
}

// noChange is what a commit carries that only deletes or touches.
var noChange = &pending{}

// value returns the value of a key after the changes; changed is false if none
// is of it.
func (p *pending) value(name string) (value []byte, changed bool) {
	if p == nil {
		return nil, false
	}
	for i := len(p.changes) - 1; i >= 0; i-- {
		if p.changes[i].name == name {
			return p.changes[i].value, true
		}
	}
	return nil, false
}

// applyTo makes the changes on d.
func (p *pending) applyTo(d *row.Row) {
	if p == nil {
		return
	}
	for _, c := range p.changes {
		d.Set(c.name, c.value)
	}
}

// any reports whether the application wants anything saved.
func (p *pending) any() bool { return len(p.changes) > 0 || p.idle != nil || p.renew }

func (p *pending) renews() bool { return p != nil && p.renew }

// begins reports whether nothing of what is stored counts any more.
func (p *pending) begins() bool { return p != nil && p.fresh }

// creates reports whether a record is made of p if there is none.
func (p *pending) creates() bool { return p != nil && len(p.changes) > 0 }

// sets reports whether a key has a value after the changes.
func (p *pending) sets(name string) bool {
	value, _ := p.value(name)
	return value != nil
}

// saves reports whether something of p outlives a header that was sent without
// its renewal.
func (p *pending) saves() bool { return p != nil && (len(p.changes) > 0 || p.idle != nil) }

func (p *pending) idleTimeout() *time.Duration {
	if p == nil {
		return nil
	}
	return p.idle
}

// with adds a change. What a plain set or delete replaces need not be kept.
func (p *pending) with(c change) *pending {
	var q pending
	if p != nil {
		q = *p
	}
	if c.update == nil && slices.ContainsFunc(q.changes, func(old change) bool { return old.name == c.name }) {
		q.changes = slices.DeleteFunc(slices.Clone(q.changes), func(old change) bool { return old.name == c.name })
	}
	q.changes = append(q.changes, c)
	return &q
}

func (p *pending) withRenew() *pending {
	var q pending
	if p != nil {
		q = *p
	}
	q.renew = true
	return &q
}

func (p *pending) withIdle(d *time.Duration) *pending {
	var q pending
	if p != nil {
		q = *p
	}
	q.idle = d
	return &q
}

// then returns what p and, after it, later ask for.
func (p *pending) then(later *pending) *pending {
	switch {
	case p == nil || p == noChange:
		return later
	case later == nil:
		return p
	case later.fresh:
		return later
	}
	q := &pending{changes: slices.Concat(p.changes, later.changes), idle: p.idle, renew: p.renew || later.renew, fresh: p.fresh}
	if later.idle != nil {
		q.idle = later.idle
	}
	return q
}

// rebase returns p with its functions run again on rec, which may be nil.
func (p *pending) rebase(rec *view) (*pending, error) {
	if p == nil {
		return nil, nil
	}
	var d row.Row
	if rec != nil && !p.fresh {
		d = rec.Clone()
	}
	q := &pending{changes: slices.Clone(p.changes), idle: p.idle, renew: p.renew, fresh: p.fresh}
	for i := range q.changes {
		c := &q.changes[i]
		if c.update != nil {
			v, err := c.update(d.Get(c.name))
			if err != nil {
				return nil, err
			}
			c.value = v
		}
		d.Set(c.name, c.value)
	}
	return q, nil
}

// stored is the value of a key that a commit has stored.
type stored struct {
	key   string
	value []byte
	known bool
}

// note takes the value out of what was written; n may be nil.
func (n *stored) note(d *row.Row) {
	if n != nil {
		n.value, n.known = d.Get(n.key), true
	}
}

// differs reports whether two records have different values of the key.
func (n *stored) differs(a, b *row.Row) bool {
	return n != nil && !bytes.Equal(a.Get(n.key), b.Get(n.key))
}

// edited is what a Session has to say of itself where Manager.Edit has made it.
type edited struct{ handle string }

// errOwnSession is an [ErrInvalid].
var errOwnSession = invalid("the function", "Renew, Bind, Destroy, SetIdleTimeout, Save, Reload and UpdateNow are for a request's own session: end others by Manager.Revoke")

// idOf returns the ID of a record, "" without one.
func idOf(rec *view) string {
	if rec == nil {
		return ""
	}
	return rec.id
}
