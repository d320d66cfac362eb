package session_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/sessiontest"
)

// sharingVariants are the ways to share, for tests of what must hold in all.
var sharingVariants = []struct {
	name string
	opts session.PostgresOptions
}{
	{"off", session.PostgresOptions{DisableBatching: true}},
	{"one slot, batches of 1", session.PostgresOptions{BatchSlots: 1, MaxBatch: 1}},
	{"one slot, batches of 2", session.PostgresOptions{BatchSlots: 1, MaxBatch: 2}},
	{"one slot, batches of 3", session.PostgresOptions{BatchSlots: 1, MaxBatch: 3}},
	{"one slot, batches of 100", session.PostgresOptions{BatchSlots: 1, MaxBatch: 100}},
	{"four slots", session.PostgresOptions{BatchSlots: 4}},
}

func TestPostgresStoreSharing(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	for _, v := range sharingVariants {
		t.Run(v.name, func(t *testing.T) {
			store := newStore(t, pool, v.opts)
			sessiontest.TestStore(t, func(*testing.T) session.Store { return store })
		})
	}
}

// batchRig has a store with one slot whose calls can be held back together:
// while the table is locked one statement waits in the slot, and all others
// gather behind it.
type batchRig struct {
	t     *testing.T
	pool  *pgxpool.Pool
	store *session.PostgresStore
	sql   *statementCounter
}

// statementCounter counts the statements of a store: those that several share, the
// writes of one, and what begins with a word.
type statementCounter struct{ shared, alone, update, selects, deletes atomic.Int64 }

// writes returns how many statements were sent for several and for one since the
// last time.
func (c *statementCounter) writes() string {
	return fmt.Sprintf("%d shared, %d alone", c.shared.Swap(0), c.alone.Swap(0))
}

func (c *statementCounter) count(sql string) {
	switch {
	case strings.Contains(sql, "unnest"):
		c.shared.Add(1)
	case strings.Contains(sql, "lock_timeout"):
		c.alone.Add(1)
	case strings.HasPrefix(sql, "UPDATE"):
		c.update.Add(1)
	case strings.HasPrefix(sql, "SELECT s.ctid, s.sess"):
		c.selects.Add(1)
	case strings.HasPrefix(sql, "DELETE"):
		c.deletes.Add(1)
	}
}

func newBatchRig(t *testing.T, most int) *batchRig {
	t.Helper()
	sql := new(statementCounter)
	pool := pgtest.Pool(t, maxConns(12), (&tracer{start: sql.count}).use)
	store := newStore(t, pool, session.PostgresOptions{BatchSlots: 1, MaxBatch: most})
	return &batchRig{t, pool, store, sql}
}

func (rig *batchRig) create(id, data string, ttl time.Duration) {
	rig.t.Helper()
	if err := rig.store.Create(rig.t.Context(), id, session.Record{Data: []byte(data), TTL: ttl}); err != nil {
		rig.t.Fatal(err)
	}
}

func (rig *batchRig) exec(sql string, args ...any) {
	rig.t.Helper()
	if _, err := rig.pool.Exec(rig.t.Context(), sql, args...); err != nil {
		rig.t.Fatal(err)
	}
}

// together runs first in the slot and the calls in one gathering behind it.
func (rig *batchRig) together(first func() error, calls ...func() error) []error {
	rig.t.Helper()
	tx, err := rig.pool.Begin(rig.t.Context())
	if err != nil {
		rig.t.Fatal(err)
	}
	if _, err := tx.Exec(rig.t.Context(), `LOCK TABLE schema_system.session IN ACCESS EXCLUSIVE MODE`); err != nil {
		rig.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := first(); err != nil {
			rig.t.Errorf("the call in the slot: %v", err)
		}
	})
	rig.until(func() bool { // it has the slot once its statement waits for the lock
		var n int
		err := tx.QueryRow(rig.t.Context(), `SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database() AND backend_type = 'client backend'`).Scan(&n)
		return err == nil && n == 1
	})
	errs := make([]error, len(calls))
	for i, call := range calls {
		wg.Go(func() { errs[i] = call() })
		rig.until(func() bool { return rig.store.Waiting() == i+1 })
	}
	if err := tx.Commit(rig.t.Context()); err != nil {
		rig.t.Fatal(err)
	}
	wg.Wait()
	return errs
}

// until waits for what another goroutine or the server is about to do.
func (rig *batchRig) until(done func() bool) {
	rig.t.Helper()
	for end := time.Now().Add(patience); !done(); runtime.Gosched() {
		if time.Now().After(end) {
			rig.t.Fatalf("waited %v in vain", patience)
		}
	}
}

func wantErrors(t *testing.T, got, want []error) {
	t.Helper()
	for i := range want {
		if !errors.Is(got[i], want[i]) {
			t.Errorf("call %d: got %v, want %v", i, got[i], want[i])
		}
	}
}

const tickedRow = `{"cookie":{"originalMaxAge":1000},"n":1}`

