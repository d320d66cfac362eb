package session_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/citustest"
	"github.com/pgsession/session/internal/hostile"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/sessiontest"
)

// bareStore is a store that neither finds nor prunes.
type bareStore struct {
	session.Store
	session.Watcher
}

// The whole of what a store sends for requests, in a database in which strangers have made
// twins of all that it could name.
func TestStoreAmongTwins(t *testing.T) {
	t.Parallel()
	db := hostile.New(t)
	clean := openPool(t, db.Clean())
	pretend := sync.OnceFunc(func() { citustest.Pretend(t, clean) })
	for _, path := range hostile.Paths {
		for i, tt := range []struct {
			sess, expire string
			opts         session.PostgresOptions
			citus        bool
		}{
			{"json", "timestamp(6)", session.PostgresOptions{}, false},
			{"jsonb", "timestamptz(6)", session.PostgresOptions{DisableBatching: true}, false},
			{"json", "timestamptz(6)", session.PostgresOptions{HashIDs: true}, false},
			{"jsonb", "timestamp(6)", session.PostgresOptions{}, false},
			{"json", "timestamp(6)", session.PostgresOptions{HashIDs: true, DisableBatching: true}, false},
			{"json", "timestamptz(6)", session.PostgresOptions{}, true},
		} {
			t.Run(fmt.Sprintf("%s, %s, %s, off %t, hashed %t, Citus %t", path, tt.sess, tt.expire, tt.opts.DisableBatching, tt.opts.HashIDs, tt.citus), func(t *testing.T) {
				if tt.citus && citustest.Real() {
					t.Skip("CITUS: this is a database of its own, with catalogs that are only looks")
				}
				tt.opts.Schema = fmt.Sprintf("s%d_%d", slices.Index(hostile.Paths, path), i)
				execSQL(t, clean, fmt.Sprintf(`CREATE SCHEMA %s; CREATE TABLE %[1]s.session (sid varchar PRIMARY KEY, sess %s NOT NULL, expire %s NOT NULL); CREATE INDEX ON %[1]s.session (expire)`,
					tt.opts.Schema, tt.sess, tt.expire))
				if tt.citus {
					pretend()
					citustest.Distribute(t, clean, tt.opts.Schema, "sid")
				}
				// Made where no twin is found: this is about what it sends afterwards.
				start := openPool(t, db.Clean(), maxConns(8))
				store := newStore(t, start, tt.opts)
				store.SetPool(db.Pool(t, path, maxConns(8)))
				for _, call := range rowWrites(store, createRecord(t, store, `{"a":1}`)) {
					store.Doubt("doubtful")
					if err := call.call(t.Context()); err != nil {
						t.Logf("%s: %v", call.name, err) // told by the pool, if it is a twin's
					}
				}
				_, _ = store.Load(t.Context(), "doubtful")
				_ = store.Delete(t.Context(), "doubtful")
				sessiontest.TestStore(t, func(*testing.T) session.Store {
					if tt.sess == "jsonb" {
						return sessiontest.SameJSON{Store: bareStore{store, store}}
					}
					return bareStore{store, store}
				})
			})
		}
	}
}

// sentStatements returns what stores send for requests, shared and not.
func sentStatements(t *testing.T, url string, opts session.PostgresOptions) []string {
	t.Helper()
	trace := new(tracer)
	pool := openPool(t, url, maxConns(2), trace.use)
	sent := map[string]bool{}
	for _, off := range []bool{true, false} {
		opts.DisableBatching = off
		opts.BatchSlots = 1
		store := newStore(t, pool, opts)
		trace.take()
		id := createRecord(t, store, `{"a":1}`)
		store.Doubt("doubtful")
		_, _ = store.Load(t.Context(), "doubtful")
		_ = store.Delete(t.Context(), "doubtful")
		_, _ = store.Peek(t.Context(), []string{id, "another"})
		together(24, func(i int) { // the slot is taken by one of them, so that the others share
			for _, c := range append(storeMethods(store, id)[:1], rowWrites(store, id)...) {
				_ = c.call(t.Context())
			}
		})
		for _, sql := range trace.take() {
			if strings.Contains(sql, "session") && strings.Contains(sql, "sid") {
				sent[sql] = true
			}
		}
	}
	return slices.Collect(maps.Keys(sent))
}

