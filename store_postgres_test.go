package session_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/sessiontest"
)

// patience bounds every wait of these tests that should be short.
const patience = 30 * time.Second

// postgresSecret signs the cookies of these tests.
const postgresSecret = "a secret of the tests on PostgreSQL, 32 bytes and more"

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

// newStore returns a store on the pool's database, with the default table.
func newStore(t testing.TB, pool *pgxpool.Pool) *session.PostgresStore {
	t.Helper()
	store, err := session.NewPostgresStore(t.Context(), pool, session.PostgresOptions{Logger: slog.New(slog.DiscardHandler)})
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

func storeTimeout(d time.Duration) func(*session.Config) {
	return func(cfg *session.Config) { cfg.StoreTimeout = d }
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

// countRecords counts the records.
func countRecords(t testing.TB, pool *pgxpool.Pool) int {
	t.Helper()
	return queryOne[int](t, pool, "SELECT count(*) FROM schema_system.session")
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

// nap lets the others work for a moment.
func nap(t testing.TB, pool *pgxpool.Pool) { execSQL(t, pool, "SELECT pg_sleep(0.002)") }

// blockedSQL says true when n statements of the database wait for a lock.
const blockedSQL = `SELECT count(*) >= $1::int FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`

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

// useSession answers one request that does f with its session.
func useSession(m *session.Manager, cookie string, f func(*session.Session)) *response {
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { f(session.From(r.Context())) })
	return ask(m.Handler(h), request("GET", cookie))
}

// loginCounting makes a session and returns its cookie and ID.
func loginCounting(t testing.TB, m *session.Manager) (cookie, id string) {
	t.Helper()
	resp := useSession(m, "", func(s *session.Session) { countKey.Set(s, 0) })
	if cookie = resp.newCookie(); cookie == "" {
		t.Fatalf("login: got status %d and no cookie", resp.status)
	}
	useSession(m, cookie, func(s *session.Session) { id = s.ID() })
	if id == "" {
		t.Fatal("login: got no session ID")
	}
	return cookie, id
}

// counted returns the count of the cookie's session, -1 without one.
func counted(t testing.TB, m *session.Manager, cookie string) int {
	t.Helper()
	n := -1
	resp := useSession(m, cookie, func(s *session.Session) {
		if got, ok := countKey.Get(s); ok {
			n = got
		}
	})
	if resp.status != http.StatusOK {
		t.Errorf("reading the count: got status %d, want 200", resp.status)
	}
	return n
}

// statementLog notes the statements of a pool.
type statementLog struct {
	mu  sync.Mutex
	sql []string
}

func (p *statementLog) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if data.SQL != "-- ping" {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.sql = append(p.sql, data.SQL)
	}
	return ctx
}

func (p *statementLog) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// take returns the statements since the last call.
func (p *statementLog) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	sql := p.sql
	p.sql = nil
	return sql
}

func (p *statementLog) use(cfg *pgxpool.Config) { cfg.ConnConfig.Tracer = p }

func TestPostgresStore(t *testing.T) {
	pool := pgtest.Pool(t)
	for _, tt := range []struct {
		name, sid, sess, expire string
		after                   string
		sameJSON                bool
	}{
		{name: "its own table"},
		{name: "varchar json timestamp", sid: "varchar", sess: "json", expire: "timestamp"},
		{name: "text json timestamp(3)", sid: "text", sess: "json", expire: "timestamp(3)"},
		{name: "varchar(255) json timestamp(0)", sid: "varchar(255)", sess: "json", expire: "timestamp(0)"},
		{name: "varchar json timestamptz", sid: "varchar", sess: "json", expire: "timestamptz"},
		{name: "varchar jsonb timestamptz(3)", sid: "varchar", sess: "jsonb", expire: "timestamptz(3)", sameJSON: true},
		{name: "text jsonb timestamp(6)", sid: "text", sess: "jsonb", expire: "timestamp(6)", sameJSON: true},
		{name: "hash-partitioned", sid: "varchar", sess: "json", expire: "timestamp(6)", after: "PARTITION BY HASH (sid)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			opts := session.PostgresOptions{Schema: tt.name, Logger: slog.New(slog.DiscardHandler)}
			if tt.sid != "" {
				schema := pgx.Identifier{tt.name}.Sanitize()
				table := pgx.Identifier{tt.name, "session"}.Sanitize()
				execSQL(t, pool, fmt.Sprintf(`CREATE SCHEMA %s; CREATE TABLE %s (sid %s PRIMARY KEY, sess %s NOT NULL, expire %s NOT NULL) %s;
					CREATE INDEX ON %s (expire)`, schema, table, tt.sid, tt.sess, tt.expire, tt.after, table))
				for i := range 4 {
					if strings.Contains(tt.after, "HASH") {
						execSQL(t, pool, fmt.Sprintf(`CREATE TABLE %s.part%d PARTITION OF %s FOR VALUES WITH (MODULUS 4, REMAINDER %[2]d)`, schema, i, table))
					}
				}
			}
			store, err := session.NewPostgresStore(t.Context(), pool, opts)
			if err != nil {
				t.Fatal(err)
			}
			sessiontest.TestStore(t, func(*testing.T) session.Store {
				if tt.sameJSON {
					return sessiontest.SameJSON{Store: store}
				}
				return store
			})
		})
	}
}

func TestPostgresStoreInEveryQueryMode(t *testing.T) {
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeDescribeExec, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			// A database of its own, for the suite prunes.
			store := newStore(t, openPool(t, pgtest.URL(t), func(cfg *pgxpool.Config) { cfg.ConnConfig.DefaultQueryExecMode = mode }))
			sessiontest.TestStore(t, func(*testing.T) session.Store { return store })
		})
	}
}

