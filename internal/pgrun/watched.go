package pgrun

import (
	"context"
	"errors"
	"net/http/httptrace"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/backoff"
	"github.com/pgsession/session/internal/outage"
)

// What a Runner tells an outage.Watch, and obeys.
//
// A request is let in or refused by Enter, which Run calls for those who have not.
// Each try of a statement holds a connection or dials, or merely waits for the
// pool, which must not count as silence. When a round ends, because its kind has
// gone down, so do the contexts of those who are in it.

// passKey is the key of a request's pass in its context.
type passKey struct{}

func passOf(ctx context.Context) *outage.Pass {
	p, _ := ctx.Value(passKey{}).(*outage.Pass)
	return p
}

// kind returns what repeat's statements belong to.
func (r *Runner) kind(repeat Repetition) *outage.Kind {
	if repeat.reads {
		return &r.Watch.Read
	}
	return &r.Watch.Write
}

// Enter lets a request in that will Run statements of this kind on the context
// that it returns and keeps bytes of data, or refuses it because the server is
// down: then nothing was sent, and the error is an [*outage.Refused]. A request that
// Run has let in already, by ctx, is not asked again. The context has a deadline;
// leave must be called.
func (r *Runner) Enter(ctx context.Context, repeat Repetition, bytes int) (_ context.Context, leave func(), err error) {
	ctx, cancel := r.Bounded(ctx)
	if r.Watch == nil {
		return ctx, cancel, nil
	}
	k := r.kind(repeat)
	if p := passOf(ctx); p != nil && p.Kind() == k {
		return ctx, cancel, nil
	}
	deadline, _ := ctx.Deadline()
	p, err := k.Enter(time.Until(deadline), bytes)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	return context.WithValue(ctx, passKey{}, p), func() { p.Leave(); cancel() }, nil
}

// stopped returns an error if a request is not to try again.
func stopped(p *outage.Pass) error {
	if p == nil {
		return nil
	}
	return p.Stopped()
}

// ended reports whether err is the end of a context.
func ended(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// pause waits before another try, after one that failed with err. If that was no
// answer the pause is part of the silence. It returns the cause of ctx's end, or
// that of the round.
func pause(ctx context.Context, p *outage.Pass, try int, err error) error {
	if p != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		unwatch := context.AfterFunc(p.Round(), cancel)
		defer unwatch()
	}
	if p != nil && SQLState(err) == "" {
		t := p.Try()
		t.Lost(nil)
		defer t.End()
		if p.Stopped() != nil {
			return nil
		}
	}
	return backoff.Pause(ctx, min(try, 6))
}

// acquire gets a connection for a try of ctx's request, whose failure it reports.
func (r *Runner) acquire(ctx context.Context) (c *pgxpool.Conn, t *outage.Try, err error) {
	p := passOf(ctx)
	if p == nil {
		c, err = r.pool.Acquire(ctx)
		return c, nil, err
	}
	if p.Probe() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, outage.ProbePatience)
		defer cancel()
		defer func() {
			if err != nil {
				p.Failed(err) // also if it was the pool that it waited for: the next one tries
			}
		}()
	}
	t = p.Try()
	if r.mustDial() {
		leave := r.turn(ctx, p, t)
		defer leave()
	}
	w := &acquiring{Context: ctx, try: t}
	c, err = r.pool.Acquire(w)
	if err == nil {
		t.Hold()
		if w.seen() {
			p.Dials().Fine()
		}
		return c, t, nil
	}
	defer t.End()
	var unconnected *pgconn.ConnectError
	switch {
	case SQLState(err) != "":
		p.Dials().Failed(true)
		t.Said(err)
	case errors.As(err, &unconnected):
		p.Dials().Failed(false)
		t.Lost(err)
	case w.seen() || r.pool.Stat().ConstructingConns() > 0:
		p.Dials().GaveUp()
		t.Lost(nil)
	}
	return nil, nil, err
}

// turn waits until one may dial, or need not.
func (r *Runner) turn(ctx context.Context, p *outage.Pass, t *outage.Try) (leave func()) {
	d := p.Dials()
	if d.Failing() && d.Silent() {
		t.Hold() // it would dial, if others did not
	}
	leave = d.Place(ctx, r.mustDial)
	if d.Failing() {
		d.Turn(ctx)
	}
	return leave
}

// mustDial reports whether a connection can only be had by dialling.
func (r *Runner) mustDial() bool {
	s := r.pool.Stat()
	return s.IdleConns() == 0 && s.AcquiredConns() < s.MaxConns()
}

