package session

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgsession/session/internal/backoff"
	"github.com/pgsession/session/internal/jsonobj"
	"github.com/pgsession/session/internal/row"
)

// updating is one Update with its merges.
type updating struct {
	e       *engine
	p       *snapshot
	rec     loaded
	changes []change
	guess   bool // rec is what an earlier request wrote, not what was loaded
	fresh   bool // rec was loaded by this Update
	newID   string
	doubt   *row.Row // what an attempt without an answer started from
	tried   row.Row  // what that attempt wrote
	blurred bool     // there were two, and they differ in what is to be told
	moved   *row.Row // what has got newID; nil until it has
	tag     string   // in what it writes, if a function of Key.Update is among the changes
}

// run writes, and merges until that succeeds. wrote is false where nothing had
// to be written.
func (u *updating) run(ctx context.Context, out *outcome) (wrote bool, err error) {
	e := u.e
	if u.newID != "" {
		e.begins(u.newID)
		defer func() { e.renewed(u.p.rec.id, u.newID, u.moved) }()
	}
	for try := 0; ; try++ {
		next, c, err := u.change(try > 0 || u.guess || u.fresh)
		if u.guess && (err != nil || c.New == nil) {
			// The store compares what is written. Nothing else may rest on a
			// guess: the session may have ended since.
			u.rec = u.p.rec.loaded
			next, c, err = u.change(false)
		}
		u.guess = false
		if err != nil {
			return false, err
		}
		if c.New == nil { // every change is there already
			if u.fresh || !u.p.asked.any() {
				u.p.now.note(&u.rec.Row)
				out.rec, out.alive = u.p.view(u.p.rec.id, u.rec), u.fresh
				return false, e.touch(ctx, u.p, out.rec, out)
			}
			// In what this request has loaded; another may have stored
			// something else since.
			if _, err := u.look(ctx); err != nil {
				return false, err
			}
			continue
		}
		err = e.store.Update(ctx, u.p.rec.id, c)
		switch {
		case err == nil:
			u.p.now.note(&next.Row)
			u.done(out, next, c)
			return true, nil
		case errors.Is(err, ErrNotFound) && u.doubt == nil:
			return false, e.whyGone(ctx, u.p.rec.id, err)
		case errors.Is(err, ErrNotFound):
		case errors.Is(err, ErrExists):
			e.renewed(u.p.rec.id, u.newID, nil)
			if u.newID, err = e.newIDFor(ctx, u.p.rec.id); err != nil {
				return false, err
			}
			e.begins(u.newID)
		case errors.Is(err, ErrUncertain):
			_ = e.countError(err)
			from := u.rec.Row
			u.blurred = u.doubt != nil && (u.blurred || u.p.now.differs(&u.tried, &next.Row))
			u.doubt, u.tried = &from, next.Row
		case errors.Is(err, ErrConflict):
			e.stats.conflicts.Add(1)
		default:
			return false, e.countError(err)
		}
		if perr := backoff.Pause(ctx, try); perr != nil {
			if !errors.Is(err, ErrUncertain) {
				return false, fmt.Errorf("no success in time, others change the session all the while: %w", perr)
			}
			return false, errors.Join(err, perr)
		}
		if happened, err := u.look(ctx); err != nil {
			return false, err
		} else if happened {
			if u.blurred && !bytes.Equal(u.rec.Raw, u.tried.Raw) {
				return false, fmt.Errorf("%w: which of two values it was that is stored", ErrUncertain)
			}
			u.p.now.note(&u.tried) // u.rec may hold a later one, which is another's
			u.done(out, u.rec, c)
			return true, nil
		}
	}
}

// look loads the record again after a conflict or a missing answer. happened
// says that an attempt without an answer had been carried out.
func (u *updating) look(ctx context.Context) (happened bool, err error) {
	rec, err := u.e.fetch(ctx, u.p.rec.id)
	if errors.Is(err, ErrNotFound) {
		ended := ErrDestroyed
		if errors.Is(err, ErrRenewed) {
			ended = ErrRenewed
		}
		if u.doubt != nil && u.p.asked.renew {
			if rec, err = u.e.fetch(ctx, u.newID); err == nil {
				u.rec = rec
				return true, nil
			}
		}
		if errors.Is(err, ErrNotFound) {
			if u.doubt != nil && u.p.asked.renew {
				ended = ErrDestroyed // the renewal may be our own, and a logout its end
			}
			return false, ended
		}
	}
	if err != nil {
		if u.doubt != nil {
			err = fmt.Errorf("%w: %w", ErrUncertain, err)
		}
		return false, err
	}
	if u.doubt != nil {
		if happened, err = u.resolve(&rec.Row); err != nil {
			return false, err
		}
		if !bytes.Equal(rec.Raw, u.doubt.Raw) {
			u.doubt = nil // the attempt has happened or no longer can
		}
	}
	u.rec, u.fresh = rec, true
	return happened, nil
}

// resolve finds out from the record as it is now whether the attempt without an
// answer was carried out, or leaves those of the changes that it can do again.
func (u *updating) resolve(now *row.Row) (happened bool, err error) {
	switch {
	case u.p.asked.renew: // then the record would have another ID
		return false, nil
	case bytes.Equal(now.Raw, u.tried.Raw): // also by somebody's like change, unless it is tagged
		return true, nil
	case u.tag != "":
		// To run a function once more, or once less, would be wrong.
		happened, known := now.SavedBy(u.tag, u.doubt)
		if !known {
			return false, fmt.Errorf("%w: too many others have changed the session since", ErrUncertain)
		}
		return happened, nil
	}
	// By our own attempt and somebody after it, or by somebody before it, so that it
	// was none. Plain values are written again: what is acknowledged must be stored,
	// and a request that is still under way may be the last writer.
	return false, nil
}

