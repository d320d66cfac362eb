package session_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
)

// An ID that Save has made is sent, or the Hijack that would leave it out fails and the
// error page sends it.
func TestHijackAfterSave(t *testing.T) {
	for _, known := range []bool{true, false} {
		for _, switched := range []bool{false, true} { // a WriteHeader(101) before sends it
			site := newSite(t)
			b := &browser{m: site.m}
			if known {
				b = login(t, site.m)
			}
			srv := startServer(t, "HTTP/1.1", site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				logIn("eve")(s)
				save(t)(s)
				if switched {
					w.WriteHeader(http.StatusSwitchingProtocols)
				}
				conn, rw, err := http.NewResponseController(w).Hijack()
				if !switched {
					if !errors.Is(err, session.ErrHeaderSent) {
						t.Errorf("Hijack: got %v, want ErrHeaderSent", err)
					}
					if err == nil {
						conn.Close()
					}
					return
				}
				if err != nil {
					t.Errorf("Hijack after WriteHeader(101): got %v, want no error", err)
					return
				}
				_ = answerHijacked(conn, rw)
			})))
			reply := srv.do(t, "GET", b.cookie)
			if got := strings.Join(reply.header.Values("Set-Cookie"), " "); !strings.Contains(got, "session=") {
				t.Errorf("known %t, switched %t: status %d, cookie %q, want it sent", known, switched, reply.status, got)
			} else {
				b.cookie, _, _ = strings.Cut(got, ";")
			}
			b.wantUser(t, "eve")
		}
	}
}

// Of a login clicked twice under MaxPerUser the browser keeps the cookie of the one that
// lives: the second by its time, or either of the two in the same millisecond.
func TestMaxPerUserAndTwoClicks(t *testing.T) {
	won := make(map[string]int)
	for range 64 {
		for _, gap := range []time.Duration{0, 5 * time.Millisecond} {
			synctest.Test(t, func(t *testing.T) {
				if winner := twoClicks(t, gap); gap == 0 {
					won[winner]++
				} else if winner != "second" {
					t.Errorf("clicks %v apart: got the %s as the one that lives, want the second", gap, winner)
				}
			})
		}
	}
	if won["first"] == 0 || won["second"] == 0 {
		t.Errorf("clicks in one millisecond: got %v, want each to have won once", won)
	}
}

// twoClicks logs ada in, and again a gap later, while the first login looks for sessions
// over the limit. The second's answer leaves first. It returns which of the two lives.
func twoClicks(t *testing.T, gap time.Duration) (winner string) {
	store := newHookedStore()
	m := newManager(t, store.whole(), session.Config{DisablePrune: true, UserKey: string(userKey), MaxPerUser: 1})
	first := &browser{m: m}
	first.visit(func(s *session.Session) { keyA.Set(s, "a cart") })
	second := first.with(m)
	var looked atomic.Bool
	store.on("Find", func(_ context.Context, _ *storeCall, do func() error) error {
		if !looked.Swap(true) {
			time.Sleep(gap)
			second.visit(logIn("ada"))
		}
		return do()
	})
	last := second
	if resp := first.visit(logIn("ada")); resp.setCookie() != "" {
		last = first
	}
	last.wantUser(t, "ada")
	winner = "second"
	if last == first {
		winner = "first"
	}
	if users := []string{first.user(), second.user()}; winner == "first" && users[1] != "" || winner == "second" && users[0] != "" {
		t.Errorf("the %s lives: got users %q, want one of the two logged in", winner, users)
	}
	return winner
}

// A login whose request has met, with a touch, that the session was renewed meanwhile
// begins one of its own, and the browser is told.
func TestLoginAfterATouchThatFoundNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, newHookedStore().whole(), session.Config{DisablePrune: true, UserKey: string(userKey)})
		b := login(t, m)
		time.Sleep(time.Hour) // a touch is due
		other := b.with(m)
		resp := b.visit(func(s *session.Session) {
			userKey.Get(s)
			other.visit(logIn("ada"))
			save(t)(s)
			logIn("ada")(s)
		})
		if resp.status != http.StatusOK || resp.setCookie() == "" {
			t.Fatalf("got status %d and cookie %q, want 200 and that of the session that was begun", resp.status, resp.setCookie())
		}
		b.wantUser(t, "ada")
		if b.id() == other.id() {
			t.Error("got the other login's session, want another")
		}
	})
}

// A handler may panic while a Save is under way that it no longer waits for: the ID that
// this makes is sent all the same.
func TestPanicWhileASaveIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		m := newManager(t, store, session.Config{DisablePrune: true})
		b := login(t, m)
		store.on("Update", func(_ context.Context, _ *storeCall, do func() error) error {
			time.Sleep(300 * time.Millisecond)
			return do()
		})
		resp := ask(recovering(m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			s.Renew()
			ctx, cancel := context.WithTimeout(r.Context(), 100*time.Millisecond)
			defer cancel()
			panic(s.Save(ctx))
		}))), request("POST", b.cookie))
		if b.cookie = resp.newCookie(); b.cookie == "" {
			t.Fatalf("got status %d and no cookie, want that of the renewed session", resp.status)
		}
		b.wantUser(t, "ada")
	})
}

