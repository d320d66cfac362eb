package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// errPanic is the session's error when a panic has cut a load or a save.
var errPanic = errors.New("panic in the store or in a function of Key.Update")

// loaded is a record as a request sees it.
type loaded struct {
	document
	left    time.Duration // until it expires, at asOf
	asOf    time.Time
	newborn bool // an absolute timeout is set and the record has no creation time
}

// load fetches the record of id for a request, once.
func (m *Manager) load(ctx context.Context, id string) (loaded, error) {
	ctx, cancel := m.storeContext(ctx)
	defer cancel()
	m.stats.loads.Add(1)
	rec, err := m.fetch(ctx, id)
	if errors.Is(err, ErrNotFound) {
		m.stats.misses.Add(1)
	}
	return rec, err
}

// fetch loads and reads a record. One that is over its absolute timeout, or is
// no session at all, is [ErrNotFound].
func (m *Manager) fetch(ctx context.Context, id string) (loaded, error) {
	r, err := m.store.Load(ctx, id)
	if err != nil {
		return loaded{}, m.storeError(err)
	}
	rec := loaded{left: min(r.TTL, maxLifetime), asOf: time.Now()}
	if rec.document, err = parseDocument(r.Data); err != nil {
		// It is not overwritten either: a new session gets another ID.
		m.cfg.Logger.LogAttrs(ctx, slog.LevelError, "session: a record cannot be read, its session is treated as absent and the row left alone", slog.Any("error", err))
		return loaded{}, ErrNotFound
	}
	if err := m.sealer.open(id, &rec.document); err != nil {
		return loaded{}, err
	}
	if m.cfg.AbsoluteTimeout == 0 {
		return rec, nil
	}
	created, ok := rec.created()
	if rec.newborn = !ok; ok && rec.asOf.Sub(created) >= m.cfg.AbsoluteTimeout {
		// Express knows no absolute timeout and would keep it alive.
		if err := m.store.Delete(ctx, id); err != nil {
			m.cfg.Logger.LogAttrs(ctx, slog.LevelError, "session: a record over its absolute timeout could not be deleted; it is refused all the same", slog.Any("error", m.storeError(err)))
		}
		return loaded{}, ErrNotFound
	}
	return rec, nil
}

// storeError counts errors that a person on call wants to know of.
func (m *Manager) storeError(err error) error {
	for _, expected := range []error{ErrNotFound, ErrExists, ErrConflict} {
		if errors.Is(err, expected) {
			return err
		}
	}
	m.stats.storeErrors.Add(1)
	return err
}

// idleTimeout returns the session's own idle timeout, else the configured one.
func (m *Manager) idleTimeout(d *document) time.Duration {
	if own, ok := d.maxAge(); ok {
		return max(own, 0)
	}
	return m.cfg.IdleTimeout
}

// target returns when the record should expire, from now: min(now + idle
// timeout, created + absolute timeout).
func (m *Manager) target(d *document, now time.Time) time.Duration {
	ttl := m.idleTimeout(d)
	if m.cfg.AbsoluteTimeout > 0 {
		rest := m.cfg.AbsoluteTimeout
		if created, ok := d.created(); ok {
			rest -= max(0, now.Sub(created)) // a creation in the future is a wrong clock
		}
		ttl = min(ttl, rest)
	}
	return ttl
}

// touchDue reports whether moving the expiry to ttl from now gains enough.
func (m *Manager) touchDue(d *document, ttl, left time.Duration) bool {
	interval := m.cfg.TouchInterval
	if idle := m.idleTimeout(d); idle != m.cfg.IdleTimeout {
		interval = min(interval, idle/10) // or a short one would never move
	}
	return ttl > 0 && ttl-left >= interval
}

// snapshot is what one commit works on, so that no lock is held meanwhile.
type snapshot struct {
	r       *http.Request
	id      string
	rec     loaded
	changes []change
	idle    *time.Duration
	renew   bool
	doomed  []string
	epoch   int
	late    bool // no cookie can be sent any more
	failed  bool // only the deletions are still to be done
}

// outcome is what a commit has made of it.
type outcome struct {
	id      string // "" without a record
	rec     loaded
	cookie  cookieState
	created bool
	gone    bool
}

