package session_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/pgsession/session"
)

const (
	firstKey = session.Key[string]("first")
	otherKey = session.Key[string]("other")
)

// saveInLine logs in, lets the handlers use the session at once in requests of
// their own, the first of them ahead of the others, and returns their errors in
// that order. The first waits in Update until everybody behind it stands in
// line; meanwhile runs when it has written and all others wait.
func saveInLine(t *testing.T, meanwhile func(*hookedStore, *browser), handlers ...func(*session.Session)) (*hookedStore, *browser, []error) {
	t.Helper()
	store := newHookedStore()
	b := &browser{m: newManager(t, store, session.Config{DisablePrune: true})}
	b.visit(func(s *session.Session) { firstKey.Set(s, "login") })
	gate, exit, passed := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var updates atomic.Int64
	store.on("Update", func(_ context.Context, _ *storeCall, do func() error) error {
		if updates.Add(1) > 1 {
			return do()
		}
		<-gate
		err := do()
		close(passed)
		<-exit
		return err
	})
	errs := make([]error, len(handlers))
	var loaded, done sync.WaitGroup
	loaded.Add(len(handlers))
	ahead := make(chan struct{})
	for i, h := range handlers {
		done.Go(func() {
			b.with(b.m).visit(func(s *session.Session) {
				s.IsNew() // loads
				loaded.Done()
				loaded.Wait() // nobody saves before everybody has loaded
				h(s)
				if i > 0 {
					<-ahead
				}
				errs[i] = s.Save(context.Background())
			})
		})
	}
	synctest.Wait() // the first is at the gate
	close(ahead)
	synctest.Wait() // and the others are in line behind it
	close(gate)
	<-passed
	if meanwhile != nil {
		meanwhile(store, b)
	}
	close(exit)
	done.Wait()
	return store, b, errs
}

// 64 requests that have all loaded the session save one after the other, each on
// what the one before has written: one statement each.
func TestQueueOverlappingIncrements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const requests = 64
		var handlers []func(*session.Session)
		for range requests {
			handlers = append(handlers, increment)
		}
		store, b, errs := saveInLine(t, nil, handlers...)
		if err := errors.Join(errs...); err != nil {
			t.Errorf("saves: got %v, want no error", err)
		}
		if loads, updates := store.count("Load"), store.count("Update"); loads != requests || updates != requests {
			t.Errorf("store calls: got %d loads, %d updates, want %d each", loads, updates, requests)
		}
		if got := b.m.Stats().Conflicts; got != 0 {
			t.Errorf("conflicts: got %d, want 0", got)
		}
		var count int
		b.visit(func(s *session.Session) { count, _ = countKey.Get(s) })
		if count != requests {
			t.Errorf("count: got %d, want %d", count, requests)
		}
	})
}

// What happens to the record between two members of the line is found out as if
// the second had started from what it loaded.
func TestQueueRecordChangesBetweenTwo(t *testing.T) {
	set := func(key session.Key[string], value string) func(*session.Session) {
		return func(s *session.Session) { key.Set(s, value) }
	}
	destroy := func(_ *hookedStore, b *browser) { b.with(b.m).visit((*session.Session).Destroy) }
	// Another program, which does not stand in this one's line.
	elsewhere := func(h func(*session.Session)) func(*hookedStore, *browser) {
		return func(store *hookedStore, b *browser) {
			b.with(newManager(t, store.Store, session.Config{DisablePrune: true})).visit(h)
		}
	}
	for _, tc := range []struct {
		name          string
		first, second func(*session.Session)
		meanwhile     func(*hookedStore, *browser)
		want          error // of the second
		count         int   // this and the next two afterwards, if the session lives
		firstKey      string
		otherKey      string
		conflicts     uint64 // of this program's two
	}{
		{"nothing", increment, increment, nil, nil, 2, "login", "", 0},
		{"nothing, different keys", set(firstKey, "a"), set(otherKey, "b"), nil, nil, 0, "a", "b", 0},
		{"nothing, the same value", set(firstKey, "a"), set(firstKey, "a"), nil, nil, 0, "a", "", 1},
		{"nothing, one deletes", set(otherKey, "a"), firstKey.Delete, nil, nil, 0, "", "a", 0},
		{"another program saves", increment, increment, elsewhere(increment), nil, 3, "login", "", 1},
		{"another program sets another key", increment, increment, elsewhere(set(otherKey, "b")), nil, 2, "login", "b", 1},
		{"destroyed", increment, increment, destroy, session.ErrDestroyed, 0, "", "", 0},
		{"destroyed, the same value", set(firstKey, "a"), set(firstKey, "a"), destroy, session.ErrDestroyed, 0, "", "", 0},
		{"destroyed elsewhere", increment, increment, elsewhere((*session.Session).Destroy), session.ErrDestroyed, 0, "", "", 0},
		{"renewed elsewhere", increment, increment, elsewhere((*session.Session).Renew), session.ErrDestroyed, 0, "", "", 0},
		{"renewed by the first", func(s *session.Session) { s.Renew(); increment(s) }, increment, nil, session.ErrDestroyed, 0, "", "", 0},
		{"both renew", (*session.Session).Renew, (*session.Session).Renew, nil, session.ErrDestroyed, 0, "", "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, b, errs := saveInLine(t, tc.meanwhile, tc.first, tc.second)
				if errs[0] != nil {
					t.Errorf("first save: got %v, want no error", errs[0])
				}
				if !errors.Is(errs[1], tc.want) {
					t.Errorf("second save: got %v, want %v", errs[1], tc.want)
				}
				if got := b.m.Stats().Conflicts; got != tc.conflicts {
					t.Errorf("conflicts: got %d, want %d", got, tc.conflicts)
				}
				b.visit(func(s *session.Session) {
					if gone := s.IsNew(); gone != (tc.want != nil) {
						t.Errorf("session gone: got %t, want %t", gone, tc.want != nil)
					}
					count, _ := countKey.Get(s)
					first, _ := firstKey.Get(s)
					other, _ := otherKey.Get(s)
					if count != tc.count || first != tc.firstKey || other != tc.otherKey {
						t.Errorf("keys: got %d, %q, %q, want %d, %q, %q", count, first, other, tc.count, tc.firstKey, tc.otherKey)
					}
				})
			})
		})
	}
}

// A member that fails or gives up leaves the line as it was.
func TestQueueAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tooMuch := func(s *session.Session) { otherKey.Set(s, string(make([]byte, session.DefaultMaxBytes))) }
		_, b, errs := saveInLine(t, nil, increment, tooMuch, increment)
		if errs[0] != nil || !errors.Is(errs[1], session.ErrInvalid) || errs[2] != nil {
			t.Errorf("saves: got %v, want the second alone to be ErrInvalid", errs)
		}
		b.visit(func(s *session.Session) {
			if n, _ := countKey.Get(s); n != 2 {
				t.Errorf("count: got %d, want 2", n)
			}
		})
	})
}
