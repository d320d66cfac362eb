// Command run puts this library beside its peers: one server process each, the same
// routes, the same data, the same load, one after the other in interleaved rounds.
// From the directory bench:
//
//	go run ./run          the whole benchmark, with report, charts and documentation
//	go run ./run -goals   what the goals need, where commits take their time and where they cost nothing
//	go run ./run -all     both, and then growth, locked and prune
//	go run ./run -short   a minute, to see that it works; its figures mean nothing
//
// Whatever measures less than the whole prints its tables and leaves documentation
// and results alone.
//
// It starts a PostgreSQL and Redis of its own, and installs what is missing of them,
// of Node and of wrk from Debian packages.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/pgsession/session/bench/internal/rig"
)

// options say what is measured.
type options struct {
	conns    []int
	rounds   int
	duration time.Duration // of a measurement
	steady   time.Duration // of the run over a whole touch interval; 0: none
	users    int
	pool     int
	routes   []string
	variants []string
	wrk      []string // variants that wrk measures as well
	ground   rig.Ground
	wanted   func(route, variant string, conns int) bool // nil: everything
}

var (
	full = options{
		conns: []int{1, 8, 32, 128}, rounds: 5, duration: 2 * time.Second, steady: 65 * time.Second,
		users: 2000, pool: 16, routes: rig.Routes, variants: rig.VariantNames(), wrk: rig.VariantNames(),
	}
	short = options{
		conns: []int{1, 32}, rounds: 1, duration: 40 * time.Millisecond, steady: 200 * time.Millisecond,
		users: 64, pool: 16, routes: rig.Routes, variants: rig.VariantNames(), wrk: []string{rig.Session, rig.SelectUpdate},
	}
)

func main() {
	rig.Program{Name: "run", Files: "report, figures and charts", Tables: "tables are"}.Main(command)
}

// plan is what a command line asks for.
type plan struct {
	options
	goals   bool
	all     bool
	from    string       // file of figures; empty: measure
	grounds []rig.Ground // with goals; without, there is the options' own
}

func command(ctx context.Context, c *rig.Command) error {
	p, err := parse(c)
	switch {
	case err != nil:
		return err
	case p.from != "" && p.goals:
		return again(c, p.from, new(Goals))
	case p.from != "":
		return again(c, p.from, new(Report))
	case p.goals:
		return c.Save(measureGoals(ctx, c.Module, p.options, p.grounds))
	}
	if err := c.Save(benchmark(ctx, c.Module, p.options)); err != nil || !p.all {
		return err
	}
	return others(ctx, c)
}

// parse reads and checks the command line. What measures less than the documentation
// shows stays apart from it.
func parse(c *rig.Command) (p plan, err error) {
	p.options = rig.Choose(c, full, short)
	p.grounds = []rig.Ground{{Name: rig.OnDisk}}
	c.BoolVar(&p.goals, "goals", false, "measure only what the goals need, on several grounds: without -on these are "+goalGrounds)
	c.BoolVar(&p.all, "all", false, "run -goals, growth, locked and prune as well")
	c.StringVar(&p.from, "from", "", "measure nothing: write report, charts and documentation from the figures in this file, a run.json (with -goals a goals.json)")
	c.IntsVar(&p.conns, "conns", "numbers of connections")
	c.CountVar(&p.rounds, "rounds", "how often each measurement is made")
	c.TimeVar(&p.duration, "duration", "how long a measurement takes")
	c.DurationVar(&p.steady, "steady", p.steady, "how long the run over a whole touch interval takes; 0 for none")
	c.CountVar(&p.users, "users", "logged-in users of each server")
	c.CountVar(&p.pool, "pool", "connections of each server to its store")
	c.NamesVar(&p.routes, "routes", "routes to measure", rig.Routes)
	c.NamesVar(&p.variants, "variants", "servers to measure", rig.VariantNames())
	c.NamesVar(&p.wrk, "wrk", "servers that wrk measures as well, or \"off\"", append(rig.VariantNames(), wrkOff))
	c.GroundsVar(&p.grounds, "on")
	if err := c.Parse(); err != nil {
		return p, err
	}
	if slices.Contains(p.wrk, wrkOff) && len(p.wrk) > 1 {
		return p, fmt.Errorf("-wrk: %q stands alone", wrkOff)
	}
	var whole bool
	if p.goals {
		whole = !c.Given("on") && !c.Given("routes") && !c.Given("variants") && !c.Given("wrk")
		err = p.forGoals(c)
	} else {
		p.ground = p.grounds[0]
		whole = p.whole()
		err = p.check(len(p.grounds))
	}
	if err == nil && !whole && p.from == "" {
		err = c.Aside()
	}
	return p, err
}

// check refuses what cannot be measured.
func (o *options) check(grounds int) error {
	if grounds > 1 {
		return errors.New("-on: several grounds at once are for -goals")
	}
	if most := slices.Max(o.conns); o.users < most {
		return fmt.Errorf("-users: %d are too few for %d connections: each connection has users of its own", o.users, most)
	}
	return nil
}

// forGoals makes a plan one for the goals.
func (p *plan) forGoals(c *rig.Command) (err error) {
	if c.Given("conns") {
		return errors.New("-conns: with -goals the goals say how many")
	}
	if !c.Given("on") {
		p.grounds, err = rig.SplitGrounds(goalGrounds)
	}
	p.options = p.options.forGoals()
	return err
}

// wrkOff is no server's name.
const wrkOff = "off"

// whole reports whether this measures everything that the documentation shows.
func (o *options) whole() bool {
	has := func(n int) bool { return slices.Contains(o.conns, n) }
	all := len(rig.Variants)
	return o.ground.Name == rig.OnDisk && has(1) && has(32) && has(128) && o.steady > 0 &&
		len(o.routes) == len(rig.Routes) && len(o.variants) == all && len(o.wrk) == all
}

// again writes everything from figures that were measured before.
func again[R rig.Reporter](c *rig.Command, file string, r R) error {
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, r)
	}
	return c.Save(r, err)
}

// others runs the other programs, for the same report.
func others(ctx context.Context, c *rig.Command) error {
	for _, program := range [][]string{{"./run", "-goals"}, {"./growth"}, {"./locked"}, {"./prune"}} {
		rig.Log("== %s", strings.Join(program, " "))
		args := append([]string{"run"}, program...)
		args = append(args, "-out", c.Out, "-docs", cmp.Or(c.Docs, "none"))
		if c.Short {
			args = append(args, "-short")
		}
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir, cmd.Stdout, cmd.Stderr = c.Module, os.Stdout, os.Stderr
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", program[0], err)
		}
	}
	return nil
}
