package session

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/pgsession/session/internal/cookie"
	"github.com/pgsession/session/internal/reentry"
	"github.com/pgsession/session/internal/row"
)

// Session is the session of one request, or one that [Manager.Edit] lets a function
// change. It is safe for concurrent use by the goroutines of that request; no lock is
// held while the store works.
//
// The first use loads the record. Where that fails the error sticks: every Get
// reports absence and the response is the error handler's. What is set later
// than the first byte of the response is saved when the handler returns. After
// that, reads see memory and changes are refused. A session that is first used
// then is empty, and where the request had a cookie Err is [ErrFinished].
//
// Where another request has renewed the session while this one was under way, or
// a few seconds before it began, a session that is first used after that reads as
// empty, and changes of it are [ErrRenewed] at the commit.
type Session struct {
	m     *Manager
	x     *exchange
	began time.Time

	calls reentry.Guard[call] // of functions of Key.Update

	mu       sync.Mutex    // locked by the methods called lockX, for those called xLocked
	loadDone chan struct{} // closed when the load under way has ended
	saved    chan struct{} // closed when the commit under way has ended; nil if nobody waits

	// Side by side they fill two words: a Session has 696 bytes, and with one word
	// more it would be allocated as one of 768.
	load      loadState
	response  responseState
	saving    bool // a commit or a Reload is under way: one at a time
	used      bool
	existed   bool // there was a record when the request began
	detached  bool
	extended  bool // the commit before the header has done what use asks for
	vanished  bool // the record was found gone when nothing depended on it
	skipTouch bool // the request is none of the user's

	speculative bool // nor has any user asked for it yet: it changes nothing
	declined    bool // and was to

	sought   bool // presented and token are known
	token    bool // the client brings a token, or is to get one, and no cookie
	byCookie bool // it has brought a cookie that verified

	marked     bool // none of those presented is live, and one was renewed within a mark's life
	superseded bool // that was while this request was under way

	presented []cookie.Signed // what the cookies or the token name, without what this request renewed itself
	device    deviceState
	edited    *edited // by Manager.Edit; nil in a request

	// What is stored, and what is not yet. These three point to values that
	// never change: whoever went away with one sees by the pointer whether it is
	// still what counts.
	rec      *view    // as of the last load or commit; nil without a record
	inflight *pending // what the commit under way carries; nil without one
	next     *pending // asked for since; nil if nothing was

	doomed []string // IDs whose records are to be deleted
	handed *handed  // nil but after SaveTx

	cookie        cookieState
	made          bool                // this request gave the record its ID
	alive         bool                // the last commit has found the record alive
	expireAs      []cookie.Attributes // those of the destroyed records
	err           error
	endedByReload bool // err is a Reload's, which had nothing to save

	watches *watches // nil until Watch is called

	// Room for the first of each, so that a usual request allocates no more.
	room struct {
		presented         [1]cookie.Signed
		loaded, committed view
		asked             pending
		change            [1]change
	}
	askedUsed, roomUsed bool
}

// lockLoaded locks s with its record loaded. The caller unlocks s.mu.
func (s *Session) lockLoaded(by use) {
	s.mu.Lock()
	s.used = true
	for s.load != loadedNow {
		switch {
		case s.response >= refused:
			s.load = loadedNow
			s.neverLoadedLocked(by)
		case s.load == loading:
			s.awaitLoadLocked()
		default:
			s.loadLocked()
		}
	}
}

// neverLoadedLocked says so where a session is first used too late to load it:
// its reads must not pass for those of a visitor without one.
func (s *Session) neverLoadedLocked(by use) {
	if s.presentLocked(); s.response == finished && len(s.presented) > 0 && s.err == nil {
		s.failLocked(&opError{"first use", ErrFinished})
		s.logLateLocked("session: first used after its handler has returned, nothing was loaded", by)
	}
}

