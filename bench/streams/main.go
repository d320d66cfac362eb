// Command streams measures what open streams cost that watch their sessions
// (session.Session.Watch): statements, CPU of the program and of the database, memory,
// and how long after a logout a stream ends. From the directory bench:
//
//	go run ./streams          writes the report
//	go run ./streams -short   seconds, to see that it works
package main

import (
	"context"
	"time"

	"github.com/pgsession/session/bench/internal/rig"
)

// options say what is measured.
type options struct {
	streams []int // open at once, of a session each
	open    time.Duration
	logouts int // of which the delay is measured
}

var (
	full  = options{streams: []int{1, 100, 1000, 10_000}, open: 20 * time.Second, logouts: 20}
	short = options{streams: []int{1, 20}, open: 5 * time.Second, logouts: 1}
)

func main() {
	rig.Program{Name: "streams", Files: "the report", Tables: "table is"}.Main(command)
}

func command(ctx context.Context, c *rig.Command) error {
	o := rig.Choose(c, full, short)
	c.IntsVar(&o.streams, "streams", "how many streams are open at once")
	c.TimeVar(&o.open, "duration", "how long they are open")
	c.CountVar(&o.logouts, "logouts", "how many sessions are ended, one after the other")
	if err := c.Parse(); err != nil {
		return err
	}
	return c.Save(measure(ctx, o))
}
