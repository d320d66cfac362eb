package pgrun_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/pgrun"
	"github.com/pgsession/session/internal/pgtest"
)

// patience bounds every wait that should be short.
const patience = 30 * time.Second

var (
	errUncertain = errors.New("uncertain")
	errInvalid   = errors.New("invalid")
)

// rig is a Runner whose pool goes through a proxy, and a way around it.
type rig struct {
	t      *testing.T
	proxy  *proxy
	pool   *pgxpool.Pool
	admin  *pgxpool.Pool
	runner *pgrun.Runner
	looks  looks
}

// looks counts the looks at what late writes are doing.
type looks struct{ atomic.Int64 }

func (l *looks) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if data.SQL == pgrun.SQLProcesses {
		l.Add(1)
	}
	return ctx
}

func (l *looks) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func newRig(t *testing.T, conns int32) *rig {
	t.Helper()
	return newRigOn(t, pgtest.URL(t), conns)
}

func newRigOn(t *testing.T, dbURL string, conns int32) *rig {
	t.Helper()
	p := newProxy(t, dbURL)
	r := &rig{t: t, proxy: p}
	open := func(url string, conns int32) *pgxpool.Pool {
		cfg, err := pgxpool.ParseConfig(url)
		if err != nil {
			t.Fatal("the URL cannot be parsed")
		}
		cfg.MaxConns = conns
		cfg.ConnConfig.Tracer = &r.looks
		cfg.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
		pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		return pool
	}
	r.pool, r.admin = open(p.url, conns), open(dbURL, 2)
	r.runner = pgrun.New(r.pool, patience, pgrun.Errors{Uncertain: errUncertain, Invalid: errInvalid})
	return r
}

// pids returns the server processes of all the pool's connections, having made
// sure that they are there and work.
func (r *rig) pids() (pids []uint32) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for range r.pool.Config().MaxConns {
		c, err := r.pool.Acquire(ctx)
		if err != nil {
			r.t.Fatal(err)
		}
		defer c.Release()
		if err := c.Ping(ctx); err != nil {
			r.t.Error(err)
		}
		pids = append(pids, c.Conn().PgConn().PID())
	}
	slices.Sort(pids)
	return pids
}

