package pgrun_test

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/pgrun"
)

// A statement bounds its wait for a row lock by what its caller has left, and
// never by zero, which PostgreSQL takes for no bound at all.
func TestLockTimeout(t *testing.T) {
	r := newRig(t, 1)
	for _, tt := range []struct {
		name        string
		limit       time.Duration
		least, most time.Duration
	}{
		{"seconds", 100 * time.Second, 50 * time.Second, 100*time.Second - 250*time.Millisecond},
		{"the default", 0, patience / 2, patience - 250*time.Millisecond},
	} {
		ctx, cancel := t.Context(), context.CancelFunc(func() {})
		if tt.limit > 0 {
			ctx, cancel = context.WithTimeout(ctx, tt.limit)
		}
		defer cancel()
		got, err := pgrun.Run(ctx, r.runner, pgrun.Once, func(ctx context.Context, c *pgx.Conn) (v string, err error) {
			return v, c.QueryRow(ctx, "SELECT set_config('lock_timeout', $1::text, true)", pgrun.LockTimeout(ctx)).Scan(&v)
		})
		if d, bad := time.ParseDuration(got); err != nil || bad != nil || d < tt.least || d > tt.most {
			t.Errorf("%s: got %q, %v, want from %v to %v", tt.name, got, err, tt.least, tt.most)
		}
	}
	if got := pgrun.LockTimeout(t.Context()); got != "1ms" {
		t.Errorf("nothing left: got %q, want 1ms", got)
	}
}

// writeLate has n writes go late: they wait for the lock. It returns when all
// their callers have gone. One that a busy machine has not even sent in time has more:
// had it been sent, one more would be late in the end.
func (r *rig) writeLate(n int, repeat pgrun.Repetition) {
	r.t.Helper()
	together(n, func(int) {
		for limit := 400 * time.Millisecond; ; limit *= 2 {
			ctx, cancel := context.WithTimeout(r.t.Context(), limit)
			_, err := r.wait(ctx, repeat)
			over := ctx.Err() != nil
			cancel()
			if limit < patience && errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, errUncertain) {
				continue
			}
			if !errors.Is(err, errUncertain) || !errors.Is(err, context.DeadlineExceeded) || !over {
				r.t.Errorf("a late write: got %v, want uncertain, at the deadline", err)
			}
			return
		}
	})
	r.until("they are late", func() bool { return r.runner.Late() == n })
}