// No statement reads a whole table, whatever PostgreSQL believes about it.
func TestPlansUseIndexes(t *testing.T) {
	t.Parallel()
	const fill = `INSERT INTO schema_system.session SELECT 'fill-' || n, json_build_object('cookie', repeat('x', 200)), now() + interval '1 day' FROM generate_series(1, %d) n`
	for _, tt := range []struct {
		name   string
		before string // on the empty table, or with what it says of a tiny one
		rows   int
		wrong  string // and afterwards
	}{
		{"analysed empty", "ANALYZE schema_system.session", 200_000, ""},
		{"analysed tiny", fmt.Sprintf(fill, 3) + "; ANALYZE schema_system.session; DELETE FROM schema_system.session", 200_000, ""},
		{"never analysed", "", 200_000, ""},
		{"analysed", "", 200_000, "ANALYZE schema_system.session"},
		{"a small table, where statements are prepared for the first time", "ANALYZE schema_system.session", 1_000, ""},
		{"a small table, analysed", "", 1_000, "ANALYZE schema_system.session"},
		{"all expired and analysed", "", 200_000, "UPDATE schema_system.session SET expire = now() - interval '1 day'; ANALYZE schema_system.session"},
		{"all expired and analysed, of which new ones come", "", 200_000, "UPDATE schema_system.session SET expire = now() - interval '1 day'; ANALYZE schema_system.session;" + fmt.Sprintf(strings.Replace(fill, "fill", "new", 1), 1_000)},
	} {
		for _, partitions := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, partitions %t", tt.name, partitions), func(t *testing.T) {
				url := pgtest.URL(t)
				pool := openPool(t, url, maxConns(1))
				newStore(t, pool)
				if partitions {
					partition(t, pool)
				}
				statements := sentStatements(t, url, session.PostgresOptions{})
				if len(statements) < 15 {
					t.Fatalf("got %d different statements, want those of each kind", len(statements))
				}
				execSQL(t, pool, "TRUNCATE schema_system.session; "+tt.before)
				rows := tt.rows
				if partitions { // each of the eight is to be as large as that of a table
					rows = min(8*rows, 80_000)
				}
				execSQL(t, pool, fmt.Sprintf(fill, rows))
				execSQL(t, pool, "SELECT 1; "+tt.wrong)
				for _, mode := range []string{"force_generic_plan", "force_custom_plan"} {
					for _, sql := range statements {
						if plan := preparedPlan(t, pool, mode, sql); strings.Contains(plan, "Seq Scan") || strings.Contains(plan, "expire_idx") || strings.Contains(plan, "idx_session_expire") || !strings.Contains(plan, "Index") && !strings.Contains(plan, "Bitmap") && !strings.Contains(sql, "INSERT INTO") {
							t.Errorf("%s: got the plan\n%s\nof %s", mode, plan, sql)
						}
					}
				}
			})
		}
	}
}

// All sessions have expired over a weekend, and PostgreSQL has made its statistics
// then: nobody is live, they say. Of those who log in from then on, each is found by
// the ID or the key that is asked for, and no other is read on the way.
func TestStatisticsOfAWeekend(t *testing.T) {
	t.Parallel()
	const expired, live = 20_000, 5_000
	for _, indexed := range []bool{false, true} {
		t.Run(fmt.Sprintf("an index on the key %t", indexed), func(t *testing.T) {
			url := pgtest.URL(t)
			admin := openPool(t, url, maxConns(2))
			pool := openPool(t, url, maxConns(1))
			var opts session.PostgresOptions
			if indexed {
				opts.IndexKeys = []string{"userId"}
			}
			m := patientManager(t, newStore(t, pool, opts), func(c *session.Config) { c.UserKey, c.MaxPerUser = "userId", 2 })
			const fill = `INSERT INTO schema_system.session SELECT '%s' || n, json_build_object('cookie', json_build_object('originalMaxAge', 86400000), 'userId', n), now() + interval '%s' FROM generate_series(1, %d) n`
			execSQL(t, admin, "ALTER TABLE schema_system.session SET (autovacuum_enabled = off)")
			execSQL(t, admin, fmt.Sprintf(fill, "expired", "-1 day", expired))
			execSQL(t, admin, "ANALYZE schema_system.session")
			cookie, _ := loginAs(t, m, 1, "a")
			execSQL(t, admin, fmt.Sprintf(fill, "live", "1 day", live))
			for _, step := range []struct {
				name string
				do   func() error
			}{
				{"a renewal", func() error { cookie = useSession(m, cookie, (*session.Session).Renew).newCookie(); return nil }},
				{"a transaction", func() (err error) {
					useSession(m, cookie, func(s *session.Session) {
						err = session.Transact(t.Context(), s, func(context.Context, pgx.Tx) error { countKey.Set(s, 1); return nil })
					})
					return err
				}},
				{"logins over the limit", func() error { loginAs(t, m, 1, "b"); loginAs(t, m, 1, "c"); return nil }},
				{"sessions", func() error { _, err := m.Sessions(t.Context(), userIDKey.Is(1)); return err }},
				{"an edit", func() error {
					_, err := m.Edit(t.Context(), userIDKey.Is(1), func(s *session.Session) error { countKey.Set(s, 2); return nil })
					return err
				}},
				{"a new secret", func() error { _, err := m.Reseal(t.Context(), session.ResealOptions{}); return err }},
				{"a revocation", func() error { _, err := m.Revoke(t.Context(), userIDKey.Is(1)); return err }},
			} {
				before := indexReads(t, admin, pool) // and by a new connection, which makes its plans now
				if err := step.do(); err != nil {
					t.Errorf("%s: %v", step.name, err)
				}
				if got := indexReads(t, admin, pool) - before; got >= live {
					t.Errorf("%s: got %d entries of the index on expire read, want those of %d live sessions left alone", step.name, got, live)
				}
			}
			if got := countRecords(t, pool); got != expired+live-2 { // what was filled in has a user 1 of each kind
				t.Errorf("records left: got %d, want %d", got, expired+live-2)
			}
		})
	}
}