// acquiring is the context of an Acquire, which tells waiting for the pool from
// waiting for the server: pgxpool waits for its turn by Done alone. It wants to know
// the deadline when it pings a connection that was idle, and the net package
// looks for a trace when it resolves a name or dials. (A dialler of the
// application's own may not look: then its failure tells.)
type acquiring struct {
	context.Context
	try *outage.Try

	once  sync.Once
	trace context.Context

	mu   sync.Mutex
	held bool
}

func (a *acquiring) hold() {
	a.mu.Lock()
	a.held = true
	a.mu.Unlock()
	a.try.Hold()
}

// seen reports whether the server was asked for anything.
func (a *acquiring) seen() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held
}

func (a *acquiring) Deadline() (time.Time, bool) {
	a.hold()
	return a.Context.Deadline()
}

func (a *acquiring) Value(key any) any {
	a.once.Do(func() {
		a.trace = httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
			DNSStart:     func(httptrace.DNSStartInfo) { a.hold() },
			ConnectStart: func(string, string) { a.hold() },
		})
	})
	if v := a.trace.Value(key); v != nil {
		return v
	}
	return a.Context.Value(key)
}

// report tells the watch how a statement has ended.
func (s *statement) report() {
	if s.try == nil {
		return
	}
	switch state := SQLState(s.err); {
	case state == "53300", state == "57014", state == "57P01", state == "57P02", state == "57P03", state == "25006":
		s.try.Said(s.err) // an answer, but not to what was asked
	case state != "":
		s.try.Answered()
	case s.dead && !ended(s.err):
		s.try.Lost(s.err)
	case s.dead:
		s.try.Lost(nil)
	case s.panicked == nil:
		s.try.Answered()
	}
	s.try.End()
}

// giveBack gives the connection back to the pool. One that is dead keeps its place
// there while pgx asks the server to cancel what ran on it, for up to 15 seconds;
// where the server is down that would be time in which nobody can dial.
func (s *statement) giveBack() {
	if !s.dead || s.try == nil || !s.try.Hopeless() {
		s.conn.Release()
		return
	}
	if before := s.runner.pool.Config().BeforeClose; before != nil {
		before(s.conn.Conn())
	}
	s.conn.Hijack() // it is closed already
}

// atWork are the statements that are under way for requests. One that is in it has
// its connection.
type atWork struct {
	mu  sync.Mutex
	all map[*statement]*outage.Kind
}

func (w *atWork) begin(s *statement, k *outage.Kind) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = map[*statement]*outage.Kind{}
	}
	w.all[s] = k
}

func (w *atWork) end(s *statement) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, s)
}

// pids returns the server processes of a kind's statements.
func (w *atWork) pids(k *outage.Kind) (pids []int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s, kind := range w.all {
		if kind == k {
			pids = append(pids, int32(s.conn.Conn().PgConn().PID())) // #nosec G115 -- PostgreSQL says int4; what does not fit is no process of its
		}
	}
	return pids
}

// cut closes the connections of a kind's statements, which come home by that.
func (w *atWork) cut(k *outage.Kind) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s, kind := range w.all {
		if kind == k {
			_ = s.conn.Conn().PgConn().Conn().Close()
		}
	}
}

// sqlWaiting counts those of some server processes that wait for locks.
const sqlWaiting = `SELECT pg_catalog.count(a.pid) FROM pg_catalog.pg_stat_activity a
	WHERE a.pid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.int4[]) AND a.wait_event_type OPERATOR(pg_catalog.=) 'Lock'`

// Locked reports whether statements of k that are under way wait for locks, as far
// as the server says so within a time. Behind a pooler it does not: there a
// process is not the one that pgx knows of.
func (r *Runner) Locked(k *outage.Kind, within time.Duration) bool {
	pids := r.atWork.pids(k)
	if len(pids) == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	defer func() { _ = recover() }() // a tracer's, and nobody's who could take it
	t := attempt(ctx, r, Read, false, func(ctx context.Context, c *pgx.Conn) (n int64, err error) {
		return n, c.QueryRow(ctx, sqlWaiting, pids).Scan(&n)
	})
	return t.err == nil && t.value > 0
}

// Abandon makes all connections new, where the server has answered nobody: idle
// ones are closed, those of k's statements as well, and others when they are
// given back. What was idle all the while may be dead without anybody's knowing,
// and each would cost a probe its time.
func (r *Runner) Abandon(k *outage.Kind) {
	r.pool.Reset()
	r.atWork.cut(k)
}
