// Package pgrun runs statements on the connections of a pool: again where that
// is safe, until a deadline, and without losing a connection to a statement that
// is late. It knows connections and errors, and nothing of what the statements
// say.
//
// Its promises: the caller is back by its deadline, give or take a tenth of a
// second. A statement whose fate is not known is run again only if its caller
// says that twice is once, and is otherwise reported as uncertain; so is one that
// was run again without success.
//
// A read that is late is cancelled in the server (cancel.go): however many are
// late, PostgreSQL is asked to cancel a few at once, no connection is given up
// for it, and each is home two seconds after its caller's deadline, or closed.
//
// A write is never cancelled (late.go), for that would end its wait for a standby
// and leave it visible, though it may yet be lost. One that is late is reported
// as uncertain and goes on, on its connection, for as long as the server works
// at it. A quarter of the pool at most carries writes, so that reads go on; where
// late ones hold all of that, further writes fail at once, and nothing of them
// was sent. Success means that the server has waited for what it was told to
// wait for, standbys included (durable.go).
//
// No error holds what may quote a row. Each connection has two goroutines at
// most, and there is one more while writes are late.
package pgrun

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/outage"
)

// Errors are the errors that a [Runner] wraps others in.
type Errors struct {
	Uncertain error // no answer, or one that proves nothing: it may have been done
	Invalid   error // PostgreSQL refuses the data
}

// Runner runs statements on a pool, by [Run]. It is safe for concurrent use.
type Runner struct {
	// Dead, unless nil, says whether reads get no answer either: then nothing is
	// to be expected of a late write's connection, and it is closed. It is asked
	// once a second while a write is late, and set before the first Run.
	Dead func() bool

	// Watch, unless nil, is told how statements fare, and says when none is worth
	// a try. It is set before the first Run of a request.
	Watch *outage.Watch

	// Remote says that the server has others do the work. Where it has lost one of
	// them, a write may have been done all the same. It is set before the first Run
	// of a write.
	Remote bool

	pool     *pgxpool.Pool
	maxConns int
	timeout  time.Duration
	errs     Errors
	held     atomic.Int32 // connections of the pool
	atWork   atWork
	canceller
	places
	transactions transactions
}

// New returns a Runner. timeout is for contexts without a deadline.
func New(pool *pgxpool.Pool, timeout time.Duration, errs Errors) *Runner {
	conns := int(pool.Config().MaxConns)
	return &Runner{
		pool: pool, maxConns: conns, timeout: timeout, errs: errs,
		canceller: canceller{turns: make(chan struct{}, cancelTurns)},
		places:    newPlaces(max(1, conns/4)),
	}
}

// Pool returns the pool.
func (r *Runner) Pool() *pgxpool.Pool { return r.pool }

// MaxConns returns how many connections the pool may have.
func (r *Runner) MaxConns() int { return r.maxConns }

// Bounded gives a context without a deadline the default one.
func (r *Runner) Bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, r.timeout)
}

// Repetition says what a statement is, and when it may be run again.
type Repetition struct {
	reads  bool // it writes nothing, so that it may be cancelled when it is late
	again  bool // when its connection died without an answer: twice is once
	shared bool // not after a rollback: its members are run again alone
}

// What writes anything, be it a row lock's worth, is Repeatable or Once.
var (
	Read       = Repetition{reads: true, again: true} // writes nothing
	Repeatable = Repetition{again: true}              // a write: twice is once
	Once       = Repetition{}                         // a write: Errors.Uncertain instead
)

// Shared is r for a statement that does the work of several: after a rollback,
// which one of them may have caused, it is not run again.
func (r Repetition) Shared() Repetition {
	r.shared = true
	return r
}

// deadlineKey is the key of a caller's deadline in the context that f gets.
type deadlineKey struct{}

// LockTimeout returns how long a statement may wait for a row lock, as
// lock_timeout takes it ("4750ms"): the time that its caller has left, less a
// margin for the answer. ctx is the one that [Run] gave to f. It is never
// "0ms", which would be for ever: at least 1ms.
func LockTimeout(ctx context.Context) string {
	deadline, _ := ctx.Value(deadlineKey{}).(time.Time)
	left := time.Until(deadline)
	left -= min(cancelMargin, left/4)
	return fmt.Sprintf("%dms", max(left.Milliseconds(), 1))
}

