package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
)

// How long a session lives, by the clock of a testing/synctest bubble. pass
// lets time go by.

func unchanged(s string) string { return s }

func readUser(s *session.Session) { userKey.Get(s) }

func TestIdleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		b := login(t, newManager(t, store, session.Config{IdleTimeout: time.Hour}))
		for range 10 { // each visit counts anew
			pass(time.Hour)
			if got := b.with(b.m).user(); got != "ada" {
				t.Fatalf("after exactly the idle timeout: got user %q, want ada", got)
			}
		}
		pass(time.Hour + 1)
		store.took()
		if got := b.user(); got != "" {
			t.Errorf("after more than the idle timeout: got user %q, want nobody", got)
		}
		wantCalls(t, "expired", store, "Load")
	})
}

// The record is there still when it is refused: only pruning deletes it.
func TestExpiredIsRefusedBeforePruned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := session.NewMemoryStore()
		m := newManager(t, store, session.Config{DisablePrune: true})
		b := login(t, m)
		pass(session.DefaultIdleTimeout + 1)
		resp := b.visit(func(s *session.Session) {
			if _, ok := userKey.Get(s); ok || !s.IsNew() {
				t.Error("got the expired session, want none")
			}
		})
		wantResponse(t, "expired", resp, 200, "nothing")
		if n, err := m.Prune(t.Context()); n != 1 || err != nil {
			t.Errorf("Prune: got %d, %v, want 1, no error", n, err)
		}
		if n := m.Stats().Pruned; n != 1 {
			t.Errorf("Stats.Pruned: got %d, want 1", n)
		}
	})
}

func TestTouchAtMostOncePerInterval(t *testing.T) {
	for _, c := range []struct {
		name     string
		idle     time.Duration
		interval time.Duration // of Config
		every    time.Duration // a visit
		visits   int
		touches  int
	}{
		{"default interval", 24 * time.Hour, 0, 10 * time.Second, 60, 10},
		{"a tenth of a short idle timeout", time.Minute, 0, time.Second, 60, 10},
		{"own interval", time.Hour, 10 * time.Minute, time.Minute, 60, 6},
		{"visits rarer than the interval", time.Hour, time.Minute, 5 * time.Minute, 12, 12},
		{"visits at once", time.Hour, time.Minute, 0, 50, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newHookedStore()
				m := newManager(t, store, session.Config{IdleTimeout: c.idle, TouchInterval: c.interval})
				b := login(t, m)
				store.on("Touch", func(_ context.Context, c *storeCall, do func() error) error {
					before := store.ttl(t)
					err := do()
					if after := store.ttl(t); after < before || after != c.ttl {
						t.Errorf("touch: got %v left after %v, want %v", after, before, c.ttl)
					}
					return err
				})
				cookies := 0
				for range c.visits {
					pass(c.every)
					resp := b.visit(readUser)
					if resp.sent() == "nothing" {
						continue
					}
					cookies++
					// The cookie moves with the record.
					if got, want := resp.maxAge(t), int(store.ttl(t)/time.Second); got != want {
						t.Errorf("Max-Age: got %d, want %d", got, want)
					}
				}
				if got := int(m.Stats().Touches); got != c.touches || cookies != c.touches {
					t.Errorf("got %d touches, %d cookies, want %d of each", got, cookies, c.touches)
				}
				if saves := m.Stats().Saves; saves != 0 {
					t.Errorf("got %d saves, want none: a touch leaves the data alone", saves)
				}
			})
		})
	}
}

// A request that began early and touches late does not move the expiry back.
func TestTouchNeverBackwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		m := newManager(t, store, session.Config{IdleTimeout: time.Hour})
		b := login(t, m)
		pass(30 * time.Minute)
		resp := b.visit(func(s *session.Session) {
			userKey.Get(s) // and a touch is due
			b.visit(func(s *session.Session) { s.SetIdleTimeout(5 * time.Hour) })
		})
		wantResponse(t, "touch", resp, 200, "set")
		if got, want := store.ttl(t), 5*time.Hour; got != want {
			t.Errorf("time left: got %v, want %v", got, want)
		}
		wantResponse(t, "save", b.visit(func(s *session.Session) { keyA.Set(s, "1") }), 200, "nothing")
		if got, want := store.ttl(t), 5*time.Hour; got != want {
			t.Errorf("time left after a save: got %v, want %v", got, want)
		}
	})
}

