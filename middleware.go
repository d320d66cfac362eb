package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/gate"
)

// Manager loads and saves the sessions of an application. It is safe for
// concurrent use; one serves a whole program.
type Manager struct {
	cfg    Config
	store  Store
	keys   keys // SetSecrets replaces them
	engine engine
	name   any     // cookieName, ready to be looked up
	prefix any     // tokenPrefix; nil without Config.TokenPrefix
	device *device // nil unless Config.DeviceBound is set

	watcher watcher // of open streams
	domains domains

	warnProxy, warnPlain sync.Once

	warned sync.Map // what was warned about once: key names, and rounded
	late   seldom   // uses of a session whose handler had returned

	stopPrune context.CancelFunc
	pruned    chan struct{} // closed when the pruning goroutine has ended; nil without one
}

// Format shows no secret, whatever the verb.
func (*Manager) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "session.Manager") }

// Open is the short way: [ConfigFromEnv], [NewPostgresStore] with its defaults
// and [New]. It makes the table if it is missing and starts pruning. A database
// that is not there yet is waited for until ctx ends, for 30 seconds if that has
// no deadline. ctx bounds the setup only. The pool stays the caller's: Close the
// Manager first, then the pool.
func Open(ctx context.Context, pool *pgxpool.Pool) (*Manager, error) {
	cfg, err := ConfigFromEnv()
	if cfg.Secret != "" { // else that is said already
		full := cfg.withDefaults()
		err = errors.Join(err, full.check(true))
	}
	if err != nil { // before a table is made
		return nil, err
	}
	store, err := NewPostgresStore(ctx, pool, PostgresOptions{})
	if err != nil {
		return nil, err
	}
	return New(store, cfg)
}

// New returns a Manager over store, having logged the settings in effect, and
// starts its pruning goroutine unless cfg.DisablePrune is set or store is no
// [Pruner]. The error holds every fault of cfg at once.
func New(store Store, cfg Config) (*Manager, error) {
	cfg = cfg.withDefaults()
	err := cfg.check(worthForging(store))
	if store == nil {
		err = errors.Join(errors.New("session: store is nil: use NewPostgresStore or NewMemoryStore"), err)
	}
	if err = errors.Join(err, cfg.checkFinding(store), fitsExpress(store, &cfg)); err != nil {
		return nil, err
	}
	cfg.Logger = withRoutes(cfg.Logger)
	m := &Manager{cfg: cfg, store: store, name: cookieName(cfg.Cookie.Name), domains: newDomains(cfg.Cookie.Domains)}
	if cfg.TokenPrefix != "" {
		m.prefix = tokenPrefix(cfg.TokenPrefix)
	}
	m.engine.init(store, cfg.Logger, cfg.limits())
	m.engine.events = newEvents(cfg.OnEvent, cfg.Logger)
	if err := m.keys.use(&cfg, &m.engine.sealer); err != nil {
		return nil, err
	}
	m.watcher.engine, m.watcher.every, m.watcher.most = &m.engine, watchInterval, mostPeeked
	m.device = newDevice(&m.cfg, &m.engine, &m.keys)
	cfg.warn()
	m.logSettings()
	m.startPruning()
	return m, nil
}

// worthForging reports whether a store is for more than development and tests.
func worthForging(store Store) bool {
	_, memory := store.(*MemoryStore)
	return !memory
}