// The server's clock decides, whatever the connection's TimeZone; the odd one
// is half an hour off.
func TestPostgresTimeZones(t *testing.T) {
	for _, tt := range []struct {
		name     string
		database string
		runtime  string
	}{
		{name: "database", database: "America/New_York"},
		{name: "connection", runtime: "America/New_York"},
		{name: "connection against database", database: "Asia/Kolkata", runtime: "Pacific/Auckland"},
		{name: "half an hour", database: "Asia/Kolkata"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url := pgtest.URL(t)
			admin := openPool(t, url)
			if tt.database != "" {
				execSQL(t, admin, "ALTER DATABASE "+pgx.Identifier{admin.Config().ConnConfig.Database}.Sanitize()+" SET timezone = '"+tt.database+"'")
			}
			pool := openPool(t, url, func(cfg *pgxpool.Config) {
				if tt.runtime != "" {
					cfg.ConnConfig.RuntimeParams["timezone"] = tt.runtime
				}
			})
			want := tt.runtime
			if want == "" {
				want = tt.database
			}
			if got := queryOne[string](t, pool, "SHOW timezone"); got != want {
				t.Fatalf("TimeZone: got %s, want %s", got, want)
			}
			store := newStore(t, pool)
			id := createRecord(t, store, `{"a":1}`)
			left := func(want time.Duration) {
				t.Helper()
				r, err := store.Load(t.Context(), id)
				if err != nil || math.Abs((want-r.TTL).Seconds()) > 5 {
					t.Errorf("time left: got %v, %v, want %v", r.TTL, err, want)
				}
				stored := queryOne[float64](t, pool, "SELECT extract(epoch FROM expire::timestamptz)::float8 - extract(epoch FROM now())::float8 FROM schema_system.session WHERE sid = $1", id)
				if math.Abs(stored-want.Seconds()) > 5 {
					t.Errorf("epoch of expire less that of now: got %.1f s, want %v", stored, want)
				}
			}
			left(time.Hour)
			if err := store.Touch(t.Context(), id, 2*time.Hour); err != nil {
				t.Errorf("Touch: got %v, want no error", err)
			}
			left(2 * time.Hour)
			if err := store.Update(t.Context(), id, session.Change{Old: []byte(`{"a":1}`), New: []byte(`{"a":2}`), TTL: 3 * time.Hour}); err != nil {
				t.Errorf("Update: got %v, want no error", err)
			}
			left(3 * time.Hour)
			if err := store.Update(t.Context(), id, session.Change{Old: []byte(`{"a":2}`), New: []byte(`{"a":2}`), TTL: time.Minute, Shorten: true}); err != nil {
				t.Errorf("Update: got %v, want no error", err)
			}
			left(time.Minute)
			dead := createRecord(t, store, `{}`)
			execSQL(t, pool, "UPDATE schema_system.session SET expire = now() - interval '1 second' WHERE sid = $1", dead)
			if n, err := store.Prune(t.Context(), time.Minute); n != 1 || err != nil {
				t.Errorf("Prune: got %d, %v, want 1 of a dead and a live record", n, err)
			}
			left(time.Minute)
		})
	}
}

func TestPostgresInfiniteExpiry(t *testing.T) {
	pool := pgtest.Pool(t)
	store := newStore(t, pool)
	m := patientManager(t, store)
	cookie, id := loginCounting(t, m)
	execSQL(t, pool, "UPDATE schema_system.session SET expire = 'infinity' WHERE sid = $1", id)
	r, err := store.Load(t.Context(), id)
	if err != nil || r.TTL < 50*365*24*time.Hour {
		t.Errorf("Load: got %v left and %v, want very long", r.TTL, err)
	}
	if resp := useSession(m, cookie, increment); resp.status != http.StatusOK {
		t.Errorf("a save: got status %d, want 200", resp.status)
	}
	if got := counted(t, m, cookie); got != 1 {
		t.Errorf("count: got %d, want 1", got)
	}
	if n, err := store.Prune(t.Context(), time.Minute); n != 0 || err != nil {
		t.Errorf("Prune: got %d, %v, want 0", n, err)
	}
}

func TestPostgresStatements(t *testing.T) {
	tracer := &statementLog{}
	pool := pgtest.Pool(t, tracer.use)
	m := patientManager(t, newStore(t, pool))
	cookie, _ := loginCounting(t, m)
	other, _ := loginCounting(t, m)
	forged := strings.Replace(cookie, "=", "=x", 1)
	age := func() {
		execSQL(t, pool, "UPDATE schema_system.session SET expire = now() + interval '23 hours'")
	}
	for _, tt := range []struct {
		name   string
		before func()
		cookie string
		use    func(*session.Session)
		want   []string // what each statement does
	}{
		{name: "no use", cookie: cookie, use: func(*session.Session) {}},
		{name: "no cookie, a read", use: func(s *session.Session) { countKey.Get(s) }},
		{name: "a forged cookie", cookie: forged, use: func(s *session.Session) { countKey.Get(s) }},
		{name: "a read", cookie: cookie, use: func(s *session.Session) { countKey.Get(s); s.Keys() }, want: []string{"SELECT"}},
		{name: "the same value", cookie: cookie, use: func(s *session.Session) { countKey.Set(s, 0) }, want: []string{"SELECT"}},
		{name: "a save", cookie: cookie, use: increment, want: []string{"SELECT", "UPDATE"}},
		{name: "a due touch", before: age, cookie: cookie, use: func(s *session.Session) { countKey.Get(s) }, want: []string{"SELECT", "UPDATE"}},
		{name: "a read after it", cookie: cookie, use: func(s *session.Session) { countKey.Get(s) }, want: []string{"SELECT"}},
		{name: "a save with a due touch", before: age, cookie: cookie, use: increment, want: []string{"SELECT", "UPDATE"}},
		{name: "a new session", use: increment, want: []string{"INSERT"}},
		{name: "a renewal with a save and a due touch", before: age, cookie: cookie, use: func(s *session.Session) { s.Renew(); increment(s) }, want: []string{"SELECT", "UPDATE"}},
		{name: "a dead ID", cookie: cookie, use: func(s *session.Session) { countKey.Get(s) }, want: []string{"SELECT"}},
		{name: "a logout", cookie: other, use: func(s *session.Session) { s.Destroy() }, want: []string{"DELETE"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.before != nil {
				tt.before()
			}
			tracer.take()
			if resp := useSession(m, tt.cookie, tt.use); resp.status != http.StatusOK {
				t.Errorf("status: got %d, want 200", resp.status)
			}
			var got []string
			for _, sql := range tracer.take() {
				verb := "SELECT"
				for _, v := range []string{"INSERT INTO", "UPDATE \"", "DELETE FROM"} {
					if strings.Contains(sql, v) {
						verb, _, _ = strings.Cut(v, " ")
					}
				}
				got = append(got, verb)
			}
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("statements: got %v, want %v", got, tt.want)
			}
		})
	}
}

