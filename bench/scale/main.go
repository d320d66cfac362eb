// Command scale measures what a request costs when there are more programs and more
// databases: statements, bytes to and from the database, bytes of write-ahead log, and
// CPU of the programs and of PostgreSQL. From that and an assumed mix of requests it
// computes what larger numbers of them need. From the directory bench:
//
//	go run ./scale                          writes the report
//	go run ./scale -short                   seconds, to see that it works
//	go run ./scale -from results/scale.json -rates 5000 -writes 40
//	                                        measures nothing: prints the computation with other numbers
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/pgsession/session/bench/internal/rig"
)

// Routes of this library's server that are measured; pair is a login and its logout.
const (
	touch  = "/touch" // reads, and moves the expiry whether due or not
	login  = "/login"
	logout = "/logout"
	pair   = "login+logout"
)

var allRoutes = []string{rig.Read, touch, rig.Write, pair}

// options say what is measured.
type options struct {
	layouts  []Layout // the first is what the others are compared with
	routes   []string
	rounds   int
	duration time.Duration // of a measurement
	users    int           // of each database; at least as many as connections
	pool     int           // connections of a program to each database
}

// base is what all others are compared with, alone the same with one request at a time.
var (
	base  = Layout{Programs: 1, Databases: 1, Conns: 32}
	alone = Layout{Programs: 1, Databases: 1, Conns: 1}
)

var (
	full = options{
		layouts: []Layout{
			base,
			{Programs: 2, Databases: 1, Conns: 32},
			{Programs: 4, Databases: 1, Conns: 32},
			{Programs: 8, Databases: 1, Conns: 32},
			{Programs: 1, Databases: 2, Conns: 32},
			{Programs: 1, Databases: 4, Conns: 32},
			{Programs: 4, Databases: 4, Conns: 32},
			{Programs: 4, Databases: 4, Own: true, Conns: 32},
			{Programs: 1, Databases: 1, Conns: 8},
			alone,
		},
		routes: allRoutes, rounds: 7, duration: time.Second, users: 512, pool: 16,
	}
	short = options{
		layouts: []Layout{
			base,
			{Programs: 2, Databases: 2, Conns: 8},
			{Programs: 2, Databases: 2, Own: true, Conns: 8},
			alone,
		},
		routes: allRoutes, rounds: 1, duration: 40 * time.Millisecond, users: 64, pool: 8,
	}
)

func main() {
	rig.Program{Name: "scale", Files: "the report", Tables: "tables are", Docs: "scaling.md"}.Main(command)
}

func command(ctx context.Context, c *rig.Command) error {
	o, p := rig.Choose(c, full, short), assumed
	from := c.String("from", "", "measure nothing: compute with the figures in this file, a scale.json")
	c.CountVar(&o.rounds, "rounds", "how often each measurement is made")
	c.TimeVar(&o.duration, "duration", "how long a measurement takes")
	c.NamesVar(&o.routes, "routes", "routes to measure", allRoutes)
	paperFlags := p.flags(c)
	if err := c.Parse(); err != nil {
		return err
	}
	if err := p.check(); err != nil {
		return err
	}
	// What measures or assumes something else leaves the documents alone.
	for _, other := range append(paperFlags, "routes") {
		if c.Given(other) {
			if err := c.Aside(); err != nil {
				return err
			}
		}
	}
	if *from != "" {
		r, err := again(*from)
		if err != nil {
			return err
		}
		r.Paper = p
		return c.Save(r, nil)
	}
	r, err := measure(ctx, c.Module, o)
	if err != nil {
		return err
	}
	r.Paper = p
	return c.Save(r, nil)
}

// again reads a report.
func again(file string) (*Report, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := new(Report)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	return r, nil
}
