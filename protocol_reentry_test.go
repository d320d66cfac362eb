package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
)

// protocolCalls are the calls of a session that its application's functions may
// make where they should not.
var protocolCalls = []struct {
	name    string
	changes bool // or commits, or reloads
	call    func(*session.Session)
	refused string // in a function of Key.Update: "always", or when it runs "first"
}{
	{"Get", false, readUser, ""},
	{"Get of the same key", false, func(s *session.Session) { countKey.Get(s) }, ""},
	{"ID", false, func(s *session.Session) { s.ID() }, ""},
	{"Handle", false, func(s *session.Session) { s.Handle() }, ""},
	{"Keys", false, func(s *session.Session) { s.Keys() }, ""},
	{"IsNew", false, func(s *session.Session) { s.IsNew() }, ""},
	{"CreatedAt", false, func(s *session.Session) { s.CreatedAt() }, ""},
	{"RenewedAt", false, func(s *session.Session) { s.RenewedAt() }, ""},
	{"Err", false, func(s *session.Session) { _ = s.Err() }, ""},
	{"Set", true, func(s *session.Session) { keyA.Set(s, "1") }, ""},
	{"Set of the same key", true, func(s *session.Session) { countKey.Set(s, 7) }, "first"},
	{"Delete", true, func(s *session.Session) { userKey.Delete(s) }, ""},
	{"Take", true, func(s *session.Session) { userKey.Take(s) }, ""},
	{"Update", true, func(s *session.Session) { keyB.Update(s, func(v string) string { return v + "x" }) }, ""},
	{"Update of the same key", true, increment, "first"},
	{"Update, then Reload", true, func(s *session.Session) {
		keyB.Update(s, func(v string) string { return v + "x" })
		_ = s.Reload(context.Background())
	}, "always"},
	{"Renew", true, renew, ""},
	{"SetIdleTimeout", true, func(s *session.Session) { s.SetIdleTimeout(time.Hour) }, ""},
	{"Destroy", true, destroy, ""},
	{"Save", true, func(s *session.Session) { _ = s.Save(context.Background()) }, "always"},
	{"Reload", true, func(s *session.Session) { _ = s.Reload(context.Background()) }, "always"},
}

// countAnew makes the next save merge: a request in another program counts meanwhile.
func countAnew(t *testing.T, store *hookedStore, b *browser) {
	other := b.with(newManager(t, struct{ session.Store }{store.Store}, session.Config{}))
	store.during("Update", func() { other.visit(increment) })
}

// A function of Key.Update that changes its own key, saves or reloads its session
// is an error at once; one that reads is none, and what it changes otherwise counts
// when it first runs and not when a merge runs it again. The session's queue is
// free for others.
func TestProtocolUpdateFunctionUsesTheSession(t *testing.T) {
	for _, c := range protocolCalls {
		for _, merge := range []bool{false, true} {
			t.Run(fmt.Sprint(c.name, ", in a merge ", merge), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := newHookedStore()
					m := newManager(t, store, session.Config{})
					b := login(t, m)
					runs, began := 0, time.Now()
					refused := c.refused == "always" || c.refused == "first" && !merge
					resp := b.visit(func(s *session.Session) {
						if merge {
							countAnew(t, store, b)
						}
						countKey.Update(s, func(n int) int {
							if runs++; !merge || runs > 1 {
								c.call(s)
							}
							return n + 1
						})
					})
					switch {
					case refused:
						wantResponse(t, "response", resp, 500, "nothing")
						b.wantUser(t, "ada")
					case !c.changes || merge:
						wantResponse(t, "response", resp, 200, "nothing")
						b.wantUser(t, "ada")
					case resp.status != 200:
						t.Errorf("response: got status %d, want 200", resp.status)
					}
					if took := time.Since(began); took >= session.DefaultStoreTimeout {
						t.Errorf("took %v, want less than StoreTimeout", took)
					}
					if merge && runs < 2 {
						t.Errorf("the function ran %d times, want it run by a merge", runs)
					}
					if resp := b.visit(increment); resp.status != 200 {
						t.Errorf("the next request: got status %d, want 200", resp.status)
					}
				})
			})
		}
	}
}

