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

// made is a report of three rounds; this library is twice as fast as the others, at
// half of their cost, but in the second round.
func made() *Report {
	r := &Report{Ground: rig.OnDisk, Settings: map[string]string{"fsync": "on"}, CommitMs: []float64{0.3, 0.1, 0.2}, RoundTripMs: 0.05}
	for _, v := range rig.Variants {
		r.Variants = append(r.Variants, v.Name)
		for _, route := range rig.Routes {
			for _, conns := range []int{1, 32, 128} {
				if !v.Has(route) {
					continue
				}
				c := &Cell{Variant: v.Name, Route: route, Conns: conns}
				for round := range 3 {
					m := Round{Requests: 100, PerSecond: 1000, P50: 100, P99: 1000, ServerCPU: 60, DatabaseCPU: 40, WAL: 250, Updates: 100, HeapOnly: 96}
					if v.Name == rig.Session && round != 1 {
						m.PerSecond, m.P50, m.P99, m.ServerCPU, m.DatabaseCPU, m.HeapOnly = 2000, 50, 500, 20, 30, 99
					}
					c.Rounds = append(c.Rounds, m)
					c.Wrk = append(c.Wrk, WrkRound{WrkResult: rig.WrkResult{PerSecond: m.PerSecond * 1.5}, CPU: 100})
				}
				r.Cells = append(r.Cells, c)
			}
		}
	}
	return r
}

func find(t *testing.T, route, name string) *goal {
	t.Helper()
	i := slices.IndexFunc(goals, func(g goal) bool { return g.route == route && g.String() == name })
	if i < 0 {
		t.Fatalf("got no goal %q of %s", name, route)
	}
	return &goals[i]
}

func TestGoalsAreRatiosOfTheSameRounds(t *testing.T) {
	r := made()
	for _, tt := range []struct {
		route, name string
		want, byWrk float64
		verdict     string
	}{
		{rig.Public, "requests/s × no session at all", 2, 2, "reached"},
		{rig.Read, "CPU × one prepared SELECT", 0.5, 1, "reached"},
		{rig.Read, "p50 × one prepared SELECT, 1 connection", 0.5, math.NaN(), "reached"},
		{rig.Read, "WAL bytes, over a touch interval", math.NaN(), math.NaN(), ""},
		{rig.Write, "CPU × SELECT + UPDATE", 0.5, 1, "missed"},
		{rig.Write, "requests/s × scs + Redis, appendfsync always", 2, 2, "reached"},
		{rig.Write, "p99 × SELECT + UPDATE, 128 connections", 0.5, math.NaN(), "reached"},
		{rig.Write, "WAL bytes", 250, math.NaN(), "reached"},
		{rig.Write, "heap-only", 0.98, math.NaN(), "reached"}, // of all rounds together
	} {
		g := find(t, tt.route, tt.name)
		v, byWrk := g.measured(r)
		if !same(v, tt.want) || !same(byWrk, tt.byWrk) || g.verdict(v) != tt.verdict {
			t.Errorf("%s %s: got %v, %v by wrk, %q, want %v, %v, %q", tt.route, tt.name, v, byWrk, g.verdict(v), tt.want, tt.byWrk, tt.verdict)
		}
	}
	// A store that is durable says nothing about one that is not.
	r.Settings["fsync"] = "off"
	if v, _ := find(t, rig.Write, "requests/s × scs + Redis, appendfsync always").measured(r); !math.IsNaN(v) {
		t.Errorf("PostgreSQL without fsync beside a durable Redis: got %v, want nothing", v)
	}
}

// What holds on several grounds is what the worst of them says, wrk included.
func TestWhatHoldsOnAllGrounds(t *testing.T) {
	disk, memory := made(), made()
	memory.Ground = rig.InRAM
	for _, c := range memory.Cells {
		if c.Variant == rig.Session {
			for i := range c.Wrk {
				c.Wrk[i].PerSecond /= 4
			}
		}
	}
	want := []string{"`/public`", "requests/s × no session at all", "≥ 0.95", "2.00", "2.00", "2.00", "0.50", "0.50", "missed"}
	if got := columns(strings.Split(goalTable(disk, memory), "\n")[2]); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	most := &goal{bound: 0.4}
	if got := most.worst([]float64{math.NaN(), 0.3, 0.5, math.NaN()}); got != 0.5 {
		t.Errorf("at most: got %v, want 0.5", got)
	}
	if got := most.worst([]float64{math.NaN()}); !math.IsNaN(got) {
		t.Errorf("nothing measured: got %v, want nothing", got)
	}
}

func same(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }

func TestVerdictIsAboutWhatIsShown(t *testing.T) {
	least, most := &goal{bound: 0.95, least: true}, &goal{bound: 0.4}
	for _, tt := range []struct {
		g    *goal
		v    float64
		want string
	}{
		{least, 0.946, "reached"},
		{least, 0.944, "missed"},
		{most, 0.404, "reached"},
		{most, 0.406, "missed"},
	} {
		if got := tt.g.verdict(tt.v); got != tt.want {
			t.Errorf("%v of %v: got %s, want %s", tt.v, tt.g.bound, got, tt.want)
		}
	}
}

// With -goals exactly the cells are measured from which a goal is computed.
func TestGoalsWantTheirCells(t *testing.T) {
	o := short.forGoals()
	if !slices.Equal(o.conns, []int{1, 32, 128}) || o.users < 128 {
		t.Errorf("got %v connections and %d users, want 1, 32, 128 and as many users", o.conns, o.users)
	}
	if slices.Contains(o.variants, rig.ExpressServer) || !slices.Contains(o.variants, rig.ScsRedisAlways) {
		t.Errorf("got %q, want those that a goal names", o.variants)
	}
	full, kept := made(), made()
	kept.Cells = slices.DeleteFunc(kept.Cells, func(c *Cell) bool {
		return !o.wanted(c.Variant, c.Route, c.Conns) || !slices.Contains(o.variants, c.Variant)
	})
	if got, want := goalTable(kept), goalTable(full); got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
	for i := range kept.Cells {
		fewer := *kept
		fewer.Cells = slices.Delete(slices.Clone(kept.Cells), i, i+1)
		if goalTable(&fewer) == goalTable(full) {
			c := kept.Cells[i]
			t.Errorf("%s%s with %d connections: got the same goals without it, want it left out", c.Variant, c.Route, c.Conns)
		}
	}
}

// The whole of -goals, as short as can be, with stores in memory and farther away.
func TestShortGoals(t *testing.T) {
	o := short.forGoals()
	o.routes, o.wrk = []string{rig.Write}, nil
	grounds, err := rig.SplitGrounds("memory,200us")
	if err != nil {
		t.Fatal(err)
	}
	g, err := measureGoals(t.Context(), rigtest.Module(t), o, grounds)
	if err != nil {
		t.Fatal(err)
	}
	if len(g.Runs) != 2 || g.Runs[0].Ground != "memory" || g.Runs[1].Ground != "200us" {
		t.Fatalf("got %d runs, want two", len(g.Runs))
	}
	if fs := g.Runs[0].FileSystem; !strings.HasPrefix(fs, "tmpfs ") {
		t.Errorf("memory: got data on %q, want tmpfs", fs)
	}
	if way := g.Runs[1].RoundTripMs; way < 0.2 {
		t.Errorf("200us: got a way of %v ms, want at least 0.2", way)
	}
	if head, _, _ := strings.Cut(goalTable(g.Runs...), "\n"); !strings.Contains(head, " memory ") || !strings.Contains(head, " 200us ") {
		t.Errorf("got %q, want a column of each ground", head)
	}
	rigtest.Files(t, g, "goals.json", "goals.md")
}

func TestHeapOnlyNeedsUpdates(t *testing.T) {
	touches := &Cell{Rounds: []Round{{Requests: 100, Updates: 10, HeapOnly: 1}}}
	if got := touches.heapOnly(); !math.IsNaN(got) {
		t.Errorf("a touch now and then: got %v, want nothing", got)
	}
	if got := (*Cell)(nil).heapOnly(); !math.IsNaN(got) {
		t.Errorf("no cell: got %v, want nothing", got)
	}
}

// What a request costs stands first, wrk's columns are there if it has measured, and
// a change is called durable as this run had it.
func TestRouteTable(t *testing.T) {
	r := made()
	table := strings.Split(r.routeTable(rig.Write), "\n")
	if want := "| server "; !strings.HasPrefix(table[0], want) || !strings.HasPrefix(columns(table[0])[1], "CPU ") {
		t.Errorf("got %q, want CPU in the first column", table[0])
	}
	row := func(label string) []string {
		i := slices.IndexFunc(strings.Split(r.routeTable(rig.Write), "\n"), func(s string) bool { return len(columns(s)) > 0 && columns(s)[0] == label })
		if i < 0 {
			t.Fatalf("got no row of %q", label)
		}
		return columns(strings.Split(r.routeTable(rig.Write), "\n")[i])
	}
	if got := row("**this library**"); !slices.Equal(got[1:4], []string{"50", "0.50", "2,000"}) || got[len(got)-1] != "at once" {
		t.Errorf("got %q, want 50 µs of CPU, half, 2,000 requests/s, durable at once", got)
	}
	if got := row("scs + Redis"); got[len(got)-1] != "minutes later" {
		t.Errorf("got %q, want durable minutes later", got)
	}
	r.Settings["fsync"] = "off"
	if got := row("SELECT + UPDATE"); got[len(got)-1] != "minutes later" {
		t.Errorf("without fsync: got %q, want durable minutes later", got)
	}
	if !strings.Contains(table[0], "wrk: requests/s") {
		t.Errorf("got %q, want a column of wrk's", table[0])
	}
	for _, c := range r.Cells {
		c.Wrk = nil
	}
	if head, _, _ := strings.Cut(r.routeTable(rig.Write), "\n"); strings.Contains(head, "wrk") {
		t.Errorf("without wrk: got %q, want no column of it", head)
	}
}

