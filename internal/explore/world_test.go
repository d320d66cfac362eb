package explore_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/bearer"
	"github.com/pgsession/session/internal/explore"
	"github.com/pgsession/session/internal/seal"
)

// The configuration of every run. StoreTimeout is long, for time passes with
// every step.
const (
	secret       = "a secret of the explorer, long enough"
	oldSecret    = "an old secret of it, and long enough"
	idleTimeout  = 24 * time.Hour
	storeTimeout = time.Minute
	idleLong     = 30 * 24 * time.Hour
	idleShort    = 10 * time.Minute

	absoluteTimeout = 20 * time.Minute

	tokenPrefix = "explore_"
	untilExit   = 50 * 365 * 24 * time.Hour // of a browser; and a client keeps a token until another comes
)

// tokens opens what a client holds.
var tokens, _ = bearer.NewCodec([]string{secret, oldSecret}, tokenPrefix)

// The keys that the handlers use.
const (
	keyUser = session.Key[int]("user")
	keyX    = session.Key[string]("x")
	keyN    = session.Key[int]("n")
)

// lab is one worker's workbench: what many runs can share.
type lab struct {
	t        *testing.T
	store    *hook
	managers map[managerKey]*session.Manager
	starts   map[startKey]start
	secure   *ecdsa.PrivateKey // of the browser's device
	sealer   seal.Sealer
	stray    string       // a cookie of a session that is dead
	full     bool         // keep what only a comparison of runs needs
	key      bool         // keep what the systematic search compares
	outside  func() store // of every run, which is then outside of a bubble
}

// managerKey is what makes two managers differ; others in it are equal.
type managerKey struct {
	explore.Config
	old    bool // signs with the old secret
	second bool // another program's
}

// startKey is what makes the beginnings of two runs differ.
type startKey struct {
	setup                                explore.Setup
	encrypt, express, bound, token, exit bool
}

// start is what a setup puts into the table and the browser.
type start struct {
	id, cookie string
	data       []byte
	left       time.Duration // of record and cookie
	device     device
}

func newLab(t *testing.T) *lab {
	l := &lab{t: t, store: &hook{}, managers: map[managerKey]*session.Manager{}, starts: map[startKey]start{}}
	var err error
	if l.secure, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	if l.sealer, err = seal.New([]string{secret, oldSecret}, ""); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) { l.stray = l.prepare(t, explore.Fresh, managerKey{}).cookie })
	return l
}

// manager returns the manager that an actor meets.
func (l *lab) manager(c explore.Config, actor int) *session.Manager {
	return l.managerOf(managerKey{Config: c, second: c.Programs && actor%2 == 1})
}

func (l *lab) managerOf(k managerKey) *session.Manager {
	k.Domain = k.Domain || k.Stray
	k.Stray, k.Wrapped, k.Programs = false, false, false
	if m := l.managers[k]; m != nil {
		return m
	}
	cfg := session.Config{
		Secret: secret, OldSecrets: []string{oldSecret}, IdleTimeout: idleTimeout, StoreTimeout: storeTimeout,
		DisablePrune: true, UserKey: "user", Encrypt: k.Encrypt, Logger: slog.New(slog.DiscardHandler),
	}
	if k.old {
		cfg.Secret, cfg.OldSecrets = oldSecret, nil
	}
	if k.NoUserKey {
		cfg.UserKey = ""
	}
	if k.Express {
		cfg.Cookie = session.CookieConfig{Name: "session", Format: session.FormatExpress}
	}
	if k.Domain {
		cfg.Cookie.Domain = "example.com"
	}
	if k.Bound {
		cfg.Cookie.Secure = session.SecureAlways
		cfg.DeviceBound.Refresh = idleTimeout
	}
	if k.Token {
		cfg.TokenPrefix = tokenPrefix
	}
	cfg.Cookie.BrowserSession = k.Exit
	if k.Limited {
		cfg.MaxPerUser = 1
	}
	if k.Absolute {
		cfg.AbsoluteTimeout = absoluteTimeout
	}
	m, err := session.New(l.store, cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	l.managers[k] = m
	return m
}

// start returns what a script begins with. It is called in a bubble.
func (l *lab) start(s *explore.Script) start {
	k := startKey{s.Setup, s.Encrypt, s.Express, s.Bound, s.Token, s.Exit}
	begin, ok := l.starts[k]
	if !ok && s.Setup != explore.None {
		old := s.Setup == explore.OldSecret || s.Setup == explore.OldAged
		before, loses := *l.store, l.store.loses
		begin = l.prepare(l.t, s.Setup, managerKey{Config: explore.Config{Encrypt: s.Encrypt, Express: s.Express, Bound: s.Bound, Token: s.Token, Exit: s.Exit}, old: old})
		*l.store, l.store.loses = before, loses
		l.starts[k] = begin
	}
	return begin
}

// prepare lets the real handler make the session that a setup begins with.
func (l *lab) prepare(t *testing.T, setup explore.Setup, k managerKey) start {
	table := session.NewMemoryStore()
	l.store.Finder, l.store.Store = table, table
	w := &response{header: http.Header{}}
	l.managerOf(k).Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if k.Token {
			s.UseToken()
		}
		if setup != explore.Visitor {
			keyUser.Set(s, 1)
		}
		if setup != explore.Bare {
			keyX.Set(s, "light")
			keyN.Set(s, 1)
		}
		if setup == explore.Remember {
			s.SetIdleTimeout(idleLong)
		}
		s.Bind()
	})).ServeHTTP(w, request(t.Context()))
	value := readCookies(w.header)[0].value
	begin := start{cookie: value, id: idOf(value), left: idleTimeout, device: device{key: l.secure}}
	if k.Bound {
		begin.device.take(w.header)
		begin.device.learn(begin.device.prove(l.managerOf(k), request(t.Context(), value)))
		begin.device.confirm(l.managerOf(k), request(t.Context(), value))
	}
	switch setup {
	case explore.Aged, explore.OldAged:
		begin.left = time.Hour
	case explore.Remember:
		begin.left = idleLong - 24*time.Hour
	}
	rec, err := table.Load(t.Context(), begin.id)
	if err != nil {
		t.Fatal(err)
	}
	begin.data = rec.Data
	return begin
}

