package pgrun

import (
	"cmp"
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// How late reads end.
//
// pgx answers a context that ends by closing the connection: of 70 timeouts each
// cost a connection. So a statement runs without a deadline, and shortly before
// its caller's it is cancelled in the server, which leaves the connection whole.
//
// To cancel costs the server a process, and so does a new connection. Where many
// reads are late at once (a table is locked, the disk is slow) the server
// has no time for either, and what is not answered in time must not be thrown
// away, or every connection that is lost costs one more process. Hence
//
//   - the statement has a goroutine, and the caller goes at its deadline whatever
//     the statement does. Its connection is brought home behind its back, which
//     may take homeTimeout longer;
//   - cancelTurns statements are cancelled at once, the others wait for their turn.
//     One that ends meanwhile is not cancelled, and one that goes on is cancelled
//     again: it had not quite begun, and PostgreSQL ignores what comes before;
//   - the margin follows what cancelling costs here, so that the next time most
//     callers still hear what has become of their statement.
//
// What is bounded: a statement holds one connection of the pool until it is home,
// so there are never more of these goroutines than connections, two for each.
const (
	// cancelMargin is how long before the deadline a statement is cancelled where
	// cancelling is cheap: time for the server to say that it is. One that began
	// with little time left gets leastMargin, and is allowed to be that late.
	cancelMargin = 250 * time.Millisecond
	leastMargin  = 100 * time.Millisecond

	// homeTimeout is how long after its caller has gone a connection may take to
	// come home; then the server is taken for dead.
	homeTimeout = 2 * time.Second

	cancelTurns = 2

	// askAgain is how long a statement may go on after it was cancelled, before
	// it is again; twice as long after each time.
	askAgain = 200 * time.Millisecond
)

// canceller cancels late reads.
type canceller struct {
	turns chan struct{}
	cost  atomic.Int64 // of bringing a statement's connection home, in nanoseconds
}

// margin is how long before the deadline a statement is cancelled that has left
// to run: a quarter of that at most, or half of it where cancelling was seen to
// need it.
func (c *canceller) margin(left time.Duration) time.Duration {
	cost := time.Duration(c.cost.Load())
	return max(min(cancelMargin, left/4), min(cost+cost/2, left/2))
}

// paid notes what bringing a connection home has cost. The dearest counts, and
// is forgotten as cheaper ones follow.
func (c *canceller) paid(cost time.Duration) {
	for {
		old := c.cost.Load()
		if c.cost.CompareAndSwap(old, max(int64(cost), old-old/8)) {
			return
		}
	}
}

// awaitRead waits for the end of a read, which it cancels when early ends, and
// then for patience at most. It reports whether that was enough: only then may
// its caller look at s.
func (c *canceller) awaitRead(early context.Context, s *statement, patience time.Duration) bool {
	select {
	case <-s.ended:
		s.release(false)
		return true
	case <-early.Done():
	}
	if !c.cancelLate(s, patience) {
		return false
	}
	if s.err != nil && (s.dead || SQLState(s.err) == "57014") { // query_canceled
		s.err = fmt.Errorf("no answer in time: %w: %w", early.Err(), s.err)
	}
	return true
}

// cancelLate cancels a statement and brings its connection home, if need be after it
// has returned. It waits for patience at most, and reports whether that was
// enough: only then may its caller look at s.
func (c *canceller) cancelLate(s *statement, patience time.Duration) bool {
	home := make(chan struct{})
	go func() {
		defer close(home)
		c.bringHome(s, patience)
	}()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-home:
		return true
	case <-t.C:
		return false
	}
}

// bringHome cancels a statement, again where it goes on: a request that comes
// before the statement, or between its parts, hits nothing. The connection is
// kept if the statement has ended by that, or before it was asked for, and no request
// can still hit what comes next.
func (c *canceller) bringHome(s *statement, patience time.Duration) {
	begin := time.Now()
	hard, cancel := context.WithTimeout(context.Background(), patience+homeTimeout)
	defer cancel()
	if s.try != nil && s.try.Hopeless() {
		cancel() // nobody is asked for anything
	}
	asked, unsure := false, false // whether the server is done with each request
	for again := askAgain; ; again *= 2 {
		sent, err := c.request(hard, s)
		asked, unsure = asked || sent, unsure || err != nil
		if err != nil { // nobody is there to cancel it
			again = max(patience-time.Since(begin), 0)
		}
		if s.endsWithin(hard, again) {
			break
		}
		if err != nil || hard.Err() != nil {
			// pgx closes the connection now, and tries to cancel once more.
			_ = s.conn.Conn().PgConn().Conn().SetDeadline(time.Unix(1, 0))
			<-s.ended
			s.release(true)
			return
		}
	}
	cancelled := SQLState(s.err) == "57014" // query_canceled
	if asked && cancelled {
		c.paid(time.Since(begin))
	}
	s.release(unsure || asked && !cancelled)
}

// endsWithin waits for the end of a statement, of ctx, or of a time.
func (s *statement) endsWithin(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-s.ended:
	case <-ctx.Done():
	case <-t.C:
	}
	select { // whichever came first: it may have ended as well
	case <-s.ended:
		return true
	default:
		return false
	}
}

// request asks the server to cancel a statement, when its turn has come, and waits
// until the server has done so: from then on nothing else is hit by it. sent is
// false if the statement has ended before its turn.
func (c *canceller) request(ctx context.Context, s *statement) (sent bool, err error) {
	select {
	case <-s.ended:
		return false, nil
	case <-ctx.Done():
		return false, nil
	case c.turns <- struct{}{}:
	}
	defer func() { <-c.turns }()
	select {
	case <-s.ended:
		return false, nil
	default:
		err := s.conn.Conn().PgConn().CancelRequest(ctx)
		return true, cmp.Or(err, ctx.Err()) // pgx does not say that it has not waited
	}
}
