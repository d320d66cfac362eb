package main

import (
	"testing"

	"github.com/pgsession/session/bench/internal/rigtest"
)

// The shortest run: every figure is there, and no number of streams costs more than a
// statement a second. Speed is not judged.
func TestShortRun(t *testing.T) {
	report, err := measure(t.Context(), short)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(report.Cells), len(short.streams); got != want {
		t.Fatalf("measurements: got %d, want %d", got, want)
	}
	for _, c := range report.Cells {
		// A tick that begins just before may be counted, never one more.
		if most := 1 + 1/report.Seconds; c.Statements <= 0 || c.Statements > most || len(c.Delay) != short.logouts {
			t.Errorf("%d streams: got %+v, want more than 0 and at most %.2f statements a second, and %d delays", c.Streams, c, most, short.logouts)
		}
	}
	rigtest.Files(t, report, "streams.json", "streams.md")
}
