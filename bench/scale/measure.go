package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/pgsession/session/bench/internal/app"
	"github.com/pgsession/session/bench/internal/rig"
)

// Report is everything that was measured; scale.json holds it.
type Report struct {
	rig.Occasion
	Seconds float64  `json:"seconds"`
	Rounds  int      `json:"rounds"`
	Users   int      `json:"users"` // of each database
	Pool    int      `json:"pool"`
	Row     Row      `json:"row"`
	Layouts []Layout `json:"layouts"`
	Cells   []*Cell  `json:"cells"`
	Paper   Paper    `json:"paper"`
}

// Row is what a session takes, in bytes.
type Row struct {
	Record  float64 `json:"record"` // its JSON
	Table   float64 `json:"table"`  // with the room in the pages
	Indexes float64 `json:"indexes"`
}

// Cell is what one route came to in one layout.
type Cell struct {
	Layout     Layout  `json:"layout"`
	Route      string  `json:"route"`
	Statements float64 `json:"statements"` // a request, counted in a pass of its own
	Rounds     []Round `json:"rounds"`
}

// Round is one measurement. All but Requests is for one request, a pair's for login
// and logout together; times in microseconds.
type Round struct {
	Requests    float64 `json:"requests"`
	ProgramCPU  float64 `json:"programCPU"`
	DatabaseCPU float64 `json:"databaseCPU"`
	Sent        float64 `json:"bytesToDatabase"`
	Received    float64 `json:"bytesFromDatabase"`
	WAL         float64 `json:"walBytes"`
	Updates     float64 `json:"updates"` // of rows
	HeapOnly    float64 `json:"heapOnly"`
}

// rigged are the programs and databases of all layouts: each takes the first of them.
type rigged struct {
	options
	programs  []*rig.Server
	databases []*rig.Postgres
	towns     []*town
	closers   rig.Closers
}

const database = "bench_scale"

func measure(ctx context.Context, module string, o options) (*Report, error) {
	g, err := build(ctx, module, o)
	if err != nil {
		return nil, err
	}
	defer g.closers.Close()
	r := &Report{
		Occasion: rig.Now(g.databases[0].Version), Seconds: o.duration.Seconds(), Rounds: o.rounds,
		Users: o.users, Pool: o.pool, Layouts: o.layouts,
	}
	if err := g.firstWrites(ctx); err != nil {
		return nil, err
	}
	for _, route := range o.routes {
		cells, err := g.compare(ctx, route)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", route, err)
		}
		r.Cells = append(r.Cells, cells...)
	}
	r.Row, err = g.row(ctx)
	return r, err
}

