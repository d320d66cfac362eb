package main

import (
	"errors"
	"fmt"
	"math"

	"github.com/pgsession/session/bench/internal/rig"
)

// Paper is what is assumed to compute what so many requests a second need.
type Paper struct {
	Rates    []int   `json:"rates"`    // requests a second
	Writes   float64 `json:"writes"`   // % of requests that change the session
	Logins   float64 `json:"logins"`   // % that are logins; each is ended some time
	Gap      float64 `json:"gap"`      // seconds from one request of a session to its next
	Life     float64 `json:"life"`     // hours that a session stays after its last request
	Busy     float64 `json:"busy"`     // % of a core's time that may be used
	Cores    float64 `json:"cores"`    // of a database's machine
	OfOne    float64 `json:"ofOne"`    // cores of a program
	Hold     float64 `json:"hold"`     // milliseconds that a statement holds its connection
	Between  float64 `json:"between"`  // minutes between checkpoints
	Fraction float64 `json:"fraction"` // autovacuum_vacuum_scale_factor, in %
}

// touchSeconds is session.DefaultTouchInterval.
const touchSeconds = 60.0

var assumed = Paper{
	Rates: []int{10_000, 100_000, 1_000_000}, Writes: 15, Logins: 1, Gap: 12, Life: 24, Busy: 50, Cores: 16, OfOne: 4,
	Hold: 2, Between: 15, Fraction: 2,
}

// flags adds a flag for each, and returns their names.
func (p *Paper) flags(c *rig.Command) []string {
	names := []string{"rates"}
	c.IntsVar(&p.Rates, "rates", "on paper: requests a second")
	for _, f := range []struct {
		to          *float64
		name, usage string
	}{
		{&p.Writes, "writes", "% of requests that change the session"},
		{&p.Logins, "logins", "% of requests that are logins"},
		{&p.Gap, "gap", "seconds between two requests of a session"},
		{&p.Life, "life", "hours that a session stays after its last request"},
		{&p.Busy, "busy", "% of a core's time that may be used"},
		{&p.Cores, "cores", "cores of a database's machine"},
		{&p.OfOne, "program-cores", "cores of a program"},
		{&p.Hold, "hold", "milliseconds that a statement holds its connection"},
		{&p.Between, "checkpoints", "minutes between two checkpoints"},
		{&p.Fraction, "vacuum", "autovacuum_vacuum_scale_factor, in %"},
	} {
		c.Float64Var(f.to, f.name, *f.to, "on paper: "+f.usage)
		names = append(names, f.name)
	}
	return names
}

func (p *Paper) check() error {
	for _, v := range []float64{p.Gap, p.Life, p.Busy, p.Cores, p.OfOne, p.Hold, p.Between, p.Fraction, p.Logins} {
		if !(v > 0) || math.IsInf(v, 0) {
			return errors.New("on paper: every number must be over 0, -writes may be 0")
		}
	}
	if !(p.Writes >= 0) || p.Writes+p.Logins > 100 || p.Busy > 100 {
		return errors.New("on paper: -writes and -logins are more than 100 %, or -busy is")
	}
	return nil
}

// touched is the share of requests that find the expiry due.
func (p *Paper) touched() float64 { return min(1, p.Gap/touchSeconds) }

// request is what one takes.
type request struct{ program, postgres, statements, sent, received, wal float64 }

func (a request) add(share float64, b request) request {
	return request{
		a.program + share*b.program, a.postgres + share*b.postgres, a.statements + share*b.statements,
		a.sent + share*b.sent, a.received + share*b.received, a.wal + share*b.wal,
	}
}

// part is a route's share in the mean request.
type part struct {
	route string
	share float64
}

func (p *Paper) parts() []part {
	reads, t := 1-(p.Writes+p.Logins)/100, p.touched()
	return []part{{rig.Read, reads * (1 - t)}, {touch, reads * t}, {rig.Write, p.Writes / 100}, {pair, p.Logins / 100}}
}