// A save leaves the expiry alone unless a touch is due, and then moves it in the
// same step.
func TestSaveTouchesWhenDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		b := login(t, newManager(t, store, session.Config{IdleTimeout: time.Hour}))
		store.took()
		pass(59 * time.Second)
		resp := b.visit(func(s *session.Session) { keyA.Set(s, "1") })
		wantResponse(t, "not due", resp, 200, "nothing")
		if got, want := store.ttl(t), time.Hour-59*time.Second; got != want {
			t.Errorf("not due: got %v left, want %v", got, want)
		}
		pass(time.Second)
		resp = b.visit(func(s *session.Session) { keyA.Set(s, "2") })
		if got := store.ttl(t); got != time.Hour || resp.maxAge(t) != 3600 {
			t.Errorf("due: got %v left, Max-Age %d, want 1h, 3600", got, resp.maxAge(t))
		}
		wantCalls(t, "both", store, "Load Update Load Update")
		for _, row := range store.live(t) {
			want := `"expires":"2000-01-01T01:01:00.000Z"`
			if !strings.Contains(row, want) {
				t.Errorf("record: got no %s", want)
			}
		}
	})
}

func TestAbsoluteTimeout(t *testing.T) {
	const absolute = 3 * time.Hour
	for _, c := range []struct {
		name string
		do   func(*testing.T, *browser, *hookedStore) // every 10 minutes
	}{
		{"touches", func(_ *testing.T, b *browser, _ *hookedStore) { b.visit(readUser) }},
		{"saves", func(_ *testing.T, b *browser, _ *hookedStore) {
			b.visit(func(s *session.Session) { countKey.Update(s, func(n int) int { return n + 1 }) })
		}},
		{"renewals", func(_ *testing.T, b *browser, _ *hookedStore) {
			b.visit(func(s *session.Session) { s.Renew() })
		}},
		{"idle timeouts of its own", func(_ *testing.T, b *browser, _ *hookedStore) {
			b.visit(func(s *session.Session) { s.SetIdleTimeout(48 * time.Hour) })
		}},
		{"touches by Express", func(t *testing.T, _ *browser, store *hookedStore) {
			store.express(t, 24*time.Hour, unchanged)
		}},
		{"saves by Express", func(t *testing.T, b *browser, store *hookedStore) {
			b.visit(readUser)
			store.express(t, 24*time.Hour, func(row string) string { return strings.Replace(row, `"user"`, ` "user"`, 1) })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newHookedStore()
				m := newManager(t, store, session.Config{IdleTimeout: time.Hour, AbsoluteTimeout: absolute})
				b := login(t, m)
				start := time.Now()
				for time.Since(start) < absolute-10*time.Minute {
					pass(10 * time.Minute)
					c.do(t, b, store)
					if store.ttl(t) < 0 {
						t.Fatalf("after %v: got no record, want it to live for 3h", time.Since(start))
					}
				}
				pass(time.Until(start.Add(absolute - 1)))
				if got := b.with(m).user(); got != "ada" {
					t.Errorf("just before: got user %q, want ada", got)
				}
				pass(1)
				store.took()
				if got := b.user(); got != "" {
					t.Errorf("at the absolute timeout: got user %q, want nobody", got)
				}
				if n := len(store.live(t)); n != 0 {
					t.Errorf("got %d live records, want none: Express would go on with it", n)
				}
			})
		})
	}
}

