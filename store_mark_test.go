package session_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/mark"
	"github.com/pgsession/session/internal/pgtest"
)

// The rules of marks that every store keeps are tested by package sessiontest.

func TestErrRenewed(t *testing.T) {
	for _, target := range []error{session.ErrRenewed, session.ErrNotFound, session.ErrDestroyed} {
		if !errors.Is(fmt.Errorf("wrapped: %w", session.ErrRenewed), target) {
			t.Errorf("ErrRenewed: got no %v, want one", target)
		}
	}
	for _, err := range []error{session.ErrNotFound, session.ErrDestroyed} {
		if errors.Is(err, session.ErrRenewed) {
			t.Errorf("%v: got an ErrRenewed, want none", err)
		}
	}
	if errors.Is(session.ErrRenewed, session.ErrConflict) || errors.Is(session.ErrRenewed, session.ErrExists) {
		t.Error("ErrRenewed: got an ErrConflict or ErrExists, want neither")
	}
}

// markRenew renews a record of the data n times and returns all of its IDs.
func markRenew(t *testing.T, store session.Store, data string, n int) []string {
	t.Helper()
	ids := []string{createRecord(t, store, data)}
	for range n {
		id := ids[len(ids)-1]
		r, err := store.Load(t.Context(), id)
		if err != nil {
			t.Fatalf("Load: got %v, want no error", err)
		}
		ids = append(ids, rand.Text())
		if err := store.Update(t.Context(), id, session.Change{Old: r.Data, New: r.Data, NewID: ids[len(ids)-1]}); err != nil {
			t.Fatalf("renewal: got %v, want no error", err)
		}
	}
	return ids
}

func TestMemoryStoreMarksExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := session.NewMemoryStore()
		ids := markRenew(t, s, `{}`, 2)
		pass(15 * time.Minute)
		if r, err := s.Load(t.Context(), ids[0]); err != session.ErrRenewed || r.TTL != 0 {
			t.Errorf("Load after 15 minutes: got %v left, %v, want 0, ErrRenewed", r.TTL, err)
		}
		pass(time.Nanosecond)
		if _, err := s.Load(t.Context(), ids[0]); err != session.ErrNotFound {
			t.Errorf("Load after more: got %v, want ErrNotFound", err)
		}
		// Until it is pruned a mark leads on.
		if err := s.Delete(t.Context(), ids[0]); err != nil {
			t.Errorf("Delete: got %v, want no error", err)
		}
		if _, err := s.Load(t.Context(), ids[2]); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("Load of the record: got %v, want ErrNotFound", err)
		}
		if n, err := s.Prune(t.Context(), 0); n != 2 || err != nil {
			t.Errorf("Prune: got %d, %v, want the 2 marks, no error", n, err)
		}
		createFor(t, s, ids[0], `{}`, time.Hour) // the ID is free
	})
}

// markTables are the tables and ways that marks must work in.
var markTables = []struct {
	name string
	ddl  string
	opts session.PostgresOptions
}{
	{name: "json"},
	{name: "without sharing", opts: session.PostgresOptions{DisableBatching: true}},
	{name: "hashed IDs", opts: session.PostgresOptions{HashIDs: true}},
	{name: "jsonb, timestamptz and other columns", ddl: `CREATE TABLE schema_system.session (id bigint GENERATED ALWAYS AS IDENTITY,
		note text DEFAULT 'x', sess jsonb NOT NULL, expire timestamptz NOT NULL, sid text PRIMARY KEY, other text UNIQUE)`},
	{name: "hash partitions", ddl: `CREATE TABLE schema_system.session (sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL) PARTITION BY HASH (sid);
		CREATE TABLE schema_system.p0 PARTITION OF schema_system.session FOR VALUES WITH (MODULUS 3, REMAINDER 0);
		CREATE TABLE schema_system.p1 PARTITION OF schema_system.session FOR VALUES WITH (MODULUS 3, REMAINDER 1);
		CREATE TABLE schema_system.p2 PARTITION OF schema_system.session FOR VALUES WITH (MODULUS 3, REMAINDER 2)`},
}

