package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/row"
)

// Statements, with the table for %[1]s, its JSON type for %[2]s and the type of
// expire for %[3]s. A record is live iff expire >= now(), everywhere.
//
// expire may be a timestamp without time zone: local time of the connection's
// TimeZone. So it is never bound nor scanned, only computed from now() and read
// as an epoch.
//
// Parameters are cast, so that a column that has been given another type is an
// error about types, not one that quotes the value.
const (
	sqlLoad = `SELECT sess::text, extract(epoch FROM expire::timestamptz)::float8 - extract(epoch FROM now())::float8
		FROM %[1]s WHERE sid = $1::text AND expire >= now()`

	sqlCreate = `INSERT INTO %[1]s (sid, sess, expire) VALUES ($1::text, $2::text::%[2]s, now() + make_interval(secs => $3))
		ON CONFLICT (sid) DO NOTHING`

	// $4 is 0 to leave the expiry alone, 1 to move it forward, 2 to set it.
	sqlUpdate = `UPDATE %[1]s SET sess = $3::text::%[2]s, ` + sqlExpire + `
		WHERE sid = $1::text AND expire >= now() AND sess::text = $2::text`

	// A statement of its own: one that may change a key locks the row harder.
	sqlRenew = `UPDATE %[1]s SET sid = $6::text, sess = $3::text::%[2]s, ` + sqlExpire + `
		WHERE sid = $1::text AND expire >= now() AND sess::text = $2::text`

	sqlExpire = `expire = CASE $4::int WHEN 0 THEN expire
		WHEN 1 THEN GREATEST(expire, (now() + make_interval(secs => $5))::%[3]s)
		ELSE (now() + make_interval(secs => $5))::%[3]s END`

	sqlTouch = `UPDATE %[1]s SET expire = GREATEST(expire, (now() + make_interval(secs => $2))::%[3]s)
		WHERE sid = $1::text AND expire >= now()`

	sqlDelete = `DELETE FROM %[1]s WHERE sid = $1::text`

	// $1 is the expiry that the last batch ended at, in seconds since 1970 as
	// the column counts them; null for the first. A row that was extended after
	// it was found is left alone by the repeated condition.
	sqlPrune = `WITH dead AS MATERIALIZED (
			SELECT sid, expire FROM %[1]s
			WHERE expire < now() AND expire >= COALESCE('epoch'::%[3]s + make_interval(secs => $1::float8), '-infinity')
			ORDER BY expire LIMIT 50 FOR UPDATE SKIP LOCKED),
		gone AS (DELETE FROM %[1]s s USING dead WHERE s.sid = dead.sid AND s.expire < now() RETURNING 1)
		SELECT (SELECT count(*) FROM dead), (SELECT count(*) FROM gone),
			(SELECT NULLIF(extract(epoch FROM max(expire))::float8, '-infinity') FROM dead)`
)

const (
	pruneBatch = 50 // as in sqlPrune
	// prunePause is how long pruning rests after a batch, in batches' time.
	prunePause = 4

	maxNameBytes = 63 // PostgreSQL cuts longer identifiers off

	// cancelMargin is how long before the deadline a statement is cancelled:
	// time for the server to say that it is. One that began with little time
	// left gets leastMargin, and is allowed to be that late.
	cancelMargin = 250 * time.Millisecond
	leastMargin  = 100 * time.Millisecond
)

// PostgresOptions are the options of [NewPostgresStore]. The zero value means
// the table schema_system.session.
type PostgresOptions struct {
	_ struct{}

	// Schema and Table name the table. Any name is an identifier as it stands,
	// dots and quotes included. Defaults "schema_system" and "session".
	Schema, Table string

	// Under load requests share statements: while BatchSlots of one kind (load,
	// save, touch, delete) are under way, further requests gather, at most
	// MaxBatch of them, and go together when one of these ends. Nobody waits
	// for company: a request that finds a free slot goes at once. Defaults 2
	// and 128.
	BatchSlots, MaxBatch int

	// DisableBatching gives each request statements of its own, for engines and
	// poolers that send a statement where its one key lives.
	DisableBatching bool

	// HashIDs keeps the SHA-256 of a session ID in sid instead of the ID, so
	// that whoever reads the table or a backup cannot use what is in it, even
	// with the secret. Express does not know how to look for it, so New refuses
	// it with the [FormatExpress] format. Sessions from before are not found any more,
	// unless their rows are converted (docs/operations.md). Default false.
	HashIDs bool

	// IndexKeys are keys to index for [Manager.Sessions], [Manager.Revoke] and
	// [Config.MaxPerUser], with Encrypt too. A missing index is made at start,
	// without blocking others (CREATE INDEX CONCURRENTLY), or a warning says
	// what its owner should run. It has a price: a save is no longer heap-only.
	// Default none.
	IndexKeys []string

	// Logger gets what was found at start. Default [slog.Default].
	Logger *slog.Logger
}