func (m *Manager) logSettings() {
	c := &m.cfg
	var store any = fmt.Sprintf("%T", m.store)
	if v, ok := m.store.(slog.LogValuer); ok {
		store = v
	}
	if !worthForging(m.store) {
		c.Logger.Warn("session: memory store: sessions end with this program, are not shared with others, and nothing bounds their number; use PostgreSQL in production")
	}
	c.Logger.Info("session: ready", slog.Any("store", store),
		"cookie", c.Cookie.Name, "format", c.Cookie.Format.String(),
		"secure", c.Cookie.Secure.String(), "sameSite", sameSiteName(c.Cookie.SameSite),
		"idleTimeoutMs", c.IdleTimeout.Milliseconds(), "absoluteTimeoutMs", c.AbsoluteTimeout.Milliseconds(),
		"touchIntervalMs", c.TouchInterval.Milliseconds(), "pruneIntervalMs", c.PruneInterval.Milliseconds(),
		"prune", !c.DisablePrune, "trustProxy", c.TrustProxy, "encrypt", c.Encrypt, "storeTimeoutMs", c.StoreTimeout.Milliseconds(),
		"oldSecrets", len(c.OldSecrets), "secretFingerprint", m.keys.signing.Load().current, "oldFingerprints", m.keys.signing.Load().old, "userKey", c.UserKey, "maxPerUser", c.MaxPerUser, "tokenPrefix", c.TokenPrefix,
		"deviceBoundMs", c.DeviceBound.Refresh.Milliseconds(), "requireBoundMs", c.DeviceBound.Require.Milliseconds())
}

// SetSecrets replaces [Config.Secret] and [Config.OldSecrets] in a running
// program: secret signs and seals from now on, and both it and old verify, open
// and find. What is not given counts no more. Cookies, encrypted data, the hashes
// that [Config.UserKey] is found by and what devices have to prove
// ([Config.DeviceBound]) follow at once; requests under way carry on with either.
//
// Where several programs share the sessions, all must have a secret among the
// old ones before the first makes it its own (docs/operations.md has the steps), so
//
//	cfg, err := session.ConfigFromEnv() // with SESSION_SECRET_FILE, SESSION_SECRET_OLD_FILE
//	if err == nil {
//		err = sessions.SetSecrets(cfg.Secret, cfg.OldSecrets...)
//	}
//
// on a signal does what a restart would. An error holds every fault, as that of
// [New], and changes nothing. SetSecrets is safe for concurrent use; of several
// calls the last counts, whole.
func (m *Manager) SetSecrets(secret string, old ...string) error {
	cfg := m.cfg
	cfg.Secret, cfg.OldSecrets = secret, old
	return m.keys.change(&cfg, worthForging(m.store), &m.engine.sealer)
}

// Close stops pruning after the batch under way, ends the streams that are open
// ([Session.Watch]), and waits for that and for [Config.OnEvent] to have heard what
// has happened so far, at most [Config.StoreTimeout]. Sessions keep working and the
// pool stays open. Further calls only wait.
func (m *Manager) Close() error {
	watching := m.watcher.close()
	if m.pruned != nil {
		m.stopPrune()
	}
	t := time.NewTimer(m.cfg.StoreTimeout)
	defer t.Stop()
	for _, under := range [...]struct {
		way   string
		ended <-chan struct{}
	}{{"pruning", m.pruned}, {"a look after open streams", watching}} {
		if under.ended == nil {
			continue
		}
		select {
		case <-under.ended:
		case <-t.C:
			return fmt.Errorf("session: Close: %s did not end within StoreTimeout", under.way)
		}
	}
	select {
	case <-m.engine.events.settled(): // those of the last pruning too
	case <-t.C:
		return errors.New("session: Close: Config.OnEvent did not come back within StoreTimeout")
	}
	return nil
}

// contextKey finds the innermost manager's session in a request's context; the
// *Manager itself is the key of its own.
type contextKey struct{}

// cookieName finds the manager of that cookie in a request's context, tokenPrefix
// that of such tokens.
type (
	cookieName  string
	tokenPrefix string
)

// From returns the session of the request that ctx belongs to, the innermost
// manager's where several are nested. It does no I/O: the session is loaded at
// its first use. It panics if no [Manager.Handler] is around the handler.
func From(ctx context.Context) *Session {
	s, ok := Lookup(ctx)
	if !ok {
		panic("session: From: no session in this context: wrap the handler with Manager.Handler, and give From the request's context (in Gin c.Request.Context())")
	}
	return s
}

