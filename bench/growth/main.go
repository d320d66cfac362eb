// Command growth measures what becomes of this library's speed as the table grows,
// from 10,000 to 3,000,000 live sessions, and as more application processes work on
// one database, from one to four; beside it, one prepared SELECT (and an UPDATE) a
// request on the same rows. From the directory bench:
//
//	go run ./growth          writes report and charts
//	go run ./growth -short   seconds, to see that it works
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/pgsession/session/bench/internal/rig"
)

// options say what is measured.
type options struct {
	sizes     []int // live sessions
	processes []int
	active    int // sessions that are visited, spread over the table
	conns     int // a process
	pool      int
	rounds    int
	duration  time.Duration
	crowd     int // sessions in the table while processes are compared, at most
}

var (
	full = options{
		sizes: []int{10_000, 100_000, 1_000_000, 3_000_000}, processes: []int{1, 2, 3, 4}, crowd: 100_000,
		active: 20_000, conns: 32, pool: 16, rounds: 3, duration: 3 * time.Second,
	}
	short = options{
		sizes: []int{200, 1000}, processes: []int{1, 2}, crowd: 1000,
		active: 100, conns: 8, pool: 4, rounds: 1, duration: 60 * time.Millisecond,
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
	f := flag.NewFlagSet("growth", flag.ExitOnError)
	f.Bool("short", false, "the shortest measurements: shows that everything works, judges nothing")
	sizes := f.String("sizes", rig.JoinInts(o.sizes), "numbers of live sessions, growing")
	processes := f.String("processes", rig.JoinInts(o.processes), "numbers of application processes")
	f.IntVar(&o.active, "active", o.active, "sessions that are visited")
	f.IntVar(&o.conns, "conns", o.conns, "connections to each process")
	f.IntVar(&o.rounds, "rounds", o.rounds, "how often each measurement is made")
	f.DurationVar(&o.duration, "duration", o.duration, "how long a measurement takes")
	out := f.String("out", "", "directory of report, figures and charts (default bench/results; a temporary one with -short)")
	docs := f.String("docs", "", "document whose tables are replaced (default docs/performance.md; none with -short); \"none\" for none")
	_ = f.Parse(args) // which exits
	if o.sizes, err = rig.SplitInts(*sizes); err != nil {
		return fmt.Errorf("-sizes: %w", err)
	}
	if o.processes, err = rig.SplitInts(*processes); err != nil {
		return fmt.Errorf("-processes: %w", err)
	}
	where, err := rig.Places(module, *out, *docs, rig.IsShort(args))
	if err != nil {
		return err
	}
	report, err := measure(ctx, module, o)
	if err != nil {
		return err
	}
	return report.write(where)
}
