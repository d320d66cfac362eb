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
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	module, err := rig.ModuleDir(ctx)
	if err != nil {
		return err
	}
	o := full
	if rig.IsShort(args) {
		o = short
	}
	f := flag.NewFlagSet("run", flag.ExitOnError)
	f.Bool("short", false, "the shortest measurements: shows that everything works, judges nothing")
	all := f.Bool("all", false, "run growth, locked and prune as well")
	conns := f.String("conns", rig.JoinInts(o.conns), "numbers of connections")
	f.IntVar(&o.rounds, "rounds", o.rounds, "how often each measurement is made")
	f.DurationVar(&o.duration, "duration", o.duration, "how long a measurement takes")
	f.DurationVar(&o.steady, "steady", o.steady, "how long the run over a whole touch interval takes")
	f.IntVar(&o.users, "users", o.users, "logged-in users of each server")
	f.IntVar(&o.pool, "pool", o.pool, "connections of each server to its database")
	f.BoolVar(&o.volatile, "volatile", false, "run PostgreSQL without fsync, to see what the disk's part is")
	routes := f.String("routes", strings.Join(o.routes, ","), "routes to measure")
	variants := f.String("variants", "", "servers to measure, separated by commas (default all)")
	out := f.String("out", "", "directory of report, figures and charts (default bench/results; a temporary one with -short)")
	docs := f.String("docs", "", "document whose tables are replaced (default docs/performance.md; none with -short); \"none\" for none")
	_ = f.Parse(args) // which exits
	if o.conns, err = rig.SplitInts(*conns); err != nil {
		return fmt.Errorf("-conns: %w", err)
	}
	o.routes = strings.Split(*routes, ",")
	if *variants != "" {
		o.variants = strings.Split(*variants, ",")
	}
	where, err := rig.Places(module, *out, *docs, rig.IsShort(args))
	if err != nil {
		return err
	}
	report, err := benchmark(ctx, module, o)
	if err != nil {
		return err
	}
	if err := report.write(where); err != nil {
		return err
	}
	if !*all {
		return nil
	}
	return others(ctx, module, where, rig.IsShort(args))
}

// others runs the other programs, for the same report.
func others(ctx context.Context, module string, where rig.Place, short bool) error {
	for _, name := range []string{"growth", "locked", "prune"} {
		rig.Log("== %s", name)
		docs := where.Docs
		if docs == "" {
			docs = "none"
		}
		args := []string{"run", "./" + name, "-out", where.Out, "-docs", docs}
		if short {
			args = append(args, "-short")
		}
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir, cmd.Stdout, cmd.Stderr = module, os.Stdout, os.Stderr
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// chartPath returns where a chart goes.
func chartPath(where rig.Place, name string) string { return filepath.Join(where.Out, name+".svg") }