// lock takes an advisory lock that statements then wait for, until unlock.
func (r *rig) lock() (unlock func()) {
	r.t.Helper()
	conn, err := r.admin.Acquire(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	unlock = sync.OnceFunc(func() {
		_, err := conn.Exec(context.Background(), "SELECT pg_advisory_unlock(1)")
		conn.Release()
		if err != nil {
			r.t.Error(err)
		}
	})
	r.t.Cleanup(unlock)
	if _, err := conn.Exec(context.Background(), "SELECT pg_advisory_lock(1)"); err != nil {
		r.t.Fatal(err)
	}
	return unlock
}

// await waits until n statements wait for the lock.
func (r *rig) await(n int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for got := -1; got != n; {
		const sql = `SELECT count(*), pg_sleep(0.002) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`
		if err := r.admin.QueryRow(ctx, sql).Scan(&got, nil); err != nil {
			r.t.Fatalf("waiting for %d statements that wait for the lock, got %d: %v", n, got, err)
		}
	}
}

// wait is a statement that waits for the lock, and leaves it at once.
func (r *rig) wait(ctx context.Context, repeat pgrun.Repetition) (string, error) {
	return pgrun.Run(ctx, r.runner, repeat, func(ctx context.Context, c *pgx.Conn) (answer string, err error) {
		return answer, c.QueryRow(ctx, `SELECT 'answer' FROM pg_advisory_lock_shared(1), LATERAL (SELECT pg_advisory_unlock_shared(1)) u`).Scan(&answer)
	})
}

// together runs f(0) to f(n-1) at once: all stand at a gate until the last has
// come.
func together(n int, f func(int)) {
	var at, done sync.WaitGroup
	gate := make(chan struct{})
	at.Add(n)
	for i := range n {
		done.Go(func() {
			at.Done()
			<-gate
			f(i)
		})
	}
	at.Wait()
	close(gate)
	done.Wait()
}

// Twelve late reads at once, where each connection and each cancel request
// costs 30 ms and they wait for each other: all twelve take longer than the
// statements have. No connection is lost, none is made, and PostgreSQL is never
// asked for more than a few forks at once.
func TestAStormOfLateStatementsLosesNoConnection(t *testing.T) {
	const callers, limit, rounds = 12, 600 * time.Millisecond, 3
	r := newRig(t, callers)
	before := r.pids()
	logins := r.proxy.logins.Load()
	r.proxy.cost.Store(int64(30 * time.Millisecond))
	unlock := r.lock()
	var inTime atomic.Int64
	for range rounds {
		together(callers, func(int) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			start := time.Now()
			if _, err := r.wait(ctx, pgrun.Read); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want a deadline exceeded", err)
			}
			if took := time.Since(start); took > limit+patience { // it does not hang
				t.Errorf("back after %v, want about %v", took, limit)
			}
			if ctx.Err() == nil {
				inTime.Add(1)
			}
		})
	}
	after := r.pids() // those that are not home yet are waited for
	unlock()
	if !slices.Equal(before, after) || r.proxy.logins.Load() != logins {
		t.Errorf("connections: got %v after %v, and %d new ones, want the same and none", after, before, r.proxy.logins.Load()-logins)
	}
	if got := r.proxy.cancels.Load(); got > 2*callers*rounds {
		t.Errorf("cancel requests: got %d, want %d at most, two for each statement", got, 2*callers*rounds)
	}
	if got := r.proxy.most.Load(); got > 2 {
		t.Errorf("cancel requests at once: got %d, want 2 at most", got)
	}
	if inTime.Load() == 0 {
		t.Error("back before the deadline: got none of the callers, want many")
	}
	if got, err := r.wait(t.Context(), pgrun.Once); got != "answer" || err != nil {
		t.Errorf("afterwards: got %q, %v, want an answer", got, err)
	}
}

// A server that takes long to cancel a statement: the first caller goes at its
// deadline without knowing, and its connection comes home behind its back. From
// that the margin is known, and the next caller hears in time what became of its
// statement.
func TestTheMarginFollowsTheCost(t *testing.T) {
	const limit, cost = 2 * time.Second, 500 * time.Millisecond
	r := newRig(t, 1)
	before := r.pids()
	r.proxy.cost.Store(int64(cost))
	unlock := r.lock()
	call := func() (inTime bool, err error) {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		_, err = r.wait(ctx, pgrun.Read)
		return ctx.Err() == nil, err
	}
	if inTime, err := call(); inTime || errors.Is(err, errUncertain) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the first: got %v, in time %t, want no answer at the deadline", err, inTime)
	}
	if after := r.pids(); !slices.Equal(before, after) {
		t.Errorf("connections: got %v, want %v", after, before)
	}
	inTime, err := call()
	for range 9 { // a busy machine needs more than it has cost so far
		if inTime {
			break
		}
		r.pids() // once it is home
		inTime, err = call()
	}
	if !inTime || errors.Is(err, errUncertain) || pgrun.SQLState(err) != "57014" || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the next: got %v, in time %t, want that it was cancelled, in time", err, inTime)
	}
	after := r.pids()
	unlock()
	if !slices.Equal(before, after) {
		t.Errorf("connections: got %v, want %v", after, before)
	}
}

func TestMargin(t *testing.T) {
	const ms = time.Millisecond
	r := pgrun.New(lazyPool(t), time.Second, pgrun.Errors{})
	check := func(what string, left, want time.Duration) {
		t.Helper()
		if got := r.Margin(left).Round(ms); got != want {
			t.Errorf("%s, %v left: got %v, want %v", what, left, got, want)
		}
	}
	check("nothing known", 5*time.Second, 250*ms)
	check("nothing known", 600*ms, 150*ms)
	check("nothing known", 0, 0)
	r.Paid(2 * ms)
	check("a cheap one", 5*time.Second, 250*ms)
	r.Paid(400 * ms)
	check("a dear one", 5*time.Second, 600*ms)
	check("a dear one", 600*ms, 300*ms)
	check("a dear one", -time.Second, -250*ms) // over already
	r.Paid(100 * ms)
	check("a cheaper one later", 5*time.Second, 525*ms)
	for range 50 {
		r.Paid(ms)
	}
	check("cheap ones since", 5*time.Second, 250*ms)
}