// PostgresStore keeps records in a table of PostgreSQL, the one that
// connect-pg-simple uses. It is safe for concurrent use, and many programs may
// share a table. The pool stays the caller's.
//
// A statement that is late is cancelled in the server, so that its connection
// survives. A connection that died is replaced and the statement repeated
// within the context's deadline where that is safe.
type PostgresStore struct {
	pool     *pgxpool.Pool
	maxConns int
	opts     PostgresOptions
	sql      struct{ load, create, update, renew, touch, delete, prune, loadMany, updateMany, touchMany, deleteMany string }

	sessType    string   // json or jsonb
	shared      *sharing // nil: a statement for each request
	foreignZone error    // why Express cannot share the rows; nil if it can
}

// NewPostgresStore returns a store on a table, which it makes (schema.sql) if it
// is missing and checks if it is there. It runs no DDL when the table exists, so
// a role that may only read and write rows suffices then. A table of another
// shape, a missing privilege or database is an error that says what to do. ctx
// bounds the setup only.
func NewPostgresStore(ctx context.Context, pool *pgxpool.Pool, opts PostgresOptions) (*PostgresStore, error) {
	if pool == nil {
		return nil, errors.New("session: NewPostgresStore: pool is nil")
	}
	setDefault(&opts.Schema, "schema_system")
	setDefault(&opts.Table, "session")
	setDefault(&opts.BatchSlots, 2)
	setDefault(&opts.MaxBatch, 128)
	if opts.BatchSlots < 0 || opts.MaxBatch < 0 {
		return nil, fmt.Errorf("session: PostgresOptions: BatchSlots is %d, MaxBatch %d: must not be negative", opts.BatchSlots, opts.MaxBatch)
	}
	for _, name := range []string{opts.Schema, opts.Table} {
		if len(name) > maxNameBytes || strings.IndexByte(name, 0) >= 0 {
			return nil, fmt.Errorf("session: PostgresOptions: %q is no name for PostgreSQL: at most %d bytes, and no NUL", name, maxNameBytes)
		}
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	opts.IndexKeys = slices.Clone(opts.IndexKeys)
	for _, key := range opts.IndexKeys {
		if row.Reserved(key) || !utf8.ValidString(key) || strings.IndexByte(key, 0) >= 0 {
			return nil, fmt.Errorf("session: PostgresOptions.IndexKeys: %q is no key: empty, reserved, or not UTF-8", key)
		}
	}
	s := &PostgresStore{pool: pool, maxConns: int(pool.Config().MaxConns), opts: opts}
	shape, err := s.setup(ctx)
	if err != nil {
		return nil, err
	}
	s.sessType = shape.sessType
	if len(opts.IndexKeys) > 0 {
		if err := s.makeIndexes(ctx, shape.kind); err != nil {
			return nil, err
		}
	}
	for _, q := range []struct {
		dst *string
		sql string
	}{
		{&s.sql.load, sqlLoad},
		{&s.sql.create, sqlCreate},
		{&s.sql.update, sqlUpdate},
		{&s.sql.renew, sqlRenew},
		{&s.sql.touch, sqlTouch},
		{&s.sql.delete, sqlDelete},
		{&s.sql.prune, sqlPrune},
		{&s.sql.loadMany, sqlLoadMany},
		{&s.sql.updateMany, sqlUpdateMany},
		{&s.sql.touchMany, sqlTouchMany},
		{&s.sql.deleteMany, sqlDeleteMany},
	} {
		sql := strings.Join(strings.Fields(q.sql), " ") // before the name goes in: it may have spaces
		*q.dst = strings.NewReplacer("%[1]s", s.table(), "%[2]s", shape.sessType, "%[3]s", shape.expireType).Replace(sql)
	}
	if !opts.DisableBatching {
		s.share()
	}
	return s, nil
}

// table returns the quoted name.
func (s *PostgresStore) table() string {
	return pgx.Identifier{s.opts.Schema, s.opts.Table}.Sanitize()
}

// LogValue names the kind of store and the table, for the log at start.
func (s *PostgresStore) LogValue() slog.Value {
	return slog.GroupValue(slog.String("kind", "postgres"), slog.String("table", s.opts.Schema+"."+s.opts.Table),
		slog.Bool("hashIDs", s.opts.HashIDs))
}

// Load implements [Store].
func (s *PostgresStore) Load(ctx context.Context, id string) (Record, error) {
	id = s.sid(id)
	if s.shared == nil {
		return s.loadOne(ctx, id)
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	rec, err := s.shared.loads.Do(ctx, id)
	if errors.Is(err, errAlone) {
		return s.loadOne(ctx, id)
	}
	return rec, late(ctx, err)
}

func (s *PostgresStore) loadOne(ctx context.Context, id string) (Record, error) {
	var rec Record
	var left float64
	err := s.run(ctx, repeatable, func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, s.sql.load, id).Scan(&rec.Data, &left)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return Record{}, ErrNotFound
	}
	rec.TTL = fromSeconds(left)
	return rec, err
}

// Create implements [Store]. It is never shared: one ID that exists already
// would fail all.
func (s *PostgresStore) Create(ctx context.Context, id string, r Record) error {
	return s.exec(ctx, once, ErrExists, s.sql.create, s.sid(id), r.Data, r.TTL.Seconds())
}

// Update implements [Store].
func (s *PostgresStore) Update(ctx context.Context, id string, c Change) error {
	id, c.NewID = s.sid(id), s.sid(c.NewID)
	if s.shared == nil || c.NewID != "" || c.Shorten {
		return s.updateOne(ctx, id, c)
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	_, err := s.shared.saves.Do(ctx, save{id: id, old: string(c.Old), new: string(c.New), ttl: c.TTL})
	switch {
	case errors.Is(err, errAlone):
		return s.alone(ctx, id, func() error { return s.updateOne(ctx, id, c) })
	case err != nil && ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		return fmt.Errorf("%w: %w", ErrUncertain, late(ctx, err)) // others may have carried it on
	}
	return err
}

func (s *PostgresStore) updateOne(ctx context.Context, id string, c Change) error {
	mode := 0
	if c.TTL > 0 {
		mode = 1
		if c.Shorten {
			mode = 2
		}
	}
	if c.NewID == "" {
		return s.exec(ctx, once, ErrConflict, s.sql.update, id, c.Old, c.New, mode, c.TTL.Seconds())
	}
	err := s.exec(ctx, once, ErrConflict, s.sql.renew, id, c.Old, c.New, mode, c.TTL.Seconds(), c.NewID)
	if sqlState(err) == "23505" { // unique_violation
		return ErrExists
	}
	return err
}

// Touch implements [Store].
func (s *PostgresStore) Touch(ctx context.Context, id string, ttl time.Duration) error {
	id = s.sid(id)
	one := func() error { return s.exec(ctx, repeatable, ErrNotFound, s.sql.touch, id, ttl.Seconds()) }
	if s.shared == nil {
		return one()
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	_, err := s.shared.touches.Do(ctx, touch{id, ttl})
	if errors.Is(err, errAlone) {
		return s.alone(ctx, id, one)
	}
	return late(ctx, err)
}

// Delete implements [Store].
func (s *PostgresStore) Delete(ctx context.Context, id string) error {
	id = s.sid(id)
	one := func() error { return s.exec(ctx, repeatable, nil, s.sql.delete, id) }
	if s.shared == nil {
		return one()
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	_, err := s.shared.deletes.Do(ctx, id)
	if errors.Is(err, errAlone) {
		return s.alone(ctx, id, one)
	}
	return late(ctx, err)
}

// exec runs a statement that changes one row, or returns none if it did not.
func (s *PostgresStore) exec(ctx context.Context, r repetition, none error, sql string, args ...any) error {
	for i, a := range args {
		if b, ok := a.([]byte); ok {
			args[i] = string(b) // text, whatever the pool's query mode
		}
	}
	return s.run(ctx, r, func(ctx context.Context, c *pgx.Conn) error {
		tag, err := c.Exec(ctx, sql, args...)
		if err == nil && tag.RowsAffected() == 0 {
			return none
		}
		return err
	})
}

// Prune implements [Pruner].
func (s *PostgresStore) Prune(ctx context.Context, within time.Duration) (int64, error) {
	start := time.Now()
	var after *float64
	var total int64
	for {
		begin := time.Now()
		found, deleted, last, err := s.pruneBatch(ctx, after)
		total += deleted
		if err != nil || found < pruneBatch || deleted == 0 { // a trigger may refuse
			return total, err
		}
		after = last
		pause := prunePause * time.Since(begin)
		if time.Since(start) > within/2 { // or the backlog would outlive the interval
			pause = 0
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return total, nil
		case <-t.C:
		}
	}
}

// pruneBatch deletes one batch; a context that ends does not cut it.
func (s *PostgresStore) pruneBatch(ctx context.Context, after *float64) (found, deleted int64, last *float64, err error) {
	if ctx.Err() != nil {
		return 0, 0, nil, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), DefaultStoreTimeout)
	defer cancel()
	err = s.run(ctx, repeatable, func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, s.sql.prune, after).Scan(&found, &deleted, &last)
	})
	return found, deleted, last, err
}

func fromSeconds(s float64) time.Duration {
	return time.Duration(math.Min(s, row.MaxLifetime.Seconds()) * float64(time.Second)) // also of infinity
}

// repetition says when a statement may be run again.
type repetition struct {
	again  bool // when its connection died without an answer: twice is once
	shared bool // not after a rollback: its members are run again alone
}

var (
	repeatable = repetition{again: true}
	once       = repetition{} // ErrUncertain
)

// bounded gives a context without a deadline the default one.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, DefaultStoreTimeout)
}

