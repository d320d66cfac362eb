package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/pgsession/session/bench/internal/rig"
)

// one, two and adaptive are the variants.
const (
	one      = "one"
	two      = "two"
	adaptive = "adaptive"
)

var variants = []rig.Variant{
	{Name: one, Label: "one slot", Env: []string{"BENCH_SLOTS=1"}},
	{Name: two, Label: "two slots", Env: []string{"BENCH_SLOTS=2"}},
	{Name: adaptive, Label: "adaptive"},
}

func names() (all []string) {
	for _, v := range variants {
		all = append(all, v.Name)
	}
	return all
}

// Report is everything that was measured; slots.json holds it.
type Report struct {
	rig.Occasion
	Seconds float64 `json:"seconds"`
	Rounds  int     `json:"rounds"`
	Pool    int     `json:"pool"`
	Cells   []*Cell `json:"cells"`
}

// Cell is what one variant came to.
type Cell struct {
	Ground  string  `json:"on"`
	Route   string  `json:"route"`
	Conns   int     `json:"connections"`
	Variant string  `json:"variant"`
	Rounds  []Round `json:"rounds"`
}

// Round is one measurement; latencies in milliseconds, CPU time of a request in
// microseconds.
type Round struct {
	PerSecond   float64 `json:"perSecond"`
	P50         float64 `json:"p50"`
	P99         float64 `json:"p99"`
	ServerCPU   float64 `json:"serverCPU"`
	DatabaseCPU float64 `json:"databaseCPU"`
}

// running is a server with its users.
type running struct {
	*rig.Server
	users *rig.Users
}

// visits is a Script: those of the rig's, and the routes that it does not know.
type visits struct {
	*rig.Visits
	known bool
}

// Done implements [rig.Script].
func (v visits) Done(conn, tag int, a rig.Answer) error {
	if v.known {
		return v.Visits.Done(conn, tag, a)
	}
	if a.Status != http.StatusOK || string(a.Body) != "ok" {
		return fmt.Errorf("got %d %q, want 200 \"ok\"", a.Status, a.Body)
	}
	return nil
}

func measure(ctx context.Context, module string, o options) (*Report, error) {
	r := &Report{Occasion: rig.Now(""), Seconds: o.duration.Seconds(), Rounds: o.rounds, Pool: o.pool}
	for _, g := range o.grounds {
		rig.Log("%s", g)
		if err := r.ground(ctx, module, o, g); err != nil {
			return nil, fmt.Errorf("%s: %w", g.Name, err)
		}
	}
	return r, nil
}

// ground measures everything on one ground.
func (r *Report) ground(ctx context.Context, module string, o options, g rig.Ground) error {
	stage, err := rig.NewStage(ctx, rig.Setup{Module: module, Pool: o.pool, Ground: g, Packages: []string{"./server"}})
	if err != nil {
		return err
	}
	defer stage.Close()
	r.Postgres = stage.Postgres.Version
	var all []*running
	for _, v := range variants {
		if !slices.Contains(o.variants, v.Name) {
			continue
		}
		v.Store, v.Program, v.Ours = rig.InPostgres, "server", true
		server, err := stage.Enter(ctx, &v)
		if err != nil {
			return err
		}
		s := &running{Server: server}
		if s.users, err = rig.LoginUsers(server, "user", o.users); err != nil {
			return err
		}
		all = append(all, s)
	}
	for _, route := range o.routes {
		for _, conns := range o.conns {
			if err := r.compare(ctx, stage, o, g, route, conns, all); err != nil {
				return fmt.Errorf("%s with %d connections: %w", route, conns, err)
			}
		}
	}
	return nil
}

// compare measures the variants in turn, beginning with another each round.
func (r *Report) compare(ctx context.Context, stage *rig.Stage, o options, g rig.Ground, route string, conns int, all []*running) error {
	cells := make([]*Cell, len(all))
	for i, s := range all {
		cells[i] = &Cell{Ground: g.Name, Route: route, Conns: conns, Variant: s.Variant.Name}
		if err := s.warmUp(ctx, o, route, conns); err != nil {
			return err
		}
	}
	for n := range o.rounds {
		for i := range all {
			i = (i + n) % len(all)
			round, err := all[i].measure(ctx, stage, o, route, conns)
			if err != nil {
				return err
			}
			cells[i].Rounds = append(cells[i].Rounds, round)
		}
	}
	r.Cells = append(r.Cells, cells...)
	return nil
}

