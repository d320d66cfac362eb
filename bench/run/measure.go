package main

import (
	"context"
	"fmt"
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
	wrk   *rig.Users // wrk's own, for nobody checks how far it has counted; nil: not measured by it
	db    *pgx.Conn  // to the variant's database; nil without one
}

// benchmark measures everything and returns the report.
func benchmark(ctx context.Context, module string, o options) (*Report, error) {
	b := &bench{options: o, cells: make(map[cellKey]*Cell)}
	b.report = &Report{
		Occasion: rig.Now(""), // PostgreSQL is to come
		Ground:   o.ground.Name,
		Users:    o.users, Pool: o.pool, Rounds: o.rounds, Seconds: o.duration.Seconds(),
	}
	if b.measuresByWrk() {
		if err := rig.Install(ctx, rig.PackageWrk); err != nil {
			return nil, fmt.Errorf("%w (or leave it out: -wrk %s)", err, wrkOff)
		}
	}
	var err error
	if b.Stage, err = rig.NewStage(ctx, rig.Setup{Module: module, Pool: o.pool, Ground: o.ground, Packages: []string{"./server", "./peers/..."}}); err != nil {
		return nil, err
	}
	defer b.Close()
	for _, step := range []func(context.Context) error{b.start, b.countStatements, b.allRounds, b.steadyRun} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return b.report, nil
}

// measuresByWrk reports whether any server is measured by wrk as well.
func (o *options) measuresByWrk() bool {
	return slices.ContainsFunc(o.variants, func(v string) bool { return slices.Contains(o.wrk, v) })
}

// start starts the servers and logs the users in.
func (b *bench) start(ctx context.Context) error {
	for i := range rig.Variants {
		v := &rig.Variants[i]
		if !slices.Contains(b.variants, v.Name) {
			continue
		}
		r, err := b.enter(ctx, v)
		if err != nil {
			return err
		}
		b.running = append(b.running, r)
		b.report.Variants = append(b.report.Variants, v.Name)
	}
	return b.describe(ctx)
}

func (b *bench) enter(ctx context.Context, v *rig.Variant) (*running, error) {
	rig.Log("starting %s and logging %d users in", v.Name, b.users)
	server, err := b.Enter(ctx, v)
	if err != nil {
		return nil, err
	}
	r := &running{Server: server}
	if r.users, err = rig.LoginUsers(server, "user", b.users); err != nil {
		return nil, err
	}
	if slices.Contains(b.wrk, v.Name) {
		if r.wrk, err = rig.LoginUsers(server, "wrk", b.users); err != nil {
			return nil, err
		}
	}
	if v.Store == rig.InPostgres {
		r.db, err = b.Connect(ctx, v.Database())
	}
	return r, err
}

// describe notes what is measured on what.
func (b *bench) describe(ctx context.Context) error {
	way, err := b.RoundTrip(ctx)
	if err != nil {
		return err
	}
	b.report.RoundTripMs = rig.Milliseconds(way)
	b.report.FileSystem = b.Postgres.FileSystem()
	b.report.Postgres, b.report.Settings, b.report.Redis = b.Postgres.Version, b.Postgres.Settings, b.RedisVersion()
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
		commit, err := b.Postgres.CommitTime(ctx)
		if err != nil {
			return err
		}
		b.report.CommitMs = append(b.report.CommitMs, rig.Milliseconds(commit))
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
				if !r.Variant.Has(route) || b.wanted != nil && !b.wanted(r.Variant.Name, route, conns) {
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

// settle visits every one of the users once: an expiry that was due to be moved since
// the last measurement is moved now. Over a whole touch interval see steadyRun.
func (b *bench) settle(ctx context.Context, r *running, users *rig.Users, route string, conns int) error {
	each := (b.users + conns - 1) / conns
	if route == rig.Public || route == rig.New {
		each = (min(b.users, 200) + conns - 1) / conns
	}
	_, err := rig.Load{
		Addrs: []string{r.Addr}, Conns: conns,
		Script: rig.NewVisits(r.Variant, route, users, conns, each),
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
		if err := b.settle(ctx, r, r.users, route, conns); err != nil || r.db == nil {
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
		if err := b.settle(ctx, r, r.users, route, conns); err != nil {
			return err
		}
		m, err := b.measure(ctx, r, route, conns, b.duration)
		if err != nil {
			return err
		}
		cell := b.cell(r, route, conns)
		cell.Rounds = append(cell.Rounds, m)
		if r.wrk == nil || conns != b.reference() {
			return nil
		}
		w, err := b.measureByWrk(ctx, r, route, n)
		cell.Wrk = append(cell.Wrk, w)
		return err
	})
}

// measureByWrk is a measurement with the same number of connections, by wrk.
func (b *bench) measureByWrk(ctx context.Context, r *running, route string, n int) (w WrkRound, err error) {
	load := rig.Wrk{
		Addr: r.Addr, Route: route, Cookies: r.wrk.Cookies, Conns: b.reference(),
		Seconds: max(1, int(b.duration.Round(time.Second)/time.Second)), Seed: n + 1,
	}
	switch route {
	case rig.New:
		load.Cookies = []string{""}
	case rig.Read, rig.Write: // to read suffices, and nobody knows wrk's counters
		if err := b.settle(ctx, r, r.wrk, rig.Read, load.Conns); err != nil {
			return w, err
		}
	}
	before, err := b.Usage(ctx, r.Server)
	if err != nil {
		return w, err
	}
	result, err := load.Run(ctx)
	if err != nil {
		return w, err
	}
	after, err := b.Usage(ctx, r.Server)
	return WrkRound{WrkResult: *result, CPU: rig.Microseconds(after.Sub(before).CPU()) / float64(result.Requests)}, err
}

func (b *bench) measure(ctx context.Context, r *running, route string, conns int, d time.Duration) (m Round, err error) {
	before, err := b.Usage(ctx, r.Server)
	if err != nil {
		return m, err
	}
	result, visits, err := b.load(ctx, r, route, conns, d)
	if err != nil {
		return m, err
	}
	after, err := b.Usage(ctx, r.Server)
	if err != nil {
		return m, err
	}
	used := after.Sub(before)
	updates, err := b.Postgres.Updates(ctx, before.WAL, after.WAL)
	requests := float64(max(1, result.Total))
	per := func(d time.Duration) float64 { return rig.Microseconds(d) / requests }
	m = Round{
		Requests: result.Total, PerSecond: result.PerSecond(),
		P50: rig.Microseconds(result.Latency.Quantile(0.5)), P99: rig.Microseconds(result.Latency.Quantile(0.99)), Max: rig.Microseconds(result.Latency.Max()),
		ServerCPU: per(used.Server), DatabaseCPU: per(used.Store), ClientCPU: per(used.Own),
		WAL: float64(used.WAL) / requests, Updates: updates.All, HeapOnly: updates.HeapOnly,
		SetCookies: float64(visits.SetCookies) / requests,
	}
	m.Others, m.Stolen = used.Foreign(b.report.Machine.Cores)
	return m, err
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
