package session_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/outage"
	"github.com/pgsession/session/internal/pgtest"
)

// A store that is down refuses at once: one call, a 503 with the cookie kept, no
// log line of its own, and nothing uncertain. A touch does not break the page.
func TestRefusedByTheStore(t *testing.T) {
	refused := &outage.Refused{Kind: "write", For: time.Minute, Cause: errStoreDown}
	for _, tt := range []struct {
		op     string
		use    func(*session.Session)
		status int
		calls  string
	}{
		{"Load", func(s *session.Session) { countKey.Get(s) }, 503, "Load"},
		{"Load", func(s *session.Session) { countKey.Get(s); s.Detach() }, 200, "Load"},
		{"Load", func(*session.Session) {}, 200, ""},
		{"Update", increment, 503, "Load Update"},
		{"Update", func(s *session.Session) { s.Renew() }, 503, "Load Update"},
		{"Create", func(s *session.Session) { s.Destroy(); increment(s) }, 503, "Delete Create Delete"},
		{"Delete", func(s *session.Session) { s.Destroy() }, 503, "Delete Delete"},
		{"Touch", func(s *session.Session) { countKey.Get(s) }, 200, "Load Touch"},
	} {
		store := newHookedStore()
		log := new(logRecorder)
		m := newManager(t, store, session.Config{TouchInterval: time.Nanosecond, Logger: log.logger()})
		cookie, _ := loginCounter(t, m)
		store.took()
		log.reset()
		store.on(tt.op, fails(refused))
		var failed error
		resp := useSession(m, cookie, func(s *session.Session) { tt.use(s); failed = s.Save(t.Context()) })
		if resp.status != tt.status || len(resp.cookies()) != 0 && tt.op != "Create" {
			t.Errorf("%s: got status %d and %d cookies, want %d and none", tt.op, resp.status, len(resp.cookies()), tt.status)
		}
		if got := store.took(); got != tt.calls && !strings.HasPrefix(got, tt.calls+" Touch") {
			t.Errorf("%s: got the calls %q, want %q: no second try", tt.op, got, tt.calls)
		}
		if lines := log.from(slog.LevelInfo); len(lines) != 0 {
			t.Errorf("%s: got the log lines %q, want none", tt.op, lines)
		}
		if tt.status == 503 && (!errors.As(failed, new(*outage.Refused)) || errors.Is(failed, session.ErrUncertain) || !strings.Contains(failed.Error(), "down for 1m")) {
			t.Errorf("%s: got the error %v, want the refusal, and nothing uncertain", tt.op, failed)
		}
		if s := m.Stats(); tt.calls != "" && (s.Refused == 0 || s.Refused != s.StoreErrors) {
			t.Errorf("%s: got %+v, want that what was refused is counted", tt.op, s)
		}
	}
}

// A save without an answer, as the outage begins: the look that would settle it is
// refused, and the request ends there, uncertain, which is worth a line.
func TestUncertainAndThenRefused(t *testing.T) {
	store := newHookedStore()
	log := new(logRecorder)
	m := newManager(t, store, session.Config{Logger: log.logger()})
	cookie, _ := loginCounter(t, m)
	loads := 0
	store.on("Update", fails(session.ErrUncertain))
	store.on("Load", func(_ context.Context, _ *storeCall, do func() error) error {
		if loads++; loads > 1 {
			return &outage.Refused{Kind: "read", For: time.Second, Cause: errStoreDown}
		}
		return do()
	})
	store.took()
	log.reset()
	var failed error
	resp := useSession(m, cookie, func(s *session.Session) { increment(s); failed = s.Save(t.Context()) })
	if got := store.took(); resp.status != 503 || got != "Load Update Load" || !errors.Is(failed, session.ErrUncertain) {
		t.Errorf("got status %d, the calls %q and %v; want 503, Load Update Load and uncertain", resp.status, got, failed)
	}
	if lines := log.from(slog.LevelError); len(lines) != 1 {
		t.Errorf("got the log lines %q, want one", lines)
	}
}