// run runs f on a connection, again where that is safe, until the context's
// deadline.
func (s *PostgresStore) run(ctx context.Context, r repetition, f func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	var last error // why the attempt before failed
	for try := 0; ; try++ {
		sent, dead, err := s.attempt(ctx, f)
		err = scrub(err)
		if last != nil && errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("%w; before that: %w", err, last)
		}
		switch verdict(err, dead) {
		case final:
			return describe(err)
		case broken:
			if sent && !r.again && !shutDown(err) {
				return fmt.Errorf("%w: %w", ErrUncertain, err)
			}
			last = err
			// After a restart each pooled connection fails once, at once.
			if dead && try <= s.maxConns && ctx.Err() == nil {
				continue
			}
		case rolledBack:
			if r.shared && sqlState(err) != "25006" { // no member has caused that
				return err
			}
			last = err
		}
		if end := pause(ctx, min(try, 6)); end != nil {
			return describe(fmt.Errorf("no success in time: %w; before that: %w", end, err))
		}
	}
}

// attempt runs f once. sent says that the statement may have reached the server,
// dead that its connection did not survive.
//
// f runs without a deadline of its own, for pgx answers a context that ends by
// closing the connection. Instead the statement is cancelled in the server
// shortly before the deadline, and the connection closed only if that does not
// help (70 timeouts: no connection lost).
func (s *PostgresStore) attempt(ctx context.Context, f func(context.Context, *pgx.Conn) error) (sent, dead bool, err error) {
	deadline, _ := ctx.Deadline()
	margin := min(cancelMargin, time.Until(deadline)/4)
	early, cancel := context.WithDeadline(ctx, deadline.Add(-margin))
	defer cancel()
	conn, err := s.pool.Acquire(early)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) && early.Err() != nil {
			err = fmt.Errorf("no connection in time: all %d of the pool are busy or the server does not answer: %w", s.maxConns, err)
		}
		return false, false, err
	}
	defer conn.Release()
	pg := conn.Conn().PgConn()
	ended, cancelled := make(chan struct{}), make(chan struct{})
	forced := false // to be read after cancelled is closed
	stop := context.AfterFunc(early, func() {
		defer close(cancelled)
		hard, cancel := context.WithTimeout(context.Background(), max(margin, leastMargin))
		defer cancel()
		_ = pg.CancelRequest(hard) // if it fails the next line ends the wait
		select {
		case <-ended:
		case <-hard.Done():
			forced = true
			_ = pg.Conn().SetDeadline(time.Unix(1, 0))
		}
	})
	defer stop() // a tracer may panic, and the connection goes back to the pool
	run := context.WithoutCancel(ctx)
	if err = f(run, conn.Conn()); sqlState(err) == "0A000" { // feature_not_supported
		// A cached plan that DDL has made useless; pgx has dropped it. Every
		// other connection has one too, so not on another.
		err = f(run, conn.Conn())
	}
	if !stop() {
		close(ended)
		<-cancelled
		if (forced || sqlState(err) != "57014") && !conn.Conn().IsClosed() {
			// The cancellation may still be under way, to whatever runs next.
			s.discard(conn)
		}
		if err != nil && (sqlState(err) == "57014" || conn.Conn().IsClosed()) {
			err = fmt.Errorf("no answer in time: %w: %w", early.Err(), err)
		}
	}
	if sqlState(err) == "25006" { // a standby: the primary is somewhere else now
		s.discard(conn)
		return true, false, err
	}
	return !pgconn.SafeToRetry(err), conn.Conn().IsClosed(), err
}

