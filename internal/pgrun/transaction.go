package pgrun

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/backoff"
)

// ErrNotCommitted says that PostgreSQL has rolled a transaction back: nothing of it
// was stored.
var ErrNotCommitted = errors.New("the transaction was rolled back, nothing was stored")

// Errors of an application's function, found when it has returned.
var (
	errEndedInside  = errors.New("the function has ended the transaction itself; let it return nil to commit, or an error to roll back")
	errFailedInside = errors.New("a statement in the transaction has failed, so that PostgreSQL can only roll it back; let the function return its error")
)

// Transaction is one on a connection of its own, in which an application's
// function takes part. It is for one goroutine. End must be called; Commit does.
//
// It has no place among the writes, for the function may take long; and who waited
// for one with a connection in hand would wait for those who have a place and no
// connection. Half of the pool's connections at most have a Transaction, one whose
// COMMIT is late included, so that with a quarter for writes another is left for reads.
type Transaction struct {
	r      *Runner
	conn   *pgxpool.Conn
	tx     pgx.Tx
	try    bool // somebody watches
	origin Origin
	leave  func() // gives back what bounds their number
}

// Origin says which transaction it is, of which server in which state: what is
// asked for when COMMIT got no answer.
type Origin struct {
	XID        string // "": not known, so that nobody can ask
	Server     string // the cluster and its timeline, which changes at a failover
	Checkpoint string // its last one, which changes when it recovers from a crash
}

// SQLOrigin is a list of expressions for an [Origin]. It gives the transaction a
// number.
const (
	SQLOrigin = `pg_catalog.pg_current_xact_id()::pg_catalog.text, ` + sqlServer
	sqlServer = `CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.concat((SELECT c.system_identifier FROM pg_catalog.pg_control_system() c),
		'/', pg_catalog."left"(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8)) ELSE '' END,
	(SELECT c.checkpoint_lsn::pg_catalog.text FROM pg_catalog.pg_control_checkpoint() c)`
)

const sqlXactStatus = `SELECT pg_catalog.pg_xact_status($1::pg_catalog.text::pg_catalog.xid8)`

// transactions bounds how many there are.
type transactions struct {
	once  sync.Once
	taken chan struct{}
}

func (b *transactions) enter(ctx context.Context, maxConns int) (leave func(), err error) {
	b.once.Do(func() { b.taken = make(chan struct{}, max(1, maxConns-2*max(1, maxConns/4))) })
	select {
	case b.taken <- struct{}{}:
		return sync.OnceFunc(func() { <-b.taken }), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("no connection in time: %d transactions with sessions hold half of the pool, which is all that they get: %w", cap(b.taken), context.Cause(ctx))
	}
}

// Begin begins a transaction, READ COMMITTED, and runs first in it, which may run
// again on another connection: after a restart each pooled connection fails once.
// ctx bounds both; the context that first gets is good for [LockTimeout].
// first returns what it has found of the transaction's Origin.
func (r *Runner) Begin(ctx context.Context, first func(context.Context, pgx.Tx) (Origin, error)) (*Transaction, error) {
	ctx, leave, err := r.Enter(ctx, Once, 0)
	if err != nil {
		return nil, err
	}
	defer leave()
	out, err := r.transactions.enter(ctx, r.maxConns)
	if err != nil {
		return nil, err
	}
	begun := false
	defer func() {
		if !begun {
			out()
		}
	}()
	pass := passOf(ctx)
	run := ctx
	if pass != nil { // when writes go down nobody waits any longer
		var cancel context.CancelFunc
		run, cancel = context.WithCancel(ctx)
		defer cancel()
		unwatch := context.AfterFunc(pass.Round(), cancel)
		defer unwatch()
	}
	for try := 0; ; try++ {
		t, dead, err := r.begin(run, first)
		if err == nil {
			begun, t.leave = true, out
			return t, nil
		}
		err = scrub(err)
		verdict := judge(err, dead)
		if down := stopped(pass); down != nil {
			err, verdict = down, final
		}
		if verdict != final && ctx.Err() == nil {
			if dead && try <= r.maxConns {
				continue
			}
			if end := pause(ctx, pass, try, err); end == nil {
				continue
			}
		}
		return nil, r.Describe(err)
	}
}