// A save that is not due to move the expiry leaves the indexed column alone, so
// that the update is heap-only.
func TestPostgresSavesAreHeapOnly(t *testing.T) {
	const saves = 300
	url := pgtest.URL(t)
	admin := openPool(t, url)
	pool := openPool(t, url, maxConns(2))
	m := patientManager(t, newStore(t, pool))
	cookie, id := loginCounting(t, m)
	expire := func() string {
		return queryOne[string](t, admin, "SELECT expire::text FROM schema_system.session WHERE sid = $1", id)
	}
	before := expire()
	for range saves {
		useSession(m, cookie, increment)
	}
	if got := expire(); got != before {
		t.Errorf("expire after %d saves: got %s, want %s", saves, got, before)
	}
	if got := counted(t, m, cookie); got != saves {
		t.Errorf("count: got %d, want %d", got, saves)
	}
	pool.Close() // a server process reports its counts when it ends
	awaitSQL(t, admin, "the updates are counted", "SELECT n_tup_upd >= $1::int FROM pg_stat_user_tables WHERE relname = 'session'", saves)
	share := queryOne[float64](t, admin, "SELECT n_tup_hot_upd::float8 / n_tup_upd FROM pg_stat_user_tables WHERE relname = 'session'")
	t.Logf("%.1f %% of %d saves were heap-only", 100*share, saves)
	if share < 0.95 {
		t.Errorf("heap-only share: got %.2f, want 0.95 at least", share)
	}
}

func TestPostgresDeadlines(t *testing.T) {
	url := pgtest.URL(t)
	admin := openPool(t, url)
	pool := openPool(t, url, maxConns(12), noPing)
	store := newStore(t, pool)
	// Each test has a record of its own.
	var id string
	fresh := func(s session.Store) []storeMethod {
		id = createRecord(t, s, `{"a":1}`)
		return storeMethods(s, id)
	}
	check := func(t *testing.T, name string, err error, took, limit time.Duration) {
		t.Helper()
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), " in time") {
			t.Errorf("%s: got %v, want no answer in time", name, err)
		}
		if strings.Contains(fmt.Sprint(err), id) || strings.ContainsAny(fmt.Sprint(err), "\n") {
			t.Errorf("%s: the error has the session ID or several lines", name)
		}
		if took > limit+2*time.Second {
			t.Errorf("%s: back after %v, want about %v", name, took, limit)
		}
	}
	// noneLost runs f, which must leave the pool's connections alone. They come
	// home in their own time, and are waited for before f's lock goes: a statement
	// that the lock lets through while it is being cancelled costs its connection.
	noneLost := func(t *testing.T, f func() (unlock func())) {
		t.Helper()
		before := backendPIDs(t, pool)
		unlock := f()
		after := backendPIDs(t, pool)
		unlock()
		if !slices.Equal(before, after) {
			t.Errorf("connections: got %v, want the same as before, %v", after, before)
		}
	}

	t.Run("a locked row, 48 timeouts", func(t *testing.T) {
		const limit = 600 * time.Millisecond
		// Each by a statement of its own.
		single, err := session.NewPostgresStore(t.Context(), pool, session.PostgresOptions{DisableBatching: true, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		var calls []storeMethod
		var inTime atomic.Int64
		noneLost(t, func() func() {
			calls = fresh(single)
			unlock := lockRecords(t, admin, id)
			for range 4 {
				together(12, func(i int) {
					ctx, cancel := context.WithTimeout(t.Context(), limit)
					defer cancel()
					c := calls[1+i%3]
					start := time.Now()
					err := c.call(ctx)
					check(t, c.name, err, time.Since(start), limit)
					if ctx.Err() == nil {
						inTime.Add(1)
					}
					// What was cancelled is the late statement, never the next.
					if err := calls[0].call(t.Context()); err != nil {
						t.Errorf("Load after %s: got %v, want no error", c.name, err)
					}
				})
			}
			return unlock
		})
		if inTime.Load() == 0 {
			t.Errorf("back before the deadline: got none of the calls, want nearly all")
		}
		for _, c := range calls[:3] {
			if err := c.call(t.Context()); err != nil {
				t.Errorf("%s after it: got %v, want no error", c.name, err)
			}
		}
	})
	t.Run("locked rows, shared statements", func(t *testing.T) {
		const limit = 600 * time.Millisecond
		noneLost(t, func() func() {
			others, other := fresh(store), id
			calls := fresh(store)
			unlock := lockRecords(t, admin, id, other)
			together(24, func(i int) {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				c := calls[1+i%3]
				if i%2 == 0 {
					c = others[1+i%3]
				}
				start := time.Now()
				check(t, c.name, c.call(ctx), time.Since(start), limit)
			})
			return unlock
		})
	})
	t.Run("a locked table", func(t *testing.T) {
		const limit = time.Second
		noneLost(t, func() func() {
			calls := fresh(store)
			unlock := holdOpen(t, admin, "LOCK TABLE schema_system.session IN ACCESS EXCLUSIVE MODE")
			together(len(calls), func(i int) {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				start := time.Now()
				check(t, calls[i].name, calls[i].call(ctx), time.Since(start), limit)
			})
			return unlock
		})
	})
	t.Run("an exhausted pool", func(t *testing.T) {
		conns := pool.AcquireAllIdle(t.Context())
		defer func() {
			for _, c := range conns {
				c.Release()
			}
		}()
		for len(conns) < 12 {
			c, err := pool.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
		}
		for _, c := range storeMethods(store, "none") {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			err := c.call(ctx)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "all 12 of the pool are busy") {
				t.Errorf("%s: got %v, want that the pool is busy", c.name, err)
			}
		}
	})
	t.Run("the caller gives up", func(t *testing.T) {
		noneLost(t, func() func() {
			calls := fresh(store)
			unlock := lockRecords(t, admin, id)
			for _, c := range calls[1:] {
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- c.call(ctx) }()
				awaitSQL(t, admin, "the statement waits", blockedSQL, 1)
				cancel()
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Errorf("%s: got %v, want context.Canceled", c.name, err)
				}
			}
			return unlock
		})
	})
	t.Run("statement_timeout of the pool", func(t *testing.T) {
		pool := openPool(t, url, maxConns(1), func(cfg *pgxpool.Config) { cfg.ConnConfig.RuntimeParams["statement_timeout"] = "1000" })
		store := newStore(t, pool)
		fresh(store)
		unlock := lockRecords(t, admin, id)
		err := store.Touch(t.Context(), id, time.Hour)
		unlock()
		if err == nil || !strings.Contains(err.Error(), "statement timeout") {
			t.Errorf("Touch: got %v, want a statement timeout", err)
		}
		if err := store.Touch(t.Context(), id, time.Hour); err != nil {
			t.Errorf("Touch after it: got %v, want no error", err)
		}
		if got := pool.Stat().NewConnsCount(); got != 1 {
			t.Errorf("connections made: got %d, want 1", got)
		}
	})
}

