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
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/cookie"
	"github.com/pgsession/session/internal/mark"
	"github.com/pgsession/session/internal/pgrun"
	"github.com/pgsession/session/internal/pgtable"
	"github.com/pgsession/session/internal/row"
)

//go:embed schema.sql
var schemaSQL string

// PostgresOptions are the options of [NewPostgresStore]. The zero value means
// the table schema_system.session.
type PostgresOptions struct {
	_ struct{}

	// Schema and Table name the table. Any name is an identifier as it stands,
	// dots and quotes included. Defaults "schema_system" and "session".
	Schema, Table string

	// Under load requests share statements: while BatchSlots of one kind (load,
	// create, save, touch, delete) are under way, further requests gather, at most
	// MaxBatch of them, and go together when one of these ends. Nobody waits
	// for company: a request that finds a free slot goes at once.
	//
	// BatchSlots 0, the default, adapts: two loads and one write of a kind, two
	// where the database is far away (no load takes less than 0.6 ms). When they
	// have been under way for 5 ms (10 ms there) another begins beside them, so
	// that one that is slow or hangs does not stop the others; one more after
	// five times that, and so on, up to half the pool's connections for loads and
	// a quarter for the writes of a kind, two at least. Another number is that
	// many, however long they take.
	//
	// MaxBatch 0 means 128.
	BatchSlots, MaxBatch int

	// DisableBatching gives each request statements of its own, for engines and
	// poolers that send a statement where its one key lives. On a table that Citus
	// has distributed only loads share them anyway.
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
	// what its owner should run: where this user may not make it, or a
	// transaction is open for so long that it would have to be waited for. It has
	// a price: a save is no longer heap-only. Default none.
	IndexKeys []string

	// Outbox names a table in Schema that gets a row for each session that is created,
	// renewed, destroyed, revoked or expired, in the very statement that does it: an
	// audit log that misses nothing and holds nothing that was rolled back
	// (docs/operations.md says how to read it; what Express or SQL deletes is not
	// in it). It is made if it is missing, and an error on a table that Citus has
	// distributed. OutboxUser is the key that says whose
	// session it is, as [Config.UserKey]; with [Config.Encrypt], where it must be
	// the same, the row has the keyed hash of its value that the session is found by.
	// Default none: no table, and no statement is another.
	Outbox, OutboxUser string

	// Logger gets what was found at start, and when the database is down and
	// back again. Default [slog.Default].
	Logger *slog.Logger
}

// PostgresStore keeps records in a table of PostgreSQL, the one that
// connect-pg-simple uses. It is safe for concurrent use, and many programs may
// share a table. The pool stays the caller's.
//
// A read that is late is cancelled in the server, so that its connection survives;
// a write is left alone and is [ErrUncertain]: it may be done later. A connection
// that died is replaced and the statement repeated within the context's deadline
// where that is safe.
//
// When reads, or writes, have had no answer for five seconds (or the time that
// they are given, if that is less) while somebody tried, they are down: methods
// that need them return an error at once, and nothing was sent, but for one at a
// time, which tries. Its success lets others in again, step by step. [Stats] has
// ReadsDown and WritesDown; the logger gets one line each way.
type PostgresStore struct {
	opts   PostgresOptions
	runner *pgrun.Runner
	table  *pgtable.Table
	sql    statements
	inTx   inTx
	plans  plans
	doubts doubts

	rowWaits atomic.Int32 // calls whose row is locked

	shared *sharing // nil: a statement for each request
	shards shards
	pruned pruneMark
}

