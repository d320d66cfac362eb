package session

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/pgsession/session/internal/backoff"
	"github.com/pgsession/session/internal/cookie"
	"github.com/pgsession/session/internal/jsonobj"
	"github.com/pgsession/session/internal/row"
	"github.com/pgsession/session/internal/seal"
	"github.com/pgsession/session/internal/turn"
)

// engine loads, creates, changes, renews and touches records in a Store. It
// knows no HTTP, no Session and no Manager, so that histories can be run without
// a server. It is safe for concurrent use; make one with newEngine.
type engine struct {
	store  Store
	limits limits
	sealer seal.Sealer
	log    *slog.Logger
	rand   io.Reader
	name   string        // of this program, in tags
	saves  atomic.Uint64 // tagged
	queue  turn.Queue[loaded]
	stats  counters
}

// limits are what a Config says of records, with its defaults.
type limits struct {
	idleTimeout, absoluteTimeout time.Duration
	touchInterval, storeTimeout  time.Duration
	maxBytes                     int
	browserSession               bool // a new record has no idle timeout of its own
	encrypt                      bool
	userKey                      string
	maxPerUser                   int // 0: no limit
}

// init makes e ready; it is called once.
func (e *engine) init(store Store, sealer seal.Sealer, log *slog.Logger, l limits) {
	e.store, e.sealer, e.log, e.limits = store, sealer, log, l
	e.rand, e.name = rand.Reader, rand.Text()[:row.ProgramBytes]
}

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
func (e *engine) load(ctx context.Context, id string) (loaded, error) {
	ctx, cancel := e.storeContext(ctx)
	defer cancel()
	e.stats.loads.Add(1)
	rec, err := e.fetch(ctx, id)
	if errors.Is(err, ErrNotFound) {
		e.stats.misses.Add(1)
	}
	return rec, err
}

// fetch loads and reads a record. One that is over its absolute timeout, or is
// no session at all, is [ErrNotFound].
func (e *engine) fetch(ctx context.Context, id string) (loaded, error) {
	r, err := e.store.Load(ctx, id)
	if err != nil {
		return loaded{}, e.countError(err)
	}
	rec := loaded{left: min(r.TTL, row.MaxLifetime), asOf: time.Now()}
	if rec.Row, err = row.Parse(r.Data); err != nil {
		// It is not overwritten either: a new session gets another ID.
		e.log.LogAttrs(ctx, slog.LevelError, "session: a record cannot be read, its session is treated as absent and the row left alone", slog.Any("error", err))
		return loaded{}, ErrNotFound
	}
	if err := e.sealer.Open(id, &rec.Row); err != nil {
		return loaded{}, err
	}
	if e.limits.absoluteTimeout == 0 {
		return rec, nil
	}
	created, ok := rec.Created()
	if rec.newborn = !ok; ok && rec.asOf.Sub(created) >= e.limits.absoluteTimeout {
		// Express knows no absolute timeout and would keep it alive.
		if err := e.store.Delete(ctx, id); err != nil {
			e.log.LogAttrs(ctx, slog.LevelError, "session: a record over its absolute timeout could not be deleted; it is refused all the same", slog.Any("error", e.countError(err)))
		}
		return loaded{}, ErrNotFound
	}
	return rec, nil
}

// countError counts errors that a person on call wants to know of.
func (e *engine) countError(err error) error {
	for _, expected := range []error{ErrNotFound, ErrExists, ErrConflict} {
		if errors.Is(err, expected) {
			return err
		}
	}
	e.stats.storeErrors.Add(1)
	return err
}

// idleTimeout returns the session's own idle timeout, else the configured one.
func (e *engine) idleTimeout(d *row.Row) time.Duration {
	if own, ok := d.MaxAge(); ok {
		return max(own, 0)
	}
	return e.limits.idleTimeout
}