// lazyPool returns a pool that nothing connects.
func lazyPool(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(context.Background(), "postgres://nobody@127.0.0.1:1/none")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// A server that never answers a cancel request: the caller does not wait for
// it, nor do others, and the connections are given up after a while.
func TestNobodyCancels(t *testing.T) {
	const callers, limit = 4, 300 * time.Millisecond
	r := newRig(t, callers)
	r.pids()
	unlock := r.lock()
	r.proxy.swallow.Store(true)
	start := time.Now()
	together(callers, func(int) {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		if _, err := r.wait(ctx, pgrun.Read); errors.Is(err, errUncertain) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want no answer, at the deadline", err)
		}
	})
	if took := time.Since(start); took > limit+patience { // it does not hang
		t.Errorf("back after %v, want about %v", took, limit)
	}
	if got := r.proxy.most.Load(); got > 2 {
		t.Errorf("cancel requests at once: got %d, want 2 at most", got)
	}
	r.proxy.swallow.Store(false)
	r.pids() // once the old ones are given up
	if took := time.Since(start); took > limit+pgrun.HomeTimeout+patience/2 {
		t.Errorf("connections given up after %v, want about %v", took, limit+pgrun.HomeTimeout)
	}
	unlock()
	if got, err := r.wait(t.Context(), pgrun.Once); got != "answer" || err != nil {
		t.Errorf("afterwards: got %q, %v, want an answer", got, err)
	}
}

// A read is cancelled, and its request is not over: it may still hit what comes next on
// the connection, which is therefore given up.
func TestACancelRequestThatGoesOn(t *testing.T) {
	r := newRig(t, 1)
	before := r.pids()
	unlock := r.lock()
	r.proxy.linger.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := r.wait(ctx, pgrun.Read); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want a deadline exceeded", err)
	}
	after := r.pids() // once the old one is given up
	unlock()
	if slices.Equal(before, after) || r.proxy.cancels.Load() == 0 {
		t.Errorf("connections: got %v, as before, after %d cancel requests, want others", after, r.proxy.cancels.Load())
	}
}

// A cancel request that comes before the statement hits nothing, so there is
// another: the statement begins when the first has come and gone.
func TestACancelRequestThatComesTooEarly(t *testing.T) {
	r := newRig(t, 1)
	before := r.pids()
	unlock := r.lock()
	var began atomic.Bool
	ended := make(chan error, 1)
	for !began.Load() { // on a busy machine the time may be over before
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err := pgrun.Run(ctx, r.runner, pgrun.Read, func(ctx context.Context, c *pgx.Conn) (struct{}, error) {
			began.Store(true)
			<-r.proxy.passed
			_, err := c.Exec(ctx, "SELECT pg_advisory_lock(1)")
			ended <- err
			return struct{}{}, err
		})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want a deadline exceeded", err)
		}
	}
	if err := <-ended; pgrun.SQLState(err) != "57014" {
		t.Errorf("the statement: got %v, want that it was cancelled", err)
	}
	after := r.pids()
	unlock()
	if !slices.Equal(before, after) {
		t.Errorf("connections: got %v, want %v", after, before)
	}
	if got := r.proxy.cancels.Load(); got < 2 {
		t.Errorf("cancel requests: got %d, want 2 at least", got)
	}
}

// A read that its caller has given up is cancelled at once.
func TestTheCallerGivesUp(t *testing.T) {
	r := newRig(t, 1)
	before := r.pids()
	unlock := r.lock()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := r.wait(ctx, pgrun.Read)
		done <- err
	}()
	r.await(1)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	after := r.pids()
	unlock()
	if !slices.Equal(before, after) {
		t.Errorf("connections: got %v, want %v", after, before)
	}
}

