package session_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// fillTable adds expired and live records. The n-th expired one expired n
// milliseconds ago.
func fillTable(t testing.TB, pool *pgxpool.Pool, expired, live int) {
	t.Helper()
	execSQL(t, pool, fmt.Sprintf(`INSERT INTO schema_system.session
			SELECT 'expired' || n, '{"cookie":{}}', now() - n * interval '1 millisecond' FROM generate_series(1, %d) n;
		INSERT INTO schema_system.session SELECT 'live' || n, '{"cookie":{}}', now() + interval '1 hour' FROM generate_series(1, %d) n`, expired, live))
}

// noteDeletions makes the database count the records that each statement
// deletes, in the table deletions.
func noteDeletions(t testing.TB, pool *pgxpool.Pool) {
	t.Helper()
	execSQL(t, pool, `CREATE TABLE public.deletions (n int);
		CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$
			BEGIN INSERT INTO public.deletions SELECT count(*) FROM gone; RETURN NULL; END $$;
		CREATE TRIGGER note AFTER DELETE ON schema_system.session REFERENCING OLD TABLE AS gone
			FOR EACH STATEMENT EXECUTE FUNCTION public.note()`)
}

func pruneAll(t testing.TB, store session.Pruner, within time.Duration) int64 {
	t.Helper()
	n, err := store.Prune(t.Context(), within)
	if err != nil {
		t.Errorf("Prune: got %v, want no error", err)
	}
	return n
}

func countExpired(t testing.TB, pool *pgxpool.Pool) int {
	t.Helper()
	return queryOne[int](t, pool, "SELECT count(*) FROM schema_system.session WHERE expire < now()")
}

// Two programs prune at once, in a hurry, while a third uses the live records.
func TestPruneOneHundredThousand(t *testing.T) {
	const expired, live = 100_000, 5_000
	url := pgtest.URL(t)
	admin := openPool(t, url)
	// The first batch of each waits for that of the other: both find something.
	var begun sync.WaitGroup
	begun.Add(2)
	var pools []*pgxpool.Pool
	for range 2 {
		first := sync.OnceFunc(func() { begun.Done(); begun.Wait() })
		pools = append(pools, openPool(t, url, maxConns(2), (&tracer{start: func(sql string) {
			if strings.Contains(sql, "SKIP LOCKED") {
				first()
			}
		}}).use))
	}
	stores := []*session.PostgresStore{newStore(t, pools[0]), newStore(t, pools[1])}
	fillTable(t, admin, expired, live)
	noteDeletions(t, admin)
	execSQL(t, admin, "UPDATE schema_system.session SET expire = '-infinity' WHERE sid ~ '^expired[0-9]*00$'")

	ctx, stop := context.WithCancel(t.Context())
	var user sync.WaitGroup
	touches := 0
	user.Go(func() {
		store := newStore(t, admin)
		for ; ctx.Err() == nil; touches++ {
			if err := store.Touch(t.Context(), fmt.Sprintf("live%d", 1+touches%live), 2*time.Hour); err != nil {
				t.Errorf("Touch of a live record: got %v, want no error", err)
			}
		}
	})
	var deleted [2]int64
	start := time.Now()
	together(2, func(i int) { deleted[i] = pruneAll(t, stores[i], time.Nanosecond) })
	took := time.Since(start)
	stop()
	user.Wait()
	t.Logf("%d + %d records in %v: %.0f a second; %d touches meanwhile", deleted[0], deleted[1], took, expired/took.Seconds(), touches)

	// Where the two met one may have left records to the other's next batch,
	// which that one's last could not see.
	var rest int64
	for n := int64(1); n > 0; rest += n {
		n = pruneAll(t, stores[0], time.Nanosecond)
	}
	if got := deleted[0] + deleted[1] + rest; got != expired {
		t.Errorf("deleted: got %d, want %d", got, expired)
	}
	if deleted[0] == 0 || deleted[1] == 0 {
		t.Errorf("deleted: got %d and %d, want some by each", deleted[0], deleted[1])
	}
	if got := queryOne[int](t, admin, "SELECT sum(n) FROM public.deletions"); got != expired {
		t.Errorf("deleted as the database counts: got %d, want %d", got, expired)
	}
	if got := queryOne[int](t, admin, "SELECT max(n) FROM public.deletions"); got > 50 {
		t.Errorf("the largest batch: got %d, want 50 at most", got)
	}
	if got := countRecords(t, admin); got != live {
		t.Errorf("records left: got %d, want %d", got, live)
	}
	if got := countExpired(t, admin); got != 0 {
		t.Errorf("expired records left: got %d, want 0", got)
	}
}

