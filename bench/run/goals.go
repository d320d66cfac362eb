package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/pgsession/session/bench/internal/rig"
)

// goal is a figure of this library that has a bound, most of them beside another
// server's in the same run.
type goal struct {
	route string
	name  string // of the figure
	of    func(Round) float64
	wrk   func(WrkRound) float64       // the same figure as wrk has it; nil: it has not
	whole func(*Report, *Cell) float64 // instead of these, what is not a round's
	to    string                       // divided by that of this variant; empty: by nothing
	conns int
	bound float64
	least bool // at least, else at most
	form  func(float64) string
}

// goals are in the order of the routes, what a request costs first.
var goals = []goal{
	{route: rig.Public, name: "requests/s", of: perSecond, wrk: wrkPerSecond, to: rig.None, conns: 32, bound: 0.95, least: true, form: ratioText},

	{route: rig.Read, name: "CPU", of: totalCPU, wrk: wrkCPU, to: rig.Select, conns: 32, bound: 0.5, form: ratioText},
	{route: rig.Read, name: "requests/s", of: perSecond, wrk: wrkPerSecond, to: rig.Select, conns: 32, bound: 1.7, least: true, form: ratioText},
	{route: rig.Read, name: "requests/s", of: perSecond, wrk: wrkPerSecond, to: rig.ScsRedis, conns: 32, bound: 1.7, least: true, form: ratioText},
	{route: rig.Read, name: "requests/s", of: perSecond, wrk: wrkPerSecond, to: rig.ScsMem, conns: 32, bound: 1.1, least: true, form: ratioText},
	{route: rig.Read, name: "p50", of: p50, to: rig.Select, conns: 1, bound: 1.05, form: ratioText},
	{route: rig.Read, name: "p99", of: p99, to: rig.Select, conns: 128, bound: 0.7, form: ratioText},
	{route: rig.Read, name: "WAL bytes, over a touch interval", whole: steadyWAL, conns: 32, bound: 20, form: func(v float64) string { return rig.Fixed(v, 1) }},

	{route: rig.Write, name: "CPU", of: totalCPU, wrk: wrkCPU, to: rig.SelectUpdate, conns: 32, bound: 0.4, form: ratioText},
	{route: rig.Write, name: "requests/s", of: perSecond, wrk: wrkPerSecond, to: rig.SelectUpdate, conns: 32, bound: 2, least: true, form: ratioText},
	{route: rig.Write, name: "requests/s", of: perSecond, wrk: wrkPerSecond, to: rig.ScsRedisAlways, conns: 32, bound: 1.2, least: true, form: ratioText},
	{route: rig.Write, name: "requests/s", of: perSecond, wrk: wrkPerSecond, to: rig.ScsRedis, conns: 32, bound: 0.9, least: true, form: ratioText},
	{route: rig.Write, name: "p50", of: p50, to: rig.SelectUpdate, conns: 1, bound: 1.05, form: ratioText},
	{route: rig.Write, name: "p99", of: p99, to: rig.SelectUpdate, conns: 128, bound: 0.7, form: ratioText},
	{route: rig.Write, name: "WAL bytes", of: walBytes, conns: 32, bound: 300, form: rig.Int},
	{route: rig.Write, name: "heap-only", whole: func(_ *Report, c *Cell) float64 { return c.heapOnly() }, conns: 32, bound: 0.97, least: true, form: percent},
}

func ratioText(v float64) string { return rig.Fixed(v, 2) }

func percent(v float64) string {
	if math.IsNaN(v) {
		return rig.Fixed(v, 0)
	}
	return rig.Fixed(100*v, 0) + " %"
}

func steadyWAL(r *Report, _ *Cell) float64 {
	if r.Steady == nil {
		return math.NaN()
	}
	return r.Steady.WAL
}

// String names what is measured.
func (g *goal) String() string {
	s := g.name
	if g.to != "" {
		s += " × " + rig.FindVariant(g.to).Label
	}
	switch g.conns {
	case 32: // as in the tables
	case 1:
		s += ", 1 connection"
	default:
		s += fmt.Sprintf(", %d connections", g.conns)
	}
	return s
}

// measured returns what a run says, and what wrk says; NaN where it says nothing.
func (g *goal) measured(r *Report) (v, byWrk float64) {
	ours := r.cell(rig.Session, g.route, g.conns)
	switch {
	case g.whole != nil:
		return g.whole(r, ours), math.NaN()
	case g.to == "":
		return ours.value(g.of), math.NaN()
	case g.to == rig.ScsRedisAlways && !r.fsync():
		return math.NaN(), math.NaN() // one durable, the other not
	}
	theirs := r.cell(g.to, g.route, g.conns)
	return ours.ratio(theirs, g.of), ours.wrkRatio(theirs, g.wrk)
}

