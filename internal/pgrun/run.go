// Package pgrun runs statements on the connections of a pool: again where that
// is safe, until a deadline, and without losing a connection to a statement that
// is late. It knows connections and errors, and nothing of what the statements
// say.
//
// Its promises: the caller is back by its deadline, give or take a tenth of a
// second. A statement whose fate is not known is run again only if its caller
// says that twice is once, and is otherwise reported as uncertain. However many
// statements are late, PostgreSQL is asked to cancel a few at once, and no
// connection is given up for it. No error holds what may quote a row. Every
// goroutine ends two seconds after its caller's deadline.
package pgrun

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/backoff"
)

// Errors are the errors that a [Runner] wraps others in.
type Errors struct {
	Uncertain error // the connection died before the answer: it may have been done
	Invalid   error // PostgreSQL refuses the data
}

// Runner runs statements on a pool, by [Run]. It is safe for concurrent use.
type Runner struct {
	pool     *pgxpool.Pool
	maxConns int
	timeout  time.Duration
	errs     Errors
	canceller
}

// New returns a Runner. timeout is for contexts without a deadline.
func New(pool *pgxpool.Pool, timeout time.Duration, errs Errors) *Runner {
	return &Runner{
		pool: pool, maxConns: int(pool.Config().MaxConns), timeout: timeout, errs: errs,
		canceller: canceller{turns: make(chan struct{}, cancelTurns)},
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

// Repetition says when a statement may be run again.
type Repetition struct {
	again  bool // when its connection died without an answer: twice is once
	shared bool // not after a rollback: its members are run again alone
}

var (
	Repeatable = Repetition{again: true} // twice is once
	Once       = Repetition{}            // Errors.Uncertain instead
)

// Shared is r for a statement that does the work of several: after a rollback,
// which one of them may have caused, it is not run again.
func (r Repetition) Shared() Repetition {
	r.shared = true
	return r
}

// Run runs f on a connection, again where that is safe, until the context's
// deadline.
//
// f runs in a goroutine of its own, which may outlive Run where its statement is
// late. So it hands its answer back and changes nothing of its caller's, and
// what it reads must not be changed by its caller afterwards. The context that
// it gets never ends.
func Run[T any](ctx context.Context, r *Runner, repeat Repetition, f func(context.Context, *pgx.Conn) (T, error)) (T, error) {
	ctx, cancel := r.Bounded(ctx)
	defer cancel()
	var last error // why the attempt before failed
	for try := 0; ; try++ {
		v, sent, dead, err := attempt(ctx, r, f)
		err = scrub(err)
		if last != nil && errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("%w; before that: %w", err, last)
		}
		switch judge(err, dead) {
		case final:
			return v, r.Describe(err)
		case broken:
			if sent && !repeat.again { // also after a shutdown that is said: it may come between the commit and its answer
				return v, fmt.Errorf("%w: %w", r.errs.Uncertain, err)
			}
			last = err
			// After a restart each pooled connection fails once, at once.
			if dead && try <= r.maxConns && ctx.Err() == nil {
				continue
			}
		case rolledBack:
			if repeat.shared && SQLState(err) != "25006" { // no member has caused that
				return v, err
			}
			last = err
		}
		if end := backoff.Pause(ctx, min(try, 6)); end != nil {
			return v, r.Describe(fmt.Errorf("no success in time: %w; before that: %w", end, err))
		}
	}
}

// attempt runs f once. sent says that the statement may have reached the server,
// dead that its connection did not survive.
func attempt[T any](ctx context.Context, r *Runner, f func(context.Context, *pgx.Conn) (T, error)) (v T, sent, dead bool, err error) {
	deadline, _ := ctx.Deadline()
	margin := r.margin(time.Until(deadline))
	early, cancel := context.WithDeadline(ctx, deadline.Add(-margin))
	defer cancel()
	conn, err := r.pool.Acquire(early)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) && early.Err() != nil {
			err = fmt.Errorf("no connection in time: all %d of the pool are busy or the server does not answer: %w", r.maxConns, err)
		}
		return v, false, false, err
	}
	value := new(T) // the statement's, until it has ended
	s := start(conn, func() (err error) {
		run := context.WithoutCancel(ctx)
		if *value, err = f(run, conn.Conn()); SQLState(err) == "0A000" { // feature_not_supported
			// A cached plan that DDL has made useless; pgx has dropped it. Every
			// other connection has one too, so not on another.
			*value, err = f(run, conn.Conn())
		}
		return err
	})
	select {
	case <-s.ended:
		s.release(false)
	case <-early.Done():
		if !r.late(s, max(margin, leastMargin)) {
			<-ctx.Done() // at this moment, or Run would try again
			return v, true, true, fmt.Errorf("no answer in time: %w", early.Err())
		}
		if s.err != nil && (s.dead || SQLState(s.err) == "57014") { // query_canceled
			s.err = fmt.Errorf("no answer in time: %w: %w", early.Err(), s.err)
		}
	}
	if s.panicked != nil {
		panic(s.panicked)
	}
	return *value, !pgconn.SafeToRetry(s.err), s.dead, s.err
}
