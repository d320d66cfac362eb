package session_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/outage"
	"github.com/pgsession/session/internal/pgtest"
)

// rowWrites are the writes to a record whose data is {"a":1}; the last deletes it.
func rowWrites(store session.Store, id string) []storeMethod {
	same := []byte(`{"a":1}`)
	update := func(c session.Change) func(context.Context) error {
		return func(ctx context.Context) error {
			c.Old, c.New = same, same
			return store.Update(ctx, id, c)
		}
	}
	return append(storeMethods(store, id)[1:3],
		storeMethod{"a shorter expiry", update(session.Change{TTL: time.Minute, Shorten: true})},
		storeMethod{"renewal", update(session.Change{NewID: rand.Text()})},
		storeMethods(store, id)[3])
}

// eachSharing runs a test with shared statements and without.
func eachSharing(t *testing.T, test func(*testing.T, session.PostgresOptions)) {
	for name, opts := range protocolSharing {
		t.Run(name, func(t *testing.T) { test(t, opts) })
	}
}

// Forty calls that want a locked row hold no connection and no place among the
// statements: all others' go on by the only connection that there is.
func TestALockedRowTakesNoConnection(t *testing.T) {
	eachSharing(t, func(t *testing.T, opts session.PostgresOptions) {
		url := pgtest.URL(t)
		admin := openPool(t, url)
		pool := openPool(t, url, maxConns(1))
		store := newStore(t, pool, opts)
		var calls []storeMethod
		var ids []string
		for range 8 {
			id := createRecord(t, store, `{"a":1}`)
			ids = append(ids, id)
			calls = append(calls, rowWrites(store, id)...)
		}
		unlock := lockRecords(t, admin, ids...)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		errs := make([]error, len(calls))
		var wg sync.WaitGroup
		for i, c := range calls {
			wg.Go(func() { errs[i] = c.call(ctx) })
		}
		awaitRowWaits(t, admin, len(calls), store)
		for range 20 {
			other := createRecord(t, store, `{"a":1}`)
			for _, c := range append(storeMethods(store, other)[:1], rowWrites(store, other)...) {
				if err := c.call(ctx); err != nil && !(c.name == "Delete" || errors.Is(err, session.ErrConflict)) {
					t.Errorf("another session's %s: got %v, want no error", c.name, err)
				}
			}
		}
		if queryOne[bool](t, admin, blockedSQL, 1) {
			t.Error("a statement waits for a lock, want none")
		}
		if got := store.RowWaits(); got != len(calls) {
			t.Errorf("calls that wait while the rows are locked: got %d, want all %d", got, len(calls))
		}
		unlock()
		wg.Wait()
		for i, err := range errs {
			switch {
			case err == nil, errors.Is(err, session.ErrConflict), errors.Is(err, session.ErrNotFound):
			default:
				t.Errorf("%s after the lock: got %v, want an answer", calls[i].name, err)
			}
		}
		if got := countRecords(t, admin); got != 0 {
			t.Errorf("records: got %d, want each deleted, also where it was renewed", got)
		}
	})
}

// Another program writes the same row all the time, as Express does, and
// neither of the two kinds is kept from it.
func TestAHotRowStarvesNobody(t *testing.T) {
	const programs, requests = 4, 64
	eachSharing(t, func(t *testing.T, opts session.PostgresOptions) {
		m, admin := newPrograms(t, programs, opts)
		cookie, id := loginCounter(t, m[0])
		stop, rewrites := make(chan struct{}), make(chan int)
		express := openPool(t, admin.Config().ConnString())
		go func() {
			n := 0
			for {
				select {
				case <-stop:
					rewrites <- n
					return
				default:
				}
				n++
				nap(t, express) // as between two requests of a browser
				_, err := express.Exec(context.Background(), `UPDATE schema_system.session SET sess = jsonb_set(sess::jsonb, '{express}', to_jsonb($2::int))::json WHERE sid = $1`, id, n)
				if err != nil {
					t.Errorf("the other program: %v", err)
				}
			}
		}()
		together(requests, func(i int) {
			if resp := useSession(m[i%programs], cookie, increment); resp.status != 200 {
				t.Errorf("status: got %d, want 200", resp.status)
			}
		})
		close(stop)
		n := <-rewrites
		if got := counted(t, m[0], cookie); got != requests {
			t.Errorf("count: got %d, want %d", got, requests)
		}
		if got := queryOne[string](t, admin, "SELECT sess->>'express' FROM schema_system.session WHERE sid = $1", id); got != fmt.Sprint(n) {
			t.Errorf("the other program's: got %s, want %d", got, n)
		}
	})
}