// preparedPlan is the plan of a prepared statement.
func preparedPlan(t *testing.T, pool *pgxpool.Pool, mode, sql string) string {
	t.Helper()
	c, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	exec := func(sql string) {
		if _, err := c.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%v in %s", err, sql)
		}
	}
	exec("DEALLOCATE ALL; SET plan_cache_mode = " + mode + "; PREPARE it AS " + sql)
	defer exec("DEALLOCATE ALL; RESET plan_cache_mode")
	var types []string
	if err := c.QueryRow(t.Context(), "SELECT parameter_types::text[] FROM pg_prepared_statements WHERE name = 'it'", pgx.QueryExecModeExec).Scan(&types); err != nil {
		t.Fatal(err)
	}
	var args []string
	for i, typ := range types {
		arg := map[string]string{"text": `'"x"'`, "text[]": `ARRAY['"x"', '"y"']`, "double precision": "60", "double precision[]": "'{60,60}'"}[typ]
		if i == 0 && strings.Contains(sql, "lock_timeout") {
			arg = "'10ms'"
		}
		args = append(args, arg)
	}
	rows, err := c.Query(t.Context(), "EXPLAIN EXECUTE it("+strings.Join(args, ", ")+")", pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%v in %s", err, sql)
	}
	return strings.Join(lines, "\n")
}

// A store that was busy while its table was tiny, and analysed so, does not read
// all of it when it has grown.
func TestNoPlanOutlivesASmallTable(t *testing.T) {
	const rows, calls = 100_000, 20
	eachSharing(t, func(t *testing.T, opts session.PostgresOptions) {
		url := pgtest.URL(t)
		admin := openPool(t, url)
		pool := openPool(t, url, maxConns(1))
		store := newStore(t, pool, opts)
		ids := []string{}
		busy := func() {
			for range calls {
				id := createRecord(t, store, `{"a":1}`)
				for _, c := range append(storeMethods(store, id)[:1], rowWrites(store, id)[:3]...) {
					if err := c.call(t.Context()); err != nil {
						t.Fatalf("%s: %v", c.name, err)
					}
				}
				newID := rand.Text()
				if err := store.Update(t.Context(), id, session.Change{Old: []byte(`{"a":1}`), New: []byte(`{"a":1}`), NewID: newID}); err != nil {
					t.Fatal(err)
				}
				if err := store.Delete(t.Context(), id); err != nil {
					t.Fatal(err)
				}
				ids = append(ids, newID)
			}
		}
		execSQL(t, admin, "ALTER TABLE schema_system.session SET (autovacuum_enabled = off); ANALYZE schema_system.session")
		busy()
		execSQL(t, admin, "ANALYZE schema_system.session")
		busy()
		execSQL(t, admin, `INSERT INTO schema_system.session SELECT 'fill-' || n, '{"cookie":{}}', now() + interval '1 day' FROM generate_series(1, $1::int) n`, rows)
		busy()
		for n := range 10 { // rows far behind, and then the old ones
			if _, err := store.Load(t.Context(), fmt.Sprint("fill-", rows-n)); err != nil {
				t.Fatal(err)
			}
		}
		busy()
		if !store.KeepsPlans() {
			t.Error("statements are not prepared, want them to be by now")
		}
		pool.Close() // a server process reports its counts when it ends
		awaitSQL(t, admin, "the statements are counted", "SELECT idx_scan >= $1::int FROM pg_stat_user_tables WHERE relname = 'session'", 4*calls)
		if got := queryOne[int](t, admin, "SELECT seq_tup_read::int FROM pg_stat_user_tables WHERE relname = 'session'"); got > rows {
			t.Errorf("rows read in sequential scans: got %d, want less than the table has, %d", got, rows)
		}
	})
}