// eachMarkTable runs a test on each of them.
func eachMarkTable(t *testing.T, test func(t *testing.T, pool *pgxpool.Pool, store *session.PostgresStore, sid func(id string) string)) {
	for _, tt := range markTables {
		t.Run(tt.name, func(t *testing.T) {
			pool := pgtest.Pool(t)
			if tt.ddl != "" {
				execSQL(t, pool, "CREATE SCHEMA schema_system; "+tt.ddl)
			}
			sid := func(id string) string { return id }
			if tt.opts.HashIDs {
				sid = func(id string) string {
					sum := sha256.Sum256([]byte(id))
					return base64.RawURLEncoding.EncodeToString(sum[:])
				}
			}
			test(t, pool, newStore(t, pool, tt.opts), sid)
		})
	}
}

// What a mark is in the table, that nothing else knows of it, and its end.
func TestPostgresMarks(t *testing.T) {
	eachMarkTable(t, func(t *testing.T, pool *pgxpool.Pool, store *session.PostgresStore, sid func(string) string) {
		ids := markRenew(t, store, `{"userId": 7}`, 2)
		for i, id := range ids[:2] {
			want := mark.Of(sid(ids[i+1]))
			if got := queryOne[string](t, pool, "SELECT sess::text FROM schema_system.session WHERE sid = $1", sid(id)); got != want {
				t.Errorf("mark %d: got another text than the one that names the next ID", i)
			}
			left := queryOne[float64](t, pool, "SELECT extract(epoch FROM expire::timestamptz - now())::float8 FROM schema_system.session WHERE sid = $1", sid(id))
			if left > 900 || left < 840 {
				t.Errorf("mark %d: got %.0f seconds left, want 900", i, left)
			}
			if err := store.Delete(t.Context(), id+"x"); err != nil {
				t.Errorf("Delete of what is not there: got %v, want no error", err)
			}
		}
		m := patientManager(t, store)
		if found, err := m.Sessions(t.Context(), session.Everyone()); len(found) != 1 || err != nil {
			t.Errorf("Sessions: got %d, %v, want 1, no error", len(found), err)
		}
		if n, err := m.Revoke(t.Context(), session.Everyone().Handle(store.Handle(ids[0]))); n != 0 || err != nil {
			t.Errorf("Revoke by a mark's handle: got %d, %v, want 0, no error", n, err)
		}
		if n, err := m.Revoke(t.Context(), session.Everyone()); n != 1 || err != nil {
			t.Errorf("Revoke of everyone: got %d, %v, want 1, no error", n, err)
		}
		for i, id := range ids[:2] {
			if _, err := store.Load(t.Context(), id); err != session.ErrRenewed {
				t.Errorf("mark %d after Revoke: got %v, want ErrRenewed", i, err)
			}
		}

		// Expired, but not pruned yet: it still leads on.
		ids = markRenew(t, store, `{"userId": 7}`, 3)
		execSQL(t, pool, `UPDATE schema_system.session SET expire = now() - interval '1 second' WHERE NOT `+noMark)
		if _, err := store.Load(t.Context(), ids[0]); err != session.ErrNotFound {
			t.Errorf("Load of an expired mark: got %v, want ErrNotFound", err)
		}
		if err := store.Delete(t.Context(), ids[0]); err != nil {
			t.Errorf("Delete: got %v, want no error", err)
		}
		if got := countRecords(t, pool); got != 0 {
			t.Errorf("records after Delete by the first of four IDs: got %d, want 0", got)
		}
		if got := pruneAll(t, store, time.Minute); got != 5 {
			t.Errorf("Prune: got %d, want the 5 expired marks", got)
		}
		if got := queryOne[int](t, pool, "SELECT count(*) FROM schema_system.session"); got != 0 {
			t.Errorf("rows after Prune: got %d, want 0", got)
		}
	})
}