func TestAbsoluteTimeoutBoundsExpiryAndCookie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		m := newManager(t, store, session.Config{IdleTimeout: 24 * time.Hour, AbsoluteTimeout: 2 * time.Hour})
		b := &browser{m: m}
		resp := b.visit(func(s *session.Session) { userKey.Set(s, "ada") })
		if got := store.ttl(t); got != 2*time.Hour || resp.maxAge(t) != 7200 {
			t.Errorf("new: got %v left, Max-Age %d, want 2h, 7200", got, resp.maxAge(t))
		}
		pass(time.Hour)
		store.took()
		wantResponse(t, "nothing to gain", b.visit(readUser), 200, "nothing")
		wantCalls(t, "nothing to gain", store, "Load")
		resp = b.visit(func(s *session.Session) { s.SetIdleTimeout(30 * 24 * time.Hour) })
		if got := store.ttl(t); got != time.Hour || resp.maxAge(t) != 3600 {
			t.Errorf("remembered: got %v left, Max-Age %d, want 1h, 3600", got, resp.maxAge(t))
		}
	})
}

// A record that Express made has no creation time: it gets one at first sight,
// but only where an absolute timeout needs it.
func TestNewbornRecords(t *testing.T) {
	const row = `{"cookie":{"originalMaxAge":86400000,"expires":"2000-01-02T00:00:00.000Z","httpOnly":true,"path":"/"},"user":"ada"}`
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		b := seededRow(t, store, newManager(t, store, session.Config{}), row, 24*time.Hour)
		wantResponse(t, "read", b.visit(readUser), 200, "nothing")
		wantCalls(t, "without an absolute timeout", store, "Load")

		strict := b.with(newManager(t, store, session.Config{AbsoluteTimeout: 2 * time.Hour}))
		pass(time.Hour)
		strict.visit(readUser)
		wantCalls(t, "first sight", store, "Load Update")
		for _, data := range store.live(t) {
			want := strings.TrimSuffix(row, "}") + `,"__created":` + strconv.FormatInt(time.Now().UnixMilli(), 10) + `,"__renewed":0}`
			if data != want {
				t.Errorf("stamped: got %s, want %s", data, want)
			}
		}
		strict.visit(readUser)
		wantCalls(t, "second sight", store, "Load")
		pass(2*time.Hour - 1)
		if got := strict.with(strict.m).user(); got != "ada" {
			t.Errorf("just before the end: got user %q, want ada", got)
		}
		pass(1)
		if got := strict.user(); got != "" {
			t.Errorf("at the absolute timeout since first sight: got user %q, want nobody", got)
		}
	})
}

// Stamping is bookkeeping: a page that only reads does not depend on it.
func TestNewbornPagePasses(t *testing.T) {
	const row = `{"cookie":{"originalMaxAge":86400000},"user":"ada"}`
	log, store := &logRecorder{}, newHookedStore()
	m := newManager(t, store, session.Config{AbsoluteTimeout: time.Hour, Logger: log.logger()})
	b := seededRow(t, store, m, row, time.Minute)
	store.on("Update", fails(errStoreDown))
	wantResponse(t, "stamping fails", b.visit(readUser), 200, "nothing")
	if !strings.Contains(log.String(), errStoreDown.Error()) {
		t.Error("log: got nothing about the failure")
	}
	wantResponse(t, "a change fails", b.visit(func(s *session.Session) { keyA.Set(s, "1") }), 503, "nothing")

	store.on("Update", nil)
	other := b.with(m)
	resp := b.visit(func(s *session.Session) {
		userKey.Get(s)
		other.visit(func(s *session.Session) { s.Destroy() })
	})
	wantResponse(t, "logout during a reading request", resp, 200, "nothing")
	if n := len(store.live(t)); n != 0 {
		t.Errorf("got %d records, want none", n)
	}
}

func TestCreatedInTheFuture(t *testing.T) {
	for _, created := range []string{"2000-01-01T00:30:00Z", "2100-01-01T00:00:00Z"} {
		synctest.Test(t, func(t *testing.T) {
			at, _ := time.Parse(time.RFC3339, created)
			store := newHookedStore()
			m := newManager(t, store, session.Config{IdleTimeout: 10 * time.Hour, AbsoluteTimeout: time.Hour})
			b := seededRow(t, store, m, fmt.Sprintf(`{"cookie":{"originalMaxAge":36000000},"user":"ada","__created":%d}`, at.UnixMilli()), time.Minute)
			resp := b.visit(readUser)
			// A wrong clock neither kills the session nor gives it more than a
			// whole absolute timeout at once.
			if got := store.ttl(t); got != time.Hour || resp.maxAge(t) != 3600 {
				t.Errorf("created at %s: got %v left, Max-Age %d, want 1h, 3600", created, got, resp.maxAge(t))
			}
		})
	}
}