type storeMethod struct {
	name string
	call func(context.Context) error
}

// storeMethods are the methods of the store on a record whose data is {"a":1}. The
// last deletes it, the first waits for no row lock.
func storeMethods(store session.Store, id string) []storeMethod {
	same := []byte(`{"a":1}`)
	return []storeMethod{
		{"Load", func(ctx context.Context) error { _, err := store.Load(ctx, id); return err }},
		{"Update", func(ctx context.Context) error {
			return store.Update(ctx, id, session.Change{Old: same, New: same})
		}},
		{"Touch", func(ctx context.Context) error { return store.Touch(ctx, id, 2*time.Hour) }},
		{"Delete", func(ctx context.Context) error { return store.Delete(ctx, id) }},
	}
}

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

// Two hundred browsers go away, while their handlers run or while their saves
// wait for a locked row.
func TestPostgresDisconnectingClients(t *testing.T) {
	const clients, sessions = 200, 5
	for _, tt := range []struct {
		name   string
		locked bool
	}{
		{"in the handler", false},
		{"in the save", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url := pgtest.URL(t)
			admin := openPool(t, url)
			pool := openPool(t, url, maxConns(8))
			m := patientManager(t, newStore(t, pool))
			var cookies [sessions]string
			var ids []string
			for i := range cookies {
				cookie, id := loginCounting(t, m)
				cookies[i], ids = cookie, append(ids, id)
			}
			unlock := func() {}
			if tt.locked {
				unlock = lockRecords(t, admin, ids...)
			}
			var entered, left, done sync.WaitGroup
			entered.Add(clients)
			left.Add(clients)
			done.Add(clients)
			gate := make(chan struct{})
			inner := m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				session.Key[bool](r.URL.Query().Get("key")).Set(session.From(r.Context()), true)
				go func() {
					<-r.Context().Done()
					left.Done()
				}()
				entered.Done()
				if !tt.locked {
					<-gate
				}
			}))
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer done.Done()
				inner.ServeHTTP(w, r)
			}))
			defer server.Close()
			var conns []net.Conn
			for i := range clients {
				c, err := net.Dial("tcp", server.Listener.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				conns = append(conns, c)
				fmt.Fprintf(c, "GET /?key=k%d HTTP/1.1\r\nHost: test\r\nCookie: %s\r\n\r\n", i, cookies[i%sessions])
			}
			entered.Wait()
			if tt.locked {
				awaitSQL(t, admin, "saves wait", blockedSQL, 2)
			}
			for _, c := range conns {
				c.Close()
			}
			left.Wait() // the server knows that they are gone
			close(gate)
			unlock()
			done.Wait()
			if got := pool.Stat().NewConnsCount(); got > 8 {
				t.Errorf("connections made: got %d, want 8 at most", got)
			}
			keys := 0
			for _, c := range cookies {
				useSession(m, c, func(s *session.Session) { keys += len(s.Keys()) - 1 })
			}
			if keys != clients {
				t.Errorf("saved: got %d, want %d", keys, clients)
			}
		})
	}
}

// A trigger fails the first statements of a kind, as a conflict with another
// transaction would, or a cached plan that DDL has made useless.
func TestPostgresRolledBackStatements(t *testing.T) {
	pool := pgtest.Pool(t)
	store := newStore(t, pool)
	execSQL(t, pool, `CREATE SEQUENCE public.calls;
		CREATE FUNCTION public.fails() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF nextval('public.calls') <= TG_ARGV[1]::int THEN RAISE EXCEPTION 'not now' USING ERRCODE = TG_ARGV[0]; END IF;
			RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
		END $$`)
	for _, tt := range []struct {
		name, verb, state string
		failures          int
	}{
		{"Create", "INSERT", "40001", 2},
		{"Update", "UPDATE", "40001", 2},
		{"Update", "UPDATE", "40P01", 2},
		{"Touch", "UPDATE", "40P01", 2},
		{"renewal", "UPDATE", "40001", 2},
		{"Delete", "DELETE", "40P01", 2},
		{"Create", "INSERT", "0A000", 1},
		{"Update", "UPDATE", "0A000", 1},
		{"renewal", "UPDATE", "0A000", 1},
		{"Delete", "DELETE", "0A000", 1},
	} {
		t.Run(tt.name+" "+tt.state, func(t *testing.T) {
			id := createRecord(t, store, `{"a":1}`)
			execSQL(t, pool, fmt.Sprintf(`ALTER SEQUENCE public.calls RESTART; CREATE TRIGGER fails BEFORE %s ON schema_system.session
				FOR EACH ROW EXECUTE FUNCTION public.fails('%s', '%d')`, tt.verb, tt.state, tt.failures))
			change := session.Change{Old: []byte(`{"a":1}`), New: []byte(`{"a":2}`)}
			var err error
			switch tt.name {
			case "Create":
				err = store.Create(t.Context(), rand.Text(), session.Record{Data: []byte(`{}`), TTL: time.Hour})
			case "Update":
				err = store.Update(t.Context(), id, change)
			case "renewal":
				change.NewID = rand.Text()
				err = store.Update(t.Context(), id, change)
			case "Touch":
				err = store.Touch(t.Context(), id, 2*time.Hour)
			case "Delete":
				err = store.Delete(t.Context(), id)
			}
			if err != nil {
				t.Errorf("%s: got %v, want no error", tt.name, err)
			}
			if got := queryOne[int](t, pool, "SELECT last_value::int FROM public.calls"); got != tt.failures+1 {
				t.Errorf("attempts: got %d, want %d", got, tt.failures+1)
			}
			execSQL(t, pool, "DROP TRIGGER fails ON schema_system.session")
		})
	}
}