// What the database swallows without a word is an error that says why.
func TestSwallowedWrites(t *testing.T) {
	t.Parallel()
	const trigger = `CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
		CREATE TRIGGER refuse BEFORE %s ON schema_system.session FOR EACH ROW EXECUTE FUNCTION public.refuse()`
	const rule = `CREATE RULE refuse AS ON %s TO schema_system.session DO INSTEAD NOTHING`
	const policies = `ALTER TABLE schema_system.session ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
		CREATE POLICY s ON schema_system.session FOR SELECT USING (true);
		CREATE POLICY i ON schema_system.session FOR INSERT WITH CHECK (true)`
	for _, tt := range []struct {
		name, ddl string
		want      string // in the error
		calls     []string
	}{
		{"a trigger at DELETE", fmt.Sprintf(trigger, "DELETE"), "trigger", []string{"Delete"}},
		{"a trigger at UPDATE", fmt.Sprintf(trigger, "UPDATE"), "trigger", []string{"Update", "Touch", "a shorter expiry", "renewal"}},
		{"a trigger at INSERT", fmt.Sprintf(trigger, "INSERT"), "trigger", []string{"Create", "renewal"}},
		{"a rule at DELETE", fmt.Sprintf(rule, "DELETE"), "rule", []string{"Delete"}},
		{"a rule at UPDATE", fmt.Sprintf(rule, "UPDATE"), "rule", []string{"Update", "Touch", "a shorter expiry", "renewal"}},
		{"a rule at INSERT", fmt.Sprintf(rule, "INSERT"), "rule", []string{"Create", "renewal"}},
		{"policies for reading alone", policies, "row-level security", []string{"Update", "Touch", "a shorter expiry", "renewal", "Delete"}},
		{"no policy for DELETE", policies + `; CREATE POLICY u ON schema_system.session FOR UPDATE USING (true)`, "row-level security", []string{"Delete"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eachSharing(t, func(t *testing.T, opts session.PostgresOptions) {
				admin := pgtest.Pool(t)
				newStore(t, admin)
				role := "swallowed_" + strings.ToLower(rand.Text())
				execSQL(t, admin, fmt.Sprintf(`CREATE ROLE %s; GRANT USAGE ON SCHEMA schema_system TO %[1]s; GRANT ALL ON schema_system.session TO %[1]s`, role))
				t.Cleanup(func() { execSQL(t, admin, fmt.Sprintf("DROP OWNED BY %s; DROP ROLE %[1]s", role)) })
				pool := openPool(t, admin.Config().ConnString(), func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["role"] = role })
				store := newStore(t, pool, opts)
				var calls []storeMethod
				for _, name := range tt.calls {
					id := createRecord(t, store, `{"a":1}`)
					calls = append(calls, storeMethod{"Create", func(ctx context.Context) error {
						return store.Create(ctx, rand.Text(), session.Record{Data: []byte(`{}`), TTL: time.Hour})
					}})
					calls = append(calls, rowWrites(store, id)...)
					calls = slices.DeleteFunc(calls, func(c storeMethod) bool { return c.name != name && !slices.Contains(tt.calls[:len(calls)/6], c.name) })
				}
				execSQL(t, admin, tt.ddl)
				for _, c := range calls {
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					begin := time.Now()
					err := c.call(ctx)
					cancel()
					if err == nil || errors.Is(err, session.ErrNotFound) || errors.Is(err, session.ErrConflict) || errors.Is(err, session.ErrExists) {
						t.Errorf("%s: got %v, want an error that is no answer", c.name, err)
					} else if !strings.Contains(err.Error(), tt.want) {
						t.Errorf("%s: got %v, want it to speak of a %s", c.name, err, tt.want)
					}
					if took := time.Since(begin); took > patience*9/10 {
						t.Errorf("%s: back after %v, want it before the deadline", c.name, took)
					}
				}
			})
		})
	}
}

