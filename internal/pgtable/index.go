package pgtable

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgsession/session/internal/backoff"
	"github.com/pgsession/session/internal/pgrun"
)

// indexLock is held by the one program that makes indexes.
const indexLock = 7163384699731670

const (
	// indexPatience is how long a start waits for another program that makes
	// indexes, for transactions that are older than the index, and for a lock.
	indexPatience = 10 * time.Second

	// pooledBuild is how long an index may take behind a pooler where nothing
	// else bounds it: there no setting can be made for one statement alone.
	pooledBuild = time.Minute

	// partitionedWait is how long a lock is waited for where PostgreSQL cannot build
	// beside writers.
	partitionedWait = time.Second

	// cancelTime is what is left for cancelling a build and cleaning up after it.
	cancelTime = 2 * time.Second
)

// errOld says why an index is not even begun.
var errOld = errors.New("a transaction is open for so long (a backup, or one that was forgotten) that CREATE INDEX CONCURRENTLY would wait for its end")

// errBusy says that another program is at it.
var errBusy = errors.New("another program is making indexes")

// sqlOld lists transactions that CREATE INDEX CONCURRENTLY waits for: those that
// have a snapshot, and those that write to the table.
var sqlOld = qualify(`SELECT COALESCE(pg_catalog.array_agg(DISTINCT l.pid::text || (' ' || l.virtualtransaction)), ARRAY[]::text[])
	FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
	WHERE l.pid <> pg_catalog.pg_backend_pid() AND a.usesysid IS NOT NULL AND a.datname = pg_catalog.current_database()
		AND (l.locktype = 'virtualxid' AND a.backend_xmin IS NOT NULL
			OR l.locktype = 'relation' AND l.relation = $1::int8::oid AND l.granted AND l.mode <> 'AccessShareLock' AND l.mode <> 'RowShareLock')`)

// sqlBuilding says whether somebody holds the lock on the table that making an
// index takes, or a stronger one.
var sqlBuilding = qualify(`SELECT EXISTS (SELECT FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_database d ON d.oid = l.database
	WHERE l.locktype = 'relation' AND l.relation = $1::int8::oid AND d.datname = pg_catalog.current_database() AND l.granted AND l.pid <> pg_catalog.pg_backend_pid()
		AND l.mode = ANY (ARRAY['ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock']))`)

