package main

import (
	"testing"

	"github.com/pgsession/session/bench/internal/rigtest"
)

// The shortest run: every figure is there, no answer was wrong. Speed is not judged.
func TestShortRun(t *testing.T) {
	report, err := measure(t.Context(), rigtest.Module(t), short)
	if err != nil {
		t.Fatal(err)
	}
	each := len(variants) * len(routes)
	for _, tt := range []struct {
		name      string
		got, want int
	}{
		{"measurements of sizes", len(report.Cells), each * len(short.sizes)},
		{"measurements of processes", len(report.Processes), each * len(short.processes)},
		{"sizes", len(report.Sizes), len(short.sizes)},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, tt.got, tt.want)
		}
	}
	for _, c := range append(report.Cells, report.Processes...) {
		if len(c.PerSecond) != short.rounds || c.PerSecond[0] <= 0 || c.P99[0] <= 0 || len(c.CPU) != short.rounds || c.CPU[0] < c.DatabaseCPU[0] {
			t.Errorf("%s%s, %d sessions, %d processes: got %v requests/s, p99 %v, CPU %v (PostgreSQL's %v), want some", c.Variant, c.Route, c.Sessions, c.Processes,
				c.PerSecond, c.P99, c.CPU, c.DatabaseCPU)
		}
	}
	rigtest.Files(t, report, "growth.json", "growth.md", "growth.svg", "processes.svg")
}

// Visited sessions are spread over the whole table, each once.
func TestActiveIsSpread(t *testing.T) {
	f := &filler{rows: 1000}
	for i := range 500 {
		f.visitors = append(f.visitors, &visitor{at: i * 2})
	}
	active := f.active(100)
	if len(active) != 100 || active[0].at != 0 || active[99].at != 990 {
		t.Fatalf("got %d visitors from row %d to %d, want 100 from 0 to 990", len(active), active[0].at, active[len(active)-1].at)
	}
	if got := len(f.active(10_000)); got != 500 {
		t.Errorf("more than there are: got %d, want 500", got)
	}
}
