package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/pgsession/session/internal/cookie"
	"github.com/pgsession/session/internal/gate"
	"github.com/pgsession/session/internal/row"
)

// Session is the session of one request. It is safe for concurrent use by the
// goroutines of that request; no lock is held while the store works.
//
// The first use loads the record. Where that fails the error sticks: every Get
// reports absence and the response is the error handler's. What is set later
// than the first byte of the response is saved when the handler returns. After
// that, reads see memory and changes are refused.
type Session struct {
	m *Manager
	r *http.Request

	saving sync.Mutex // one commit at a time; held during I/O, so never by the API

	mu      sync.Mutex
	loading chan struct{} // closed when the load under way has ended
	loaded  bool
	used    bool
	existed bool // there was a record when the request began

	presented string // the ID in the cookie, if it verified
	resign    bool   // with an old secret

	// The record, as of the last load or commit. id is empty without one.
	id       string
	base     row.Row
	left     time.Duration // until it expires, at asOf
	asOf     time.Time
	newborn  bool // has an AbsoluteTimeout to obey but no creation time yet
	vanished bool // found gone by a touch

	// Changes since then. The first taken of them are in a commit under way.
	changes []change
	taken   int
	version int            // counts changes
	idle    *time.Duration // SetIdleTimeout; 0 for a browser session's default
	renew   bool
	doomed  []string // IDs whose records are to be deleted
	epoch   int      // counts Destroy, so that a commit under way notices

	cookie     cookieState
	expireAs   *cookie.Attributes // those of the destroyed record
	headerSent bool
	detached   bool
	offline    bool // in the error handler, or finished: no more I/O
	finished   bool
	err        error
	told       bool // err is a Reload's, which had nothing to save
}

// change is one change of a key, in the order they were made.
type change struct {
	name   string
	value  []byte                           // after this change; nil: deleted
	update func(old []byte) ([]byte, error) // nil for a plain set or delete
}

// cookieState is what the final header will say.
type cookieState struct {
	send   bool // the ID and its lifetime
	only   bool // for no better reason than a touch or a new signature
	expire bool // the record was deleted
}

// use locks s with its record loaded. The caller unlocks s.mu.
func (s *Session) use() {
	s.mu.Lock()
	s.used = true
	for !s.loaded {
		if s.offline {
			s.loaded = true
			return
		}
		if under := s.loading; under != nil {
			s.mu.Unlock()
			<-under
			s.mu.Lock()
			continue
		}
		s.load()
	}
}

// load finds the record that the cookie names. It is called with s.mu locked
// and unlocks it while the store works.
func (s *Session) load() {
	s.present()
	if s.presented == "" {
		s.loaded = true
		return
	}
	id, done := s.presented, make(chan struct{})
	s.loading = done
	s.mu.Unlock()
	defer close(done)
	returned := false
	defer func() {
		if !returned { // a store that panics has failed; nobody may wait for it
			s.mu.Lock()
			defer s.mu.Unlock()
			s.loading, s.loaded = nil, true
			s.fail(&opError{"load", errPanic})
		}
	}()
	rec, err := s.m.load(s.r.Context(), id)
	returned = true
	s.mu.Lock()
	s.loading = nil
	if s.loaded { // by a Destroy meanwhile, which needs no record
		return
	}
	s.loaded = true
	switch {
	case errors.Is(err, ErrNotFound):
		// The ID is never adopted, and its cookie is left alone: a parallel
		// login may just have replaced it.
	case err != nil:
		s.fail(&opError{"load", err})
	default:
		s.id, s.existed = id, true
		s.base, s.left, s.asOf, s.newborn = rec.Row, rec.left, rec.asOf, rec.newborn
		if s.resign {
			s.cookie = cookieState{send: true, only: true}
		}
	}
}

// present finds the session ID in the request's cookies.
func (s *Session) present() {
	lines := s.r.Header["Cookie"]
	if len(lines) == 0 {
		return
	}
	var bad int
	s.presented, s.resign, bad = s.m.codec.Find(lines, s.m.cfg.Cookie.Name)
	s.m.stats.badCookies.Add(uint64(max(bad, 0)))
}

// writable locks s for a change, or reports false, unlocked, if changes are
// refused.
func (s *Session) writable() bool {
	s.use()
	if s.refuses() {
		s.mu.Unlock()
		return false
	}
	return true
}