// MakeIndexes makes those of the keys' indexes that are missing, after Setup, and
// anew those that somebody was cut off while making. Where it may not, or would
// have to wait for a transaction that goes on for long, finding is slow and a
// warning says what to run.
func (t *Table) MakeIndexes(ctx context.Context, keys []string) error {
	conn, err := t.acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	var missing []string
	for _, key := range keys {
		valid, invalid, err := t.keyIndexes(ctx, conn.Conn(), key)
		if err != nil {
			return fmt.Errorf("session: looking for the index for the key %q: %w", key, pgrun.Scrub(err))
		}
		if !valid || len(invalid) > 0 {
			missing = append(missing, key)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	unlock, err := t.lockIndexes(ctx)
	if err != nil && !errors.Is(err, errBusy) {
		return fmt.Errorf("session: making indexes: %w", pgrun.Scrub(err))
	}
	if err == nil {
		defer unlock()
	}
	for _, key := range missing {
		if err := t.ensureIndex(ctx, conn.Conn(), key, err); err != nil {
			return fmt.Errorf("session: making the index for the key %q: %w", key, pgrun.Scrub(err))
		}
	}
	return nil
}

// patienceIn is how long to wait for others.
func (t *Table) patienceIn(ctx context.Context) time.Duration {
	patience := indexPatience
	if t.patience > 0 {
		patience = t.patience
	}
	if deadline, ok := ctx.Deadline(); ok {
		patience = min(patience, time.Until(deadline)/3)
	}
	return patience
}

// lockIndexes waits until no other program makes indexes: two at once would
// wait for each other's transactions until PostgreSQL calls it a deadlock. It
// asks and sleeps instead of waiting in the server, where the one at work would
// wait for it. The connection is not the pool's, which may have but one.
func (t *Table) lockIndexes(ctx context.Context) (unlock func(), err error) {
	conn, err := t.connectPlain(ctx)
	if err != nil {
		return nil, err
	}
	unlock = func() { _ = conn.Close(context.WithoutCancel(ctx)) } // ends the transaction too
	if _, err = conn.Exec(ctx, "BEGIN ISOLATION LEVEL READ COMMITTED"); err != nil {
		unlock()
		return nil, err
	}
	patience := t.patienceIn(ctx)
	for start, locked := time.Now(), false; !locked; {
		// By the simple protocol: the other one leaves a snapshot open, which
		// CREATE INDEX CONCURRENTLY would wait for.
		var res []*pgconn.Result
		if res, err = conn.PgConn().Exec(ctx, fmt.Sprintf("SELECT pg_catalog.pg_try_advisory_xact_lock(%d)", int64(indexLock))).ReadAll(); err == nil {
			if locked = string(res[0].Rows[0][0]) == "t"; !locked {
				err = backoff.Pause(ctx, 6)
			}
		}
		if err == nil && !locked && time.Since(start) > patience {
			err = errBusy
		}
		if err != nil {
			unlock()
			return nil, err
		}
	}
	return unlock, nil
}

// ensureIndex makes a key's index, having cleared away what is left of others'
// attempts. why is why it must not be tried, if it must not.
func (t *Table) ensureIndex(ctx context.Context, c *pgx.Conn, key string, why error) error {
	valid, invalid, err := t.keyIndexes(ctx, c, key) // again: the other program may have made it
	if err != nil {
		return err
	}
	if why == nil && len(invalid) > 0 {
		why = t.clearAway(ctx, c, invalid)
	}
	if valid {
		return nil
	}
	name := t.freeName(ctx, c, t.indexName(key))
	if why == nil {
		why, err = t.waitForOld(ctx, c)
	}
	if err != nil {
		return err
	}
	sql := t.indexSQL(name, key)
	if why == nil {
		start := time.Now()
		t.Logger.Info("session: making an index, which reads the whole table", "index", name, "key", key)
		if why, err = t.build(ctx, c, sql); why == nil && err == nil {
			t.Logger.Info("session: index made", "index", name, "key", key, "tookMs", time.Since(start).Milliseconds())
			return nil
		}
		if err != nil {
			return err
		}
		t.clearUp(ctx, c, key)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	t.Logger.Warn("session: no index on a key, and it could not be made: finding sessions by it reads the whole table",
		slog.String("key", key), slog.Any("error", why), slog.String("run", sql))
	return nil
}

// clearUp drops what a build has left that was cut off, also when ctx has ended.
func (t *Table) clearUp(ctx context.Context, c *pgx.Conn, key string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*cancelTime)
	defer cancel()
	if _, invalid, err := t.keyIndexes(ctx, c, key); err == nil && len(invalid) > 0 {
		_ = t.clearAway(ctx, c, invalid)
	}
}

// clearAway drops indexes that are not valid and that nobody is making. It
// returns why it could not.
func (t *Table) clearAway(ctx context.Context, c *pgx.Conn, invalid []index) error {
	var building bool
	if err := c.QueryRow(ctx, sqlBuilding, t.info.oid).Scan(&building); err != nil {
		return pgrun.Scrub(err)
	}
	for _, i := range invalid {
		var why, err error
		switch {
		case building:
			why = errors.New("somebody is making it, or works on the table")
		case t.info.kind == "p":
			why = errors.New("a partition lacks its part of it")
		default:
			if why, err = t.build(ctx, c, "DROP INDEX CONCURRENTLY IF EXISTS "+i.quoted()); err != nil {
				return err
			}
		}
		if why == nil {
			t.Logger.Info("session: an index is not valid: somebody was cut off while making it; it was dropped", "index", i.name)
			continue
		}
		t.Logger.Warn("session: an index is not valid: somebody is making it, or was cut off while making it",
			slog.String("index", i.name), slog.Any("error", why), slog.String("run", "REINDEX INDEX CONCURRENTLY "+i.quoted()))
		return fmt.Errorf("the index %s is not valid: %w", i.name, why)
	}
	return nil
}

// waitForOld waits for the transactions that the build would wait for, and says
// so if they take too long: a build that has begun and is cut off leaves an
// index behind that nobody can drop before they end.
func (t *Table) waitForOld(ctx context.Context, c *pgx.Conn) (why, err error) {
	var first map[string]bool
	for start, patience := time.Now(), t.patienceIn(ctx); ; {
		var now []string
		if err := c.QueryRow(ctx, sqlOld, t.info.oid).Scan(&now); err != nil {
			return nil, err
		}
		still := map[string]bool{}
		for _, transaction := range now {
			if first == nil || first[transaction] {
				still[transaction] = true
			}
		}
		switch first = still; {
		case len(first) == 0:
			return nil, nil
		case time.Since(start) > patience:
			return errOld, nil
		}
		if err := backoff.Pause(ctx, 6); err != nil {
			return nil, err
		}
	}
}

// build runs a statement that takes as long as it takes, and waits for nobody
// longer than indexPatience. why is PostgreSQL's error: a right that is lacking,
// a standby, time. It is cancelled in the server when ctx ends, so that none goes
// on that nobody waits for.
func (t *Table) build(ctx context.Context, c *pgx.Conn, sql string) (why, err error) {
	limit := time.Duration(0)
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		limit = left - min(cancelTime, left/4)
	}
	restore := func() {}
	if t.info.pooled {
		if limit == 0 || limit > pooledBuild {
			limit = pooledBuild
		}
	} else if restore, err = t.setTimeouts(ctx, c); err != nil {
		return nil, err
	}
	defer restore()
	soft, hard := ctx, context.WithoutCancel(ctx)
	if limit > 0 {
		var cancel context.CancelFunc
		soft, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	hard, cut := context.WithCancel(hard)
	cancelled := make(chan error, 1)
	stop := context.AfterFunc(soft, func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelTime)
		defer cancel()
		// To its end, for until then the server may still signal (before 18 it does so
		// twice), and would hit what comes next.
		err := cmp.Or(c.PgConn().CancelRequest(last), last.Err()) // pgx does not say that it has not waited
		select {
		case <-hard.Done(): // the statement has ended
		case <-last.Done():
			cut()
		}
		cancelled <- err
	})
	_, err = c.PgConn().Exec(hard, sql).ReadAll()
	if cut(); !stop() {
		if <-cancelled != nil { // nobody knows whether something is still to come
			_ = c.PgConn().Conn().Close()
		}
	}
	if pgrun.SQLState(err) != "" {
		return pgrun.Scrub(err), nil // it is logged
	}
	return nil, err
}

// setTimeouts bounds waiting, and nothing else, on a connection.
func (t *Table) setTimeouts(ctx context.Context, c *pgx.Conn) (restore func(), err error) {
	var lock, statement string
	wait := t.patienceIn(ctx)
	if t.info.kind == "p" { // its lock keeps writers waiting, also while it is waited for
		wait = min(wait, partitionedWait)
	}
	const set = "SELECT pg_catalog.set_config('lock_timeout', $1::pg_catalog.text, false), pg_catalog.set_config('statement_timeout', $2::pg_catalog.text, false)"
	err = c.QueryRow(ctx, "SELECT pg_catalog.current_setting('lock_timeout'), pg_catalog.current_setting('statement_timeout')").Scan(&lock, &statement)
	if err == nil {
		_, err = c.Exec(ctx, set, fmt.Sprintf("%dms", max(wait.Milliseconds(), 1)), "0")
	}
	return func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelTime)
		defer cancel()
		if _, err := c.Exec(last, set, lock, statement); err != nil {
			_ = c.Close(last)
		}
	}, err
}