// What panics in a statement's goroutine is its caller's, and the connection is
// the pool's.
func TestAPanicIsTheCallers(t *testing.T) {
	r := newRig(t, 1)
	before := r.pids()
	for _, tt := range []struct {
		name string
		f    func()
		want any
	}{
		{"panic", func() { panic("of a tracer") }, "of a tracer"},
		{"Goexit", runtime.Goexit, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			defer func() {
				if got := recover(); got != tt.want {
					t.Errorf("panic: got %v, want %v", got, tt.want)
				}
				if after := r.pids(); !slices.Equal(before, after) {
					t.Errorf("connections: got %v, want %v", after, before)
				}
			}()
			_, err := pgrun.Run(t.Context(), r.runner, pgrun.Repeatable, func(context.Context, *pgx.Conn) (struct{}, error) {
				tt.f()
				return struct{}{}, nil
			})
			if err == nil {
				t.Error("got no error, want one")
			}
		})
	}
}

// A server that is shut down may say so between a commit and its answer: what was
// sent once is then uncertain, and is not run again.
func TestAShutdownAfterTheCommitIsUncertain(t *testing.T) {
	for _, tt := range []struct {
		name   string
		repeat pgrun.Repetition
		runs   int32
		want   error
	}{
		{"once", pgrun.Once, 1, errUncertain},
		{"repeatable", pgrun.Repeatable, 2, nil},
	} {
		r := newRig(t, 1)
		var runs atomic.Int32
		_, err := pgrun.Run(t.Context(), r.runner, tt.repeat, func(ctx context.Context, c *pgx.Conn) (struct{}, error) {
			if runs.Add(1) > 1 {
				return struct{}{}, nil
			}
			_, err := c.Exec(ctx, "SELECT 1") // which commits
			_ = c.Close(ctx)
			return struct{}{}, errors.Join(err, &pgconn.PgError{Severity: "FATAL", Code: "57P01", File: "postgres.c"})
		})
		if !errors.Is(err, tt.want) || runs.Load() != tt.runs {
			t.Errorf("%s: got %v after %d runs, want %v after %d", tt.name, err, runs.Load(), tt.want, tt.runs)
		}
	}
}

// acquires is a tracer that panics while a connection is acquired.
type acquires struct{ panics atomic.Bool }

func (*acquires) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

func (*acquires) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (a *acquires) TraceAcquireStart(ctx context.Context, _ *pgxpool.Pool, _ pgxpool.TraceAcquireStartData) context.Context {
	if a.panics.Load() {
		panic("of a tracer")
	}
	return ctx
}

func (*acquires) TraceAcquireEnd(context.Context, *pgxpool.Pool, pgxpool.TraceAcquireEndData) {}

// Where a connection is acquired no place is lost by a panic: neither of the writes nor
// of the transactions.
func TestAPanicAtAcquireKeepsNoPlace(t *testing.T) {
	cfg, err := pgxpool.ParseConfig(pgtest.URL(t))
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	tracer := &acquires{}
	cfg.MaxConns, cfg.ConnConfig.Tracer = 4, tracer
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	r := pgrun.New(pool, patience, pgrun.Errors{Uncertain: errUncertain, Invalid: errInvalid})
	write := func() (err error) {
		_, err = pgrun.Run(t.Context(), r, pgrun.Repeatable, func(ctx context.Context, c *pgx.Conn) (int, error) {
			_, err := c.Exec(ctx, "SELECT 1")
			return 0, err
		})
		return err
	}
	begin := func() error {
		tx, err := r.Begin(t.Context(), func(context.Context, pgx.Tx) (o pgrun.Origin, err error) { return o, nil })
		if err == nil {
			tx.End()
		}
		return err
	}
	for _, call := range []func() error{write, begin} {
		tracer.panics.Store(true)
		for range 4 {
			func() {
				defer func() {
					if recover() == nil {
						t.Error("got no panic, want the tracer's")
					}
				}()
				_ = call()
			}()
		}
		tracer.panics.Store(false)
		if err := call(); err != nil {
			t.Errorf("afterwards: got %v, want no error", err)
		}
	}
}