// build starts a PostgreSQL for each database, so that none shares another's log and
// commits, and the programs, each of which knows all of them.
func build(ctx context.Context, module string, o options) (_ *rigged, err error) {
	g := &rigged{options: o}
	defer func() {
		if err != nil {
			g.closers.Close()
		}
	}()
	programs, databases := 0, 0
	for _, l := range o.layouts {
		programs, databases = max(programs, l.Programs), max(databases, l.Databases)
	}
	var urls []string
	rig.Log("starting %d PostgreSQL and %d programs", databases, programs)
	for range databases {
		// Small: there are several, and each has a few hundred rows.
		pg, err := rig.StartPostgres(ctx, map[string]string{"shared_buffers": "64MB", "max_wal_size": "4GB"})
		if err != nil {
			return nil, err
		}
		g.closers.Add(pg.Close)
		g.databases = append(g.databases, pg)
		if err := pg.Create(ctx, database, ""); err != nil {
			return nil, err
		}
		urls = append(urls, pg.URL(database))
	}
	binaries, remove, err := rig.Build(ctx, module, "./server")
	if err != nil {
		return nil, err
	}
	g.closers.Add(remove)
	launch := rig.Launch{Module: module, Binaries: binaries, Pool: o.pool, Secret: rand.Text() + rand.Text()}
	v := &rig.Variant{
		Name: database, Store: rig.InPostgres, Program: "server", Ours: true,
		// No expiry becomes due by itself: /touch is what measures that.
		Env: []string{"BENCH_DATABASES=" + strings.Join(urls, " "), "BENCH_TOUCH_INTERVAL=1h", "BENCH_PRUNE=off"},
	}
	for range programs {
		s, err := launch.Start(ctx, v, urls[0])
		if err != nil {
			return nil, err
		}
		g.closers.Add(s.Stop)
		g.programs = append(g.programs, s)
	}
	for i := range databases {
		t := newTown(i, o.users)
		g.towns = append(g.towns, t)
		if _, err := (rig.Load{Addrs: []string{g.programs[0].Addr}, Conns: 16, Script: &arrivals{town: t}}).Run(ctx); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// firstWrites lets every user change the session once: the first change adds what merges
// need, and is logged whole. Later ones are what is to be measured.
func (g *rigged) firstWrites(ctx context.Context) error {
	l := Layout{Programs: 1, Databases: len(g.databases), Conns: 16}
	_, err := g.measure(ctx, l, rig.Write, g.users*len(g.databases)/l.Conns)
	return err
}

// row measures what a session takes in a table of many, with expiries at random: the
// measured ones some times over, under other IDs. They are gone afterwards.
func (g *rigged) row(ctx context.Context) (r Row, err error) {
	db, err := g.databases[0].Connect(ctx, database)
	if err != nil {
		return r, err
	}
	defer db.Close(context.WithoutCancel(ctx))
	for _, sql := range []string{
		"CREATE TEMPORARY TABLE one AS SELECT sid, sess, expire FROM schema_system.session WHERE length(sess::text) > 1000",
		"TRUNCATE schema_system.session",
		`INSERT INTO schema_system.session SELECT substr(md5(sid || n) || md5(n || sid), 1, length(sid)), sess, expire + random() * interval '1 day'
			FROM one, generate_series(1, 20) n`,
		"VACUUM ANALYZE schema_system.session",
	} {
		if _, err := db.Exec(ctx, sql); err != nil {
			return r, err
		}
	}
	err = db.QueryRow(ctx, `SELECT avg(octet_length(sess::text))::float8, pg_table_size('schema_system.session')::float8 / count(*),
		pg_indexes_size('schema_system.session')::float8 / count(*) FROM schema_system.session`).Scan(&r.Record, &r.Table, &r.Indexes)
	return r, err
}

// vacuum stands in for autovacuum, which would come when it likes.
func (g *rigged) vacuum(ctx context.Context) error {
	for _, pg := range g.databases {
		db, err := pg.Connect(ctx, database)
		if err != nil {
			return err
		}
		_, err = db.Exec(ctx, "VACUUM ANALYZE schema_system.session")
		_ = db.Close(context.WithoutCancel(ctx))
		if err != nil {
			return err
		}
	}
	return nil
}

// compare measures a route in all layouts in turn, beginning with another each round.
func (g *rigged) compare(ctx context.Context, route string) ([]*Cell, error) {
	rig.Log("%s: counting statements", route)
	cells := make([]*Cell, len(g.layouts))
	for i, l := range g.layouts {
		cells[i] = &Cell{Layout: l, Route: route}
		if err := g.count(ctx, cells[i]); err != nil {
			return nil, fmt.Errorf("%+v: %w", l, err)
		}
	}
	for n := range g.rounds {
		rig.Log("%s: round %d of %d", route, n+1, g.rounds)
		if err := g.vacuum(ctx); err != nil {
			return nil, err
		}
		for i := range cells {
			c := cells[(i+n)%len(cells)]
			m, err := g.measure(ctx, c.Layout, route, 0)
			if err != nil {
				return nil, fmt.Errorf("%+v: %w", c.Layout, err)
			}
			c.Rounds = append(c.Rounds, m)
		}
	}
	return cells, nil
}

// count is a pass in which PostgreSQL counts statements, which costs time.
func (g *rigged) count(ctx context.Context, c *Cell) error {
	const requests = 1024
	each := 2 * max(1, min(requests/c.Layout.conns(), requests/8)/2)
	used := g.databases[:c.Layout.Databases]
	for _, pg := range used {
		if err := pg.Count(ctx, true); err != nil {
			return err
		}
	}
	// Connections that are there hear of it when they next have something to do.
	if _, err := g.measure(ctx, c.Layout, c.Route, 2); err != nil {
		return err
	}
	before, err := statements(ctx, used)
	if err != nil {
		return err
	}
	m, err := g.measure(ctx, c.Layout, c.Route, each)
	if err != nil {
		return err
	}
	after, err := statements(ctx, used)
	if err != nil {
		return err
	}
	c.Statements = float64(after-before) / m.Requests
	for _, pg := range used {
		if err := pg.Count(ctx, false); err != nil {
			return err
		}
	}
	return nil
}

func statements(ctx context.Context, all []*rig.Postgres) (total int64, err error) {
	for _, pg := range all {
		n, err := pg.Statements(ctx, database)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// measure makes so many requests on each connection, or as many as there is time for.
func (g *rigged) measure(ctx context.Context, l Layout, route string, each int) (m Round, err error) {
	v, err := l.visits(route, g.towns[:l.Databases], each)
	if err != nil {
		return m, err
	}
	load := rig.Load{Conns: l.conns(), Script: v}
	if each == 0 {
		load.Duration = g.duration
	}
	for _, p := range g.programs[:l.Programs] {
		load.Addrs = append(load.Addrs, p.Addr)
	}
	before, err := g.usage(ctx, l)
	if err != nil {
		return m, err
	}
	if _, err := load.Run(ctx); err != nil {
		return m, err
	}
	after, err := g.usage(ctx, l)
	if err != nil {
		return m, err
	}
	u := after.sub(before)
	if err := u.addsUp(l, v); err != nil {
		return m, err
	}
	m.Requests = float64(v.done)
	if route == pair {
		m.Requests /= 2
	}
	for i, pg := range g.databases[:l.Databases] {
		rows, err := pg.Updates(ctx, before.wal[i], after.wal[i])
		if err != nil {
			return m, err
		}
		m.Updates += float64(rows.All) / m.Requests
		m.HeapOnly += float64(rows.HeapOnly) / m.Requests
		m.WAL += float64(u.wal[i]) / m.Requests
	}
	for _, program := range u.used {
		for _, d := range program {
			m.Sent += float64(d.Sent) / m.Requests
			m.Received += float64(d.Received) / m.Requests
		}
	}
	m.ProgramCPU, m.DatabaseCPU = rig.Microseconds(u.programs)/m.Requests, rig.Microseconds(u.databases)/m.Requests
	return m, nil
}

// usage is what a layout's programs and databases have used so far, or meanwhile.
type usage struct {
	programs, databases time.Duration // CPU
	wal                 []int64       // of each database
	used                [][]app.Used  // of each program, of each database
}

func (g *rigged) usage(ctx context.Context, l Layout) (u usage, err error) {
	for _, p := range g.programs[:l.Programs] {
		used, err := ask(ctx, p.Addr)
		if err != nil {
			return u, err
		}
		u.used = append(u.used, used)
	}
	for _, pg := range g.databases[:l.Databases] {
		wal, err := pg.WAL(ctx)
		if err != nil {
			return u, err
		}
		u.wal = append(u.wal, wal)
		cpu, err := pg.CPU()
		if err != nil {
			return u, err
		}
		u.databases += cpu
	}
	for _, p := range g.programs[:l.Programs] {
		cpu, err := p.CPU()
		if err != nil {
			return u, err
		}
		u.programs += cpu
	}
	return u, nil
}

// ask asks a program what it has used.
func ask(ctx context.Context, addr string) (used []app.Used, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/used", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return used, json.Unmarshal(b, &used)
}

func (u usage) sub(since usage) usage {
	d := usage{programs: u.programs - since.programs, databases: u.databases - since.databases}
	for i := range u.wal {
		d.wal = append(d.wal, u.wal[i]-since.wal[i])
	}
	for i, program := range u.used {
		all := make([]app.Used, len(program))
		for j, now := range program {
			then := since.used[i][j]
			all[j] = app.Used{
				Sent: now.Sent - then.Sent, Received: now.Received - then.Received,
				Loads: now.Loads - then.Loads, Creates: now.Creates - then.Creates, Saves: now.Saves - then.Saves,
				Touches: now.Touches - then.Touches, Destroys: now.Destroys - then.Destroys,
			}
		}
		d.used = append(d.used, all)
	}
	return d
}

// addsUp compares the load with what the library counts: every request was somebody's,
// and each program has worked for the databases that are its own, and for no others.
func (u usage) addsUp(l Layout, v *visits) error {
	var sum app.Used
	for i, program := range u.used {
		for j, d := range program {
			own := j < l.Databases && (!l.Own || j == i%l.Databases)
			if worked := d.Loads+d.Creates > 0; worked != own {
				return fmt.Errorf("program %d, database %d: worked for it: %t, want %t", i, j, worked, own)
			}
			sum.Loads += d.Loads
			sum.Creates += d.Creates
			sum.Saves += d.Saves
			sum.Touches += d.Touches
			sum.Destroys += d.Destroys
		}
	}
	want := app.Used{Loads: v.done}
	switch v.route {
	case rig.Write:
		want.Saves = v.done
	case pair:
		logins, logouts := v.pairs()
		want = app.Used{Loads: sum.Loads, Creates: logins, Destroys: logouts}
	}
	if sum != want {
		return fmt.Errorf("%d requests: the programs counted %+v, want %+v", v.done, sum, want)
	}
	return nil
}
