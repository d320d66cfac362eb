package main

import (
	"testing"

	"github.com/pgsession/session/bench/internal/rigtest"
)

// The shortest run: every figure is there, no answer was wrong, nobody's count was
// lost. Speed is not judged.
func TestShortRun(t *testing.T) {
	report, err := measure(t.Context(), rigtest.Module(t), short)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(report.Results), len(short.variants); got != want {
		t.Fatalf("servers: got %d, want %d", got, want)
	}
	for _, r := range report.Results {
		for _, runs := range [][]Run{r.Free, r.Locked} {
			if len(runs) != short.rounds || runs[0].Neighbours <= 0 || runs[0].Max < runs[0].P99 {
				t.Errorf("%s: got %+v, want neighbours and latencies in order", r.Variant, runs)
			}
		}
		// Each saver of the locked session waits with one request for the lock to go.
		if got := r.Locked[0].Waited; got != short.blocked {
			t.Errorf("%s: answers of the locked session: got %d, want %d", r.Variant, got, short.blocked)
		}
	}
	rigtest.Files(t, report, "locked.json", "locked.md")
}
