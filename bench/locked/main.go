// Command locked measures what one locked row does to everybody else: another
// program's transaction holds the row of one session for seconds, 32 savers work,
// twelve of them on that session. It reports how late the others are, and how much
// of their throughput is left. From the directory bench:
//
//	go run ./locked          writes the report
//	go run ./locked -short   seconds, to see that it works
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
	conns    int // savers
	blocked  int // of these, on the locked session
	users    int // of the others
	pool     int
	rounds   int
	duration time.Duration // of the lock, and of the run without
	variants []string
}

var (
	servers = []string{rig.Session, rig.SessionAlone, rig.SelectUpdate}
	full    = options{conns: 32, blocked: 12, users: 2000, pool: 16, rounds: 3, duration: 3 * time.Second, variants: servers}
	short   = options{conns: 8, blocked: 3, users: 50, pool: 8, rounds: 1, duration: 300 * time.Millisecond, variants: servers}
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
	f := flag.NewFlagSet("locked", flag.ExitOnError)
	f.Bool("short", false, "the shortest measurements: shows that everything works, judges nothing")
	f.IntVar(&o.rounds, "rounds", o.rounds, "how often each measurement is made")
	f.DurationVar(&o.duration, "duration", o.duration, "how long the row is locked; less than the store timeout of 5 s")
	f.IntVar(&o.pool, "pool", o.pool, "connections of each server to its database")
	out := f.String("out", "", "directory of the report (default bench/results; a temporary one with -short)")
	docs := f.String("docs", "", "document whose tables are replaced (default docs/performance.md; none with -short); \"none\" for none")
	_ = f.Parse(args) // which exits
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
