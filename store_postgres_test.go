package session_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/sessiontest"
)

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
			opts := session.PostgresOptions{Schema: tt.name}
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
			store := newStore(t, pool, opts)
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
// is half an hour off. None has a daylight saving, in whose last hour times are not
// what they look like: see TestSaveInTheHourThatComesTwice.
func TestPostgresTimeZones(t *testing.T) {
	for _, tt := range []struct {
		name     string
		database string
		runtime  string
	}{
		{name: "database", database: "America/Bogota"},
		{name: "connection", runtime: "America/Bogota"},
		{name: "connection against database", database: "Asia/Kolkata", runtime: "Pacific/Tongatapu"},
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
				if err != nil || math.Abs((want-r.TTL).Seconds()) > patience.Seconds() {
					t.Errorf("time left: got %v, %v, want %v", r.TTL, err, want)
				}
				stored := queryOne[float64](t, pool, "SELECT extract(epoch FROM expire::timestamptz)::float8 - extract(epoch FROM now())::float8 FROM schema_system.session WHERE sid = $1", id)
				if math.Abs(stored-want.Seconds()) > patience.Seconds() {
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
	cookie, id := loginCounter(t, m)
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
	traced := &tracer{}
	pool := pgtest.Pool(t, traced.use)
	m := patientManager(t, newStore(t, pool))
	cookie, _ := loginCounter(t, m)
	other, _ := loginCounter(t, m)
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
		{name: "the same value", cookie: cookie, use: func(s *session.Session) { countKey.Set(s, 0) }, want: []string{"SELECT", "SELECT"}},
		{name: "a save", cookie: cookie, use: increment, want: []string{"SELECT", "UPDATE"}},
		{name: "a due touch", before: age, cookie: cookie, use: func(s *session.Session) { countKey.Get(s) }, want: []string{"SELECT", "UPDATE"}},
		{name: "a due touch, skipped", before: age, cookie: cookie, use: func(s *session.Session) { s.SkipTouch(); countKey.Get(s); s.ExpiresIn() }, want: []string{"SELECT"}},
		{name: "the user's next request", cookie: cookie, use: func(s *session.Session) { countKey.Get(s) }, want: []string{"SELECT", "UPDATE"}},
		{name: "a read after it", cookie: cookie, use: func(s *session.Session) { countKey.Get(s) }, want: []string{"SELECT"}},
		{name: "a save with a due touch", before: age, cookie: cookie, use: increment, want: []string{"SELECT", "UPDATE"}},
		{name: "a new session", use: increment, want: []string{"INSERT"}},
		{name: "a renewal with a save and a due touch", before: age, cookie: cookie, use: func(s *session.Session) { s.Renew(); increment(s) }, want: []string{"SELECT", "UPDATE"}},
		{name: "a dead ID", cookie: cookie, use: func(s *session.Session) { countKey.Get(s) }, want: []string{"SELECT"}},
		{name: "a logout", cookie: other, use: func(s *session.Session) { s.Destroy() }, want: []string{"DELETE"}},
		{name: "a logout of what is gone, confirmed", cookie: other, use: func(s *session.Session) { s.Destroy() }, want: []string{"DELETE", "DELETE"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.before != nil {
				tt.before()
			}
			traced.take()
			if resp := useSession(m, tt.cookie, tt.use); resp.status != http.StatusOK {
				t.Errorf("status: got %d, want 200", resp.status)
			}
			var got []string
			for _, sql := range traced.take() {
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
	cookie, id := loginCounter(t, m)
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
		if took > limit+patience { // it does not hang
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
		single := newStore(t, pool, session.PostgresOptions{DisableBatching: true})
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
					// What was cancelled is the late statement, never the next. On a busy
					// machine others may be late and hold every place for a moment.
					err = calls[0].call(t.Context())
					for end := time.Now().Add(patience); err != nil && strings.Contains(err.Error(), "nothing was sent") && time.Now().Before(end); nap(t, admin) {
						err = calls[0].call(t.Context())
					}
					if err != nil {
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
	// A lock on the table comes before a statement could bound its wait. A read is
	// cancelled; writes are not, and when they hold every place there is for writes
	// (a quarter of the pool) others fail at once.
	t.Run("a locked table", func(t *testing.T) {
		before := backendPIDs(t, pool)
		calls, first := fresh(store), id
		others := fresh(store) // whose ID is id from here on
		for i := range calls {
			if calls[i].name == "Delete" { // a row that the late save has locked would be passed over
				calls[i] = others[i]
			}
		}
		unlock := holdOpen(t, admin, "LOCK TABLE schema_system.session IN ACCESS EXCLUSIVE MODE")
		together(len(calls), func(i int) {
			write := i > 0
			for limit := time.Second; ; limit *= 2 {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				start := time.Now()
				err := calls[i].call(ctx)
				cancel()
				check(t, calls[i].name, err, time.Since(start), limit)
				if strings.Contains(fmt.Sprint(err), first) {
					t.Errorf("%s: the error has the session ID", calls[i].name)
				}
				uncertain := errors.Is(err, session.ErrUncertain)
				if write && !uncertain && limit < patience {
					continue // not even sent in time, as below all three are
				}
				if uncertain != write {
					t.Errorf("%s: got %v, want uncertain: %t", calls[i].name, err, write)
				}
				return
			}
		})
		awaitSQL(t, admin, "the read is cancelled", `SELECT count(*) = 3 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)
		for _, c := range calls[1:] {
			if err := c.call(t.Context()); err == nil || errors.Is(err, session.ErrUncertain) || !strings.Contains(err.Error(), "nothing was sent") {
				t.Errorf("%s with every place held: got %v, want that nothing was sent", c.name, err)
			}
		}
		unlock()
		awaitSQL(t, admin, "the late writes are over", `SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()`)
		if after := backendPIDs(t, pool); !slices.Equal(before, after) {
			t.Errorf("connections: got %v, want the same as before, %v", after, before)
		}
		if _, err := store.Load(t.Context(), id); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("the record whose Delete was late: got %v, want ErrNotFound", err)
		}
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
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "12 of the 12 connections of the pool are held by others") {
				t.Errorf("%s: got %v, want that others hold the pool", c.name, err)
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
				awaitRowWaits(t, admin, 1, store)
				cancel()
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Errorf("%s: got %v, want context.Canceled", c.name, err)
				}
			}
			return unlock
		})
	})
	t.Run("statement_timeout of the pool", func(t *testing.T) {
		pool := openPool(t, url, maxConns(1))
		store := newStore(t, pool)
		fresh(store)
		unlock := holdOpen(t, admin, "LOCK TABLE schema_system.session IN SHARE MODE")
		execSQL(t, pool, "SET statement_timeout = 1000")
		err := store.Touch(t.Context(), id, time.Hour)
		execSQL(t, pool, "SET statement_timeout = 0") // what follows may take longer
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
				cookie, id := loginCounter(t, m)
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
				awaitRowWaits(t, admin, sessions, m)
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
		cookies[i], _ = loginCounter(t, m)
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
	traced := &tracer{}
	pool := openPool(t, url, maxConns(6), traced.use)
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
		said := false
		for limit := time.Second; limit <= patience && !said; limit *= 2 { // a busy server may not say it in time
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			err := calls[1+i].call(ctx)
			cancel()
			if said = strings.Contains(fmt.Sprint(err), "25006"); !said && (!errors.Is(err, context.DeadlineExceeded) || 2*limit > patience) {
				t.Errorf("%s on a standby: got %v, want 25006", calls[1+i].name, err)
				return
			}
		}
	})
	for _, c := range calls[1:] {
		readOnly("on")
		pool.Reset()
		traced.take()
		done := make(chan error, 1)
		go func() { done <- c.call(t.Context()) }()
		for tries := 0; tries < 2; tries += len(traced.take()) {
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
				cookie, sid := loginCounter(t, m)
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

// Data that is large, or has many keys, survives the merge of two requests.
func TestPostgresLargeRecords(t *testing.T) {
	pool := pgtest.Pool(t)
	m := patientManager(t, newStore(t, pool), func(cfg *session.Config) { cfg.MaxBytes = 1 << 20 })
	cookie, id := loginCounter(t, m)
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
