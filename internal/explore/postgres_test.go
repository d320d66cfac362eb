package explore_test

import (
	"bytes"
	"context"
	"flag"
	"log/slog"
	"runtime"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/explore"
	"github.com/pgsession/session/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

var onPostgres = flag.Uint64("postgres", 30, "explore: how many random schedules with each kind of store on PostgreSQL")

// partitioned is a table in hash partitions, where a renewal may move a row from
// one to another.
const partitioned = `
	CREATE SCHEMA schema_system;
	CREATE TABLE schema_system.session (sid varchar NOT NULL PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL) PARTITION BY HASH (sid);
	CREATE TABLE schema_system.p0 PARTITION OF schema_system.session FOR VALUES WITH (MODULUS 2, REMAINDER 0);
	CREATE TABLE schema_system.p1 PARTITION OF schema_system.session FOR VALUES WITH (MODULUS 2, REMAINDER 1)`

// TestExplorePostgres holds the same rules to the store on PostgreSQL, by the
// same random scripts. A stage outside of a bubble lets one actor move at a time, so
// no statement waits for another one, and time is real: nobody comes minutes later and
// no answer is later than its deadline.
func TestExplorePostgres(t *testing.T) {
	from := *seed
	for _, tt := range []struct {
		name   string
		table  string
		opts   session.PostgresOptions
		config explore.Config
	}{
		{name: "shared statements"},
		{name: "single statements", opts: session.PostgresOptions{DisableBatching: true}},
		{name: "hashed IDs", opts: session.PostgresOptions{HashIDs: true}},
		{name: "hashed IDs, single statements, partitions", table: partitioned, opts: session.PostgresOptions{HashIDs: true, DisableBatching: true}},
		{name: "partitions", table: partitioned},
		{name: "encrypted", config: explore.Config{Encrypt: true}},
		{name: "encrypted, single statements", opts: session.PostgresOptions{DisableBatching: true}, config: explore.Config{Encrypt: true}},
		{name: "Express", config: explore.Config{Express: true}},
		{name: "Express, single statements", opts: session.PostgresOptions{DisableBatching: true}, config: explore.Config{Express: true}},
	} {
		from += 1 << 32 // each its own schedules
		t.Run(tt.name, func(t *testing.T) {
			l, all := postgresLab(t, tt.table, tt.opts), newTally()
			for i := range *onPostgres {
				script, choose := outside(from+i, tt.config)
				all.add(l.run(&script, choose), i)
				if t.Failed() {
					break
				}
			}
			t.Logf("%d schedules, %d distinct ones whose operations overlap", all.runs, len(all.distinct))
			for rule, first := range all.first {
				script, h := explore.Shrink(l.run, &first.script, rule)
				t.Errorf("%s broken in %d of them, the first: %s; again and shorter: %v, in\n%s", rule, all.breaches[rule], first.why, explore.Breaches(h), script.Text(h.Did()))
			}
		})
	}
}

// postgresLab returns a lab that runs outside of bubbles, on a table of its own
// that is empty in the beginning of each run.
func postgresLab(t *testing.T, table string, opts session.PostgresOptions) *lab {
	pool := pgtest.Pool(t, func(c *pgxpool.Config) { c.MaxConns = 4 })
	if _, err := pool.Exec(t.Context(), table, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	opts.Logger = slog.New(slog.DiscardHandler)
	s, err := session.NewPostgresStore(context.Background(), pool, opts)
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(t)
	l.outside = func() store {
		if _, err := pool.Exec(l.t.Context(), "DELETE FROM schema_system.session"); err != nil {
			l.t.Fatal(err)
		}
		return s
	}
	return l
}

// outside returns the script of a seed without what needs a bubble's time, and in
// the configuration that is asked for.
func outside(seed uint64, config explore.Config) (explore.Script, explore.Choose) {
	s, choose := explore.Random(seed)
	for actor := range s.Beside {
		s.Actors = s.Actors[:actor]
	}
	s.Beside, s.Bound = nil, false // a device's grace is the bubble's too
	for n := len(s.Actors); s.Is(n-1, explore.Refresh); n = len(s.Actors) {
		s.Actors = s.Actors[:n-1]
	}
	if s.Fault.Actor >= len(s.Actors) {
		s.Fault = explore.Fault{}
	}
	for _, calls := range s.Actors {
		for i, call := range calls {
			if explore.Later(call) > 0 {
				calls[i] = explore.Get
			}
		}
	}
	if s.Fault.Kind == explore.Late {
		s.Fault.Kind = explore.ReplyLost
	}
	s.Encrypt, s.Express = config.Encrypt, config.Express
	if s.Express {
		s.Domain, s.Stray = false, false
	}
	return s, choose
}

// queues reports whether an actor's goroutine waits for its turn to save, which
// only another actor gives it.
func (w *world) queues(number int) bool {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	name, _ := w.actors[number].name.Load().(string)
	head := []byte("goroutine " + name + " [select")
	for stack := range bytes.SplitSeq(stacks, []byte("\n\n")) {
		if bytes.HasPrefix(stack, head) {
			return bytes.Contains(stack, []byte("/internal/turn.(*Queue"))
		}
	}
	return false
}