// A trigger that returns OLD lets PostgreSQL count an update that changes nothing.
// One that stores something of its own is left to that.
func TestATriggerThatReturnsOld(t *testing.T) {
	eachSharing(t, func(t *testing.T, opts session.PostgresOptions) {
		for _, sess := range []string{"json", "jsonb"} {
			pool := pgtest.Pool(t)
			newStore(t, pool)
			execSQL(t, pool, "ALTER TABLE schema_system.session ALTER COLUMN sess TYPE "+sess)
			store := newStore(t, pool, opts)
			id, newID := createRecord(t, store, `{"a": 1}`), rand.Text()
			calls := map[string]session.Change{
				"save":              {New: []byte(`{"a": 2}`)},
				"save and expiry":   {New: []byte(`{"a": 2}`), TTL: 2 * time.Hour},
				"renewal":           {New: []byte(`{"a": 1}`), NewID: newID},
				"renewal with data": {New: []byte(`{"a": 2}`), NewID: newID},
			}
			execSQL(t, pool, `CREATE FUNCTION public.stay() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
				CREATE TRIGGER stay BEFORE UPDATE ON schema_system.session FOR EACH ROW EXECUTE FUNCTION public.stay()`)
			for name, c := range calls {
				c.Old = []byte(`{"a": 1}`)
				if err := store.Update(t.Context(), id, c); err == nil || !strings.Contains(err.Error(), "trigger") {
					t.Errorf("%s, %s: got %v, want an error that speaks of a trigger", sess, name, err)
				}
				if rec, err := store.Load(t.Context(), id); err != nil || string(rec.Data) != `{"a": 1}` {
					t.Errorf("%s, %s: then got %s, %v, want what was there", sess, name, rec.Data, err)
				}
			}
			execSQL(t, pool, `CREATE OR REPLACE FUNCTION public.stay() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.sess := '{"a": 3}'; RETURN NEW; END$$`)
			if err := store.Update(t.Context(), id, session.Change{Old: []byte(`{"a": 1}`), New: []byte(`{"a": 2}`)}); err != nil {
				t.Errorf("%s, a trigger with data of its own: got %v, want no error", sess, err)
			}
		}
	})
}

// A lock that a trigger waits for ends a write in time, and says that nothing
// was written.
func TestAWriteBoundsItsLocks(t *testing.T) {
	t.Parallel()
	eachSharing(t, func(t *testing.T, opts session.PostgresOptions) {
		pool := pgtest.Pool(t, maxConns(16))
		store := newStore(t, pool, opts)
		execSQL(t, pool, `CREATE TABLE public.audit (n int); INSERT INTO public.audit VALUES (0);
			CREATE FUNCTION public.audit() RETURNS trigger LANGUAGE plpgsql AS $$
			BEGIN UPDATE public.audit SET n = n + 1; RETURN COALESCE(NEW, OLD); END $$;
			CREATE TRIGGER audit BEFORE INSERT OR UPDATE OR DELETE ON schema_system.session FOR EACH ROW EXECUTE FUNCTION public.audit()`)
		id := createRecord(t, store, `{"a":1}`)
		unlock := holdOpen(t, pool, "UPDATE public.audit SET n = 0")
		calls := append(rowWrites(store, id), storeMethod{"Create", func(ctx context.Context) error {
			return store.Create(ctx, rand.Text(), session.Record{Data: []byte(`{}`), TTL: time.Hour})
		}})
		for _, c := range calls { // one after the other: each has the place for a write that it needs
			inTime, err := unhurried(t, 2*time.Second, c.call)
			if !inTime || err == nil || errors.Is(err, session.ErrUncertain) || !strings.Contains(err.Error(), " in time") {
				t.Errorf("%s: got %v, before its deadline %t, want a certain error that says that it took too long, before it", c.name, err, inTime)
			}
		}
		unlock()
		for _, c := range calls[:2] {
			if err := c.call(t.Context()); err != nil {
				t.Errorf("%s afterwards: got %v, want no error", c.name, err)
			}
		}
		if got := queryOne[string](t, pool, "SHOW lock_timeout"); got != "0" {
			t.Errorf("lock_timeout of a connection: got %s, want what it was, 0", got)
		}
	})
}