// change makes the changes on the record as it is known. again runs the
// functions of Key.Update anew. c.New is nil if nothing would change.
func (u *updating) change(again bool) (next loaded, c Change, err error) {
	e, p := u.e, u.p
	switch {
	case p.asked.fresh:
		return u.replace()
	case u.foreign():
		return next, c, ErrRenewed
	}
	d := u.rec.Clone()
	dirty := false
	var counted []string // keys that functions have changed
	for _, ch := range u.changes {
		value := ch.value
		old := d.Get(ch.name)
		if again && ch.update != nil {
			if value, err = ch.update(old); err != nil {
				return next, c, err
			}
		}
		if !bytes.Equal(value, old) {
			dirty = true
			d.Set(ch.name, value)
			if ch.update != nil {
				counted = append(counted, ch.name)
			}
		}
	}
	if len(counted) > 0 {
		if u.tag == "" {
			u.tag = e.newTag()
		}
		d.AddSave(u.tag, &u.rec.Row, counted)
	}
	now := time.Now()
	if u.rec.newborn {
		dirty = true
		d.SetFirstSeen(now)
	}
	if p.device.note(&d, now) {
		dirty = true
	}
	cookie, healthy := d.Cookie()
	if !healthy {
		cookie = row.NewCookie(p.attributes)
	}
	left := u.rec.remaining(now)
	i, newIdle := u.rec.idle, u.newIdle(&d)
	if newIdle {
		dirty = true
		d.SetLifetime(cookie, *p.asked.idle, now)
		c.Shorten = true
		i = e.idle(&d)
		c.TTL = e.target(&d, i, now, p.noCookie)
		d.SetLifetime(cookie, *p.asked.idle, now.Add(c.TTL))
	} else if ttl := e.target(&d, i, now, p.noRefresh()); e.tooLong(i, left) {
		c.Shorten, c.TTL = true, ttl
	} else if !p.skipTouch && e.touchDue(i, ttl, left) {
		c.TTL = ttl
	}
	if u.newID != "" {
		dirty = true
		d.SetRenewed(now)
	}
	switch {
	case dirty:
	case c.Shorten: // the data stays, whoever wrote it
		c.Old, c.New = u.rec.Raw, u.rec.Raw
		next = u.rec
		next.left, next.asOf = c.TTL, now
		return next, c, nil
	default:
		return u.rec, Change{}, nil
	}
	// A row that is written anyway is mended.
	if !newIdle {
		u.lifetime(&d, cookie, healthy, c.TTL, now)
	}
	c.Old, c.NewID = u.rec.Raw, u.newID
	if c.New, err = e.encode(cmp.Or(u.newID, p.rec.id), &d); err != nil { // a new ID has another key
		return next, c, err
	}
	if len(u.changes) > 0 { // a renewal alone must not fail for our bookkeeping
		if err := e.checkSize(c.New, len(c.Old)); err != nil {
			return next, c, err
		}
	}
	d.Raw = c.New
	next = loaded{Row: d, left: left, asOf: now, idle: e.idle(&d)}
	if c.TTL > 0 {
		next.left = c.TTL
	}
	return next, c, nil
}

// newIdle reports whether the idle timeout is to become another one.
func (u *updating) newIdle(d *row.Row) bool {
	idle := u.p.asked.idle
	if idle == nil {
		return false
	}
	now, own := d.MaxAge()
	return own != (*idle > 0) || now != *idle
}

// lifetime brings the cookie object of a record that is written anyway up to
// date, and replaces one that Express could not use; a timeout in it is kept.
func (u *updating) lifetime(d *row.Row, cookie jsonobj.Object, healthy bool, ttl time.Duration, now time.Time) {
	own, ok := d.MaxAge()
	switch {
	case !healthy:
		idle := u.e.limits.idleTimeout
		if u.e.limits.browserSession {
			idle = 0
		}
		if ok && own > 0 {
			idle = own
		}
		d.SetLifetime(cookie, idle, now.Add(idle))
	case ok && own > 0 && ttl > 0:
		d.SetExpires(cookie, now.Add(ttl))
	}
}

// done notes what has been written.
func (u *updating) done(out *outcome, rec loaded, c Change) {
	u.e.stats.saves.Add(1)
	out.rec = u.p.view(cmp.Or(c.NewID, u.p.rec.id), rec)
	if c.NewID != "" {
		u.e.stats.renewals.Add(1)
		u.moved = &out.rec.Row
	}
	moved := c.TTL > 0 && !u.p.noRefresh() && u.e.cookieLives(rec.idle)
	out.alive = true
	out.cookie.send = c.NewID != "" || u.p.asked.idle != nil && !rec.idle.token || moved
	out.cookie.refreshOnly = !u.p.asked.any()
}

// placer is a [Store] that wants a new ID near the old one. near is nil if it does not.
type placer interface {
	near(ctx context.Context, old string) (near func(id string) bool)
}

// mostDraws bounds how many IDs are drawn for one that is near. It takes as many as
// there are shards on average.
const mostDraws = 1 << 14

// newIDFor returns a new random ID for the record of an old one, near it if the store
// wants that. Of its 192 bits the logarithm of the number of shards follow from the
// old ID then, 7 of 128.
func (e *engine) newIDFor(ctx context.Context, old string) (id string, err error) {
	var near func(string) bool
	if p, ok := e.store.(placer); ok {
		near = p.near(ctx, old)
	}
	for range mostDraws {
		if id, err = e.newID(); err != nil || near == nil || near(id) {
			break
		}
	}
	return id, err
}
