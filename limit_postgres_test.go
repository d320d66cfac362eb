package session_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// A login of a user who has thousands of sessions ends all but the newest by one
// statement, whatever the column and however the value is kept.
func TestMaxPerUserOfThousandsOfSessions(t *testing.T) {
	const sessions, keep = 3000, 3
	for _, tt := range []struct {
		name    string
		opts    session.PostgresOptions
		encrypt bool
		column  string
	}{
		{name: "json", column: "json"},
		{name: "jsonb, indexed", opts: session.PostgresOptions{IndexKeys: []string{"userId"}}, column: "jsonb"},
		{name: "encrypted, indexed", opts: session.PostgresOptions{IndexKeys: []string{"userId"}}, encrypt: true, column: "json"},
		{name: "hashed", opts: session.PostgresOptions{HashIDs: true, DisableBatching: true}, column: "json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			trace := new(tracer)
			pool := pgtest.Pool(t, trace.use)
			newStore(t, pool)
			execSQL(t, pool, "ALTER TABLE schema_system.session ALTER sess TYPE "+tt.column)
			store := newStore(t, pool, tt.opts)
			unlimited := patientManager(t, store, func(cfg *session.Config) { cfg.Encrypt, cfg.UserKey = tt.encrypt, "userId" })
			loginAs(t, unlimited, 1, "a") // and a mark, which is not his
			useSession(unlimited, mustCookie(loginAs(t, unlimited, 1, "b")), func(s *session.Session) { s.Renew() })
			execSQL(t, pool, fmt.Sprintf(`INSERT INTO schema_system.session SELECT md5(sid) || n, sess, expire + n * interval '1 second'
				FROM schema_system.session, generate_series(1, %d) n WHERE %s AND sess::text LIKE '%%originalMaxAge%%'`, sessions/2, noMark))
			stranger, _ := loginAs(t, unlimited, 2, "other")
			before := queryOne[int](t, pool, "SELECT count(*) FROM schema_system.session")
			m := patientManager(t, store, func(cfg *session.Config) { cfg.Encrypt, cfg.UserKey, cfg.MaxPerUser = tt.encrypt, "userId", keep })
			trace.take()
			awaitNextMillisecond()
			cookie, _ := loginAs(t, m, 1, "last")
			var limits []string
			for _, sql := range trace.take() {
				if strings.Contains(sql, "OFFSET 3") || strings.Contains(sql, "ANY") {
					limits = append(limits, sql)
				}
			}
			if len(limits) != 1 {
				t.Errorf("statements for the limit: got %d, want 1", len(limits))
			}
			if got := userIn(m, cookie); got != 1 {
				t.Errorf("the new session: got user %d, want 1", got)
			}
			if got := userIn(m, stranger); got != 2 {
				t.Errorf("another user's: got user %d, want 2", got)
			}
			if got := len(handlesOf(t, m, userIDKey.Is(1))); got != keep {
				t.Errorf("sessions left: got %d, want %d", got, keep)
			}
			ended := before + 1 - queryOne[int](t, pool, "SELECT count(*) FROM schema_system.session")
			if got := m.Stats().Destroys; got != uint64(ended) || ended != sessions {
				t.Errorf("counted: got %d of %d, want %d", got, ended, sessions)
			}
		})
	}
}

func mustCookie(cookie, _ string) string { return cookie }

// The statement picks the sessions that the loop over found ones picks, which
// other stores go through, whatever stands where a time should.
func TestMaxPerUserPicksTheSameInPostgres(t *testing.T) {
	const seed = 20261128
	random := mathrand.New(mathrand.NewPCG(seed, seed))
	now := time.Now().UnixMilli()
	times := []string{
		"0", "-1", "1", "-62135596800000", "null", `"x"`, "true", "1.5", "1e3", "{}", "[1]", "9223372036854775807", "99999999999999999999999999",
		fmt.Sprint(now - 1000), fmt.Sprint(now - 2000), fmt.Sprint(now - 86_400_000), fmt.Sprint(now + 86_400_000), fmt.Sprint(now + 1_000_000_000_000),
	}
	pick := func() string { return times[random.IntN(len(times))] }
	for round := range 12 {
		pool := pgtest.Pool(t)
		postgres, memory := newStore(t, pool), session.NewMemoryStore()
		keep := 1 + random.IntN(8)
		limited := func(cfg *session.Config) { cfg.UserKey, cfg.MaxPerUser = "userId", keep }
		ids := make([]string, 20)
		for i := range ids {
			ids[i] = rand.Text()
			data := `{"cookie":{},"userId":1`
			if random.IntN(4) > 0 {
				data += `,"__created":` + pick()
			}
			if random.IntN(4) > 0 {
				data += `,"__renewed":` + pick()
			}
			rec := session.Record{Data: []byte(data + "}"), TTL: time.Hour}
			for _, store := range []session.Store{postgres, memory} {
				if err := store.Create(t.Context(), ids[i], rec); err != nil {
					t.Fatal(err)
				}
			}
		}
		var left [2][]string
		for i, store := range []session.Store{postgres, memory} {
			loginAs(t, patientManager(t, store, limited), 1, "new")
			for _, id := range ids {
				if _, err := store.Load(t.Context(), id); err == nil {
					left[i] = append(left[i], id)
				}
			}
		}
		if !slices.Equal(left[0], left[1]) || len(left[0]) >= len(ids) {
			t.Errorf("round %d, %d kept: got %d in PostgreSQL, %d in memory, want the same", round, keep, len(left[0]), len(left[1]))
		}
	}
}

