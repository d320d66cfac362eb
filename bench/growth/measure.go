package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/pgsession/session/bench/internal/rig"
)

// Report is everything that was measured; growth.json holds it.
type Report struct {
	rig.Occasion
	Buffers   string  `json:"sharedBuffers"`
	Active    int     `json:"active"`
	Conns     int     `json:"connectionsEach"`
	Pool      int     `json:"pool"`
	Crowd     int     `json:"sessionsWhileProcessesAreCompared"`
	Sizes     []Size  `json:"sizes"`
	Cells     []*Cell `json:"cells"`
	Processes []*Cell `json:"processes"`
}

// Size is a table of so many sessions.
type Size struct {
	Sessions   int   `json:"sessions"`
	TableBytes int64 `json:"tableBytes"`
	IndexBytes int64 `json:"indexBytes"`
}

// Cell is one server, one route, one number of sessions or processes.
type Cell struct {
	Variant     string    `json:"variant"`
	Route       string    `json:"route"`
	Sessions    int       `json:"sessions"`
	Processes   int       `json:"processes"`
	PerSecond   []float64 `json:"perSecond"`   // of each round
	P99         []float64 `json:"p99"`         // microseconds
	CPU         []float64 `json:"cpu"`         // of servers and PostgreSQL, microseconds a request
	DatabaseCPU []float64 `json:"databaseCPU"` // of these, PostgreSQL's
}

const database = "bench_growth"

var (
	variants = []string{rig.Session, rig.Select}
	routes   = []string{rig.Read, rig.Write}
)

// growth is a run under way.
type growth struct {
	options
	*rig.Stage
	fill    *filler
	servers map[string][]*rig.Server // by variant
	report  *Report
}

func measure(ctx context.Context, module string, o options) (*Report, error) {
	stage, err := rig.NewStage(ctx, rig.Setup{Module: module, Pool: o.pool, Packages: []string{"./server", "./peers/select"}})
	if err != nil {
		return nil, err
	}
	defer stage.Close()
	g := &growth{options: o, Stage: stage, servers: make(map[string][]*rig.Server)}
	g.report = &Report{
		Occasion: rig.Now(stage.Postgres.Version), Buffers: stage.Postgres.Settings["shared_buffers"],
		Active: o.active, Conns: o.conns, Pool: o.pool,
	}
	if err := g.start(ctx); err != nil {
		return nil, err
	}
	compared := false
	for i, n := range o.sizes {
		if err := g.size(ctx, n); err != nil {
			return nil, err
		}
		if next := i + 1; !compared && (next == len(o.sizes) || o.sizes[next] > o.crowd) {
			compared = true
			if err := g.compareProcesses(ctx); err != nil {
				return nil, err
			}
		}
	}
	return g.report, nil
}

func (g *growth) start(ctx context.Context) error {
	if err := g.Postgres.Create(ctx, database, ""); err != nil {
		return err
	}
	for _, name := range variants {
		if err := g.add(ctx, name); err != nil {
			return err
		}
	}
	db, err := g.Connect(ctx, database)
	if err != nil {
		return err
	}
	g.fill, err = newFiller(db, g.Secret)
	return err
}

// add starts one more process of a variant.
func (g *growth) add(ctx context.Context, name string) error {
	s, err := g.Start(ctx, rig.FindVariant(name), g.Postgres.URL(database))
	if err != nil {
		return err
	}
	g.OnClose(s.Stop)
	g.servers[name] = append(g.servers[name], s)
	return nil
}

// size grows the table to n sessions and measures.
func (g *growth) size(ctx context.Context, n int) error {
	rig.Log("growing to %d sessions", n)
	if err := g.fill.fill(ctx, n); err != nil {
		return err
	}
	s := Size{Sessions: n}
	err := g.fill.db.QueryRow(ctx, `SELECT pg_table_size('schema_system.session'), pg_indexes_size('schema_system.session')`).Scan(&s.TableBytes, &s.IndexBytes)
	if err != nil {
		return err
	}
	g.report.Sizes = append(g.report.Sizes, s)
	return g.compare(ctx, n, 1, func(c *Cell) { g.report.Cells = append(g.report.Cells, c) })
}

func (g *growth) compareProcesses(ctx context.Context) error {
	g.report.Crowd = g.fill.rows
	for _, n := range g.processes {
		rig.Log("measuring with %d processes", n)
		for _, name := range variants {
			for len(g.servers[name]) < n {
				if err := g.add(ctx, name); err != nil {
					return err
				}
			}
		}
		if err := g.compare(ctx, g.fill.rows, n, func(c *Cell) { g.report.Processes = append(g.report.Processes, c) }); err != nil {
			return err
		}
	}
	return nil
}

// compare measures every variant and route in interleaved rounds.
func (g *growth) compare(ctx context.Context, sessions, processes int, keep func(*Cell)) error {
	visitors := g.fill.active(g.active)
	if len(visitors) < g.conns*processes {
		return fmt.Errorf("%d active sessions are too few for %d connections", len(visitors), g.conns*processes)
	}
	cells := make(map[string]*Cell)
	for _, route := range routes {
		for _, name := range variants {
			c := &Cell{Variant: name, Route: route, Sessions: sessions, Processes: processes}
			cells[name+route] = c
			keep(c)
		}
	}
	for round := range g.rounds {
		for _, route := range routes {
			for i := range variants {
				name := variants[(i+round)%len(variants)]
				if err := g.cell(ctx, cells[name+route], visitors); err != nil {
					return fmt.Errorf("%s%s, %d sessions, %d processes: %w", name, route, sessions, processes, err)
				}
			}
		}
	}
	return nil
}

// cell makes one measurement, after everybody has been visited once.
func (g *growth) cell(ctx context.Context, c *Cell, visitors []*visitor) error {
	v := rig.FindVariant(c.Variant)
	var addrs []string
	for _, s := range g.servers[c.Variant][:c.Processes] {
		addrs = append(addrs, s.Addr)
	}
	conns := g.conns * c.Processes
	u := users(visitors, v)
	load := rig.Load{Addrs: addrs, Conns: conns, Script: rig.NewVisits(v, c.Route, u, conns, (len(visitors)+conns-1)/conns)}
	if _, err := load.Run(ctx); err != nil {
		return err
	}
	servers := g.servers[c.Variant][:c.Processes]
	before, err := g.Usage(ctx, servers...)
	if err != nil {
		return err
	}
	load.Duration, load.Script = g.duration, rig.NewVisits(v, c.Route, u, conns, 0)
	result, err := load.Run(ctx)
	if err != nil {
		return err
	}
	counted(visitors, u)
	after, err := g.Usage(ctx, servers...)
	used, requests := after.Sub(before), float64(max(1, result.Total))
	c.PerSecond = append(c.PerSecond, result.PerSecond())
	c.P99 = append(c.P99, rig.Microseconds(result.Latency.Quantile(0.99)))
	c.CPU = append(c.CPU, rig.Microseconds(used.CPU())/requests)
	c.DatabaseCPU = append(c.DatabaseCPU, rig.Microseconds(used.Store)/requests)
	return err
}

// find returns a cell, nil if there is none.
func find(cells []*Cell, variant, route string, match func(*Cell) bool) *Cell {
	i := slices.IndexFunc(cells, func(c *Cell) bool { return c.Variant == variant && c.Route == route && match(c) })
	if i < 0 {
		return nil
	}
	return cells[i]
}