func TestPostgresDDLUnderLoad(t *testing.T) {
	const sessions = 6
	url := pgtest.URL(t)
	admin := openPool(t, url)
	pool := openPool(t, url, maxConns(6))
	store := newStore(t, pool)
	m := patientManager(t, store)
	var cookies [sessions]string
	for i := range cookies {
		cookies[i], _ = loginCounting(t, m)
	}
	stop := make(chan struct{})
	var rounds [sessions]atomic.Int64
	var wg sync.WaitGroup
	for i := range cookies {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if resp := useSession(m, cookies[i], increment); resp.status != http.StatusOK {
					t.Errorf("status: got %d, want 200", resp.status)
				}
				rounds[i].Add(1)
			}
		})
	}
	settle := func() { // every session has gone on since
		for i := range rounds {
			for want := rounds[i].Load() + 3; rounds[i].Load() < want; {
				nap(t, admin)
			}
		}
	}
	for _, ddl := range []string{
		"ALTER COLUMN sess TYPE jsonb",
		"ALTER COLUMN expire TYPE timestamptz",
		"ALTER COLUMN sid TYPE text",
		"ALTER COLUMN sess TYPE json",
		"ALTER COLUMN expire TYPE timestamp(3)",
		"ADD COLUMN more text",
		"ALTER COLUMN sid TYPE varchar",
		"DROP COLUMN more",
		"ALTER COLUMN sess TYPE jsonb",
	} {
		settle()
		execSQL(t, admin, "ALTER TABLE schema_system.session "+ddl)
	}
	settle()
	close(stop)
	wg.Wait()
	for i, c := range cookies {
		if got, want := counted(t, m, c), int(rounds[i].Load()); got != want {
			t.Errorf("count: got %d, want %d", got, want)
		}
	}
	// The casts that were made for the first types serve the new ones.
	execSQL(t, admin, "ALTER TABLE schema_system.session ALTER COLUMN expire TYPE timestamptz")
	sessiontest.TestStore(t, func(*testing.T) session.Store { return sessiontest.SameJSON{Store: store} })
}

func TestPostgresReadOnly(t *testing.T) {
	url := pgtest.URL(t)
	admin := openPool(t, url)
	tracer := &statementLog{}
	pool := openPool(t, url, maxConns(6), tracer.use)
	store := newStore(t, pool)
	id := createRecord(t, store, `{"a":1}`)
	readOnly := func(value string) {
		execSQL(t, admin, "ALTER DATABASE "+pgx.Identifier{pool.Config().ConnConfig.Database}.Sanitize()+" SET default_transaction_read_only = "+value)
	}
	readOnly("on")
	pool.Reset() // as a failover closes the connections to the old primary
	calls := storeMethods(store, id)
	if err := calls[0].call(t.Context()); err != nil {
		t.Errorf("Load from a standby: got %v, want no error", err)
	}
	together(3, func(i int) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := calls[1+i].call(ctx); err == nil || !strings.Contains(err.Error(), "25006") {
			t.Errorf("%s on a standby: got %v, want 25006", calls[1+i].name, err)
		}
	})
	for _, c := range calls[1:] {
		readOnly("on")
		pool.Reset()
		tracer.take()
		done := make(chan error, 1)
		go func() { done <- c.call(t.Context()) }()
		for tries := 0; tries < 2; tries += len(tracer.take()) {
			nap(t, admin)
		}
		readOnly("off") // admin's own connection is older
		if err := <-done; err != nil {
			t.Errorf("%s while the primary comes back: got %v, want no error", c.name, err)
		}
	}
}

// Errors and logs hold neither a session ID nor data, whatever shape the table
// has been given since the start.
func TestPostgresErrorsAreDiscreet(t *testing.T) {
	modes := []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeSimpleProtocol}
	var pools []*pgxpool.Pool
	for _, mode := range modes {
		pools = append(pools, pgtest.Pool(t, func(cfg *pgxpool.Config) { cfg.ConnConfig.DefaultQueryExecMode = mode }))
	}
	for _, tt := range []struct{ name, ddl string }{
		{"sid is a uuid", "DELETE FROM schema_system.session; ALTER TABLE schema_system.session ALTER COLUMN sid TYPE uuid USING sid::uuid"},
		{"sid is an integer", "DELETE FROM schema_system.session; ALTER TABLE schema_system.session ALTER COLUMN sid TYPE int USING 1"},
		{"sid is short", "DELETE FROM schema_system.session; ALTER TABLE schema_system.session ALTER COLUMN sid TYPE varchar(4)"},
		{"sess is bytea", "ALTER TABLE schema_system.session ALTER COLUMN sess TYPE bytea USING '\\x00'"},
		{"sess is text", "ALTER TABLE schema_system.session ALTER COLUMN sess TYPE text"},
		{"sess has a check", "ALTER TABLE schema_system.session ADD CHECK (length(sess::text) < 5) NOT VALID"},
		{"expire is a date", "ALTER TABLE schema_system.session ALTER COLUMN expire TYPE date"},
		{"expire is a number", "ALTER TABLE schema_system.session ALTER COLUMN expire TYPE int USING 1"},
		{"no unique index", "ALTER TABLE schema_system.session DROP CONSTRAINT session_pkey"},
		{"one data for all", "DELETE FROM schema_system.session; ALTER TABLE schema_system.session ADD COLUMN more text GENERATED ALWAYS AS ('same') STORED UNIQUE"},
		{"a trigger that quotes", `CREATE OR REPLACE FUNCTION public.quotes() RETURNS trigger LANGUAGE plpgsql AS $$
			BEGIN RAISE EXCEPTION 'refused: "%"', NEW USING ERRCODE = '22P02', DETAIL = NEW; END $$;
			CREATE TRIGGER quotes BEFORE INSERT OR UPDATE ON schema_system.session FOR EACH ROW EXECUTE FUNCTION public.quotes()`},
		{"no table", "DROP TABLE schema_system.session"},
		{"no schema", "DROP SCHEMA schema_system CASCADE"},
		{"sid is an enum", "DELETE FROM schema_system.session; CREATE TYPE e AS ENUM ('x'); ALTER TABLE schema_system.session ALTER COLUMN sid TYPE e USING 'x'::e"},
	} {
		for i, pool := range pools {
			t.Run(tt.name+" "+modes[i].String(), func(t *testing.T) {
				execSQL(t, pool, "DROP SCHEMA IF EXISTS schema_system CASCADE; DROP TYPE IF EXISTS e")
				store := newStore(t, pool)
				id := createRecord(t, store, `{"a":1}`)
				log := &logRecorder{}
				m := patientManager(t, store, func(cfg *session.Config) { cfg.Logger = log.logger() })
				cookie, sid := loginCounting(t, m)
				execSQL(t, pool, tt.ddl)
				pool.Reset() // so that the statements are prepared anew
				var text strings.Builder
				note := func(err error) {
					if err != nil {
						fmt.Fprintf(&text, "%v|%+v|%q\n", err, err, err)
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				const data = `{"k":"confidential"}`
				newID := rand.Text()
				for _, c := range storeMethods(store, id) {
					note(c.call(ctx))
				}
				note(store.Update(ctx, id, session.Change{Old: []byte(data), New: []byte(data), TTL: time.Hour, NewID: newID}))
				note(store.Create(ctx, newID, session.Record{Data: []byte(data), TTL: time.Hour}))
				note(store.Create(ctx, newID, session.Record{Data: []byte(data[:9]), TTL: time.Hour}))
				note(store.Create(ctx, newID+"\x00", session.Record{Data: []byte(data), TTL: time.Hour}))
				_, err := store.Prune(ctx, time.Minute)
				note(err)
				for _, c := range []string{cookie, ""} {
					useSession(m, c, func(s *session.Session) {
						session.Key[string]("k").Set(s, "confidential")
						note(s.Save(ctx))
						note(s.Err())
					})
				}
				text.WriteString(log.String())
				if !strings.Contains(text.String(), "SQLSTATE") {
					t.Error("got no error of the database, want one to look at")
				}
				for _, secret := range []string{id, newID, sid, "confidential", strings.TrimPrefix(cookie, "session=")} {
					if i := strings.Index(text.String(), secret); i >= 0 {
						start := strings.LastIndexByte(text.String()[:i], '\n') + 1
						t.Errorf("an ID or data is in an error or the log, after: %s", text.String()[start:i])
					}
				}
			})
		}
	}
}

func TestPostgresDataRefused(t *testing.T) {
	store := newStore(t, pgtest.Pool(t))
	for _, tt := range []struct{ name, id, data string }{
		{"no JSON", "a", `{"a":`},
		{"NUL in the ID", "a\x00", `{}`},
		{"bytes that are no UTF-8", "a", "{\"a\":\"\xff\"}"},
		{"deep", "a", strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := store.Create(t.Context(), tt.id, session.Record{Data: []byte(tt.data), TTL: time.Hour})
			if !errors.Is(err, session.ErrInvalid) {
				t.Errorf("got %v, want ErrInvalid", err)
			}
		})
	}
}