// Run runs f on a connection, again where that is safe, until the context's
// deadline.
//
// f runs in a goroutine of its own, which may outlive Run where its statement is
// late. So it hands its answer back and changes nothing of its caller's, and
// what it reads must not be changed by its caller afterwards. The context that
// it gets never ends.
//
// Where a Repeatable write has died without an answer and then succeeds, what it
// found may be the work of the first try, which may yet be lost: so Run waits for
// the standbys before it returns.
//
// While the server is down (Watch) Run returns an [*outage.Refused], at once also
// where it has begun before that was known.
func Run[T any](ctx context.Context, r *Runner, repeat Repetition, f func(context.Context, *pgx.Conn) (T, error)) (T, error) {
	ctx, leave, err := r.Enter(ctx, repeat, 0)
	if err != nil {
		var none T
		return none, err
	}
	defer leave()
	pass := passOf(ctx)
	if down := stopped(pass); down != nil { // since it was let in
		var none T
		return none, down
	}
	var last error // why the attempt before failed
	doubt := false // a try before this one may have been done
	for try := 0; ; try++ {
		t := attempt(ctx, r, repeat, doubt, f)
		if t.err == nil {
			return t.value, nil
		}
		err = scrub(t.err)
		if last != nil && errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("%w; before that: %w", err, last)
		}
		verdict := judge(err, t.dead)
		// Also after a shutdown that is said: it may come between the commit and its answer.
		doubt = doubt || !repeat.reads && (verdict == broken && t.sent || t.unconfirmed() || r.lostRemote(err))
		if doubt && !repeat.again {
			return t.value, fmt.Errorf("%w: %w", r.errs.Uncertain, err)
		}
		switch verdict {
		case final:
			if down := stopped(pass); down != nil && !t.sent {
				err = down
			}
			if doubt && !t.answered() {
				err = fmt.Errorf("%w: %w", r.errs.Uncertain, err)
			}
			return t.value, r.Describe(err)
		case broken:
			last = err
			// After a restart each pooled connection fails once, at once.
			if t.dead && try <= r.maxConns && ctx.Err() == nil && stopped(pass) == nil {
				continue
			}
		case rolledBack:
			if repeat.shared && SQLState(err) != "25006" { // no member has caused that
				return t.value, err
			}
			last = err
		}
		end := pause(ctx, pass, try, err)
		if down := stopped(pass); down != nil {
			if doubt {
				down = fmt.Errorf("%w: %w", r.errs.Uncertain, down)
			}
			return t.value, down
		}
		if end != nil {
			err = fmt.Errorf("no success in time: %w; before that: %w", end, err)
			if doubt {
				err = fmt.Errorf("%w: %w", r.errs.Uncertain, err)
			}
			return t.value, r.Describe(err)
		}
	}
}

// lostRemote reports whether the server has lost one that it has had do the work: Citus
// says so, as any error of its own, with an answer that a plain server gives of itself alone.
func (r *Runner) lostRemote(err error) bool {
	state := SQLState(err)
	return r.Remote && (strings.HasPrefix(state, "08") || state == "XX000")
}

// tried is what became of one try.
type tried[T any] struct {
	value T
	sent  bool // the statement may have reached the server
	dead  bool // its connection did not survive, or is still at it
	err   error
}

// unsent reports whether nothing of a statement was sent. pgx says so too where a
// connection has died in the middle and it then finds it closed: that counts for
// nothing, for it was open when the statement began.
func unsent(err error) bool {
	return err != nil && pgconn.SafeToRetry(err) && !strings.HasSuffix(err.Error(), "conn closed")
}

// unconfirmed reports whether a write was done, and perhaps only here.
func (t *tried[T]) unconfirmed() bool { return errors.As(t.err, new(unconfirmed)) }

// answered reports whether f has got an answer of the server's, and err, if there
// is one, is what f makes of it.
func (t *tried[T]) answered() bool {
	return t.err == nil || t.sent && !t.dead && SQLState(t.err) == "" && !t.unconfirmed() && !errors.Is(t.err, context.DeadlineExceeded)
}

// attempt runs f once. confirm says that a try before may have been done.
func attempt[T any](ctx context.Context, r *Runner, repeat Repetition, confirm bool, f func(context.Context, *pgx.Conn) (T, error)) (t tried[T]) {
	deadline, _ := ctx.Deadline()
	margin := r.margin(time.Until(deadline))
	early, cancel := context.WithDeadline(ctx, deadline.Add(-margin))
	defer cancel()
	var round <-chan struct{} // closed when it ends: then nobody waits any longer
	if pass := passOf(ctx); pass != nil {
		round = pass.Round().Done()
		unwatch := context.AfterFunc(pass.Round(), cancel)
		defer unwatch()
	}
	s, err := r.connect(early, repeat)
	if err != nil {
		t.err = err
		return t
	}
	value := new(T) // the statement's, until it has ended
	conn := s.conn.Conn()
	s.start(func() (err error) {
		run := context.WithValue(context.WithoutCancel(ctx), deadlineKey{}, deadline)
		once := func() error {
			if *value, err = f(run, conn); SQLState(err) == "0A000" { // feature_not_supported
				// A cached plan that DDL has made useless; pgx has dropped it. Every
				// other connection has one too, so not on another.
				*value, err = f(run, conn)
			}
			return err
		}
		if repeat.reads {
			return once()
		}
		return write(run, conn, confirm, once)
	})
	inTime := false
	if repeat.reads {
		inTime = r.awaitRead(early, s, max(margin, leastMargin))
	} else {
		inTime = r.awaitWrite(ctx, round, s, deadline)
	}
	if !inTime {
		end := context.Canceled // the round's
		select {                // at this moment, or Run would try again
		case <-ctx.Done():
			end = ctx.Err()
		case <-round:
		}
		t.sent, t.dead, t.err = true, true, fmt.Errorf("no answer in time: %w", end)
		return t
	}
	if s.panicked != nil {
		panic(s.panicked)
	}
	return tried[T]{*value, !unsent(s.err), s.dead, s.err}
}
