// Command prune measures what deleting expired rows does to everybody else: a
// million rows of which 300,000 have expired, reads and touches at a steady pace,
// with and without pruning. It compares this library's Prune with a plain DELETE
// and with batches of 1,000 without a pause. From the directory bench:
//
//	go run ./prune          writes report and chart
//	go run ./prune -short   seconds, to see that it works
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
	rows    int
	expired int // of these
	active  int // live sessions that are read and touched
	workers int
	rate    int           // reads and touches a second, together
	slice   time.Duration // without pruning, then at most as long with it, and again
	rounds  int           // databases to prune
	methods []string
}

var (
	full = options{
		rows: 1_000_000, expired: 300_000, active: 20_000, workers: 16, rate: 2000, slice: 5 * time.Second, rounds: 3,
		methods: []string{byLibrary, byDelete, byBatches},
	}
	short = options{
		rows: 8000, expired: 2400, active: 500, workers: 4, rate: 400, slice: 200 * time.Millisecond, rounds: 1,
		methods: []string{byLibrary, byDelete, byBatches},
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
	f := flag.NewFlagSet("prune", flag.ExitOnError)
	f.Bool("short", false, "the shortest measurements: shows that everything works, judges nothing")
	f.IntVar(&o.rows, "rows", o.rows, "rows in the table")
	f.IntVar(&o.expired, "expired", o.expired, "rows of these that have expired")
	f.IntVar(&o.rate, "rate", o.rate, "reads and touches a second, half of each")
	f.IntVar(&o.workers, "workers", o.workers, "how many of them may be under way at once")
	f.DurationVar(&o.slice, "slice", o.slice, "how long to measure without pruning, and then at most with it, in turn")
	f.IntVar(&o.rounds, "rounds", o.rounds, "how often each way to prune has a table to itself")
	out := f.String("out", "", "directory of report and chart (default bench/results; a temporary one with -short)")
	docs := f.String("docs", "", "document whose tables are replaced (default docs/performance.md; none with -short); \"none\" for none")
	_ = f.Parse(args) // which exits
	where, err := rig.Places(module, *out, *docs, rig.IsShort(args))
	if err != nil {
		return err
	}
	report, err := measure(ctx, o)
	if err != nil {
		return err
	}
	return report.write(where)
}
