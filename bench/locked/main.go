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
	rig.Program{Name: "locked", Files: "the report", Tables: "tables are"}.Main(command)
}

func command(ctx context.Context, c *rig.Command) error {
	o := rig.Choose(c, full, short)
	c.CountVar(&o.rounds, "rounds", "how often each measurement is made")
	c.TimeVar(&o.duration, "duration", "how long the row is locked; less than the store timeout of 5 s")
	c.CountVar(&o.pool, "pool", "connections of each server to its database")
	if err := c.Parse(); err != nil {
		return err
	}
	return c.Save(measure(ctx, c.Module, o))
}
