package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgsession/session"
)

// Requests of one session at once, and goroutines of one request. Races are
// forced: handlers meet at barriers, or the store holds a call at a gate.

// overlapTrials is how often each race is run; the barriers force it every time.
const overlapTrials = 200

// Two requests of one session have both loaded it before either saves: they
// meet at a barrier between Get and Set.
func TestOverlappingRequestsKeepBothKeys(t *testing.T) {
	for _, managers := range []int{1, 2} {
		store := session.NewMemoryStore()
		var ms []*session.Manager
		for range managers {
			ms = append(ms, newManager(t, store, session.Config{StoreTimeout: time.Minute, DisablePrune: true}))
		}
		kept := 0
		for range overlapTrials {
			b := login(t, ms[0])
			var loaded, done sync.WaitGroup
			loaded.Add(2)
			for i, key := range []session.Key[string]{keyA, keyB} {
				done.Go(func() {
					resp := b.with(ms[i%managers]).visit(func(s *session.Session) {
						userKey.Get(s)
						loaded.Done()
						loaded.Wait()
						key.Set(s, "set")
					})
					wantResponse(t, "overlapping", resp, 200, "nothing")
				})
			}
			done.Wait()
			b.visit(func(s *session.Session) {
				_, a := keyA.Get(s)
				_, bb := keyB.Get(s)
				if a && bb {
					kept++
				}
			})
		}
		if kept != overlapTrials {
			t.Errorf("%d managers: got both keys in %d of %d trials, want all", managers, kept, overlapTrials)
		}
	}
}

// The slow request has loaded the session; then the session ends, in a request
// of its own that has returned; only then the slow one goes on.
func TestGoneStaysGone(t *testing.T) {
	ends := []struct {
		name string
		end  func(t *testing.T, b *browser, store *hookedStore, id string)
		left int // records afterwards
	}{
		{"logout", func(t *testing.T, b *browser, _ *hookedStore, _ string) {
			wantResponse(t, "logout", b.visit(func(s *session.Session) { s.Destroy() }), 200, "expired")
		}, 0},
		{"renewal", func(t *testing.T, b *browser, _ *hookedStore, _ string) {
			wantResponse(t, "renewal", b.visit(func(s *session.Session) { s.Renew() }), 200, "set")
		}, 1},
		{"expiry", func(t *testing.T, _ *browser, store *hookedStore, id string) {
			r, err := store.Store.Load(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if err := store.Store.Update(t.Context(), id, session.Change{Old: r.Data, New: r.Data, TTL: 1, Shorten: true}); err != nil {
				t.Fatal(err)
			}
			for !errors.Is(err, session.ErrNotFound) { // until the clock has moved
				_, err = store.Store.Load(t.Context(), id)
			}
		}, 0},
	}
	slow := []struct {
		name   string
		do     func(*session.Session)
		status int
	}{
		{"mutating", func(s *session.Session) { keyA.Set(s, "late") }, 409},
		{"updating", func(s *session.Session) { countKey.Update(s, func(n int) int { return n + 1 }) }, 409},
		{"renewing", func(s *session.Session) { s.Renew() }, 409},
		{"touching only", func(*session.Session) {}, 200},
	}
	for _, e := range ends {
		for _, w := range slow {
			t.Run(e.name+" during a "+w.name+" request", func(t *testing.T) {
				var down atomic.Bool // PostgreSQL cannot tell gone from changed
				store := newHookedStore()
				store.on("Update", func(_ context.Context, _ *storeCall, do func() error) error {
					err := do()
					if down.Load() && errors.Is(err, session.ErrNotFound) {
						return session.ErrConflict
					}
					return err
				})
				m := newManager(t, store, session.Config{TouchInterval: 1})
				dead := 0
				for trial := range overlapTrials {
					down.Store(trial%2 == 0)
					store.forget()
					b := login(t, m)
					id := b.id()
					slowOne, ender := b.with(m), b.with(m)
					store.took()
					resp := slowOne.visit(func(s *session.Session) {
						userKey.Get(s)
						e.end(t, ender, store, id)
						w.do(s)
					})
					wantResponse(t, "slow request", resp, w.status, "nothing")
					live := store.live(t)
					_, back := live[id]
					if !back && len(live) == e.left && b.user() == "" {
						dead++
					}
				}
				if dead != overlapTrials {
					t.Errorf("got %d of %d sessions dead, want all", dead, overlapTrials)
				}
			})
		}
	}
}

// 64 requests on 4 managers, like 4 programs, have all loaded the session
// before the first saves: they meet at a barrier after Update.
func TestOverlappingUpdatesAllCount(t *testing.T) {
	const requests = 64
	store := session.NewMemoryStore()
	var ms []*session.Manager
	for range 4 {
		ms = append(ms, newManager(t, store, session.Config{StoreTimeout: time.Minute, DisablePrune: true}))
	}
	b := login(t, ms[0])
	var loaded, done sync.WaitGroup
	loaded.Add(requests)
	for i := range requests {
		done.Go(func() {
			resp := b.with(ms[i%4]).visit(func(s *session.Session) {
				countKey.Update(s, func(n int) int { return n + 1 })
				loaded.Done()
				loaded.Wait()
			})
			wantResponse(t, "increment", resp, 200, "nothing")
		})
	}
	done.Wait()
	var conflicts uint64
	for _, m := range ms {
		conflicts += m.Stats().Conflicts
	}
	b.visit(func(s *session.Session) {
		if n, _ := countKey.Get(s); n != requests {
			t.Errorf("count: got %d, want %d", n, requests)
		}
	})
	// Of four first saves, three meet another program's; those behind them in the
	// same program need not.
	if conflicts < 3 {
		t.Errorf("conflicts: got %d, want at least 3, or the barrier did not hold", conflicts)
	}
}

func TestMergeIsPerKey(t *testing.T) {
	m := newManager(t, newHookedStore(), session.Config{})
	b := login(t, m)
	b.visit(func(s *session.Session) { keyA.Set(s, "0"); keyB.Set(s, "0") })
	b.visit(func(s *session.Session) {
		keyA.Set(s, "late")
		keyB.Delete(s)
		b.with(m).visit(func(s *session.Session) { // gets there first
			keyA.Set(s, "early")
			keyB.Set(s, "early")
			userKey.Delete(s)
			countKey.Set(s, 7)
		})
	})
	b.visit(func(s *session.Session) {
		a, _ := keyA.Get(s)
		n, _ := countKey.Get(s)
		if a != "late" || n != 7 {
			t.Errorf("got %q, %d, want late, 7", a, n)
		}
		if got, want := s.Keys(), []string{"a", "count"}; !slices.Equal(got, want) {
			t.Errorf("Keys: got %q, want %q", got, want)
		}
	})
}

func TestMergeOfAnUpdateThatNoLongerFits(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	b := login(t, m)
	resp := b.visit(func(s *session.Session) {
		countKey.Update(s, func(n int) int { return n + 1 })
		b.with(m).visit(func(s *session.Session) { session.Key[string]("count").Set(s, "seven") })
	})
	wantResponse(t, "not a number any more", resp, 500, "nothing")
	b.visit(func(s *session.Session) {
		if v, _ := session.Key[string]("count").Get(s); v != "seven" {
			t.Errorf("count: got %q, want it left alone", v)
		}
	})
}

// A store that never stops saying conflict: the save ends with StoreTimeout.
func TestConflictsEndWithStoreTimeout(t *testing.T) {
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{}))
	store.on("Update", fails(session.ErrConflict))
	wantResponse(t, "endless conflict", b.with(impatient(t, store)).visit(func(s *session.Session) { keyA.Set(s, "1") }), 503, "nothing")
}

