package session

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/cookie"
	"github.com/pgsession/session/internal/mark"
	"github.com/pgsession/session/internal/pgrun"
	"github.com/pgsession/session/internal/pgtable"
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
	// In this order, the row moved and then the mark inserted: one who waits for
	// the row to delete it by a value follows it.
	sqlRenew = `WITH moved AS (UPDATE %[1]s SET sid = $6::text, sess = $3::text::%[2]s, ` + sqlExpire + `
			WHERE sid = $1::text AND expire >= now() AND sess::text = $2::text RETURNING 1)
		INSERT INTO %[1]s (sid, sess, expire) SELECT $1::text, $7::text::%[2]s, now() + make_interval(secs => $8) FROM moved`

	sqlExpire = `expire = CASE $4::int WHEN 0 THEN expire
		WHEN 1 THEN GREATEST(expire, (now() + make_interval(secs => $5))::%[3]s)
		ELSE (now() + make_interval(secs => $5))::%[3]s END`

	sqlTouch = `UPDATE %[1]s SET expire = GREATEST(expire, (now() + make_interval(secs => $2))::%[3]s)
		WHERE sid = $1::text AND expire >= now() AND NOT ` + mark.SQL

	// What the row was before, if it was not deleted: the text of a mark, or ''
	// if somebody has changed it while this waited for them; null for none. A
	// mark stays, or who deletes would lose the way when cut off in the middle.
	sqlDelete = `WITH gone AS (DELETE FROM %[1]s WHERE sid = $1::text AND NOT ` + mark.SQL + ` RETURNING 1)
		SELECT EXISTS (SELECT FROM gone), (SELECT CASE WHEN ` + mark.SQL + ` THEN sess::text ELSE '' END FROM %[1]s WHERE sid = $1::text)`

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

//go:embed schema.sql
var schemaSQL string