// commit saves what has changed since the last one. final is the one before
// the header leaves, or any after it.
func (s *Session) commit(final bool) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	late, failed := s.headerSent, s.err != nil
	s.headerSent = late || final
	if !s.used || s.abandoned || s.offline || failed && len(s.doomed) == 0 || s.nothingDue() {
		defer s.mu.Unlock()
		if s.abandoned {
			return nil
		}
		return s.err
	}
	p := snapshot{
		r: s.r, id: s.id, changes: s.changes[:len(s.changes):len(s.changes)], idle: s.idle,
		rec:   loaded{document: s.base, left: s.left - time.Since(s.asOf), asOf: time.Now(), newborn: s.newborn},
		renew: s.renew, doomed: s.doomed, epoch: s.epoch, late: late, failed: failed,
	}
	s.taken = len(p.changes)
	s.mu.Unlock()

	ctx, cancel := s.m.storeContext(s.r.Context())
	defer cancel()
	returned := false
	defer func() {
		if !returned {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.taken = 0
			s.fail(&opError{"save", errPanic})
		}
	}()
	out, err := s.m.apply(ctx, &p)
	returned = true

	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = 0
	if err != nil {
		if errors.Is(err, ErrDestroyed) {
			s.forget()
		}
		s.fail(err)
		return err // not s.err: a failed logout is worse than ErrHeaderSent
	}
	s.publish(&p, &out)
	if len(s.changes) > 0 {
		// Made meanwhile, from data that a merge may have replaced.
		_ = s.replay() // which keeps its error
	}
	if final && !failed && errors.Is(s.err, ErrHeaderSent) {
		return nil // another goroutine came too late; what was committed stands
	}
	return s.err
}

// nothingDue reports whether there is nothing to commit, as after most
// requests: they only read. It is called with s.mu locked.
func (s *Session) nothingDue() bool {
	switch {
	case len(s.changes) > 0 || len(s.doomed) > 0:
		return false
	case s.id == "": // an idle timeout alone creates no record
		return true
	case s.idle != nil || s.renew || s.newborn:
		return false
	}
	now := time.Now()
	ttl := s.m.target(&s.base, now)
	return !s.m.touchDue(&s.base, ttl, s.left-now.Sub(s.asOf))
}

// settle saves what was changed after the final header.
func (s *Session) settle() error {
	s.mu.Lock()
	nothing := len(s.changes) == 0 && len(s.doomed) == 0 && s.idle == nil
	err, abandoned := s.err, s.abandoned
	s.mu.Unlock()
	switch {
	case abandoned:
		return nil
	case nothing:
		return err
	}
	return s.commit(true)
}

// publish takes over what a commit has done; it is called with s.mu locked.
func (s *Session) publish(p *snapshot, out *outcome) {
	s.doomed = s.doomed[len(p.doomed):]
	s.cookie.expire = s.cookie.expire || out.cookie.expire
	if s.epoch != p.epoch { // destroyed meanwhile
		if out.id != p.id {
			s.doomed = append(s.doomed, out.id)
		}
		return
	}
	s.id, s.base, s.left, s.asOf, s.newborn = out.id, out.rec.document, out.rec.left, out.rec.asOf, out.rec.newborn
	s.changes = s.changes[len(p.changes):]
	if s.idle == p.idle && s.id != "" {
		s.idle = nil
	}
	s.renew = s.renew && !p.renew
	s.vanished = s.vanished || out.gone
	switch {
	case s.vanished:
		s.cookie.send = false
	case out.cookie.send:
		s.cookie.only = out.cookie.only && (s.cookie.only || !s.cookie.send)
		s.cookie.send = true
	}
}

// apply carries out a snapshot: deletions first, for a logout must win whatever
// else fails.
func (m *Manager) apply(ctx context.Context, p *snapshot) (outcome, error) {
	out := outcome{id: p.id, rec: p.rec}
	for _, id := range p.doomed {
		if err := m.store.Delete(ctx, id); err != nil {
			return out, &opError{"destroy", m.storeError(err)}
		}
		m.stats.destroys.Add(1)
		out.cookie.expire = true
	}
	var err error
	switch {
	case p.failed:
	case p.id == "":
		err = m.create(ctx, p, &out)
	case p.late && p.renew:
		err = &opError{"Renew", ErrHeaderSent}
	default:
		err = m.update(ctx, p, &out)
	}
	return out, err
}