// A renewal is under way when the Delete begins, and ends when the Delete waits
// for it.
func TestPostgresDeleteWaitsForRenewal(t *testing.T) {
	eachMarkTable(t, func(t *testing.T, pool *pgxpool.Pool, store *session.PostgresStore, sid func(string) string) {
		ids := markRenew(t, store, `{"a": 1}`, 1)
		newID := rand.Text()
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.Background()) }()
		for _, sql := range []string{
			"UPDATE schema_system.session SET sid = $2 WHERE sid = $1",
			"INSERT INTO schema_system.session (sid, sess, expire) SELECT $1, '" + mark.Of(sid(newID)) + "', now() + interval '15 minutes' WHERE $2 <> ''",
		} {
			if _, err := tx.Exec(t.Context(), sql, sid(ids[1]), sid(newID)); err != nil {
				t.Fatal(err)
			}
		}
		deleted := make(chan error)
		go func() { deleted <- store.Delete(context.Background(), ids[0]) }()
		awaitRowWaits(t, pool, 1, store)
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-deleted; err != nil {
			t.Errorf("Delete: got %v, want no error", err)
		}
		if got := countRecords(t, pool); got != 0 {
			t.Errorf("records: got %d, want 0", got)
		}
	})
}

// A chain of renewals against a Delete of its first ID, and against a Revoke.
// The Delete begins in each trial after another renewal; where in that it comes
// is left to chance.
func TestPostgresRenewalRaces(t *testing.T) {
	const trials, renewals = 240, 5
	eachMarkTable(t, func(t *testing.T, pool *pgxpool.Pool, store *session.PostgresStore, _ func(string) string) {
		for _, tt := range []struct {
			name string
			end  func(ids []string, user string) error
		}{
			{"Delete", func(ids []string, _ string) error { return store.Delete(t.Context(), ids[0]) }},
			{"Revoke", func(_ []string, user string) error {
				_, err := store.DeleteFound(t.Context(), session.Query{Key: "userId", Values: []string{user}})
				return err
			}},
		} {
			eachTrial(trials, func(trial int) {
				user := rand.Text()
				data := fmt.Appendf(nil, `{"userId": %q}`, user)
				ids := []string{createRecord(t, store, string(data))}
				for range renewals {
					ids = append(ids, rand.Text())
				}
				under, ended := make(chan struct{}), make(chan error)
				go func() {
					<-under
					ended <- tt.end(ids, user)
				}()
				for i := range renewals {
					if i == trial%renewals {
						close(under)
					}
					err := store.Update(t.Context(), ids[i], session.Change{Old: data, New: data, NewID: ids[i+1], TTL: 2 * time.Hour})
					if err != nil && !errors.Is(err, session.ErrConflict) && !errors.Is(err, session.ErrNotFound) {
						t.Errorf("%s: renewal: got %v, want none or one that says that it is gone", tt.name, err)
					}
				}
				if err := <-ended; err != nil {
					t.Errorf("%s: got %v, want no error", tt.name, err)
				}
			})
			if got := countRecords(t, pool); got != 0 {
				t.Errorf("%s: alive after %d trials: got %d, want 0", tt.name, trials, got)
			}
		}
	})
}