// until asks every millisecond whether something has come true.
func (r *rig) until(what string, come func() bool) {
	r.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !come(); <-tick.C {
		if time.Now().After(deadline) {
			r.t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

// waiting returns the server processes that wait for the lock.
func (r *rig) waiting() (pids []uint32) {
	r.t.Helper()
	rows, err := r.admin.Query(r.t.Context(), waitingSQL)
	if err != nil {
		r.t.Fatal(err)
	}
	if pids, err = pgx.CollectRows(rows, pgx.RowTo[uint32]); err != nil {
		r.t.Fatal(err)
	}
	return pids
}

const waitingSQL = `SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
	AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`

// terminate ends the server processes that wait for the lock.
func (r *rig) terminate() {
	r.t.Helper()
	for _, pid := range r.waiting() {
		if _, err := r.admin.Exec(r.t.Context(), "SELECT pg_terminate_backend($1)", pid); err != nil {
			r.t.Fatal(err)
		}
		r.until("it is gone", func() bool {
			var n int
			return r.admin.QueryRow(r.t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid).Scan(&n) == nil && n == 0
		})
	}
}

// home checks that late writes have come home to the connections that were there
// before, and that writes go on.
func (r *rig) home(before []uint32) {
	r.t.Helper()
	r.until("all are home", func() bool { return r.runner.Late() == 0 })
	if after := r.pids(); !slices.Equal(before, after) {
		r.t.Errorf("connections: got %v, want the same as before, %v", after, before)
	}
	r.writes()
}

// writes checks that writes go on.
func (r *rig) writes() {
	r.t.Helper()
	if got, err := r.wait(r.t.Context(), pgrun.Once); got != "answer" || err != nil {
		r.t.Errorf("a write afterwards: got %q, %v, want an answer", got, err)
	}
}

func (r *rig) noCancels() {
	r.t.Helper()
	if got := r.proxy.cancels.Load(); got != 0 {
		r.t.Errorf("cancel requests: got %d, want none", got)
	}
}

// Late writes keep their connections, and nobody cancels them. When they hold
// every place that there is for writes, other writes fail at once, those that
// wait for a place as well, and reads go on.
func TestLateWritesAreLeftAlone(t *testing.T) {
	const conns, places = 8, 2
	for _, repeat := range []struct {
		name string
		pgrun.Repetition
	}{{"once", pgrun.Once}, {"repeatable", pgrun.Repeatable}, {"shared", pgrun.Repeatable.Shared()}} {
		t.Run(repeat.name, func(t *testing.T) {
			r := newRig(t, conns)
			before := r.pids()
			unlock := r.lock()
			refused := func(what string, err error) {
				t.Helper()
				if err == nil || errors.Is(err, errUncertain) || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "nothing was sent") {
					t.Errorf("%s: got %v, want that nothing was sent, before the deadline", what, err)
				}
			}
			notRun := func(context.Context, *pgx.Conn) (struct{}, error) {
				t.Error("a statement was run, want none")
				return struct{}{}, nil
			}
			waiter := make(chan error, 1)
			go func() {
				r.await(places)
				_, err := pgrun.Run(t.Context(), r.runner, pgrun.Once, notRun)
				waiter <- err
			}()
			r.writeLate(places, repeat.Repetition)
			refused("one that waited", <-waiter)
			_, err := pgrun.Run(t.Context(), r.runner, pgrun.Repeatable, notRun)
			refused("another", err)
			together(conns-places, func(int) {
				got, err := pgrun.Run(t.Context(), r.runner, pgrun.Read, func(ctx context.Context, c *pgx.Conn) (n int, err error) {
					return n, c.QueryRow(ctx, "SELECT 1").Scan(&n)
				})
				if got != 1 || err != nil {
					t.Errorf("a read: got %d, %v, want 1", got, err)
				}
			})
			unlock()
			r.home(before)
			// From then on others wait for a place, and all have an answer.
			unlock = r.lock()
			answers := make(chan error, 2*places)
			for range cap(answers) {
				go func() {
					_, err := r.wait(t.Context(), repeat.Repetition)
					answers <- err
				}()
			}
			r.await(places)
			unlock()
			for range cap(answers) {
				if err := <-answers; err != nil {
					t.Errorf("a write afterwards: got %v, want no error", err)
				}
			}
			r.noCancels()
		})
	}
}

// With a place left a write waits until its deadline, and nothing was sent.
func TestAWriteWaitsForAPlace(t *testing.T) {
	r := newRig(t, 8)
	before := r.pids()
	unlock := r.lock()
	other := make(chan error, 1)
	go func() { // has time
		_, err := r.wait(t.Context(), pgrun.Once)
		other <- err
	}()
	r.await(1)
	r.writeLate(1, pgrun.Once)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := r.wait(ctx, pgrun.Once)
	if errors.Is(err, errUncertain) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 of them with writes that are late") {
		t.Errorf("got %v, want certain, at the deadline, and why", err)
	}
	unlock()
	if err := <-other; err != nil {
		t.Errorf("the one that had time: got %v, want no error", err)
	}
	r.home(before)
	r.noCancels()
}

// A write that was begun shortly before its caller's deadline is soon over: those
// who wait for its place are not turned away.
func TestAWriteThatHadNoTimeIsNotLate(t *testing.T) {
	r := newRig(t, 4)
	for !r.writeWithoutTime() {
		r.until("all are home", func() bool { return r.runner.Late() == 0 })
	}
}

// writeWithoutTime is that test. It is not ok where a busy machine has given the write
// the second after which it would be late.
func (r *rig) writeWithoutTime() (ok bool) {
	r.t.Helper()
	unlock := r.lock()
	r.pids() // there are connections
	var start time.Time
	// hasNoTime begins a write that has a moment, and says what becomes of it. On a
	// busy machine that may be too little even to begin.
	hasNoTime := func() <-chan error {
		start = time.Now()
		ctx, cancel := context.WithTimeout(r.t.Context(), 100*time.Millisecond)
		began, over := make(chan struct{}), make(chan error, 1)
		go func() {
			defer cancel()
			_, err := pgrun.Run(ctx, r.runner, pgrun.Once, func(ctx context.Context, c *pgx.Conn) (struct{}, error) {
				close(began)
				_, err := c.Exec(ctx, "SELECT pg_advisory_xact_lock_shared(1)")
				return struct{}{}, err
			})
			over <- err
		}()
		select {
		case <-began:
			return over
		case err := <-over:
			if errors.Is(err, errUncertain) { // it began all the same
				over = make(chan error, 1)
				over <- err
				return over
			}
			return nil
		}
	}
	over := hasNoTime()
	for over == nil {
		over = hasNoTime()
	}
	waits := make(chan error, 1)
	go func() {
		_, err := r.wait(r.t.Context(), pgrun.Once)
		waits <- err
	}()
	errNoTime, late := <-over, r.runner.Late()
	unlock()
	errWaits := <-waits
	if time.Since(start) > time.Second*9/10 {
		return false
	}
	if !errors.Is(errNoTime, errUncertain) {
		r.t.Errorf("the one without time: got %v, want uncertain", errNoTime)
	}
	if late != 0 {
		r.t.Errorf("late writes at its deadline: got %d, want none", late)
	}
	if errWaits != nil {
		r.t.Errorf("the one that waits for its place: got %v, want no error", errWaits)
	}
	return true
}

// Never are there more writes under way than a quarter of the pool.
func TestWritesTakeAQuarterOfThePool(t *testing.T) {
	for _, tt := range []struct{ conns, places int64 }{{1, 1}, {7, 1}, {12, 3}} {
		r := newRig(t, int32(tt.conns))
		var now, most atomic.Int64
		together(24, func(int) {
			_, err := pgrun.Run(t.Context(), r.runner, pgrun.Once, func(ctx context.Context, c *pgx.Conn) (struct{}, error) {
				n := now.Add(1)
				defer now.Add(-1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				_, err := c.Exec(ctx, "SELECT pg_sleep(0.005)")
				return struct{}{}, err
			})
			if err != nil {
				t.Error(err)
			}
		})
		if most.Load() > tt.places {
			t.Errorf("of %d connections: got %d writes at once, want %d at most", tt.conns, most.Load(), tt.places)
		}
	}
}

// A caller that goes before its deadline leaves a write that is not late: nobody
// fails for it.
func TestAWriteWhoseCallerGivesUpIsNotLate(t *testing.T) {
	r := newRig(t, 4)
	before := r.pids()
	unlock := r.lock()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := r.wait(ctx, pgrun.Once)
		done <- err
	}()
	r.await(1)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || !errors.Is(err, errUncertain) {
		t.Errorf("got %v, want context.Canceled, and uncertain", err)
	}
	next := make(chan error, 1)
	go func() {
		_, err := r.wait(t.Context(), pgrun.Once)
		next <- err
	}()
	unlock()
	if err := <-next; err != nil {
		t.Errorf("the next: got %v, want no error", err)
	}
	r.home(before)
	r.noCancels()
}

// What the server has ended, or never begun, is found by a look from another
// connection; its own connection, which says nothing, is closed then. No cancel
// request that the server would heed is sent for it.
func TestALateWriteThatTheServerIsNotAt(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lose  func(r *rig, pid uint32, unlock func())
		looks int64 // at least
	}{
		{"its process is gone", func(r *rig, _ uint32, _ func()) {
			r.terminate()
			r.until("the proxy knows", func() bool { return r.proxy.held.Load() > 0 })
		}, 1},
		{"its process is idle", func(r *rig, pid uint32, unlock func()) {
			r.looks.Store(0) // before: on a busy machine both may come while we wait
			unlock()
			r.await(0)
			r.until("its answer is lost", func() bool { _, lost := r.proxy.lost.Load(pid); return lost })
		}, 2}, // at the first the answer may be under way
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, 4)
			r.pids()
			unlock := r.lock()
			r.writeLate(1, pgrun.Once)
			pid := r.waiting()[0]
			r.proxy.mute.Store(true)
			tt.lose(r, pid, unlock)
			r.proxy.mute.Store(false)
			r.pool.Reset() // those that were muted have lost what was said
			r.until("it was given up", func() bool { return r.runner.Late() == 0 })
			if got := r.looks.Load(); got < tt.looks {
				t.Errorf("looks: got %d, want %d at least", got, tt.looks)
			}
			unlock()
			if slices.Contains(r.pids(), pid) {
				t.Error("the connection that says nothing is still there")
			}
			r.writes()
		})
	}
}

