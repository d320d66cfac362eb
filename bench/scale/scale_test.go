package main

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgsession/session/bench/internal/rig"
	"github.com/pgsession/session/bench/internal/rigtest"
)

// The shortest run: every figure is there, what one request alone takes is known, and
// measure itself has compared each load with the library's counts. Speed is not judged.
func TestShortRun(t *testing.T) {
	report, err := measure(t.Context(), rigtest.Module(t), short)
	if err != nil {
		t.Fatal(err)
	}
	report.Paper = assumed
	if got, want := len(report.Cells), len(short.layouts)*len(short.routes); got != want {
		t.Fatalf("cells: got %d, want %d", got, want)
	}
	// Alone there is nobody to share with.
	statements := map[string]float64{rig.Read: 1, touch: 2, rig.Write: 2, pair: 2}
	for _, c := range report.Cells {
		if len(c.Rounds) != short.rounds {
			t.Fatalf("%s, %v: got %d rounds, want %d", c.Route, c.Layout, len(c.Rounds), short.rounds)
		}
		m, most := c.Rounds[0], statements[c.Route]
		// On a busy machine one in a hundred is late, and something else follows it.
		if c.Statements <= 0 || c.Statements > most*1.02 || c.Layout == alone && c.Statements < most {
			t.Errorf("%s, %+v: got %v statements a request, want at most %v, and as many alone", c.Route, c.Layout, c.Statements, most)
		}
		if m.Sent <= 0 || m.HeapOnly > m.Updates {
			t.Errorf("%s, %+v: got %+v, want bytes to the database and no more heap-only updates than updates", c.Route, c.Layout, m)
		}
		// A record travels whole: from the database in a load, and to it in a login.
		record := report.Row.Record
		if c.Route != pair && m.Received < record || c.Route == pair && m.Sent < record {
			t.Errorf("%s, %+v: got %+v, want a record of %v bytes in it", c.Route, c.Layout, m, record)
		}
		// One row version for each change, none for a read.
		want := map[string]float64{rig.Read: 0, touch: 1, rig.Write: 1, pair: 0}[c.Route]
		if math.Abs(m.Updates-want) > 1e-9 {
			t.Errorf("%s, %+v: got %v updates a request, want %v", c.Route, c.Layout, m.Updates, want)
		}
	}
	rigtest.Files(t, report, "scale.json", "scale.md")
}

// invented is a report with round figures.
func invented() *Report {
	r := &Report{Rounds: 1, Pool: 16, Row: Row{Table: 1500, Indexes: 100}, Layouts: []Layout{base, alone}, Paper: assumed}
	for _, route := range allRoutes {
		r.Cells = append(r.Cells,
			&Cell{Layout: base, Route: route, Statements: 0.1, Rounds: []Round{{ProgramCPU: 20, DatabaseCPU: 30, Sent: 200, Received: 800, WAL: 100, Updates: 1, HeapOnly: 0.9}}},
			&Cell{Layout: alone, Route: route, Statements: 1, Rounds: []Round{{ProgramCPU: 80, DatabaseCPU: 120, Sent: 400, Received: 1600, WAL: 100, Updates: 1, HeapOnly: 0.9}}})
	}
	return r
}

// The computation, beside one by hand.
func TestPaper(t *testing.T) {
	r := invented()
	mean, needs, ok := r.paper()
	if !ok || !strings.Contains(mean, "each alone") || !strings.Contains(needs, "1,000,000") {
		t.Fatalf("got %t\n%s\n%s, want both tables", ok, mean, needs)
	}
	many, _ := r.mean(base)
	single, _ := r.mean(alone)
	// 100 requests: 84 reads, of which every fifth touches, 15 writes, a login.
	for _, tt := range []struct{ what, want string }{
		{"cores of the programs", "4 to 16"},         // 100,000 × 20 µs ÷ 50 %
		{"cores of PostgreSQL", "6 to 24"},           // 100,000 × 30 µs ÷ 50 %
		{"programs", "1 to 4"},                       // ÷ 4
		{"databases", "1 to 2"},                      // ÷ 16
		{"statements a second", "10,000 to 100,000"}, // × 0.1
		{"connections in use at a time, all databases", "20 to 200"},
		{"connections open to each database, every program with all", "64"}, // 4 × 16
		{"the same, each program with one", "32"},
		{"Mbit/s between them", "800 to 1,600"},
		{"log: records, MB/s", "3.3"}, // 100,000 × (16.8 % + 15 % + 1 %) × 100 bytes
		{"sessions in use at a time", "1,200,000"},
		{"sessions in use between two checkpoints", "2,100,000"}, // and 1,000 a second for 900 s
		{"rows, if nobody logs out", "87,600,000"},               // 1,000 a second for a day, and those in use
		{"table and indexes, GB", "140"},
		{"dead rows a second", "32,800"}, // 100,000 × (16.8 % + 15 % + 1 %)
		{"of them for vacuum", "22,000"}, // 100,000 × (16.8 % + 3 % + 12 % × 0.1 + 1 %)
		{"seconds from one autovacuum to the next", "80"},
	} {
		found := false
		for _, l := range r.lines(100_000, many, single) {
			if l.what == tt.what {
				found = true
				if l.value != tt.want {
					t.Errorf("%s: got %s, want %s", tt.what, l.value, tt.want)
				}
			}
		}
		if !found {
			t.Errorf("%s: got no such line", tt.what)
		}
	}
	r.Cells = r.Cells[:len(r.Cells)-1]
	if _, _, ok := r.paper(); ok {
		t.Error("a route that was not measured alone: got a computation, want none")
	}
}