// What cannot be deleted is an error that says why, and not a logout.
func TestPostgresDeleteRefused(t *testing.T) {
	pool := pgtest.Pool(t)
	store := newStore(t, pool)
	ids := markRenew(t, store, `{"a":1}`, 1)
	execSQL(t, pool, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
		CREATE TRIGGER refuse BEFORE DELETE ON schema_system.session FOR EACH ROW EXECUTE FUNCTION refuse()`)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	for _, id := range ids {
		if err := store.Delete(ctx, id); err == nil || errors.Is(err, session.ErrNotFound) {
			t.Errorf("Delete: got %v, want an error that is no answer", err)
		}
	}
}

// What somebody else has written in the shape of a mark is no session, and leads
// nowhere.
func TestPostgresMarkOfOthers(t *testing.T) {
	pool := pgtest.Pool(t)
	store := newStore(t, pool)
	for _, text := range []string{`"0e"`, `"0e1"`, `"0e999"`, `"0expected"`} {
		execSQL(t, pool, "INSERT INTO schema_system.session VALUES ('odd', $1, now() + interval '1 hour')", text)
		if _, err := store.Load(t.Context(), "odd"); err != session.ErrRenewed {
			t.Errorf("%s: Load: got %v, want ErrRenewed", text, err)
		}
		if err := store.Delete(t.Context(), "odd"); err != nil {
			t.Errorf("%s: Delete: got %v, want no error", text, err)
		}
		execSQL(t, pool, "DELETE FROM schema_system.session")
	}
}

// A column may change its type while there are marks.
func TestPostgresMarksChangeType(t *testing.T) {
	pool := pgtest.Pool(t)
	store := newStore(t, pool)
	for _, typ := range []string{"jsonb", "json", "jsonb"} {
		ids := markRenew(t, store, `{"a": 1}`, 2)
		execSQL(t, pool, "ALTER TABLE schema_system.session ALTER COLUMN sess TYPE "+typ)
		if _, err := store.Load(t.Context(), ids[0]); err != session.ErrRenewed {
			t.Errorf("as %s: Load: got %v, want ErrRenewed", typ, err)
		}
		if err := store.Delete(t.Context(), ids[0]); err != nil || countRecords(t, pool) != 0 {
			t.Errorf("as %s: Delete: got %v and %d records, want no error and 0", typ, err, countRecords(t, pool))
		}
	}
}

// Reseal looks at sessions only.
func TestResealPassesOverMarks(t *testing.T) {
	store := newStore(t, pgtest.Pool(t))
	m := patientManager(t, store, func(cfg *session.Config) { cfg.Encrypt = true })
	cookie, _ := loginCounter(t, m)
	for range 3 {
		cookie = useSession(m, cookie, (*session.Session).Renew).newCookie()
	}
	n, err := m.Reseal(t.Context(), session.ResealOptions{})
	if n.Records != 1 || n.Current != 1 || n.Plain != 0 || err != nil {
		t.Errorf("got %d records, %d current, %d plain, %v, want 1, 1, 0, no error", n.Records, n.Current, n.Plain, err)
	}
}

// A renewal is one statement, also one that finds its record changed, and so is
// a Delete that meets no mark; each mark costs a Delete one more.
func TestPostgresMarkStatements(t *testing.T) {
	tracer := &tracer{}
	pool := pgtest.Pool(t, tracer.use)
	for _, tt := range []struct {
		off  bool
		hops int // statements of a Delete that follows two marks
	}{{false, 3}, {true, 3}} {
		store, err := session.NewPostgresStore(t.Context(), pool, session.PostgresOptions{DisableBatching: tt.off, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ids := markRenew(t, store, `{"a":1}`, 2)
		other := createRecord(t, store, `{"a":1}`)
		change := session.Change{Old: []byte(`{"a":1}`), New: []byte(`{"a":1}`), NewID: rand.Text()}
		stale := session.Change{Old: []byte(`{"a":2}`), New: []byte(`{"a":1}`), NewID: rand.Text()}
		for _, call := range []struct {
			name string
			call func() error
			want int
		}{
			{"a renewal", func() error { return store.Update(t.Context(), other, change) }, 1},
			{"a renewal of changed data", func() error { return store.Update(t.Context(), change.NewID, stale) }, 1},
			{"a Delete", func() error { return store.Delete(t.Context(), change.NewID) }, 1},
			{"a Delete of three IDs ago", func() error { return store.Delete(t.Context(), ids[0]) }, tt.hops},
			{"a Load of a mark", func() error { _, err := store.Load(t.Context(), ids[0]); return err }, 1},
		} {
			tracer.take()
			_ = call.call()
			if got := tracer.take(); len(got) != call.want {
				t.Errorf("sharing off %t: %s: got %d statements, want %d: %s", tt.off, call.name, len(got), call.want, strings.Join(got, "; "))
			}
		}
	}
}
