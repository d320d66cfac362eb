package session_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
)

// A page that is left open asks every minute, and its user is logged out all the same
// when the idle timeout has gone by since the last request that was the user's.
func TestSkipTouchKeepsNobodyLoggedIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		m := newManager(t, store, session.Config{IdleTimeout: time.Hour})
		b := login(t, m)
		pass(10 * time.Minute)
		wantResponse(t, "the user's", b.visit(readUser), 200, "set")
		store.took()
		for i := range 60 {
			pass(time.Minute)
			resp := b.visit(func(s *session.Session) {
				s.SkipTouch()
				if user, _ := userKey.Get(s); user != "ada" {
					t.Errorf("poll %d: got user %q, want ada", i, user)
				}
				if got, want := s.ExpiresIn(), time.Hour-time.Duration(i+1)*time.Minute; got != want {
					t.Errorf("poll %d: ExpiresIn: got %v, want %v", i, got, want)
				}
			})
			wantResponse(t, "poll", resp, 200, "nothing")
			wantCalls(t, "poll", store, "Load")
		}
		pass(1)
		if got := b.user(); got != "" {
			t.Errorf("after the idle timeout: got user %q, want nobody", got)
		}
	})
}

// What the polls have left to be done the user's next request does.
func TestSkipTouchIsMadeUpFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		b := login(t, newManager(t, store, session.Config{IdleTimeout: time.Hour}))
		pass(50 * time.Minute)
		b.visit(func(s *session.Session) { s.SkipTouch(); userKey.Get(s) })
		resp := b.visit(readUser)
		if got := store.ttl(t); got != time.Hour || resp.maxAge(t) != 3600 {
			t.Errorf("the user's next: got %v left, Max-Age %d, want 1h, 3600", got, resp.maxAge(t))
		}
	})
}

func TestSkipTouchBesideOtherCalls(t *testing.T) {
	const left = 30 * time.Minute // of an hour, so that a touch is due
	poll := func(rest func(*session.Session)) http.HandlerFunc {
		return func(_ http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			s.SkipTouch()
			rest(s)
		}
	}
	for _, c := range []struct {
		name   string
		serve  http.HandlerFunc
		left   time.Duration
		maxAge int // -1: no cookie
		calls  string
	}{
		{"nothing", poll(func(*session.Session) {}), left, -1, ""},
		{"a read", poll(readUser), left, -1, "Load"},
		{"after the read", func(_ http.ResponseWriter, r *http.Request) {
			readUser(session.From(r.Context()))
			session.From(r.Context()).SkipTouch()
		}, left, -1, "Load"},
		{"a save", poll(func(s *session.Session) { keyA.Set(s, "1") }), left, -1, "Load Update"},
		{"a save of what is there", poll(func(s *session.Session) { userKey.Set(s, "ada") }), left, -1, "Load Load"},
		{"Save", poll(func(s *session.Session) { keyA.Set(s, "1"); _ = s.Save(context.Background()) }), left, -1, "Load Update"},
		{"Save, nothing changed", poll(func(s *session.Session) { readUser(s); _ = s.Save(context.Background()) }), left, -1, "Load"},
		{"too late: after Save", func(_ http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			readUser(s)
			_ = s.Save(r.Context())
			s.SkipTouch()
		}, time.Hour - time.Minute, -1, "Load Touch"},
		{"Renew", poll(func(s *session.Session) { s.Renew() }), left, int(left / time.Second), "Load Update"},
		{"SetIdleTimeout, longer", poll(func(s *session.Session) { s.SetIdleTimeout(2 * time.Hour) }), 2 * time.Hour, 7200, "Load Update"},
		{"SetIdleTimeout, shorter", poll(func(s *session.Session) { s.SetIdleTimeout(time.Minute) }), time.Minute, 60, "Load Update"},
		{"first use after the first byte", func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			s.SkipTouch()
			_, _ = io.WriteString(w, "x")
			readUser(s)
		}, left, -1, "Load"},
		{"a save after the first byte", func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			_, _ = io.WriteString(w, "x")
			s.SkipTouch()
			keyA.Set(s, "1")
		}, left, -1, "Load Update"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newHookedStore()
				b := login(t, newManager(t, store, session.Config{IdleTimeout: time.Hour}))
				pass(time.Hour - left)
				store.took()
				resp := b.serve(c.serve)
				wantCalls(t, "the request", store, c.calls)
				if got := store.ttl(t); got != c.left || resp.maxAge(t) != c.maxAge || resp.status != 200 {
					t.Errorf("got %d, %v left, Max-Age %d, want 200, %v, %d", resp.status, got, resp.maxAge(t), c.left, c.maxAge)
				}
			})
		})
	}
}