// A table that was emptied is a small one again, also where its statements were
// prepared before, and PostgreSQL plans them anew for it.
func TestNoPlanOutlivesAnEmptiedTable(t *testing.T) {
	const rows, finds = 20_000, 300
	eachSharing(t, func(t *testing.T, opts session.PostgresOptions) {
		url := pgtest.URL(t)
		admin := openPool(t, url)
		pool := openPool(t, url, maxConns(1))
		store := newStore(t, pool, opts)
		fill := func() {
			execSQL(t, admin, `INSERT INTO schema_system.session SELECT 'fill-' || n, '{"a":1}', now() + interval '1 day' FROM generate_series(1, $1::int) n`, rows)
			if _, err := store.Load(t.Context(), fmt.Sprint("fill-", rows)); err != nil {
				t.Fatal(err)
			}
		}
		busy := func(n int) {
			for range n {
				id := createRecord(t, store, `{"a":1}`)
				for _, c := range append(storeMethods(store, id)[:1], rowWrites(store, id)...) {
					if err := c.call(t.Context()); err != nil && !errors.Is(err, session.ErrConflict) {
						t.Fatalf("%s: %v", c.name, err)
					}
				}
			}
		}
		execSQL(t, admin, "ALTER TABLE schema_system.session SET (autovacuum_enabled = off)")
		fill()
		busy(10)
		if !store.KeepsPlans() {
			t.Error("a large table: statements are not prepared, want them to be")
		}
		for range 2 {
			store.LargeForLong()
			execSQL(t, admin, "TRUNCATE schema_system.session; ANALYZE schema_system.session")
			busy(finds)
			if store.KeepsPlans() {
				t.Error("an emptied table: statements are prepared, want them planned each time")
			}
			execSQL(t, admin, "SELECT pg_stat_reset()")
			fill()
			busy(40)
			if !store.KeepsPlans() {
				t.Error("a table that has grown again: statements are not prepared, want them to be")
			}
		}
		pool.Close()
		awaitSQL(t, admin, "the statements are counted", "SELECT idx_scan >= 100 FROM pg_stat_user_tables WHERE relname = 'session'")
		if got := queryOne[int](t, admin, "SELECT seq_tup_read::int FROM pg_stat_user_tables WHERE relname = 'session'"); got > rows*50 { // those of the small table count too
			t.Errorf("rows read in sequential scans: got %d, want less than one statement of forty would read", got)
		}
	})
}

// The same on a pool whose mode prepares nothing, which must stay as it is.
func TestPlansLeaveThePoolsModeAlone(t *testing.T) {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		pool := pgtest.Pool(t, maxConns(1), func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = mode })
		store := newStore(t, pool)
		createRecord(t, store, `{"a":1}`)
		prepared := func() int {
			return queryOne[int](t, pool, "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%INSERT' || ' INTO%'") // and not this one
		}
		if got := prepared(); got != 0 {
			t.Errorf("%s: prepared statements of a small table: got %d, want none", mode, got)
		}
		store.Grown()
		createRecord(t, store, `{"a":1}`)
		want := 0
		if mode == pgx.QueryExecModeCacheStatement {
			want = 1
		}
		if got := prepared(); got != want {
			t.Errorf("%s: prepared statements of a large one: got %d, want %d", mode, got, want)
		}
	}
}