// keepRows are the ways in which PostgreSQL deletes nothing and calls that a
// success, each with what undoes it.
var keepRows = []struct{ name, sql string }{
	{"a trigger", `CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
		CREATE TRIGGER keep BEFORE DELETE ON schema_system.session FOR EACH ROW EXECUTE FUNCTION public.keep()`},
	{"a trigger for one of them", `CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN OLD.sess::text LIKE '%"b"%' THEN NULL ELSE OLD END; END $$;
		CREATE TRIGGER keep BEFORE DELETE ON schema_system.session FOR EACH ROW EXECUTE FUNCTION public.keep()`},
	{"a rule", `CREATE RULE keep AS ON DELETE TO schema_system.session DO INSTEAD NOTHING`},
	{"row-level security", `ALTER TABLE schema_system.session ENABLE ROW LEVEL SECURITY;
		CREATE POLICY s ON schema_system.session FOR SELECT USING (true); CREATE POLICY i ON schema_system.session FOR INSERT WITH CHECK (true);
		CREATE POLICY u ON schema_system.session FOR UPDATE USING (true)`},
}

// A session that was to be ended and lives on is no success.
func TestRevokeKnowsWhatIsKept(t *testing.T) {
	for _, tt := range keepRows {
		t.Run(tt.name, func(t *testing.T) {
			url := pgtest.URL(t)
			admin := openPool(t, url)
			newStore(t, admin)
			role, pool := newRole(t, url, admin)
			role = pgx.Identifier{role}.Sanitize()
			execSQL(t, admin, "GRANT USAGE ON SCHEMA schema_system TO "+role+"; GRANT ALL ON schema_system.session TO "+role)
			log := &logRecorder{}
			store := newStore(t, pool)
			m := patientManager(t, store, func(cfg *session.Config) {
				cfg.UserKey, cfg.MaxPerUser, cfg.Logger = "userId", 2, log.logger()
			})
			loginAs(t, m, 1, "a")
			loginAs(t, m, 1, "b")
			execSQL(t, admin, tt.sql)
			for name, f := range map[string]session.Filter{"a user's": userIDKey.Is(1), "everyone's": session.Everyone()} {
				if n, err := m.Revoke(t.Context(), f); err == nil || n > 1 || !strings.Contains(err.Error(), "rows were not deleted") {
					t.Errorf("Revoke of %s: got %d, %v, want an error that says what keeps them", name, n, err)
				}
			}
			loginAs(t, m, 1, "b")
			loginAs(t, m, 1, "b")
			if !strings.Contains(log.String(), "over Config.MaxPerUser could not be destroyed") {
				t.Error("MaxPerUser: got no error in the log, want one")
			}
		})
	}
}

// Sessions that end meanwhile, or are renewed, are not being kept.
func TestRevokeBesideLogouts(t *testing.T) {
	url := pgtest.URL(t)
	admin := openPool(t, url)
	m := patientManager(t, newStore(t, openPool(t, url)))
	var ids []string
	for range 3 {
		cookie, _ := loginAs(t, m, 1, "a")
		useSession(m, cookie, func(s *session.Session) { ids = append(ids, s.ID()) })
	}
	release := lockRecords(t, admin, ids[2]) // Revoke has its snapshot, and waits
	done := make(chan error, 1)
	go func() {
		_, err := m.Revoke(t.Context(), userIDKey.Is(1))
		done <- err
	}()
	awaitSQL(t, admin, "Revoke waits", blockedSQL, 1)
	release()
	if err := <-done; err != nil {
		t.Errorf("beside a lock: got %v, want no error", err)
	}

	cookie, id := loginAs(t, m, 1, "b")
	useSession(m, cookie, func(s *session.Session) { id = s.ID() })
	end := make(chan struct{})
	tx, err := admin.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "DELETE FROM schema_system.session WHERE sid = $1", id); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(end)
		if n, err := m.Revoke(t.Context(), userIDKey.Is(1)); n != 0 || err != nil {
			t.Errorf("beside a logout: got %d, %v, want 0, no error", n, err)
		}
	}()
	awaitSQL(t, admin, "Revoke waits", blockedSQL, 1)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-end
}

