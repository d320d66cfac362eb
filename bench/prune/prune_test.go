package main

import (
	"strings"
	"testing"

	"github.com/pgsession/session/bench/internal/rigtest"
)

// The shortest run: every figure is there, everything expired was deleted, nothing
// else: a read or touch of a deleted session would have ended the run. Speed is not
// judged.
func TestShortRun(t *testing.T) {
	report, err := measure(t.Context(), short)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(report.Results), len(short.methods); got != want {
		t.Fatalf("ways to prune: got %d, want %d", got, want)
	}
	for _, r := range report.Results {
		if r.Deleted != int64(short.expired*short.rounds) || r.Seconds <= 0 || len(r.Slices) == 0 {
			t.Errorf("%s: got %d rows in %v s and %d slices, want %d rows", r.Method, r.Deleted, r.Seconds, len(r.Slices), short.expired*short.rounds)
			continue
		}
		if w := r.Slices[0].Without; w.Reads == 0 || w.Touches == 0 || w.TouchMax < w.TouchP99 {
			t.Errorf("%s: got %+v before pruning, want reads and touches", r.Method, w)
		}
	}
	rigtest.Files(t, report, "prune.json", "prune.md", "prune.svg")
}

// The table has exactly as many expired rows as asked for, and every session that
// is read and touched.
func TestRows(t *testing.T) {
	for _, o := range []options{short, {rows: 1000, expired: 300, active: 20}, {rows: 10, expired: 3, active: 7}} {
		expired, active := 0, make(map[string]bool)
		for i := range o.rows {
			sid, seconds := row(i, o)
			if seconds < 0 {
				expired++
			} else if strings.HasPrefix(sid, live) {
				active[sid] = true
			}
		}
		traffic := &traffic{options: o}
		for i := range o.active {
			if !active[traffic.id(i)] {
				t.Errorf("%d rows: session %d is missing", o.rows, i)
			}
		}
		if expired != o.expired || len(active) != o.active {
			t.Errorf("%d rows: got %d expired and %d to read, want %d and %d", o.rows, expired, len(active), o.expired, o.active)
		}
	}
}
