package citus

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/citustest"
)

const (
	schema   = "session_test"
	patience = 30 * time.Second
	user     = session.Key[string]("user")
)

func newManager(t *testing.T, store session.Store) *session.Manager {
	t.Helper()
	m, err := session.New(store, session.Config{Secret: "kq7Vw2mT9xB4nR8sL1cZ6yH3pD5gJ0fa", DisablePrune: true, StoreTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func openTable(t *testing.T, opts session.PostgresOptions) (*pgxpool.Pool, *session.PostgresStore) {
	t.Helper()
	pool := citustest.Pool(t, maxConns(16))
	citustest.Table(t, pool, schema, columns)
	opts.Schema = schema
	return pool, newStore(t, pool, opts)
}

// answer serves a request with a cookie. It returns the one that it answers with, or
// else the same, and the status.
func answer(m *session.Manager, c *http.Cookie, page func(*session.Session)) (*http.Cookie, int) {
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	if c != nil {
		r.AddCookie(c)
	}
	w := httptest.NewRecorder()
	m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { page(session.From(r.Context())) })).ServeHTTP(w, r)
	if cookies := w.Result().Cookies(); len(cookies) > 0 {
		c = cookies[0]
	}
	return c, w.Code
}

// visit is answer where nothing may fail.
func visit(t *testing.T, m *session.Manager, c *http.Cookie, page func(*session.Session)) *http.Cookie {
	t.Helper()
	c, status := answer(m, c, page)
	if status != http.StatusOK {
		t.Errorf("got %d, want 200", status)
	}
	return c
}

// renewals are the ways to renew a session, each a request's.
var renewals = map[string]func(*testing.T, *pgxpool.Pool, *session.Session){
	"Renew": func(_ *testing.T, _ *pgxpool.Pool, s *session.Session) { s.Renew() },
	"Transact": func(t *testing.T, _ *pgxpool.Pool, s *session.Session) {
		err := session.Transact(t.Context(), s, func(context.Context, pgx.Tx) error {
			s.Renew()
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	},
	"SaveTx": func(t *testing.T, pool *pgxpool.Pool, s *session.Session) {
		err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			s.Renew()
			return session.SaveTx(t.Context(), s, tx)
		})
		if err != nil {
			t.Error(err)
		}
	},
}

// The new ID of a renewal is in the shard of the old one, whether the table holds IDs or hashes
// of them, and so no transaction of two phases is needed.
func TestRenewalsStayInTheirShard(t *testing.T) {
	for _, tt := range []struct {
		hashed bool
		by     string
	}{{false, "Renew"}, {true, "Renew"}, {false, "Transact"}, {true, "SaveTx"}} {
		t.Run(fmt.Sprintf("hashed %t, %s", tt.hashed, tt.by), func(t *testing.T) {
			pool, store := openTable(t, session.PostgresOptions{HashIDs: tt.hashed})
			m := newManager(t, store)
			prepared := func() (n int) {
				if citustest.Real() {
					if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_dist_transaction").Scan(&n); err != nil {
						t.Fatal(err)
					}
				}
				return n
			}
			for range 3 { // chains, which begin anywhere
				c := visit(t, m, nil, func(s *session.Session) { user.Set(s, "mia") })
				before := prepared()
				for range 12 {
					c = visit(t, m, c, func(s *session.Session) { renewals[tt.by](t, pool, s) })
				}
				if got := prepared() - before; got > 0 {
					t.Errorf("transactions in two phases: got %d, want none", got)
				}
			}
			rows, err := pool.Query(t.Context(), "SELECT sid, (expire < now() + interval '20 minutes') FROM "+schema+".session")
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			of := map[int64]int{}
			for rows.Next() {
				var sid string
				var isMark bool
				if err := rows.Scan(&sid, &isMark); err != nil {
					t.Fatal(err)
				}
				shard := citustest.ShardOf(t, pool, schema, sid)
				of[shard]++
			}
			for shard, n := range of {
				if n%13 != 0 {
					t.Errorf("shard %d: got %d rows, want those of whole chains, 13 each", shard, n)
				}
			}
			if rows.Err() != nil || len(of) == 0 || len(of) > 3 {
				t.Errorf("got %d shards, %v, want 1 to 3", len(of), rows.Err())
			}
		})
	}
}

// What Revoke names by a value does not escape by renewing all the while.
func TestRevokeUnderRenewals(t *testing.T) {
	const sessions = 60
	pool, store := openTable(t, session.PostgresOptions{})
	m := newManager(t, store)
	var begun, done sync.WaitGroup
	ctx, stop := context.WithTimeout(t.Context(), 4*patience) // sixty at once on a busy machine
	defer stop()
	begun.Add(sessions)
	for range sessions {
		done.Go(func() {
			c, status := answer(m, nil, func(s *session.Session) { user.Set(s, "mia") })
			for n := 0; status == http.StatusOK && ctx.Err() == nil; n++ {
				if n == 2 {
					begun.Done()
				}
				c, status = answer(m, c, func(s *session.Session) { s.Renew() })
			}
		})
	}
	begun.Wait()
	if _, err := m.Revoke(ctx, user.Is("mia")); err != nil {
		t.Errorf("Revoke: %v", err)
	}
	found, err := store.Find(ctx, session.Query{Key: "user", Values: []string{"mia"}, Limit: sessions})
	if err != nil || len(found) > 0 {
		t.Errorf("alive after Revoke: got %d, %v, want none", len(found), err)
	}
	stop()
	done.Wait()
	var n int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM "+schema+`.session WHERE left(sess::text, 3) <> '"0e'`).Scan(&n); err != nil || n > 0 {
		t.Errorf("rows that are no marks: got %d, %v, want none", n, err)
	}
}

// The same by force: Revoke waits for the row that a renewal has removed and not yet
// committed, and what that inserts is not in what it has seen.
func TestRevokeMeetsARenewal(t *testing.T) {
	if citustest.Real() {
		t.Skip("nobody can see from the coordinator that a statement waits on a worker: TestRevokeUnderRenewals leaves it to chance there")
	}
	pool, store := openTable(t, session.PostgresOptions{})
	m := newManager(t, store)
	visit(t, m, nil, func(s *session.Session) { user.Set(s, "mia") })
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"INSERT INTO " + schema + ".session SELECT 'renewed', sess, expire FROM " + schema + ".session",
		"DELETE FROM " + schema + ".session WHERE sid <> 'renewed'",
	} {
		if _, err := tx.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	var revoked sync.WaitGroup
	revoked.Go(func() {
		if _, err := m.Revoke(t.Context(), user.Is("mia")); err != nil {
			t.Errorf("Revoke: %v", err)
		}
	})
	for waits, end := false, time.Now().Add(patience); !waits; {
		err := pool.QueryRow(t.Context(), "SELECT pg_sleep(0.01) IS NOT NULL AND EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')").Scan(&waits)
		if err != nil || time.Now().After(end) {
			t.Fatalf("Revoke has not met the renewal, %v", err)
		}
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	revoked.Wait()
	if found, err := store.Find(t.Context(), session.Query{Key: "user", Values: []string{"mia"}, Limit: 2}); err != nil || len(found) > 0 {
		t.Errorf("alive after Revoke: got %d, %v, want none", len(found), err)
	}
}
