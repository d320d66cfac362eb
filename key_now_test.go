package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

func plusOne(n int) int { return n + 1 }

// drawn are the numbers that calls of UpdateNow have returned.
type drawn struct {
	mu      sync.Mutex
	numbers []int
}

func (d *drawn) draw(t *testing.T, s *session.Session) {
	n, err := countKey.UpdateNow(t.Context(), s, plusOne)
	if err != nil {
		t.Errorf("UpdateNow: got %v", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.numbers = append(d.numbers, n)
}

// want holds that the numbers are 1 to n, each once.
func (d *drawn) want(t *testing.T, n int) {
	t.Helper()
	slices.Sort(d.numbers)
	for i, got := range d.numbers {
		if got != i+1 {
			t.Fatalf("got the numbers %v, want 1 to %d, each once", d.numbers, n)
		}
	}
	if len(d.numbers) != n {
		t.Fatalf("got %d numbers, want %d", len(d.numbers), n)
	}
}

// atOnce runs f n times at once, each in a request of its own that has loaded the
// session before any of them goes on, on one program after the other.
func atOnce(t *testing.T, n int, managers []*session.Manager, cookie string, f func(*session.Session)) {
	t.Helper()
	var loaded, all sync.WaitGroup
	loaded.Add(n)
	for i := range n {
		all.Go(func() {
			resp := useSession(managers[i%len(managers)], cookie, func(s *session.Session) {
				countKey.Get(s)
				loaded.Done()
				loaded.Wait()
				f(s)
			})
			if resp.status != http.StatusOK {
				t.Errorf("got status %d, want 200", resp.status)
			}
		})
	}
	all.Wait()
}

// Requests that have all loaded the same session, in two programs, draw numbers; so
// do goroutines of one request beside each other.
func TestUpdateNowNumbersAreFinal(t *testing.T) {
	const requests = 16
	synctest.Test(t, func(t *testing.T) {
		store := session.NewMemoryStore()
		a, b := newManager(t, store, session.Config{DisablePrune: true}), newManager(t, store, session.Config{DisablePrune: true})
		cookie, _ := loginCounter(t, a)
		var d drawn
		atOnce(t, requests, []*session.Manager{a, b}, cookie, func(s *session.Session) {
			var beside sync.WaitGroup
			beside.Go(func() { d.draw(t, s) })
			d.draw(t, s)
			beside.Wait()
		})
		d.want(t, 2*requests)
		if got := counted(t, a, cookie); got != 2*requests {
			t.Errorf("got %d stored, want %d", got, 2*requests)
		}
	})
}

func TestPostgresUpdateNowNumbersAreFinal(t *testing.T) {
	const requests = 32
	for _, opts := range []session.PostgresOptions{{}, {DisableBatching: true}} {
		t.Run(fmt.Sprintf("without batching %t", opts.DisableBatching), func(t *testing.T) {
			pool := pgtest.Pool(t)
			a, b := patientManager(t, newStore(t, pool, opts)), patientManager(t, newStore(t, pool, opts))
			cookie, _ := loginCounter(t, a)
			var d drawn
			atOnce(t, requests, []*session.Manager{a, b}, cookie, func(s *session.Session) { d.draw(t, s) })
			d.want(t, requests)
			if got := counted(t, b, cookie); got != requests {
				t.Errorf("got %d stored, want %d", got, requests)
			}
		})
	}
}

// A second goroutine of the request draws its number while the function of the first
// still runs.
func TestUpdateNowBesideAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, session.NewMemoryStore(), session.Config{DisablePrune: true})
		cookie, _ := loginCounter(t, m)
		useSession(m, cookie, func(s *session.Session) {
			var d drawn
			var second sync.WaitGroup
			runs := 0
			n, err := countKey.UpdateNow(t.Context(), s, func(n int) int {
				if runs++; runs == 1 {
					second.Go(func() { d.draw(t, s) })
					synctest.Wait() // it has come as far as it can
				}
				return n + 1
			})
			second.Wait()
			if err != nil || n != 1 || len(d.numbers) != 1 || d.numbers[0] != 2 {
				t.Errorf("got %d, %v, then %v, want 1, then 2", n, err, d.numbers)
			}
		})
	})
}

// The first result is provisional; what Update and Get say is it, what UpdateNow
// returns is not.
func TestUpdateNowAfterAnother(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	cookie, _ := loginCounter(t, m)
	useSession(m, cookie, func(s *session.Session) {
		countKey.Get(s)
		useSession(newManager(t, store, session.Config{}), cookie, func(s *session.Session) { countKey.Set(s, 4) })
		if n, err := countKey.UpdateNow(t.Context(), s, plusOne); n != 5 || err != nil {
			t.Errorf("got %d, %v, want 5", n, err)
		}
	})
}

// An answer is lost, and before the program looks whether the number was stored
// another program draws the next: each has its own.
func TestUpdateNowLostAnswer(t *testing.T) {
	store := newHookedStore()
	m, other := newManager(t, store, session.Config{}), newManager(t, store, session.Config{})
	cookie, _ := loginCounter(t, m)
	var d drawn
	store.on("Update", func(_ context.Context, _ *storeCall, do func() error) error {
		store.on("Update", nil)
		if err := do(); err != nil {
			return err
		}
		useSession(other, cookie, func(s *session.Session) { d.draw(t, s) })
		return session.ErrUncertain
	})
	useSession(m, cookie, func(s *session.Session) { d.draw(t, s) })
	d.want(t, 2)
	if got := d.numbers; counted(t, m, cookie) != 2 {
		t.Errorf("got %v drawn and not 2 stored", got)
	}
}

