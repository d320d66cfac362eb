package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/bench/internal/rig"
)

// bench is a run under way.
type bench struct {
	options
	*rig.Stage
	running []*running
	report  *Report
	cells   map[cellKey]*Cell
}

type cellKey struct {
	variant, route string
	conns          int
}

// running is a server with its users.
type running struct {
	*rig.Server
	users *rig.Users
	db    *pgx.Conn // to the variant's database; nil without one
}

// benchmark measures everything and returns the report.
func benchmark(ctx context.Context, module string, o options) (*Report, error) {
	if o.users < slices.Max(o.conns) {
		return nil, fmt.Errorf("%d users are too few for %d connections: each connection has users of its own", o.users, slices.Max(o.conns))
	}
	b := &bench{options: o, cells: make(map[cellKey]*Cell)}
	b.report = &Report{
		Occasion: rig.Now(""), // PostgreSQL is to come
		Users:    o.users, Pool: o.pool, Rounds: o.rounds, Seconds: o.duration.Seconds(),
	}
	var settings map[string]string
	if o.volatile {
		settings = map[string]string{"fsync": "off"}
	}
	var err error
	if b.Stage, err = rig.NewStage(ctx, module, o.pool, settings, "./server", "./peers/..."); err != nil {
		return nil, err
	}
	defer b.Close()
	for _, step := range []func(context.Context) error{b.start, b.countStatements, b.allRounds, b.heapOnly, b.steadyRun} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return b.report, nil
}

// start starts the servers and logs the users in.
func (b *bench) start(ctx context.Context) error {
	for i := range rig.Variants {
		v := &rig.Variants[i]
		if b.variants != nil && !slices.Contains(b.variants, v.Name) {
			continue
		}
		rig.Log("starting %s and logging %d users in", v.Name, b.users)
		server, err := b.Enter(ctx, v)
		if err != nil {
			return err
		}
		r := &running{Server: server}
		if r.users, err = rig.LoginUsers(server, b.users); err != nil {
			return err
		}
		if v.Store == rig.InPostgres {
			if r.db, err = b.Connect(ctx, v.Database()); err != nil {
				return err
			}
		}
		b.running = append(b.running, r)
		b.report.Variants = append(b.report.Variants, v.Name)
	}
	return b.describe(ctx)
}

// describe notes what is measured on what.
func (b *bench) describe(ctx context.Context) error {
	commit, err := b.Postgres.CommitTime(ctx)
	if err != nil {
		return err
	}
	b.report.Postgres, b.report.Settings, b.report.CommitMs = b.Postgres.Version, b.Postgres.Settings, float64(commit)/1e6
	if b.Redis != nil {
		b.report.Redis = b.Redis.Version
	}
	b.report.Node = rig.NodeVersion(ctx)
	for _, r := range b.running {
		if r.Variant.Name == rig.Session {
			return r.db.QueryRow(ctx, "SELECT avg(octet_length(sess::text))::int FROM schema_system.session").Scan(&b.report.DataBytes)
		}
	}
	return nil
}