// An outage of a real server, which refuses connections: one line when it is down
// and one when it is back, for each kind, and none for a request that was refused.
// Another database is never judged by it.
func TestPostgresOutageIsSaidOnce(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgtest.Options{})
	log := new(logRecorder)
	pool := openPool(t, server.URL(), maxConns(4))
	m := patientManager(t, newStore(t, pool, session.PostgresOptions{Logger: log.logger()}), storeTimeout(3*time.Second))
	other := patientManager(t, newStore(t, openPool(t, pgtest.URL(t))))
	cookie, _ := loginCounter(t, m)
	otherCookie, _ := loginCounter(t, other)
	// A session whose end is in doubt is not merely read any more; so that is another one's.
	doomed, _ := loginCounter(t, m)
	if err := server.Stop(t.Context(), "fast"); err != nil {
		t.Fatal(err)
	}
	log.reset()
	ask := func() {
		t.Helper()
		for cookie, use := range map[string]func(*session.Session){
			cookie: func(s *session.Session) { countKey.Get(s) },
			doomed: func(s *session.Session) { s.Destroy() },
		} {
			if resp := useSession(m, cookie, use); resp.status != 503 || len(resp.cookies()) != 0 {
				t.Fatalf("in the outage: got status %d and %d cookies, want 503 and none", resp.status, len(resp.cookies()))
			}
		}
	}
	until(t, "both are down", func() bool {
		ask()
		s := m.Stats()
		return s.ReadsDown && s.WritesDown
	})
	for range 500 {
		ask()
		if got := counted(t, other, otherCookie); got != 0 {
			t.Fatalf("another database: got count %d, want 0", got)
		}
	}
	if s := m.Stats(); s.Refused < 900 {
		t.Errorf("refused: got %d, want nearly all of 1,000", s.Refused)
	}
	if s := other.Stats(); s.ReadsDown || s.WritesDown || s.StoreErrors != 0 {
		t.Errorf("another database: got %+v, want no error", s)
	}
	if lines := log.from(slog.LevelInfo); len(lines) != 2 || !strings.Contains(log.String(), "kind=read") || !strings.Contains(log.String(), "kind=write") {
		t.Errorf("got the lines %q, want one for each kind", lines)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	log.reset()
	until(t, "both are back", func() bool {
		useSession(m, cookie, func(s *session.Session) { countKey.Get(s) })
		useSession(m, cookie, increment)
		s := m.Stats()
		return !s.ReadsDown && !s.WritesDown
	})
	if lines := log.from(slog.LevelInfo); len(lines) != 2 {
		t.Errorf("got the lines %q, want one for each kind", lines)
	}
	if got := counted(t, m, cookie); got < 1 {
		t.Errorf("count after it: got %d, want still logged in", got)
	}
}

// A store that is down is no end of a binding, which browsers would take nearly any
// answer for: the proof is one to bring again, whatever it was for.
func TestDeviceBoundRefusedByTheStore(t *testing.T) {
	refused := &outage.Refused{Kind: "write", For: time.Minute, Cause: errStoreDown}
	for _, tt := range []struct {
		op, what string
		send     func(bound, offered *unit) *response
		calls    string
	}{
		{"Load", "a refresh", func(bound, _ *unit) *response { return bound.refresh() }, "Load"},
		{"Load", "a registration", func(_, offered *unit) *response { return offered.register() }, "Load"},
		{"Update", "a registration", func(_, offered *unit) *response { return offered.register() }, "Load Update"},
		{"Delete", "a second key", func(bound, _ *unit) *response { return bound.copied().register() }, "Load Delete"},
		{"Load", "a proven page", func(bound, _ *unit) *response { return bound.get("/") }, "Load"},
		{"Load", "a page without the proof", func(bound, _ *unit) *response { return bound.copied().forget().get("/") }, "Load"},
	} {
		t.Run(tt.op+", "+tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := new(logRecorder)
				b := newBoundSite(t, func(c *session.Config) { c.Logger = log.logger() })
				bound, offered := b.boundUnit(), b.unit()
				offered.send("POST", "/login")
				b.store.took()
				log.reset()
				b.store.on(tt.op, fails(refused))
				resp := tt.send(bound, offered)
				want(t, "down", resp, 503, "")
				wantSet(t, "down", resp, "")
				wantCalls(t, "down", b.store, tt.calls)
				if lines := log.from(slog.LevelInfo); len(lines) != 0 {
					t.Errorf("got the log lines %q, want none", lines)
				}
				if s := b.m.Stats(); s.Refused == 0 || s.Refused != s.StoreErrors {
					t.Errorf("got %+v, want that what was refused is counted", s)
				}
				b.store.on(tt.op, nil)
				want(t, "up again, registration", offered.register(), 200, "refresh_url")
				want(t, "up again, registered", offered.get("/"), 200, "ada true")
				want(t, "up again, refresh", bound.refresh(), 200, "")
				want(t, "up again, page", bound.get("/"), 200, "ada true")
			})
		})
	}
}

// The same on a real server that is stopped: from the first silence to the last
// refusal a proof gets 503, and afterwards it counts.
func TestPostgresDeviceBoundOutage(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgtest.Options{})
	store := &hookedStore{Store: newStore(t, openPool(t, server.URL(), maxConns(4)))}
	b := newBoundSiteOver(t, store, storeTimeout(4*time.Second))
	bound, offered := b.unit(), b.unit()
	bound.send("POST", "/login")
	want(t, "registration", bound.register(), 200, "refresh_url")
	want(t, "page", bound.get("/"), 200, "ada true")
	offered.send("POST", "/login")
	if err := server.Stop(t.Context(), "fast"); err != nil {
		t.Fatal(err)
	}
	refusals := 0
	until(t, "many are refused", func() bool {
		for what, resp := range map[string]*response{"refresh": bound.refresh(), "registration": offered.register()} {
			if want(t, what+" in the outage", resp, 503, ""); len(resp.cookies()) != 0 {
				t.Errorf("%s in the outage: got cookies", what)
			}
		}
		if b.m.Stats().Refused > 0 {
			refusals++
		}
		return t.Failed() || refusals > 50
	})
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "it is back", func() bool { return bound.refresh().status == 200 })
	want(t, "page", bound.get("/"), 200, "ada true")
	until(t, "the registration is stored", func() bool { return offered.register().status == 200 })
	want(t, "page of the registered", offered.get("/"), 200, "ada true")
}

// until asks again and again, by something that takes its time, whether something
// has come true.
func until(t *testing.T, what string, come func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !come(); {
		if time.Now().After(deadline) {
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}