// The function returns something else each time it runs, and its writes get no
// answer; what is returned is what is stored, or it is an error.
func TestUpdateNowFunctionOfChance(t *testing.T) {
	for _, tt := range []struct {
		name    string
		lost    []bool // of each write: it was not carried out, and nobody knows
		after   bool   // another program changes the session before it is looked at
		blurred bool   // which of two values it is cannot be told
	}{
		{name: "answered"},
		{name: "answer lost", lost: []bool{false}},
		{name: "write lost", lost: []bool{true}},
		{name: "answer lost, then changed", lost: []bool{false}, after: true},
		{name: "write lost, then the answer, then changed", lost: []bool{true, false}, after: true, blurred: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := newHookedStore()
			m, other := newManager(t, store, session.Config{}), newManager(t, store, session.Config{})
			cookie, _ := loginCounter(t, m)
			writes := 0
			store.on("Update", func(_ context.Context, _ *storeCall, do func() error) (err error) {
				if writes++; writes > len(tt.lost) {
					return do()
				}
				if !tt.lost[writes-1] {
					err = do()
					if tt.after {
						useSession(other, cookie, func(s *session.Session) { keyA.Set(s, "another's") })
					}
				}
				return errors.Join(err, session.ErrUncertain)
			})
			runs := 0
			n, err := 0, error(nil)
			useSession(m, cookie, func(s *session.Session) {
				n, err = countKey.UpdateNow(t.Context(), s, func(int) int { runs++; return 100 + runs })
			})
			store.on("Update", nil)
			switch stored := counted(t, m, cookie); {
			case tt.blurred && !errors.Is(err, session.ErrUncertain):
				t.Errorf("got %d, %v, want ErrUncertain", n, err)
			case !tt.blurred && (err != nil || n != stored):
				t.Errorf("got %d, %v, want %d, which is stored", n, err, stored)
			}
		})
	}
}

// Where nothing is stored, UpdateNow says so.
func TestUpdateNowErrors(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	for _, tt := range []struct {
		name string
		f    func(s *session.Session) error
		want error
	}{
		{"after Detach", func(s *session.Session) error {
			s.Detach()
			_, err := countKey.UpdateNow(t.Context(), s, plusOne)
			return err
		}, session.ErrInvalid},
		{"after a Destroy by another request", func(s *session.Session) error {
			id := s.ID()
			_ = store.Store.Delete(t.Context(), id)
			_, err := countKey.UpdateNow(t.Context(), s, plusOne)
			return err
		}, session.ErrDestroyed},
		{"inside of an Update", func(s *session.Session) (err error) {
			countKey.Update(s, func(n int) int {
				_, err = countKey.UpdateNow(t.Context(), s, plusOne)
				return n
			})
			return err
		}, session.ErrInvalid},
		{"Save inside of an Update", func(s *session.Session) (err error) {
			countKey.Update(s, func(n int) int {
				err = s.Save(t.Context())
				return n
			})
			return err
		}, session.ErrInvalid},
		{"of a reserved name", func(s *session.Session) error {
			_, err := session.Key[int]("cookie").UpdateNow(t.Context(), s, plusOne)
			return err
		}, session.ErrInvalid},
		{"of a value of another type", func(s *session.Session) error {
			keyA.Set(s, "text")
			_, err := session.Key[int](keyA).UpdateNow(t.Context(), s, plusOne)
			return err
		}, session.ErrInvalid},
	} {
		cookie, _ := loginCounter(t, m)
		useSession(m, cookie, func(s *session.Session) {
			if err := tt.f(s); !errors.Is(err, tt.want) {
				t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
			}
		})
	}
	store.fail("Update")
	cookie, _ := loginCounter(t, m)
	useSession(m, cookie, func(s *session.Session) {
		if n, err := countKey.UpdateNow(t.Context(), s, plusOne); !errors.Is(err, errStoreDown) || n != 0 {
			t.Errorf("store down: got %d, %v", n, err)
		}
	})
	// A wait that is cut leaves the commit to itself.
	store.fail()
	cookie, _ = loginCounter(t, m)
	reached, release := store.gate("Update")
	ctx, cancel := context.WithCancel(t.Context())
	useSession(m, cookie, func(s *session.Session) {
		go func() {
			<-reached
			cancel()
		}()
		if _, err := countKey.UpdateNow(ctx, s, plusOne); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: got %v", err)
		}
		close(release)
	})
	if got := counted(t, m, cookie); got != 1 {
		t.Errorf("cancelled: got %d stored, want 1", got)
	}
	// Without a record, a session is made.
	resp := useSession(m, "", func(s *session.Session) {
		if n, err := countKey.UpdateNow(t.Context(), s, plusOne); n != 1 || err != nil {
			t.Errorf("without a record: got %d, %v, want 1", n, err)
		}
	})
	wantResponse(t, "without a record", resp, 200, "set")
}

// It costs what Update and Save cost.
func TestUpdateNowStatements(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	cookie, _ := loginCounter(t, m)
	store.took()
	useSession(m, cookie, func(s *session.Session) { _, _ = countKey.UpdateNow(t.Context(), s, plusOne) })
	wantCalls(t, "UpdateNow", store, "Load Update")
	useSession(m, cookie, func(s *session.Session) {
		increment(s)
		_ = s.Save(t.Context())
	})
	wantCalls(t, "Update and Save", store, "Load Update")
}

func TestLookup(t *testing.T) {
	m := newManager(t, session.NewMemoryStore(), session.Config{})
	if s, ok := session.Lookup(t.Context()); ok || s != nil {
		t.Error("without a handler: got a session")
	}
	resp := ask(m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if s, ok := session.Lookup(r.Context()); !ok || s != session.From(r.Context()) {
			t.Error("in a handler: got none, or another one than From")
		}
	})), request("GET", ""))
	if resp.header.Get("Vary") != "" {
		t.Error("to look for a session is no use of it, and got Vary")
	}
}
