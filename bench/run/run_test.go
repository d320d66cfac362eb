package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgsession/session/bench/internal/rig"
	"github.com/pgsession/session/bench/internal/rigtest"
)

// The shortest run of everything: each figure is there, and no answer was wrong,
// for that would have ended the run. How fast it was is not judged.
func TestShortRun(t *testing.T) {
	module := rigtest.Module(t)
	report, err := benchmark(t.Context(), module, short)
	if err != nil {
		t.Fatal(err)
	}
	for i := range rig.Variants {
		v := &rig.Variants[i]
		for _, route := range rig.Routes {
			for _, conns := range short.conns {
				checkCell(t, report, v, route, conns)
			}
		}
	}
	checkStatements(t, report)
	for _, route := range []string{rig.Read, rig.Write} {
		c := report.cell(rig.SelectUpdate, route, 1)
		for _, r := range c.Rounds { // one row an answer, and nothing else is updated meanwhile
			if r.Updates != int64(r.Requests) || r.HeapOnly > r.Updates {
				t.Errorf("%s%s: got %d row updates, %d of them heap-only, in %d requests, want as many", rig.SelectUpdate, route, r.Updates, r.HeapOnly, r.Requests)
			}
		}
	}
	if report.Steady == nil || report.Steady.Requests == 0 {
		t.Error("run over a touch interval: got none")
	}
	checkGoals(t, report)
	checkWrk(t, report)
	if len(report.CommitMs) != short.rounds || report.RoundTripMs <= 0 || report.FileSystem == "" {
		t.Errorf("the ground: got commits of %v ms, a way of %v ms, file system %q, want them all", report.CommitMs, report.RoundTripMs, report.FileSystem)
	}
	if report.DataBytes < 900 || report.DataBytes > 1500 {
		t.Errorf("bytes a record: got %d, want about 1 KB", report.DataBytes)
	}
	checkFiles(t, module, report)
}

func checkCell(t *testing.T, report *Report, v *rig.Variant, route string, conns int) {
	t.Helper()
	c := report.cell(v.Name, route, conns)
	if !v.Has(route) {
		if c != nil {
			t.Errorf("%s%s: got a figure, want none", v.Name, route)
		}
		return
	}
	if c == nil {
		t.Errorf("%s%s, %d connections: got no figure", v.Name, route, conns)
		return
	}
	for _, r := range c.Rounds {
		if r.Requests == 0 || r.P50 <= 0 || r.P99 < r.P50 || r.Max < r.P99 || math.IsNaN(r.WAL) {
			t.Errorf("%s%s, %d connections: got %+v, want requests and latencies in order", v.Name, route, conns, r)
		}
	}
	if (c.Statements != nil) != (v.Store == rig.InPostgres) {
		t.Errorf("%s%s: got statements counted: %t, store %s", v.Name, route, c.Statements != nil, v.Store)
	}
}

// checkGoals looks for every goal that can be measured with so few connections. In so
// short a time the clock of CPU times, a hundred ticks a second, may not move.
func checkGoals(t *testing.T, report *Report) {
	t.Helper()
	for i := range goals {
		g := &goals[i]
		v, byWrk := g.measured(report)
		if !slices.Contains(short.conns, g.conns) || g.name == "CPU" {
			continue
		}
		if math.IsNaN(v) {
			t.Errorf("goal %s, %v: got no figure", g.route, g)
		}
		if both := g.wrk != nil && slices.Contains(short.wrk, g.to); both == math.IsNaN(byWrk) {
			t.Errorf("goal %s, %v: got %v by wrk, want a figure: %t", g.route, g, byWrk, both)
		}
	}
}

func checkWrk(t *testing.T, report *Report) {
	t.Helper()
	for _, c := range report.Cells {
		want := 0
		if slices.Contains(short.wrk, c.Variant) && c.Conns == report.reference() {
			want = short.rounds
		}
		if len(c.Wrk) != want {
			t.Errorf("%s%s, %d connections: got %d measurements by wrk, want %d", c.Variant, c.Route, c.Conns, len(c.Wrk), want)
		}
	}
}

// checkStatements compares with what is known for one connection: nothing is shared
// there, and no touch is due within a minute of the login.
func checkStatements(t *testing.T, report *Report) {
	t.Helper()
	for _, tt := range []struct {
		variant, route string
		want           float64
	}{
		{rig.Session, rig.Public, 0},
		{rig.Session, rig.New, 0},
		{rig.Session, rig.Read, 1},
		{rig.Session, rig.Write, 2},
		{rig.Select, rig.Read, 1},
		{rig.SelectUpdate, rig.Read, 2},
		{rig.SelectUpdate, rig.Write, 2},
		{rig.ScsPgx, rig.Public, 1},
	} {
		c := report.cell(tt.variant, tt.route, 1)
		if c == nil || c.Statements == nil {
			t.Errorf("statements of %s%s: got none, want %v", tt.variant, tt.route, tt.want)
			continue
		}
		// On a machine so slow that the logins are a minute ago, a touch may be due.
		if got := *c.Statements; got < tt.want || got > tt.want+1 {
			t.Errorf("statements of %s%s: got %v, want %v", tt.variant, tt.route, got, tt.want)
		}
	}
}

func checkFiles(t *testing.T, module string, report *Report) {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join(module, "..", "docs", "performance.md"))
	if err != nil {
		t.Fatal(err)
	}
	where := rig.Place{Out: t.TempDir(), Docs: filepath.Join(t.TempDir(), "performance.md")}
	if err := os.WriteFile(where.Docs, doc, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := rig.Save(where, report); err != nil {
		t.Fatal(err)
	}
	var again Report
	b, err := os.ReadFile(filepath.Join(where.Out, "run.json"))
	if err == nil {
		err = json.Unmarshal(b, &again)
	}
	if err != nil || len(again.Cells) != len(report.Cells) {
		t.Errorf("run.json: got %d cells (error %v), want %d", len(again.Cells), err, len(report.Cells))
	}
	markdown, err := os.ReadFile(filepath.Join(where.Out, "report.md"))
	if err != nil || !strings.Contains(string(markdown), "| **this library** ") {
		t.Errorf("report.md: got %.100q (error %v), want tables", markdown, err)
	}
	charts, err := filepath.Glob(filepath.Join(where.Out, "*.svg"))
	if err != nil || len(charts) != 10 {
		t.Errorf("charts: got %d (error %v), want 10", len(charts), err)
	}
	doc, err = os.ReadFile(where.Docs)
	if err != nil || !strings.Contains(string(doc), goalTable(report)) {
		t.Errorf("document: got no table of goals (error %v)", err)
	}
}