// Between two batches pruning rests four times as long as a batch has taken,
// unless the backlog would not be gone in time.
func TestPruneRests(t *testing.T) {
	var durations []time.Duration
	pool := pgtest.Pool(t, (&tracer{end: func(_ error, took time.Duration) { durations = append(durations, took) }}).use)
	store := newStore(t, pool)
	m := patientManager(t, store)
	fillTable(t, pool, 475, 5)
	durations = nil
	start := time.Now()
	n, err := m.Prune(t.Context())
	took := time.Since(start)
	if n != 475 || err != nil || m.Stats().Pruned != 475 {
		t.Errorf("Prune: got %d, %v, counted %d, want 475", n, err, m.Stats().Pruned)
	}
	var busy, least time.Duration
	for i, d := range durations {
		busy += d
		if i < len(durations)-1 {
			least += 5 * d
		}
	}
	if len(durations) != 10 {
		t.Errorf("batches: got %d, want 10", len(durations))
	}
	if took < least {
		t.Errorf("took: got %v with %v in batches, want %v at least", took, busy, least)
	}
	t.Logf("%v, of it %v in batches: %.0f records a second", took, busy, float64(n)/took.Seconds())
}

func TestPruneSkipsLockedRecords(t *testing.T) {
	url := pgtest.URL(t)
	admin := openPool(t, url)
	store := newStore(t, openPool(t, url))
	fillTable(t, admin, 120, 3)
	unlock := lockRecords(t, admin, "expired120", "expired60", "expired1")
	if got := pruneAll(t, store, time.Nanosecond); got != 117 {
		t.Errorf("deleted beside three locked: got %d, want 117", got)
	}
	unlock()
	if got := pruneAll(t, store, time.Nanosecond); got != 3 {
		t.Errorf("deleted afterwards: got %d, want 3", got)
	}
	if got := countRecords(t, admin); got != 3 {
		t.Errorf("records left: got %d, want 3", got)
	}
}

// gatedPool makes the database wait for an advisory lock, 1 where it reads the
// record gate and 2 where it deletes it, as a role whose rows are filtered.
func gatedPool(t testing.TB, url string, admin *pgxpool.Pool) (pool *pgxpool.Pool) {
	t.Helper()
	name, pool := newRole(t, url, admin)
	role := pgx.Identifier{name}.Sanitize()
	execSQL(t, admin, `CREATE FUNCTION public.wait(gate int) RETURNS bool LANGUAGE plpgsql AS $$
			BEGIN PERFORM pg_advisory_lock(gate); PERFORM pg_advisory_unlock(gate); RETURN true; END $$;
		CREATE FUNCTION public.wait2() RETURNS trigger LANGUAGE plpgsql AS $$
			BEGIN PERFORM public.wait(2); RETURN OLD; END $$;
		CREATE TRIGGER gate BEFORE DELETE ON schema_system.session FOR EACH ROW WHEN (OLD.sid = 'gate') EXECUTE FUNCTION public.wait2();
		ALTER TABLE schema_system.session ENABLE ROW LEVEL SECURITY;
		CREATE POLICY gate ON schema_system.session TO `+role+` USING (CASE sid WHEN 'gate' THEN public.wait(1) ELSE true END);
		GRANT USAGE ON SCHEMA schema_system TO `+role+`; GRANT ALL ON schema_system.session TO `+role)
	return pool
}

// A batch has begun, and so sees the records as they were, when another program
// extends one of them.
func TestPruneKeepsWhatWasExtended(t *testing.T) {
	url := pgtest.URL(t)
	admin := openPool(t, url)
	newStore(t, admin)
	store := newStore(t, gatedPool(t, url, admin))
	fillTable(t, admin, 30, 0)
	execSQL(t, admin, "INSERT INTO schema_system.session VALUES ('gate', '{}', now() - interval '1 day')")
	release := holdOpen(t, admin, "SELECT pg_advisory_xact_lock(1)")
	done := make(chan int64, 1)
	go func() { done <- pruneAll(t, store, time.Minute) }()
	awaitSQL(t, admin, "the batch waits at the first record", blockedSQL, 1)
	execSQL(t, admin, "UPDATE schema_system.session SET expire = now() + interval '1 hour' WHERE sid IN ('expired7', 'expired21')")
	execSQL(t, admin, "DELETE FROM schema_system.session WHERE sid = 'expired9'")
	release()
	if got := <-done; got != 28 {
		t.Errorf("deleted: got %d, want 28", got)
	}
	if got := queryOne[string](t, admin, "SELECT string_agg(sid, ' ' ORDER BY sid) FROM schema_system.session"); got != "expired21 expired7" {
		t.Errorf("left: got %s, want the two that were extended", got)
	}
}