func TestPostgresRestarts(t *testing.T) {
	server := pgtest.Own(t, pgtest.Options{})
	admin := func(t *testing.T) *pgxpool.Pool { return openPool(t, server.URL(), noPing) }
	restart := func(mode string) func(*testing.T) {
		return func(t *testing.T) {
			if err := server.Restart(context.Background(), mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	terminate := func(limit string) func(*testing.T) {
		return func(t *testing.T) {
			a := admin(t)
			pids := queryOne[[]int](t, a, `SELECT array_agg(pid) FROM (SELECT pid FROM pg_stat_activity WHERE application_name = 'victim' LIMIT `+limit+`) v`)
			execSQL(t, a, "SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) pid", pids)
			awaitSQL(t, a, "the terminated are gone", "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = ANY($1::int[])", pids)
		}
	}
	kill := func(t *testing.T) { // the postmaster then restarts everything
		a := admin(t)
		pid := queryOne[int](t, a, "SELECT pid FROM pg_stat_activity WHERE application_name = 'victim' LIMIT 1")
		p, err := os.FindProcess(pid)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(patience); ; { // until it has noticed
			var there bool
			err := a.QueryRow(context.Background(), "SELECT true FROM pg_stat_activity WHERE pid = $1", pid).Scan(&there)
			if errors.Is(err, pgx.ErrNoRows) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the killed backend is still listed after %v", patience)
			}
		}
	}
	victims := func(cfg *pgxpool.Config) {
		cfg.ConnConfig.RuntimeParams["application_name"] = "victim"
		noPing(cfg)
		cfg.MaxConns = 4
	}
	for _, tt := range []struct {
		name string
		act  func(*testing.T)
		said bool // the server says goodbye, so that nothing is uncertain
	}{
		{"fast restart", restart("fast"), true},
		{"immediate restart", restart("immediate"), false},
		{"one backend terminated", terminate("1"), true},
		{"all backends terminated", terminate("ALL"), true},
		{"a backend killed", kill, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const programs, each = 4, 8
			var managers [programs]*session.Manager
			var pools [programs]*pgxpool.Pool
			for i := range managers {
				pools[i] = openPool(t, server.URL(), victims)
				managers[i] = patientManager(t, newStore(t, pools[i]))
			}
			warm := func() {
				for _, p := range pools {
					warmUp(t, p)
				}
			}
			var cookies [3 * each]string
			for i := range cookies {
				cookies[i], _ = loginCounting(t, managers[0])
			}
			// All but the reads have loaded their sessions before and save them
			// afterwards, so that it is the saves that meet dead connections.
			var slow []func() *response
			for i, c := range cookies[each:] {
				use := increment
				if i >= each {
					use = func(s *session.Session) { s.Renew(); increment(s) }
				}
				slow = append(slow, startSlow(managers[i%programs], c, use))
			}
			warm()
			tt.act(t)
			together(len(cookies), func(i int) {
				if i < each {
					if got := counted(t, managers[i%programs], cookies[i]); got != 0 {
						t.Errorf("a read: got count %d, want 0: no outage is a logout", got)
					}
					return
				}
				resp := slow[i-each]()
				if resp.status != http.StatusOK {
					t.Errorf("a save: got status %d, want 200", resp.status)
				}
				if i < 2*each {
					return
				}
				if counted(t, managers[0], cookies[i]) != -1 {
					t.Error("the old ID: got a record, want none")
				}
				if cookies[i] = resp.newCookie(); cookies[i] == "" {
					t.Error("a renewal: got no cookie, want one")
				}
			})
			for i, c := range cookies {
				if got, want := counted(t, managers[0], c), min(i/each, 1); got != want {
					t.Errorf("count: got %d, want %d", got, want)
				}
			}

			if tt.said { // many requests change the same key
				slow = nil
				for i := range 3 * each {
					slow = append(slow, startSlow(managers[i%programs], cookies[0], increment))
				}
				warm()
				tt.act(t)
				together(3*each, func(i int) {
					if resp := slow[i](); resp.status != http.StatusOK {
						t.Errorf("a shared save: got status %d, want 200", resp.status)
					}
				})
				if got := counted(t, managers[0], cookies[0]); got != 3*each {
					t.Errorf("shared count: got %d, want %d", got, 3*each)
				}
			}
			warm()
			if got := countRecords(t, pools[0]); got != len(cookies) {
				t.Errorf("records: got %d, want %d", got, len(cookies))
			}
			execSQL(t, pools[0], "DELETE FROM schema_system.session")
		})
	}

	t.Run("stopped", func(t *testing.T) {
		m := patientManager(t, newStore(t, openPool(t, server.URL(), victims)), storeTimeout(250*time.Millisecond))
		cookie, _ := loginCounting(t, m)
		if err := server.Stop(context.Background(), "fast"); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			name   string
			cookie string
			use    func(*session.Session)
			want   int
		}{
			{"a read", cookie, func(s *session.Session) { countKey.Get(s) }, 503},
			{"a save", cookie, increment, 503},
			{"a login", "", increment, 503},
			{"a logout", cookie, func(s *session.Session) { s.Destroy() }, 503},
			{"a public page", cookie, func(*session.Session) {}, 200},
			{"a first visit", "", func(s *session.Session) { countKey.Get(s) }, 200},
			{"a page that detaches its session", cookie, func(s *session.Session) { countKey.Get(s); s.Detach() }, 200},
		} {
			start := time.Now()
			var failed error
			resp := useSession(m, tt.cookie, func(s *session.Session) { tt.use(s); failed = s.Err() })
			if resp.status != tt.want || len(resp.cookies()) != 0 {
				t.Errorf("%s: got status %d and %d cookies, want %d and none", tt.name, resp.status, len(resp.cookies()), tt.want)
			}
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("%s: took %v, want about a quarter of a second", tt.name, took)
			}
			if tt.name == "a read" && (failed == nil || !strings.Contains(failed.Error(), "refused") && !strings.Contains(failed.Error(), "connect")) {
				t.Errorf("%s: got %v, want that the connection was refused", tt.name, failed)
			}
		}
		if err := server.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
		useSession(m, cookie, increment)
		if got := counted(t, m, cookie); got != 1 {
			t.Errorf("count after it: got %d, want 1: still logged in", got)
		}
	})

	t.Run("restarted under load", func(t *testing.T) {
		const clients = 8
		m := patientManager(t, newStore(t, openPool(t, server.URL(), victims)))
		var cookies [clients]string
		for i := range cookies {
			cookies[i], _ = loginCounting(t, m)
		}
		var counts [clients]atomic.Int64
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for i := range cookies {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if resp := useSession(m, cookies[i], increment); resp.status != http.StatusOK {
						t.Errorf("a save: got status %d, want 200", resp.status)
						return
					}
					counts[i].Add(1)
				}
			})
		}
		for _, mode := range []string{"fast", "immediate"} {
			a := admin(t)
			for i := range counts {
				for want := counts[i].Load() + 5; counts[i].Load() < want && !t.Failed(); {
					nap(t, a)
				}
			}
			restart(mode)(t)
		}
		close(stop)
		wg.Wait()
		for i := range cookies {
			if got, want := counted(t, m, cookies[i]), int(counts[i].Load()); got != want {
				t.Errorf("count: got %d, want %d", got, want)
			}
		}
	})

	t.Run("frozen", func(t *testing.T) {
		const limit = 500 * time.Millisecond
		pool := openPool(t, server.URL(), victims)
		store := newStore(t, pool)
		id := createRecord(t, store, `{"a":1}`)
		warmUp(t, pool)
		frozen := []int{server.PID()}
		rows, _ := pool.Query(t.Context(), "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'")
		pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil {
			t.Fatal(err)
		}
		frozen = append(frozen, pids...)
		thaw := sync.OnceFunc(func() { signalAll(t, frozen, sigCont) })
		t.Cleanup(thaw)
		signalAll(t, frozen, sigStop)
		calls := storeMethods(store, id)
		together(len(calls), func(i int) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			start := time.Now()
			err := calls[i].call(ctx)
			if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took > limit+time.Second {
				t.Errorf("%s: got %v after %v, want a deadline exceeded after %v", calls[i].name, err, took, limit)
			}
		})
		thaw()
		// The cancelled Delete may still have happened: no answer came.
		if err := calls[0].call(t.Context()); err != nil && !errors.Is(err, session.ErrNotFound) {
			t.Errorf("Load after it: got %v, want an answer", err)
		}
		fresh := createRecord(t, store, `{"a":1}`)
		for _, c := range storeMethods(store, fresh) {
			if err := c.call(t.Context()); err != nil {
				t.Errorf("%s after it: got %v, want no error", c.name, err)
			}
		}
	})
}