func TestSharedCreate(t *testing.T) {
	rig := newBatchRig(t, 20)
	rig.create("taken", tickedRow, time.Hour)
	create := func(id, data string) func() error {
		return func() error {
			return rig.store.Create(t.Context(), id, session.Record{Data: []byte(data), TTL: time.Minute})
		}
	}
	rig.sql.writes()
	errs := rig.together(create("slot", `{"n":0}`), create("a", `{"n":1}`), create("taken", `{"n":2}`), create("b", `{"n":3}`), create("twice", `{"n":4}`), create("twice", `{"n":5}`))
	wantErrors(t, errs, []error{nil, session.ErrExists, nil, nil, session.ErrExists})
	// The slot's, one for all others, and one for the ID that was in it twice.
	if got, want := rig.sql.writes(), "1 shared, 2 alone"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for id, want := range map[string]string{"slot": `{"n":0}`, "a": `{"n":1}`, "b": `{"n":3}`, "taken": tickedRow, "twice": `{"n":4}`} {
		rec, err := rig.store.Load(t.Context(), id)
		if err != nil || string(rec.Data) != want {
			t.Errorf("%s: got %s, %v; want %s", id, rec.Data, err, want)
		}
		if ttl := time.Minute; id != "taken" && (rec.TTL > ttl || rec.TTL < ttl/2) {
			t.Errorf("%s: got a TTL of %v, want %v", id, rec.TTL, ttl)
		}
	}
	// One member whose data PostgreSQL refuses finds that out alone.
	errs = rig.together(create("slot2", `{"n":0}`), create("c", `{"n":1}`), create("bad", `{"n":`), create("d", `{"n":3}`))
	wantErrors(t, errs, []error{nil, session.ErrInvalid, nil})
	for _, id := range []string{"c", "d"} {
		if _, err := rig.store.Load(t.Context(), id); err != nil {
			t.Errorf("%s: got %v, want it stored", id, err)
		}
	}
}

// Three thousand logins at once: a stranger's read is answered while most of them
// wait, by a pool of four connections.
func TestManyLoginsLeaveReadsAlone(t *testing.T) {
	const logins = 3000
	var inserts, read atomic.Int64
	url := pgtest.URL(t)
	admin := openPool(t, url)
	pool := openPool(t, url, maxConns(4), (&tracer{start: func(sql string) {
		if strings.Contains(sql, "INSERT INTO") {
			inserts.Add(1)
		}
	}}).use)
	store := newStore(t, pool)
	id := createRecord(t, store, `{"a":1}`)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	unlock := holdOpen(t, admin, "LOCK TABLE schema_system.session IN SHARE MODE") // reads go on
	inserts.Store(0)
	var wg sync.WaitGroup
	for i := range logins {
		wg.Go(func() {
			if err := store.Create(ctx, fmt.Sprint("login-", i), session.Record{Data: []byte(`{}`), TTL: time.Hour}); err != nil {
				t.Errorf("a login: got %v, want no error", err)
			}
		})
	}
	awaitWaiting := func() {
		for deadline := time.Now().Add(patience); store.Waiting() < logins*9/10; nap(t, admin) {
			if time.Now().After(deadline) {
				t.Fatalf("waiting: got %d, want nearly all of %d", store.Waiting(), logins)
			}
		}
	}
	awaitWaiting()
	for range 20 {
		if _, err := store.Load(ctx, id); err != nil {
			t.Errorf("a stranger's read: got %v, want no error", err)
		}
		read.Add(1)
	}
	if got := inserts.Load(); got > 2 {
		t.Errorf("statements of logins under way: got %d, want no more than the slots, 2", got)
	}
	unlock()
	wg.Wait()
	if got := countRecords(t, admin); got != logins+1 {
		t.Errorf("records: got %d, want %d", got, logins+1)
	}
	if got := inserts.Load(); got > logins/10 {
		t.Errorf("statements for %d logins: got %d, want them shared", logins, got)
	}
}