// A record that a batch has taken is not extended any more: that finds nothing.
func TestPruneAgainstTouch(t *testing.T) {
	url := pgtest.URL(t)
	admin := openPool(t, url)
	other := newStore(t, admin)
	store := newStore(t, gatedPool(t, url, admin))
	fillTable(t, admin, 10, 0)
	execSQL(t, admin, "INSERT INTO schema_system.session VALUES ('gate', '{}', now() - interval '1 day')")
	release := holdOpen(t, admin, "SELECT pg_advisory_xact_lock(2)")
	done := make(chan int64, 1)
	go func() { done <- pruneAll(t, store, time.Minute) }()
	awaitSQL(t, admin, "the batch waits where it deletes", blockedSQL, 1)
	touched := make(chan error, 1)
	go func() {
		// An application that believes it live; the store itself would not try.
		_, err := admin.Exec(t.Context(), "UPDATE schema_system.session SET expire = now() + interval '1 hour' WHERE sid = 'expired5'")
		touched <- err
	}()
	awaitSQL(t, admin, "the update waits for the batch", blockedSQL, 2)
	release()
	if got, err := <-done, <-touched; got != 11 || err != nil {
		t.Errorf("deleted: got %d, update %v, want 11 and no error", got, err)
	}
	if got := countRecords(t, admin); got != 0 {
		t.Errorf("records left: got %d, want 0: none comes back", got)
	}
	if n, err := other.Prune(t.Context(), time.Minute); n != 0 || err != nil {
		t.Errorf("Prune of nothing: got %d, %v, want 0", n, err)
	}
}

// A context that ends lets the batch under way end first.
func TestPruneEndsAfterTheBatch(t *testing.T) {
	url := pgtest.URL(t)
	admin := openPool(t, url)
	newStore(t, admin)
	store := newStore(t, gatedPool(t, url, admin))
	m := patientManager(t, store)
	fillTable(t, admin, 200, 0)
	execSQL(t, admin, "INSERT INTO schema_system.session VALUES ('gate', '{}', now() - interval '1 day')")
	release := holdOpen(t, admin, "SELECT pg_advisory_xact_lock(2)")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if n, err := m.Prune(ctx); n != 50 || err != nil {
			t.Errorf("Prune: got %d, %v, want 50 and no error", n, err)
		}
	}()
	awaitSQL(t, admin, "the batch waits where it deletes", blockedSQL, 1)
	cancel()
	for range 20 { // a cancellation would come now
		nap(t, admin)
	}
	if !queryOne[bool](t, admin, blockedSQL, 1) {
		t.Error("the batch under way was cut")
	}
	release()
	<-done
	if got := countExpired(t, admin); got != 151 {
		t.Errorf("expired records left: got %d, want 151", got)
	}
}

// While an old snapshot keeps the dead rows in the index, a batch does not read
// those of the batches before it: that would be 250 times as many in the end.
func TestPruneBesideALongSnapshot(t *testing.T) {
	const expired = 5_000
	url := pgtest.URL(t)
	admin := openPool(t, url)
	pool := openPool(t, url, maxConns(1))
	store := newStore(t, pool)
	fillTable(t, admin, expired, 100)
	execSQL(t, admin, "ANALYZE schema_system.session") // of so small a table it would otherwise read all, and sort
	tx, err := admin.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(t.Context(), "SELECT 1"); err != nil { // takes the snapshot
		t.Fatal(err)
	}
	if got := pruneAll(t, store, time.Nanosecond); got != expired {
		t.Errorf("deleted: got %d, want %d", got, expired)
	}
	pool.Close() // a server process reports its counts when it ends
	const read = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'idx_session_expire'"
	awaitSQL(t, admin, "the reads are counted", "SELECT ("+read+") >= $1::int", expired)
	got := queryOne[int](t, admin, read)
	t.Logf("%d index entries read for %d records", got, expired)
	if got > 2*expired {
		t.Errorf("index entries read: got %d, want %d or little more", got, expired)
	}
}

