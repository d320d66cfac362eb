// Command fillfactor measures what room in the table's pages is worth to saves: how
// many of them are heap-only, what they write to the log, what they cost the
// database and how far the table grows, at fillfactors from 50 to 100, for sessions
// of several sizes, alone and beside a transaction that stays open and so keeps old
// row versions from being cleared away. From the directory bench:
//
//	go run ./fillfactor          writes the report
//	go run ./fillfactor -short   seconds, to see that it works
package main

import (
	"context"

	"github.com/pgsession/session/bench/internal/rig"
)

// options say what is measured.
type options struct {
	factors []int
	sizes   []int // bytes of a record; also of records that compress, where over 2 KB
	rows    int   // sessions
	saves   int   // of each session
	held    int   // sessions in a hundred that are saved while a transaction is open
	workers int
	rounds  int
}

var (
	full  = options{factors: []int{50, 60, 70, 80, 90, 100}, sizes: []int{300, 1000, 3000}, rows: 1500, saves: 5, held: 10, workers: 32, rounds: 1}
	short = options{factors: []int{70, 100}, sizes: []int{300, 3000}, rows: 60, saves: 2, held: 10, workers: 4, rounds: 1}
)

func main() {
	rig.Program{Name: "fillfactor", Files: "the report", Tables: "table is"}.Main(command)
}

func command(ctx context.Context, c *rig.Command) error {
	o := rig.Choose(c, full, short)
	c.IntsVar(&o.factors, "factors", "fillfactors, from 10 to 100")
	c.IntsVar(&o.sizes, "sizes", "bytes of a record")
	c.CountVar(&o.rows, "rows", "sessions in the table")
	c.CountVar(&o.saves, "saves", "how often each session is saved")
	c.CountVar(&o.held, "held", "how many sessions in a hundred are saved while another transaction stays open, before the next one is opened")
	c.CountVar(&o.rounds, "rounds", "how often each measurement is made")
	if err := c.Parse(); err != nil {
		return err
	}
	return c.Save(measure(ctx, o))
}