// target returns when the record should expire, from now: min(now + idle
// timeout, created + absolute timeout).
func (e *engine) target(d *row.Row, now time.Time) time.Duration {
	ttl := e.idleTimeout(d)
	if e.limits.absoluteTimeout > 0 {
		rest := e.limits.absoluteTimeout
		if created, ok := d.Created(); ok {
			rest -= max(0, now.Sub(created)) // a creation in the future is a wrong clock
		}
		ttl = min(ttl, rest)
	}
	return ttl
}

// touchDue reports whether moving the expiry to ttl from now gains enough.
func (e *engine) touchDue(d *row.Row, ttl, left time.Duration) bool {
	interval := e.limits.touchInterval
	if idle := e.idleTimeout(d); idle != e.limits.idleTimeout {
		interval = min(interval, idle/10) // or a short one would never move
	}
	return ttl > 0 && ttl-left >= interval
}

// change is one change of a key, in the order they were made.
type change struct {
	name   string
	value  []byte                           // after this change; nil: deleted
	update func(old []byte) ([]byte, error) // nil for a plain set or delete
}

// snapshot is what one commit works on, so that no lock is held meanwhile.
type snapshot struct {
	attributes cookie.Attributes // of a new cookie object

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

// cookieState is what the final header will say.
type cookieState struct {
	send        bool // the ID and its lifetime
	refreshOnly bool // for no better reason than a touch or a new signature
	expire      bool // the record was deleted
}

// apply carries out a snapshot: deletions first, for a logout must win whatever
// else fails.
func (e *engine) apply(ctx context.Context, p *snapshot) (outcome, error) {
	out := outcome{id: p.id, rec: p.rec}
	for _, id := range p.doomed {
		if err := e.store.Delete(ctx, id); err != nil {
			return out, &opError{"destroy", e.countError(err)}
		}
		e.stats.destroys.Add(1)
		out.cookie.expire = true
	}
	var err error
	switch {
	case p.failed:
	case p.id == "":
		err = e.create(ctx, p, &out)
	case p.late && p.renew:
		err = &opError{"Renew", ErrHeaderSent}
	default:
		err = e.update(ctx, p, &out)
	}
	return out, err
}

// create stores a new record, if there is anything to store.
func (e *engine) create(ctx context.Context, p *snapshot, out *outcome) error {
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
	idle := e.limits.idleTimeout
	switch {
	case p.idle != nil:
		idle = *p.idle
	case e.limits.browserSession:
		idle = 0
	}
	cookie := row.NewCookie(p.attributes)
	d.SetLifetime(cookie, idle, now)
	d.SetCreated(now)
	ttl := e.target(&d, now)
	d.SetLifetime(cookie, idle, now.Add(ttl))
	id, err := e.insert(ctx, &d, ttl)
	if err != nil {
		return &opError{"create", err}
	}
	e.stats.creates.Add(1)
	out.id, out.rec = id, loaded{Row: d, left: ttl, asOf: now}
	out.cookie.send = true
	return nil
}

// insert creates a record under an ID that nobody has.
func (e *engine) insert(ctx context.Context, d *row.Row, ttl time.Duration) (id string, err error) {
	name := func() error {
		if id, err = e.newID(); err != nil {
			return err
		}
		if d.Raw, err = e.encode(id, d); err != nil {
			return err
		}
		return e.checkSize(d.Raw, 0)
	}
	if err := name(); err != nil {
		return "", err
	}
	doubt := false // an earlier attempt may have happened
	for try := 0; ; try++ {
		err := e.store.Create(ctx, id, Record{Data: d.Raw, TTL: ttl})
		switch {
		case err == nil:
			return id, nil
		case errors.Is(err, ErrUncertain):
			doubt = true
			_ = e.countError(err)
		case !errors.Is(err, ErrExists):
			return "", e.countError(err)
		}
		if doubt {
			found, lerr := e.store.Load(ctx, id)
			switch {
			case lerr == nil && jsonobj.Equal(found.Data, d.Raw):
				return id, nil // it had happened
			case lerr != nil && !errors.Is(lerr, ErrNotFound):
				return "", fmt.Errorf("%w: %w", ErrUncertain, e.countError(lerr))
			}
		}
		if errors.Is(err, ErrExists) {
			doubt = false
			if err := name(); err != nil {
				return "", err
			}
		}
		if err := backoff.Pause(ctx, try); err != nil {
			return "", err
		}
	}
}

// encode writes a record of id as it is stored.
func (e *engine) encode(id string, r *row.Row) ([]byte, error) {
	if e.limits.encrypt {
		return e.sealer.Seal(id, r)
	}
	return r.Encode(), nil
}

// update changes, renews or touches an existing record.
func (e *engine) update(ctx context.Context, p *snapshot, out *outcome) error {
	asked := p.asked()
	if !asked && !p.rec.newborn {
		return e.touch(ctx, p.id, &p.rec, out)
	}
	err := e.save(ctx, p, out)
	switch {
	case err == nil || asked:
		return err
	// Only a creation time was to be added: the page does not depend on it.
	case errors.Is(err, ErrDestroyed):
		out.gone = true
	default:
		e.log.LogAttrs(ctx, slog.LevelError, "session: creation time not stored, the next request tries again", slog.Any("error", err))
	}
	return nil
}

// asked reports whether the application wants anything saved.
func (p *snapshot) asked() bool { return len(p.changes) > 0 || p.idle != nil || p.renew }

// save writes an existing record. Requests of one session in this program queue
// here; those of others are merged.
func (e *engine) save(ctx context.Context, p *snapshot, out *outcome) error {
	place, err := e.queue.Acquire(ctx, p.id)
	if err != nil {
		return &opError{"save: waiting for other requests of the session", err}
	}
	defer place.Release()
	u := updating{e: e, p: p, rec: p.rec, changes: p.changes}
	if rec, ok := place.Newer(); ok {
		u.rec, u.guess = rec, true
	}
	if p.renew {
		if u.newID, err = e.newID(); err != nil {
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
func (e *engine) touch(ctx context.Context, id string, rec *loaded, out *outcome) error {
	now := time.Now()
	ttl := e.target(&rec.Row, now)
	if !e.touchDue(&rec.Row, ttl, rec.left-now.Sub(rec.asOf)) {
		return nil
	}
	switch err := e.store.Touch(ctx, id, ttl); {
	case err == nil:
		e.stats.touches.Add(1)
		out.rec.left, out.rec.asOf = ttl, now
		_, own := rec.MaxAge()
		out.cookie.send, out.cookie.refreshOnly = own || !e.limits.browserSession, true
	case errors.Is(err, ErrNotFound):
		out.gone = true
	default:
		e.log.LogAttrs(ctx, slog.LevelError, "session: expiry not moved, the next request tries again", slog.Any("error", e.countError(err)))
	}
	return nil
}

// checkSize refuses data over MaxBytes, unless it shrinks a record that was
// larger still.
func (e *engine) checkSize(data []byte, before int) error {
	if len(data) > e.limits.maxBytes && len(data) > before {
		return fmt.Errorf("%w: the data would have %d bytes, Config.MaxBytes is %d", ErrInvalid, len(data), e.limits.maxBytes)
	}
	return nil
}

// newID returns a new random session ID.
func (e *engine) newID() (string, error) {
	var b [cookie.IDBytes]byte
	if _, err := io.ReadFull(e.rand, b[:]); err != nil {
		return "", fmt.Errorf("session: no randomness for a session ID: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b[:]), nil
}

// newTag returns a tag that no other save has.
func (e *engine) newTag() string {
	return e.name + strconv.FormatUint(e.saves.Add(1), 36)
}

// storeContext returns the context of one operation on the store. It keeps the
// request's values, for tracing, but not its end: a browser that goes away
// neither loses its save nor cancels a statement.
func (e *engine) storeContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), e.limits.storeTimeout)
}