// A Save that waits while the handler ends, or panics, saves or says that it has not.
func TestSaveThatWaitsWhileTheHandlerEnds(t *testing.T) {
	for name, change := range map[string]func(*session.Session){"set": func(s *session.Session) { keyA.Set(s, "dark") }, "destroy": destroy} {
		for _, panics := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				store := newHookedStore()
				m := newManager(t, store, session.Config{DisablePrune: true})
				b := login(t, m)
				store.on("Update", func(_ context.Context, _ *storeCall, do func() error) error {
					time.Sleep(100 * time.Millisecond)
					return do()
				})
				saved := make(chan error, 1)
				ask(recovering(m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					s := session.From(r.Context())
					countKey.Set(s, 1)
					if panics {
						go func() { _ = s.Save(context.Background()) }()
					}
					go func() {
						time.Sleep(50 * time.Millisecond) // the commit is under way
						change(s)
						saved <- s.Save(context.Background())
					}()
					if panics {
						time.Sleep(60 * time.Millisecond)
						panic("the handler's")
					}
				}))), request("POST", b.cookie))
				err := <-saved
				store.on("Update", nil)
				done := b.user() == ""
				if name == "set" {
					b.visit(func(s *session.Session) { v, _ := keyA.Get(s); done = v == "dark" })
				}
				if done != (err == nil) || err != nil && !errors.Is(err, session.ErrFinished) {
					t.Errorf("%s, panic %t: got %v, done %t, want nil where it is done, else ErrFinished", name, panics, err, done)
				}
			})
		}
	}
}

// Destroy deletes what has become of an ID that this request made, also where Reload or
// Save has said that another one renewed it meanwhile.
func TestDestroyAfterAnotherRenewal(t *testing.T) {
	eachProtocolStore(t, func(t *testing.T, store *hookedStore, open func(...func(*session.Config)) *session.Manager) {
		m := open()
		for _, how := range []string{"Reload", "Save and Detach"} {
			for _, known := range []bool{true, false} {
				b := &browser{m: m}
				if known {
					b = login(t, m)
				}
				tab := &browser{m: m}
				b.serve(func(w http.ResponseWriter, r *http.Request) {
					s := session.From(r.Context())
					logIn("ada")(s)
					_, _ = io.WriteString(w, "begun ")
					w.(http.Flusher).Flush()
					tab.cookie, _, _ = strings.Cut(w.Header().Get("Set-Cookie"), ";")
					tab.visit(renew)
					if how == "Reload" {
						_ = s.Reload(r.Context())
					} else {
						keyA.Set(s, "dark")
						_ = s.Save(context.Background())
						s.Detach()
					}
					s.Destroy()
				})
				if got := tab.user(); got != "" {
					t.Errorf("%s, known %t: got user %q, want the session ended", how, known, got)
				}
			}
		}
		store.wantRecords(t, 0)
	})
}

// A commit at the handler's return that panics sends an ID that a Save has made, and so does the
// answer to whoever asks for a token beside a cookie.
func TestMadeIDIsSentWhereTheReturnFails(t *testing.T) {
	t.Run("panic", func(t *testing.T) {
		store := newHookedStore()
		m := newManager(t, store, session.Config{DisablePrune: true})
		b := login(t, m)
		resp := ask(recovering(m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			s.Renew()
			save(t)(s)
			runs := 0
			countKey.Update(s, func(n int) int {
				if runs++; runs > 1 {
					panic("of the function")
				}
				return n + 1
			})
			var once sync.Once
			store.on("Update", func(_ context.Context, _ *storeCall, do func() error) error { // another program is first
				err := error(nil)
				once.Do(func() { err = session.ErrConflict })
				if err != nil {
					return err
				}
				return do()
			})
		}))), request("POST", b.cookie))
		store.on("Update", nil)
		if b.cookie = resp.newCookie(); b.cookie == "" {
			t.Fatalf("got status %d and no cookie", resp.status)
		}
		b.wantUser(t, "ada")
	})
	t.Run("a token beside a cookie", func(t *testing.T) {
		m := newManager(t, newHookedStore(), session.Config{DisablePrune: true, TokenPrefix: "t_"})
		b := login(t, m)
		b.visit(func(s *session.Session) {
			s.Renew()
			save(t)(s)
			s.UseToken()
		})
		b.wantUser(t, "ada")
	})
}

// Who deletes a record that is over its absolute timeout does not follow it to the
// session of whoever has logged in by it meanwhile.
func TestAbsoluteTimeoutFollowsNoMark(t *testing.T) {
	eachProtocolStore(t, func(t *testing.T, _ *hookedStore, open func(...func(*session.Config)) *session.Manager) {
		m := open(keyOfUser)
		b := login(t, m)
		old := b.id()
		b.visit(logIn("bob"))
		if err := m.DeleteTooOld(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		b.wantUser(t, "bob")
	})
}
