package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/pgsession/session/bench/internal/rig"
)

// Report is everything that was measured; run.json holds it.
type Report struct {
	rig.Occasion
	Redis     string            `json:"redis,omitempty"`
	Node      string            `json:"node,omitempty"`
	Settings  map[string]string `json:"postgresqlSettings"`
	CommitMs  float64           `json:"commitMs"` // the smallest durable write
	Users     int               `json:"users"`
	Pool      int               `json:"pool"`
	DataBytes int               `json:"dataBytes"` // of a session's record
	Rounds    int               `json:"rounds"`
	Seconds   float64           `json:"secondsEach"`
	Variants  []string          `json:"variants"`
	Cells     []*Cell           `json:"cells"`
	HeapOnly  []HeapOnly        `json:"heapOnly"`
	Steady    *Steady           `json:"steady,omitempty"`
}

// Cell is one server, one route, one number of connections.
type Cell struct {
	Variant    string   `json:"variant"`
	Route      string   `json:"route"`
	Conns      int      `json:"connections"`
	Statements *float64 `json:"statementsPerRequest,omitempty"`
	Rounds     []Round  `json:"rounds"`
}

// Round is one measurement; times in microseconds, usage per request.
type Round struct {
	Requests    int     `json:"requests"`
	PerSecond   float64 `json:"perSecond"`
	P50         float64 `json:"p50"`
	P99         float64 `json:"p99"`
	Max         float64 `json:"max"`
	ServerCPU   float64 `json:"serverCPU"`
	DatabaseCPU float64 `json:"databaseCPU"`
	ClientCPU   float64 `json:"clientCPU"` // the load generator's
	WAL         float64 `json:"walBytes"`
	SetCookies  float64 `json:"setCookies"`
}

// HeapOnly is the share of row updates that changed no index.
type HeapOnly struct {
	Variant string  `json:"variant"`
	Route   string  `json:"route"`
	Share   float64 `json:"share"`
}

// Steady is the run over a whole touch interval, this library reading.
type Steady struct {
	Seconds float64 `json:"seconds"`
	Conns   int     `json:"connections"`
	Round
}

// The figures of a round.
func perSecond(r Round) float64   { return r.PerSecond }
func p50(r Round) float64         { return r.P50 }
func p99(r Round) float64         { return r.P99 }
func serverCPU(r Round) float64   { return r.ServerCPU }
func databaseCPU(r Round) float64 { return r.DatabaseCPU }
func walBytes(r Round) float64    { return r.WAL }

// cell returns a measurement, nil if there is none.
func (r *Report) cell(variant, route string, conns int) *Cell {
	for _, c := range r.Cells {
		if c.Variant == variant && c.Route == route && c.Conns == conns && len(c.Rounds) > 0 {
			return c
		}
	}
	return nil
}

// value returns the median of a figure, NaN if it was not measured.
func (c *Cell) value(figure func(Round) float64) float64 {
	if c == nil {
		return math.NaN()
	}
	return rig.MedianOf(c.Rounds, figure)
}

// ratio returns the median of the rounds' ratios: what disturbs a round disturbs
// both sides of it.
func (c *Cell) ratio(to *Cell, figure func(Round) float64) float64 {
	if c == nil || to == nil {
		return math.NaN()
	}
	var v []float64
	for i := range min(len(c.Rounds), len(to.Rounds)) {
		if d := figure(to.Rounds[i]); d > 0 {
			v = append(v, figure(c.Rounds[i])/d)
		}
	}
	return rig.Median(v)
}

// conns returns the numbers of connections, in order.
func (r *Report) conns() (n []int) {
	for _, c := range r.Cells {
		if !slices.Contains(n, c.Conns) {
			n = append(n, c.Conns)
		}
	}
	slices.Sort(n)
	return n
}

func (r *Report) reference() int { return (&options{conns: r.conns()}).reference() }

// against lists what a route is compared with.
func against(route string) []string {
	switch route {
	case rig.Public, rig.New:
		return []string{rig.None}
	case rig.Read:
		return []string{rig.Select, rig.ScsRedis, rig.ScsMem}
	}
	return []string{rig.SelectUpdate, rig.ScsRedis, rig.ScsMem}
}

// routeTable is the main table of a route.
func (r *Report) routeTable(route string) string {
	conns := r.reference()
	t := rig.Table{Head: []string{"server", "requests/s"}}
	for _, name := range against(route) {
		t.Head = append(t.Head, "× "+rig.FindVariant(name).Label)
	}
	t.Head = append(t.Head, "p50 ms", "p99 ms", "server CPU µs", "database CPU µs", "statements", "WAL bytes")
	if route == rig.Write || route == rig.Read {
		t.Head = append(t.Head, "heap-only")
	}
	for _, name := range r.Variants {
		c := r.cell(name, route, conns)
		if c == nil {
			continue
		}
		v := rig.FindVariant(name)
		label := v.Label
		if v.Ours {
			label = "**" + label + "**"
		}
		row := []string{label, rig.Int(c.value(perSecond))}
		for _, to := range against(route) {
			row = append(row, rig.Fixed(c.ratio(r.cell(to, route, conns), perSecond), 2))
		}
		row = append(row, rig.Fixed(c.value(p50)/1e3, 2), rig.Fixed(c.value(p99)/1e3, 2), rig.Int(c.value(serverCPU)))
		row = append(row, c.database(v, route, r)...)
		t.Add(row[:min(len(row), len(t.Head))]...)
	}
	return t.String()
}

