package session_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// protocolSharing are the two ways of a store to send its statements.
var protocolSharing = map[string]session.PostgresOptions{
	"shared statements": {},
	"without sharing":   {DisableBatching: true},
}

// A renewal waits for its row, which somebody has locked, and a logout with it:
// whichever gets it first, the session ends, whatever its ID has become.
func TestProtocolLogoutFollowsWaitingRenewal(t *testing.T) {
	for name, opts := range protocolSharing {
		for _, first := range []string{"renewal", "logout"} {
			for _, programs := range []int{1, 2} {
				t.Run(fmt.Sprint(name, ", the ", first, " first, programs ", programs), func(t *testing.T) {
					managers, admin := newPrograms(t, 2, opts)
					b := login(t, managers[0])
					other := b.with(managers[programs-1])
					unlock := lockRecords(t, admin, b.id())
					waits := func(n int) {
						t.Helper()
						awaitRowWaits(t, admin, n, managers...)
					}
					slow := b.begin()
					slow.do(logIn("eve"))
					renewed, ended := make(chan *response, 1), make(chan *response, 1)
					starts := []func(){
						func() { go func() { renewed <- slow.end() }() },
						func() { go func() { ended <- other.visit(destroy) }() },
					}
					if first == "logout" {
						starts[0], starts[1] = starts[1], starts[0]
					}
					starts[0]()
					waits(1)
					starts[1]()
					waits(2)
					unlock()
					wantResponse(t, "logout", within(t, ended), 200, "expired")
					if resp := within(t, renewed); resp.status != 200 && resp.status != 409 {
						t.Errorf("renewal: got status %d, want 200 or 409", resp.status)
					}
					if n := countRecords(t, admin); n != 0 {
						t.Errorf("records: got %d, want none", n)
					}
					b.wantUser(t, "")
				})
			}
		}
	}
}

// So it does over a chain of renewals, the last of which waits.
func TestProtocolLogoutFollowsChainOfRenewals(t *testing.T) {
	for name, opts := range protocolSharing {
		t.Run(name, func(t *testing.T) {
			managers, admin := newPrograms(t, 2, opts)
			b := login(t, managers[0])
			stale := b.with(managers[1])
			for i := range 3 {
				b.visit(logIn(fmt.Sprint("user", i)))
			}
			unlock := lockRecords(t, admin, b.id())
			slow := b.begin()
			slow.do(logIn("eve"))
			renewed, ended := make(chan *response, 1), make(chan *response, 1)
			go func() { renewed <- slow.end() }()
			awaitRowWaits(t, admin, 1, managers...)
			go func() { ended <- stale.visit(destroy) }()
			awaitRowWaits(t, admin, 2, managers...)
			unlock()
			wantResponse(t, "logout", within(t, ended), 200, "expired")
			within(t, renewed)
			if n := countRecords(t, admin); n != 0 {
				t.Errorf("records: got %d, want none", n)
			}
		})
	}
}

// Two logins wait for the row at once, in two programs: the one that comes second
// begins a session of its own, and the browser has one of the two.
func TestProtocolTwoWaitingLogins(t *testing.T) {
	for name, opts := range protocolSharing {
		t.Run(name, func(t *testing.T) {
			pool := pgtest.Pool(t)
			one, two := patientManager(t, newStore(t, pool, opts), keyOfUser), patientManager(t, newStore(t, pool, opts), keyOfUser)
			b := login(t, one)
			c := b.with(two)
			planted := b.with(one)
			unlock := lockRecords(t, pool, b.id())
			first, second := b.begin(), c.begin()
			first.do(logIn("eve"))
			second.do(logIn("bob"))
			done := make(chan *response, 2)
			go func() { done <- first.end() }()
			awaitRowWaits(t, pool, 1, one, two)
			go func() { done <- second.end() }()
			awaitRowWaits(t, pool, 2, one, two)
			unlock()
			wantResponse(t, "a login", within(t, done), 200, "set")
			wantResponse(t, "the other login", within(t, done), 200, "set")
			b.wantUser(t, "eve")
			c.wantUser(t, "bob")
			planted.wantUser(t, "")
			if n := countRecords(t, pool); n != 2 {
				t.Errorf("records: got %d, want 2", n)
			}
		})
	}
}

// behindBy makes a database whose clock.now() is slower than the programs' clocks.
func behindBy(t *testing.T, d time.Duration) (url string) {
	url = pgtest.URL(t)
	execSQL(t, openPool(t, url), fmt.Sprintf(`CREATE SCHEMA clock;
		CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE AS
		$$ SELECT pg_catalog.now() - make_interval(secs => %d) $$`, int(d.Seconds())))
	return url
}

// A program whose clock is ahead of the database's ends no session by that, at an
// absolute timeout or otherwise, and says so once.
func TestProtocolClockAhead(t *testing.T) {
	const ahead, absolute = 24 * time.Hour, time.Hour
	for name, opts := range protocolSharing {
		t.Run(name, func(t *testing.T) {
			url := behindBy(t, ahead)
			pool := openPool(t, url)
			store, log := newStore(t, pool, opts), &logRecorder{}
			store.SetClock("clock.now()")
			m := patientManager(t, store, func(c *session.Config) { c.AbsoluteTimeout, c.Logger = absolute, log.logger() })
			created := func(b *browser, by time.Duration) { // by the database's clock, before its now
				t.Helper()
				at := time.Now().Add(-ahead - by).UnixMilli()
				n := execSQL(t, pool, `UPDATE schema_system.session SET sess = jsonb_set(sess::jsonb, '{__created}', to_jsonb($2::bigint))::json WHERE sid = $1`, b.id(), at)
				if n != 1 {
					t.Fatalf("got %d records changed, want 1", n)
				}
			}
			log.reset()
			young, old := login(t, m), login(t, m)
			created(old, absolute+time.Minute)
			created(young, absolute-time.Minute)
			for range 3 {
				young.wantUser(t, "ada")
			}
			if got := strings.Join(log.from(slog.LevelError), "\n"); strings.Count(got, "ahead of the database's") != 1 {
				t.Errorf("logged: got %q, want the clock once", got)
			}
			old.wantUser(t, "")
			if n := countRecords(t, pool); n != 1 {
				t.Errorf("records: got %d, want the old one deleted and the young one kept", n)
			}
		})
	}
}