// A request that only says that it is none of the user's uses no session.
func TestSkipTouchIsNoUse(t *testing.T) {
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{}))
	store.took()
	resp := b.visit(func(s *session.Session) { s.SkipTouch() })
	wantCalls(t, "SkipTouch", store, "")
	if vary := resp.header.Values("Vary"); len(vary) > 0 {
		t.Errorf("Vary: got %q, want none", vary)
	}
}

// What is no touch is done: a creation time for the absolute timeout, and a record with
// more time left than its own idle timeout allows is shortened.
func TestSkipTouchLeavesTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		m := newManager(t, store, session.Config{AbsoluteTimeout: 10 * time.Hour})
		b := seededRow(t, store, m, `{"cookie":{"originalMaxAge":600000},"user":"ada"}`, time.Hour)
		b.visit(func(s *session.Session) {
			s.SkipTouch()
			if got := s.ExpiresIn(); got != 10*time.Minute {
				t.Errorf("ExpiresIn: got %v, want 10m", got)
			}
		})
		if got := store.ttl(t); got != 10*time.Minute {
			t.Errorf("too long: got %v left, want 10m", got)
		}
		for _, row := range store.live(t) {
			if !strings.Contains(row, `"__created":`) {
				t.Error("got no creation time")
			}
		}
	})
}

// ExpiresIn says what the response then leaves: in each of these what the store has
// at the end.
func TestExpiresIn(t *testing.T) {
	none := func(*session.Session) {}
	for _, c := range []struct {
		name string
		cfg  session.Config
		age  time.Duration
		do   func(*session.Session)
	}{
		{"a touch that is not due", session.Config{}, 59 * time.Second, none},
		{"a touch that is due", session.Config{}, 2 * time.Minute, none},
		{"skipped", session.Config{}, 2 * time.Minute, (*session.Session).SkipTouch},
		{"a save", session.Config{}, 30 * time.Second, increment},
		{"a save with a touch", session.Config{}, time.Hour / 2, increment},
		{"Renew", session.Config{}, time.Hour / 2, (*session.Session).Renew},
		{"Renew, skipped", session.Config{}, time.Hour / 2, func(s *session.Session) { s.Renew(); s.SkipTouch() }},
		{"remembered", session.Config{}, time.Hour / 2, func(s *session.Session) { s.SetIdleTimeout(720 * time.Hour) }},
		{"shortened", session.Config{}, 0, func(s *session.Session) { s.SetIdleTimeout(time.Minute) }},
		{"shortened, saved", session.Config{}, 0, func(s *session.Session) { s.SetIdleTimeout(time.Minute); _ = s.Save(context.Background()) }},
		{"twice", session.Config{}, 0, func(s *session.Session) {
			s.SetIdleTimeout(time.Minute)
			_ = s.Save(context.Background())
			s.SetIdleTimeout(3 * time.Hour)
		}},
		{"the same timeout", session.Config{}, 30 * time.Second, func(s *session.Session) { s.SetIdleTimeout(time.Hour) }},
		{"back to the default", session.Config{}, time.Hour / 2, func(s *session.Session) { s.SetIdleTimeout(0) }},
		{"until the browser closes", session.Config{Cookie: session.CookieConfig{BrowserSession: true}}, time.Hour / 2, none},
		{"until the browser closes, remembered and not", session.Config{Cookie: session.CookieConfig{BrowserSession: true}}, time.Hour / 2, func(s *session.Session) {
			s.SetIdleTimeout(2 * time.Hour)
			_ = s.Save(context.Background())
			s.SetIdleTimeout(0)
		}},
		{"an absolute timeout", session.Config{AbsoluteTimeout: 80 * time.Minute}, time.Hour / 2, none},
		{"an absolute timeout, remembered", session.Config{AbsoluteTimeout: 80 * time.Minute}, time.Hour / 2, func(s *session.Session) { s.SetIdleTimeout(720 * time.Hour) }},
		{"left to the handler", session.Config{}, time.Hour / 2, (*session.Session).Detach},
		{"left to the handler, changed", session.Config{}, time.Hour / 2, func(s *session.Session) { s.SetIdleTimeout(720 * time.Hour); s.Detach() }},
		{"saved, with a touch", session.Config{}, time.Hour / 2, func(s *session.Session) { _ = s.Save(context.Background()) }},
		{"logged out", session.Config{}, time.Minute, (*session.Session).Destroy},
		{"logged out, and a new one", session.Config{}, time.Minute, func(s *session.Session) { s.Destroy(); keyA.Set(s, "1") }},
		{"logged out, and a new one of a minute", session.Config{}, time.Minute, func(s *session.Session) {
			s.Destroy()
			keyA.Set(s, "1")
			s.SetIdleTimeout(time.Minute)
		}},
		{"logged out, no new one", session.Config{}, time.Minute, func(s *session.Session) { s.Destroy(); s.SetIdleTimeout(time.Minute) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newHookedStore()
				c.cfg.IdleTimeout = time.Hour
				b := login(t, newManager(t, store, c.cfg))
				pass(c.age)
				var got time.Duration
				b.visit(func(s *session.Session) { readUser(s); c.do(s); got = s.ExpiresIn() })
				if want := max(0, store.ttl(t)); got != want {
					t.Errorf("got %v, want what the response leaves: %v", got, want)
				}
			})
		})
	}
}