func TestCreatedThatIsNoTime(t *testing.T) {
	for _, created := range []string{`"yesterday"`, "null", "1.5", "1e400", "{}", "99999999999999999999"} {
		synctest.Test(t, func(t *testing.T) {
			store := newHookedStore()
			m := newManager(t, store, session.Config{AbsoluteTimeout: time.Hour})
			b := seededRow(t, store, m, `{"cookie":{"originalMaxAge":60000},"user":"ada","__created":`+created+`}`, time.Minute)
			if got := b.user(); got != "ada" {
				t.Errorf("created %s: got user %q, want ada", created, got)
			}
			for _, row := range store.live(t) { // it counts from now
				if got, want := string(members(t, row)["__created"]), strconv.FormatInt(time.Now().UnixMilli(), 10); got != want {
					t.Errorf("created %s: got %s, want %s", created, got, want)
				}
			}
		})
	}
	for _, created := range []string{"0", "-5", "9223372036854775807", "-9223372036854775808"} { // never a panic
		store := newHookedStore()
		m := newManager(t, store, session.Config{AbsoluteTimeout: time.Hour})
		seededRow(t, store, m, `{"cookie":{"originalMaxAge":60000},"user":"ada","__created":`+created+`}`, time.Minute).user()
	}
}

func TestSetIdleTimeout(t *testing.T) {
	const day = 24 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		m := newManager(t, store, session.Config{})
		b := login(t, m)
		maxAge := func() string {
			for _, row := range store.live(t) {
				return string(members(t, string(members(t, row)["cookie"]))["originalMaxAge"])
			}
			return "no record"
		}
		want := func(what string, resp *response, age string, left time.Duration, cookie int) {
			t.Helper()
			if maxAge() != age || store.ttl(t) != left || resp.maxAge(t) != cookie {
				t.Errorf("%s: got originalMaxAge %s, %v left, Max-Age %d, want %s, %v, %d", what, maxAge(), store.ttl(t), resp.maxAge(t), age, left, cookie)
			}
		}
		set := func(d time.Duration) *response {
			return b.visit(func(s *session.Session) { s.SetIdleTimeout(d) })
		}
		want("longer", set(30*day), "2592000000", 30*day, 2592000)
		pass(20 * day)
		want("touched by its own", b.visit(readUser), "2592000000", 30*day, 2592000)
		want("the same again", set(30*day), "2592000000", 30*day, -1)
		want("shorter: counts from now", set(10*time.Minute), "600000", 10*time.Minute, 600)
		pass(time.Minute)
		want("a short one is extended too", b.visit(readUser), "600000", 10*time.Minute, 600)
		pass(59 * time.Second)
		want("but not all the time", b.visit(readUser), "600000", 9*time.Minute+time.Second, -1)
		want("zero: the default", set(0), "86400000", day, 86400)
		want("negative: the default", set(-5), "86400000", day, -1)
		want("under a millisecond", set(1), "1", time.Millisecond, 1)
		if pass(time.Millisecond + 1); b.user() != "" {
			t.Error("after a millisecond: got the user, want nobody")
		}
	})
}

func TestSetIdleTimeoutTwiceInARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		b := login(t, newManager(t, store, session.Config{}))
		b.visit(func(s *session.Session) { s.SetIdleTimeout(time.Hour); s.SetIdleTimeout(24 * time.Hour) })
		if got := store.ttl(t); got != 24*time.Hour {
			t.Errorf("back to what it was: got %v left, want 24h", got)
		}
		b.visit(func(s *session.Session) { s.SetIdleTimeout(24 * time.Hour); s.SetIdleTimeout(time.Hour) })
		if got := store.ttl(t); got != time.Hour {
			t.Errorf("the last counts: got %v left, want 1h", got)
		}
	})
}