func TestGoroutinesOfOneRequest(t *testing.T) {
	const n = 32
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	b := login(t, m)
	store.took()
	b.visit(func(s *session.Session) {
		var start, done sync.WaitGroup
		start.Add(n)
		for i := range n {
			done.Go(func() {
				start.Done()
				start.Wait()
				countKey.Update(s, func(n int) int { return n + 1 })
				session.Key[int](fmt.Sprintf("key%d", i)).Set(s, i)
				userKey.Get(s)
				s.Keys()
				_ = s.ID()
				_ = s.Err()
				if i%8 == 0 {
					_ = s.Save(context.Background())
				}
				if i%8 == 1 {
					_ = s.Reload(context.Background())
				}
			})
		}
		done.Wait()
		if got, _ := countKey.Get(s); got != n {
			t.Errorf("count in the request: got %d, want %d", got, n)
		}
	})
	b.visit(func(s *session.Session) {
		if got, _ := countKey.Get(s); got != n {
			t.Errorf("count: got %d, want %d", got, n)
		}
		if got := len(s.Keys()); got != n+2 {
			t.Errorf("Keys: got %d, want %d", got, n+2)
		}
	})
}

// One load for however many goroutines; the gate is in Load.
func TestGoroutinesShareOneLoad(t *testing.T) {
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{}))
	store.took()
	reached, release := store.gate("Load")
	b.visit(func(s *session.Session) {
		var done sync.WaitGroup
		for range 8 {
			done.Go(func() {
				if user, _ := userKey.Get(s); user != "ada" {
					t.Errorf("Get: got %q, want ada", user)
				}
			})
		}
		<-reached
		_ = s.Err() // never waits
		close(release)
		done.Wait()
	})
	wantCalls(t, "8 goroutines", store, "Load")
}
