package session_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/sessiontest"
)

// partition makes partitions of the table, as docs/operations.md says.
func partition(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	_, section, _ := strings.Cut(docRead(t, "docs/operations.md"), "## Partitioning\n")
	_, block, _ := strings.Cut(section, "```sql\n")
	block, _, ok := strings.Cut(block, "\n```")
	before, rest, okBegin := strings.Cut(block, "SELECT format(")
	query, after, okEnd := strings.Cut(rest, `\gexec`)
	if !ok || !okBegin || !okEnd {
		t.Fatalf("docs/operations.md: got no SQL with a format and a \\gexec, but\n%s", block)
	}
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	run := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%v in %s", err, sql)
		}
	}
	run(before)
	rows, err := conn.Query(t.Context(), "SELECT format("+query)
	if err != nil {
		t.Fatal(err)
	}
	statements, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range statements {
		run(sql)
	}
	run(after)
}

// partitionOf names the partition that a record is in.
func partitionOf(t *testing.T, pool *pgxpool.Pool, id string) string {
	t.Helper()
	return queryOne[string](t, pool, "SELECT COALESCE((SELECT tableoid::regclass::text FROM schema_system.session WHERE sid = $1), '')", id)
}

// movingID returns an ID that belongs to another partition than id.
func movingID(t *testing.T, pool *pgxpool.Pool, id string) string {
	t.Helper()
	return queryOne[string](t, pool, `SELECT v FROM generate_series(0, 7) part, (SELECT ('moved' || n || $1)::varchar FROM generate_series(1, 1000) n) x(v)
		WHERE satisfies_hash_partition('schema_system.session'::regclass, 8, part, $1::varchar)
			AND NOT satisfies_hash_partition('schema_system.session'::regclass, 8, part, v) LIMIT 1`, id)
}

// countFailures counts the statements that ended with 40001.
func countFailures(n *atomic.Int64) *tracer {
	return &tracer{end: func(err error, _ time.Duration) {
		var pe *pgconn.PgError
		if errors.As(err, &pe) && pe.Code == "40001" {
			n.Add(1)
		}
	}}
}

func TestPartitionedStore(t *testing.T) {
	t.Parallel()
	eachBatching(t, func(t *testing.T, opts session.PostgresOptions) {
		pool := pgtest.Pool(t)
		before := newStore(t, pool)
		id := createRecord(t, before, `{"a":1}`)
		checkStoreWorks(t, before)
		partition(t, pool)
		checkStoreWorks(t, before) // a program that goes on meanwhile
		if got := partitionOf(t, pool, id); !strings.Contains(got, "session_") {
			t.Errorf("a record from before: got it in %q, want it in a partition", got)
		}
		store := newStore(t, pool, opts)
		sessiontest.TestStore(t, func(*testing.T) session.Store { return store })
	})
}

// A renewal has moved the row to another partition, and commits while a call
// waits for the row: its answer is what is so then.
func TestPartitionedRowMovesUnderACall(t *testing.T) {
	change := session.Change{Old: []byte(`{"a":1}`), New: []byte(`{"a":2}`), TTL: time.Hour}
	for _, tt := range []struct {
		name  string
		call  func(ctx context.Context, store *session.PostgresStore, id string) error
		moved []error // one of them, if the renewal commits; if it rolls back, none
	}{
		{"Update", func(ctx context.Context, store *session.PostgresStore, id string) error {
			return store.Update(ctx, id, change)
		}, []error{session.ErrConflict, session.ErrNotFound}},
		{"renewal", func(ctx context.Context, store *session.PostgresStore, id string) error {
			renewal := change
			renewal.NewID = rand.Text()
			return store.Update(ctx, id, renewal)
		}, []error{session.ErrConflict, session.ErrNotFound}},
		{"Touch", func(ctx context.Context, store *session.PostgresStore, id string) error {
			return store.Touch(ctx, id, 2*time.Hour)
		}, []error{session.ErrNotFound}},
		{"Delete", func(ctx context.Context, store *session.PostgresStore, id string) error {
			return store.Delete(ctx, id)
		}, []error{nil}},
	} {
		for _, commit := range []bool{true, false} {
			for _, off := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, commit %v, off %v", tt.name, commit, off), func(t *testing.T) {
					t.Parallel()
					url := pgtest.URL(t)
					admin := openPool(t, url)
					newStore(t, admin)
					partition(t, admin)
					store := newStore(t, openPool(t, url), session.PostgresOptions{DisableBatching: off})
					id := createRecord(t, store, `{"a":1}`)
					newID := movingID(t, admin, id)
					tx, err := admin.Begin(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					defer func() { _ = tx.Rollback(context.Background()) }()
					if _, err := tx.Exec(t.Context(), "UPDATE schema_system.session SET sid = $2 WHERE sid = $1", id, newID); err != nil {
						t.Fatal(err)
					}
					done := make(chan error, 1)
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					go func() { done <- tt.call(ctx, store, id) }()
					awaitRowWaits(t, admin, 1, store)
					want, end := []error{nil}, tx.Rollback
					if commit {
						want, end = tt.moved, tx.Commit
					}
					if err := end(t.Context()); err != nil {
						t.Fatal(err)
					}
					if got := <-done; !isOneOf(got, want) {
						t.Errorf("got %v, want one of %v", got, want)
					}
					if _, err := store.Load(t.Context(), newID); commit && err != nil || !commit && !errors.Is(err, session.ErrNotFound) {
						t.Errorf("Load of the new ID: got %v, want it there: %v", err, commit)
					}
				})
			}
		}
	}
}

