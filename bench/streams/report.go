package main

import (
	"fmt"
	"slices"

	"github.com/pgsession/session/bench/internal/rig"
)

func (r *Report) table() string {
	t := rig.Table{Head: []string{"streams", "statements a second", "program's CPU, ms a second", "PostgreSQL's CPU, ms a second", "heap a stream, KB", "ms from a logout to the end, median", "most"}}
	for _, c := range r.Cells {
		t.Add(rig.Int(float64(c.Streams)), rig.Fixed(c.Statements, 2), rig.Fixed(c.ProgramCPU, 1), rig.Fixed(c.DatabaseCPU, 1),
			rig.Fixed(c.Heap/1000, 1), rig.Int(rig.Median(c.Delay)), rig.Int(slices.Max(c.Delay)))
	}
	return t.String()
}

func (r *Report) part() string {
	return fmt.Sprintf("Open for %s seconds, of a session each, in one program; then %d sessions are ended, one after the other. A stream's heap is that of its handler, request and all. PostgreSQL %s, %s.\n\n%s",
		rig.Int(r.Seconds), r.Logouts, r.Postgres, r.Date(), r.table())
}

// Output implements [rig.Reporter].
func (r *Report) Output() rig.Output {
	return rig.Output{
		Name: "streams", Title: "Open streams", Text: r.part(),
		Parts: map[string]string{"streams": r.part()},
	}
}