// Two hundred renewals, as logins are, and two hundred logins over MaxPerUser: a
// logout that comes after all of them is among the first statements, though the
// pool has but one place for writes.
func TestManyLoginsLeaveLogoutsAlone(t *testing.T) {
	const logins, before = 200, 20
	url := pgtest.URL(t)
	admin := openPool(t, url)
	trace := new(tracer)
	pool := openPool(t, url, maxConns(4), trace.use)
	store := newStore(t, pool)
	data := []byte(`{"user":"x"}`)
	for name, login := range map[string]func(context.Context, string) error{
		"renewals": func(ctx context.Context, id string) error {
			return store.Update(ctx, id, session.Change{Old: data, New: data, NewID: rand.Text()})
		},
		"MaxPerUser": func(ctx context.Context, id string) error {
			return store.LimitFound(ctx, session.Query{Key: "user", Values: []string{"nobody"}}, id)
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
		defer cancel()
		ids := make([]string, logins)
		for i := range ids {
			ids[i] = createRecord(t, store, string(data))
		}
		out := []string{createRecord(t, store, "{}"), createRecord(t, store, "{}"), createRecord(t, store, "{}")}
		unlock := holdOpen(t, admin, "LOCK TABLE schema_system.session IN SHARE MODE")
		trace.take()
		var wg sync.WaitGroup
		call := func(f func() error) {
			wg.Go(func() {
				if err := f(); err != nil {
					t.Errorf("%s: got %v, want no error", name, err)
				}
			})
		}
		await := func(n int) {
			for deadline := time.Now().Add(patience); store.Waiting() < n; nap(t, admin) {
				if time.Now().After(deadline) {
					t.Fatalf("%s: waiting: got %d, want %d", name, store.Waiting(), n)
				}
			}
		}
		for _, id := range ids {
			call(func() error { return login(ctx, id) })
		}
		await(logins - 2)
		var asked atomic.Int32 // the first of them counts, so that one may be a moment late
		for _, id := range out {
			call(func() error { asked.Add(1); return store.Delete(ctx, id) })
		}
		for nap(t, admin); int(asked.Load()) < len(out); {
			nap(t, admin)
		}
		unlock()
		wg.Wait()
		sent := trace.take()
		if at := slices.IndexFunc(sent, func(sql string) bool {
			return strings.Contains(sql, "DELETE FROM") && !strings.Contains(sql, "surplus")
		}); at < 0 || at > before {
			t.Errorf("%s: the logout's statement: got number %d of %d, want one of the first %d", name, at+1, len(sent), before)
		}
	}
}

// A thousand logins that wait for a server which refuses connections: those under
// way dial, with pauses, and the others wait for them.
func TestLoginsAtARefusingServer(t *testing.T) {
	const logins = 1000
	var refuse atomic.Bool
	var dials atomic.Int64
	pool := pgtest.Pool(t, func(c *pgxpool.Config) {
		dial := c.ConnConfig.DialFunc
		c.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if refuse.Load() {
				dials.Add(1)
				return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
			}
			return dial(ctx, network, addr)
		}
	})
	store := newStore(t, pool)
	refuse.Store(true)
	pool.Reset()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	together(logins, func(i int) {
		if err := store.Create(ctx, fmt.Sprint("login-", i), session.Record{Data: []byte(`{}`), TTL: time.Hour}); err == nil {
			t.Error("a login: got no error, want one")
		}
	})
	// Two slots, a pause of 32 ms on average: 125 in two seconds.
	if got := dials.Load(); got > logins/2 {
		t.Errorf("dials: got %d, want far fewer than there are logins, %d", got, logins)
	}
	refuse.Store(false)
	until(t, "a login afterwards is let in", func() bool { // after so long a silence not the first may be
		err := store.Create(t.Context(), "after", session.Record{Data: []byte(`{}`), TTL: time.Hour})
		if err != nil && !errors.As(err, new(*outage.Refused)) {
			t.Fatalf("a login afterwards: got %v, want no error", err)
		}
		return err == nil
	})
}

// A transaction's default isolation changes nothing.
func TestDefaultIsolation(t *testing.T) {
	for _, level := range []pgx.TxIsoLevel{pgx.RepeatableRead, pgx.Serializable} {
		for _, off := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, off %t", level, off), func(t *testing.T) {
				url := pgtest.URL(t)
				execSQL(t, openPool(t, url), "ALTER DATABASE "+pgx.Identifier{openPool(t, url).Config().ConnConfig.Database}.Sanitize()+" SET default_transaction_isolation = '"+string(level)+"'")
				testOverlappingIncrementsOf(t, url, session.PostgresOptions{DisableBatching: off})
			})
		}
	}
}

func testOverlappingIncrementsOf(t *testing.T, url string, opts session.PostgresOptions) {
	const programs, requests = 2, 24
	var m []*session.Manager
	for range programs {
		m = append(m, patientManager(t, newStore(t, openPool(t, url, maxConns(6)), opts)))
	}
	cookie, _ := loginCounter(t, m[0])
	together(requests, func(i int) {
		if resp := useSession(m[i%programs], cookie, increment); resp.status != 200 {
			t.Errorf("status: got %d, want 200", resp.status)
		}
	})
	if got := counted(t, m[0], cookie); got != requests {
		t.Errorf("count: got %d, want %d", got, requests)
	}
}
