package faults_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/tests/faults"
)

// alone is a program on a server that waits for a standby when it is told to, and
// has no connection beyond the program's.
type alone struct {
	*faults.Program
	t      *testing.T
	store  *session.PostgresStore
	admin  *pgxpool.Conn // one of the pool's: there are no others
	places int           // for writes
}

func startAlone(t *testing.T, config func(*session.Config)) *alone {
	t.Helper()
	const conns = 12
	server := pgtest.Own(t, pgtest.Options{Settings: map[string]string{"max_connections": fmt.Sprint(conns)}})
	a := &alone{t: t, places: conns / 4}
	p, err := faults.StartProgram(t.Context(), server.URL(), faults.ProgramOptions{
		Pool:   func(cfg *pgxpool.Config) { cfg.MaxConns = conns },
		Config: config,
		Wrap: func(s session.Store) session.Store {
			a.store = s.(*session.PostgresStore)
			return s
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	a.Program = p
	if a.admin, err = p.Pool.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.admin.Release)
	return a
}

func (a *alone) get(sql string) (n int) {
	a.t.Helper()
	if err := a.admin.QueryRow(a.t.Context(), sql).Scan(&n); err != nil {
		a.t.Fatal(err)
	}
	return n
}

const waitingSQL = `SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND backend_type = 'client backend'`

// standby names a standby that commits wait for, and that is not there; "" for
// none. It returns when they wait, or do not any more.
func (a *alone) standby(name string) {
	a.t.Helper()
	execute(a.t, a.admin.Conn(), "ALTER SYSTEM SET synchronous_standby_names = '"+name+"'")
	execute(a.t, a.admin.Conn(), "SELECT pg_reload_conf()")
	if name == "" {
		until(a.t, "no commit waits", func() bool { return a.get(waitingSQL) == 0 })
	}
	// It is the checkpointer that tells the others.
	until(a.t, "the server has read it", func() bool {
		probe := make(chan error, 1)
		go func() {
			_, err := a.Pool.Exec(a.t.Context(), "SELECT pg_logical_emit_message(true, 'probe', '')")
			probe <- err
		}()
		for {
			select {
			case err := <-probe:
				return err == nil && name == ""
			default:
			}
			if a.get(`SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%''probe''%'`) > 0 {
				<-probe // cancelled, which lets it succeed
				return name != ""
			}
		}
	})
}

// strays are connections that a busy machine may cost: a read that is late there loses
// its own. Writes that lost theirs would be dozens.
const strays = 2

// whole checks that the pool is as whole as it was.
func (a *alone) whole(opened int64) {
	a.t.Helper()
	var held []*pgxpool.Conn
	for range a.Pool.Config().MaxConns - 1 {
		c, err := a.Pool.Acquire(a.t.Context())
		if err != nil {
			a.t.Fatal(err)
		}
		defer c.Release()
		held = append(held, c)
	}
	for _, c := range held {
		if err := c.Ping(a.t.Context()); err != nil {
			a.t.Error(err)
		}
	}
	if got := a.Pool.Stat().NewConnsCount(); got < opened || got > opened+strays {
		a.t.Errorf("connections opened: got %d, want %d as before, or %d more", got, opened, strays)
	}
}

// reads lets somebody read until the end is called, as somebody always does. Where a
// server answers nobody for as long as a busy machine takes here, all connections are
// made anew.
func (a *alone) reads() (end func()) {
	var stop atomic.Bool
	var reader sync.WaitGroup
	reader.Go(func() {
		for !stop.Load() {
			if _, err := a.store.Load(context.Background(), "nobody"); !errors.Is(err, session.ErrNotFound) {
				a.t.Errorf("a read: got %v, want ErrNotFound", err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	return func() { stop.Store(true); reader.Wait() }
}

// open makes all connections of the pool, and returns how many it has made.
func (a *alone) open() int64 {
	a.t.Helper()
	a.whole(int64(a.Pool.Config().MaxConns))
	return a.Pool.Stat().NewConnsCount()
}

// The synchronous standby is down: no write of any kind is acknowledged, and none
// is cancelled; each is done when the standby is back.
func TestFaultStandbyDownEveryWrite(t *testing.T) {
	a := startAlone(t, nil)
	opened := a.open()
	data := func(n int) []byte { return fmt.Appendf(nil, `{"cookie":{},"user":"u","n":%d}`, n) }
	for i := range 7 {
		if err := a.store.Create(t.Context(), fmt.Sprint("session ", i), session.Record{Data: data(0), TTL: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	execute(t, a.admin.Conn(), "INSERT INTO schema_system.session SELECT 'expired', sess, now() - interval '1 hour' FROM schema_system.session LIMIT 1")
	user := session.Key[string]("user")
	execute(t, a.admin.Conn(), `UPDATE schema_system.session SET sess = '{"cookie":{},"user":"revoked"}' WHERE sid = 'session 5'`)
	there := func(what string) string { return "SELECT count(*) FROM schema_system.session WHERE " + what }
	for _, kinds := range [][]struct {
		name string
		call func(context.Context) error
		done string // counts 1 when it is done, 0 before
	}{{
		{"Create", func(ctx context.Context) error {
			return a.store.Create(ctx, "created", session.Record{Data: data(0), TTL: time.Hour})
		}, there("sid = 'created'")},
		{"Update", func(ctx context.Context) error {
			return a.store.Update(ctx, "session 1", session.Change{Old: data(0), New: data(1)})
		}, there(`sid = 'session 1' AND sess->>'n' = '1'`)},
		{"Update that renews", func(ctx context.Context) error {
			return a.store.Update(ctx, "session 2", session.Change{Old: data(0), New: data(1), NewID: "renewed"})
		}, there("sid = 'renewed'")},
	}, {
		{"Touch", func(ctx context.Context) error { return a.store.Touch(ctx, "session 3", 3*time.Hour) }, there("sid = 'session 3' AND expire > now() + interval '2 hours'")},
		{"Delete", func(ctx context.Context) error { return a.store.Delete(ctx, "session 4") }, "SELECT 1 - count(*) FROM schema_system.session WHERE sid = 'session 4'"},
		{"Revoke", func(ctx context.Context) error { _, err := a.Manager.Revoke(ctx, user.Is("revoked")); return err }, "SELECT 1 - count(*) FROM schema_system.session WHERE sid = 'session 5'"},
	}, {
		{"Prune", func(ctx context.Context) error { _, err := a.Manager.Prune(ctx); return err }, "SELECT 1 - count(*) FROM schema_system.session WHERE sid = 'expired'"},
	}} {
		a.standby("nobody")
		read := a.reads()
		var calls sync.WaitGroup
		for _, k := range kinds {
			calls.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), brief) // until it has surely reached the server
				defer cancel()
				if err := k.call(ctx); !errors.Is(err, session.ErrUncertain) {
					t.Errorf("%s: got %v, want ErrUncertain", k.name, err)
				}
			})
		}
		calls.Wait()
		if got := a.get(waitingSQL); got != len(kinds) {
			t.Errorf("server processes that wait when the callers have gone: got %d, want %d, none cancelled", got, len(kinds))
		}
		for _, k := range kinds {
			if a.get(k.done) != 0 {
				t.Errorf("%s: it is seen before the standby has it", k.name)
			}
		}
		a.standby("")
		for _, k := range kinds {
			until(t, k.name+" is done", func() bool { return a.get(k.done) == 1 })
		}
		read()
		// They make sure of it before they come home, and would wait for the next.
		until(t, "all are home", func() bool { return a.Pool.Stat().AcquiredConns() == 1 }) // admin
	}
	a.whole(opened)
}

// 500 logouts at once without a standby: none is acknowledged, the others read as
// always, and when the standby is back all is as before.
func TestFaultStandbyDownLogouts(t *testing.T) {
	const leaving, reading = 500, 8
	a := startAlone(t, func(cfg *session.Config) {
		cfg.StoreTimeout = brief // so that no read is late, busy as the machine may be
		cfg.IdleTimeout = time.Hour
		cfg.TouchInterval = 200 * time.Millisecond // reads have touches to make, and give them up
	})
	opened := a.open()
	ledger := faults.NewLedger()
	browsers := make([]*faults.Browser, leaving+reading)
	each := func(from, to int, f func(*faults.Browser)) {
		var all sync.WaitGroup
		for _, b := range browsers[from:to] {
			all.Go(func() { f(b) })
		}
		all.Wait()
	}
	for i := range browsers {
		browsers[i] = ledger.NewBrowser(fmt.Sprintf("user %d", i), "", nil)
		t.Cleanup(browsers[i].Close)
		if got := browsers[i].Do(faults.Login, a.URL); !got.OK() {
			t.Fatalf("login: got status %d, want 2xx", got.Status)
		}
	}
	const rows = "SELECT count(*) FROM schema_system.session"
	before := a.get(rows)
	a.standby("nobody")

	var loggedOut, refused, reads atomic.Int64
	ended := make(chan struct{})
	var readers sync.WaitGroup
	for _, b := range browsers[leaving:] {
		readers.Go(func() {
			for {
				if got := b.Do(faults.Read, a.URL); !got.OK() {
					t.Errorf("a read meanwhile: got status %d, want 200", got.Status)
					return
				}
				reads.Add(1)
				select {
				case <-ended:
					return
				default:
				}
			}
		})
	}
	most := 0
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-ended:
				return
			default:
				most = max(most, a.get(waitingSQL))
			}
		}
	}()
	out := func(b *faults.Browser) {
		switch got := b.Do(faults.Logout, a.URL); {
		case got.OK():
			loggedOut.Add(1)
		case got.Status == 503:
			refused.Add(1)
		}
	}
	each(0, leaving, out)
	began := reads.Load()
	each(0, leaving, out) // and again, now that every place is held
	until(t, "reads go on", func() bool { return t.Failed() || reads.Load() >= began+20*reading })
	close(ended)
	<-watched
	readers.Wait()
	if loggedOut.Load() != 0 || refused.Load() != 2*leaving {
		t.Errorf("logouts: got %d answers of 2xx and %d of 503, want none and %d", loggedOut.Load(), refused.Load(), 2*leaving)
	}
	if most == 0 || most > a.places {
		t.Errorf("server processes that wait: got %d at most, want 1 to %d", most, a.places)
	}
	if got := a.get(rows); got != before {
		t.Errorf("rows meanwhile: got %d, want %d, nothing visible that may be lost", got, before)
	}
	t.Logf("%d reads, %d of them with every place for writes held; %d processes waited at most", reads.Load(), reads.Load()-began, most)

	a.standby("")
	until(t, "late logouts are done", func() bool { return a.get(rows) < before })
	a.whole(opened)
	until(t, "all writes are let in again", func() bool { // which is gradual
		browsers[leaving].Do(faults.Write, a.URL)
		return !a.Manager.Stats().WritesDown
	})
	// Some at a time: 500 at once take longer than StoreTimeout where the machine is
	// busy, and are refused then, as they should be.
	for from := 0; from < leaving; from += reading {
		each(from, min(from+reading, leaving), func(b *faults.Browser) {
			if got := b.Do(faults.Logout, a.URL); !got.OK() && got.Status != 409 {
				t.Errorf("a logout when the standby is back: got status %d, want 2xx", got.Status)
			}
		})
	}
	each(leaving, len(browsers), func(b *faults.Browser) {
		if got := b.Do(faults.Read, a.URL); !got.OK() || !b.LoggedIn() {
			t.Errorf("a read afterwards: got status %d, logged in %t, want 200, true", got.Status, b.LoggedIn())
		}
	})
	a.settle(ledger)
	table.add("no synchronous standby, 500 logouts twice", &faults.Report{
		Requests: int(2*leaving + reads.Load()), OK: int(reads.Load()), Unavailable: int(refused.Load()),
	}, faults.Findings{}, a.Pool.Stat().NewConnsCount()-opened)
}

// settle compares the table with the ledger.
func (a *alone) settle(l *faults.Ledger) {
	a.t.Helper()
	rows, err := faults.ReadRows(a.t.Context(), a.Pool)
	if err != nil {
		a.t.Fatal(err)
	}
	l.Audit(rows)
	if found, notes := l.Findings(); found != (faults.Findings{}) {
		a.t.Errorf("the ledger: got %+v, want none: %q", found, notes)
	}
}

// The synchronous standby stops, and while it is down the primary is told to stop
// as well, or dies; then the standby is promoted. What was answered with success
// before is there, and what was not may be.
func TestFaultStandbyDownThenFailover(t *testing.T) {
	for _, mode := range []string{"immediate", "fast"} {
		t.Run(mode, func(t *testing.T) {
			primary, standby := pair(t)
			one, errOne := url.Parse(primary.URL())
			two, errTwo := url.Parse(standby.URL())
			if errOne != nil || errTwo != nil {
				t.Fatal("a URL cannot be parsed")
			}
			one.Host += "," + two.Host
			one.RawQuery += "&target_session_attrs=read-write"
			r := newRig(t, one.String(), rigOptions{timeout: brief, load: faults.Load{
				Mix: map[faults.Kind]int{faults.Read: 40, faults.Write: 20, faults.Add: 10, faults.Renew: 10, faults.Logout: 15, faults.Replay: 5},
			}})
			if err := standby.Stop(t.Context(), "fast"); err != nil {
				t.Fatal(err)
			}
			r.waitRefused()
			if err := primary.Stop(t.Context(), mode); err != nil {
				t.Fatal(err)
			}
			if err := standby.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := standby.Promote(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.wait(recovery)
			res := r.finish("standby stopped, primary stopped -m " + mode + ", standby promoted")
			if res.Unavailable < refusals || res.Other != 0 {
				t.Errorf("got %d answers of 503 and %d broken ones, want at least %d and none", res.Unavailable, res.Other, refusals)
			}
			res.reconnected(t, 2)
		})
	}
}