// begin is one try of Begin.
func (r *Runner) begin(ctx context.Context, first func(context.Context, pgx.Tx) (Origin, error)) (_ *Transaction, dead bool, err error) {
	conn, try, err := r.acquire(ctx)
	if err != nil {
		return nil, false, r.noConnection(ctx, "in time", false, err)
	}
	r.held.Add(1)
	s := &statement{runner: r, conn: conn, try: try}
	if try != nil {
		r.atWork.begin(s, &r.Watch.Write)
	}
	t := &Transaction{r: r, conn: conn, try: try != nil, leave: func() {}}
	begun := false
	defer func() {
		if !begun { // also after a panic of a tracer's
			s.err = err
			if t.tx != nil {
				_ = t.rollback()
			}
			s.release(false)
			dead = s.dead
		}
	}()
	deadline, _ := ctx.Deadline()
	run := context.WithValue(ctx, deadlineKey{}, deadline)
	if t.tx, err = conn.Conn().BeginTx(run, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}); err != nil {
		return nil, false, err
	}
	if t.origin, err = first(run, t.tx); err != nil {
		return nil, false, err
	}
	begun = true
	r.atWork.end(s)
	s.report()
	return t, false, nil
}

// Tx returns the transaction for statements of ours.
func (t *Transaction) Tx() pgx.Tx { return t.tx }

// Lent returns the transaction for an application's function, which can neither
// commit it nor roll it back.
func (t *Transaction) Lent() pgx.Tx { return lent{t.tx} }

type lent struct{ pgx.Tx }

func (lent) Commit(context.Context) error   { return fmt.Errorf("session: %w", errEndedInside) }
func (lent) Rollback(context.Context) error { return fmt.Errorf("session: %w", errEndedInside) }

// Check returns an error if the transaction cannot be committed any more.
func (t *Transaction) Check() error {
	c := t.conn.Conn()
	switch {
	case c.IsClosed():
		return fmt.Errorf("the connection was lost: %w", ErrNotCommitted)
	case c.PgConn().IsBusy():
		return errors.New("the function has left rows open; close them (rows.Close) before it returns")
	}
	switch c.PgConn().TxStatus() {
	case 'T':
		return nil
	case 'E':
		return errFailedInside
	}
	return errEndedInside
}

// End rolls the transaction back, unless it has ended. The connection is kept where
// the server answers.
func (t *Transaction) End() {
	if t.conn == nil {
		return
	}
	defer t.leave()
	_ = t.rollback()
	t.release()
}

func (t *Transaction) release() {
	conn := t.conn
	t.conn = nil
	t.r.held.Add(-1)
	conn.Release() // one that is busy or in a transaction is closed
	if t.try {
		t.r.Watch.Dials.Freed()
	}
}

// rollback does not depend on the context of who gives up: a connection for each
// browser that goes away would be too many.
func (t *Transaction) rollback() error {
	ctx, cancel := context.WithTimeout(context.Background(), homeTimeout)
	defer cancel()
	return t.tx.Rollback(ctx)
}