// awaitLoadLocked waits for the goroutine that loads. It unlocks s.mu meanwhile.
// A store that uses the session it is to load would wait for itself; so nobody
// waits longer than a load may take.
func (s *Session) awaitLoadLocked() {
	under := s.loadDone
	s.mu.Unlock()
	t := time.NewTimer(s.m.cfg.StoreTimeout)
	defer t.Stop()
	late := false
	select {
	case <-under:
	case <-t.C:
		late = true
	}
	s.mu.Lock()
	if late && s.load == loading {
		s.load = loadedNow
		s.failLocked(&opError{"load", context.DeadlineExceeded})
	}
}

// loadLocked finds the record that the cookie names. It unlocks s.mu while the
// store works.
func (s *Session) loadLocked() {
	bad := s.presentLocked()
	if len(s.presented) == 0 {
		s.load = loadedNow
		if bad {
			s.warnUnverifiedLocked()
		}
		return
	}
	presented, token, done := s.presented, s.token, make(chan struct{})
	s.load, s.loadDone = loading, done
	s.mu.Unlock()
	defer close(done)
	returned := false
	defer func() {
		if !returned { // a store that panics has failed; nobody may wait for it
			s.mu.Lock()
			defer s.mu.Unlock()
			s.load = loadedNow
			s.failLocked(&opError{"load", errPanic})
		}
	}()
	which, rec, err := s.m.engine.loadFirst(s.x.below(), presented, token)
	device, err := s.m.device.admit(s.x.below(), s.x.r, &rec, s.began, err)
	returned = true
	s.mu.Lock()
	if s.load == loadedNow { // by a Destroy meanwhile, which needs no record
		return
	}
	s.load, s.device = loadedNow, device
	switch {
	case errors.Is(err, ErrNotFound):
		// The ID is never adopted, and its cookie is left alone: a parallel
		// login may just have replaced it.
		s.marked, s.superseded = errors.Is(err, ErrRenewed), renewedSince(s.began, rec, err)
	case err != nil:
		s.failLocked(&opError{"load", err})
	default:
		s.room.loaded = view{presented[which].ID, rec}
		s.rec, s.existed = &s.room.loaded, true
		if presented[which].Old && !s.speculative {
			s.cookie = cookieState{send: true, refreshOnly: true}
		}
	}
}

// presentLocked finds the session IDs in the request's cookies, or the one in its
// token. bad says, once, that a cookie or the token did not verify.
func (s *Session) presentLocked() (bad bool) {
	if s.sought {
		return false
	}
	s.sought = true
	if lines := s.x.r.Header["Cookie"]; len(lines) > 0 {
		var unverified int
		s.presented, unverified = s.m.keys.codec().Find(lines, s.m.cfg.Cookie.Name, s.room.presented[:0])
		s.m.engine.stats.badCookies.Add(uint64(max(unverified, 0)))
		s.byCookie, bad = len(s.presented) > 0, unverified > 0
	}
	lines := s.x.r.Header["Authorization"]
	tokens := s.m.keys.bearer()
	if len(lines) == 0 || tokens == nil {
		return bad
	}
	token, ours, several := tokens.Find(lines)
	switch {
	case !ours:
		return bad
	case several || s.byCookie:
		s.presented = nil
		s.failLocked(errBoth)
		return bad
	}
	s.token = true
	id, old, ok := tokens.Open(token)
	if !ok {
		s.m.engine.stats.badCookies.Add(1)
		return true
	}
	s.presented = append(s.room.presented[:0], cookie.Signed{ID: id, Old: old})
	return bad
}

// warnUnverifiedLocked says once, until the secrets change, that a cookie or token
// that could be one of ours does not verify. Whoever makes up more of them gets
// counted, and fills no log. It unlocks s.mu, as logUnlocked.
func (s *Session) warnUnverifiedLocked() {
	s.mu.Unlock()
	defer s.mu.Lock()
	k, r := s.m.keys.signing.Load(), s.x.r
	log, ctx := s.m.cfg.Logger, s.x.below()
	if !k.warnedCookie.Load() && k.codec.Formed(r.Header["Cookie"], s.m.cfg.Cookie.Name) && k.warnedCookie.CompareAndSwap(false, true) {
		log.LogAttrs(ctx, slog.LevelWarn, "session: a session cookie does not verify, and its user looks logged out: another program has another secret (compare the fingerprints), the secret was changed and the old one is not among the old secrets, or somebody tries one out; said once, Stats counts them in BadCookies", k.attrs()...)
	}
	if k.bearer == nil || k.warnedToken.Load() {
		return
	}
	if token, ours, _ := k.bearer.Find(r.Header["Authorization"]); ours && k.bearer.Formed(token) && k.warnedToken.CompareAndSwap(false, true) {
		log.LogAttrs(ctx, slog.LevelWarn, "session: a session token does not verify, and its client looks logged out: another program has another secret (compare the fingerprints) or Config.TokenPrefix, the secret was changed and the old one is not among the old secrets, or somebody tries one out; said once, Stats counts them in BadCookies", k.attrs()...)
	}
}