// -from measures nothing: it writes everything again, and with an assumption of one's own
// it leaves results and document alone.
func TestFrom(t *testing.T) {
	page := "<!-- bench:scale -->\n<!-- /bench:scale -->\n<!-- bench:scale-ratios -->\n<!-- /bench:scale-ratios -->\n" +
		"<!-- bench:scale-mean -->\n<!-- /bench:scale-mean -->\n<!-- bench:scale-needs -->\n<!-- /bench:scale-needs -->\n"
	dir := t.TempDir()
	docs, figures := filepath.Join(dir, "page.md"), filepath.Join(dir, "scale.json")
	b, err := json.Marshal(invented())
	if err == nil {
		err = errors.Join(os.WriteFile(figures, b, 0o600), os.WriteFile(docs, []byte(page), 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (*rig.Command, string) {
		t.Helper()
		c, err := rig.Program{Name: "scale"}.Command(t.Context(), append([]string{"-from", figures}, args...))
		if err == nil {
			err = command(t.Context(), c)
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(docs)
		if err != nil {
			t.Fatal(err)
		}
		return c, string(b)
	}
	t.Setenv("TMPDIR", dir)
	if c, _ := run("-rates", "25000"); c.Docs != "" || !strings.HasPrefix(c.Out, dir) {
		t.Errorf("with rates of one's own: got %+v, want a temporary place alone", c.Place)
	}
	if _, got := run("-out", dir, "-docs", docs); !strings.Contains(got, "1,000,000 |") || !strings.Contains(got, "each alone") {
		t.Errorf("got %s, want all tables", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "scale.md")); err != nil {
		t.Errorf("got %v, want the report", err)
	}
}

func TestPaperRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Paper){
		"no gap":               func(p *Paper) { p.Gap = 0 },
		"no number":            func(p *Paper) { p.Hold = math.NaN() },
		"more than all":        func(p *Paper) { p.Writes = 99.5 },
		"more than one's core": func(p *Paper) { p.Busy = 120 },
	} {
		t.Run(name, func(t *testing.T) {
			p := assumed
			spoil(&p)
			if p.check() == nil {
				t.Error("got no error, want one")
			}
		})
	}
	if p := assumed; p.check() != nil {
		t.Errorf("what is assumed: got %v, want no error", p.check())
	}
}

// Each user is always on one connection, whatever the layout, and everybody is visited.
func TestVisitsGoRound(t *testing.T) {
	for _, l := range full.layouts {
		var towns []*town
		for i := range l.Databases {
			towns = append(towns, newTown(i, full.users))
		}
		v, err := l.visits(rig.Read, towns, 0)
		if err != nil {
			t.Fatal(err)
		}
		of := make(map[int]int)
		for conn := range l.conns() {
			for range full.users * l.Databases / l.conns() {
				user, request := v.Next(conn)
				if other, ok := of[user]; ok && other != conn {
					t.Fatalf("%v: user %d is on connections %d and %d", l, user, other, conn)
				}
				of[user] = conn
				if want := towns[user/full.users].host; !strings.Contains(string(request), "Host: "+want+"\r\n") {
					t.Fatalf("%v: got %q, want it sent to %s", l, request, want)
				}
			}
		}
		want := full.users * l.Databases
		if l.Own { // each connection has one database alone
			want = full.users
		}
		if len(of) != want {
			t.Errorf("%v: got %d users visited, want %d", l, len(of), want)
		}
	}
}