// Lookup is [From] for code that also runs where no [Manager.Handler] is around:
// templates and error pages that public pages share, jobs, tests. There it returns
// false.
func Lookup(ctx context.Context) (*Session, bool) {
	s, ok := ctx.Value(contextKey{}).(*Session)
	return s, ok
}

// From is like the function From for this manager's session when several
// managers are nested.
func (m *Manager) From(ctx context.Context) *Session {
	s, ok := ctx.Value(m).(*Session)
	if !ok {
		panic("session: Manager.From: no session of this manager in this context: wrap the handler with its Handler, and give From the request's context (in Gin c.Request.Context())")
	}
	return s
}

// Handler returns a handler that gives next a session, found with [From]. A
// request that does not use it costs no statement and gets no header. With
// [Config.DeviceBound] it answers the browsers' proofs itself.
//
// The session is committed before the first byte of the response. If it cannot
// be loaded or saved, [Config.ErrorHandler] answers instead of next and nothing
// of what next writes is sent. Where that comes too late, because next has
// changed or first used the session after its first byte, the connection is
// aborted; over HTTP/1.1 a browser that already has the whole body, by its
// Content-Length, cannot see that, so change a session before a body is flushed
// to its end. A panic in next passes on and saves nothing that was not committed.
//
// A request that a browser makes on speculation, before its user has asked for the
// page (Sec-Purpose: prefetch), changes no session: where next would, the answer is
// 503 without [Config.ErrorHandler], nothing is saved, and the browser asks again when
// its user comes. Where next only reads, nothing is extended.
//
// Where the browser sends several cookies of the name, as from before a change of
// [CookieConfig].Domain, the first of at most eight whose session is alive counts;
// with [FormatExpress] the first cookie alone does, as there.
//
// Inside another Handler of the same manager, Handler just calls next. Inside one
// of another manager it panics if both use the same cookie name or the same
// [Config.TokenPrefix]: each would take the other's cookie or token for a forged one. Put [http.TimeoutHandler]
// outside of it.
func (m *Manager) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Context().Value(m) != nil {
			next.ServeHTTP(w, r)
			return
		}
		if r.Context().Value(m.name) != nil {
			panic("session: two nested Managers have the same cookie name: set Cookie.Name of one")
		}
		if m.prefix != nil && r.Context().Value(m.prefix) != nil {
			panic("session: two nested Managers have the same TokenPrefix: change that of one")
		}
		if m.device != nil && r.URL.Path == m.device.path {
			m.device.ServeHTTP(w, r)
			return
		}
		x := &exchange{Context: r.Context(), m: m, r: r, began: time.Now()}
		defer x.finish()
		x.gate.Serve(w, r.WithContext(x), next, x)
	})
}

// exchange is one request and its response, in one small allocation. It is the
// request's context.
type exchange struct {
	context.Context
	m     *Manager
	r     *http.Request
	began time.Time
	gate  gate.Gate

	mu       sync.Mutex
	session  *Session      // nil until asked for, as by most requests for public pages
	response responseState // for a session that is asked for later
}

// below is the context in which the session of a request works: what stores and
// loggers get. It is that of the request as it came to the Handler, so nobody finds
// the session in it, and it knows the route.
type below exchange

func (b *below) Value(key any) any {
	if key == any(routeKey{}) {
		return (*exchange)(b).route()
	}
	return b.Context.Value(key)
}

// Format keeps the session out of what a printed context shows.
func (*below) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "session.Context") }

func (x *exchange) below() context.Context { return (*below)(x) }

// route returns the pattern by which a ServeMux has found the handler, "" where that
// is not known: another router did, or one that was given a copy of the request. It is a
// part of the program, and never the path, which may hold a token. A ServeMux below
// the Handler writes it into the request that it gets; so while the handler runs only
// the goroutine that serves the request may look there.
//
// No lock of the session's may be held: finish takes x.mu first.
func (x *exchange) route() string {
	x.mu.Lock()
	over := x.response == finished
	x.mu.Unlock()
	if r := x.gate.Request(); r != nil && (over || gate.Serving()) && r.Pattern != "" {
		return r.Pattern
	}
	if x.r.Pattern == "" { // that of whoever is around it
		route, _ := x.Context.Value(routeKey{}).(string)
		return route
	}
	return x.r.Pattern
}

