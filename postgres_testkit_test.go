package session_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// patience bounds every wait of these tests that should be short.
const patience = 30 * time.Second

// postgresSecret signs the cookies of these tests.
const postgresSecret = "tests on PostgreSQL: 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A"

// openPool returns a pool on the database of the URL, closed at the end.
func openPool(t testing.TB, url string, opts ...func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	for _, opt := range opts {
		opt(cfg)
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// maxConns sets a pool's size.
func maxConns(n int32) func(*pgxpool.Config) {
	return func(cfg *pgxpool.Config) { cfg.MaxConns = n }
}

// noPing makes a pool hand out connections that have died while idle.
func noPing(cfg *pgxpool.Config) {
	cfg.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
}

func storeTimeout(d time.Duration) func(*session.Config) {
	return func(cfg *session.Config) { cfg.StoreTimeout = d }
}

// newStore returns a store on the pool's database, by default with the default
// table and without a log.
func newStore(t testing.TB, pool *pgxpool.Pool, opts ...session.PostgresOptions) *session.PostgresStore {
	t.Helper()
	var o session.PostgresOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	store, err := session.NewPostgresStore(context.Background(), pool, o)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// patientManager returns a manager that does not prune on its own.
func patientManager(t testing.TB, store session.Store, opts ...func(*session.Config)) *session.Manager {
	t.Helper()
	cfg := session.Config{
		Secret: postgresSecret, DisablePrune: true, StoreTimeout: patience,
	}
	for _, opt := range opts {
		opt(&cfg)
	}
	return newManager(t, store, cfg)
}

// execSQL runs statements.
func execSQL(t testing.TB, pool *pgxpool.Pool, sql string, args ...any) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if len(args) == 0 {
		args = append(args, pgx.QueryExecModeSimpleProtocol) // several statements, any types
	}
	tag, err := pool.Exec(ctx, sql, args...)
	if err != nil {
		t.Fatalf("%v in %s", err, sql)
	}
	return tag.RowsAffected()
}

// queryOne returns the one value of a query.
func queryOne[T any](t testing.TB, pool *pgxpool.Pool, sql string, args ...any) (v T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := pool.QueryRow(ctx, sql, args...).Scan(&v); err != nil {
		t.Fatalf("%v in %s", err, sql)
	}
	return v
}

// noMark is the condition that a row is no mark of a renewed ID.
const noMark = `left(sess::text, 3) <> '"0e'`

// countRecords counts the records.
func countRecords(t testing.TB, pool *pgxpool.Pool) int {
	t.Helper()
	return queryOne[int](t, pool, "SELECT count(*) FROM schema_system.session WHERE "+noMark)
}

// awaitSQL waits until a query says true; the server waits between the tries.
func awaitSQL(t testing.TB, pool *pgxpool.Pool, what, sql string, args ...any) {
	t.Helper()
	for deadline := time.Now().Add(patience); !queryOne[bool](t, pool, sql, args...); nap(t, pool) {
		if time.Now().After(deadline) {
			t.Fatalf("not after %v: %s", patience, what)
		}
	}
}

// unhurried calls f with more and more time, beginning with limit, until it is back
// within it: on a busy machine it may be late. It returns the last error, and whether
// f came back before its deadline, which one that waits for it never does.
func unhurried(t testing.TB, limit time.Duration, f func(context.Context) error) (inTime bool, err error) {
	t.Helper()
	for ; !inTime && limit <= patience; limit *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		err = f(ctx)
		inTime = ctx.Err() == nil
		cancel()
	}
	return inTime, err
}

// nap lets the others work for a moment.
func nap(t testing.TB, pool *pgxpool.Pool) { execSQL(t, pool, "SELECT pg_sleep(0.002)") }

// blockedSQL says true when n statements of the database wait for a lock.
const blockedSQL = `SELECT count(*) >= $1::int FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`

// awaitRowWaits waits until n calls of stores or managers have found their row
// locked. None of them holds a connection or waits in the server.
func awaitRowWaits[S interface{ RowWaits() int }](t testing.TB, pool *pgxpool.Pool, n int, of ...S) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; nap(t, pool) {
		got := 0
		for _, s := range of {
			got += s.RowWaits()
		}
		if got >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("calls whose row is locked: got %d after %v, want %d", got, patience, n)
		}
	}
}

