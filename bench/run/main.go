// Command run puts this library beside its peers: one server process each, the same
// routes, the same data, the same load, one after the other in interleaved rounds.
// From the directory bench:
//
//	go run ./run          the whole benchmark, with report, charts and documentation
//	go run ./run -all     and then growth, locked and prune
//	go run ./run -short   a minute, to see that it works; its figures mean nothing
//
// It starts a PostgreSQL and a Redis of its own, and installs what is missing of
// them and of Node from Debian packages.
package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/pgsession/session/bench/internal/rig"
)

// options say what is measured.
type options struct {
	conns    []int
	rounds   int
	duration time.Duration // of a measurement
	steady   time.Duration // of the run over a whole touch interval
	users    int
	pool     int
	routes   []string
	variants []string
	volatile bool // PostgreSQL without fsync
}

var (
	full = options{
		conns: []int{1, 8, 32, 128}, rounds: 5, duration: 2 * time.Second, steady: 65 * time.Second,
		users: 2000, pool: 16, routes: rig.Routes,
	}
	short = options{
		conns: []int{1, 32}, rounds: 1, duration: 40 * time.Millisecond, steady: 200 * time.Millisecond,
		users: 64, pool: 16, routes: rig.Routes,
	}
)

func main() {
	rig.Program{Name: "run", Files: "report, figures and charts", Tables: "tables are"}.Main(command)
}

func command(ctx context.Context, c *rig.Command) error {
	o := rig.Choose(c, full, short)
	all := c.Bool("all", false, "run growth, locked and prune as well")
	c.IntsVar(&o.conns, "conns", "numbers of connections")
	c.IntVar(&o.rounds, "rounds", o.rounds, "how often each measurement is made")
	c.DurationVar(&o.duration, "duration", o.duration, "how long a measurement takes")
	c.DurationVar(&o.steady, "steady", o.steady, "how long the run over a whole touch interval takes")
	c.IntVar(&o.users, "users", o.users, "logged-in users of each server")
	c.IntVar(&o.pool, "pool", o.pool, "connections of each server to its database")
	c.BoolVar(&o.volatile, "volatile", false, "run PostgreSQL without fsync, to see what the disk's part is")
	routes := c.String("routes", strings.Join(o.routes, ","), "routes to measure")
	variants := c.String("variants", "", "servers to measure, separated by commas (default all)")
	if err := c.Parse(); err != nil {
		return err
	}
	o.routes = strings.Split(*routes, ",")
	if *variants != "" {
		o.variants = strings.Split(*variants, ",")
	}
	if err := c.Save(benchmark(ctx, c.Module, o)); err != nil || !*all {
		return err
	}
	return others(ctx, c)
}

// others runs the other programs, for the same report.
func others(ctx context.Context, c *rig.Command) error {
	for _, name := range []string{"growth", "locked", "prune"} {
		rig.Log("== %s", name)
		args := []string{"run", "./" + name, "-out", c.Out, "-docs", cmp.Or(c.Docs, "none")}
		if c.Short {
			args = append(args, "-short")
		}
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir, cmd.Stdout, cmd.Stderr = c.Module, os.Stdout, os.Stderr
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