// refuses reports whether a change comes too late; it is called with s.mu
// locked.
func (s *Session) refuses() bool {
	s.told = false
	if s.finished {
		if s.err == nil {
			s.err = ErrFinished
		}
		s.m.cfg.Logger.LogAttrs(s.r.Context(), slog.LevelError, "session: changed after its handler has returned, change dropped")
		return true
	}
	return s.err != nil || s.offline
}

// fail keeps the first error; it is called with s.mu locked.
func (s *Session) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

// ID returns the session's ID, "" until there is a record. A renewal changes
// it when it is committed. Never log it.
func (s *Session) ID() string {
	s.use()
	defer s.mu.Unlock()
	return s.id
}

// Handle names the session without giving access to it, "" until there is a
// record: for audit logs, and to tell one's own in a list ([Info.Handle]). It is
// a hash of the ID, and changes with it.
func (s *Session) Handle() string {
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
	s.use()
	defer s.mu.Unlock()
	t, _ := s.base.Created()
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
	s.use()
	defer s.mu.Unlock()
	if s.renew {
		return time.Now()
	}
	return s.base.Renewed()
}

// IsNew reports whether there was no record when the request began.
func (s *Session) IsNew() bool {
	s.use()
	defer s.mu.Unlock()
	return !s.existed
}

// Keys returns the names of the keys that have a value, in the record's order.
func (s *Session) Keys() []string {
	s.use()
	defer s.mu.Unlock()
	d := s.base.Clone()
	for _, c := range s.changes {
		d.Set(c.name, c.value)
	}
	return d.Keys()
}

// get returns the value of a key as JSON, nil if absent; it is called with s.mu
// locked.
func (s *Session) get(name string) []byte {
	for i := len(s.changes) - 1; i >= 0; i-- {
		if s.changes[i].name == name {
			return s.changes[i].value
		}
	}
	if row.Bookkeeping(name) {
		return nil
	}
	return s.base.Get(name)
}

// put records a change; it is called with s.mu locked.
func (s *Session) put(c change) {
	if s.id == "" && s.headerSent && s.taken == 0 { // else its creation is under way
		s.tooLate("a new session")
		return
	}
	s.version++
	if c.update == nil { // what it replaces need not be kept
		for i := len(s.changes) - 1; i >= s.taken; i-- {
			if s.changes[i].name == c.name {
				s.changes = slices.Delete(s.changes, i, i+1)
			}
		}
	}
	s.changes = append(s.changes, c)
}

// tooLate refuses what would need a cookie that can no longer be sent.
func (s *Session) tooLate(what string) {
	s.fail(&opError{what, ErrHeaderSent})
	s.m.cfg.Logger.LogAttrs(s.r.Context(), slog.LevelError, "session: not saved", slog.Any("error", s.err))
}

// Renew gives the session a new ID and keeps its data and expiry; the old ID
// is dead at once. Call it whenever a user's rights change, above all at login:
// an ID that an attacker had planted before is then worth nothing (session
// fixation). It happens when the session is committed. Without a record it does
// nothing, for a new session gets a new ID anyway; twice is once.
func (s *Session) Renew() {
	if !s.writable() {
		return
	}
	defer s.mu.Unlock()
	switch {
	case s.id == "":
	case s.headerSent:
		s.tooLate("Renew")
	default:
		s.renew = true
	}
}

// Destroy deletes the record and expires the cookie, at the commit: logout. It
// needs no load, beats an earlier Renew and drops earlier changes. A later Set
// begins a fresh session with a new ID.
func (s *Session) Destroy() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = true
	if s.finished || s.offline {
		s.refuses()
		return
	}
	if !s.loaded {
		if s.loading == nil {
			s.present()
		}
		s.id, s.existed = s.presented, s.presented != ""
		s.loaded = true
	}
	if s.id != "" {
		s.doomed = append(s.doomed, s.id)
		a := s.attributes() // a browser drops only a cookie of the same domain and path
		s.expireAs = &a
	}
	s.epoch++
	s.forget()
}

// forget leaves s without a record; it is called with s.mu locked.
func (s *Session) forget() {
	s.version++
	s.id, s.base, s.left, s.newborn = "", row.Row{}, 0, false
	s.changes, s.taken, s.idle, s.renew = nil, 0, nil, false
	s.cookie = cookieState{expire: s.cookie.expire}
}

