package main

import (
	"fmt"

	"github.com/pgsession/session/bench/internal/rig"
)

// ratio returns how many times longer it took with pruning.
func ratio(with, without float64) float64 { return with / max(without, 1e-9) }

// summary is a Slice of medians, with the medians of the ratios of the p99s.
func (r *Result) summary() (s Slice, reads, touches float64) {
	for _, f := range []func(*Latency) *float64{
		func(l *Latency) *float64 { return &l.ReadP50 },
		func(l *Latency) *float64 { return &l.ReadP99 },
		func(l *Latency) *float64 { return &l.TouchP50 },
		func(l *Latency) *float64 { return &l.TouchP99 },
		func(l *Latency) *float64 { return &l.TouchMax },
	} {
		*f(&s.Without) = rig.MedianOf(r.Slices, func(s Slice) float64 { return *f(&s.Without) })
		*f(&s.With) = rig.MedianOf(r.Slices, func(s Slice) float64 { return *f(&s.With) })
	}
	reads = rig.MedianOf(r.Slices, func(s Slice) float64 { return ratio(s.With.ReadP99, s.Without.ReadP99) })
	touches = rig.MedianOf(r.Slices, func(s Slice) float64 { return ratio(s.With.TouchP99, s.Without.TouchP99) })
	return s, reads, touches
}

func (r *Report) table() string {
	t := rig.Table{Head: []string{
		"pruned by", "rows/s", "read p50 ms", "while pruning", "read p99 ms", "while pruning", "ratio",
		"touch p50 ms", "while pruning", "touch p99 ms", "while pruning", "ratio",
	}}
	for _, x := range r.Results {
		s, reads, touches := x.summary()
		a, b := s.Without, s.With
		t.Add(x.Method, rig.Int(float64(x.Deleted)/max(x.Seconds, 1e-9)),
			rig.Fixed(a.ReadP50, 2), rig.Fixed(b.ReadP50, 2), rig.Fixed(a.ReadP99, 2), rig.Fixed(b.ReadP99, 2), rig.Fixed(reads, 2),
			rig.Fixed(a.TouchP50, 2), rig.Fixed(b.TouchP50, 2), rig.Fixed(a.TouchP99, 2), rig.Fixed(b.TouchP99, 2), rig.Fixed(touches, 2))
	}
	return t.String()
}

func (r *Report) chart() string {
	var bars []rig.Bar
	add := func(label string, ms, ratio float64, ours, limit bool) {
		b := rig.Bar{Label: label, Value: ms, Ours: ours, Limit: limit, Text: rig.Fixed(ms, 2) + " ms"}
		if !limit {
			b.Text += "|" + rig.Fixed(ratio, 1) + " ×"
		}
		bars = append(bars, b)
	}
	for i, x := range r.Results {
		s, _, touches := x.summary()
		if i == 0 {
			add("without pruning", s.Without.TouchP99, 1, false, true)
		}
		add(x.Method, s.With.TouchP99, touches, x.Method == byLibrary, false)
	}
	return rig.BarChart("The slowest of a hundred touches while expired rows are deleted",
		fmt.Sprintf("%s of %s rows; p99, and times its value just before; shorter is better", rig.Int(float64(r.Expired)), rig.Int(float64(r.Rows))), bars)
}

func (r *Report) part() string {
	return fmt.Sprintf("%s rows, %s of them expired; %s reads and touches a second, half of each; PostgreSQL %s with autovacuum, %s. Times with and without pruning take turns; medians.\n\n",
		rig.Int(float64(r.Rows)), rig.Int(float64(r.Expired)), rig.Int(float64(r.Rate)), r.Postgres, r.Date()) + r.table()
}

// Output implements [rig.Reporter].
func (r *Report) Output() rig.Output {
	return rig.Output{
		Name: "prune", Title: "Pruning", Text: r.part(),
		Charts: map[string]string{"prune": r.chart()},
		Parts:  map[string]string{"prune": r.part()},
	}
}
