package session_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/session"
)

// errStoreDown is what a failing store says.
var errStoreDown = errors.New("the test's store is down")

// storeCall is one call of a store: what it was asked, and what it answered.
type storeCall struct {
	op     string // the method's name
	id     string
	record session.Record // created, or loaded
	change session.Change
	ttl    time.Duration // of a touch
	query  session.Query
	found  []session.Found
	n      int64 // deleted, or peeked at
	peeked []session.Peeked
}

// hook stands around a call: it lets the call through with do, or not, before
// or after whatever it does itself, and its error is the answer.
type hook func(ctx context.Context, c *storeCall, do func() error) error

// hookedStore is a store whose calls are counted and can be intercepted. It
// hides everything beyond the Store interface; whole does not.
type hookedStore struct {
	session.Store

	mu    sync.Mutex
	hooks map[string]hook // by operation, "*" for all that have none
	calls []callTime
	ids   map[string]bool // every ID that a call named
}

type callTime struct {
	op string
	at time.Time
}

func newHookedStore() *hookedStore { return &hookedStore{Store: session.NewMemoryStore()} }

// on sets the hook of an operation, "*" for all that have none of their own;
// nil takes it away.
func (s *hookedStore) on(op string, h hook) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hooks == nil {
		s.hooks = make(map[string]hook)
	}
	s.hooks[op] = h
}

// fails is the hook of an operation that never gets to the store.
func fails(err error) hook {
	return func(context.Context, *storeCall, func() error) error { return err }
}

// fail makes the named operations fail and all others work. It also starts
// counting afresh.
func (s *hookedStore) fail(ops ...string) {
	s.mu.Lock()
	s.hooks, s.calls = nil, nil
	s.mu.Unlock()
	for _, op := range ops {
		s.on(op, fails(errStoreDown))
	}
}

// failingStore is a hooked store whose named operations fail.
func failingStore(ops ...string) *hookedStore {
	s := newHookedStore()
	s.fail(ops...)
	return s
}

// gate holds the one call of the named operations that is to come: reached says
// that it is there, and closing release lets it go on.
func (s *hookedStore) gate(ops ...string) (reached, release chan bool) {
	reached, release = make(chan bool), make(chan bool)
	for _, op := range ops {
		s.on(op, func(_ context.Context, _ *storeCall, do func() error) error {
			close(reached)
			<-release
			return do()
		})
	}
	return reached, release
}

// during runs f while op is under way, once, and lets op end after f.
func (s *hookedStore) during(op string, f func()) {
	var once sync.Once
	s.on(op, func(_ context.Context, _ *storeCall, do func() error) error {
		once.Do(f)
		return do()
	})
}

// took returns the calls since the last took, separated by spaces.
func (s *hookedStore) took() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ops []string
	for _, call := range s.calls {
		ops = append(ops, call.op)
	}
	s.calls = nil
	return strings.Join(ops, " ")
}

// count returns how often op was called, "" for all of them together.
func (s *hookedStore) count(op string) int { return len(s.times(op)) }

// times returns when op was called, "" for all of them together.
func (s *hookedStore) times(op string) (at []time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, call := range s.calls {
		if op == "" || op == call.op {
			at = append(at, call.at)
		}
	}
	return at
}

// remember adds session IDs that no call has named.
func (s *hookedStore) remember(ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ids == nil {
		s.ids = make(map[string]bool)
	}
	for _, id := range ids {
		if id != "" {
			s.ids[id] = true
		}
	}
}

// forget forgets the calls and the session IDs.
func (s *hookedStore) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids, s.calls = nil, nil
}

// named returns every session ID that a call named.
func (s *hookedStore) named() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.ids))
}

// live returns the data of every record that there is.
func (s *hookedStore) live(t testing.TB) map[string]string {
	t.Helper()
	records := make(map[string]string)
	for _, id := range s.named() {
		r, err := s.Store.Load(t.Context(), id)
		if err == nil {
			records[id] = string(r.Data)
		}
	}
	return records
}

func (s *hookedStore) call(ctx context.Context, c *storeCall, do func() error) error {
	s.remember(c.id, c.change.NewID)
	s.mu.Lock()
	s.calls = append(s.calls, callTime{c.op, time.Now()})
	h := s.hooks[c.op]
	if h == nil {
		h = s.hooks["*"]
	}
	s.mu.Unlock()
	if h == nil {
		return do()
	}
	return h(ctx, c, do)
}

