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

	mu      sync.Mutex    // locked by the methods called lockX, for those called xLocked
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

	cookie        cookieState
	expireAs      *cookie.Attributes // those of the destroyed record
	headerSent    bool
	detached      bool
	offline       bool // in the error handler, or finished: no more I/O
	finished      bool
	err           error
	endedByReload bool // err is a Reload's, which had nothing to save
}

// lockLoaded locks s with its record loaded. The caller unlocks s.mu.
func (s *Session) lockLoaded() {
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
		s.loadLocked()
	}
}

// loadLocked finds the record that the cookie names. It unlocks s.mu while the
// store works.
func (s *Session) loadLocked() {
	s.presentLocked()
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
			s.failLocked(&opError{"load", errPanic})
		}
	}()
	rec, err := s.m.engine.load(s.r.Context(), id)
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
		s.failLocked(&opError{"load", err})
	default:
		s.id, s.existed = id, true
		s.base, s.left, s.asOf, s.newborn = rec.Row, rec.left, rec.asOf, rec.newborn
		if s.resign {
			s.cookie = cookieState{send: true, refreshOnly: true}
		}
	}
}

// presentLocked finds the session ID in the request's cookies.
func (s *Session) presentLocked() {
	lines := s.r.Header["Cookie"]
	if len(lines) == 0 {
		return
	}
	var bad int
	s.presented, s.resign, bad = s.m.codec.Find(lines, s.m.cfg.Cookie.Name)
	s.m.engine.stats.badCookies.Add(uint64(max(bad, 0)))
}

// lockForChange is lockLoaded for a change; it reports false, and leaves s
// unlocked, if changes are refused.
func (s *Session) lockForChange() bool {
	s.lockLoaded()
	if s.rejectChangeLocked() {
		s.mu.Unlock()
		return false
	}
	return true
}

// rejectChangeLocked reports whether a change comes too late.
func (s *Session) rejectChangeLocked() bool {
	s.endedByReload = false
	if s.finished {
		if s.err == nil {
			s.err = ErrFinished
		}
		s.m.cfg.Logger.LogAttrs(s.r.Context(), slog.LevelError, "session: changed after its handler has returned, change dropped")
		return true
	}
	return s.err != nil || s.offline
}

// failLocked keeps the first error.
func (s *Session) failLocked(err error) {
	if s.err == nil {
		s.err = err
	}
}

// ID returns the session's ID, "" until there is a record. A renewal changes
// it when it is committed. Never log it.
func (s *Session) ID() string {
	s.lockLoaded()
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
	s.lockLoaded()
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
	s.lockLoaded()
	defer s.mu.Unlock()
	if s.renew {
		return time.Now()
	}
	return s.base.Renewed()
}

// IsNew reports whether there was no record when the request began.
func (s *Session) IsNew() bool {
	s.lockLoaded()
	defer s.mu.Unlock()
	return !s.existed
}

// Keys returns the names of the keys that have a value, in the record's order.
func (s *Session) Keys() []string {
	s.lockLoaded()
	defer s.mu.Unlock()
	d := s.base.Clone()
	for _, c := range s.changes {
		d.Set(c.name, c.value)
	}
	return d.Keys()
}

// getLocked returns the value of a key as JSON, nil if absent.
func (s *Session) getLocked(name string) []byte {
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

// putLocked records a change.
func (s *Session) putLocked(c change) {
	if s.id == "" && s.headerSent && s.taken == 0 { // else its creation is under way
		s.tooLateLocked("a new session")
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

// tooLateLocked refuses what would need a cookie that can no longer be sent.
func (s *Session) tooLateLocked(what string) {
	s.failLocked(&opError{what, ErrHeaderSent})
	s.m.cfg.Logger.LogAttrs(s.r.Context(), slog.LevelError, "session: not saved", slog.Any("error", s.err))
}

// Renew gives the session a new ID and keeps its data and expiry; the old ID
// is dead at once. Call it whenever a user's rights change, above all at login:
// an ID that an attacker had planted before is then worth nothing (session
// fixation). It happens when the session is committed. Without a record it does
// nothing, for a new session gets a new ID anyway; twice is once.
func (s *Session) Renew() {
	if !s.lockForChange() {
		return
	}
	defer s.mu.Unlock()
	switch {
	case s.id == "":
	case s.headerSent:
		s.tooLateLocked("Renew")
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
		s.rejectChangeLocked()
		return
	}
	if !s.loaded {
		if s.loading == nil {
			s.presentLocked()
		}
		s.id, s.existed = s.presented, s.presented != ""
		s.loaded = true
	}
	if s.id != "" {
		s.doomed = append(s.doomed, s.id)
		a := s.attributesLocked() // a browser drops only a cookie of the same domain and path
		s.expireAs = &a
	}
	s.epoch++
	s.forgetLocked()
}

// forgetLocked leaves s without a record.
func (s *Session) forgetLocked() {
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
	if !s.lockForChange() {
		return
	}
	defer s.mu.Unlock()
	if d > maxCookieLifetime {
		s.failLocked(invalid("SetIdleTimeout", "%v, and browsers keep a cookie for 400 days (9600h) at most", d))
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
	s.lockLoaded()
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
	rec, err := s.m.engine.fetch(lctx, id)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.epoch != epoch: // destroyed by this request itself
		return nil
	case errors.Is(err, ErrNotFound):
		s.endedByReload = s.err == nil && len(s.changes) == 0 && s.idle == nil && !s.renew
		s.forgetLocked()
		s.failLocked(&opError{"Reload", ErrDestroyed})
		return s.err
	case err != nil:
		return &opError{"Reload", err}
	}
	s.base, s.left, s.asOf, s.newborn = rec.Row, rec.left, rec.asOf, rec.newborn
	return s.replayLocked()
}

// replayLocked makes the changes again on a newer record. It unlocks s.mu while
// an application's function runs.
func (s *Session) replayLocked() error {
	for {
		base, pending, version := s.base, slices.Clone(s.changes), s.version
		err := s.unlocked(func() error { return rebase(base.Clone(), pending) })
		if err != nil {
			s.failLocked(err)
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