// create stores a new record, if there is anything to store.
func (m *Manager) create(ctx context.Context, p *snapshot, out *outcome) error {
	d := document{}
	for _, c := range p.changes {
		d.set(c.name, c.value)
	}
	if len(d.members) == 0 {
		return nil
	}
	if p.late {
		return &opError{"a new session", ErrHeaderSent}
	}
	now := time.Now()
	idle := m.cfg.IdleTimeout
	switch {
	case p.idle != nil:
		idle = *p.idle
	case m.cfg.Cookie.BrowserSession:
		idle = 0
	}
	cookie := m.newCookie(p.r)
	d.setLifetime(cookie, idle, now)
	d.setCreated(now)
	ttl := m.target(&d, now)
	d.setLifetime(cookie, idle, now.Add(ttl))
	id, err := m.insert(ctx, &d, ttl)
	if err != nil {
		return &opError{"create", err}
	}
	m.stats.creates.Add(1)
	out.id, out.rec, out.created = id, loaded{document: d, left: ttl, asOf: now}, true
	out.cookie.send = true
	return nil
}

// insert creates a record under an ID that nobody has.
func (m *Manager) insert(ctx context.Context, d *document, ttl time.Duration) (id string, err error) {
	name := func() error {
		if id, err = m.newID(); err != nil {
			return err
		}
		if d.raw, err = m.encode(id, d); err != nil {
			return err
		}
		return m.checkSize(d.raw, 0)
	}
	if err := name(); err != nil {
		return "", err
	}
	doubt := false // an earlier attempt may have happened
	for try := 0; ; try++ {
		err := m.store.Create(ctx, id, Record{Data: d.raw, TTL: ttl})
		switch {
		case err == nil:
			return id, nil
		case errors.Is(err, ErrUncertain):
			doubt = true
			_ = m.storeError(err)
		case !errors.Is(err, ErrExists):
			return "", m.storeError(err)
		}
		if doubt {
			found, lerr := m.store.Load(ctx, id)
			switch {
			case lerr == nil && sameJSON(found.Data, d.raw):
				return id, nil // it had happened
			case lerr != nil && !errors.Is(lerr, ErrNotFound):
				return "", fmt.Errorf("%w: %w", ErrUncertain, m.storeError(lerr))
			}
		}
		if errors.Is(err, ErrExists) {
			doubt = false
			if err := name(); err != nil {
				return "", err
			}
		}
		if err := pause(ctx, try); err != nil {
			return "", err
		}
	}
}

// update changes, renews or touches an existing record.
func (m *Manager) update(ctx context.Context, p *snapshot, out *outcome) error {
	asked := p.asked()
	if !asked && !p.rec.newborn {
		return m.touch(ctx, p.id, &p.rec, out)
	}
	err := m.save(ctx, p, out)
	switch {
	case err == nil || asked:
		return err
	// Only a creation time was to be added: the page does not depend on it.
	case errors.Is(err, ErrDestroyed):
		out.gone = true
	default:
		m.cfg.Logger.LogAttrs(ctx, slog.LevelError, "session: creation time not stored, the next request tries again", slog.Any("error", err))
	}
	return nil
}

// asked reports whether the application wants anything saved.
func (p *snapshot) asked() bool { return len(p.changes) > 0 || p.idle != nil || p.renew }

// save writes an existing record. Requests of one session in this program queue
// here; those of others are merged.
func (m *Manager) save(ctx context.Context, p *snapshot, out *outcome) error {
	turn, err := m.queue.acquire(ctx, p.id)
	if err != nil {
		return &opError{"save: waiting for other requests of the session", err}
	}
	defer turn.release()
	u := updating{m: m, p: p, rec: p.rec, changes: p.changes}
	if rec := turn.newer(); rec != nil {
		u.rec, u.guess = *rec, true
	}
	if p.renew {
		if u.newID, err = m.newID(); err != nil {
			return err
		}
	}
	wrote, err := u.run(ctx, out)
	if err != nil {
		return &opError{"save", err}
	}
	if wrote && out.id == p.id {
		rec := out.rec
		turn.written(&rec)
	}
	return nil
}

// touch moves the expiry when that is due. The page does not depend on it:
// where it fails the next request tries again.
func (m *Manager) touch(ctx context.Context, id string, rec *loaded, out *outcome) error {
	now := time.Now()
	ttl := m.target(&rec.document, now)
	if !m.touchDue(&rec.document, ttl, rec.left-now.Sub(rec.asOf)) {
		return nil
	}
	switch err := m.store.Touch(ctx, id, ttl); {
	case err == nil:
		m.stats.touches.Add(1)
		out.rec.left, out.rec.asOf = ttl, now
		_, own := rec.maxAge()
		out.cookie.send, out.cookie.only = own || !m.cfg.Cookie.BrowserSession, true
	case errors.Is(err, ErrNotFound):
		out.gone = true
	default:
		m.cfg.Logger.LogAttrs(ctx, slog.LevelError, "session: expiry not moved, the next request tries again", slog.Any("error", m.storeError(err)))
	}
	return nil
}

