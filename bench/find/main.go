// Command find measures what it costs to find and end a user's sessions in a
// table of a million, with an index on the key and without, and what that index
// costs everybody else. From the directory bench:
//
//	go run ./find          writes the report
//	go run ./find -short   seconds, to see that it works
package main

import (
	"context"

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
	rig.Program{Name: "find", Files: "the report", Tables: "table is"}.Main(command)
}

func command(ctx context.Context, c *rig.Command) error {
	o := rig.Choose(c, full, short)
	c.CountVar(&o.rows, "rows", "rows in the table")
	if err := c.Parse(); err != nil {
		return err
	}
	return c.Save(measure(ctx, o))
}