// database returns the columns about the database.
func (c *Cell) database(v *rig.Variant, route string, r *Report) []string {
	cpu, statements, wal, heap := "–", "–", "–", "–"
	if v.Store == rig.InPostgres || v.Store == rig.InRedis {
		cpu = rig.Int(c.value(databaseCPU))
	}
	if v.Store == rig.InPostgres {
		wal = rig.Int(c.value(walBytes))
		if c.Statements != nil {
			statements = rig.Fixed(*c.Statements, 2)
		}
	}
	for _, h := range r.HeapOnly {
		if h.Variant == v.Name && h.Route == route {
			heap = rig.Fixed(100*h.Share, 0) + " %"
		}
	}
	return []string{cpu, statements, wal, heap}
}

// connsTable shows a figure for each number of connections.
func (r *Report) connsTable(route string, format func(*Cell) string) string {
	t := rig.Table{Head: []string{"connections"}}
	for _, n := range r.conns() {
		t.Head = append(t.Head, strconv.Itoa(n))
	}
	for _, name := range r.Variants {
		row := []string{rig.FindVariant(name).Label}
		found := false
		for _, n := range r.conns() {
			c := r.cell(name, route, n)
			found = found || c != nil
			if c == nil {
				row = append(row, "–")
				continue
			}
			row = append(row, format(c))
		}
		if found {
			t.Add(row...)
		}
	}
	return t.String()
}

// target is a ratio that this library is held to.
type target struct {
	route, what, bound string
	got                float64
	met                bool
	format             func(float64) string
}

func (r *Report) targets() []target {
	n := r.reference()
	ratio := func(v float64) string { return rig.Fixed(v, 2) }
	var all []target
	add := func(route, what string, least bool, bound, got float64, format func(float64) string) {
		if math.IsNaN(got) {
			return
		}
		got = math.Round(100*got) / 100 // as it is shown
		t := target{route: route, what: what, bound: "≥ " + format(bound), got: got, met: got >= bound, format: format}
		if !least {
			t.bound, t.met = "≤ "+format(bound), got <= bound
		}
		all = append(all, t)
	}
	of := func(route, to string, conns int, figure func(Round) float64) float64 {
		return r.cell(rig.Session, route, conns).ratio(r.cell(to, route, conns), figure)
	}
	add(rig.Public, "requests/s × no session at all", true, 0.95, of(rig.Public, rig.None, n, perSecond), ratio)
	add(rig.Read, "requests/s × one prepared SELECT", true, 1.2, of(rig.Read, rig.Select, n, perSecond), ratio)
	add(rig.Read, "requests/s × scs + Redis", true, 1.3, of(rig.Read, rig.ScsRedis, n, perSecond), ratio)
	add(rig.Read, "requests/s × scs + memstore", true, 1.0, of(rig.Read, rig.ScsMem, n, perSecond), ratio)
	add(rig.Read, "PostgreSQL CPU × one prepared SELECT", false, 0.6, of(rig.Read, rig.Select, n, databaseCPU), ratio)
	add(rig.Read, "p99 × one prepared SELECT", false, 1.0, of(rig.Read, rig.Select, n, p99), ratio)
	if r.Steady != nil {
		add(rig.Read, "WAL bytes a request, over a touch interval", false, 20, r.Steady.WAL, func(v float64) string { return rig.Fixed(v, 1) })
	}
	add(rig.Read, "p50 × one prepared SELECT, 1 connection", false, 1.1, of(rig.Read, rig.Select, 1, p50), ratio)
	add(rig.Write, "requests/s × SELECT + UPDATE", true, 1.6, of(rig.Write, rig.SelectUpdate, n, perSecond), ratio)
	add(rig.Write, "requests/s × scs + Redis", true, 1.0, of(rig.Write, rig.ScsRedis, n, perSecond), ratio)
	add(rig.Write, "p99 × SELECT + UPDATE", false, 1.0, of(rig.Write, rig.SelectUpdate, n, p99), ratio)
	return all
}

func (r *Report) targetTable() string {
	t := rig.Table{Head: []string{"route", "figure", "goal", "measured", ""}}
	for _, g := range r.targets() {
		mark := "reached"
		if !g.met {
			mark = "missed"
		}
		t.Add("`"+g.route+"`", g.what, g.bound, g.format(g.got), mark)
	}
	return t.String()
}