// A trigger or a policy that keeps records does not keep the pruning going for
// ever.
func TestPruneWhatCannotBeDeleted(t *testing.T) {
	pool := pgtest.Pool(t)
	store := newStore(t, pool)
	fillTable(t, pool, 120, 0)
	execSQL(t, pool, `CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
		CREATE TRIGGER keep BEFORE DELETE ON schema_system.session FOR EACH ROW EXECUTE FUNCTION public.keep();
		UPDATE schema_system.session SET expire = '2000-01-01'`)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if n, err := store.Prune(ctx, time.Nanosecond); n != 0 || err != nil || ctx.Err() != nil {
		t.Errorf("Prune: got %d, %v, %v, want 0 and an end", n, err, ctx.Err())
	}
}

// Records that expired at the same instant, more than a batch of them.
func TestPruneOfOneInstant(t *testing.T) {
	// An output style that loses the zone's name to another zone.
	pool := pgtest.Pool(t, func(cfg *pgxpool.Config) {
		cfg.ConnConfig.RuntimeParams["datestyle"] = "SQL, DMY"
		cfg.ConnConfig.RuntimeParams["timezone"] = "Asia/Kolkata"
	})
	newStore(t, pool)
	for _, expire := range []string{"now() - interval '1 day'", "'-infinity'", "'1969-12-31 23:59:59.999999'", "'0044-03-15 12:00:00.123456 BC'"} {
		for _, typ := range []string{"timestamp(6)", "timestamptz"} {
			t.Run(expire+" "+typ, func(t *testing.T) {
				execSQL(t, pool, "TRUNCATE schema_system.session; ALTER TABLE schema_system.session ALTER expire TYPE "+typ)
				store := newStore(t, pool)
				fillTable(t, pool, 175, 10)
				execSQL(t, pool, "UPDATE schema_system.session SET expire = "+expire+" WHERE sid LIKE 'expired1%'")
				if got := pruneAll(t, store, time.Nanosecond); got != 175 {
					t.Errorf("deleted: got %d, want 175", got)
				}
				if got := countRecords(t, pool); got != 10 {
					t.Errorf("records left: got %d, want 10", got)
				}
			})
		}
	}
}

// indexReads returns how many entries of the index on expire the pool's
// connections have read so far, and closes them: a server process reports its
// counts when it ends. Before PostgreSQL 15 it sends them to another process, which
// has them once it has those of a table of the test's own that was read last.
func indexReads(t *testing.T, admin *pgxpool.Pool, pools ...*pgxpool.Pool) int {
	t.Helper()
	for i, pool := range pools {
		told := fmt.Sprintf("told%d", i)
		execSQL(t, admin, "DROP TABLE IF EXISTS "+told)
		execSQL(t, admin, "CREATE TABLE "+told+" (n int)")
		execSQL(t, pool, "SELECT FROM "+told)
		pool.Reset()
	}
	awaitSQL(t, admin, "the connections have ended", "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND state <> 'idle in transaction'")
	for i := range pools {
		awaitSQL(t, admin, "the counts have come", "SELECT COALESCE((SELECT seq_scan FROM pg_stat_user_tables WHERE relname = $1), 0) > 0", fmt.Sprintf("told%d", i))
	}
	execSQL(t, admin, "SELECT pg_stat_clear_snapshot()")
	return queryOne[int](t, admin, "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'idx_session_expire'")
}

// longSnapshot keeps what is deleted from now on in the indexes.
func longSnapshot(t *testing.T, admin *pgxpool.Pool) {
	t.Helper()
	tx, err := admin.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	if _, err := tx.Exec(t.Context(), "SELECT 1"); err != nil { // takes the snapshot
		t.Fatal(err)
	}
}

