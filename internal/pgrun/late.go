package pgrun

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// How late writes end.
//
// A commit may have to wait for a standby. To cancel the statement ends that wait
// and nothing else: PostgreSQL commits here, everybody sees what was written, and
// if this server dies the standby has never heard of it. So a write is not
// cancelled. It bounds its waits for row locks itself (LockTimeout), and if it is
// late all the same, its caller goes without an answer and it stays on its
// connection. To close that would not help either: the server process goes on
// waiting, and the connection in its place would be one more, until the server has
// none left. Hence
//
//   - a write needs a place, and there are as many as a quarter of the pool's
//     connections. Where late ones have them all, the server is not getting
//     anything done, and others fail at once; also those who wait already;
//   - one that comes home frees its place, and all goes on;
//   - a late one's connection is closed only if the server is not at it any more:
//     another connection has seen, twice, that this server process is idle, or
//     once that it is gone; or reads get no answer either. A peer that has gone
//     without a word is found by the kernel's keep-alive, where nobody can ask.
const (
	// lookInterval is between two looks at what late writes are doing in the
	// server, lookTimeout bounds one.
	lookInterval = time.Second
	lookTimeout  = 2 * time.Second

	// silence is how long looks go without any answer before the server is taken
	// for dead.
	silence = 5 * time.Second

	// lateAfter is how long a write must have been under way to be late. One that
	// was begun shortly before its caller's deadline says nothing of the server.
	lateAfter = time.Second
)

// sqlProcesses says what server processes are doing, and which one says so: behind
// a pooler that is not the one that pgx knows of. As in all our SQL a schema is
// named for everything, so that nothing of a stranger's is called.
const sqlProcesses = `SELECT pg_catalog.pg_backend_pid(), a.pid, a.state::pg_catalog.text
	FROM (SELECT) one LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.int4[])`

// places are the connections that may carry writes.
type places struct {
	taken chan struct{}

	mu   sync.Mutex
	late map[*statement]bool // false: seen at work, or not yet; true: seen idle
	none chan struct{}       // closed when the last late write has ended
	full chan struct{}       // closed while late writes hold every place
}

func newPlaces(n int) places {
	return places{taken: make(chan struct{}, n), late: map[*statement]bool{}, full: make(chan struct{})}
}

// enter waits for a place until ctx ends.
func (p *places) enter(ctx context.Context) error {
	p.mu.Lock()
	full := p.full
	p.mu.Unlock()
	select {
	case p.taken <- struct{}{}: // whatever else is the case
		return nil
	default:
	}
	select {
	case p.taken <- struct{}{}:
		return nil
	case <-full:
		return fmt.Errorf("nothing was sent: the server does not finish what it was given before, and holds all %d connections for writes (a quarter of the pool): does synchronous_standby_names ask for a standby that is down, is the table locked?", cap(p.taken))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lateNow returns how many writes are late.
func (p *places) lateNow() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.late)
}

// leave gives a place back.
func (p *places) leave() { <-p.taken }

// stay notes that a write is late. If no other is, none is what closes when the
// last has ended.
func (p *places) stay(s *statement) (none <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.late) == 0 {
		p.none = make(chan struct{})
		none = p.none
	}
	p.late[s] = false
	if s.writes && p.latePlaces() == cap(p.taken) {
		close(p.full)
	}
	return none
}

// latePlaces returns how many places late writes hold; the COMMIT of a Transaction
// holds none.
func (p *places) latePlaces() (n int) {
	for s := range p.late {
		if s.writes {
			n++
		}
	}
	return n
}

// home notes that a late write has ended. It still has its place.
func (p *places) home(s *statement) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.writes && p.latePlaces() == cap(p.taken) {
		p.full = make(chan struct{})
	}
	delete(p.late, s)
	if len(p.late) == 0 {
		close(p.none)
	}
}

// awaitWrite waits for the end of a write, and leaves it to itself when ctx or the
// round ends. It reports whether it has ended: only then may its caller look at s.
func (r *Runner) awaitWrite(ctx context.Context, round <-chan struct{}, s *statement, deadline time.Time) bool {
	select {
	case <-s.ended:
	case <-ctx.Done():
	case <-round:
	}
	select {
	case <-s.ended: // whichever came first
		s.release(false)
		return true
	default:
		go r.outlast(s, deadline)
		return false
	}
}

