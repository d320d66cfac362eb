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
	Redis       string            `json:"redis,omitempty"`
	Node        string            `json:"node,omitempty"`
	Settings    map[string]string `json:"postgresqlSettings"`
	Ground      string            `json:"ground"` // what the stores stand on
	FileSystem  string            `json:"fileSystem"`
	CommitMs    []float64         `json:"commitMs"`    // the smallest durable write, before each round
	RoundTripMs float64           `json:"roundTripMs"` // a statement that does nothing
	Users       int               `json:"users"`
	Pool        int               `json:"pool"`
	DataBytes   int               `json:"dataBytes"` // of a session's record
	Rounds      int               `json:"rounds"`
	Seconds     float64           `json:"secondsEach"`
	Variants    []string          `json:"variants"`
	Cells       []*Cell           `json:"cells"`
	Steady      *Steady           `json:"steady,omitempty"`
}

// Cell is one server, one route, one number of connections.
type Cell struct {
	Variant    string     `json:"variant"`
	Route      string     `json:"route"`
	Conns      int        `json:"connections"`
	Statements *float64   `json:"statementsPerRequest,omitempty"`
	Rounds     []Round    `json:"rounds"`
	Wrk        []WrkRound `json:"wrk,omitempty"` // the same rounds, each right after it
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
	Updates     int64   `json:"rowUpdates"` // all of them together
	HeapOnly    int64   `json:"heapOnlyUpdates"`
	SetCookies  float64 `json:"setCookies"`
	Others      float64 `json:"othersShare"` // of the machine's time, used by other programs
	Stolen      float64 `json:"stolenShare"` // … by the hypervisor
}

// WrkRound is one measurement by wrk.
type WrkRound struct {
	rig.WrkResult
	CPU float64 `json:"cpu"` // server and store, microseconds a request
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
func totalCPU(r Round) float64    { return r.ServerCPU + r.DatabaseCPU }
func serverCPU(r Round) float64   { return r.ServerCPU }
func databaseCPU(r Round) float64 { return r.DatabaseCPU }
func walBytes(r Round) float64    { return r.WAL }

func wrkPerSecond(r WrkRound) float64 { return r.PerSecond }
func wrkCPU(r WrkRound) float64       { return r.CPU }

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
	return ratio(c.Rounds, to.Rounds, figure)
}

// wrkRatio is ratio for what wrk has measured; NaN without a figure.
func (c *Cell) wrkRatio(to *Cell, figure func(WrkRound) float64) float64 {
	if c == nil || to == nil || figure == nil {
		return math.NaN()
	}
	return ratio(c.Wrk, to.Wrk, figure)
}

func ratio[R any](ours, theirs []R, figure func(R) float64) float64 {
	var v []float64
	for i := range min(len(ours), len(theirs)) {
		if d := figure(theirs[i]); d > 0 {
			v = append(v, figure(ours[i])/d)
		}
	}
	return rig.Median(v)
}