// A run goes on where the last one has ended: beside a long snapshot it reads what
// has expired since, and not all that was ever deleted. What it has passed over is
// found all the same, in some later run.
func TestPruneGoesOnWhereItEnded(t *testing.T) {
	const dead, fresh, runs = 5_000, 60, 12
	url := pgtest.URL(t)
	admin := openPool(t, url, maxConns(2))
	pool := openPool(t, url, maxConns(1))
	store := newStore(t, pool)
	fillTable(t, admin, dead, 100)
	execSQL(t, admin, "ANALYZE schema_system.session")
	longSnapshot(t, admin)
	if got := pruneAll(t, store, time.Nanosecond); got != dead {
		t.Fatalf("deleted: got %d, want %d", got, dead)
	}
	before := indexReads(t, admin, pool)
	for run := range runs {
		execSQL(t, admin, fmt.Sprintf("INSERT INTO schema_system.session SELECT 'fresh' || n || ' ' || %d, '{}', now() - n * interval '1 microsecond' FROM generate_series(1, %d) n", run, fresh))
		if got := pruneAll(t, store, time.Nanosecond); got != fresh {
			t.Errorf("run %d: deleted %d, want %d", run, got, fresh)
		}
	}
	got := indexReads(t, admin, pool) - before
	t.Logf("%d index entries read in %d runs of %d records", got, runs, fresh)
	if got >= dead {
		t.Errorf("index entries read: got %d, want far fewer than the %d that were deleted before", got, dead)
	}

	// Before the mark: moved there, and inserted there.
	execSQL(t, admin, `UPDATE schema_system.session SET expire = now() - interval '1 day' WHERE sid = 'live1';
		INSERT INTO schema_system.session VALUES ('late', '{}', '-infinity'), ('later', '{}', '2001-01-01')`)
	var late int64
	for range 40 {
		late += pruneAll(t, store, time.Nanosecond)
	}
	if late != 3 {
		t.Errorf("what expired before the mark: got %d deleted, want 3", late)
	}
	// Runs that find nothing look back more and more seldom, also where PostgreSQL has
	// found out meanwhile that no record has expired.
	execSQL(t, admin, "ANALYZE schema_system.session")
	before = indexReads(t, admin, pool)
	for range 16 {
		pruneAll(t, store, time.Nanosecond)
	}
	if got := indexReads(t, admin, pool) - before; got > 3*dead {
		t.Errorf("16 idle runs: got %d index entries read, want at most those of two walks", got)
	}
}

// Also on a table that never rests: of sixteen runs one looks back.
func TestPruneLooksBackOnABusyTable(t *testing.T) {
	pool := pgtest.Pool(t)
	store := newStore(t, pool)
	fillTable(t, pool, 100, 0)
	pruneAll(t, store, time.Nanosecond)
	execSQL(t, pool, "INSERT INTO schema_system.session VALUES ('late', '{}', '2001-01-01')")
	runs := 0
	for ; queryOne[bool](t, pool, "SELECT EXISTS (SELECT FROM schema_system.session WHERE sid = 'late')") && runs < 100; runs++ {
		execSQL(t, pool, "INSERT INTO schema_system.session SELECT md5(random()::text), '{}', now() - interval '1 microsecond' FROM generate_series(1, 60)")
		pruneAll(t, store, time.Nanosecond)
	}
	if runs > 16 {
		t.Errorf("found after %d runs, want 16 at most", runs)
	}
}

// More records than many batches that expired at one instant, beside a long
// snapshot: each batch reads a part of them again, but not all. Whether PostgreSQL
// knows of them or not.
func TestPruneOfOneInstantBesideALongSnapshot(t *testing.T) {
	const expired, live = 6_000, 1_000
	const analyze = "ANALYZE schema_system.session"
	for _, tt := range []struct{ expire, before, after string }{
		{"now() - interval '1 day'", "SELECT 1", analyze},
		{"'-infinity'", "SELECT 1", analyze},
		{"now() - interval '1 day'", analyze, "SELECT 1"},
		{"'-infinity'", analyze, "SELECT 1"},
	} {
		t.Run(fmt.Sprintf("%s, %s before", tt.expire, tt.before), func(t *testing.T) {
			url := pgtest.URL(t)
			admin := openPool(t, url, maxConns(2))
			pool := openPool(t, url, maxConns(1))
			store := newStore(t, pool)
			execSQL(t, admin, "ALTER TABLE schema_system.session SET (autovacuum_enabled = off)")
			fillTable(t, admin, 0, live)
			execSQL(t, admin, tt.before)
			execSQL(t, admin, fmt.Sprintf("INSERT INTO schema_system.session SELECT n::text, '{}', %s FROM generate_series(1, %d) n", tt.expire, expired))
			execSQL(t, admin, tt.after)
			longSnapshot(t, admin)
			before := indexReads(t, admin, pool)
			if got := pruneAll(t, store, time.Nanosecond); got != expired {
				t.Errorf("deleted: got %d, want %d", got, expired)
			}
			got := indexReads(t, admin, pool) - before
			t.Logf("%d index entries read", got)
			if got > 5*expired {
				t.Errorf("index entries read: got %d, want few times %d", got, expired)
			}
		})
	}
}

