package session_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/session"
)

// hookedStore is a store whose calls are counted and can be intercepted. It hides
// everything beyond the Store interface.
type hookedStore struct {
	session.Store

	load   func(id string, do func() (session.Record, error)) (session.Record, error)
	create func(ctx context.Context, id string, r session.Record, do func() error) error
	update func(ctx context.Context, id string, c session.Change, do func() error) error
	touch  func(id string, ttl time.Duration, do func() error) error
	remove func(id string, do func() error) error

	mu    sync.Mutex
	calls []string
	ids   map[string]bool // every ID that a call named
}

func newHookedStore() *hookedStore { return &hookedStore{Store: session.NewMemoryStore()} }

// ttl returns the time left of the only record.
func (s *hookedStore) ttl(t testing.TB) time.Duration {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	left := time.Duration(-1)
	for id := range s.ids {
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

func (s *hookedStore) note(call string, ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
	if s.ids == nil {
		s.ids = make(map[string]bool)
	}
	for _, id := range ids {
		s.ids[id] = true
	}
}

// took returns the calls since the last took, separated by spaces.
func (s *hookedStore) took() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := strings.Join(s.calls, " ")
	s.calls = nil
	return calls
}

// live returns the data of every record that there is.
func (s *hookedStore) live(t testing.TB) map[string]string {
	t.Helper()
	s.mu.Lock()
	ids := slices.Collect(maps.Keys(s.ids))
	s.mu.Unlock()
	records := make(map[string]string)
	for _, id := range ids {
		if id == "" {
			continue
		}
		r, err := s.Store.Load(t.Context(), id)
		if err == nil {
			records[id] = string(r.Data)
		}
	}
	return records
}

func (s *hookedStore) Load(ctx context.Context, id string) (session.Record, error) {
	s.note("Load", id)
	do := func() (session.Record, error) { return s.Store.Load(ctx, id) }
	if s.load != nil {
		return s.load(id, do)
	}
	return do()
}

func (s *hookedStore) Create(ctx context.Context, id string, r session.Record) error {
	s.note("Create", id)
	do := func() error { return s.Store.Create(ctx, id, r) }
	if s.create != nil {
		return s.create(ctx, id, r, do)
	}
	return do()
}

func (s *hookedStore) Update(ctx context.Context, id string, c session.Change) error {
	s.note("Update", id, c.NewID)
	do := func() error { return s.Store.Update(ctx, id, c) }
	if s.update != nil {
		return s.update(ctx, id, c, do)
	}
	return do()
}

func (s *hookedStore) Touch(ctx context.Context, id string, ttl time.Duration) error {
	s.note("Touch", id)
	do := func() error { return s.Store.Touch(ctx, id, ttl) }
	if s.touch != nil {
		return s.touch(id, ttl, do)
	}
	return do()
}

func (s *hookedStore) Delete(ctx context.Context, id string) error {
	s.note("Delete", id)
	do := func() error { return s.Store.Delete(ctx, id) }
	if s.remove != nil {
		return s.remove(id, do)
	}
	return do()
}