// One that the server works at is left to it, however often somebody looks.
func TestALateWriteThatTheServerIsAt(t *testing.T) {
	r := newRig(t, 4)
	before := r.pids()
	unlock := r.lock()
	r.writeLate(1, pgrun.Once)
	r.until("three looks", func() bool { return r.looks.Load() >= 3 })
	if r.runner.Late() != 1 {
		t.Error("it was given up")
	}
	unlock()
	r.home(before)
	r.noCancels()
}

// Where reads get no answer either nothing is to be expected of late writes.
func TestLateWritesOfADeadServer(t *testing.T) {
	for _, tt := range []struct {
		name string
		die  func(*rig, *atomic.Bool)
	}{
		{"somebody else has found out", func(_ *rig, dead *atomic.Bool) { dead.Store(true) }},
		{"silence", func(r *rig, _ *atomic.Bool) { r.proxy.deaf.Store(true) }},
		{"the pool is closed", func(r *rig, _ *atomic.Bool) { r.pool.Close() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, 4)
			var dead atomic.Bool
			r.runner.Dead = dead.Load
			r.pids()
			unlock := r.lock()
			r.writeLate(1, pgrun.Once)
			tt.die(r, &dead)
			r.until("it was given up", func() bool { return r.runner.Late() == 0 })
			if got := len(r.waiting()); got != 1 {
				t.Errorf("statements that wait in the server: got %d, want the one that nobody has cancelled", got)
			}
			r.proxy.deaf.Store(false)
			r.proxy.cut() // or the pool's end would wait for what was lost
			unlock()
		})
	}
}