// Records of one instant, of which some are locked and some cannot be deleted,
// stop neither the run nor what expired after them, and are not skipped for ever.
func TestPruneOfOneInstantSomeLockedSomeKept(t *testing.T) {
	url := pgtest.URL(t)
	admin := openPool(t, url)
	store := newStore(t, openPool(t, url))
	execSQL(t, admin, `INSERT INTO schema_system.session SELECT 'same' || n, '{}', '2001-01-01 12:00' FROM generate_series(1, 400) n;
		INSERT INTO schema_system.session SELECT 'kept' || n, '{}', '2001-01-01 12:00' FROM generate_series(1, 120) n;
		INSERT INTO schema_system.session SELECT 'after' || n, '{}', '2001-01-01 12:01' FROM generate_series(1, 70) n;
		CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
		CREATE TRIGGER keep BEFORE DELETE ON schema_system.session FOR EACH ROW WHEN (OLD.sid LIKE 'kept%') EXECUTE FUNCTION public.keep()`)
	unlock := lockRecords(t, admin, "same7", "same300", "after1")
	if got := pruneAll(t, store, time.Nanosecond); got != 467 {
		t.Errorf("beside three that are locked: got %d deleted, want 467", got)
	}
	unlock()
	var rest int64
	for range 40 {
		rest += pruneAll(t, store, time.Nanosecond)
	}
	if left := countRecords(t, admin); rest != 3 || left != 120 {
		t.Errorf("unlocked: got %d deleted and %d left, want 3 and the 120 that are kept", rest, left)
	}
}

// A table in which a trigger keeps every record costs a run a few batches, and the
// next one goes on behind them.
func TestPruneGivesUpWhereAllIsKept(t *testing.T) {
	trace := new(tracer)
	pool := pgtest.Pool(t, trace.use)
	store := newStore(t, pool)
	fillTable(t, pool, 2000, 0)
	execSQL(t, pool, `CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
		CREATE TRIGGER keep BEFORE DELETE ON schema_system.session FOR EACH ROW WHEN (OLD.sid <> 'expired1') EXECUTE FUNCTION public.keep()`)
	trace.take()
	if got := pruneAll(t, store, time.Nanosecond); got != 0 {
		t.Errorf("deleted: got %d, want 0", got)
	}
	if got := len(trace.take()); got > 25 {
		t.Errorf("statements: got %d, want about 20", got)
	}
	var rest int64
	for range 3 {
		rest += pruneAll(t, store, time.Nanosecond)
	}
	if rest != 1 {
		t.Errorf("the one behind them all: got %d deleted, want 1", rest)
	}
}

// A run that cannot even begin, as where the way through what was deleted is too
// long, is not all that ever happens: the next one begins with what expired lately.
func TestPruneAfterARunThatCouldNotBegin(t *testing.T) {
	url := pgtest.URL(t)
	admin := openPool(t, url)
	newStore(t, admin)
	name, pool := newRole(t, url, admin)
	role := pgx.Identifier{name}.Sanitize()
	execSQL(t, admin, "GRANT USAGE ON SCHEMA schema_system TO "+role+"; GRANT ALL ON schema_system.session TO "+role)
	store := newStore(t, pool)
	execSQL(t, admin, `INSERT INTO schema_system.session SELECT 'old' || n, '{}', now() - interval '9 days' FROM generate_series(1, 10) n;
		INSERT INTO schema_system.session SELECT 'late' || n, '{}', now() - interval '1 hour' FROM generate_series(1, 60) n;
		REVOKE DELETE ON schema_system.session FROM `+role)
	if n, err := store.Prune(t.Context(), time.Nanosecond); n != 0 || err == nil {
		t.Fatalf("without the right to: got %d, %v, want an error", n, err)
	}
	execSQL(t, admin, "GRANT DELETE ON schema_system.session TO "+role)
	if got := pruneAll(t, store, time.Nanosecond); got != 60 {
		t.Errorf("the next run: got %d deleted, want the 60 of the last hour", got)
	}
	if got := pruneAll(t, store, time.Nanosecond); got != 10 {
		t.Errorf("the one after it, which looks back: got %d deleted, want 10", got)
	}
}