func (s *hookedStore) Load(ctx context.Context, id string) (session.Record, error) {
	c := &storeCall{op: "Load", id: id}
	err := s.call(ctx, c, func() (err error) {
		c.record, err = s.Store.Load(ctx, id)
		return err
	})
	return c.record, err
}

func (s *hookedStore) Create(ctx context.Context, id string, r session.Record) error {
	return s.call(ctx, &storeCall{op: "Create", id: id, record: r}, func() error { return s.Store.Create(ctx, id, r) })
}

func (s *hookedStore) Update(ctx context.Context, id string, c session.Change) error {
	return s.call(ctx, &storeCall{op: "Update", id: id, change: c}, func() error { return s.Store.Update(ctx, id, c) })
}

func (s *hookedStore) Touch(ctx context.Context, id string, ttl time.Duration) error {
	return s.call(ctx, &storeCall{op: "Touch", id: id, ttl: ttl}, func() error { return s.Store.Touch(ctx, id, ttl) })
}

func (s *hookedStore) Delete(ctx context.Context, id string) error {
	return s.call(ctx, &storeCall{op: "Delete", id: id}, func() error { return s.Store.Delete(ctx, id) })
}

// whole returns the store with all that the one behind it can do: Finder, Pruner
// and Watcher, whose operations are hooked as well.
func (s *hookedStore) whole() session.Store {
	finder, finds := s.Store.(session.Finder)
	pruner, prunes := s.Store.(session.Pruner)
	watcher, watches := s.Store.(session.Watcher)
	switch {
	case finds && prunes && watches:
		return struct {
			*hookedStore
			session.Finder
			session.Pruner
			session.Watcher
		}{s, hookedFinder{finder, s}, hookedPruner{pruner, s}, hookedWatcher{watcher, s}}
	case finds && prunes:
		return struct {
			*hookedStore
			session.Finder
			session.Pruner
		}{s, hookedFinder{finder, s}, hookedPruner{pruner, s}}
	case finds:
		return struct {
			*hookedStore
			session.Finder
		}{s, hookedFinder{finder, s}}
	case prunes:
		return struct {
			*hookedStore
			session.Pruner
		}{s, hookedPruner{pruner, s}}
	}
	return s
}

type hookedFinder struct {
	session.Finder
	s *hookedStore
}

func (f hookedFinder) Find(ctx context.Context, q session.Query) ([]session.Found, error) {
	c := &storeCall{op: "Find", query: q}
	err := f.s.call(ctx, c, func() (err error) {
		c.found, err = f.Finder.Find(ctx, q)
		return err
	})
	return c.found, err
}

func (f hookedFinder) DeleteFound(ctx context.Context, q session.Query) (int64, error) {
	c := &storeCall{op: "DeleteFound", query: q}
	err := f.s.call(ctx, c, func() (err error) {
		c.n, err = f.Finder.DeleteFound(ctx, q)
		return err
	})
	return c.n, err
}

type hookedWatcher struct {
	session.Watcher
	s *hookedStore
}

func (w hookedWatcher) Peek(ctx context.Context, ids []string) ([]session.Peeked, error) {
	c := &storeCall{op: "Peek", n: int64(len(ids))}
	err := w.s.call(ctx, c, func() (err error) {
		c.peeked, err = w.Watcher.Peek(ctx, ids)
		return err
	})
	return c.peeked, err
}

type hookedPruner struct {
	session.Pruner
	s *hookedStore
}

func (p hookedPruner) Prune(ctx context.Context, within time.Duration) (int64, error) {
	c := &storeCall{op: "Prune", ttl: within}
	err := p.s.call(ctx, c, func() (err error) {
		c.n, err = p.Pruner.Prune(ctx, within)
		return err
	})
	return c.n, err
}

// ttl returns the time left of the only record.
func (s *hookedStore) ttl(t testing.TB) time.Duration {
	t.Helper()
	left := time.Duration(-1)
	for _, id := range s.named() {
		if r, err := s.Store.Load(t.Context(), id); err == nil {
			if left >= 0 {
				t.Fatal("got several records, want one")
			}
			left = r.TTL
		}
	}
	return left
}

// express does to the only record what Express would: change its text, move
// its expiry.
func (s *hookedStore) express(t testing.TB, ttl time.Duration, change func(string) string) {
	t.Helper()
	for id, data := range s.live(t) {
		c := session.Change{Old: []byte(data), New: []byte(change(data)), TTL: ttl, Shorten: true}
		if err := s.Store.Update(t.Context(), id, c); err != nil {
			t.Fatal(err)
		}
	}
}