// The numbers differ, and Windows has neither.
var sigStop, sigCont = func() (stop, cont syscall.Signal) {
	if runtime.GOOS == "linux" {
		return 19, 18
	}
	return 17, 19
}()

func signalAll(t *testing.T, pids []int, sig syscall.Signal) {
	for _, pid := range pids {
		p, err := os.FindProcess(pid)
		if err == nil {
			err = p.Signal(sig)
		}
		if err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("signal: %v", err)
		}
	}
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

// A statement reaches the server and is carried out, or does not reach it, and
// the connection breaks before the answer.
func TestPostgresReplyLost(t *testing.T) {
	for _, cut := range []struct {
		name    string
		forward bool
	}{
		{"reply lost", true},
		{"request lost", false},
	} {
		t.Run(cut.name, func(t *testing.T) {
			dbURL := pgtest.URL(t)
			direct := openPool(t, dbURL)
			proxy := newCuttingProxy(t, dbURL)
			// The SQL is in every message, for the proxy to see.
			pool := openPool(t, proxy.url, func(cfg *pgxpool.Config) { cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec })
			m := patientManager(t, newStore(t, pool))
			plain := patientManager(t, newStore(t, direct))
			for _, tt := range []struct {
				name, sql string
				use       func(*session.Session)
				count     int // afterwards; -1: no record
				renewed   bool
			}{
				{name: "Load", sql: "SELECT sess", use: func(s *session.Session) { countKey.Get(s) }},
				{name: "Update", sql: "SET sess", use: increment, count: 1},
				{name: "Set", sql: "SET sess", use: func(s *session.Session) { countKey.Set(s, 7) }, count: 7},
				{name: "a shorter idle timeout", sql: "SET sess", use: func(s *session.Session) { s.SetIdleTimeout(time.Hour); increment(s) }, count: 1},
				{name: "Renew", sql: "SET sid", use: func(s *session.Session) { s.Renew() }, renewed: true},
				{name: "Renew and Update", sql: "SET sid", use: func(s *session.Session) { s.Renew(); increment(s) }, count: 1, renewed: true},
				{name: "Touch", sql: "SET expire", use: func(s *session.Session) { countKey.Get(s) }},
				{name: "Destroy", sql: "DELETE", use: func(s *session.Session) { s.Destroy() }, count: -1},
				{name: "Destroy and a new session", sql: "DELETE", use: func(s *session.Session) { s.Destroy(); increment(s) }, count: 1, renewed: true},
				{name: "Create after Destroy", sql: "INSERT", use: func(s *session.Session) { s.Destroy(); increment(s) }, count: 1, renewed: true},
			} {
				t.Run(tt.name, func(t *testing.T) {
					cookie, _ := loginCounting(t, plain)
					execSQL(t, direct, "UPDATE schema_system.session SET expire = now() + interval '23 hours'")
					hit := proxy.cut(tt.sql, cut.forward)
					resp := useSession(m, cookie, tt.use)
					if resp.status != http.StatusOK {
						t.Errorf("status: got %d, want 200", resp.status)
					}
					if !hit() {
						t.Error("the proxy has seen no such statement")
					}
					old := cookie
					if tt.renewed {
						if cookie = resp.newCookie(); cookie == "" {
							t.Fatal("cookie: got none, want the new one")
						}
						if got := counted(t, plain, old); got != -1 {
							t.Error("the old ID: got a record, want none")
						}
					}
					if got := counted(t, plain, cookie); got != tt.count {
						t.Errorf("count: got %d, want %d", got, tt.count)
					}
					want := 1
					if tt.count < 0 {
						want = 0
					}
					if got := countRecords(t, direct); got != want {
						t.Errorf("records: got %d, want %d", got, want)
					}
					if tt.name == "Touch" {
						left := queryOne[float64](t, direct, "SELECT extract(epoch FROM expire - now())::float8 / 3600 FROM schema_system.session")
						if left < 23.9 {
							t.Errorf("time left: got %.1f h, want 24", left)
						}
					}
					execSQL(t, direct, "DELETE FROM schema_system.session")
				})
			}
			t.Run("Create", func(t *testing.T) {
				hit := proxy.cut("INSERT", cut.forward)
				resp := useSession(m, "", increment)
				if cookie := resp.newCookie(); resp.status != http.StatusOK || cookie == "" || counted(t, plain, cookie) != 1 || !hit() {
					t.Errorf("login: got status %d and cookie %t, want 200 and one that works", resp.status, cookie != "")
				}
				if got := countRecords(t, direct); got != 1 {
					t.Errorf("records: got %d, want 1: no orphan", got)
				}
			})
		})
	}
}