// SetIdleTimeout sets this session's own idle timeout ("remember me"; Express's
// cookie.maxAge) and lets it count from now, even if that is sooner. It is kept
// in the record. d <= 0 returns to [Config.IdleTimeout]; over 400 days, the
// most that browsers keep a cookie, is an error ([ErrInvalid]). Milliseconds
// are the unit; less is one. On its own it creates no record.
func (s *Session) SetIdleTimeout(d time.Duration) {
	if !s.writable() {
		return
	}
	defer s.mu.Unlock()
	if d > maxCookieLifetime {
		s.fail(invalid("SetIdleTimeout", "%v, and browsers keep a cookie for 400 days (9600h) at most", d))
		return
	}
	if d > 0 {
		d = max(d.Truncate(time.Millisecond), time.Millisecond)
	}
	d = max(d, 0)
	if d == 0 && !s.m.cfg.Cookie.BrowserSession {
		d = s.m.cfg.IdleTimeout
	}
	if now, own := s.base.MaxAge(); s.id != "" && s.idle == nil && own == (d > 0) && now == d {
		return
	}
	s.idle = &d
}

// Save commits now what would be committed at the first byte of the response:
// for long streams, or to handle a failure oneself. It returns [Session.Err];
// the response is still the error handler's if the header has not been sent.
//
// ctx bounds only the wait: when it ends Save returns its error and the commit
// goes on, bounded by [Config.StoreTimeout].
func (s *Session) Save(ctx context.Context) error {
	if ctx.Done() == nil {
		return s.commit(false)
	}
	type result struct {
		err      error
		panicked any
	}
	done := make(chan result, 1)
	go func() {
		res := result{err: errPanic}
		defer func() {
			res.panicked = recover() // or it would end the program
			done <- res
		}()
		res.err = s.commit(false)
	}()
	select {
	case res := <-done:
		if res.panicked != nil {
			panic(res.panicked)
		}
		return res.err
	case <-ctx.Done():
		return &opError{"Save", context.Cause(ctx)}
	}
}

// Reload fetches the record again, keeping changes that are not committed yet:
// for streams and sockets that outlive other requests. It returns
// [ErrDestroyed] if the session has ended or been renewed meanwhile; from then
// on it is empty and refuses changes. A response that has begun may then end as
// usual, unless something was lost that was to be saved. Any other error leaves the session as it
// was and does not stick. Reload does not extend the session's life; a commit
// does. Without a record it does nothing.
//
// ctx bounds the load, besides [Config.StoreTimeout]; a commit of this request
// that is under way comes first.
func (s *Session) Reload(ctx context.Context) error {
	s.use()
	id, epoch, err, offline := s.id, s.epoch, s.err, s.offline
	s.mu.Unlock()
	if err != nil || id == "" || offline {
		return err
	}
	// Not while a commit changes the ID or the data.
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	id = s.id
	s.mu.Unlock()
	if id == "" {
		return nil
	}
	lctx, cancel := context.WithTimeout(ctx, s.m.cfg.StoreTimeout)
	defer cancel()
	rec, err := s.m.fetch(lctx, id)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.epoch != epoch: // destroyed by this request itself
		return nil
	case errors.Is(err, ErrNotFound):
		s.told = s.err == nil && len(s.changes) == 0 && s.idle == nil && !s.renew
		s.forget()
		s.fail(&opError{"Reload", ErrDestroyed})
		return s.err
	case err != nil:
		return &opError{"Reload", err}
	}
	s.base, s.left, s.asOf, s.newborn = rec.Row, rec.left, rec.asOf, rec.newborn
	return s.replay()
}

// replay makes the changes again on a newer record. It is called with s.mu
// locked and unlocks it while an application's function runs.
func (s *Session) replay() error {
	for {
		base, pending, version := s.base, slices.Clone(s.changes), s.version
		err := s.unlocked(func() error { return rebase(base.Clone(), pending) })
		if err != nil {
			s.fail(err)
			return err
		}
		if s.version == version {
			s.changes = pending
			return nil
		}
	}
}

// unlocked calls f with s.mu unlocked and locks it again, even if f panics.
func (s *Session) unlocked(f func() error) error {
	s.mu.Unlock()
	defer s.mu.Lock()
	return f()
}

// rebase runs the functions among the changes again, on d, and keeps their
// results.
func rebase(d row.Row, changes []change) error {
	for i := range changes {
		c := &changes[i]
		if c.update != nil {
			v, err := c.update(d.Get(c.name))
			if err != nil {
				return err
			}
			c.value = v
		}
		d.Set(c.name, c.value)
	}
	return nil
}