// NewPostgresStore returns a store on a table, which it makes (schema.sql) if it
// is missing and checks if it is there. It runs no DDL when the table exists, but
// for opts.IndexKeys, so a role that may only read and write rows suffices then.
// A table of another shape, a missing privilege or database is an error that says
// what to do, and so is whatever would keep sessions from being saved or ended:
// row-level security without a policy for this user, rules, a publication without
// a replica identity. What may do so is a warning.
//
// A database that is not there yet (it refuses, is starting up, its name does not
// resolve) is waited for until ctx ends, for 30 seconds if that has no deadline,
// and the log says so; a wrong password or an unknown database is an error at
// once. ctx bounds the setup only.
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
	s.sql.complete(s.table, newBoxes(s.table, opts.OutboxUser))
	if s.table.Distributed {
		s.sql.distribute(s.table)
	}
	s.inTx.complete(&s.sql, s.table)
	s.plans.init(pool)
	if s.runner.Remote = s.table.Distributed; s.table.Distributed {
		if err := s.shards.read(ctx, s.table); err != nil {
			return nil, err
		}
	}
	if !opts.DisableBatching {
		s.share()
	}
	watchOutages(s.runner, opts.Logger, s.shared.refuse)
	return s, nil
}

// complete sets the defaults and refuses what cannot be.
func (o *PostgresOptions) complete() error {
	setDefault(&o.Schema, "schema_system")
	setDefault(&o.Table, "session")
	setDefault(&o.MaxBatch, 128)
	if o.BatchSlots < 0 || o.MaxBatch < 0 {
		return fmt.Errorf("session: PostgresOptions: BatchSlots is %d, MaxBatch %d: must not be negative", o.BatchSlots, o.MaxBatch)
	}
	for _, name := range []string{o.Schema, o.Table} {
		if len(name) > pgtable.MaxNameBytes || strings.IndexByte(name, 0) >= 0 {
			return fmt.Errorf("session: PostgresOptions: %q is no name for PostgreSQL: at most %d bytes, and no NUL", name, pgtable.MaxNameBytes)
		}
	}
	if err := o.checkOutbox(); err != nil {
		return err
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

// checkOutbox refuses what cannot be.
func (o *PostgresOptions) checkOutbox() error {
	switch {
	case o.Outbox == "" && o.OutboxUser != "":
		return errors.New("session: PostgresOptions.OutboxUser needs Outbox, the name of a table")
	case o.Outbox != "" && o.Outbox == o.Table:
		return fmt.Errorf("session: PostgresOptions.Outbox is %q, the table of the sessions: name another", o.Outbox)
	case len(o.Outbox) > pgtable.MaxNameBytes || strings.IndexByte(o.Outbox, 0) >= 0:
		return fmt.Errorf("session: PostgresOptions: %q is no name for PostgreSQL: at most %d bytes, and no NUL", o.Outbox, pgtable.MaxNameBytes)
	case o.OutboxUser != "" && (row.Reserved(o.OutboxUser) || !utf8.ValidString(o.OutboxUser) || strings.IndexByte(o.OutboxUser, 0) >= 0):
		return fmt.Errorf("session: PostgresOptions.OutboxUser: %q is no key: reserved, or not UTF-8", o.OutboxUser)
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
		SIDBytes: sid, FindPrefix: row.PrefixFind, Hash: handleOf, Outbox: o.Outbox, OutboxSQL: outboxSQL,
	}
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

// down reports what is down, for [Manager.Stats].
func (s *PostgresStore) down() (reads, writes bool) {
	w := s.runner.Watch
	return w.Read.State().Down, w.Write.State().Down
}

// Load implements [Store].
func (s *PostgresStore) Load(ctx context.Context, id string) (Record, error) {
	id = s.sid(id)
	switch {
	case s.doubts.has(id):
		return s.loadConfirmed(ctx, id)
	case s.shared == nil:
		return s.loadOne(ctx, id)
	}
	ctx, leave, err := s.runner.Enter(ctx, pgrun.Read, 0)
	if err != nil {
		return Record{}, err
	}
	defer leave()
	rec, err := s.shared.loads.Do(ctx, id)
	if errors.Is(err, errAlone) {
		return s.loadOne(ctx, id)
	}
	return rec, explainTimeout(ctx, err)
}

func (s *PostgresStore) loadOne(ctx context.Context, id string) (Record, error) {
	rec, err := pgrun.Run(ctx, s.runner, pgrun.Read, func(ctx context.Context, c *pgx.Conn) (Record, error) {
		began := time.Now()
		rec, err := s.scanRecord(c.QueryRow(ctx, s.sql.load, s.plans.args(id)...))
		if s.shared != nil && (err == nil || errors.Is(err, pgx.ErrNoRows)) {
			s.shared.way.took(time.Since(began))
		}
		return rec, err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return Record{}, ErrNotFound
	}
	return rec, err
}

// scanRecord reads what sqlLoad says.
func (s *PostgresStore) scanRecord(row pgx.Row) (Record, error) {
	var at pgtype.TID
	var data []byte
	var left *float64
	if err := row.Scan(&at, &data, &left); err != nil {
		return Record{}, err
	}
	if left == nil { // sqlLoadConfirmed always has a row
		return Record{}, ErrNotFound
	}
	s.plans.found(at)
	return loadedRow(data, *left)
}

// loadConfirmed is Load for an ID in doubt.
func (s *PostgresStore) loadConfirmed(ctx context.Context, id string) (Record, error) {
	began := time.Now()
	// A write, for it must not be cancelled.
	rec, err := confirmed(ctx, s, func(ctx context.Context) (Record, error) {
		return pgrun.Run(ctx, s.runner, pgrun.Repeatable, func(ctx context.Context, c *pgx.Conn) (Record, error) {
			rec, err := s.scanRecord(c.QueryRow(ctx, s.sql.loadConfirmed, s.plans.args(id)...))
			if errors.Is(err, pgx.ErrNoRows) { // as a distributed table's has it
				err = ErrNotFound
			}
			return rec, err
		})
	}, func(ctx context.Context) (Record, error) { return s.loadOne(ctx, id) })
	if err == nil || errors.Is(err, ErrNotFound) {
		s.doubts.resolved(id, began)
	}
	return rec, err
}

// confirmed runs a statement that waits for the standbys. A role that may not make
// one wait gets ErrUncertain, unless there are no standbys to wait for: then plain
// is as good.
func confirmed[T any](ctx context.Context, s *PostgresStore, wait, plain func(context.Context) (T, error)) (T, error) {
	v, err := wait(ctx)
	if pgrun.SQLState(err) != "42501" { // insufficient_privilege
		return v, err
	}
	alone, aerr := pgrun.Run(ctx, s.runner, pgrun.Read, func(ctx context.Context, c *pgx.Conn) (alone bool, err error) {
		return alone, c.QueryRow(ctx, s.sql.alone).Scan(&alone)
	})
	switch {
	case aerr != nil:
		return v, aerr
	case alone:
		return plain(ctx)
	}
	return v, fmt.Errorf("%w: an earlier write of this session had no answer, and what became of it cannot be confirmed by the standbys without EXECUTE on pg_catalog.pg_logical_emit_message: %w", ErrUncertain, err)
}

// Create implements [Store].
func (s *PostgresStore) Create(ctx context.Context, id string, r Record) error {
	c := creation{s.sid(id), string(r.Data), r.TTL}
	ctx, leave, err := s.runner.Enter(ctx, pgrun.Once, len(r.Data))
	if err != nil {
		return err
	}
	defer leave()
	f, err := s.settle(ctx, func(ctx context.Context) (fate, error) {
		one := func(ctx context.Context) (fate, error) {
			return s.writeOne(ctx, pgrun.Once, s.sql.create, c.id, c.data, c.ttl.Seconds())
		}
		if s.alone() {
			return one(ctx)
		}
		return together(ctx, s, s.shared.creations, c, one)
	})
	if err == nil && f.what == fateConflict {
		return ErrExists
	}
	return s.unsure(c.id, err)
}

// Update implements [Store].
func (s *PostgresStore) Update(ctx context.Context, id string, c Change) error {
	v := save{id: s.sid(id), old: string(c.Old), new: string(c.New), ttl: c.TTL.Seconds()}
	switch {
	case c.TTL <= 0:
		v.ttl = 0
	case c.Shorten:
		v.ttl = -v.ttl
	}
	c.NewID = s.sid(c.NewID)
	ctx, leave, err := s.runner.Enter(ctx, pgrun.Once, len(v.old)+len(v.new))
	if err != nil {
		return err
	}
	defer leave()
	f, err := s.settle(ctx, func(ctx context.Context) (fate, error) {
		if c.NewID != "" {
			if s.table.Distributed {
				return s.renewInShards(ctx, &v, c.NewID)
			}
			return s.renew(ctx, &v, c.NewID)
		}
		one := func(ctx context.Context) (fate, error) {
			return s.writeOne(ctx, pgrun.Once, s.sql.update, v.id, v.old, v.new, v.ttl)
		}
		if s.alone() {
			return one(ctx)
		}
		return together(ctx, s, s.shared.saves, v, one)
	})
	switch {
	case pgrun.SQLState(err) == "23505": // unique_violation
		return ErrExists
	case err == nil && f.what != fateDone:
		return ErrConflict // or absent, which is as good as one
	case c.NewID != "":
		err = s.unsure(c.NewID, err)
	}
	return s.unsure(v.id, err)
}

// renew is an Update with a new ID. It shares no statement: one ID that is taken
// would fail all.
func (s *PostgresStore) renew(ctx context.Context, v *save, newID string) (fate, error) {
	one := func(ctx context.Context) (fate, error) {
		return s.writeOne(ctx, pgrun.Once, s.sql.renew, v.id, v.old, v.new, v.ttl, newID, mark.Of(newID), markLife.Seconds())
	}
	if s.alone() {
		return one(ctx)
	}
	return together(ctx, s, s.shared.renewals, one, one)
}

// renewInShards is a renewal, in a transaction.
func (s *PostgresStore) renewInShards(ctx context.Context, v *save, newID string) (fate, error) {
	removed, err := pgrun.Run(ctx, s.runner, pgrun.Once, func(ctx context.Context, c *pgx.Conn) (removed bool, err error) {
		tx, err := c.Begin(ctx)
		if err != nil {
			return false, err
		}
		if removed, err = s.sql.shards.move(ctx, s.rows(tx), v.id, v.old, v.new, v.ttl, newID); err != nil || !removed {
			return false, errors.Join(err, tx.Rollback(ctx))
		}
		return true, tx.Commit(ctx)
	})
	if err != nil || removed {
		return fate{what: fateDone}, err
	}
	return s.writeOne(ctx, pgrun.Repeatable, s.sql.renew, v.id, v.old)
}

// rows asks for one row in a transaction.
func (s *PostgresStore) rows(tx pgx.Tx) func(ctx context.Context, sql string, args []any, into ...any) error {
	return func(ctx context.Context, sql string, args []any, into ...any) error {
		return tx.QueryRow(ctx, sql, s.plans.args(args[0], args[1:]...)...).Scan(into...)
	}
}

// Touch implements [Store].
func (s *PostgresStore) Touch(ctx context.Context, id string, ttl time.Duration) error {
	v := touch{s.sid(id), ttl}
	hurried := pgrun.IsImpatient(ctx)
	f, err := s.settle(ctx, func(ctx context.Context) (fate, error) {
		one := func(ctx context.Context) (fate, error) {
			return s.writeOne(ctx, pgrun.Repeatable, s.sql.touch, v.id, v.ttl.Seconds())
		}
		switch {
		case s.alone():
			return one(ctx)
		case hurried:
			return together(ctx, s, s.shared.hurried, v, one)
		}
		return together(ctx, s, s.shared.touches, v, one)
	})
	if err == nil && f.what == fateNone {
		return ErrNotFound
	}
	return err // an uncertain one is no doubt about the session: nothing was promised
}

// unsure remembers the ID of a write if its error is [ErrUncertain].
func (s *PostgresStore) unsure(id string, err error) error {
	if errors.Is(err, ErrUncertain) {
		s.doubts.add(id)
	}
	return err
}

// now returns the database's time.
func (s *PostgresStore) now(ctx context.Context) (time.Time, error) {
	return pgrun.Run(ctx, s.runner, pgrun.Read, func(ctx context.Context, c *pgx.Conn) (time.Time, error) {
		var seconds float64
		err := c.QueryRow(ctx, s.sql.now).Scan(&seconds)
		return time.UnixMilli(int64(seconds * 1000)), err
	})
}

func fromSeconds(s float64) time.Duration {
	return time.Duration(math.Min(s, row.MaxLifetime.Seconds()) * float64(time.Second)) // also of infinity
}
