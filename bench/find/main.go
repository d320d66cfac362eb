// Command find measures what it costs to find and end a user's sessions in a
// table of a million, with an index on the key and without, and what that index
// costs everybody else. From the directory bench:
//
//	go run ./find          writes the report
//	go run ./find -short   seconds, to see that it works
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/pgsession/session/bench/internal/rig"
)

// options say what is measured.
type options struct {
	rows    int
	perUser int // sessions of a user
	scans   int // lists without the index
	lookups int // lists, and revocations, with it
	saves   int
}

var (
	full  = options{rows: 1_000_000, perUser: 5, scans: 3, lookups: 500, saves: 4000}
	short = options{rows: 5000, perUser: 5, scans: 2, lookups: 20, saves: 100}
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
	f := flag.NewFlagSet("find", flag.ExitOnError)
	f.Bool("short", false, "the shortest measurements: shows that everything works, judges nothing")
	f.IntVar(&o.rows, "rows", o.rows, "rows in the table")
	out := f.String("out", "", "directory of the report (default bench/results; a temporary one with -short)")
	docs := f.String("docs", "", "document whose table is replaced (default docs/performance.md; none with -short); \"none\" for none")
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