// lockForChange is lockLoaded for a change; it reports false, and leaves s
// unlocked, if changes are refused.
func (s *Session) lockForChange(by use) bool {
	s.lockLoaded(by)
	if s.rejectChangeLocked(by) {
		s.mu.Unlock()
		return false
	}
	return true
}

// rejectChangeLocked reports whether a change comes too late.
func (s *Session) rejectChangeLocked(by use) bool {
	s.endedByReload = false
	if s.calls.Inside(call.again) { // what the function changed when it ran first, counts
		return true
	}
	if s.response == finished {
		if s.err == nil {
			s.err = ErrFinished
		}
		s.logLateLocked("session: changed after its handler has returned, change dropped", by)
		return true
	}
	return s.declineLocked() || s.err != nil || s.response >= refused
}

// declineLocked declines the response if the request is one on speculation, and
// reports whether it is.
func (s *Session) declineLocked() bool {
	if s.speculative {
		s.declined = true
		s.failLocked(errSpeculative)
	}
	return s.speculative
}

// logUnlocked logs with s.mu unlocked, and locks it again: a logger may read the
// session. So it comes last in what is done under one lock.
func (s *Session) logUnlocked(level slog.Level, msg string, attrs ...slog.Attr) {
	s.mu.Unlock()
	defer s.mu.Lock()
	s.m.cfg.Logger.LogAttrs(s.x.below(), level, msg, attrs...)
}

// logLateLocked logs a use that came when the handler had returned: a mistake of the
// program's, which each request of the route repeats. So once a minute is enough. It
// unlocks s.mu, as logUnlocked.
func (s *Session) logLateLocked(msg string, by use) {
	s.mu.Unlock()
	defer s.mu.Lock()
	back, due := s.m.late.due(msg + " " + s.x.route() + " " + by.call + " " + by.key)
	if !due {
		return
	}
	attrs := by.attrs()
	if back > 0 {
		attrs = append(attrs, slog.Int("notLogged", back))
	}
	s.m.cfg.Logger.LogAttrs(s.x.below(), slog.LevelError, msg, attrs...)
}

// failLocked keeps the first error.
func (s *Session) failLocked(err error) {
	if s.err == nil {
		s.err = err
	}
}

func (s *Session) idLocked() string {
	if s.rec == nil {
		return ""
	}
	return s.rec.id
}

// getLocked returns the value of a key as JSON, nil if absent.
func (s *Session) getLocked(name string) []byte {
	for _, p := range [...]*pending{s.next, s.inflight} {
		if value, changed := p.value(name); changed || p.begins() {
			return value
		}
	}
	if s.rec == nil || row.Hidden(name) {
		return nil
	}
	return s.rec.Get(name)
}

// recordLocked returns the record whose session this is: none where the request has
// logged another user in, until that is stored.
func (s *Session) recordLocked() *view {
	if s.next.begins() || s.inflight.begins() {
		return nil
	}
	return s.rec
}

