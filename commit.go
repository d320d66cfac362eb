package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/pgsession/session/internal/jsonobj"
	"github.com/pgsession/session/internal/row"
)

// errPanic is the session's error when a panic has cut a load or a save.
var errPanic = errors.New("panic in the store or in a function of Key.Update")

// loaded is a record as a request sees it.
type loaded struct {
	row.Row
	left    time.Duration // until it expires, at asOf
	asOf    time.Time
	newborn bool // an absolute timeout is set and the record has no creation time
}

// counters are what Stats shows.
type counters struct {
	loads, misses, creates, saves, conflicts, renewals, touches, destroys, pruned, badCookies, storeErrors atomic.Uint64
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
	rec := loaded{left: min(r.TTL, row.MaxLifetime), asOf: time.Now()}
	if rec.Row, err = row.Parse(r.Data); err != nil {
		// It is not overwritten either: a new session gets another ID.
		m.cfg.Logger.LogAttrs(ctx, slog.LevelError, "session: a record cannot be read, its session is treated as absent and the row left alone", slog.Any("error", err))
		return loaded{}, ErrNotFound
	}
	if err := m.sealer.Open(id, &rec.Row); err != nil {
		return loaded{}, err
	}
	if m.cfg.AbsoluteTimeout == 0 {
		return rec, nil
	}
	created, ok := rec.Created()
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
func (m *Manager) idleTimeout(d *row.Row) time.Duration {
	if own, ok := d.MaxAge(); ok {
		return max(own, 0)
	}
	return m.cfg.IdleTimeout
}

// target returns when the record should expire, from now: min(now + idle
// timeout, created + absolute timeout).
func (m *Manager) target(d *row.Row, now time.Time) time.Duration {
	ttl := m.idleTimeout(d)
	if m.cfg.AbsoluteTimeout > 0 {
		rest := m.cfg.AbsoluteTimeout
		if created, ok := d.Created(); ok {
			rest -= max(0, now.Sub(created)) // a creation in the future is a wrong clock
		}
		ttl = min(ttl, rest)
	}
	return ttl
}

// touchDue reports whether moving the expiry to ttl from now gains enough.
func (m *Manager) touchDue(d *row.Row, ttl, left time.Duration) bool {
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
	id     string // "" without a record
	rec    loaded
	cookie cookieState
	gone   bool
}

// commit saves what has changed since the last one. final is the one before
// the header leaves, or any after it.
func (s *Session) commit(final bool) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	late, failed := s.headerSent, s.err != nil
	s.headerSent = late || final
	if !s.used || s.detached || s.offline || failed && len(s.doomed) == 0 || s.nothingDue() {
		defer s.mu.Unlock()
		if s.detached {
			return nil
		}
		return s.err
	}
	p := snapshot{
		r: s.r, id: s.id, changes: s.changes[:len(s.changes):len(s.changes)], idle: s.idle,
		rec:   loaded{Row: s.base, left: s.left - time.Since(s.asOf), asOf: time.Now(), newborn: s.newborn},
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
	err, settled := s.err, s.detached || nothing && s.told
	s.mu.Unlock()
	switch {
	case settled:
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
	s.id, s.base, s.left, s.asOf, s.newborn = out.id, out.rec.Row, out.rec.left, out.rec.asOf, out.rec.newborn
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
	if err == nil && m.cfg.MaxPerUser > 0 && out.id != "" {
		m.limit(ctx, p, &out)
	}
	return out, err
}

// create stores a new record, if there is anything to store.
func (m *Manager) create(ctx context.Context, p *snapshot, out *outcome) error {
	d := row.Row{}
	for _, c := range p.changes {
		d.Set(c.name, c.value)
	}
	if d.Len() == 0 {
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
	cookie := row.NewCookie(m.configured(p.r))
	d.SetLifetime(cookie, idle, now)
	d.SetCreated(now)
	ttl := m.target(&d, now)
	d.SetLifetime(cookie, idle, now.Add(ttl))
	id, err := m.insert(ctx, &d, ttl)
	if err != nil {
		return &opError{"create", err}
	}
	m.stats.creates.Add(1)
	out.id, out.rec = id, loaded{Row: d, left: ttl, asOf: now}
	out.cookie.send = true
	return nil
}

// insert creates a record under an ID that nobody has.
func (m *Manager) insert(ctx context.Context, d *row.Row, ttl time.Duration) (id string, err error) {
	name := func() error {
		if id, err = m.newID(); err != nil {
			return err
		}
		if d.Raw, err = m.encode(id, d); err != nil {
			return err
		}
		return m.checkSize(d.Raw, 0)
	}
	if err := name(); err != nil {
		return "", err
	}
	doubt := false // an earlier attempt may have happened
	for try := 0; ; try++ {
		err := m.store.Create(ctx, id, Record{Data: d.Raw, TTL: ttl})
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
			case lerr == nil && jsonobj.Equal(found.Data, d.Raw):
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

// encode writes a record of id as it is stored.
func (m *Manager) encode(id string, r *row.Row) ([]byte, error) {
	if m.cfg.Encrypt {
		return m.sealer.Seal(id, r)
	}
	return r.Encode(), nil
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
	place, err := m.queue.Acquire(ctx, p.id)
	if err != nil {
		return &opError{"save: waiting for other requests of the session", err}
	}
	defer place.Release()
	u := updating{m: m, p: p, rec: p.rec, changes: p.changes}
	if rec, ok := place.Newer(); ok {
		u.rec, u.guess = rec, true
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
		place.Written(out.rec)
	}
	return nil
}

// touch moves the expiry when that is due. The page does not depend on it:
// where it fails the next request tries again.
func (m *Manager) touch(ctx context.Context, id string, rec *loaded, out *outcome) error {
	now := time.Now()
	ttl := m.target(&rec.Row, now)
	if !m.touchDue(&rec.Row, ttl, rec.left-now.Sub(rec.asOf)) {
		return nil
	}
	switch err := m.store.Touch(ctx, id, ttl); {
	case err == nil:
		m.stats.touches.Add(1)
		out.rec.left, out.rec.asOf = ttl, now
		_, own := rec.MaxAge()
		out.cookie.send, out.cookie.only = own || !m.cfg.Cookie.BrowserSession, true
	case errors.Is(err, ErrNotFound):
		out.gone = true
	default:
		m.cfg.Logger.LogAttrs(ctx, slog.LevelError, "session: expiry not moved, the next request tries again", slog.Any("error", m.storeError(err)))
	}
	return nil
}

// checkSize refuses data over MaxBytes, unless it shrinks a record that was
// larger still.
func (m *Manager) checkSize(data []byte, before int) error {
	if len(data) > m.cfg.MaxBytes && len(data) > before {
		return fmt.Errorf("%w: the data would have %d bytes, Config.MaxBytes is %d", ErrInvalid, len(data), m.cfg.MaxBytes)
	}
	return nil
}
