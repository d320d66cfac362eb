package main

import (
	"testing"

	"github.com/pgsession/session/bench/internal/rigtest"
)

// The shortest run: every figure is there, no answer was wrong. Speed is not judged.
func TestShortRun(t *testing.T) {
	report, err := measure(t.Context(), short)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(report.Cells), len(short.kinds())*2*len(short.factors); got != want {
		t.Fatalf("measurements: got %d, want %d", got, want)
	}
	for _, c := range report.Cells {
		if len(c.WAL) != short.rounds || c.WAL[0] <= 0 || c.TableBytes[0] < c.Before[0] || c.Before[0] <= 0 || c.HeapOnly[0] < 0 || c.HeapOnly[0] > 1 {
			t.Errorf("%s, fillfactor %d: got %+v, want log, a table that has not shrunk and a share", c.Kind, c.Factor, c)
		}
		if low, high := float64(c.Kind.Bytes)*0.75, float64(c.Kind.Bytes)*1.25; float64(c.Bytes) < low || float64(c.Bytes) > high {
			t.Errorf("%s: got records of %d bytes", c.Kind, c.Bytes)
		}
	}
	rigtest.Files(t, report, "fillfactor.json", "fillfactor.md")
}

// Each session is saved equally often, and once in each round.
func TestOrder(t *testing.T) {
	s := &savers{options: options{rows: 7, saves: 3}}
	order := s.order()
	if len(order) != 21 {
		t.Fatalf("got %d saves, want 21", len(order))
	}
	for round := range 3 {
		seen := make(map[int]bool)
		for _, i := range order[7*round : 7*round+7] {
			seen[i] = true
		}
		if len(seen) != 7 {
			t.Errorf("round %d: got %d of 7 sessions", round, len(seen))
		}
	}
}
