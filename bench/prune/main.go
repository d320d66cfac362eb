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
		rows: 8000, expired: 2400, active: 500, workers: 4, rate: 400, slice: time.Second, rounds: 1,
		methods: []string{byLibrary, byDelete, byBatches},
	}
)

func main() {
	rig.Program{Name: "prune", Files: "report and chart", Tables: "tables are"}.Main(command)
}

func command(ctx context.Context, c *rig.Command) error {
	o := rig.Choose(c, full, short)
	c.CountVar(&o.rows, "rows", "rows in the table")
	c.CountVar(&o.expired, "expired", "rows of these that have expired")
	c.CountVar(&o.rate, "rate", "reads and touches a second, half of each")
	c.CountVar(&o.workers, "workers", "how many of them may be under way at once")
	c.TimeVar(&o.slice, "slice", "how long to measure without pruning, and then at most with it, in turn")
	c.CountVar(&o.rounds, "rounds", "how often each way to prune has a table to itself")
	if err := c.Parse(); err != nil {
		return err
	}
	return c.Save(measure(ctx, o))
}