func TestSharedLoad(t *testing.T) {
	rig := newBatchRig(t, 10)
	big := `{"cookie":{},"pad":"` + strings.Repeat("0123456789abcdef", 4096) + `"}`
	rig.create("a", tickedRow, time.Hour)
	rig.create("b", `{"cookie":{},"b":"\u0000"}`, time.Minute)
	rig.create("old", tickedRow, time.Hour)
	rig.exec(`UPDATE schema_system.session SET expire = now() - interval '1 second' WHERE sid = 'old'`)
	// Incompressible, or the stored size says nothing.
	rig.exec(`ALTER TABLE schema_system.session ALTER COLUMN sess SET STORAGE EXTERNAL`)
	rig.create("big", big, time.Hour)

	records := make([]session.Record, 6)
	load := func(i int, id string) func() error {
		return func() (err error) {
			records[i], err = rig.store.Load(t.Context(), id)
			return err
		}
	}
	rig.sql.writes()
	rig.sql.selects.Store(0)
	errs := rig.together(func() error { _, err := rig.store.Load(t.Context(), "a"); return err },
		load(0, "a"), load(1, "absent"), load(2, "b"), load(3, "old"), load(4, "a"), load(5, "big"))
	wantErrors(t, errs, []error{nil, session.ErrNotFound, nil, session.ErrNotFound, nil, nil})
	for i, want := range []string{tickedRow, "", `{"cookie":{},"b":"\u0000"}`, "", tickedRow, big} {
		if string(records[i].Data) != want {
			t.Errorf("call %d: got %d bytes that are not the record's", i, len(records[i].Data))
		}
	}
	if ttl := records[2].TTL; ttl > time.Minute || ttl < 45*time.Second {
		t.Errorf("got a TTL of %v, want about a minute", ttl)
	}
	if shared, single := rig.sql.shared.Load(), rig.sql.selects.Load(); shared != 1 || single != 2 {
		t.Errorf("got %d shared and %d single statements, want 1 and 2: the one in the slot, and the large record", shared, single)
	}
}

func TestSharedSave(t *testing.T) {
	rig := newBatchRig(t, 20)
	for _, id := range []string{"slot", "a", "b", "stale", "twice", "longer", "never shorter", "expired"} {
		rig.create(id, tickedRow, time.Hour)
	}
	rig.exec(`UPDATE schema_system.session SET expire = now() - interval '1 second' WHERE sid = 'expired'`)
	save := func(id, old, now string, ttl time.Duration) func() error {
		return func() error {
			return rig.store.Update(t.Context(), id, session.Change{Old: []byte(old), New: []byte(now), TTL: ttl})
		}
	}
	rig.sql.writes()
	errs := rig.together(save("slot", tickedRow, `{"n":2}`, 0),
		save("a", tickedRow, `{"n":"a"}`, 0),
		save("stale", `{"n":0}`, `{"n":"lost"}`, 0),
		save("absent", tickedRow, `{"n":2}`, 0),
		save("b", tickedRow, `{"n":"b"}`, 0),
		save("twice", tickedRow, `{"n":"first"}`, 0),
		save("twice", tickedRow, `{"n":"second"}`, 0),
		save("expired", tickedRow, `{"n":"undead"}`, time.Hour),
		save("longer", tickedRow, `{"n":3}`, 3*time.Hour),
		save("never shorter", tickedRow, `{"n":3}`, time.Minute),
	)
	// The slot's, one for all others and one that asks what has become of those that
	// were not saved; the second save of the same session asks alone, and then why not.
	if got, want := rig.sql.writes(), "2 shared, 3 alone"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	wantErrors(t, errs, []error{nil, session.ErrConflict, session.ErrConflict, nil, nil, session.ErrConflict, session.ErrConflict, nil, nil})
	for id, want := range map[string]string{"slot": `{"n":2}`, "a": `{"n":"a"}`, "stale": tickedRow, "b": `{"n":"b"}`, "twice": `{"n":"first"}`} {
		if rec, err := rig.store.Load(t.Context(), id); err != nil || string(rec.Data) != want {
			t.Errorf("%s: got %s, %v; want %s", id, rec.Data, err, want)
		}
	}
	for id, want := range map[string]time.Duration{"a": time.Hour, "longer": 3 * time.Hour, "never shorter": time.Hour} {
		if rec, _ := rig.store.Load(t.Context(), id); rec.TTL > want || rec.TTL < want-time.Minute {
			t.Errorf("%s: got a TTL of %v, want %v", id, rec.TTL, want)
		}
	}
}