func isOneOf(err error, want []error) bool {
	for _, w := range want {
		if errors.Is(err, w) {
			return true
		}
	}
	return false
}

// Sessions are renewed while others save them; all requests of a round have loaded
// the session before the first saves it.
func TestPartitionedRenewalsUnderLoad(t *testing.T) {
	const programs, users, rounds, saves = 2, 8, 10, 6
	eachBatching(t, func(t *testing.T, opts session.PostgresOptions) {
		url := pgtest.URL(t)
		admin := openPool(t, url)
		newStore(t, admin)
		partition(t, admin)
		var failures atomic.Int64
		var m []*session.Manager
		for range programs {
			store := newStore(t, openPool(t, url, maxConns(8), countFailures(&failures).use), opts)
			m = append(m, patientManager(t, store))
		}
		var moved atomic.Int64
		together(users, func(user int) {
			cookie, id := loginCounter(t, m[0])
			want := 0
			for range rounds {
				from := partitionOf(t, admin, id)
				responses := renewAmongSaves(m, cookie, saves)
				if cookie = responses[0].newCookie(); cookie == "" {
					t.Errorf("user %d: the renewal: got status %d and no cookie", user, responses[0].status)
					return
				}
				for _, resp := range responses {
					switch resp.status {
					case http.StatusOK:
						want++
					case http.StatusConflict: // the renewal was first
					default:
						t.Errorf("user %d: got status %d, want 200 or 409", user, resp.status)
					}
				}
				useSession(m[0], cookie, func(s *session.Session) { id = s.ID() })
				if partitionOf(t, admin, id) != from {
					moved.Add(1)
				}
			}
			if got := counted(t, m[1], cookie); got != want {
				t.Errorf("user %d: got %d saves counted, want the %d that were answered with 200", user, got, want)
			}
		})
		if got := countRecords(t, admin); got != users {
			t.Errorf("records: got %d, want %d", got, users)
		}
		if moved.Load() == 0 {
			t.Error("rows that changed their partition: got none, want some")
		}
		t.Logf("%d of %d renewals moved their row; %d answers with 40001", moved.Load(), users*rounds, failures.Load())
	})
}

// renewAmongSaves answers overlapping requests of one session, of which the first
// also renews it.
func renewAmongSaves(m []*session.Manager, cookie string, n int) []*response {
	responses := make([]*response, n)
	var at sync.WaitGroup
	at.Add(n)
	together(n, func(i int) {
		responses[i] = useSession(m[i%len(m)], cookie, func(s *session.Session) {
			increment(s)
			if i == 0 {
				s.Renew()
			}
			at.Done()
			at.Wait()
		})
	})
	return responses
}

// Two programs prune at once, while a third uses and renews the live records.
func TestPartitionedPrune(t *testing.T) {
	const expired, live = 4000, 200
	url := pgtest.URL(t)
	admin := openPool(t, url)
	stores := []*session.PostgresStore{newStore(t, admin), newStore(t, openPool(t, url)), newStore(t, openPool(t, url))}
	partition(t, admin)
	fillTable(t, admin, expired, live)
	if got := queryOne[int](t, admin, "SELECT count(DISTINCT tableoid) FROM schema_system.session WHERE expire < now()"); got != 8 {
		t.Fatalf("partitions with expired records: got %d, want 8", got)
	}
	ctx, stop := context.WithCancel(t.Context())
	var user sync.WaitGroup
	used := make(chan struct{})
	user.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			id := fmt.Sprintf("live%d", 1+i%live)
			newID := fmt.Sprintf("%s renewed %d", id, i/live)
			if i >= live {
				id = fmt.Sprintf("%s renewed %d", id, i/live-1)
			}
			r, err := stores[2].Load(t.Context(), id)
			if err == nil {
				err = stores[2].Update(t.Context(), id, session.Change{Old: r.Data, New: r.Data, TTL: 2 * time.Hour, NewID: newID})
			}
			if err != nil {
				t.Errorf("renewal of a live record: got %v, want no error", err)
			}
			if i == live {
				close(used)
			}
		}
	})
	<-used
	var deleted [2]int64
	together(2, func(i int) { deleted[i] = pruneAll(t, stores[i], time.Nanosecond) })
	stop()
	user.Wait()
	rest := pruneAll(t, stores[0], time.Nanosecond) // what one had left to the other's next batch
	if got := deleted[0] + deleted[1] + rest; got != expired {
		t.Errorf("deleted: got %d, want %d", got, expired)
	}
	if got := countExpired(t, admin); got != 0 {
		t.Errorf("expired records left: got %d, want 0", got)
	}
	if got := countRecords(t, admin); got != live {
		t.Errorf("records left: got %d, want %d", got, live)
	}
}