// impatient returns a manager for a request that waits out its StoreTimeout. What must
// go well is not asked of it: the machine may be busy.
func impatient(t *testing.T, store session.Store) *session.Manager {
	return newManager(t, store, session.Config{StoreTimeout: 100 * time.Millisecond})
}

// Such a function may let another goroutine do it, and wait for that: the request
// waits no longer than StoreTimeout.
func TestProtocolUpdateFunctionWaitsForAGoroutine(t *testing.T) {
	for _, c := range protocolCalls {
		for _, merge := range []bool{false, true} {
			t.Run(fmt.Sprint(c.name, ", in a merge ", merge), func(t *testing.T) {
				store := newHookedStore()
				m := newManager(t, store, session.Config{})
				b := login(t, m)
				b.m = impatient(t, store)
				runs := 0
				b.visit(func(s *session.Session) {
					if merge {
						countAnew(t, store, b)
					}
					countKey.Update(s, func(n int) int {
						if runs++; !merge || runs > 1 {
							var wg sync.WaitGroup
							wg.Go(func() { c.call(s) })
							wg.Wait()
						}
						return n + 1
					})
				})
				b.m = m
				store.on("Update", nil)
				wantResponse(t, "the next request", b.visit(increment), 200, "nothing")
			})
		}
	}
}

// A function that never returns the same twice ends, too.
func TestProtocolUpdateFunctionIsFickle(t *testing.T) {
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{}))
	fickle := func(s *session.Session) { countKey.Update(s, func(int) int { return rand.Int() }) }
	resp := b.visit(func(s *session.Session) {
		fickle(s)
		if err := s.Reload(context.Background()); err != nil {
			t.Errorf("Reload: got %v, want no error", err)
		}
		countAnew(t, store, b)
		fickle(s)
	})
	wantResponse(t, "response", resp, 200, "nothing")
}

// One that panics in a merge has saved nothing, and blocks nobody.
func TestProtocolUpdateFunctionPanics(t *testing.T) {
	for _, where := range []string{"at once", "in a merge", "in a merge by Save", "in a Reload"} {
		t.Run(where, func(t *testing.T) {
			store := newHookedStore()
			m := newManager(t, store, session.Config{})
			b := login(t, m)
			runs := 0
			p := b.begin()
			p.do(func(s *session.Session) {
				countAnew(t, store, b)
				countKey.Update(s, func(n int) int {
					if runs++; where == "at once" || runs > 1 {
						panic("the function")
					}
					return n + 100
				})
				switch where {
				case "in a merge by Save":
					_ = s.Save(context.Background())
				case "in a Reload":
					_ = s.Reload(context.Background())
				}
			})
			if resp := p.end(); resp.err == nil {
				t.Errorf("response: got status %d, complete, want the panic", resp.status)
			}
			store.on("Update", nil)
			wantResponse(t, "the next request", b.visit(increment), 200, "nothing")
			if got := counted(t, m, b.cookie); got > 2 {
				t.Errorf("count: got %d, want the others' alone", got)
			}
		})
	}
}

// meddler is a value whose encoding and decoding use a session.
type meddler struct{ N int }

// meddle is what they do.
var meddle atomic.Pointer[func()]

func meddleNow() {
	if do := meddle.Load(); do != nil {
		(*do)()
	}
}

func (m meddler) MarshalJSON() ([]byte, error) {
	meddleNow()
	return json.Marshal(m.N)
}

func (m *meddler) UnmarshalJSON(b []byte) error {
	meddleNow()
	return json.Unmarshal(b, &m.N)
}

const meddlerKey = session.Key[meddler]("count")