func (s *running) load(ctx context.Context, l rig.Load, route string) (*rig.Result, error) {
	l.Addrs = []string{s.Addr}
	l.Script = visits{rig.NewVisits(s.Variant, route, s.users, l.Conns, 0), slices.Contains(rig.Routes, route)}
	return l.Run(ctx)
}

func (s *running) warmUp(ctx context.Context, o options, route string, conns int) error {
	_, err := s.load(ctx, rig.Load{Conns: conns, Duration: o.duration / 5}, route)
	return err
}

func (s *running) measure(ctx context.Context, stage *rig.Stage, o options, route string, conns int) (m Round, err error) {
	before, err := stage.Usage(ctx, s.Server)
	if err != nil {
		return m, err
	}
	result, err := s.load(ctx, rig.Load{Conns: conns, Duration: o.duration}, route)
	if err != nil {
		return m, err
	}
	after, err := stage.Usage(ctx, s.Server)
	used, requests := after.Sub(before), float64(max(1, result.Total))
	return Round{
		PerSecond: result.PerSecond(),
		P50:       rig.Milliseconds(result.Latency.Quantile(0.5)), P99: rig.Milliseconds(result.Latency.Quantile(0.99)),
		ServerCPU: rig.Microseconds(used.Server) / requests, DatabaseCPU: rig.Microseconds(used.Store) / requests,
	}, err
}

// table has a row for each load: the figures of two slots, and how those of the others
// compare with them.
func (r *Report) table() string {
	t := rig.Table{Head: []string{"on", "route", "connections", "two slots: requests/s", "p50 ms", "CPU µs"}}
	for _, v := range variants {
		if v.Name != two {
			t.Head = append(t.Head, v.Label+": requests/s ×", "p50 ×", "CPU ×")
		}
	}
	for _, c := range r.Cells {
		if c.Variant != two {
			continue
		}
		row := []string{c.Ground, c.Route, rig.Int(float64(c.Conns)), rig.Int(rig.MedianOf(c.Rounds, perSecond)), rig.Fixed(rig.MedianOf(c.Rounds, p50), 2), rig.Int(mean(c.Rounds))}
		for _, v := range variants {
			if v.Name != two {
				row = append(row, r.compared(c, v.Name)...)
			}
		}
		t.Add(row...)
	}
	return t.String()
}

func perSecond(m Round) float64 { return m.PerSecond }
func p50(m Round) float64       { return m.P50 }

// mean is the CPU time of a request in all rounds: one round is short for what the
// system counts in hundredths of a second.
func mean(all []Round) float64 {
	sum, requests := 0.0, 0.0
	for _, m := range all {
		sum += (m.ServerCPU + m.DatabaseCPU) * m.PerSecond
		requests += m.PerSecond
	}
	return sum / requests
}

// compared returns how a variant does beside another, round by round.
func (r *Report) compared(with *Cell, variant string) []string {
	i := slices.IndexFunc(r.Cells, func(c *Cell) bool {
		return c.Variant == variant && c.Ground == with.Ground && c.Route == with.Route && c.Conns == with.Conns
	})
	if i < 0 {
		return []string{"–", "–", "–"}
	}
	ratio := func(figure func(Round) float64) string {
		var all []float64
		for n, m := range r.Cells[i].Rounds {
			all = append(all, figure(m)/figure(with.Rounds[n]))
		}
		return rig.Fixed(rig.Median(all), 2)
	}
	return []string{ratio(perSecond), ratio(p50), rig.Fixed(mean(r.Cells[i].Rounds)/mean(with.Rounds), 2)}
}

func (r *Report) part() string {
	return fmt.Sprintf("%d rounds of %g s each, ratios are medians of those within a round; one core for the server, %d database connections; PostgreSQL %s, %s. CPU is that of server and database together, for one request.\n\n",
		r.Rounds, r.Seconds, r.Pool, r.Postgres, r.Date()) + r.table()
}

// Output implements [rig.Reporter].
func (r *Report) Output() rig.Output {
	return rig.Output{
		Name: "slots", Title: "Statements of one kind under way", Text: r.part(),
		Parts: map[string]string{"slots": r.part()},
	}
}