// Commit commits the transaction. It waits until ctx's deadline, also where ctx was
// cancelled: COMMIT itself is never cut off, and its connection stays with it if
// it is late.
//
// Where no answer comes, another connection is asked what has become of it: the
// error is nil if it was committed and the standbys have it, wraps
// [ErrNotCommitted] if it was not, and Errors.Uncertain where nobody can know, as
// after a failover. witness says whether what the transaction has written
// is there, for a server that has had a crash since, which may give a number again.
// Any other error is what PostgreSQL refuses to commit; it wraps ErrNotCommitted too.
func (t *Transaction) Commit(ctx context.Context, witness func(context.Context, *pgx.Conn) (bool, error)) error {
	r := t.r
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(r.timeout)
	}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer cancel()
	tx, s := t.tx, &statement{runner: r, conn: t.conn, ended: make(chan struct{})}
	t.conn = nil // the statement's
	conn := s.conn.Conn()
	run := context.WithValue(context.WithoutCancel(ctx), deadlineKey{}, deadline)
	s.start(func() error {
		return write(run, conn, false, func() error { return tx.Commit(run) })
	})
	inTime := r.awaitWrite(ctx, nil, s, deadline)
	if t.try {
		r.Watch.Dials.Freed()
	}
	if !inTime {
		go func() {
			<-s.ended
			t.leave()
		}()
		return fmt.Errorf("%w: COMMIT has not ended in time: %w", r.errs.Uncertain, ctx.Err())
	}
	t.leave()
	if s.panicked != nil {
		panic(s.panicked)
	}
	err := scrub(s.err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrTxCommitRollback):
		return ErrNotCommitted
	case !s.dead && SQLState(err) != "" && !errors.As(err, new(unconfirmed)) && !r.lostRemote(err):
		return fmt.Errorf("%w: %w", ErrNotCommitted, err)
	}
	return t.resolve(ctx, witness, err)
}

// resolve finds out what has become of a COMMIT without an answer.
func (t *Transaction) resolve(ctx context.Context, witness func(context.Context, *pgx.Conn) (bool, error), lost error) error {
	r := t.r
	if t.origin.XID == "" || t.origin.Server == "" {
		return fmt.Errorf("%w: no answer to COMMIT: %w", r.errs.Uncertain, lost)
	}
	for try := 0; ; try++ {
		what, err := Run(ctx, r, Repeatable, func(ctx context.Context, c *pgx.Conn) (ending, error) {
			return t.origin.ending(ctx, c, witness)
		})
		switch {
		case err != nil:
			return fmt.Errorf("%w: no answer to COMMIT: %w; and it could not be found out: %w", r.errs.Uncertain, lost, err)
		case what == committed:
			return nil
		case what == aborted:
			return fmt.Errorf("%w: no answer to COMMIT: %w", ErrNotCommitted, lost)
		case what == unknown:
			return fmt.Errorf("%w: no answer to COMMIT, and another server, or one that has had a crash, has taken over: %w", r.errs.Uncertain, lost)
		}
		if err := backoff.Pause(ctx, try); err != nil {
			return fmt.Errorf("%w: no answer to COMMIT, and the server is still at it: %w", r.errs.Uncertain, err)
		}
	}
}

// ending is what has become of a transaction.
type ending int

const (
	unknown ending = iota
	inProgress
	committed
	aborted
)

// ending asks a server what has become of a transaction.
//
// The number of a transaction of which nothing had reached the disk when the
// server crashed is given again, and so are those that a standby has not heard of
// when it is promoted. Then "committed" may be said of somebody else's.
func (o *Origin) ending(ctx context.Context, c *pgx.Conn, witness func(context.Context, *pgx.Conn) (bool, error)) (ending, error) {
	var now Origin
	if err := c.QueryRow(ctx, "SELECT "+sqlServer, pgx.QueryExecModeExec).Scan(&now.Server, &now.Checkpoint); err != nil {
		return unknown, err
	}
	switch now.Server {
	case o.Server:
	case "": // a standby: it drops the connection, the primary is somewhere else
		return unknown, &pgconn.PgError{Code: "25006", Message: "the server is a standby"}
	default:
		return unknown, nil
	}
	var status *string
	err := c.QueryRow(ctx, sqlXactStatus, pgx.QueryExecModeExec, o.XID).Scan(&status)
	switch {
	case SQLState(err) == "22023": // "in the future": a crash has made it unknown
		return aborted, nil
	case err != nil:
		return unknown, err
	case status == nil:
		return unknown, nil
	}
	switch *status {
	case "in progress":
		return inProgress, nil
	case "aborted":
		return aborted, nil
	}
	if now.Checkpoint != o.Checkpoint {
		if there, err := witness(ctx, c); err != nil || !there {
			return unknown, err
		}
	}
	return committed, waitForStandbys(ctx, c)
}
