package main

import (
	"fmt"
	"math"
	"strconv"

	"github.com/pgsession/session/bench/internal/rig"
)

// charts returns the SVGs that the README shows.
func (r *Report) charts() map[string]string {
	n := r.reference()
	at := func(better, route string) string {
		return fmt.Sprintf("%d connections, application on one core, 1 KB a session; %s is better; × %s", n, better, rig.FindVariant(against(route)[0]).Label)
	}
	rate := func(v float64) string { return rig.Int(v) }
	cost := func(v float64) string { return rig.Int(v) + " µs" }
	return map[string]string{
		"public":    r.bars(bars{rig.Public, perSecond, anyStore, rate, true, "Requests a second that do not use the session", at("longer", rig.Public)}),
		"read":      r.bars(bars{rig.Read, perSecond, anyStore, rate, true, "Requests a second that read the session", at("longer", rig.Read)}),
		"write":     r.bars(bars{rig.Write, perSecond, anyStore, rate, true, "Requests a second that change the session", at("longer", rig.Write)}),
		"read-cpu":  r.bars(bars{rig.Read, totalCPU, anyStore, cost, true, "CPU of server and store, a request that reads the session", at("shorter", rig.Read)}),
		"write-cpu": r.bars(bars{rig.Write, totalCPU, anyStore, cost, true, "CPU of server and store, a request that changes the session", at("shorter", rig.Write)}),
		"read-wal": r.walChart(bars{
			rig.Read, walBytes, inPostgres, bytes, false,
			"Write-ahead log a request that reads the session", fmt.Sprintf("%d connections; shorter is better; replicas and backups carry it too", n),
		}),
		"read-connections":  r.lines(rig.Read, perSecond, false, "Reading: requests a second by connections", "application on one core; higher is better"),
		"write-connections": r.lines(rig.Write, perSecond, false, "Writing: requests a second by connections", "application on one core; higher is better"),
		"read-p99":          r.lines(rig.Read, p99, true, "Reading: the slowest of a hundred, by connections", "p99, logarithmic, lower is better"),
		"write-p99":         r.lines(rig.Write, p99, true, "Writing: the slowest of a hundred, by connections", "p99, logarithmic, lower is better"),
	}
}

func anyStore(string) bool         { return true }
func inPostgres(store string) bool { return store == rig.InPostgres }

// bars is a bar chart of a figure of a route.
type bars struct {
	route           string
	figure          func(Round) float64
	where           func(store string) bool // servers with such a store only
	format          func(float64) string
	ratios          bool // to the route's first comparison, beside the values
	title, subtitle string
}

// bars returns the SVG, empty without figures.
func (r *Report) bars(c bars) string {
	all := r.barsOf(c)
	if len(all) == 0 {
		return ""
	}
	return rig.BarChart(c.title, c.subtitle, all)
}

// walChart is a bar chart with this library's figure from the run over a whole
// touch interval, for in a measurement of seconds no expiry moves.
func (r *Report) walChart(c bars) string {
	all := r.barsOf(c)
	if r.Steady == nil || len(all) == 0 {
		return ""
	}
	ours := rig.FindVariant(rig.Session).Label
	kept := all[:0]
	for _, b := range all {
		switch {
		case b.Label == ours:
			b.Value, b.Text = r.Steady.WAL, c.format(r.Steady.WAL)
		case b.Ours: // not measured so
			continue
		}
		kept = append(kept, b)
	}
	return rig.BarChart(c.title, c.subtitle, kept)
}

func bytes(v float64) string {
	if v > 0 && v < 10 {
		return rig.Fixed(v, 1) + " bytes"
	}
	return rig.Int(v) + " bytes"
}

func (r *Report) barsOf(c bars) (all []rig.Bar) {
	n := r.reference()
	base := r.cell(against(c.route)[0], c.route, n)
	for _, name := range r.Variants {
		cell, v := r.cell(name, c.route, n), rig.FindVariant(name)
		if cell == nil || !c.where(v.Store) {
			continue
		}
		b := rig.Bar{Label: v.Label, Value: cell.value(c.figure), Ours: v.Ours, Limit: v.Limit}
		b.Text = c.format(b.Value)
		if ratio := cell.ratio(base, c.figure); c.ratios && !math.IsNaN(ratio) {
			b.Text += "|" + rig.Fixed(ratio, 2) + " ×"
		}
		all = append(all, b)
	}
	return all
}

// lines returns a line chart of a route over the numbers of connections.
func (r *Report) lines(route string, figure func(Round) float64, log bool, title, subtitle string) string {
	var steps []string
	for _, n := range r.conns() {
		steps = append(steps, strconv.Itoa(n))
	}
	shown := []string{rig.Session, against(route)[0], rig.ScsRedis, rig.ScsRedisAlways, rig.ScsMem, rig.ExpressServer}
	var series []rig.Series
	for i, name := range shown {
		line := rig.Series{Label: rig.FindVariant(name).Label, Colour: i}
		found := false
		for _, n := range r.conns() {
			v := r.cell(name, route, n).value(figure)
			if log {
				v /= 1e3 // milliseconds
			}
			found = found || !math.IsNaN(v)
			line.Values = append(line.Values, v)
		}
		if found {
			series = append(series, line)
		}
	}
	if len(series) == 0 {
		return ""
	}
	format := rig.Int
	if log {
		format = func(v float64) string { return strconv.FormatFloat(v, 'g', 3, 64) + " ms" }
	}
	return rig.LineChart(title, subtitle, steps, series, log, format)
}
