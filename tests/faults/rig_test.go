package faults_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/tests/faults"
)

const (
	conns = 6 // of a program's pool

	warmUp   = 150 // requests before a fault
	recovery = 250 // and after it

	// brief is a StoreTimeout for faults that outlast it. Whoever is not met by the fault
	// has to be answered within it, busy as the machine may be. ample outlasts a restart.
	brief = 5 * time.Second
	ample = 20 * time.Second

	// refusals is how many requests must meet a fault that outlasts brief.
	refusals = 40

	applicationName = "program under test"
)

// crowd is a load for faults that each request waits out for its whole time: enough of
// them do so at once, and few of a browser, which lets one renew after the other.
var crowd = faults.Load{Sessions: 24, Workers: refusals}

// rig is two programs on one database under load.
type rig struct {
	t        *testing.T
	ledger   *faults.Ledger
	programs []*faults.Program
	run      *faults.Run
	witness  *witness // of faults that shall be over in time
	opened   int64    // connections before the fault
}

type rigOptions struct {
	timeout time.Duration // StoreTimeout
	pool    func(*pgxpool.Config)
	load    faults.Load
}

// newRig starts programs and a load, and returns when the pools are warm.
func newRig(t *testing.T, dbURL string, o rigOptions) *rig {
	t.Helper()
	r := &rig{t: t, ledger: faults.NewLedger()}
	if o.timeout == ample {
		r.witness = newWitness(t, dbURL)
	}
	for range 2 {
		p, err := faults.StartProgram(t.Context(), dbURL, faults.ProgramOptions{
			Pool: func(cfg *pgxpool.Config) {
				cfg.MaxConns = conns
				cfg.ConnConfig.RuntimeParams["application_name"] = applicationName
				if o.pool != nil {
					o.pool(cfg)
				}
			},
			Config: func(cfg *session.Config) {
				cfg.StoreTimeout = o.timeout
				cfg.IdleTimeout = time.Hour                // less than most time zones are off
				cfg.TouchInterval = 200 * time.Millisecond // every few reads move the expiry
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		r.programs = append(r.programs, p)
	}
	o.load.Ledger = r.ledger
	o.load.Target = func() string { return r.programs[rand.IntN(len(r.programs))].URL }
	r.run = o.load.Start()
	t.Cleanup(r.run.Close)
	t.Cleanup(func() {
		if r.run != nil {
			r.run.Stop()
		}
	})
	r.wait(warmUp)
	for _, p := range r.programs {
		r.hold(p)()
	}
	r.opened = r.connections()
	return r
}

// hold takes all connections of a program's pool, and returns what gives them
// back.
func (r *rig) hold(p *faults.Program) (release func()) {
	r.t.Helper()
	var held []*pgxpool.Conn
	for range p.Pool.Config().MaxConns {
		c, err := p.Pool.Acquire(r.t.Context())
		if err != nil {
			r.t.Fatal(err)
		}
		held = append(held, c)
	}
	release = sync.OnceFunc(func() {
		for _, c := range held {
			c.Release()
		}
	})
	r.t.Cleanup(release) // or the pool could not be closed
	return release
}

// connections returns how many connections the programs have opened.
func (r *rig) connections() int64 {
	var n int64
	for _, p := range r.programs {
		n += p.Pool.Stat().NewConnsCount()
	}
	return n
}

// storeErrors returns how many the programs have counted.
func (r *rig) storeErrors() uint64 {
	var n uint64
	for _, p := range r.programs {
		n += p.Manager.Stats().StoreErrors
	}
	return n
}

// wait returns when n more requests were answered with 2xx.
func (r *rig) wait(n int) {
	r.t.Helper()
	if err := r.run.Wait(n); err != nil {
		r.t.Fatal(err)
	}
}

// waitRefused returns when enough requests have met the fault, and those then under
// way have been answered too: none waits for its end.
func (r *rig) waitRefused() {
	r.t.Helper()
	if err := r.run.WaitFailed(refusals); err != nil {
		r.t.Fatal(err)
	}
	r.run.WaitAnswered()
}

// waitOpen returns when no program holds the database for down any more.
func (r *rig) waitOpen() {
	r.t.Helper()
	until(r.t, "the database is up for all", func() bool {
		for _, p := range r.programs {
			if s := p.Manager.Stats(); s.ReadsDown || s.WritesDown {
				return false
			}
		}
		return true
	})
}

// result is what a fault has come to.
type result struct {
	faults.Report
	witness *witness
	opened  int64
}

// finish ends the load and settles accounts: everybody who was logged in still
// is, in both programs, and the table agrees with the ledger.
func (r *rig) finish(fault string) result {
	r.t.Helper()
	rep := r.run.Stop()
	opened := r.connections() - r.opened
	if r.witness != nil {
		r.witness.end()
	}
	for _, b := range r.run.Browsers() {
		for _, p := range r.programs {
			if !b.LoggedIn() {
				continue
			}
			if a := b.Do(faults.Read, p.URL); !a.OK() {
				r.t.Errorf("a read after it: got status %d, want 200", a.Status)
			}
		}
	}
	r.run = nil
	rows, err := faults.ReadRows(r.t.Context(), r.programs[0].Pool)
	if err != nil {
		r.t.Fatal(err)
	}
	r.ledger.Audit(rows)
	found, notes := r.ledger.Findings()
	if found != (faults.Findings{}) {
		r.t.Errorf("the ledger: got %+v, want none: %q", found, notes)
	}
	for fault, n := range rep.Faults {
		r.t.Errorf("%s: got %d, want none", fault, n)
	}
	for _, kind := range []faults.Kind{faults.Public, faults.Visit} {
		if n := rep.Since(time.Time{}, kind); n != 0 {
			r.t.Errorf("pages that need no session (%s): got %d failures, want none", kind, n)
		}
	}
	table.add(fault, &rep, found, opened)
	return result{rep, r.witness, opened}
}

// unharmed checks that no client has seen anything of the fault. Where the machine needed
// so long that it was an outage, those who then asked were refused.
func (r *result) unharmed(t *testing.T) {
	t.Helper()
	if n := r.failed(t, time.Time{}, ""); n != 0 {
		t.Errorf("got %d failed answers, the slowest after %v, want none", n, r.Slowest())
	}
}

// failed counts the failed answers to requests of a kind that began at from or later,
// without those that the witness excuses.
func (r *result) failed(t *testing.T, from time.Time, kind faults.Kind) int {
	t.Helper()
	n, excused := 0, 0
	for _, a := range r.Failed {
		switch {
		case a.Began.Before(from) || kind != "" && a.Kind != kind:
		case r.witness != nil && r.witness.excuses(a):
			excused++
		default:
			n++
		}
	}
	if excused != 0 {
		t.Logf("refused while the database was silent for %v: %d", r.witness.silences, excused)
	}
	return n
}

// refused checks that the fault was met, and answered by 503 while it lasted
// ([rig.waitRefused]): who waits longer than a browser does gets a broken answer.
func (r *result) refused(t *testing.T) {
	t.Helper()
	if r.Unavailable < refusals || r.Other != 0 {
		t.Errorf("got %d answers of 503 and %d broken ones, want at least %d and none", r.Unavailable, r.Other, refusals)
	}
}

// persisted checks that no request was given up before its time.
func (r *result) persisted(t *testing.T, within time.Duration) {
	t.Helper()
	for _, a := range r.Failed {
		if a.Took < within/2 {
			t.Errorf("a %s was given up after %v, want about %v", a.Kind, a.Took, within)
			return
		}
	}
}

// recovered checks that no read that began at back or later has failed.
func (r *result) recovered(t *testing.T, back time.Time) {
	t.Helper()
	if n := r.failed(t, back, faults.Read); n != 0 {
		t.Errorf("reads once it was back: got %d failures, want none", n)
	}
}

// reconnected checks that at least n connections were replaced: that the fault
// has happened.
func (r *result) reconnected(t *testing.T, n int64) {
	t.Helper()
	if r.opened < n {
		t.Errorf("connections opened: got %d, want at least %d", r.opened, n)
	}
}

// kept checks that no connection was lost.
func (r *result) kept(t *testing.T) {
	t.Helper()
	if r.opened != 0 {
		t.Errorf("connections opened: got %d, want none", r.opened)
	}
}

// newServer is a server of the test's own.
func newServer(t *testing.T) *pgtest.Server { return pgtest.Own(t, pgtest.Options{}) }

// until looks every millisecond whether something has come true.
func until(t *testing.T, what string, come func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !come(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not in a minute: %s", what)
		}
	}
}

// admin is a connection beside the programs.
func admin(t *testing.T, dbURL string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), dbURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func execute(t *testing.T, c *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := c.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func get[T any](t *testing.T, c *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := c.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}
