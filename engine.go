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
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgsession/session/internal/backoff"
	"github.com/pgsession/session/internal/cookie"
	"github.com/pgsession/session/internal/jsonobj"
	"github.com/pgsession/session/internal/outage"
	"github.com/pgsession/session/internal/pgrun"
	"github.com/pgsession/session/internal/row"
	"github.com/pgsession/session/internal/seal"
	"github.com/pgsession/session/internal/turn"
)

// engine loads, creates, changes, renews and touches records in a Store. It
// knows no HTTP, no Session and no Manager, so that histories can be run without
// a server. It is safe for concurrent use; make one with newEngine.
type engine struct {
	store     Store
	limits    limits
	sealer    atomic.Pointer[seal.Sealer] // Manager.SetSecrets replaces it
	log       *slog.Logger
	rand      io.Reader
	name      string        // of this program, in tags
	saves     atomic.Uint64 // tagged
	queue     turn.Queue[loaded]
	lockers   turn.Queue[struct{}] // of Transact, so that one connection waits for a session at most
	warnClock sync.Once
	stats     counters
	events    *events // nil unless Config.OnEvent is set
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
func (e *engine) init(store Store, log *slog.Logger, l limits) {
	e.store, e.log, e.limits = store, log, l
	e.rand, e.name = rand.Reader, rand.Text()[:row.ProgramBytes]
}

// errPanic is the session's error when a panic has cut a load or a save.
var errPanic = errors.New("panic in the store or in a function of Key.Update")

// view is what a request knows of a record: its ID and the data as it was loaded
// or committed. It never changes.
type view struct {
	id string
	loaded
}

// loaded is a record as a request sees it.
type loaded struct {
	row.Row
	left    time.Duration // until it expires, at asOf
	asOf    time.Time
	idle    idle
	newborn bool // an absolute timeout is set and the record has no creation time to go by
}

// remaining returns how long the record still has at now.
func (l *loaded) remaining(now time.Time) time.Duration { return l.left - now.Sub(l.asOf) }

// counters are what Stats shows.
type counters struct {
	loads, misses, creates, saves, conflicts, renewals, touches, destroys, pruned, badCookies, storeErrors, refused atomic.Uint64

	bound, refreshed, unproven atomic.Uint64
}

// countError counts errors that a person on call wants to know of.
func (e *engine) countError(err error) error {
	for _, expected := range []error{ErrNotFound, ErrExists, ErrConflict} {
		if errors.Is(err, expected) {
			return err
		}
	}
	e.stats.storeErrors.Add(1)
	if isRefused(err) {
		e.stats.refused.Add(1)
	}
	return err
}

// isRefused reports whether a store that is down has refused an operation without
// trying: nothing was sent for it.
func isRefused(err error) bool {
	return errors.As(err, new(*outage.Refused)) && !errors.Is(err, ErrUncertain)
}

// levelOf is the level at which an error of the store is logged. Of what is
// refused while it is down the store has logged the one line that is needed, and of
// what only a client can mend nobody need hear.
func levelOf(err error) slog.Level {
	if isRefused(err) || errors.Is(err, errBoth) {
		return slog.LevelDebug
	}
	return slog.LevelError
}

// idle is a record's idle timeout.
type idle struct {
	timeout time.Duration
	own     bool // the record says so; else it is the configured one
	token   bool // the client holds a token, and no cookie has to follow
}

// idle reads the idle timeout of a record.
func (e *engine) idle(d *row.Row) idle {
	if own, ok := d.MaxAge(); ok {
		return idle{max(own, 0), true, d.Token()}
	}
	return idle{e.limits.idleTimeout, false, d.Token()}
}

// cookieLives reports whether a session has a cookie, and it outlives the browser.
func (e *engine) cookieLives(i idle) bool { return !i.token && (i.own || !e.limits.browserSession) }

// target returns when the record d should expire, from now: min(now + idle
// timeout, created + absolute timeout).
//
// Where no cookie can follow (cookieless) it is a touch interval sooner, so that
// the next request that can send one finds a touch due: the browser's cookie is
// then brought up to date with the record.
func (e *engine) target(d *row.Row, i idle, now time.Time, cookieless bool) time.Duration {
	ttl := i.timeout
	if e.limits.absoluteTimeout > 0 {
		rest := e.limits.absoluteTimeout
		if created, ok := d.Created(); ok && created.Sub(now) <= clockSlack {
			rest -= max(0, now.Sub(created))
		}
		ttl = min(ttl, rest)
	}
	if cookieless && e.cookieLives(i) {
		ttl -= e.touchInterval(i)
	}
	return ttl
}

// touchInterval returns how much an expiry must have to gain: of a short idle
// timeout of its own a tenth, or it would never move.
func (e *engine) touchInterval(i idle) time.Duration {
	if i.timeout != e.limits.idleTimeout {
		return min(e.limits.touchInterval, i.timeout/10)
	}
	return e.limits.touchInterval
}

// touchDue reports whether moving the expiry to ttl from now gains enough.
func (e *engine) touchDue(i idle, ttl, left time.Duration) bool {
	return ttl > 0 && ttl-left >= e.touchInterval(i)
}

// tooLong reports whether a record has more time left than its own idle timeout
// allows: a slow request has touched it by what the timeout was before.
func (e *engine) tooLong(i idle, left time.Duration) bool {
	return i.own && i.timeout > 0 && left-i.timeout >= max(e.touchInterval(i), clockSlack)
}

// snapshot is what one commit works on, so that no lock is held meanwhile.
type snapshot struct {
	attributes cookie.Attributes // of a new cookie object

	rec    *view    // nil without a record
	asked  *pending // never nil
	doomed []string // IDs whose records are to be deleted

	superseded bool // the ID was renewed by another request
	late       bool // no cookie can be sent any more
	noCookie   bool // or it is not known yet whether one will be
	public     bool // no cookie will be sent for no better reason than a touch
	deleteOnly bool // nothing else is still to be done
	skipTouch  bool // the request is none of the user's, and extends nothing
	token      bool // the client of a new record gets a token

	device *deviceStep // nil: nothing new is known of the browser's device
	now    *stored     // nil, unless one value that is stored is to be told

	room *view // for the first view that is made; may be nil
}

// deviceStep is what a request has found out of the browser's device: its key, or
// that it has proven it.
type deviceStep struct {
	id  string // of the binding
	key string // "": it has proven the one that is stored
}

// note writes it into a record, and reports whether that is new there. (A function
// in its place would cost every save an allocation.)
func (s *deviceStep) note(d *row.Row, now time.Time) bool {
	switch {
	case s == nil:
		return false
	case s.key != "":
		return d.Register(s.id, s.key)
	}
	return d.Confirm(s.id, now)
}

// view returns a view of what p has stored.
func (p *snapshot) view(id string, rec loaded) *view {
	v := p.room
	if p.room = nil; v == nil {
		v = new(view)
	}
	*v = view{id, rec}
	return v
}

// noRefresh reports whether the response will have no cookie because of an expiry
// that a save moves.
func (p *snapshot) noRefresh() bool { return p.noCookie || p.public && !p.asked.any() }

// outcome is what a commit has made of it.
type outcome struct {
	rec    *view // nil without a record
	cookie cookieState
	fresh  bool // rec is a session that this commit began
	alive  bool // this commit has found rec alive, or left it so
	gone   bool // it was found gone, and nothing depended on it
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
	out := outcome{rec: p.rec}
	for _, id := range p.doomed {
		if err := e.store.Delete(e.hears(ctx, whyDestroyed), id); err != nil {
			return out, &opError{"destroy", e.countError(err)}
		}
		e.stats.destroys.Add(1)
		out.cookie.expire = true
	}
	var err error
	switch {
	case p.deleteOnly:
	case p.rec == nil && p.superseded && p.asked.any():
		err = e.beginAnew(ctx, p, &out)
	case p.rec == nil:
		err = e.create(ctx, p, &out)
	case p.late && p.asked.renew:
		err = &opError{"Renew", ErrHeaderSent}
	case p.late && p.asked.sets(row.MemberBound):
		err = &opError{"Bind", ErrHeaderSent}
	default:
		err = e.update(ctx, p, &out)
	}
	return out, err
}

// create stores a new record, if there is anything to store.
func (e *engine) create(ctx context.Context, p *snapshot, out *outcome) error {
	d := row.Row{}
	p.asked.applyTo(&d)
	if d.Len() == 0 {
		return nil
	}
	if p.late {
		return &opError{"a new session", ErrHeaderSent}
	}
	rec := e.fresh(p, d)
	id, err := e.insert(ctx, &rec.Row, rec.left)
	if err != nil {
		return &opError{"create", err}
	}
	e.stats.creates.Add(1)
	out.rec = p.view(id, rec)
	p.now.note(&rec.Row)
	out.cookie.send, out.fresh, out.alive = true, true, true
	return nil
}

// fresh returns a new record of the members of d. It is not encoded yet.
func (e *engine) fresh(p *snapshot, d row.Row) loaded {
	now := time.Now()
	timeout := e.limits.idleTimeout
	switch {
	case p.asked.idle != nil:
		timeout = *p.asked.idle
	case e.limits.browserSession:
		timeout = 0
	}
	cookie := row.NewCookie(p.attributes)
	d.SetLifetime(cookie, timeout, now)
	d.SetCreated(now)
	if p.token {
		d.SetToken()
	}
	i := e.idle(&d)
	ttl := e.target(&d, i, now, false)
	d.SetLifetime(cookie, timeout, now.Add(ttl))
	return loaded{Row: d, left: ttl, asOf: now, idle: i}
}

// insert creates a record under an ID that nobody has.
func (e *engine) insert(ctx context.Context, d *row.Row, ttl time.Duration) (string, error) {
	id, stored := "", false
	defer func() { e.began(id, d, stored) }()
	name := func() (err error) {
		e.began(id, d, false)
		if id, err = e.newID(); err != nil {
			return err
		}
		e.begins(id)
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
			stored = true
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
				stored = true // it had happened
				return id, nil
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
		return e.sealer.Load().Seal(id, r)
	}
	return r.Encode(), nil
}

// update changes, renews or touches an existing record.
func (e *engine) update(ctx context.Context, p *snapshot, out *outcome) error {
	asked := p.asked.any()
	if !asked && !p.rec.newborn && p.device == nil && !e.tooLong(p.rec.idle, p.rec.remaining(time.Now())) {
		return e.touch(ctx, p, p.rec, out)
	}
	err := e.save(ctx, p, out)
	switch {
	case errors.Is(err, ErrRenewed) && asked:
		return e.beginAnew(ctx, p, out)
	case err == nil || asked:
		return err
	// Only a creation time or a proof was to be noted, or an expiry to be mended:
	// the page does not depend on it.
	case errors.Is(err, ErrDestroyed):
		out.gone = true
	default:
		e.log.LogAttrs(ctx, levelOf(err), "session: creation time, device or expiry not stored, the next request tries again", slog.Any("error", err))
	}
	return nil
}

// save writes an existing record. Requests of one session in this program queue
// here; those of others are merged.
func (e *engine) save(ctx context.Context, p *snapshot, out *outcome) error {
	place, err := e.queue.Acquire(ctx, p.rec.id)
	if err != nil {
		return &opError{"save: waiting for other requests of the session", err}
	}
	defer place.Release()
	u := updating{e: e, p: p, rec: p.rec.loaded, changes: p.asked.changes}
	if rec, ok := place.Newer(); ok {
		u.rec, u.guess = rec, true
	}
	if p.asked.renew {
		if u.newID, err = e.newIDFor(ctx, p.rec.id); err != nil {
			return err
		}
	}
	wrote, err := u.run(ctx, out)
	if err != nil {
		return &opError{"save", err}
	}
	if wrote && out.rec.id == p.rec.id {
		place.Written(out.rec.loaded)
	}
	return nil
}

// touch moves the expiry when that is due. The page does not depend on it:
// where it fails the next request tries again.
func (e *engine) touch(ctx context.Context, p *snapshot, rec *view, out *outcome) error {
	now := time.Now()
	cookieless := p.noCookie || p.public
	ttl := e.target(&rec.Row, rec.idle, now, cookieless)
	if p.skipTouch || !e.touchDue(rec.idle, ttl, rec.remaining(now)) {
		return nil
	}
	if rec.remaining(now) > rec.idle.timeout/2 {
		// There will be other requests: this one does not wait for those who hold
		// all connections, who may be the handlers of pages like this one.
		ctx = pgrun.Impatient(ctx)
	}
	switch err := e.store.Touch(ctx, rec.id, ttl); {
	case err == nil:
		e.stats.touches.Add(1)
		moved := rec.loaded
		moved.left, moved.asOf = ttl, now
		out.rec, out.alive = p.view(rec.id, moved), true
		out.cookie.send, out.cookie.refreshOnly = !cookieless && e.cookieLives(rec.idle), true
	case errors.Is(err, ErrNotFound):
		out.gone = true
	default:
		out.alive = false // it may take long to fail
		e.log.LogAttrs(ctx, levelOf(err), "session: expiry not moved, the next request tries again", slog.Any("error", e.countError(err)))
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

// newTag returns a tag that no other save has. All are of one length, up to the
// two thousand millionth: a record whose length changes is logged whole, for its
// length stands before it and what follows it moves.
func (e *engine) newTag() string {
	const zeros = "000000"
	n := strconv.FormatUint(e.saves.Add(1), 36)
	return e.name + zeros[min(len(n), len(zeros)):] + n
}

// storeContext returns the context of one operation on the store. It keeps the
// request's values, for tracing, but not its end: a browser that goes away
// neither loses its save nor cancels a statement.
func (e *engine) storeContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), e.limits.storeTimeout)
}