func (x *exchange) Value(key any) any {
	switch {
	case key == contextKey{} || key == any(x.m):
		return x.begin()
	case key == x.m.name || key == x.m.prefix:
		return x.m
	case key == any(routeKey{}):
		return x.route()
	}
	return x.Context.Value(key)
}

// begin returns the request's session.
func (x *exchange) begin() *Session {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.session == nil {
		speculative := isSpeculative(x.r.Header)
		x.session = &Session{m: x.m, x: x, began: x.began, response: x.response, speculative: speculative, skipTouch: speculative}
	}
	return x.session
}

// leaving notes that the header is about to leave, and returns the session if it
// was asked for, else nil.
func (x *exchange) leaving() *Session {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.response = max(x.response, headerSent)
	return x.session
}

func (x *exchange) finish() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.response = finished
	if x.session != nil {
		x.session.finish()
	}
}

// Format keeps the session out of what a printed context shows.
func (x *exchange) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "session.Context") }

// Commit implements [gate.Hooks].
func (x *exchange) Commit(w http.ResponseWriter, hijacked bool) error {
	s := x.leaving()
	if s == nil {
		return nil
	}
	if hijacked {
		s.headerGone()
	}
	if err := s.commit(moment{final: true, public: isPublic(w.Header())}); err != nil {
		return err
	}
	if hijacked {
		if err := s.madeForNobody(); err != nil {
			return err
		}
	} else {
		s.confirm()
	}
	s.addHeaders(w)
	return nil
}

// Answer implements [gate.Hooks].
func (x *exchange) Answer(w http.ResponseWriter, r *http.Request, err error) {
	s := x.session
	if errors.Is(err, errSpeculative) {
		s.closeIO()
		answerSpeculative(x.below(), w, x.m.cfg.Logger)
		return
	}
	if errors.Is(err, errBoth) {
		s.confirm()
		s.closeIO()
		s.addMadeCookie(w)
	}
	if s.m.device.answerUnproven(w, x.r, err) || answerBoth(w, err) {
		s.closeIO()
		return
	}
	level := levelOf(err)
	if errors.Is(err, ErrDestroyed) || errors.Is(err, ErrUnproven) {
		level = slog.LevelInfo
	}
	s.log(level, "session: request refused", err)
	if errors.Is(err, ErrInvalid) || errors.Is(err, ErrHeaderSent) || errors.Is(err, ErrConflict) { // the store works
		s.confirm()
	}
	s.closeIO()
	s.addMadeCookie(w)
	x.m.cfg.ErrorHandler(w, r, err)
}

// AnswerPlainly implements [gate.Hooks].
func (x *exchange) AnswerPlainly(w http.ResponseWriter, r *http.Request, err error) {
	answerError(w, r, err)
}

// Settle implements [gate.Hooks]. Whatever was not stored aborts the response.
func (x *exchange) Settle() error {
	s := x.leaving()
	if s == nil {
		return nil
	}
	known := s.Err()
	err := s.settle()
	if err != nil && !errors.Is(err, errSpeculative) && !(known != nil && errors.Is(err, ErrHeaderSent)) { // which was logged when it happened
		s.log(levelOf(err), "session: not saved after the first byte, response aborted", err)
	}
	return err
}

// Panicked implements [gate.Hooks].
func (x *exchange) Panicked(w http.ResponseWriter) {
	x.mu.Lock()
	s := x.session
	x.mu.Unlock()
	if s == nil {
		return
	}
	defer s.sendMadeCookie(w)     // also where the look panics
	held := s.lockSaving() == nil // a commit that is under way may make an ID
	s.finish()                    // and a later one may not: nobody would send it
	if held {
		s.unlockSaving()
	}
	if s.settleHanded() == nil {
		s.confirm()
	}
}
