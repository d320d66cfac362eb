// Command slots puts numbers of statements that one kind of request may have under
// way beside each other: one (PostgresOptions.BatchSlots: 1), two, and the default,
// which adapts. The same load goes to each, where commits take their time, where they
// cost nothing, and through a longer way to the database. From the directory bench:
//
//	go run ./slots          writes the report
//	go run ./slots -short   seconds, to see that it works
package main

import (
	"context"
	"time"

	"github.com/pgsession/session/bench/internal/rig"
)

// Routes of this library's server that are measured; touch and end are no peer's.
const (
	touch = "/touch" // reads, and extends the session whether due or not
	end   = "/end"   // makes a session and ends it
)

var allRoutes = []string{rig.Read, rig.Write, touch, end}

// options say what is measured.
type options struct {
	conns    []int
	rounds   int
	duration time.Duration // of a measurement
	users    int
	pool     int
	routes   []string
	variants []string
	grounds  []rig.Ground
}

var (
	full = options{
		conns: []int{1, 8, 32, 128}, rounds: 5, duration: time.Second, users: 1000, pool: 16, routes: allRoutes, variants: names(),
		grounds: grounds("disk,nofsync,1ms,5ms"),
	}
	short = options{
		conns: []int{4}, rounds: 1, duration: 40 * time.Millisecond, users: 16, pool: 8, routes: allRoutes, variants: names(),
		grounds: grounds("disk,1ms"),
	}
)

// grounds reads names that are known to be right.
func grounds(names string) []rig.Ground {
	all, err := rig.SplitGrounds(names)
	if err != nil {
		panic(err)
	}
	return all
}

func main() {
	rig.Program{Name: "slots", Files: "the report", Tables: "table is"}.Main(command)
}

func command(ctx context.Context, c *rig.Command) error {
	o := rig.Choose(c, full, short)
	c.IntsVar(&o.conns, "conns", "numbers of connections")
	c.CountVar(&o.rounds, "rounds", "how often each measurement is made")
	c.TimeVar(&o.duration, "duration", "how long a measurement takes")
	c.NamesVar(&o.routes, "routes", "routes to measure", allRoutes)
	c.NamesVar(&o.variants, "variants", "numbers of slots to measure", names())
	c.GroundsVar(&o.grounds, "on")
	if err := c.Parse(); err != nil {
		return err
	}
	for _, partly := range []string{"conns", "routes", "variants", "on"} {
		if c.Given(partly) {
			if err := c.Aside(); err != nil {
				return err
			}
		}
	}
	return c.Save(measure(ctx, c.Module, o))
}