// mean is the mean request of a layout; ok is false if a route was not measured there.
func (r *Report) mean(l Layout) (m request, ok bool) {
	for _, part := range r.Paper.parts() {
		c := r.cell(part.route, l)
		if c == nil {
			return m, false
		}
		m = m.add(part.share, c.request())
	}
	return m, true
}

func (c *Cell) request() request {
	q := request{c.median(programCPU), c.median(databaseCPU), c.Statements, c.median(sent), c.median(received), c.median(wal)}
	if c.Route == rig.Read {
		q.wal = 0 // what there is in the log of that time is PostgreSQL's own
	}
	return q
}

// paper computes what the rates need: the mean request, and the table. ok is false if
// not everything was measured that it takes.
func (r *Report) paper() (meanPart, needs string, ok bool) {
	many, ok := r.mean(base)
	if !ok {
		return "", "", false
	}
	single, ok := r.mean(alone)
	if !ok {
		return "", "", false
	}
	t := rig.Table{Head: []string{"of 100 requests", "are", "CPU of the program, µs", "CPU of PostgreSQL, µs", "statements", "bytes to it", "bytes from it", "WAL bytes"}}
	row := func(name, share string, q request) {
		t.Add(name, share, rig.Fixed(q.program, 1), rig.Fixed(q.postgres, 1), rig.Fixed(q.statements, 3), rig.Int(q.sent), rig.Int(q.received), rig.Int(q.wal))
	}
	for _, part := range r.Paper.parts() {
		row("`"+part.route+"`", rig.Fixed(100*part.share, 1), r.cell(part.route, base).request())
	}
	row("**mean**, 32 under way in a program", "100", many)
	row("**mean**, each alone", "100", single)
	return t.String(), r.needs(many, single), true
}

// needs is the table of what each rate needs.
func (r *Report) needs(many, single request) string {
	t := rig.Table{Head: []string{"what", "how"}}
	columns := make([][]line, len(r.Paper.Rates))
	for i, rate := range r.Paper.Rates {
		t.Head = append(t.Head, rig.Int(float64(rate)))
		columns[i] = r.lines(float64(rate), many, single)
	}
	for n, l := range columns[0] {
		row := []string{"**" + string(rune('a'+n)) + "** " + l.what, l.how}
		for _, c := range columns {
			row = append(row, c[n].value)
		}
		t.Add(row...)
	}
	return t.String()
}

// line is one step of the computation.
type line struct{ what, how, value string }

