package pgrun

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/outage"
)

var errNoAnswer = errors.New("the statement ended without an answer")

// statement is one that runs on a connection of its own, in a goroutine.
type statement struct {
	runner *Runner
	conn   *pgxpool.Conn
	writes bool          // it has one of the places
	try    *outage.Try   // nil if nobody watches
	began  time.Time     // set by start
	ended  chan struct{} // closed when it has come back; err and panicked are set then

	err      error
	panicked any
	dead     bool // set by release: its connection did not survive
}

// start runs f, which uses the connection. After it has ended release must be
// called.
func (s *statement) start(f func() error) {
	s.began = time.Now()
	go func() {
		defer close(s.ended)
		s.err = errNoAnswer // also after runtime.Goexit
		defer func() {
			// A tracer may panic. That is its caller's, unless it has gone.
			s.panicked = recover()
		}()
		s.err = f()
	}()
}

// release gives the connection back to the pool, and the place of a write to the
// next. A connection that may still be cancelled, which would hit whatever runs
// on it next, is closed before, and so is that to a standby: the primary is
// somewhere else now.
func (s *statement) release(mayBeCancelled bool) {
	conn := s.conn.Conn()
	if (mayBeCancelled || SQLState(s.err) == "25006") && !conn.IsClosed() {
		ctx, cancel := context.WithTimeout(context.Background(), cancelMargin)
		defer cancel()
		_ = conn.Close(ctx) // the pool drops it either way
	}
	s.dead = conn.IsClosed()
	s.runner.atWork.end(s)
	s.report()
	s.runner.held.Add(-1)
	s.giveBack()
	if s.try != nil {
		s.runner.Watch.Dials.Freed()
	}
	if s.writes {
		s.runner.leave()
	}
}

// impatientKey is the key of [Impatient] in a context.
type impatientKey struct{}

// impatience is how long an impatient statement waits for a connection.
const impatience = 250 * time.Millisecond

// Impatient returns a context for a statement that matters less than the time
// it takes: where [Run] gets no connection within a quarter of a second it gives
// up, as at a deadline. Once it has one, the context's own deadline counts.
func Impatient(ctx context.Context) context.Context {
	return context.WithValue(ctx, impatientKey{}, true)
}

// IsImpatient reports whether ctx is one of [Impatient].
func IsImpatient(ctx context.Context) bool {
	impatient, _ := ctx.Value(impatientKey{}).(bool)
	return impatient
}

// connect waits for a connection, and before that for a place if the statement
// writes. Nothing was sent if it fails.
func (r *Runner) connect(ctx context.Context, repeat Repetition) (*statement, error) {
	limit := "in time"
	if IsImpatient(ctx) {
		limit = "within " + impatience.String()
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, impatience)
		defer cancel()
	}
	if !repeat.reads {
		if err := r.enter(ctx); err != nil {
			if p := passOf(ctx); p != nil {
				p.Failed(err)
			}
			return nil, r.noConnection(ctx, limit, true, err)
		}
	}
	got := false
	defer func() {
		if !got && !repeat.reads {
			r.leave()
		}
	}()
	conn, try, err := r.acquire(ctx)
	if err != nil {
		return nil, r.noConnection(ctx, limit, false, err)
	}
	got = true
	r.held.Add(1)
	s := &statement{runner: r, conn: conn, writes: !repeat.reads, try: try, ended: make(chan struct{})}
	if try != nil {
		r.atWork.begin(s, r.kind(repeat))
	}
	return s, nil
}

// noConnection says why the wait for a connection, or for a place, has ended
// without one.
func (r *Runner) noConnection(ctx context.Context, limit string, place bool, err error) error {
	if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() == nil {
		return err
	}
	taken := r.pool.Stat().AcquiredConns()
	why := fmt.Sprintf("all %d of the pool are busy with statements of sessions", r.maxConns)
	switch others := taken - r.held.Load(); {
	case int(taken) == r.maxConns && others > 0:
		why = fmt.Sprintf("%d of the %d connections of the pool are held by others: handlers that keep rows or a transaction open?", others, r.maxConns)
	case place:
		why = fmt.Sprintf("all %d for writes (a quarter of the pool) are busy, %d of them with writes that are late", cap(r.taken), r.lateNow())
	case int(taken) < r.maxConns:
		why = "the server does not answer"
	}
	return fmt.Errorf("no connection %s: %s: %w", limit, why, err)
}

// unanswered reports whether err says that the server was asked for something,
// be it a connection, and did not answer at all.
func (r *Runner) unanswered(err error, sent bool) bool {
	var unconnected *pgconn.ConnectError
	switch {
	case err == nil, SQLState(err) != "":
		return false
	case sent, errors.As(err, &unconnected):
		return true
	}
	return errors.Is(err, context.DeadlineExceeded) && int(r.pool.Stat().AcquiredConns()) < r.maxConns
}