// run carries out a script. choose decides where the script has no more steps;
// without it whoever moved last goes on until it cannot, then the first who can.
func (l *lab) run(script *explore.Script, choose explore.Choose) (h *explore.History) {
	stuck := time.AfterFunc(time.Minute, func() { // real time: this is no bubble
		panic(fmt.Sprintf("explore: a goroutine neither ends nor waits, as for a mutex, in\n%s", script))
	})
	defer stuck.Stop()
	defer func() {
		if v := recover(); v != nil {
			if h == nil || len(h.Hung) == 0 {
				panic(v)
			}
			clear(l.managers) // the bubble ended with goroutines that hang
		}
	}()
	play := func(t *testing.T) {
		w := newWorld(l, t, script)
		h = w.history
		w.begin()
		w.play(choose)
		w.finish()
	}
	if l.outside != nil {
		play(l.t)
	} else {
		synctest.Test(l.t, play)
	}
	return h
}

// play lets the actors move, one at a time, until all have ended or hang.
func (w *world) play(choose explore.Choose) {
	last, wanted := 0, w.script.Steps
	for {
		ready := w.ready()
		if len(ready) == 0 {
			waiting := w.stage.Waiting()
			if len(waiting) == 0 {
				return
			}
			if !w.stage.PassTime(10 * storeTimeout) {
				w.history.Hung = waiting
				return
			}
			continue
		}
		actor := -1
		for actor < 0 && len(wanted) > 0 {
			if slices.Contains(ready, wanted[0]) {
				actor = wanted[0]
			}
			wanted = wanted[1:]
		}
		switch {
		case actor >= 0:
		case choose != nil:
			actor = choose(len(w.history.Steps), ready, w.state)
		case slices.Contains(ready, last):
			actor = last
		default:
			actor = ready[0]
		}
		w.step(actor)
		last = actor
	}
}

// ready returns who can move. So much time as the store may take at most passes
// only while nobody waits for its answer.
func (w *world) ready() (ready []int) {
	all := w.stage.Ready()
	for _, i := range all {
		waits := explore.Later(explore.Call(w.stage.Where(i))) > storeTimeout
		if !waits || !slices.ContainsFunc(all, func(j int) bool { return w.actors[j].storing }) {
			ready = append(ready, i)
		}
	}
	return ready
}

// step lets one actor move and notes what it did.
func (w *world) step(actor int) {
	h := w.history
	first := len(h.Events)
	if d := explore.Later(explore.Call(w.stage.Where(actor))); d > 0 {
		w.stage.Elapse(d)
		w.readTable() // without what has expired
	}
	if w.lab.outside != nil { // a moment passes with every step, for sessions are known by when they were made
		<-time.After(time.Millisecond)
	}
	w.stage.Let(actor)
	h.Steps = append(h.Steps, actor)
	h.Moves = append(h.Moves, explore.Move{First: first, Last: len(h.Events), Where: w.stage.Where(actor)})
}