func (b *bench) allRounds(ctx context.Context) error {
	for n := range b.rounds {
		rig.Log("round %d of %d", n+1, b.rounds)
		if err := b.vacuum(ctx); err != nil {
			return err
		}
		if err := b.round(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// vacuum does what autovacuum, which is off, would do at times of its own.
func (b *bench) vacuum(ctx context.Context) error {
	for _, r := range b.running {
		if r.db == nil {
			continue
		}
		if _, err := r.db.Exec(ctx, "VACUUM ANALYZE"); err != nil {
			return err
		}
	}
	return nil
}

// each calls f for every measurement, those to be compared one after the other. The
// order of the servers changes from round to round.
func (b *bench) each(round int, f func(r *running, route string, conns int) error) error {
	for _, route := range b.routes {
		for _, conns := range b.conns {
			for i := range b.running {
				r := b.running[(i+round)%len(b.running)]
				if !r.Variant.Has(route) {
					continue
				}
				if err := f(r, route, conns); err != nil {
					return fmt.Errorf("%s with %d connections: %w", r.Variant.Name, conns, err)
				}
			}
		}
	}
	return nil
}

func (b *bench) load(ctx context.Context, r *running, route string, conns int, d time.Duration) (*rig.Result, *rig.Visits, error) {
	visits := rig.NewVisits(r.Variant, route, r.users, conns, 0)
	result, err := rig.Load{Addrs: []string{r.Addr}, Conns: conns, Duration: d, Script: visits}.Run(ctx)
	return result, visits, err
}

// settle visits every user once: an expiry that was due to be moved since the last
// measurement is moved now. Over a whole touch interval see steadyRun.
func (b *bench) settle(ctx context.Context, r *running, route string, conns int) error {
	each := (b.users + conns - 1) / conns
	if route == rig.Public || route == rig.New {
		each = (min(b.users, 200) + conns - 1) / conns
	}
	_, err := rig.Load{
		Addrs: []string{r.Addr}, Conns: conns,
		Script: rig.NewVisits(r.Variant, route, r.users, conns, each),
	}.Run(ctx)
	return err
}

// countStatements is a round of its own, not timed, in which PostgreSQL counts
// statements; it warms everything up as well.
func (b *bench) countStatements(ctx context.Context) error {
	rig.Log("counting statements")
	if err := b.Postgres.Count(ctx, true); err != nil {
		return err
	}
	err := b.each(0, func(r *running, route string, conns int) error {
		cell := b.cell(r, route, conns)
		if err := b.settle(ctx, r, route, conns); err != nil || r.db == nil {
			return err
		}
		before, err := b.Postgres.Statements(ctx, r.Variant.Database())
		if err != nil {
			return err
		}
		result, _, err := b.load(ctx, r, route, conns, min(b.duration, 500*time.Millisecond))
		if err != nil {
			return err
		}
		after, err := b.Postgres.Statements(ctx, r.Variant.Database())
		per := float64(after-before) / float64(max(1, result.Total))
		cell.Statements = &per
		return err
	})
	if err != nil {
		return err
	}
	return b.Postgres.Count(ctx, false)
}

func (b *bench) cell(r *running, route string, conns int) *Cell {
	key := cellKey{r.Variant.Name, route, conns}
	c := b.cells[key]
	if c == nil {
		c = &Cell{Variant: key.variant, Route: route, Conns: conns}
		b.cells[key] = c
		b.report.Cells = append(b.report.Cells, c)
	}
	return c
}

func (b *bench) round(ctx context.Context, n int) error {
	return b.each(n, func(r *running, route string, conns int) error {
		if err := b.settle(ctx, r, route, conns); err != nil {
			return err
		}
		m, err := b.measure(ctx, r, route, conns, b.duration)
		if err != nil {
			return err
		}
		cell := b.cell(r, route, conns)
		cell.Rounds = append(cell.Rounds, m)
		return nil
	})
}

// usage is what has been used so far.
type usage struct {
	server, database, client time.Duration
	wal                      int64
}

func (b *bench) usage(ctx context.Context, r *running) (u usage, err error) {
	if u.server, err = r.CPU(); err != nil {
		return u, err
	}
	if u.client, err = rig.ProcessCPU(os.Getpid()); err != nil {
		return u, err
	}
	switch r.Variant.Store {
	case rig.InPostgres:
		if u.database, err = b.Postgres.CPU(); err == nil {
			u.wal, err = b.Postgres.WAL(ctx)
		}
	case rig.InRedis:
		u.database, err = b.Redis.CPU()
	}
	return u, err
}

func (b *bench) measure(ctx context.Context, r *running, route string, conns int, d time.Duration) (m Round, err error) {
	before, err := b.usage(ctx, r)
	if err != nil {
		return m, err
	}
	result, visits, err := b.load(ctx, r, route, conns, d)
	if err != nil {
		return m, err
	}
	after, err := b.usage(ctx, r)
	per := func(d time.Duration) float64 { return rig.Microseconds(d) / float64(max(1, result.Total)) }
	return Round{
		Requests: result.Total, PerSecond: result.PerSecond(),
		P50: rig.Microseconds(result.Latency.Quantile(0.5)), P99: rig.Microseconds(result.Latency.Quantile(0.99)), Max: rig.Microseconds(result.Latency.Max()),
		ServerCPU: per(after.server - before.server), DatabaseCPU: per(after.database - before.database), ClientCPU: per(after.client - before.client),
		WAL:        float64(after.wal-before.wal) / float64(max(1, result.Total)),
		SetCookies: float64(visits.SetCookies) / float64(max(1, result.Total)),
	}, err
}

// heapOnly finds out which share of the row updates changes no index. PostgreSQL's
// backends report their counts once a second at most, when they are used: so the
// load is repeated until what was counted before it and during it is told apart.
func (b *bench) heapOnly(ctx context.Context) error {
	for _, route := range []string{rig.Read, rig.Write} {
		if !slices.Contains(b.routes, route) {
			continue
		}
		rig.Log("counting heap-only updates of %s", route)
		var before, after []rig.Updates
		var total []int
		for pass := range 3 {
			before = after
			var err error
			if after, total, err = b.updates(ctx, route); err != nil {
				return err
			}
			if pass == 2 {
				break
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(1100 * time.Millisecond):
			}
		}
		for i, r := range b.running {
			u := after[i].Sub(before[i])
			// Fewer are leftovers, or a touch now and then.
			if share, ok := u.Share(); ok && u.All > int64(total[i]/10) {
				b.report.HeapOnly = append(b.report.HeapOnly, HeapOnly{Variant: r.Variant.Name, Route: route, Share: share})
			}
		}
	}
	return nil
}

// updates drives a load on each server in turn and returns the counts after it, and
// how many requests there were.
func (b *bench) updates(ctx context.Context, route string) (counts []rig.Updates, total []int, err error) {
	counts, total = make([]rig.Updates, len(b.running)), make([]int, len(b.running))
	for i, r := range b.running {
		if r.db == nil || !r.Variant.Has(route) {
			continue
		}
		result, _, err := b.load(ctx, r, route, slices.Max(b.conns), min(b.duration/2, time.Second))
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", r.Variant.Name, err)
		}
		total[i] = result.Total
		if counts[i], err = rig.ReadUpdates(ctx, r.db); err != nil {
			return nil, nil, err
		}
	}
	return counts, total, nil
}

// steadyRun reads without a pause for longer than a touch interval, so that every
// user's expiry is moved as often as it would be in a day of such load.
func (b *bench) steadyRun(ctx context.Context) error {
	if b.steady <= 0 {
		return nil
	}
	for _, r := range b.running {
		if r.Variant.Name != rig.Session {
			continue
		}
		rig.Log("reading for %v without a pause", b.steady)
		m, err := b.measure(ctx, r, rig.Read, b.reference(), b.steady)
		if err != nil {
			return err
		}
		b.report.Steady = &Steady{Seconds: b.steady.Seconds(), Conns: b.reference(), Round: m}
	}
	return nil
}

// reference returns the number of connections that the main tables are about.
func (o *options) reference() int {
	if slices.Contains(o.conns, 32) {
		return 32
	}
	return slices.Max(o.conns)
}