func (r *Report) lines(a float64, many, single request) []line {
	p := r.Paper
	write := r.cell(rig.Write, base)
	hot := write.median(heapOnly) / max(1e-9, write.median(updates))
	reads, writes, logins, t := 1-(p.Writes+p.Logins)/100, p.Writes/100, p.Logins/100, p.touched()
	b := between{a * many.program / 1e6 / (p.Busy / 100), a * single.program / 1e6 / (p.Busy / 100)}
	c := between{a * many.postgres / 1e6 / (p.Busy / 100), a * single.postgres / 1e6 / (p.Busy / 100)}
	d := b.over(p.OfOne)
	e := c.over(p.Cores)
	f := between{a * many.statements, a * single.statements}
	g := between{f[0] * p.Hold / 1000, f[1] * p.Hold / 1000}
	h := d[1] * float64(r.Pool)
	i := math.Ceil(d[1]/e[1]) * float64(r.Pool)
	j := between{a * (many.sent + many.received) * 8 / 1e6, a * (single.sent + single.received) * 8 / 1e6}
	k := a * many.wal / 1e6
	l := a * p.Gap
	m := l * (1 + p.Between*60*logins/p.Gap)
	n := m * 8192 / (p.Between * 60) / 1e6
	o := (k + n) * 86400 / 1e6
	q := a * logins * (p.Life*3600 + p.Gap/logins)
	s := q * (r.Row.Table + r.Row.Indexes) / 1e9
	u := a * (t*reads + writes + logins)
	v := a * (t*(reads+writes) + (1-t)*writes*(1-hot) + logins)
	w := q * p.Fraction / 100 / v
	x := q * r.Row.Indexes / 1e9 / e[1]
	percent := func(v float64) string { return rig.Fixed(v, 0) + " %" }
	return []line{
		{"requests a second", "assumed", rig.Int(a)},
		{"cores of the programs", fmt.Sprintf("a × %s to %s µs ÷ %s", rig.Fixed(many.program, 1), rig.Fixed(single.program, 1), percent(p.Busy)), b.String()},
		{"cores of PostgreSQL", fmt.Sprintf("a × %s to %s µs ÷ %s", rig.Fixed(many.postgres, 1), rig.Fixed(single.postgres, 1), percent(p.Busy)), c.String()},
		{"programs", fmt.Sprintf("b ÷ %s cores", rig.Int(p.OfOne)), d.String()},
		{"databases", fmt.Sprintf("c ÷ %s cores", rig.Int(p.Cores)), e.String()},
		{"statements a second", fmt.Sprintf("a × %s to %s", rig.Fixed(many.statements, 3), rig.Fixed(single.statements, 3)), f.String()},
		{"connections in use at a time, all databases", fmt.Sprintf("f × %g ms", p.Hold), g.String()},
		{"connections open to each database, every program with all", fmt.Sprintf("programs (most) × %d", r.Pool), rig.Int(h)},
		{"the same, each program with one", fmt.Sprintf("programs ÷ databases × %d", r.Pool), rig.Int(i)},
		{"Mbit/s between them", fmt.Sprintf("a × 8 × %s to %s bytes", rig.Int(many.sent+many.received), rig.Int(single.sent+single.received)), j.String()},
		{"log: records, MB/s", fmt.Sprintf("a × %s bytes", rig.Int(many.wal)), rig.Fixed(k, 1)},
		{"sessions in use at a time", fmt.Sprintf("a × %g s", p.Gap), rig.Int(l)},
		{"sessions in use between two checkpoints", fmt.Sprintf("l + a × %g %% × %g min", p.Logins, p.Between), rig.Int(m)},
		{"log: whole pages after a checkpoint, MB/s, at most", fmt.Sprintf("m × 8,192 bytes ÷ %g min", p.Between), rig.Fixed(n, 1)},
		{"log a day, TB", "(k + n) × 86,400 s", rig.Fixed(o, 2)},
		{"rows, if nobody logs out", fmt.Sprintf("a × %g %% × %g h + l", p.Logins, p.Life), rig.Int(q)},
		{"table and indexes, GB", fmt.Sprintf("p × (%s + %s) bytes", rig.Int(r.Row.Table), rig.Int(r.Row.Indexes)), rig.Int(s)},
		{"rows of each database", "p ÷ databases (most)", rig.Int(q / e[1])},
		{"GB of each database", "q ÷ databases (most)", rig.Int(s / e[1])},
		{"dead rows a second", fmt.Sprintf("a × (%.0f %% of reads + writes + logins)", 100*t), rig.Int(u)},
		{"of them for vacuum", fmt.Sprintf("a × (%.0f %% of reads and writes + %.0f %% of the other writes + logins)", 100*t, 100*(1-hot)), rig.Int(v)},
		{"seconds from one autovacuum to the next", fmt.Sprintf("p × %g %% ÷ u", p.Fraction), rig.Int(w)},
		{"GB of indexes that each reads, a database", fmt.Sprintf("r × %s bytes", rig.Int(r.Row.Indexes)), rig.Fixed(x, 1)},
	}
}

// between is from the least, where many requests are under way and share statements, to
// the most, where each is alone.
type between [2]float64

// over returns how many of a size are needed.
func (b between) over(size float64) between {
	return between{max(1, math.Ceil(b[0]/size)), max(1, math.Ceil(b[1]/size))}
}

func (b between) String() string {
	one, two := figure(b[0]), figure(b[1])
	if one == two {
		return one
	}
	return one + " to " + two
}

// figure writes small figures with a digit after the point.
func figure(v float64) string {
	if v < 10 && v != math.Trunc(v) {
		return rig.Fixed(v, 1)
	}
	return rig.Int(v)
}