// A pooler tells other process IDs than the server's: what they say there is
// nothing to go by.
func TestLooksBehindAPooler(t *testing.T) {
	r := newRig(t, 1)
	look := func() map[uint32]string {
		t.Helper()
		states, err := pgrun.Run(t.Context(), r.runner, pgrun.Read, func(ctx context.Context, c *pgx.Conn) (map[uint32]string, error) {
			return pgrun.Processes(ctx, c, []int32{int32(c.PgConn().PID()), 1})
		})
		if err != nil {
			t.Fatal(err)
		}
		return states
	}
	if got := look(); len(got) != 1 || slices.Collect(maps.Values(got))[0] != "active" {
		t.Errorf("without one: got %v, want itself, active", got)
	}
	r.proxy.foreign.Store(true)
	r.pool.Reset()
	if got := look(); got != nil {
		t.Errorf("with one: got %v, want nil", got)
	}
}

// A connection breaks under a write, and pgx sends a cancel request: the server
// does not heed it.
func TestABrokenConnectionCancelsNoWrite(t *testing.T) {
	r := newRig(t, 4)
	r.pids()
	unlock := r.lock()
	done := make(chan error, 1)
	go func() {
		_, err := r.wait(t.Context(), pgrun.Once)
		done <- err
	}()
	r.await(1)
	r.proxy.cut()
	if err := <-done; !errors.Is(err, errUncertain) {
		t.Errorf("got %v, want uncertain", err)
	}
	<-r.proxy.passed                                                             // a cancel request, which the server has answered
	if _, err := r.admin.Exec(t.Context(), "SELECT pg_sleep(0.3)"); err != nil { // time for it to be heeded
		t.Fatal(err)
	}
	if got := len(r.waiting()); got != 1 {
		t.Errorf("statements that wait in the server: got %d, want the one", got)
	}
	unlock()
	// Reads can be cancelled on a connection that has carried a write.
	r.writes()
	unlock = r.lock()
	defer unlock()
	var err error
	for patience := 400 * time.Millisecond; patience < 10*time.Second && pgrun.SQLState(err) != "57014"; patience *= 2 { // a busy machine needs more
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err = r.wait(ctx, pgrun.Read)
		cancel()
	}
	if pgrun.SQLState(err) != "57014" {
		t.Errorf("a late read after a write: got %v, want that it was cancelled", err)
	}
}