// outlast brings a write home whose caller has gone. It is late from the
// deadline on, for a caller may have gone for other reasons, and only if it has
// had time.
func (r *Runner) outlast(s *statement, deadline time.Time) {
	t := time.NewTimer(max(time.Until(deadline), lateAfter-time.Since(s.began)))
	defer t.Stop()
	select {
	case <-s.ended:
	case <-t.C:
		keepAlive(s.conn.Conn().PgConn().Conn())
		if none := r.stay(s); none != nil {
			go r.watch(none)
		}
		<-s.ended
		r.home(s)
	}
	s.release(false)
}

// watch looks after late writes until there are none.
func (r *Runner) watch(none <-chan struct{}) {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	var silent time.Time // since when looks go without an answer; zero: they do not
	for {
		select {
		case <-none:
			return
		case <-tick.C:
		}
		if r.Dead != nil && r.Dead() {
			r.cut(all)
			continue
		}
		begin := time.Now()
		gone, sent, err := r.look()
		switch {
		case err == nil:
			silent = time.Time{}
			r.cut(gone)
		case err.Error() == "closed pool": // puddle's; Close waits until everything is home
			r.cut(all)
		case r.unanswered(err, sent):
			if silent.IsZero() {
				silent = begin
			}
			if time.Since(silent) >= silence {
				r.cut(all)
			}
		}
	}
}

// cut closes the connections of those late writes for which gone holds. They
// come home by that.
func (p *places) cut(gone func(*statement) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.late {
		if gone(s) {
			_ = s.conn.Conn().PgConn().Conn().Close()
		}
	}
}

func all(*statement) bool { return true }

// look asks what the server processes of late writes are doing. gone tells those
// that are not at it any more.
func (r *Runner) look() (gone func(*statement) bool, sent bool, err error) {
	defer func() {
		if recover() != nil { // a tracer's, and nobody's who could take it
			err = errNoAnswer
		}
	}()
	r.mu.Lock()
	asked := map[*statement]uint32{}
	for s := range r.late {
		asked[s] = s.conn.Conn().PgConn().PID()
	}
	r.mu.Unlock()
	var pids []int32
	for _, pid := range asked {
		pids = append(pids, int32(pid)) // #nosec G115 -- PostgreSQL says int4; what does not fit is no process of its
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	t := attempt(ctx, r, Read, false, func(ctx context.Context, c *pgx.Conn) (map[uint32]string, error) {
		return processes(ctx, c, pids)
	})
	return func(s *statement) bool { // r.mu is held
		pid, ours := asked[s]
		if !ours || t.value == nil {
			return false
		}
		state, there := t.value[pid]
		idle := strings.HasPrefix(state, "idle")
		before := r.late[s]
		r.late[s] = idle
		return !there || idle && before
	}, t.sent, t.err
}

// processes returns the states of server processes, of those that are there; nil
// behind a pooler, where nobody knows.
func processes(ctx context.Context, c *pgx.Conn, pids []int32) (map[uint32]string, error) {
	rows, err := c.Query(ctx, sqlProcesses, pids)
	if err != nil {
		return nil, err
	}
	states := map[uint32]string{}
	var me uint32
	var pid *uint32
	var state *string
	_, err = pgx.ForEachRow(rows, []any{&me, &pid, &state}, func() error {
		if pid != nil {
			states[*pid] = ""
		}
		if pid != nil && state != nil { // else hidden from this role
			states[*pid] = *state
		}
		return nil
	})
	if err != nil || me != c.PgConn().PID() {
		return nil, err
	}
	return states, nil
}

// keepAlive has the kernel find out within a minute that a peer has gone without
// a word.
func keepAlive(c net.Conn) {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok { // TLS
		c = t.NetConn()
	}
	if t, ok := c.(interface {
		SetKeepAliveConfig(net.KeepAliveConfig) error
	}); ok {
		_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 10 * time.Second, Count: 4})
	}
}
