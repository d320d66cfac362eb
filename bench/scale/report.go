package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgsession/session/bench/internal/rig"
)

func (l Layout) String() string {
	s := fmt.Sprintf("%d × %d", l.Programs, l.Databases)
	if l.Own {
		s += ", own"
	}
	return s
}

// cell returns what a route came to in a layout, nil if that was not measured.
func (r *Report) cell(route string, l Layout) *Cell {
	i := slices.IndexFunc(r.Cells, func(c *Cell) bool { return c.Route == route && c.Layout == l })
	if i < 0 {
		return nil
	}
	return r.Cells[i]
}

func programCPU(m Round) float64  { return m.ProgramCPU }
func databaseCPU(m Round) float64 { return m.DatabaseCPU }
func sent(m Round) float64        { return m.Sent }
func received(m Round) float64    { return m.Received }
func wal(m Round) float64         { return m.WAL }
func updates(m Round) float64     { return m.Updates }
func heapOnly(m Round) float64    { return m.HeapOnly }

func (c *Cell) median(figure func(Round) float64) float64 { return rig.MedianOf(c.Rounds, figure) }

// ratio is the median of the rounds' own ratios: what disturbs a round disturbs both.
func (c *Cell) ratio(to *Cell, figure func(Round) float64) float64 {
	var all []float64
	for n, m := range c.Rounds {
		if of := figure(to.Rounds[n]); of > 0 {
			all = append(all, figure(m)/of)
		}
	}
	return rig.Median(all)
}

func (r *Report) ratios() string {
	t := rig.Table{Head: []string{"route", "programs × databases", "under way, a program", "CPU of the program ×", "CPU of PostgreSQL ×", "statements ×", "bytes to it ×", "bytes from it ×", "WAL bytes ×"}}
	for _, c := range r.Cells {
		to := r.cell(c.Route, r.Layouts[0])
		if c == to {
			continue
		}
		log := "–" // what a read writes is no work of its own
		if c.Route != rig.Read {
			log = rig.Fixed(c.ratio(to, wal), 2)
		}
		t.Add("`"+c.Route+"`", c.Layout.String(), rig.Int(float64(c.Layout.Conns)),
			rig.Fixed(c.ratio(to, programCPU), 2), rig.Fixed(c.ratio(to, databaseCPU), 2), rig.Fixed(c.Statements/to.Statements, 2),
			rig.Fixed(c.ratio(to, sent), 2), rig.Fixed(c.ratio(to, received), 2), log)
	}
	return t.String()
}

// figures is the absolute figures of the layouts that the paper begins with.
func (r *Report) figures() string {
	t := rig.Table{Head: []string{"route", "under way", "CPU of the program, µs", "CPU of PostgreSQL, µs", "statements", "bytes to it", "bytes from it", "WAL bytes", "row updates", "of them heap-only"}}
	for _, c := range r.Cells {
		if c.Layout.Programs != 1 || c.Layout.Databases != 1 {
			continue
		}
		share := "–"
		if u := c.median(updates); u >= 0.01 {
			share = rig.Int(100*c.median(heapOnly)/u) + " %"
		}
		t.Add("`"+c.Route+"`", rig.Int(float64(c.Layout.Conns)), rig.Int(c.median(programCPU)), rig.Int(c.median(databaseCPU)), rig.Fixed(c.Statements, 2),
			rig.Int(c.median(sent)), rig.Int(c.median(received)), rig.Int(c.median(wal)), rig.Fixed(c.median(updates), 2), share)
	}
	return t.String()
}

func (r *Report) setting() string {
	return fmt.Sprintf("%d rounds of %g s, medians; %d users of each database, records of %s bytes; %d connections of a program to a database. %s, %d cores, load averages before the run: %s; %s, PostgreSQL %s, %s.\n",
		r.Rounds, r.Seconds, r.Users, rig.Int(r.Row.Record), r.Pool, r.Machine.CPU, r.Machine.Cores, r.Machine.Load, r.Go, r.Postgres, r.Date())
}

func (r *Report) figuresPart() string {
	return r.setting() + "\n" + r.figures() + fmt.Sprintf("\nA session takes %s bytes of the table, room for its next versions included, and %s of the indexes.\n",
		rig.Int(r.Row.Table), rig.Int(r.Row.Indexes))
}

// Output implements [rig.Reporter].
func (r *Report) Output() rig.Output {
	parts := map[string]string{"scale": r.figuresPart(), "scale-ratios": r.ratios()}
	text := []string{parts["scale"], "Beside " + r.Layouts[0].String() + ":\n\n" + parts["scale-ratios"]}
	if request, needs, ok := r.paper(); ok {
		parts["scale-mean"], parts["scale-needs"] = request, needs
		text = append(text, "On paper:\n\n"+request, needs)
	}
	return rig.Output{Name: "scale", Title: "Growth: more programs, more databases", Text: strings.Join(text, "\n"), Parts: parts}
}