// Without a connection an impatient statement gives up early. One that has a
// connection has all the time that its context gives it.
func TestImpatience(t *testing.T) {
	r := newRig(t, 4)
	r.pids() // or who dials may come too late for an impatient one
	for name, repeat := range map[string]pgrun.Repetition{"read": pgrun.Read, "write": pgrun.Once} {
		unlock := r.lock()
		done := make(chan error, 1)
		go func() {
			_, err := r.wait(pgrun.Impatient(t.Context()), repeat)
			done <- err
		}()
		r.await(1)
		if repeat == pgrun.Once { // no place
			if _, err := r.wait(pgrun.Impatient(t.Context()), repeat); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "within 250ms") {
				t.Errorf("%s without a place: got %v, want that there is none within 250ms", name, err)
			}
		}
		held := r.pool.AcquireAllIdle(t.Context())
		for len(held) < 3 {
			c, err := r.pool.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, c)
		}
		_, err := r.wait(pgrun.Impatient(t.Context()), pgrun.Read)
		if errors.Is(err, errUncertain) || !errors.Is(err, context.DeadlineExceeded) || t.Context().Err() != nil ||
			!strings.Contains(err.Error(), "within 250ms: 3 of the 4 connections of the pool are held by others: handlers") {
			t.Errorf("%s without a connection: got %v, want that others hold 3 of 4", name, err)
		}
		unlock()
		if err := <-done; err != nil {
			t.Errorf("%s with a connection: got %v, want no error", name, err)
		}
		for _, c := range held {
			c.Release()
		}
	}
}

// A statement without arguments whose connection breaks: pgx calls that safe to
// retry, and it is not.
func TestABrokenConnectionRunsNothingTwice(t *testing.T) {
	r := newRig(t, 4)
	r.pids()
	unlock := r.lock()
	done := make(chan error, 1)
	go func() { done <- r.exec(t.Context(), pgrun.Once, "SELECT pg_advisory_xact_lock_shared(1)") }()
	r.await(1)
	r.proxy.cut()
	if err := <-done; !errors.Is(err, errUncertain) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want uncertain, at once", err)
	}
	if got := len(r.waiting()); got > 1 {
		t.Errorf("statements that wait in the server: got %d, want the one", got)
	}
	unlock()
}

// kept is a connection that notes how it is kept alive.
type kept struct {
	net.Conn
	cfg net.KeepAliveConfig
}

func (k *kept) SetKeepAliveConfig(cfg net.KeepAliveConfig) error { k.cfg = cfg; return nil }

// inside is a connection in another, as TLS has it.
type inside struct {
	net.Conn
	in net.Conn
}

func (c inside) NetConn() net.Conn { return c.in }

// A peer that has gone without a word is found by the kernel within a minute.
func TestKeepAlive(t *testing.T) {
	for _, in := range []bool{false, true} {
		k := &kept{}
		if in {
			pgrun.KeepAlive(inside{in: k})
		} else {
			pgrun.KeepAlive(k)
		}
		if c := k.cfg; !c.Enable || c.Idle+c.Interval*time.Duration(c.Count) > time.Minute {
			t.Errorf("inside another %t: got %+v, want a minute at most", in, c)
		}
	}
	pgrun.KeepAlive(inside{}) // a kind of connection that has none
}
