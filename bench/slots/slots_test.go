package main

import (
	"testing"

	"github.com/pgsession/session/bench/internal/rigtest"
)

// The shortest run: every figure is there and no answer was wrong. Speed is not
// judged.
func TestShortRun(t *testing.T) {
	report, err := measure(t.Context(), rigtest.Module(t), short)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(report.Cells), len(short.grounds)*len(short.routes)*len(short.conns)*len(short.variants); got != want {
		t.Fatalf("cells: got %d, want %d", got, want)
	}
	for _, c := range report.Cells {
		if len(c.Rounds) != short.rounds || c.Rounds[0].PerSecond <= 0 || c.Rounds[0].P99 < c.Rounds[0].P50 {
			t.Errorf("%s %s %s: got %+v, want requests and latencies in order", c.Ground, c.Route, c.Variant, c.Rounds)
		}
	}
	rigtest.Files(t, report, "slots.json", "slots.md")
}