// verdict compares as it is shown.
func (g *goal) verdict(v float64) string {
	shown := math.Round(100*v) / 100
	switch {
	case math.IsNaN(v):
		return ""
	case g.least && shown >= g.bound, !g.least && shown <= g.bound:
		return "reached"
	}
	return "missed"
}

// worst returns the one of the values that is farthest from being reached, NaN
// without any.
func (g *goal) worst(values []float64) float64 {
	w := math.NaN()
	for _, v := range values {
		if math.IsNaN(w) || g.least && v < w || !g.least && v > w {
			w = v
		}
	}
	return w
}

// goalTable is the table of goals with what each of the runs has come to, those
// that none has measured left out. Of several runs it also shows what holds in all of
// them, wrk's word included.
func goalTable(runs ...*Report) string {
	t := rig.Table{Head: []string{"route", "figure", "goal"}}
	several := len(runs) > 1
	for _, r := range runs {
		if several {
			t.Head = append(t.Head, r.Ground, r.Ground+", wrk")
		} else {
			t.Head = append(t.Head, "measured", "by wrk", "")
		}
	}
	if several {
		t.Head = append(t.Head, "holds on all", "")
	}
	for i := range goals {
		g := &goals[i]
		bound := "≤ "
		if g.least {
			bound = "≥ "
		}
		row := []string{"`" + g.route + "`", g.String(), bound + g.form(g.bound)}
		var all []float64
		for _, r := range runs {
			v, byWrk := g.measured(r)
			all = append(all, v, byWrk)
			row = append(row, g.form(v), g.form(byWrk))
			if !several {
				row = append(row, g.verdict(v))
			}
		}
		if several {
			w := g.worst(all)
			row = append(row, g.form(w), g.verdict(w))
		}
		if slices.ContainsFunc(all, func(v float64) bool { return !math.IsNaN(v) }) {
			t.Add(row...)
		}
	}
	return t.String()
}

// goalGrounds are where the goals are measured: where a commit takes what it takes
// here, and where it takes nothing. Other disks are between these two.
const goalGrounds = rig.OnDisk + "," + rig.InRAM

// Goals is the goals' measurements on several grounds; goals.json holds it.
type Goals struct {
	Runs []*Report `json:"runs"`
}

// forGoals leaves what the goals need: their cells alone.
func (o options) forGoals() options {
	o.conns = nil
	for _, g := range goals {
		if !slices.Contains(o.conns, g.conns) {
			o.conns = append(o.conns, g.conns)
		}
	}
	slices.Sort(o.conns)
	o.users, o.steady = max(o.users, slices.Max(o.conns)), 0
	o.wanted = wantedByGoals
	o.variants = slices.DeleteFunc(slices.Clone(o.variants), func(v string) bool {
		return v != rig.Session && !slices.ContainsFunc(goals, func(g goal) bool { return g.to == v })
	})
	return o
}

// wantedByGoals reports whether a goal needs a cell.
func wantedByGoals(variant, route string, conns int) bool {
	return slices.ContainsFunc(goals, func(g goal) bool {
		return g.route == route && g.conns == conns && (variant == rig.Session || variant == g.to)
	})
}

func measureGoals(ctx context.Context, module string, o options, grounds []rig.Ground) (*Goals, error) {
	all := new(Goals)
	for _, g := range grounds {
		rig.Log("== %s: %v", g.Name, g)
		o.ground = g
		r, err := benchmark(ctx, module, o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", g.Name, err)
		}
		all.Runs = append(all.Runs, r)
	}
	return all, nil
}

// text describes the runs and shows what they came to.
func (g *Goals) text() string {
	var s strings.Builder
	for i, r := range g.Runs {
		if i == 0 {
			fmt.Fprintf(&s, "%s %s\n", r.where(), r.load())
		}
		fmt.Fprintf(&s, "* %s\n", r.ground())
	}
	return s.String() + "\n" + goalTable(g.Runs...)
}

// Output implements [rig.Reporter].
func (g *Goals) Output() rig.Output {
	return rig.Output{
		Name: "goals", Command: "./run -goals", Title: "Goals", Text: g.text(),
		Parts: map[string]string{"goals": g.text()},
	}
}