func TestSharedTouchAndDelete(t *testing.T) {
	rig := newBatchRig(t, 20)
	for _, id := range []string{"slot", "a", "b", "c"} {
		rig.create(id, tickedRow, time.Hour)
	}
	touch := func(id string, ttl time.Duration) func() error {
		return func() error { return rig.store.Touch(t.Context(), id, ttl) }
	}
	rig.sql.writes()
	errs := rig.together(touch("slot", 2*time.Hour),
		touch("a", 2*time.Hour), touch("absent", time.Hour), touch("b", time.Minute), touch("c", 3*time.Hour), touch("c", 2*time.Hour))
	wantErrors(t, errs, []error{nil, session.ErrNotFound, nil, nil, nil})
	if got, want := rig.sql.writes(), "2 shared, 1 alone"; got != want { // the absent one is asked about
		t.Errorf("touch: got %s, want %s", got, want)
	}
	for id, want := range map[string]time.Duration{"a": 2 * time.Hour, "b": time.Hour, "c": 3 * time.Hour} {
		if rec, err := rig.store.Load(t.Context(), id); err != nil || string(rec.Data) != tickedRow || rec.TTL > want || rec.TTL < want-time.Minute {
			t.Errorf("%s: got a TTL of %v, want %v, and the data as it was", id, rec.TTL, want)
		}
	}
	del := func(id string) func() error { return func() error { return rig.store.Delete(t.Context(), id) } }
	rig.sql.writes()
	wantErrors(t, rig.together(del("slot"), del("a"), del("absent"), del("b"), del("a")), []error{nil, nil, nil, nil})
	if got, want := rig.sql.writes(), "1 shared, 2 alone"; got != want { // what one did not find is confirmed
		t.Errorf("delete: got %s, want %s", got, want)
	}
	for _, id := range []string{"slot", "a", "b"} {
		if _, err := rig.store.Load(t.Context(), id); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("%s: got %v, want ErrNotFound", id, err)
		}
	}
	if _, err := rig.store.Load(t.Context(), "c"); err != nil {
		t.Errorf("c: got %v, want it kept", err)
	}
}

// One member whose data PostgreSQL refuses must not take its neighbours along.
func TestSharedSaveOfDataThatIsRefused(t *testing.T) {
	rig := newBatchRig(t, 20)
	rig.exec(`ALTER TABLE schema_system.session ALTER COLUMN sess TYPE jsonb USING sess::text::jsonb`)
	store := newStore(t, rig.pool, session.PostgresOptions{BatchSlots: 1})
	rig.store = store
	for _, id := range []string{"slot", "a", "bad", "b"} {
		rig.create(id, `{"n": 1}`, time.Hour)
	}
	save := func(id, now string) func() error {
		return func() error {
			return rig.store.Update(t.Context(), id, session.Change{Old: []byte(`{"n": 1}`), New: []byte(now)})
		}
	}
	errs := rig.together(save("slot", `{"n": 2}`), save("a", `{"n": 2}`), save("bad", `{"n": "\u0000"}`), save("b", `{"n": 2}`))
	wantErrors(t, errs, []error{nil, session.ErrInvalid, nil})
	for id, want := range map[string]string{"a": `{"n": 2}`, "bad": `{"n": 1}`, "b": `{"n": 2}`} {
		if rec, err := rig.store.Load(t.Context(), id); err != nil || string(rec.Data) != want {
			t.Errorf("%s: got %s, %v; want %s", id, rec.Data, err, want)
		}
	}
}

// A row that somebody holds locked delays nobody but who wants it: all others
// are done with their saves while it is still locked.
func TestALockedRowDelaysNobodyElse(t *testing.T) {
	const savers, onLocked, saves = 32, 12, 20
	pool := pgtest.Pool(t, func(c *pgxpool.Config) { c.MaxConns = 12 })
	store := newStore(t, pool)
	create := func(id string) {
		if err := store.Create(t.Context(), id, session.Record{Data: []byte(`{"n":0}`), TTL: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	create("locked")
	for i := range savers {
		create(fmt.Sprint("free-", i))
	}
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT FROM schema_system.session WHERE sid = 'locked' FOR UPDATE`); err != nil {
		t.Fatal(err)
	}

	var waiting, free sync.WaitGroup
	var saved, conflicts atomic.Int32
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for range onLocked {
		waiting.Go(func() {
			switch err := store.Update(ctx, "locked", session.Change{Old: []byte(`{"n":0}`), New: []byte(`{"n":1}`)}); {
			case err == nil:
				saved.Add(1)
			case errors.Is(err, session.ErrConflict):
				conflicts.Add(1)
			default:
				t.Errorf("a save of the locked session: %v", err)
			}
		})
	}
	for i := onLocked; i < savers; i++ {
		free.Go(func() {
			id := fmt.Sprint("free-", i)
			for n := range saves {
				err := store.Update(ctx, id, session.Change{Old: fmt.Appendf(nil, `{"n":%d}`, n), New: fmt.Appendf(nil, `{"n":%d}`, n+1)})
				if err != nil {
					t.Errorf("a neighbour's save: %v", err)
					return
				}
			}
		})
	}
	free.Wait() // while the row is locked
	if n := saved.Load() + conflicts.Load(); n != 0 {
		t.Errorf("%d saves of the locked row came back before it was free", n)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	waiting.Wait()
	if saved.Load() != 1 || conflicts.Load() != onLocked-1 {
		t.Errorf("got %d saved and %d conflicts, want 1 and %d", saved.Load(), conflicts.Load(), onLocked-1)
	}
}
