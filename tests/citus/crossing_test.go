package citus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/citustest"
	"github.com/pgsession/session/internal/mark"
)

// elsewhere returns an ID in another shard than id.
func elsewhere(t *testing.T, of func(id string) int64, id string) string {
	t.Helper()
	for n := range 1000 {
		if other := fmt.Sprintf("other %d", n); of(other) != of(id) {
			return other
		}
	}
	t.Fatal("every ID is in one shard")
	return ""
}

// afterAsking calls then once, when so many statements with that parameter have been
// answered.
type afterAsking struct {
	parameter string
	times     int32
	then      func()
	asked     atomic.Int32
}

func (a *afterAsking) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	return context.WithValue(ctx, a, slices.Contains(data.Args, any(a.parameter)))
}

func (a *afterAsking) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) {
	if ctx.Value(a) == true && a.asked.Add(1) == a.times {
		a.then()
	}
}

// A renewal from one shard into another, by a program that did not know of a split, is
// in two phases: its mark can be seen before its record. A logout by the old ID waits
// for that, also by a program that does not know of the split either.
func TestLogoutAfterACrossing(t *testing.T) {
	t.Run("known", func(t *testing.T) { logoutAfterACrossing(t, true) })
	t.Run("not known", func(t *testing.T) { logoutAfterACrossing(t, false) })
}

func logoutAfterACrossing(t *testing.T, known bool) {
	pool, _ := openTable(t, session.PostgresOptions{})
	put := func(id, data string) {
		if _, err := pool.Exec(t.Context(), "INSERT INTO "+schema+".session VALUES ($1, $2, now() + interval '10 minutes')", id, data); err != nil {
			t.Error(err)
		}
	}
	const id = "old"
	of := func(id string) int64 { return citustest.ShardOf(t, pool, schema, id) }
	// A delete, and why it was none, and both again as if it were in doubt.
	var renewed string
	asking := &afterAsking{times: 4, then: func() { put(renewed, `{"cookie":{}}`) }}
	cfg := pool.Config()
	cfg.ConnConfig.Tracer = asking
	traced, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer traced.Close()
	store := newStore(t, traced, session.PostgresOptions{Schema: schema, DisableBatching: true})
	if known {
		renewed = elsewhere(t, of, id)
	} else {
		var near []string // in one shard, now
		for n := range 1000 {
			if other := fmt.Sprintf("near %d", n); of(other) == of(id) {
				near = append(near, other)
			}
		}
		citustest.Reshard(t, pool, schema, 2*citustest.Shards)
		renewed = near[slices.IndexFunc(near, func(other string) bool { return of(other) != of(id) })]
	}
	asking.parameter = renewed
	put(id, mark.Of(renewed))
	if err := store.Delete(t.Context(), id); err != nil || asking.asked.Load() <= asking.times {
		t.Errorf("Delete: got %v, asked %d times for the record, want more than %d", err, asking.asked.Load(), asking.times)
	}
	if _, err := store.Load(t.Context(), renewed); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("Load afterwards: got %v, want ErrNotFound", err)
	}
}

// An ID whose write was in doubt, and that has no record any more, is not found: not an
// error for ever.
func TestDoubtWithoutARecord(t *testing.T) {
	if citustest.Real() {
		t.Skip("CITUS: a distributed table has no triggers, so nothing can be put in doubt at will; TestWorkersKilled does so by chance")
	}
	pool, store := openTable(t, session.PostgresOptions{DisableBatching: true})
	if err := store.Create(t.Context(), "id", session.Record{Data: []byte(`{"n":0}`), TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	citustest.Exec(t, pool, "CREATE FUNCTION "+schema+`.lost() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '08006'; END $$;
		CREATE TRIGGER lost BEFORE UPDATE ON `+schema+".session FOR EACH ROW EXECUTE FUNCTION "+schema+".lost()")
	if err := store.Update(t.Context(), "id", session.Change{Old: []byte(`{"n":0}`), New: []byte(`{"n":1}`)}); !errors.Is(err, session.ErrUncertain) {
		t.Fatalf("Update: got %v, want ErrUncertain", err)
	}
	citustest.Exec(t, pool, "DELETE FROM "+schema+".session")
	for range 2 {
		if _, err := store.Load(t.Context(), "id"); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("Load: got %v, want ErrNotFound", err)
		}
	}
}

// A JSON string of somebody else's that begins like a mark is nobody's session, and Revoke
// of everybody does not wait for it to go.
func TestRevokeBesideAnOddRow(t *testing.T) {
	pool, store := openTable(t, session.PostgresOptions{})
	odd := make([]string, 1500)
	for i := range odd {
		odd[i] = fmt.Sprint(i * 7919) // it does not compress well
	}
	citustest.Exec(t, pool, "INSERT INTO "+schema+`.session VALUES ('odd', '"0e`+strings.Join(odd, "")+`"', now() + interval '1 hour'), ('one', '{"cookie":{}}', now() + interval '1 hour')`)
	if n, err := store.DeleteFound(t.Context(), session.Query{}); n != 1 || err != nil {
		t.Errorf("got %d, %v, want 1", n, err)
	}
}