// putLocked records a change, also one to the value that is known: another request
// may have stored something else meanwhile.
func (s *Session) putLocked(c change) {
	if s.calls.Inside(func(under call) bool { return under.first() && under.key == c.name }) {
		s.failLocked(invalid(c.name, "a function of Key.Update changes its own key; let it return the value"))
		return
	}
	if s.rec == nil && c.value != nil && s.response >= headerSent && !s.inflight.creates() {
		s.tooLateLocked("a new session")
		return
	}
	renew := false
	if key := s.m.cfg.UserKey; key != "" && c.name == key {
		passage := passageOf(s.getLocked(key), c.value)
		// An ID that this request has made nobody can have planted.
		renew = passage == loggedIn && (s.rec != nil && !s.made || s.superseded) && !s.inflight.renews()
		switch {
		case passage == loggedOut:
			s.destroyLocked()
			return
		case (renew || passage == otherUser) && s.response >= headerSent:
			s.tooLateLocked("a login")
			return
		case passage == otherUser:
			s.next = freshFor(c)
			// A Bind is the browser's, not the user's: to lose it would be a session without.
			s.device = deviceState{unproven: s.device.unproven, offered: s.device.offered}
			if s.device.offered != "" {
				s.next = s.next.with(bindTo(s.device.offered))
			}
			return
		}
	}
	switch {
	case s.next == nil && !s.askedUsed:
		s.askedUsed, s.room.change = true, [1]change{c}
		s.room.asked = pending{changes: s.room.change[:], renew: renew}
		s.next = &s.room.asked
	case renew:
		s.next = s.next.with(c).withRenew()
	default:
		s.next = s.next.with(c)
	}
}

// tooLateLocked refuses what would need a cookie that can no longer be sent.
func (s *Session) tooLateLocked(what string) {
	s.failLocked(&opError{what, ErrHeaderSent})
	err := s.err
	s.logUnlocked(slog.LevelError, "session: not saved", slog.Any("error", err))
}

func (s *Session) destroyLocked() {
	known := s.load == loadedNow && s.err == nil && !s.superseded && !s.marked
	known = known && !s.device.unproven
	if s.load == unloaded {
		s.presentLocked()
	}
	if s.load != loadedNow {
		s.existed, s.load = len(s.presented) > 0, loadedNow
	}
	s.doomLocked(s.idLocked())
	if !known || s.othersLocked() {
		for _, p := range s.presented {
			s.doomLocked(p.ID)
		}
	}
	s.presented, s.superseded = s.presented[:0], false // a later Set begins anew
	s.forgetLocked()
	if !s.calls.Inside(func(c call) bool { return c.transact }) { // else the look finds it, once it is committed
		s.watches.end(ErrDestroyed)
	}
}

// doomLocked notes that the record of id is to be deleted.
func (s *Session) doomLocked(id string) {
	if id == "" || slices.Contains(s.doomed, id) {
		return
	}
	var a cookie.Attributes
	expires := len(s.expireAs) == 0 && !s.token
	if expires {
		a = s.attributesLocked() // first: it may unlock s
	}
	s.doomed = append(s.doomed, id)
	if expires {
		s.expireAs = append(s.expireAs, a) // a browser drops only a cookie of the same domain and path
		for _, wider := range s.m.domains.above(a.Domain) {
			b := a
			b.Domain = wider
			s.expireAs = append(s.expireAs, b)
		}
		if a.Domain != "" && s.othersLocked() {
			a.Domain = "" // from before Cookie.Domain was set
			s.expireAs = append(s.expireAs, a)
		}
	}
}

// othersLocked reports whether the request has come with a cookie of another session
// than its record's.
func (s *Session) othersLocked() bool {
	id := s.idLocked()
	return len(s.presented) > 1 || len(s.presented) == 1 && id != "" && s.presented[0].ID != id
}

// forgetLocked leaves s without a record.
func (s *Session) forgetLocked() {
	s.rec, s.inflight, s.next, s.made = nil, nil, nil, false
	s.cookie = cookieState{expire: s.cookie.expire}
}

// endedLocked leaves s without a record, which another request has ended or renewed. A
// Destroy that is still to come deletes what has become of it.
func (s *Session) endedLocked() {
	if s.rec != nil {
		s.presented = append(slices.Clone(s.presented), cookie.Signed{ID: s.rec.id})
	}
	s.forgetLocked()
}

// Err returns the first error of loading, changing or saving, nil if there was
// none. It sticks, as in [bufio.Writer]. Nobody has to look at it: a response
// whose session has an error is the error handler's, or cut off if it has begun.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