// Detach leaves this response to the handler: nothing more is saved, no cookie
// is sent, and the page passes even if the session could not be loaded. For
// pages that must appear in an outage.
func (s *Session) Detach() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.detached = true
}

// Err returns the first error of loading, changing or saving, nil if there was
// none. It sticks, as in [bufio.Writer]. Nobody has to look at it: a response
// whose session has an error is the error handler's.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// LogValue shows neither ID nor data.
func (s *Session) LogValue() slog.Value { return slog.StringValue("session") }

// Format shows neither ID nor data, whatever the verb.
func (s *Session) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("session")) }

// closeIO makes later calls work in memory only.
func (s *Session) closeIO() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offline = true
}

// finish ends the request's use of the session.
func (s *Session) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offline, s.finished = true, true
}

// headerGone notes that the response header is out of the session's hands.
func (s *Session) headerGone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.headerSent = true
}

// log writes what went wrong. The path stays out: it may hold a token.
func (s *Session) log(level slog.Level, msg string, err error) {
	s.m.cfg.Logger.LogAttrs(s.r.Context(), level, msg, slog.Any("error", err), slog.String("method", s.r.Method))
}

// header returns the Set-Cookie header that is due, "" if none, and forgets it.
// public says that caches may keep the response, which is then not spoilt for
// the sake of a touch. It is called with s.mu locked.
func (s *Session) header(public bool) string {
	c := s.cookie
	s.cookie = cookieState{}
	if s.detached || c.only && public {
		return ""
	}
	now := time.Now()
	attrs := s.attributes()
	name, express := s.m.cfg.Cookie.Name, s.m.cfg.Cookie.Format == FormatExpress
	switch {
	case c.send && s.id != "":
		value, err := s.m.codec.Sign(name, s.id)
		if err != nil || len(name)+len(value) > maxCookieBytes {
			// Only an ID of kilobytes, made by a custom genid, comes here.
			s.m.cfg.Logger.LogAttrs(s.r.Context(), slog.LevelError, "session: cookie left out, too long for browsers")
			return ""
		}
		return cookie.SetCookie(name, value, attrs, s.lifetime(now), express, now)
	case c.expire:
		if s.expireAs != nil {
			attrs = *s.expireAs
		}
		return cookie.SetCookie(name, "", attrs, cookie.Lifetime{}, express, now)
	}
	return ""
}

// attributes returns those of the session's cookie: an existing Express
// session's are in its record.
func (s *Session) attributes() cookie.Attributes {
	if s.m.cfg.Cookie.Format == FormatExpress && s.base.Raw != nil {
		a, err := s.base.Attributes()
		if err == nil {
			return a
		}
		s.m.cfg.Logger.LogAttrs(s.r.Context(), slog.LevelWarn, "session: cookie attributes in the record are not usable, the configuration's are used", slog.String("reason", err.Error()))
	}
	return s.m.configured(s.r)
}

// lifetime says how long the session's cookie is to live.
func (s *Session) lifetime(now time.Time) cookie.Lifetime {
	_, own := s.base.MaxAge()
	untilExit := !own && (s.m.cfg.Cookie.BrowserSession || s.m.cfg.Cookie.Format == FormatExpress)
	return cookie.Lifetime{TTL: s.left - now.Sub(s.asOf), UntilExit: untilExit}
}

// addHeaders adds what the session has to say to the final header. It never
// lets a cache keep a session cookie, or a page that depends on one without
// saying so.
func (s *Session) addHeaders(w http.ResponseWriter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.used {
		return
	}
	h := w.Header()
	if !gate.HeaderHas(h, "Vary", "cookie") && !gate.HeaderHas(h, "Vary", "*") {
		h.Add("Vary", "Cookie")
	}
	cookie := s.header(gate.HeaderHas(h, "Cache-Control", "public") || gate.HeaderHas(h, "Cache-Control", "s-maxage="))
	if cookie == "" {
		return
	}
	h.Add("Set-Cookie", cookie)
	if !gate.HeaderHas(h, "Cache-Control", "private") && !gate.HeaderHas(h, "Cache-Control", "no-store") {
		h.Set("Cache-Control", "no-store")
	}
	gate.ForbidCaching(h)
}
