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
		if !slices.ContainsFunc(report.HeapOnly, func(h HeapOnly) bool { return h.Variant == rig.SelectUpdate && h.Route == route }) {
			t.Errorf("heap-only share of %s%s: got none, want one", rig.SelectUpdate, route)
		}
	}
	if report.Steady == nil || report.Steady.Requests == 0 {
		t.Error("run over a touch interval: got none")
	}
	goals := report.targets()
	if len(goals) == 10 && !slices.ContainsFunc(goals, func(g target) bool { return strings.HasPrefix(g.what, "PostgreSQL CPU") }) {
		t.Log("so short that the clock of CPU times has not ticked") // it does a hundred times a second
	} else if len(goals) != 11 {
		t.Errorf("goals: got %d, want 11", len(goals))
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
	if err != nil || len(charts) != 9 {
		t.Errorf("charts: got %d (error %v), want 9", len(charts), err)
	}
	doc, err = os.ReadFile(where.Docs)
	if err != nil || !strings.Contains(string(doc), report.targetTable()) {
		t.Errorf("document: got no table of goals (error %v)", err)
	}
}

func TestUnknownArguments(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    options
	}{
		{"fewer users than connections", options{conns: []int{8}, users: 7}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := benchmark(t.Context(), "", tt.o); err == nil {
				t.Error("got no error, want one")
			}
		})
	}
}
