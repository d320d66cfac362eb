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
	rig.Program{Name: "growth", Files: "report, figures and charts", Tables: "tables are"}.Main(command)
}

func command(ctx context.Context, c *rig.Command) error {
	o := rig.Choose(c, full, short)
	c.IntsVar(&o.sizes, "sizes", "numbers of live sessions, growing")
	c.IntsVar(&o.processes, "processes", "numbers of application processes")
	c.CountVar(&o.active, "active", "sessions that are visited")
	c.CountVar(&o.conns, "conns", "connections to each process")
	c.CountVar(&o.rounds, "rounds", "how often each measurement is made")
	c.TimeVar(&o.duration, "duration", "how long a measurement takes")
	if err := c.Parse(); err != nil {
		return err
	}
	return c.Save(measure(ctx, c.Module, o))
}