// setting describes the run in sentences.
func (r *Report) setting() string {
	var s strings.Builder
	fmt.Fprintf(&s, "Measured on %s: %s, %d cores shared by server, database and load generator, %s of memory, Linux %s; %s, PostgreSQL %s",
		r.Date(), r.Machine.CPU, r.Machine.Cores, r.Machine.Memory, r.Machine.Kernel, r.Go, r.Postgres)
	if r.Redis != "" {
		fmt.Fprintf(&s, ", Redis %s", r.Redis)
	}
	if r.Node != "" {
		fmt.Fprintf(&s, ", Node %s", r.Node)
	}
	fmt.Fprintf(&s, ". Load averages before the run: %s.\n\n", r.Machine.Load)
	fmt.Fprintf(&s, "%d users of each server, %s bytes a record, %d database connections a server, %d rounds of %s s.\n",
		r.Users, rig.Int(float64(r.DataBytes)), r.Pool, r.Rounds, strconv.FormatFloat(r.Seconds, 'f', -1, 64))
	durable := "PostgreSQL is durable (fsync, full_page_writes and synchronous_commit on"
	if r.Settings["fsync"] == "off" {
		durable = "PostgreSQL ran WITHOUT fsync, as no real one should (full_page_writes and synchronous_commit on"
	}
	fmt.Fprintf(&s, "%s; the smallest write took %s ms to commit);\n", durable, rig.Fixed(r.CommitMs, 2))
	fmt.Fprintf(&s, "otherwise its defaults, but for shared_buffers %s, autovacuum off (tables are vacuumed between rounds), and\n", r.Settings["shared_buffers"])
	s.WriteString("max_wal_size and checkpoint_timeout so large that no checkpoint falls into a measurement. Redis has its defaults:\n")
	s.WriteString("snapshots now and then, nothing durable at once.\n")
	return s.String()
}

// steadyText is what a whole touch interval of reading cost.
func (r *Report) steadyText() string {
	if r.Steady == nil {
		return ""
	}
	return fmt.Sprintf("%.0f s of `/read` without a pause, %d connections, %s users: %s requests/s, %s WAL bytes and %s µs of PostgreSQL's CPU a request; "+
		"%s %% of the requests moved an expiry.\n",
		r.Steady.Seconds, r.Steady.Conns, rig.Int(float64(r.Users)), rig.Int(r.Steady.PerSecond), rig.Fixed(r.Steady.WAL, 1), rig.Int(r.Steady.DatabaseCPU),
		rig.Fixed(100*r.Steady.SetCookies, 2))
}

// parts are the pieces of the documentation, by the names of their places.
func (r *Report) parts() map[string]string {
	rate := func(c *Cell) string { return rig.Int(c.value(perSecond)) }
	late := func(c *Cell) string {
		return rig.Fixed(c.value(p50)/1e3, 2) + " / " + rig.Fixed(c.value(p99)/1e3, 2)
	}
	return map[string]string{
		"setting":       r.setting(),
		"targets":       r.targetTable(),
		"public":        r.routeTable(rig.Public),
		"new":           r.routeTable(rig.New),
		"read":          r.routeTable(rig.Read),
		"write":         r.routeTable(rig.Write),
		"read-conns":    r.connsTable(rig.Read, rate),
		"read-latency":  r.connsTable(rig.Read, late),
		"write-conns":   r.connsTable(rig.Write, rate),
		"write-latency": r.connsTable(rig.Write, late),
		"steady":        r.steadyText(),
	}
}

// markdown is report.md.
func (r *Report) markdown() string {
	p := r.parts()
	var s strings.Builder
	s.WriteString("# Benchmark\n\nWritten by `go run ./run` in `bench`. [docs/performance.md](../../docs/performance.md) explains the figures.\n\n")
	fmt.Fprintf(&s, "%s\n", p["setting"])
	for _, part := range []struct{ title, name string }{
		{"Goals", "targets"},
		{"`/public`: does not use the session", "public"},
		{"`/new`: looks for a user, finds none", "new"},
		{"`/read`: reads the user", "read"},
		{"`/write`: counts, and saves before it answers", "write"},
		{"`/read`, requests a second", "read-conns"},
		{"`/read`, p50 / p99 in ms", "read-latency"},
		{"`/write`, requests a second", "write-conns"},
		{"`/write`, p50 / p99 in ms", "write-latency"},
		{"A whole touch interval", "steady"},
	} {
		if p[part.name] != "" {
			fmt.Fprintf(&s, "## %s\n\n%s\n", part.title, p[part.name])
		}
	}
	return s.String()
}

// Output implements [rig.Reporter].
func (r *Report) Output() rig.Output {
	return rig.Output{Name: "run", Markdown: "report.md", Text: r.markdown(), Charts: r.charts(), Parts: r.parts()}
}