// cuttingProxy is a TCP proxy before PostgreSQL that can break a connection.
type cuttingProxy struct {
	url string

	mu      sync.Mutex
	sql     string // what the statement to be cut contains; "" for none
	forward bool   // carried out, but not answered
}

func newCuttingProxy(t *testing.T, dbURL string) *cuttingProxy {
	t.Helper()
	u, err := url.Parse(dbURL)
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	target := u.Host
	u.Host = l.Addr().String()
	p := &cuttingProxy{url: u.String()}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			go p.pipe(client, server)
		}
	}()
	return p
}

// cut breaks the connection that next sends a statement with sql in it; hit
// reports whether that has happened.
func (p *cuttingProxy) cut(sql string, forward bool) (hit func() bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sql, p.forward = sql, forward
	return func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.sql == ""
	}
}

func (p *cuttingProxy) pipe(client, server net.Conn) {
	defer client.Close()
	defer server.Close()
	var doomed atomic.Bool
	go func() {
		defer client.Close()
		b := make([]byte, 1<<16)
		for {
			n, err := server.Read(b)
			// The answer comes after the commit.
			if err != nil || doomed.Load() {
				return
			}
			if _, err := client.Write(b[:n]); err != nil {
				return
			}
		}
	}()
	b := make([]byte, 1<<16)
	for {
		n, err := client.Read(b)
		if err != nil {
			return
		}
		p.mu.Lock()
		hit := p.sql != "" && bytes.Contains(b[:n], []byte(p.sql))
		if hit {
			p.sql = ""
		}
		forward := p.forward
		p.mu.Unlock()
		if hit {
			doomed.Store(true)
			if !forward {
				return
			}
		}
		if _, err := server.Write(b[:n]); err != nil {
			return
		}
	}
}

// A server that accepts and then says nothing, as behind a firewall that drops.
func TestPostgresMuteServer(t *testing.T) {
	dbURL := pgtest.URL(t)
	u, err := url.Parse(dbURL)
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	target := u.Host
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var mute atomic.Bool
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if mute.Load() {
					_, _ = io.Copy(io.Discard, c)
					return
				}
				s, err := net.Dial("tcp", target)
				if err != nil {
					return
				}
				defer s.Close()
				go func() { _, _ = io.Copy(c, s); c.Close() }()
				_, _ = io.Copy(s, c)
			}()
		}
	}()
	u.Host = l.Addr().String()
	pool := openPool(t, u.String(), maxConns(2))
	store := newStore(t, pool)
	id := createRecord(t, store, `{"a":1}`)
	mute.Store(true)
	pool.Reset()
	const limit = 300 * time.Millisecond
	calls := storeMethods(store, id)
	together(len(calls), func(i int) {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		start := time.Now()
		err := calls[i].call(ctx)
		if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took > limit+time.Second {
			t.Errorf("%s: got %v after %v, want a deadline exceeded after %v", calls[i].name, err, took, limit)
		}
	})
}

// Data that is large, or has many keys, survives the merge of two requests.
func TestPostgresLargeRecords(t *testing.T) {
	pool := pgtest.Pool(t)
	m := patientManager(t, newStore(t, pool), func(cfg *session.Config) { cfg.MaxBytes = 1 << 20 })
	cookie, id := loginCounting(t, m)
	large := session.Key[string]("large")
	value := strings.Repeat("€", 100_000)
	if resp := useSession(m, cookie, func(s *session.Session) { large.Set(s, value) }); resp.status != http.StatusOK {
		t.Fatalf("status: got %d, want 200", resp.status)
	}
	if resp := useSession(m, cookie, increment); resp.status != http.StatusOK {
		t.Fatalf("status: got %d, want 200", resp.status)
	}
	raw := queryOne[string](t, pool, "SELECT sess::text FROM schema_system.session WHERE sid = $1", id)
	var got struct {
		Large string
		Count int
	}
	if err := json.Unmarshal([]byte(raw), &got); err != nil || got.Large != value || got.Count != 1 {
		t.Errorf("got %d bytes, count %d, %v, want %d bytes and count 1", len(got.Large), got.Count, err, len(value))
	}
}