// updating is one Update with its merges.
type updating struct {
	m       *Manager
	p       *snapshot
	rec     loaded
	changes []change
	guess   bool // rec is what an earlier request wrote, not what was loaded
	newID   string
	doubt   *document // what an attempt without an answer started from
	tried   document  // what that attempt wrote
}

// run writes, and merges until that succeeds. wrote is false where nothing had
// to be written.
func (u *updating) run(ctx context.Context, out *outcome) (wrote bool, err error) {
	m := u.m
	for try := 0; ; try++ {
		next, c, err := u.change(try > 0 || u.guess)
		if u.guess && (err != nil || c.New == nil) {
			// The store compares what is written. Nothing else may rest on a
			// guess: the session may have ended since.
			u.rec = u.p.rec
			next, c, err = u.change(false)
		}
		u.guess = false
		if err != nil {
			return false, err
		}
		if c.New == nil { // every change is there already
			out.rec = u.rec
			return false, m.touch(ctx, u.p.id, &u.rec, out)
		}
		err = m.store.Update(ctx, u.p.id, c)
		switch {
		case err == nil:
			u.done(out, next, c)
			return true, nil
		case errors.Is(err, ErrNotFound):
			if u.doubt == nil {
				return false, ErrDestroyed
			}
		case errors.Is(err, ErrExists):
			if u.newID, err = m.newID(); err != nil {
				return false, err
			}
		case errors.Is(err, ErrUncertain):
			_ = m.storeError(err)
			from := u.rec.document
			u.doubt, u.tried = &from, next.document
		case errors.Is(err, ErrConflict):
			m.stats.conflicts.Add(1)
		default:
			return false, m.storeError(err)
		}
		if perr := pause(ctx, try); perr != nil {
			return false, errors.Join(err, perr)
		}
		if happened, err := u.look(ctx); err != nil {
			return false, err
		} else if happened {
			u.done(out, u.rec, c)
			return true, nil
		}
	}
}

// look loads the record again after a conflict or a missing answer. happened
// says that an attempt without an answer had been carried out.
func (u *updating) look(ctx context.Context) (happened bool, err error) {
	rec, err := u.m.fetch(ctx, u.p.id)
	if errors.Is(err, ErrNotFound) {
		if u.doubt != nil && u.p.renew {
			if rec, err = u.m.fetch(ctx, u.newID); err == nil {
				u.rec = rec
				return true, nil
			}
		}
		if errors.Is(err, ErrNotFound) {
			return false, ErrDestroyed
		}
	}
	if err != nil {
		if u.doubt != nil {
			err = fmt.Errorf("%w: %w", ErrUncertain, err)
		}
		return false, err
	}
	if u.doubt != nil {
		if !u.p.renew && bytes.Equal(rec.raw, u.tried.raw) {
			u.rec = rec
			return true, nil
		}
		// A key that no longer has the value it was loaded with has been
		// written since: by our own attempt, or by somebody after it.
		var kept []change
		for _, c := range u.changes {
			if sameJSON(rec.get(c.name), u.doubt.get(c.name)) {
				kept = append(kept, c)
			}
		}
		u.changes = kept
		if !bytes.Equal(rec.raw, u.doubt.raw) {
			u.doubt = nil // the attempt has happened or no longer can
		}
	}
	u.rec = rec
	return false, nil
}

// change makes the changes on the record as it is known. again runs the
// functions of Key.Update anew. c.New is nil if nothing would change.
func (u *updating) change(again bool) (next loaded, c Change, err error) {
	m, p := u.m, u.p
	d := u.rec.clone()
	dirty := false
	for _, ch := range u.changes {
		value := ch.value
		old := d.get(ch.name)
		if again && ch.update != nil {
			if value, err = ch.update(old); err != nil {
				return next, c, err
			}
		}
		if !bytes.Equal(value, old) {
			dirty = true
			d.set(ch.name, value)
		}
	}
	now := time.Now()
	if u.rec.newborn {
		dirty = true
		d.setCreated(now)
	}
	cookie, healthy := d.healthyCookie()
	if !healthy {
		cookie = m.newCookie(p.r)
	}
	left := u.rec.left - now.Sub(u.rec.asOf)
	if p.idle != nil {
		dirty = true
		d.setLifetime(cookie, *p.idle, now)
		c.Shorten = true
		c.TTL = m.target(&d, now)
		d.setLifetime(cookie, *p.idle, now.Add(c.TTL))
	} else if ttl := m.target(&d, now); m.touchDue(&d, ttl, left) {
		c.TTL = ttl
	}
	if !dirty && u.newID == "" {
		return u.rec, Change{}, nil
	}
	dirty = dirty || !healthy // a row that is written anyway is mended
	c.Old, c.New, c.NewID = u.rec.raw, u.rec.raw, u.newID
	if dirty {
		u.lifetime(&d, cookie, healthy, c.TTL, now)
	}
	if dirty || m.cfg.Encrypt { // a new ID has another key
		id := p.id
		if u.newID != "" {
			id = u.newID
		}
		if c.New, err = m.encode(id, &d); err != nil {
			return next, c, err
		}
		if err := m.checkSize(c.New, len(c.Old)); err != nil {
			return next, c, err
		}
	}
	d.raw = c.New
	next = loaded{document: d, left: left, asOf: now}
	if c.TTL > 0 {
		next.left = c.TTL
	}
	return next, c, nil
}

