package citus

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/citustest"
	"github.com/pgsession/session/internal/tablestats"
)

// What doctor, stats and sessionadmin show is counted in all shards.
func TestStatisticsAreOfAllShards(t *testing.T) {
	pool, store := openTable(t, session.PostgresOptions{})
	const live, expired, updates = 30, 20, 10
	for n := range live + expired {
		id, rec := rand.Text(), session.Record{Data: []byte(`{"cookie":{},"__created":1}`), TTL: time.Hour}
		if err := store.Create(t.Context(), id, rec); err != nil {
			t.Fatal(err)
		}
		if n < updates {
			if err := store.Touch(t.Context(), id, 2*time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		if n >= live {
			if _, err := pool.Exec(t.Context(), "UPDATE "+schema+".session SET expire = now() - interval '1 hour' WHERE sid = $1", id); err != nil {
				t.Fatal(err)
			}
		}
	}
	for end := time.Now().Add(patience); ; { // statistics come late
		s, err := tablestats.Read(t.Context(), pool, schema, "session")
		if err != nil {
			t.Fatal(err)
		}
		if s.Live != live || s.Expired != expired || s.TableBytes <= 0 || s.IndexBytes <= 0 || s.ToastBytes < 0 {
			t.Fatalf("got %+v, want %d live, %d expired, and sizes", s, live, expired)
		}
		if s.Updates == updates+expired {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("updates: got %d, want %d", s.Updates, updates+expired)
		}
		citustest.Exec(t, pool, "SELECT pg_sleep(0.1)")
	}
	ages, err := tablestats.ReadAges(t.Context(), pool, schema, "session")
	if err != nil || ages.Older != live {
		t.Errorf("ages: got %+v, %v, want %d old ones", ages, err, live)
	}
	// Of these three the first prunes all, and the others find nothing.
	for _, want := range []int64{expired, 0, 0} {
		if got, err := store.Prune(t.Context(), time.Minute); err != nil || got != want {
			t.Errorf("Prune: got %d, %v, want %d", got, err, want)
		}
	}
}