// A Marshaler or Unmarshaler that uses the session it is stored in blocks nobody,
// in whatever call of Key it is run, and in whatever run of it.
func TestProtocolMarshalerUsesTheSession(t *testing.T) {
	uses := []struct {
		name string
		use  func(*session.Session)
	}{
		{"Set", func(s *session.Session) { meddlerKey.Set(s, meddler{3}) }},
		{"Get", func(s *session.Session) { meddlerKey.Get(s) }},
		{"Take", func(s *session.Session) { meddlerKey.Take(s) }},
		{"Update", func(s *session.Session) { meddlerKey.Update(s, func(m meddler) meddler { return meddler{m.N + 1} }) }},
	}
	for _, u := range uses {
		for _, c := range protocolCalls {
			for _, merge := range []bool{false, true} {
				if merge && u.name != "Update" {
					continue
				}
				t.Run(fmt.Sprint(u.name, ", ", c.name, ", in a merge ", merge), func(t *testing.T) {
					store := newHookedStore()
					m := newManager(t, store, session.Config{})
					b := login(t, m)
					b.visit(increment)
					hasty := b.with(impatient(t, store))
					done := make(chan *response)
					go func() {
						done <- hasty.visit(func(s *session.Session) {
							do := func() { c.call(s) }
							if merge {
								countAnew(t, store, b)
								u.use(s)
								meddle.Store(&do)
								return
							}
							meddle.Store(&do)
							u.use(s)
						})
					}()
					within(t, done)
					meddle.Store(nil)
					store.on("Update", nil)
					wantResponse(t, "the next request", login(t, m).visit(increment), 200, "nothing")
				})
			}
		}
	}
}

// within waits for what must not hang.
func within[T any](t *testing.T, done <-chan T) (v T) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v = <-done:
	case <-timer.C:
		t.Fatalf("not done after %v", patience)
	}
	return v
}

// A store's method that uses the session it works for ends in an error at
// StoreTimeout at the latest, and blocks nobody.
func TestProtocolStoreUsesTheSession(t *testing.T) {
	uses := []struct {
		op  string
		use func(*session.Session)
	}{
		{"Load", readUser},
		{"Load", func(s *session.Session) { _ = s.Reload(context.Background()) }},
		{"Update", increment},
		{"Update", func(s *session.Session) { increment(s); _ = s.Save(context.Background()) }},
		{"Update", renew},
		{"Delete", destroy},
		{"Create", func(s *session.Session) { s.Destroy(); keyA.Set(s, "1") }},
		{"Touch", readUser},
	}
	for i, u := range uses {
		for _, c := range protocolCalls {
			t.Run(fmt.Sprint(u.op, i, ", ", c.name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := newHookedStore()
					m := newManager(t, store, session.Config{})
					b := login(t, m)
					if u.op == "Touch" {
						pass(2 * session.DefaultTouchInterval)
					}
					began, depth := time.Now(), 0
					p := b.begin()
					p.do(func(s *session.Session) {
						if i == 1 {
							readUser(s) // so that Reload loads
						}
						store.on(u.op, func(_ context.Context, _ *storeCall, do func() error) error {
							if depth++; depth == 1 {
								c.call(s)
							}
							return do()
						})
						u.use(s)
					})
					p.end()
					if took := time.Since(began); took > 3*session.DefaultStoreTimeout {
						t.Errorf("took %v, want StoreTimeout for each use of the store at most", took)
					}
					store.on(u.op, nil)
					wantResponse(t, "the next request", login(t, m).visit(increment), 200, "nothing")
				})
			})
		}
	}
}

// An ErrorHandler may use the session as it likes: nothing is done, and nobody
// waits.
func TestProtocolErrorHandlerUsesTheSession(t *testing.T) {
	for _, fault := range []string{"Load", "Update"} {
		for _, c := range protocolCalls {
			t.Run(fault+", "+c.name, func(t *testing.T) {
				store := newHookedStore()
				m := newManager(t, store, session.Config{ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
					c.call(session.From(r.Context()))
					if !errors.Is(err, errStoreDown) {
						t.Errorf("error: got %v, want the store's", err)
					}
					w.WriteHeader(http.StatusTeapot)
				}})
				b := login(t, m)
				store.took()
				store.on(fault, fails(errStoreDown))
				resp := b.visit(increment)
				calls := store.took()
				store.on(fault, nil)
				wantResponse(t, "response", resp, http.StatusTeapot, "nothing")
				if want := map[string]string{"Load": "Load", "Update": "Load Update"}[fault]; calls != want {
					t.Errorf("calls: got %q, want %q", calls, want)
				}
				b.wantUser(t, "ada")
				if got := counted(t, m, b.cookie); got != -1 {
					t.Errorf("count: got %d, want none", got)
				}
			})
		}
	}
}