// lifetime brings the cookie object of a record that is written anyway up to
// date, and replaces one that Express could not use; a timeout in it is kept.
func (u *updating) lifetime(d *document, cookie document, healthy bool, ttl time.Duration, now time.Time) {
	own, ok := d.maxAge()
	switch {
	case u.p.idle != nil: // done
	case !healthy:
		idle := u.m.cfg.IdleTimeout
		if u.m.cfg.Cookie.BrowserSession {
			idle = 0
		}
		if ok && own > 0 {
			idle = own
		}
		d.setLifetime(cookie, idle, now.Add(idle))
	case ok && own > 0 && ttl > 0:
		cookie.setExpires(now.Add(ttl))
		d.set(memberCookie, cookie.encode())
	}
}

// done notes what has been written.
func (u *updating) done(out *outcome, rec loaded, c Change) {
	u.m.stats.saves.Add(1)
	out.rec = rec
	if c.NewID != "" {
		u.m.stats.renewals.Add(1)
		out.id = c.NewID
	}
	_, own := rec.maxAge()
	moved := c.TTL > 0 && (own || !u.m.cfg.Cookie.BrowserSession)
	out.cookie.send = c.NewID != "" || u.p.idle != nil || moved
	out.cookie.only = !u.p.asked()
}

// checkSize refuses data over MaxBytes, unless it shrinks a record that was
// larger still.
func (m *Manager) checkSize(data []byte, before int) error {
	if len(data) > m.cfg.MaxBytes && len(data) > before {
		return fmt.Errorf("%w: the data would have %d bytes, Config.MaxBytes is %d", ErrInvalid, len(data), m.cfg.MaxBytes)
	}
	return nil
}

// pause waits a random moment, longer after more tries.
func pause(ctx context.Context, try int) error {
	t := time.NewTimer(rand.N(time.Millisecond << min(try, 6)))
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// queue lets one request of a session at a time save in this program, so that
// they do not all conflict: each starts from what the one before has written.
type queue struct {
	mu    sync.Mutex
	lines map[string]*line
}

// line is the queue of one session ID while anybody is in it.
type line struct {
	turn    chan struct{} // holds one token
	members int
	last    *loaded // as last written by a member; guarded by queue.mu
}

// turn is a place at the head of a line.
type turn struct {
	q    *queue
	id   string
	l    *line
	seen *loaded // line.last at the time of joining
}

// acquire waits for the turn of id; its release must be called.
func (q *queue) acquire(ctx context.Context, id string) (turn, error) {
	q.mu.Lock()
	l := q.lines[id]
	if l == nil {
		if q.lines == nil {
			q.lines = make(map[string]*line)
		}
		l = &line{turn: make(chan struct{}, 1)}
		q.lines[id] = l
	}
	l.members++
	t := turn{q: q, id: id, l: l, seen: l.last}
	q.mu.Unlock()
	select {
	case l.turn <- struct{}{}:
		return t, nil
	case <-ctx.Done():
		t.leave()
		return turn{}, context.Cause(ctx)
	}
}

// newer returns the record as a member wrote it while this one waited, nil if
// none did. It is newer than what this one has loaded, but others may have
// written since.
func (t *turn) newer() *loaded {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	if t.l.last == t.seen {
		return nil
	}
	return t.l.last
}

// written tells the members behind what the record is now.
func (t *turn) written(rec *loaded) {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	t.l.last = rec
}

func (t *turn) release() {
	<-t.l.turn
	t.leave()
}

func (t *turn) leave() {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	if t.l.members--; t.l.members == 0 {
		delete(t.q.lines, t.id)
	}
}