// While the standby is silent, what is in doubt is neither there nor gone; all
// else goes on.
func TestDoubtWaitsForTheStandby(t *testing.T) {
	server := pgtest.Own(t, pgtest.Options{})
	admin := openPool(t, server.URL())
	execSQL(t, admin, "CREATE ROLE plain LOGIN")
	newStore(t, admin)
	execSQL(t, admin, "GRANT USAGE ON SCHEMA schema_system TO plain; GRANT ALL ON schema_system.session TO plain")
	probe := openPool(t, server.URL())
	pool := openPool(t, server.URL(), maxConns(4), func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["role"] = "plain" })
	eachSharing(t, func(t *testing.T, opts session.PostgresOptions) {
		store := newStore(t, pool, opts)
		id, other := createRecord(t, store, `{"a":1}`), createRecord(t, store, `{"a":1}`)
		calls := map[string]func(context.Context) error{
			"Load":                    func(ctx context.Context) error { _, err := store.Load(ctx, id); return err },
			"Load of what is gone":    func(ctx context.Context) error { _, err := store.Load(ctx, "gone"); return err },
			"Delete of what is gone":  func(ctx context.Context) error { return store.Delete(ctx, "gone") },
			"Delete of what is there": func(ctx context.Context) error { return store.Delete(ctx, other) },
		}
		for name, call := range calls {
			for _, id := range []string{id, other, "gone"} {
				store.Doubt(id)
			}
			setStandby(t, admin, probe, "nobody")
			done := make(chan error, 1)
			go func() { done <- call(t.Context()) }()
			awaitSQL(t, admin, "the call waits for the standby", "SELECT count(*) = 2 FROM pg_stat_activity WHERE wait_event = 'SyncRep'") // beside the test's own
			if _, err := store.Load(t.Context(), "somebody else's"); err != session.ErrNotFound {
				t.Errorf("another Load meanwhile: got %v, want ErrNotFound", err)
			}
			select {
			case err := <-done:
				t.Errorf("%s: got %v before the standby has confirmed anything", name, err)
			default:
			}
			setStandby(t, admin, probe, "")
			want := error(nil)
			if strings.HasPrefix(name, "Load of what") {
				want = session.ErrNotFound
			}
			if err := <-done; err != want {
				t.Errorf("%s: got %v, want %v", name, err, want)
			}
		}
		for _, sql := range []string{"REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC", "GRANT EXECUTE ON FUNCTION %s TO PUBLIC"} {
			// Its arguments are others from PostgreSQL 17 on; with text, not bytea.
			of := queryOne[string](t, admin, "SELECT oid::regprocedure::text FROM pg_proc WHERE proname = 'pg_logical_emit_message' AND proargtypes[2] = 'text'::regtype")
			if change := fmt.Sprintf(sql, of); strings.HasPrefix(sql, "GRANT") {
				defer execSQL(t, admin, change)
			} else {
				execSQL(t, admin, change)
			}
		}
		if _, err := store.Load(t.Context(), id); err != nil {
			t.Errorf("Load without the right to emit, no standby: got %v, want no error", err)
		}
		setStandby(t, admin, probe, "nobody")
		defer setStandby(t, admin, probe, "")
		for _, name := range []string{"Load", "Delete of what is gone"} {
			if err := calls[name](t.Context()); !isOneOf(err, []error{session.ErrUncertain}) {
				t.Errorf("%s without the right to emit: got %v, want ErrUncertain", name, err)
			}
		}
		if _, err := store.Load(t.Context(), "somebody else's"); err != session.ErrNotFound {
			t.Errorf("another Load: got %v, want ErrNotFound", err)
		}
	})
}

// What is remembered is bounded, and forgotten once it was confirmed and is old.
func TestDoubtsAreBounded(t *testing.T) {
	store := newStore(t, pgtest.Pool(t))
	for i := range 10_000 {
		store.Doubt(fmt.Sprint(i))
	}
	if got := store.Doubts(); got != 4096 {
		t.Errorf("remembered: got %d, want 4096", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := store.Load(ctx, "9999"); err != session.ErrNotFound {
		t.Errorf("Load: got %v, want ErrNotFound", err)
	}
	if got := store.Doubts(); got != 4096 {
		t.Errorf("remembered after a Load: got %d, want 4096: the write may still be under way", got)
	}
	store.AgeDoubts(2 * time.Minute)
	_, _ = store.Load(ctx, "9999")
	_ = store.Delete(ctx, "9998")
	if got := store.Doubts(); got != 4094 {
		t.Errorf("remembered after two that are old were confirmed: got %d, want 4094", got)
	}
}