func TestExpiresInWithoutASession(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	for name, b := range map[string]*browser{"no cookie": {m: m}, "a forged one": {m: m, cookie: "session=forged"}} {
		resp := b.visit(func(s *session.Session) {
			if got := s.ExpiresIn(); got != 0 {
				t.Errorf("%s: got %v, want 0", name, got)
			}
		})
		wantResponse(t, name, resp, 200, "nothing")
	}
	wantCalls(t, "both", store, "")
	b := login(t, m)
	store.fail("Load")
	b.visit(func(s *session.Session) {
		if got := s.ExpiresIn(); got != 0 || s.Err() == nil {
			t.Errorf("an outage: got %v, %v, want 0 and an error", got, s.Err())
		}
	})
	store.on("Load", nil)
	var after *session.Session
	b.visit(func(s *session.Session) { readUser(s); after = s })
	if got := after.ExpiresIn(); got <= 0 || got > session.DefaultIdleTimeout {
		t.Errorf("after the handler: got %v, want what is left", got)
	}
}

// After the first byte a touch comes without a cookie and goes an interval less far.
func TestExpiresInLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		b := login(t, newManager(t, store, session.Config{IdleTimeout: time.Hour}))
		pass(10 * time.Minute)
		var got time.Duration
		b.serve(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "x")
			got = session.From(r.Context()).ExpiresIn()
		})
		if want := store.ttl(t); got != want || got != time.Hour-session.DefaultTouchInterval {
			t.Errorf("got %v, want what the response leaves: %v, an interval short", got, want)
		}
	})
}

// A record with more time left than the absolute timeout allows ends by that.
func TestExpiresInOfARecordThatHasTooMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		b := login(t, newManager(t, store, session.Config{IdleTimeout: 24 * time.Hour}))
		pass(time.Minute)
		strict := b.with(newManager(t, store, session.Config{IdleTimeout: 24 * time.Hour, AbsoluteTimeout: time.Hour}))
		strict.visit(func(s *session.Session) {
			if got := s.ExpiresIn(); got != 59*time.Minute {
				t.Errorf("got %v, want 59m", got)
			}
		})
	})
}

// fewestAllocs is how many allocations f makes when no pool has dropped what it needs,
// as sync.Pool does at random with the race detector.
func fewestAllocs(f func()) float64 {
	fewest := testing.AllocsPerRun(1, f)
	for range 100 {
		fewest = min(fewest, testing.AllocsPerRun(1, f))
	}
	return fewest
}

func TestLifetimeAllocations(t *testing.T) {
	site := newSite(t)
	var w http.ResponseWriter = nullWriter{http.Header{}}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Cookie", site.login(t))
	measure := func(f func(*session.Session)) float64 {
		h := site.m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { f(session.From(r.Context())) }))
		return fewestAllocs(func() { h.ServeHTTP(w, r) })
	}
	read := measure(func(s *session.Session) { nameKey.Get(s) })
	site.m = newManager(t, site.store, session.Config{Secret: "for tests only: 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A", TouchInterval: 1}) // any read is to touch
	if got := measure(func(s *session.Session) { s.SkipTouch(); nameKey.Get(s); s.ExpiresIn() }); got > read {
		t.Errorf("got %v allocations, want the %v of a read", got, read)
	}
}
