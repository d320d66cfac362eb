package main

import (
	"fmt"
	"math"
	"strconv"

	"github.com/pgsession/session/bench/internal/rig"
)

// labels are the lines of tables and charts.
var labels = []struct{ label, variant, route string }{
	{"this library, /read", rig.Session, rig.Read},
	{"SELECT, /read", rig.Select, rig.Read},
	{"this library, /write", rig.Session, rig.Write},
	{"SELECT + UPDATE, /write", rig.Select, rig.Write},
}

// step is a column of a table and a step of a chart.
type step struct {
	name  string
	match func(*Cell) bool
}

func (r *Report) sizeSteps() (steps []step) {
	for _, s := range r.Sizes {
		steps = append(steps, step{rig.Int(float64(s.Sessions)), func(c *Cell) bool { return c.Sessions == s.Sessions }})
	}
	return steps
}

func (r *Report) processSteps() (steps []step) {
	seen := make(map[int]bool)
	for _, c := range r.Processes {
		if n := c.Processes; !seen[n] {
			seen[n] = true
			steps = append(steps, step{strconv.Itoa(n), func(c *Cell) bool { return c.Processes == n }})
		}
	}
	return steps
}

// table shows what a request costs, requests a second and p99.
func table(head string, cells []*Cell, steps []step) string {
	t := rig.Table{Head: []string{head}}
	for _, s := range steps {
		t.Head = append(t.Head, s.name)
	}
	for _, figure := range []struct {
		name   string
		format func(*Cell) string
	}{
		{"CPU µs", func(c *Cell) string { return rig.Int(rig.Median(c.CPU)) }},
		{"requests/s", func(c *Cell) string { return rig.Int(rig.Median(c.PerSecond)) }},
		{"p99 ms", func(c *Cell) string { return rig.Fixed(rig.Median(c.P99)/1e3, 2) }},
		{"of the CPU, PostgreSQL's", func(c *Cell) string { return rig.Int(rig.Median(c.DatabaseCPU)) }},
	} {
		for _, l := range labels {
			row := []string{l.label + ", " + figure.name}
			for _, s := range steps {
				text := "–"
				if c := find(cells, l.variant, l.route, s.match); c != nil {
					text = figure.format(c)
				}
				row = append(row, text)
			}
			t.Add(row...)
		}
	}
	return t.String()
}

func chart(cells []*Cell, steps []step, title, subtitle string) string {
	var names []string
	for _, s := range steps {
		names = append(names, s.name)
	}
	var series []rig.Series
	for i, l := range labels {
		line := rig.Series{Label: l.label, Colour: []int{0, 1, 5, 4}[i]}
		for _, s := range steps {
			v := math.NaN()
			if c := find(cells, l.variant, l.route, s.match); c != nil {
				v = rig.Median(c.PerSecond)
			}
			line.Values = append(line.Values, v)
		}
		series = append(series, line)
	}
	return rig.LineChart(title, subtitle, names, series, false, rig.Int)
}

func (r *Report) parts() map[string]string {
	sizes := rig.Table{Head: []string{"live sessions", "table MB", "indexes MB"}}
	for _, s := range r.Sizes {
		sizes.Add(rig.Int(float64(s.Sessions)), rig.Int(float64(s.TableBytes)/1e6), rig.Int(float64(s.IndexBytes)/1e6))
	}
	intro := fmt.Sprintf("%s visited sessions spread over the table, %d connections a process, shared_buffers %s, PostgreSQL %s, %s.\n\n",
		rig.Int(float64(r.Active)), r.Conns, r.Buffers, r.Postgres, r.Date())
	return map[string]string{
		"growth": intro + table("live sessions", r.Cells, r.sizeSteps()) + "\n" + sizes.String(),
		"processes": fmt.Sprintf("%s sessions in the table, %d connections and %d database connections a process.\n\n", rig.Int(float64(r.Crowd)), r.Conns, r.Pool) +
			table("application processes", r.Processes, r.processSteps()),
	}
}

// Output implements [rig.Reporter].
func (r *Report) Output() rig.Output {
	p := r.parts()
	return rig.Output{
		Name: "growth", Parts: p,
		Title: "Growth", Text: fmt.Sprintf("## More sessions\n\n%s\n## More processes\n\n%s", p["growth"], p["processes"]),
		Charts: map[string]string{
			"growth":    chart(r.Cells, r.sizeSteps(), "Requests a second by live sessions in the table", "one process on one core; higher is better"),
			"processes": chart(r.Processes, r.processSteps(), "Requests a second by application processes", "one database, one core a process; higher is better"),
		},
	}
}