const (
	pruneBatch = 50 // as in sqlPrune
	// prunePause is how long pruning rests after a batch, in batches' time.
	prunePause = 4
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
	opts   PostgresOptions
	runner *pgrun.Runner
	table  *pgtable.Table
	sql    struct{ load, create, update, renew, touch, delete, prune, loadMany, updateMany, touchMany, deleteMany string }

	shared *sharing // nil: a statement for each request
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
	if err := opts.complete(); err != nil {
		return nil, err
	}
	s := &PostgresStore{opts: opts, runner: pgrun.New(pool, DefaultStoreTimeout, pgrun.Errors{Uncertain: ErrUncertain, Invalid: ErrInvalid})}
	s.table = opts.table()
	s.table.Runner = s.runner
	if err := s.table.Setup(ctx); err != nil {
		return nil, err
	}
	if len(opts.IndexKeys) > 0 {
		if err := s.table.MakeIndexes(ctx, opts.IndexKeys); err != nil {
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
		*q.dst = strings.NewReplacer("%[1]s", s.table.Quoted(), "%[2]s", s.table.SessType, "%[3]s", s.table.ExpireType).Replace(sql)
	}
	if !opts.DisableBatching {
		s.share()
	}
	return s, nil
}

// complete sets the defaults and refuses what cannot be.
func (o *PostgresOptions) complete() error {
	setDefault(&o.Schema, "schema_system")
	setDefault(&o.Table, "session")
	setDefault(&o.BatchSlots, 2)
	setDefault(&o.MaxBatch, 128)
	if o.BatchSlots < 0 || o.MaxBatch < 0 {
		return fmt.Errorf("session: PostgresOptions: BatchSlots is %d, MaxBatch %d: must not be negative", o.BatchSlots, o.MaxBatch)
	}
	for _, name := range []string{o.Schema, o.Table} {
		if len(name) > pgtable.MaxNameBytes || strings.IndexByte(name, 0) >= 0 {
			return fmt.Errorf("session: PostgresOptions: %q is no name for PostgreSQL: at most %d bytes, and no NUL", name, pgtable.MaxNameBytes)
		}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o.IndexKeys = slices.Clone(o.IndexKeys)
	for _, key := range o.IndexKeys {
		if row.Reserved(key) || !utf8.ValidString(key) || strings.IndexByte(key, 0) >= 0 {
			return fmt.Errorf("session: PostgresOptions.IndexKeys: %q is no key: empty, reserved, or not UTF-8", key)
		}
	}
	return nil
}

// table returns the table that the options name, which nobody has looked at yet.
func (o *PostgresOptions) table() *pgtable.Table {
	sid := cookie.IDLen
	if o.HashIDs {
		sid = base64.RawURLEncoding.EncodedLen(sha256.Size)
	}
	return &pgtable.Table{
		Logger: o.Logger, Schema: o.Schema, Name: o.Table, SQL: schemaSQL,
		SIDBytes: sid, FindPrefix: row.PrefixFind, Hash: handleOf,
	}
}

// SchemaSQL returns the SQL that makes the table of opts, its indexes and those of
// opts.IndexKeys, unless they are there: for migration tools, and for the owner of
// a database whose programs may not make tables. [NewPostgresStore] runs the
// same. A sess column of another type than JSON needs other indexes on keys,
// those that NewPostgresStore makes.
//
// It ends with a CREATE INDEX CONCURRENTLY for each of opts.IndexKeys, which
// PostgreSQL refuses inside a transaction.
func SchemaSQL(opts PostgresOptions) string {
	setDefault(&opts.Schema, "schema_system")
	setDefault(&opts.Table, "session")
	table := opts.table()
	table.SessType = "json"
	sql := table.DDL()
	for _, key := range opts.IndexKeys {
		sql += "\n" + table.IndexSQL(key) + ";\n"
	}
	return sql
}

// fitsExpress refuses a store that cannot share its rows with Express.
func fitsExpress(store Store, cfg *Config) error {
	s, ok := store.(*PostgresStore)
	switch {
	case !ok || s == nil || cfg.Cookie.Format != FormatExpress:
		return nil
	case s.opts.HashIDs:
		return errors.New("session: PostgresOptions.HashIDs does not go with the Express format: Express looks for the ID itself")
	}
	return s.table.ForeignZone
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
	ctx, cancel := s.runner.Bounded(ctx)
	defer cancel()
	rec, err := s.shared.loads.Do(ctx, id)
	if errors.Is(err, errAlone) {
		return s.loadOne(ctx, id)
	}
	return rec, explainTimeout(ctx, err)
}

func (s *PostgresStore) loadOne(ctx context.Context, id string) (Record, error) {
	rec, err := pgrun.Run(ctx, s.runner, pgrun.Repeatable, func(ctx context.Context, c *pgx.Conn) (Record, error) {
		var data []byte
		var left float64
		if err := c.QueryRow(ctx, s.sql.load, id).Scan(&data, &left); err != nil {
			return Record{}, err
		}
		return loadedRow(data, left)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return Record{}, ErrNotFound
	}
	return rec, err
}

// Create implements [Store]. It is never shared: one ID that exists already
// would fail all.
func (s *PostgresStore) Create(ctx context.Context, id string, r Record) error {
	return s.exec(ctx, pgrun.Once, ErrExists, s.sql.create, s.sid(id), r.Data, r.TTL.Seconds())
}

// Update implements [Store].
func (s *PostgresStore) Update(ctx context.Context, id string, c Change) error {
	id, c.NewID = s.sid(id), s.sid(c.NewID)
	if s.shared == nil || c.NewID != "" || c.Shorten {
		return s.updateOne(ctx, id, c)
	}
	ctx, cancel := s.runner.Bounded(ctx)
	defer cancel()
	_, err := s.shared.saves.Do(ctx, save{id: id, old: string(c.Old), new: string(c.New), ttl: c.TTL})
	switch {
	case errors.Is(err, errAlone):
		return s.runAlone(ctx, id, func() error { return s.updateOne(ctx, id, c) })
	case err != nil && ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		return fmt.Errorf("%w: %w", ErrUncertain, explainTimeout(ctx, err)) // others may have carried it on
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
		return s.exec(ctx, pgrun.Once, ErrConflict, s.sql.update, id, c.Old, c.New, mode, c.TTL.Seconds())
	}
	err := s.exec(ctx, pgrun.Once, ErrConflict, s.sql.renew, id, c.Old, c.New, mode, c.TTL.Seconds(), c.NewID,
		mark.Of(c.NewID), markLife.Seconds())
	if pgrun.SQLState(err) == "23505" { // unique_violation
		return ErrExists
	}
	return err
}

// Touch implements [Store].
func (s *PostgresStore) Touch(ctx context.Context, id string, ttl time.Duration) error {
	id = s.sid(id)
	one := func() error { return s.exec(ctx, pgrun.Repeatable, ErrNotFound, s.sql.touch, id, ttl.Seconds()) }
	if s.shared == nil {
		return one()
	}
	ctx, cancel := s.runner.Bounded(ctx)
	defer cancel()
	_, err := s.shared.touches.Do(ctx, touch{id, ttl})
	if errors.Is(err, errAlone) {
		return s.runAlone(ctx, id, one)
	}
	return explainTimeout(ctx, err)
}

// Delete implements [Store].
func (s *PostgresStore) Delete(ctx context.Context, id string) error {
	id = s.sid(id)
	one := func() error { return s.deleteOne(ctx, id) }
	if s.shared == nil {
		return one()
	}
	ctx, cancel := s.runner.Bounded(ctx)
	defer cancel()
	_, err := s.shared.deletes.Do(ctx, id)
	if errors.Is(err, errAlone) {
		return s.runAlone(ctx, id, one)
	}
	return explainTimeout(ctx, err)
}

// exec runs a statement that changes one row, or returns none if it did not.
func (s *PostgresStore) exec(ctx context.Context, r pgrun.Repetition, none error, sql string, args ...any) error {
	for i, a := range args {
		if b, ok := a.([]byte); ok {
			args[i] = string(b) // text, whatever the pool's query mode
		}
	}
	_, err := pgrun.Run(ctx, s.runner, r, func(ctx context.Context, c *pgx.Conn) (struct{}, error) {
		tag, err := c.Exec(ctx, sql, args...)
		if err == nil && tag.RowsAffected() == 0 {
			err = none
		}
		return struct{}{}, err
	})
	return err
}

// Prune implements [Pruner].
func (s *PostgresStore) Prune(ctx context.Context, within time.Duration) (int64, error) {
	start := time.Now()
	var after *float64
	var total int64
	for {
		begin := time.Now()
		batch, err := s.pruneBatch(ctx, after)
		total += batch.deleted
		if err != nil || batch.found < pruneBatch || batch.deleted == 0 { // a trigger may refuse
			return total, err
		}
		after = batch.last
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

// pruned is what became of one batch.
type pruned struct {
	found, deleted int64
	last           *float64 // the expiry that it ended at
}

// pruneBatch deletes one batch; a context that ends does not cut it.
func (s *PostgresStore) pruneBatch(ctx context.Context, after *float64) (pruned, error) {
	if ctx.Err() != nil {
		return pruned{}, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), DefaultStoreTimeout)
	defer cancel()
	return pgrun.Run(ctx, s.runner, pgrun.Repeatable, func(ctx context.Context, c *pgx.Conn) (p pruned, err error) {
		return p, c.QueryRow(ctx, s.sql.prune, after).Scan(&p.found, &p.deleted, &p.last)
	})
}

// now returns the database's time.
func (s *PostgresStore) now(ctx context.Context) (time.Time, error) {
	return pgrun.Run(ctx, s.runner, pgrun.Repeatable, func(ctx context.Context, c *pgx.Conn) (time.Time, error) {
		var seconds float64
		err := c.QueryRow(ctx, "SELECT extract(epoch FROM now())::float8").Scan(&seconds)
		return time.UnixMilli(int64(seconds * 1000)), err
	})
}

func fromSeconds(s float64) time.Duration {
	return time.Duration(math.Min(s, row.MaxLifetime.Seconds()) * float64(time.Second)) // also of infinity
}

// explainTimeout says what it means that a context has ended where requests wait for each
// other.
func explainTimeout(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && err == context.Cause(ctx) {
		return fmt.Errorf("no answer in time: statements of other requests are still waiting for theirs: %w", err)
	}
	return err
}