// A record that somebody has locked for long is an error that says so, in time,
// and costs neither the login nor a connection.
func TestMaxPerUserBesideALockedRecord(t *testing.T) {
	url := pgtest.URL(t)
	admin := openPool(t, url)
	pool := openPool(t, url, maxConns(2))
	log := &logRecorder{}
	m := patientManager(t, newStore(t, pool), storeTimeout(4*time.Second), func(cfg *session.Config) {
		cfg.UserKey, cfg.MaxPerUser, cfg.Logger = "userId", 1, log.logger()
	})
	var id string
	first, _ := loginAs(t, m, 1, "a")
	useSession(m, first, func(s *session.Session) { id = s.ID() })
	pids := backendPIDs(t, pool)
	unlock := lockRecords(t, admin, id)
	var cookie string
	for tries := 0; tries < 5 && !strings.Contains(log.String(), "55P03"); tries++ {
		cookie, _ = loginAs(t, m, 1, "b") // on a busy machine that the row is locked may be said too late
	}
	if !strings.Contains(log.String(), "55P03") {
		t.Errorf("the log: got\n%s\nwant that a row is locked", log)
	}
	unlock()
	if got := userIn(m, cookie); got != 1 {
		t.Errorf("the new session: got user %d, want 1", got)
	}
	if got := backendPIDs(t, pool); !slices.Equal(got, pids) {
		t.Error("got other connections than before, want none lost")
	}
	loginAs(t, m, 1, "c")
	if got := len(handlesOf(t, m, userIDKey.Is(1))); got != 1 {
		t.Errorf("after the next login: got %d sessions, want 1", got)
	}
}

// Names that look like a part of the statements' texts are names.
func TestNamesLikePlaceholders(t *testing.T) {
	for _, name := range []string{"%[1]s", "%[6]s", "%[10]s", "%[11]s", "%[13]s", "%!s %d %%", "$1"} {
		pool := pgtest.Pool(t)
		store := newStore(t, pool, session.PostgresOptions{Schema: name, Table: name, IndexKeys: []string{name}})
		log := &logRecorder{}
		m := patientManager(t, store, func(cfg *session.Config) { cfg.UserKey, cfg.MaxPerUser, cfg.Logger = name, 1, log.logger() })
		key := session.Key[string](name)
		for range 3 {
			useSession(m, "", func(s *session.Session) { key.Set(s, "x") })
		}
		if found, err := m.Sessions(t.Context(), key.Is("x")); err != nil || len(found) != 1 {
			t.Errorf("%q: sessions after three logins: got %d, %v, want 1; the log:\n%s", name, len(found), err, log)
		}
		if _, err := store.Prune(t.Context(), time.Minute); err != nil {
			t.Errorf("%q: Prune: got %v, want no error", name, err)
		}
		if n, err := m.Revoke(t.Context(), key.Is("x")); err != nil || n != 1 {
			t.Errorf("%q: Revoke: got %d, %v, want 1", name, n, err)
		}
	}
}

// A row that somebody has locked, for an hour perhaps, keeps neither the other
// sessions from being ended nor anybody from the one connection for writes.
func TestRevokePassesOverALockedRow(t *testing.T) {
	url := pgtest.URL(t)
	admin := openPool(t, url)
	store := newStore(t, openPool(t, url, maxConns(4)))
	m := patientManager(t, store)
	for name, f := range map[string]session.Filter{"a user's": userIDKey.Is(1), "everyone's": session.Everyone()} {
		var id string
		for range 3 {
			cookie, _ := loginAs(t, m, 1, "a")
			useSession(m, cookie, func(s *session.Session) { id = s.ID() })
		}
		unlock := lockRecords(t, admin, id)
		type result struct {
			n   int64
			err error
		}
		done := make(chan result, 1)
		go func() {
			n, err := m.Revoke(context.Background(), f)
			done <- result{n, err}
		}()
		awaitSQL(t, admin, name+": those that are not locked are gone", "SELECT count(*) = 1 FROM schema_system.session WHERE "+noMark)
		stranger := createRecord(t, store, `{"userId":2}`)
		if name == "everyone's" { // or Revoke would go on for it
			if err := store.Delete(t.Context(), stranger); err != nil {
				t.Error(err)
			}
		}
		select {
		case r := <-done:
			t.Errorf("%s: got %d, %v while one is locked, want it to wait", name, r.n, r.err)
		default:
		}
		unlock()
		if r := <-done; r.n < 3 || r.n > 4 || r.err != nil {
			t.Errorf("%s: got %d, %v, want 3 and no error", name, r.n, r.err)
		}
		execSQL(t, admin, "DELETE FROM schema_system.session")
	}

	id := createRecord(t, store, `{"userId":1}`)
	lockRecords(t, admin, id)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if n, err := store.DeleteFound(ctx, session.Query{Key: "userId", Values: []string{"1"}}); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("locked for longer: got %d, %v, want an error at the deadline", n, err)
	}
}