// createRecord creates a record and returns its session ID.
func createRecord(t testing.TB, store session.Store, data string) string {
	t.Helper()
	id := rand.Text()
	if err := store.Create(t.Context(), id, session.Record{Data: []byte(data), TTL: time.Hour}); err != nil {
		t.Fatalf("Create: got %v, want no error", err)
	}
	return id
}

// lockRecords locks the record in a transaction of its own, until unlock.
func lockRecords(t testing.TB, pool *pgxpool.Pool, ids ...string) (unlock func()) {
	t.Helper()
	return holdOpen(t, pool, "SELECT FROM schema_system.session WHERE sid = ANY($1) FOR UPDATE", ids)
}

// holdOpen runs a statement in a transaction that stays open until release.
func holdOpen(t testing.TB, pool *pgxpool.Pool, sql string, args ...any) (release func()) {
	t.Helper()
	tx, err := pool.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() {
		if err := tx.Rollback(context.Background()); err != nil {
			t.Errorf("rollback: %v", err)
		}
	})
	t.Cleanup(release)
	if _, err := tx.Exec(context.Background(), sql, args...); err != nil {
		t.Fatal(err)
	}
	return release
}

// tracer watches the statements of a pool, before they are sent and after their
// answer, and keeps their SQL.
type tracer struct {
	start func(sql string)
	end   func(err error, took time.Duration)

	mu  sync.Mutex
	sql []string
}

type tracedSince struct{}

func (p *tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if data.SQL != "-- ping" {
		p.mu.Lock()
		p.sql = append(p.sql, data.SQL)
		p.mu.Unlock()
	}
	if p.start != nil {
		p.start(data.SQL)
	}
	return context.WithValue(ctx, tracedSince{}, time.Now())
}

func (p *tracer) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	if p.end != nil {
		p.end(data.Err, time.Since(ctx.Value(tracedSince{}).(time.Time)))
	}
}

// take returns the statements since the last call.
func (p *tracer) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	sql := p.sql
	p.sql = nil
	return sql
}

// use is an option of openPool and pgtest.Pool.
func (p *tracer) use(cfg *pgxpool.Config) { cfg.ConnConfig.Tracer = p }

// warmUp opens all connections of a pool.
func warmUp(t testing.TB, pool *pgxpool.Pool) { backendPIDs(t, pool) }

// backendPIDs returns the server processes of all connections of a pool, having made
// sure that they are there and work.
func backendPIDs(t testing.TB, pool *pgxpool.Pool) []uint32 {
	t.Helper()
	var pids []uint32
	for len(pids) < int(pool.Config().MaxConns) {
		c, err := pool.Acquire(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Release()
		if c.Ping(context.Background()) != nil { // it had died
			c.Release()
			continue
		}
		pids = append(pids, c.Conn().PgConn().PID())
	}
	slices.Sort(pids)
	return pids
}

// newPrograms returns managers that share a database, each with a pool of its own.
func newPrograms(t *testing.T, n int, opts session.PostgresOptions) ([]*session.Manager, *pgxpool.Pool) {
	t.Helper()
	url := pgtest.URL(t)
	var managers []*session.Manager
	for range n {
		store := newStore(t, openPool(t, url, maxConns(8)), opts)
		managers = append(managers, patientManager(t, store))
	}
	return managers, openPool(t, url)
}

// together runs f(0) to f(n-1) at once: all stand at a gate until the last has
// come.
func together(n int, f func(int)) {
	var at, done sync.WaitGroup
	gate := make(chan struct{})
	at.Add(n)
	for i := range n {
		done.Go(func() {
			at.Done()
			<-gate
			f(i)
		})
	}
	at.Wait()
	close(gate)
	done.Wait()
}