// discard closes a connection, so that the pool makes a new one.
func (s *PostgresStore) discard(conn *pgxpool.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), cancelMargin)
	defer cancel()
	_ = conn.Conn().Close(ctx) // the pool drops it either way
}

type verdicts int

const (
	final      verdicts = iota // an answer, or nothing that repeating would mend
	rolledBack                 // nothing was written; worth another try
	broken                     // the connection died; what was sent may have been done
)

func verdict(err error, dead bool) verdicts {
	var unconnected *pgconn.ConnectError
	switch sqlState(err) {
	case "40001", "40P01", "25006": // serialization_failure, deadlock_detected, read_only_sql_transaction
		return rolledBack
	case "53300", "57P01", "57P02", "57P03": // too many connections, shutdown, crash, starting up
		return broken
	case "":
		if errors.As(err, &unconnected) {
			return broken
		}
	}
	if dead && err != nil {
		return broken
	}
	return final
}

func sqlState(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}

// late says what it means that a context has ended where requests wait for each
// other.
func late(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && err == context.Cause(ctx) {
		return fmt.Errorf("no answer in time: statements of other requests are still waiting for theirs: %w", err)
	}
	return err
}

// shutDown reports whether PostgreSQL itself has ended the connection and said
// so: then it has rolled back, for what it commits it confirms first. A pooler
// in between, whose errors name no source file, cannot know.
func shutDown(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.Code == "57P01" && pe.File != "" // admin_shutdown
}

// describe marks data that PostgreSQL refuses, says what to do where the pool
// is set up wrongly, and leaves other errors alone.
func describe(err error) error {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return err
	}
	switch {
	case strings.HasPrefix(pe.Code, "22"), strings.HasPrefix(pe.Code, "54"):
		why := ""
		if pe.Code == "22P05" || pe.Code == "22021" || pe.Code[0] == '5' { // other messages may quote the data
			why = pe.Message + " "
		}
		return fmt.Errorf("%w: PostgreSQL refuses the data: %s(SQLSTATE %s)", ErrInvalid, why, pe.Code)
	case pe.Code == "42P05", pe.Code == "26000": // duplicate or missing prepared statement
		return fmt.Errorf("a pooler between here and PostgreSQL mixes up prepared statements: set DefaultQueryExecMode of the pool's ConnConfig to pgx.QueryExecModeCacheDescribe: %w", err)
	}
	return err
}