// heapOnly returns the share of row updates that changed no index, NaN where only
// now and then a request updates a row.
func (c *Cell) heapOnly() float64 {
	if c == nil {
		return math.NaN()
	}
	requests := 0
	var u rig.Updates
	for _, r := range c.Rounds {
		requests += r.Requests
		u.All, u.HeapOnly = u.All+r.Updates, u.HeapOnly+r.HeapOnly
	}
	share, _ := u.Share()
	if u.All <= int64(requests/10) {
		return math.NaN()
	}
	return share
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

// column is one of a route's table.
type column struct {
	head string
	text func(v *rig.Variant, c *Cell) string
}

// columns are those of a route's table: what a request costs first, for that is
// what its user pays, and it changes least from machine to machine.
func (r *Report) columns(route string) []column {
	conns, others := r.reference(), against(route)
	first := rig.FindVariant(others[0]).Label
	to := func(name string) *Cell { return r.cell(name, route, conns) }
	figure := func(of func(Round) float64, format func(float64) string) func(*rig.Variant, *Cell) string {
		return func(_ *rig.Variant, c *Cell) string { return format(c.value(of)) }
	}
	columns := []column{
		{"CPU µs", figure(totalCPU, rig.Int)},
		{"CPU × " + first, func(_ *rig.Variant, c *Cell) string { return ratioText(c.ratio(to(others[0]), totalCPU)) }},
		{"requests/s", figure(perSecond, rig.Int)},
	}
	for _, name := range others {
		columns = append(columns, column{"× " + rig.FindVariant(name).Label, func(_ *rig.Variant, c *Cell) string {
			return ratioText(c.ratio(to(name), perSecond))
		}})
	}
	if r.byWrk() {
		columns = append(columns,
			column{"wrk: requests/s", func(_ *rig.Variant, c *Cell) string { return rig.Int(rig.MedianOf(c.Wrk, wrkPerSecond)) }},
			column{"wrk: × " + first, func(_ *rig.Variant, c *Cell) string { return ratioText(c.wrkRatio(to(others[0]), wrkPerSecond)) }})
	}
	columns = append(columns,
		column{"p50 ms", figure(p50, msText)}, column{"p99 ms", figure(p99, msText)},
		column{"server CPU µs", figure(serverCPU, rig.Int)},
		column{"store CPU µs", where(figure(databaseCPU, rig.Int), rig.InPostgres, rig.InRedis)},
		column{"statements", statementsText},
		column{"WAL bytes", where(figure(walBytes, rig.Int), rig.InPostgres)})
	switch route {
	case rig.Read:
		columns = append(columns, column{"heap-only", heapOnlyText})
	case rig.Write:
		columns = append(columns, column{"heap-only", heapOnlyText}, column{"durable", r.durable})
	}
	return columns
}

// byWrk reports whether wrk has measured anything.
func (r *Report) byWrk() bool {
	return slices.ContainsFunc(r.Cells, func(c *Cell) bool { return len(c.Wrk) > 0 })
}

// where shows a figure only of variants with such a store.
func where(text func(*rig.Variant, *Cell) string, stores ...string) func(*rig.Variant, *Cell) string {
	return func(v *rig.Variant, c *Cell) string {
		if !slices.Contains(stores, v.Store) {
			return "–"
		}
		return text(v, c)
	}
}

func statementsText(_ *rig.Variant, c *Cell) string {
	if c.Statements == nil {
		return "–"
	}
	return rig.Fixed(*c.Statements, 2)
}

func heapOnlyText(_ *rig.Variant, c *Cell) string { return percent(c.heapOnly()) }

// durable says from when on a change outlives the machine's power in this run.
func (r *Report) durable(v *rig.Variant, _ *Cell) string {
	if v.Store == rig.InPostgres && !r.fsync() {
		return "minutes later"
	}
	return v.Durable()
}

func (r *Report) fsync() bool { return r.Settings["fsync"] != "off" }

// routeTable is the main table of a route.
func (r *Report) routeTable(route string) string {
	columns := r.columns(route)
	t := rig.Table{Head: []string{"server"}}
	for _, c := range columns {
		t.Head = append(t.Head, c.head)
	}
	for _, name := range r.Variants {
		cell, v := r.cell(name, route, r.reference()), rig.FindVariant(name)
		if cell == nil {
			continue
		}
		row := []string{v.Label}
		if v.Ours {
			row[0] = "**" + v.Label + "**"
		}
		for _, c := range columns {
			row = append(row, c.text(v, cell))
		}
		t.Add(row...)
	}
	return t.String()
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

// where names the machine.
func (r *Report) where() string {
	var s strings.Builder
	kind := ""
	if r.Machine.Guest {
		kind = " (a virtual machine)"
	}
	fmt.Fprintf(&s, "Measured on %s: %s%s, %d cores shared by server, store and load generator, %s of memory, Linux %s; %s, PostgreSQL %s",
		r.Date(), r.Machine.CPU, kind, r.Machine.Cores, r.Machine.Memory, r.Machine.Kernel, r.Go, r.Postgres)
	if r.Redis != "" {
		fmt.Fprintf(&s, ", Redis %s", r.Redis)
	}
	if r.Node != "" {
		fmt.Fprintf(&s, ", Node %s", r.Node)
	}
	return s.String() + "."
}

// load says what else the machine did.
func (r *Report) load() string {
	s := fmt.Sprintf("Load averages before the run: %s.", r.Machine.Load)
	var others, stolen []float64
	for _, c := range r.Cells {
		for _, m := range c.Rounds {
			others, stolen = append(others, m.Others), append(stolen, m.Stolen)
		}
	}
	if len(others) == 0 || slices.Max(others) == 0 {
		return s // nobody looked
	}
	return s + fmt.Sprintf(" Of the machine's time others used %s in the median measurement and %s in the worst, the hypervisor %s and %s.",
		percent(rig.Median(others)), percent(slices.Max(others)), percent(rig.Median(stolen)), percent(slices.Max(stolen)))
}

// ground says what the stores stood on and what a commit takes there.
func (r *Report) ground() string {
	var s strings.Builder
	fmt.Fprintf(&s, "`%s`", r.Ground)
	if g, err := rig.ParseGround(r.Ground); err == nil {
		fmt.Fprintf(&s, ": %v", g)
	}
	if r.FileSystem != "" {
		fmt.Fprintf(&s, ", %s", r.FileSystem)
	}
	if len(r.CommitMs) > 0 {
		fmt.Fprintf(&s, "; the smallest commit takes %s ms", rig.Fixed(rig.Median(r.CommitMs), 2))
		if least, most := slices.Min(r.CommitMs), slices.Max(r.CommitMs); len(r.CommitMs) > 1 {
			fmt.Fprintf(&s, " (%s to %s from round to round)", rig.Fixed(least, 2), rig.Fixed(most, 2))
		}
	}
	if r.RoundTripMs > 0 {
		fmt.Fprintf(&s, ", a statement that does nothing %s ms", rig.Fixed(r.RoundTripMs, 2))
	}
	return s.String() + "."
}

// setting describes the run in sentences.
func (r *Report) setting() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s %s\n\n", r.where(), r.load())
	fmt.Fprintf(&s, "The stores stood on %s\n\n", r.ground())
	fmt.Fprintf(&s, "%d users of each server, %s bytes a record, %d connections a server to its store, %d rounds of %s s.\n",
		r.Users, rig.Int(float64(r.DataBytes)), r.Pool, r.Rounds, strconv.FormatFloat(r.Seconds, 'f', -1, 64))
	durable := "PostgreSQL is durable (fsync, full_page_writes and synchronous_commit on)"
	if !r.fsync() {
		durable = "PostgreSQL ran WITHOUT fsync, as no real one should"
	}
	fmt.Fprintf(&s, "%s and has its defaults, but for shared_buffers %s, autovacuum off\n", durable, r.Settings["shared_buffers"])
	s.WriteString("(tables are vacuumed between rounds), and max_wal_size and checkpoint_timeout so large that no checkpoint falls into a\n")
	s.WriteString("measurement. Redis has its defaults (snapshots now and then, nothing durable at once), but for `appendonly` and\n")
	s.WriteString("`appendfsync` where the name says so.\n")
	return s.String()
}

// steadyText is what a whole touch interval of reading cost.
func (r *Report) steadyText() string {
	if r.Steady == nil {
		return ""
	}
	return fmt.Sprintf("%.0f s of `/read` without a pause, %d connections, %s users: %s µs of CPU a request, of which PostgreSQL's %s, %s requests/s, %s WAL bytes a request; "+
		"%s %% of the requests moved an expiry.\n",
		r.Steady.Seconds, r.Steady.Conns, rig.Int(float64(r.Users)), rig.Int(totalCPU(r.Steady.Round)), rig.Int(r.Steady.DatabaseCPU), rig.Int(r.Steady.PerSecond), rig.Fixed(r.Steady.WAL, 1),
		rig.Fixed(100*r.Steady.SetCookies, 2))
}

// msText shows microseconds as milliseconds.
func msText(v float64) string { return rig.Fixed(v/1e3, 2) }

// parts are the pieces of the documentation, by the names of their places.
func (r *Report) parts() map[string]string {
	rate := func(c *Cell) string { return rig.Int(c.value(totalCPU)) + " / " + rig.Int(c.value(perSecond)) }
	late := func(c *Cell) string { return msText(c.value(p50)) + " / " + msText(c.value(p99)) }
	return map[string]string{
		"setting":       r.setting(),
		"targets":       goalTable(r),
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

// markdown is the text of report.md.
func (r *Report) markdown() string {
	p := r.parts()
	var s strings.Builder
	s.WriteString("[docs/performance.md](../../docs/performance.md) explains the figures.\n\n")
	fmt.Fprintf(&s, "%s\n", p["setting"])
	for _, part := range []struct{ title, name string }{
		{"Goals", "targets"},
		{"`/public`: does not use the session", "public"},
		{"`/new`: looks for a user, finds none", "new"},
		{"`/read`: reads the user", "read"},
		{"`/write`: counts, and saves before it answers", "write"},
		{"`/read`, CPU µs of server and store / requests a second", "read-conns"},
		{"`/read`, p50 / p99 in ms", "read-latency"},
		{"`/write`, CPU µs of server and store / requests a second", "write-conns"},
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
	return rig.Output{Name: "run", Markdown: "report.md", Title: "Benchmark", Text: r.markdown(), Charts: r.charts(), Parts: r.parts()}
}