// columns splits a row of a Markdown table.
func columns(row string) (cells []string) {
	for c := range strings.SplitSeq(strings.Trim(row, "|"), "|") {
		cells = append(cells, strings.TrimSpace(c))
	}
	return cells
}

// Figures that were measured once become the same report again.
func TestAgain(t *testing.T) {
	r, dir := made(), t.TempDir()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "figures.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := rig.Program{Name: "run"}.Command(t.Context(), []string{"-from", file, "-out", dir, "-docs", "none"})
	if err != nil {
		t.Fatal(err)
	}
	if err := command(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "report.md")); err != nil || !strings.HasSuffix(string(got), r.markdown()) {
		t.Errorf("report.md: got %d bytes, error %v, want %d as before and a title", len(got), err, len(r.markdown()))
	}
}

// A flag's bad value is refused by its name, before anything is started.
func TestBadValuesAreRefused(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"-routes read", `-routes: "read" is none of /public, /new, /read, /write`},
		{"-routes /read,/read", `-routes: "/read" stands there twice`},
		{"-variants session,sesion", `-variants: "sesion"`},
		{"-wrk session,all", `-wrk: "all"`},
		{"-wrk off,session", `-wrk: "off"`},
		{"-on fast", `-on: "fast"`},
		{"-on disk,1ms", `-on: `},
		{"-conns 8,0", `-conns: "0"`},
		{"-goals -conns 8", `-conns: `},
		{"-rounds 0", `-rounds: 0`},
		{"-duration 0s", `-duration: 0s`},
		{"-users 31", `-users: 31`},
		{"-pool 0", `-pool: 0`},
		{"/read", `"/read" is no flag`},
		{"-from /nowhere/run.json", `/nowhere/run.json`},
	} {
		t.Run(tt.args, func(t *testing.T) {
			c, err := rig.Program{Name: "run"}.Command(t.Context(), append([]string{"-short", "-out", t.TempDir()}, strings.Fields(tt.args)...))
			if err != nil {
				t.Fatal(err)
			}
			if err := command(t.Context(), c); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one that says %s", err, tt.want)
			}
		})
	}
}

// Figures go where the documentation is only if they are all that it shows.
func TestWhereFiguresGo(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	for args, documented := range map[string]bool{
		"":                           true,
		"-rounds 2 -duration 1s":     true,
		"-goals":                     true,
		"-from x.json":               true,
		"-routes /read":              false,
		"-on memory":                 false,
		"-goals -on disk":            false,
		"-goals -wrk off":            false,
		"-short":                     false,
		"-routes /read -docs y.md":   true,
		"-goals -on 1ms -docs y.md":  true,
		"-rounds 2 -docs none":       false,
		"-on memory -docs none":      false,
		"-short -goals -docs y.md":   true,
		"-variants session -wrk off": false,
	} {
		c, err := rig.Program{Name: "run"}.Command(t.Context(), strings.Fields(args))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parse(c); err != nil {
			t.Errorf("%q: %v", args, err)
			continue
		}
		if got := c.Docs != ""; got != documented {
			t.Errorf("%q: got the document %q, want one: %t", args, c.Docs, documented)
		}
	}
}

// Only a run of everything goes where the documentation reads.
func TestLessThanTheWholeStaysApart(t *testing.T) {
	disk := full
	disk.ground = rig.Ground{Name: rig.OnDisk}
	if !disk.whole() {
		t.Error("everything on the disk: got less than the whole")
	}
	for name, change := range map[string]func(o *options){
		"in memory":      func(o *options) { o.ground.Name = rig.InRAM },
		"one route":      func(o *options) { o.routes = []string{rig.Read} },
		"one server":     func(o *options) { o.variants = []string{rig.Session} },
		"without wrk":    func(o *options) { o.wrk = []string{wrkOff} },
		"32 connections": func(o *options) { o.conns = []int{32} },
		"no long run":    func(o *options) { o.steady = 0 },
	} {
		o := disk
		if change(&o); o.whole() {
			t.Errorf("%s: got the whole", name)
		}
	}
}