func TestSetIdleTimeoutTooLong(t *testing.T) {
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{}))
	store.took()
	resp := b.visit(func(s *session.Session) {
		s.SetIdleTimeout(400*24*time.Hour + 1)
		if err := s.Err(); !errors.Is(err, session.ErrInvalid) {
			t.Errorf("Err: got %v, want ErrInvalid", err)
		}
	})
	wantResponse(t, "too long", resp, 500, "nothing")
	wantCalls(t, "too long", store, "Load")
	wantResponse(t, "400 days", b.visit(func(s *session.Session) { s.SetIdleTimeout(400 * 24 * time.Hour) }), 200, "set")
}

func TestSetIdleTimeoutOfABrowserSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		m := newManager(t, store, session.Config{Cookie: session.CookieConfig{BrowserSession: true}})
		b := login(t, m)
		row := func() (row string) {
			for _, row = range store.live(t) {
			}
			return row
		}
		null := `"originalMaxAge":null,"expires":null`
		if !strings.Contains(row(), null) || store.ttl(t) != 24*time.Hour {
			t.Errorf("new: got %v left, want 24h and %s", store.ttl(t), null)
		}
		pass(time.Hour)
		wantResponse(t, "a touch needs no cookie: it has no end", b.visit(readUser), 200, "nothing")
		if got := store.ttl(t); got != 24*time.Hour {
			t.Errorf("touched: got %v left, want 24h", got)
		}
		resp := b.visit(func(s *session.Session) { s.SetIdleTimeout(time.Hour) })
		if resp.maxAge(t) != 3600 || !strings.Contains(row(), `"originalMaxAge":3600000`) {
			t.Errorf("remembered: got Max-Age %d, want 3600", resp.maxAge(t))
		}
		resp = b.visit(func(s *session.Session) { s.SetIdleTimeout(0) })
		if resp.maxAge(t) != 0 || strings.Contains(resp.setCookie(), "Expires") || !strings.Contains(row(), null) {
			t.Errorf("forgotten: got Max-Age %d, want none", resp.maxAge(t))
		}
		if got := store.ttl(t); got != 24*time.Hour {
			t.Errorf("forgotten: got %v left, want 24h", got)
		}
	})
}

// The cookie never ends before the record, to the nanosecond.
func TestCookieOutlivesTheRecord(t *testing.T) {
	for _, f := range bothFormats {
		for _, idle := range []time.Duration{time.Hour, 61*time.Second + 1, 90*time.Second + 999*time.Millisecond, time.Minute + 7*time.Nanosecond} {
			synctest.Test(t, func(t *testing.T) {
				store := newHookedStore()
				m := newManager(t, store, session.Config{IdleTimeout: idle, TouchInterval: 1, Cookie: session.CookieConfig{Format: f.format}})
				b := &browser{m: m}
				h := func(s *session.Session) { userKey.Set(s, "ada") }
				for i := range 20 {
					pass(time.Duration(i) * 123456789)
					resp := b.visit(h)
					h = readUser
					c, err := http.ParseSetCookie(resp.setCookie())
					if err != nil {
						if i == 0 {
							continue
						}
						t.Fatalf("%s: got no cookie, want one at every touch", f.name)
					}
					end := time.Now().Add(store.ttl(t))
					if c.Expires.Before(end) || c.Expires.Sub(end) >= time.Second {
						t.Errorf("%s: Expires: got %v after the record, want 0 to 1s", f.name, c.Expires.Sub(end))
					}
					if f.format == session.FormatSecureCookie && time.Duration(c.MaxAge)*time.Second < store.ttl(t) {
						t.Errorf("%s: Max-Age: got %d, want at least %v", f.name, c.MaxAge, store.ttl(t))
					}
				}
			})
		}
	}
}

// --- Pruning

func TestPruneTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		firsts, gaps := map[time.Duration]bool{}, map[time.Duration]bool{}
		for range 20 {
			store := newHookedStore()
			start := time.Now()
			m := newManager(t, store.whole(), session.Config{})
			pass(6 * time.Hour)
			if err := m.Close(); err != nil {
				t.Errorf("Close: got %v, want no error", err)
			}
			at := store.times("Prune")
			if len(at) < 16 {
				t.Fatalf("in 6 hours: got %d prunings, want at least 16", len(at))
			}
			if first := at[0].Sub(start); first < 0 || first >= time.Minute {
				t.Errorf("first: got %v after the start, want less than 1m", first)
			} else {
				firsts[first] = true
			}
			for i := range at[1:] {
				gap := at[i+1].Sub(at[i])
				if gap < 7*time.Minute+30*time.Second || gap >= 22*time.Minute+30*time.Second {
					t.Errorf("gap: got %v, want 15m ± 50 %%", gap)
				}
				gaps[gap] = true
			}
			pass(time.Hour)
			if n := len(store.times("Prune")); n != len(at) {
				t.Errorf("after Close: got %d more prunings, want none", n-len(at))
			}
		}
		if len(firsts) < 15 || len(gaps) < 200 {
			t.Errorf("got %d different starts, %d different gaps: no jitter", len(firsts), len(gaps))
		}
	})
}

func TestPruneOwnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		m := newManager(t, store.whole(), session.Config{PruneInterval: 10 * time.Second})
		start := time.Now()
		pass(10 * time.Minute)
		_ = m.Close()
		at := store.times("Prune")
		if first := at[0].Sub(start); first >= 10*time.Second {
			t.Errorf("first: got %v after the start, want less than the interval", first)
		}
		if len(at) < 40 || len(at) > 121 {
			t.Errorf("in 10 minutes: got %d prunings, want about 60", len(at))
		}
	})
}

func TestPruneErrorsAreLoggedAndRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, store := &logRecorder{}, newHookedStore()
		store.on("Prune", func(_ context.Context, c *storeCall, _ func() error) error {
			switch store.count("Prune") {
			case 1:
				c.n = 3 // before the failure
				return errStoreDown
			case 2:
				c.n = 4
			}
			return nil
		})
		m := newManager(t, store.whole(), session.Config{Logger: log.logger()})
		pass(2 * time.Hour)
		_ = m.Close()
		if n := len(store.times("Prune")); n < 5 {
			t.Errorf("got %d prunings, want them to go on after an error", n)
		}
		text := log.String()
		for part, want := range map[string]int{errStoreDown.Error(): 1, "deleted=3": 1, "deleted=4": 1, "deleted=0": 0} {
			if got := strings.Count(text, part); got != want {
				t.Errorf("log: got %q %d times, want %d", part, got, want)
			}
		}
		if s := m.Stats(); s.Pruned != 7 || s.StoreErrors != 1 {
			t.Errorf("Stats: got %d pruned, %d errors, want 7, 1", s.Pruned, s.StoreErrors)
		}
	})
}

func TestCloseEndsAfterTheBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		begun, ended := make(chan bool), false
		store.on("Prune", func(ctx context.Context, c *storeCall, _ func() error) error {
			close(begun)
			<-ctx.Done()
			pass(time.Second) // the batch under way
			ended = true
			c.n = 50
			return nil
		})
		m := newManager(t, store.whole(), session.Config{})
		<-begun
		start := time.Now()
		if err := m.Close(); err != nil {
			t.Errorf("Close: got %v, want no error", err)
		}
		if got := time.Since(start); !ended || got != time.Second {
			t.Errorf("Close: got it back after %v, batch ended %v, want 1s, true", got, ended)
		}
		if err := m.Close(); err != nil || time.Since(start) != time.Second {
			t.Errorf("second Close: got %v after %v, want no error at once", err, time.Since(start))
		}
		b := login(t, m) // sessions go on
		if got := b.user(); got != "ada" {
			t.Errorf("after Close: got user %q, want ada", got)
		}
		if m.Stats().Pruned != 50 {
			t.Errorf("Stats.Pruned: got %d, want 50", m.Stats().Pruned)
		}
	})
}

func TestCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		begun, release := make(chan bool), make(chan bool)
		store.on("Prune", func(context.Context, *storeCall, func() error) error {
			close(begun)
			<-release
			return nil
		})
		m := newManager(t, store.whole(), session.Config{StoreTimeout: 3 * time.Second})
		<-begun
		start := time.Now()
		if err := m.Close(); err == nil || time.Since(start) != 3*time.Second {
			t.Errorf("Close: got %v after %v, want an error after 3s", err, time.Since(start))
		}
		close(release)
		if err := m.Close(); err != nil {
			t.Errorf("Close afterwards: got %v, want no error", err)
		}
	})
}

func TestCloseBeforeTheFirstPrune(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		m := newManager(t, store.whole(), session.Config{})
		start := time.Now()
		if err := m.Close(); err != nil || time.Since(start) != 0 {
			t.Errorf("Close: got %v after %v, want no error at once", err, time.Since(start))
		}
		pass(time.Hour)
		if n := len(store.times("Prune")); n != 0 {
			t.Errorf("got %d prunings, want none", n)
		}
	})
}

func TestDisablePrune(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		pruned := func(n int64, err error) hook {
			return func(_ context.Context, c *storeCall, _ func() error) error {
				c.n = n
				return err
			}
		}
		store.on("Prune", pruned(2, nil))
		m := newManager(t, store.whole(), session.Config{DisablePrune: true})
		pass(24 * time.Hour)
		if n := len(store.times("Prune")); n != 0 {
			t.Errorf("got %d prunings, want none", n)
		}
		if n, err := m.Prune(t.Context()); n != 2 || err != nil {
			t.Errorf("Prune: got %d, %v, want 2, no error", n, err)
		}
		store.on("Prune", pruned(1, errStoreDown))
		if n, err := m.Prune(t.Context()); n != 1 || !errors.Is(err, errStoreDown) {
			t.Errorf("Prune: got %d, %v, want 1 beside the store's error", n, err)
		}
		if err := m.Close(); err != nil {
			t.Errorf("Close: got %v, want no error", err)
		}
	})
}

func TestPruneOfAStoreThatCannot(t *testing.T) {
	m := newManager(t, newHookedStore(), session.Config{})
	if _, err := m.Prune(t.Context()); err == nil {
		t.Error("Prune: got no error, want one")
	}
	if err := m.Close(); err != nil {
		t.Errorf("Close: got %v, want no error", err)
	}
}

// A live record survives pruning at every moment of its life.
func TestPruneKeepsTheLiving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, session.NewMemoryStore(), session.Config{IdleTimeout: 20 * time.Minute, PruneInterval: time.Minute})
		b := login(t, m)
		dead := login(t, m)
		for range 20 {
			pass(10 * time.Minute)
			if got := b.user(); got != "ada" {
				t.Fatalf("got user %q, want ada", got)
			}
		}
		_ = m.Close()
		if got := m.Stats().Pruned; got != 1 || dead.user() != "" {
			t.Errorf("pruned: got %d, want 1", got)
		}
	})
}

// The time that Express would compute from the record agrees with the expiry.
func TestRecordedExpiryAgreesWithTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		b := login(t, newManager(t, store, session.Config{}))
		check := func(what string) {
			t.Helper()
			for _, row := range store.live(t) {
				var r struct{ Cookie struct{ Expires time.Time } }
				if err := json.Unmarshal([]byte(row), &r); err != nil {
					t.Fatal(err)
				}
				if got, want := time.Until(r.Cookie.Expires), store.ttl(t); got != want {
					t.Errorf("%s: cookie.expires in %v, want %v", what, got, want)
				}
			}
		}
		check("new")
		pass(time.Hour)
		b.visit(func(s *session.Session) { keyA.Set(s, "1") })
		check("saved")
		b.visit(func(s *session.Session) { s.SetIdleTimeout(time.Hour) })
		check("remembered")
		pass(10 * time.Minute)
		b.visit(func(s *session.Session) { s.Renew(); keyA.Set(s, "2") })
		check("renewed and changed")
	})
}
