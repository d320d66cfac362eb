package session_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/hostile"
	"github.com/pgsession/session/internal/pgtest"
)

// What finds, ends, limits, prunes and seals anew looks up no name in the search
// path: a pool on which a twin is called fails the test.
func TestFindingAndPruningCallNoTwin(t *testing.T) {
	t.Parallel()
	db := hostile.New(t)
	clean := openPool(t, db.Clean())
	for i, path := range hostile.Paths {
		for _, column := range []string{"json", "jsonb"} {
			for _, encrypt := range []bool{false, true} {
				name := fmt.Sprintf("%s%d%t", column, i, encrypt)
				t.Run(path+" "+name, func(t *testing.T) {
					opts := session.PostgresOptions{Schema: "kept_" + name, IndexKeys: []string{"userId"}}
					newStore(t, clean, session.PostgresOptions{Schema: opts.Schema})
					execSQL(t, clean, fmt.Sprintf("ALTER TABLE kept_%s.session ALTER sess TYPE %s", name, column))
					pool := db.Pool(t, path, func(cfg *pgxpool.Config) { cfg.MaxConns = 2 })
					m := patientManager(t, newStore(t, pool, opts), func(cfg *session.Config) {
						cfg.Secret, cfg.Encrypt, cfg.UserKey, cfg.MaxPerUser = testSecretOld, encrypt, "userId", 2
					})
					useEverything(t, m)
					if err := m.SetSecrets(testSecret, testSecretOld); err != nil {
						t.Fatal(err)
					}
					if n, err := m.Reseal(t.Context(), session.ResealOptions{}); err != nil || encrypt && n.Resealed == 0 {
						t.Errorf("Reseal: got %+v, %v, want some", n, err)
					}
					execSQL(t, clean, fmt.Sprintf(`CREATE FUNCTION kept_%s.keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
						CREATE TRIGGER keep BEFORE DELETE ON kept_%[1]s.session FOR EACH ROW WHEN (OLD.expire OPERATOR(pg_catalog.>) pg_catalog.now()) EXECUTE FUNCTION kept_%[1]s.keep()`, name))
					if _, err := m.Revoke(t.Context(), session.Everyone()); err == nil {
						t.Error("Revoke of what is kept: got no error, want one")
					}
					execSQL(t, clean, fmt.Sprintf("UPDATE kept_%s.session SET expire = pg_catalog.now() - interval '1 day'", name))
					execSQL(t, clean, fmt.Sprintf("INSERT INTO kept_%s.session SELECT n::text, '{}', '2001-01-01' FROM generate_series(1, 130) n", name))
					if n, err := m.Prune(t.Context()); n < 130 || err != nil {
						t.Errorf("Prune: got %d, %v, want 130 and more", n, err)
					}
				})
			}
		}
	}
}

// useEverything logs in, over the limit, and lists and ends sessions in every way.
func useEverything(t *testing.T, m *session.Manager) {
	t.Helper()
	var handle string
	for range 4 {
		_, handle = loginAs(t, m, 1, "a")
	}
	cookie, _ := loginAs(t, m, 2, "b")
	for _, f := range []session.Filter{userIDKey.Is(1), session.Everyone(), userIDKey.Is(1).Handle(handle), session.Everyone().Handle(handle)} {
		if got := handlesOf(t, m, f); len(got) == 0 {
			t.Error("Sessions: got none, want some")
		}
	}
	useSession(m, cookie, func(s *session.Session) {
		if got := handlesOf(t, m, session.Everyone().Except(s)); len(got) != 2 {
			t.Errorf("all but one: got %d, want 2", len(got))
		}
		if n, err := m.Revoke(t.Context(), userIDKey.Is(2).Except(s)); n != 0 || err != nil {
			t.Errorf("Revoke of all but one: got %d, %v, want 0", n, err)
		}
		s.Renew()
	})
	if n, err := m.Revoke(t.Context(), userIDKey.Is(1).Handle(handle)); n != 1 || err != nil {
		t.Errorf("Revoke by handle: got %d, %v, want 1", n, err)
	}
}

// A session is renewed while a Revoke, after another transaction has held a row of the
// user's, reads the table: the row is not there any more under the ID that was read. It
// is ended under its new one, and nobody is told of triggers. A policy that waits makes
// the moment long.
func TestRevokeMeetsARenewalAfterAWait(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	store := newStore(t, pool)
	role := "revoker_" + strings.ToLower(rand.Text())
	execSQL(t, pool, fmt.Sprintf(`CREATE ROLE %s LOGIN; GRANT USAGE ON SCHEMA schema_system TO %[1]s;
		GRANT SELECT, INSERT, UPDATE, DELETE ON schema_system.session TO %[1]s;
		CREATE FUNCTION public.passes(sid text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
			WHILE sid = 'first' AND NOT pg_try_advisory_xact_lock_shared(4711) LOOP PERFORM pg_sleep(0.002); END LOOP;
			RETURN true; END $$;
		CREATE POLICY passes ON schema_system.session TO %[1]s USING (public.passes(sid));
		ALTER TABLE schema_system.session ENABLE ROW LEVEL SECURITY`, role))
	t.Cleanup(func() { execSQL(t, pool, "DROP OWNED BY "+role+"; DROP ROLE "+role) })
	store.SetPool(openPool(t, pool.Config().ConnString(), maxConns(2), func(cfg *pgxpool.Config) {
		cfg.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
			_, err := c.Exec(ctx, "SET ROLE "+role)
			return err
		}
	}))
	for _, id := range []string{"first", "second"} { // in this order it reads them
		if err := store.Create(t.Context(), id, session.Record{Data: []byte(`{"cookie":{},"userId":1}`), TTL: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	gate, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer gate.Release()
	hold := func(sql string) {
		if _, err := gate.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	hold("SELECT pg_advisory_lock(4711)")
	type answer struct {
		n   int64
		err error
	}
	revoked := make(chan answer, 1)
	go func() {
		n, err := store.DeletePassing(t.Context(), session.Query{Key: "userId", Values: []string{"1"}})
		revoked <- answer{n, err}
	}()
	awaitSQL(t, pool, "the policy waits", "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep')")
	execSQL(t, pool, "UPDATE schema_system.session SET sid = 'renewed' WHERE sid = 'second'")
	hold("SELECT pg_advisory_unlock(4711)")
	if got := <-revoked; got.n != 2 || got.err != nil {
		t.Errorf("got %d, %v, want 2 ended and no error", got.n, got.err)
	}
	if got := countRecords(t, pool); got != 0 {
		t.Errorf("records left: got %d, want none", got)
	}
}

// Where a trigger keeps the row the answer says so, after a few tries.
func TestRevokeAfterAWaitWhereATriggerKeeps(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	store := newStore(t, pool)
	createRecord(t, store, `{"cookie":{},"userId":1}`)
	execSQL(t, pool, `CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
		CREATE TRIGGER keep BEFORE DELETE ON schema_system.session FOR EACH ROW EXECUTE FUNCTION public.keep()`)
	n, err := store.DeletePassing(t.Context(), session.Query{Key: "userId", Values: []string{"1"}})
	if n != 0 || err == nil || !strings.Contains(err.Error(), "trigger") {
		t.Errorf("got %d, %v, want none and an error about a trigger", n, err)
	}
}
