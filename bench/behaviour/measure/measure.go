// Package measure asks applications on several session libraries the same questions
// and makes a table of the answers.
package measure

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Options are what a run may choose.
type Options struct {
	Trials       int           // of each race
	StoreTimeout time.Duration // this library's
	NoExpress    bool
	Log          func(format string, args ...any) // what is being done; nil: nothing
}

// Table is what came out.
type Table struct {
	Libraries []string
	Versions  []string // of everything that was measured
	Rows      []Row
}

// Row is one behaviour.
type Row struct {
	Name  string // for tests and the log
	Title string
	Cells []string // one for each library
}

// Cell returns the answer of a library to a row, "" if there is none.
func (t *Table) Cell(row, library string) string {
	i := slices.Index(t.Libraries, library)
	for _, r := range t.Rows {
		if r.Name == row && i >= 0 && i < len(r.Cells) {
			return r.Cells[i]
		}
	}
	return ""
}

// Markdown returns the table, and below it what was measured.
func (t *Table) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| | %s |\n|---|%s\n", strings.Join(t.Libraries, " | "), strings.Repeat("---|", len(t.Libraries)))
	for _, r := range t.Rows {
		fmt.Fprintf(&b, "| %s | %s |\n", r.Title, strings.Join(r.Cells, " | "))
	}
	fmt.Fprintf(&b, "\nMeasured: %s.\n", strings.Join(t.Versions, ", "))
	return b.String()
}

// bench is a run.
type bench struct {
	Options
	server *server
	gates  *gates
	apps   map[shape]*app // that several questions share
}

type shape struct {
	lib     *library
	sliding bool
}

// question is one that is asked of one library at a time.
type question struct {
	name, title string
	ask         func(context.Context, *bench, *library) (string, error)
}

// Run measures everything, on a PostgreSQL that it starts and stops.
func Run(ctx context.Context, o Options) (table *Table, err error) {
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	b := &bench{Options: o, apps: map[shape]*app{}}
	libraries := []*library{sessionLibrary(), scsLibrary(), gorillaLibrary()}
	if !o.NoExpress {
		l, err := expressLibrary(ctx)
		if err != nil {
			return nil, err
		}
		libraries = append(libraries, l)
	}
	if b.gates, err = newGates(); err != nil {
		return nil, err
	}
	defer b.gates.close()
	if b.server, err = startServer(ctx); err != nil {
		return nil, err
	}
	defer func() {
		for _, a := range b.apps {
			a.close()
		}
		err = errors.Join(err, b.server.close())
	}()

	table = &Table{}
	for _, q := range questions {
		row := Row{Name: q.name, Title: q.title}
		for _, l := range libraries {
			o.Log("%s: %s", q.name, l.name)
			cell, err := q.ask(ctx, b, l)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", q.name, l.name, err)
			}
			row.Cells = append(row.Cells, cell)
		}
		table.Rows = append(table.Rows, row)
	}
	outages, err := b.outage(ctx, libraries)
	if err != nil {
		return nil, fmt.Errorf("outage: %w", err)
	}
	table.Rows = slices.Insert(table.Rows, afterRaces, outages...)
	if !o.NoExpress {
		row, err := b.shared(ctx, libraries)
		if err != nil {
			return nil, fmt.Errorf("shared: %w", err)
		}
		table.Rows = append(table.Rows, row)
	}
	for _, l := range libraries {
		table.Libraries = append(table.Libraries, l.name)
		table.Versions = append(table.Versions, l.versions...)
	}
	var version string
	if err := b.server.admin.QueryRow(ctx, "SHOW server_version").Scan(&version); err != nil {
		return nil, err
	}
	table.Versions = append(table.Versions, "PostgreSQL "+version, runtime.Version())
	return table, nil
}

// plain returns the application on l that has no special settings, sliding the one
// where every use of the session extends it.
func (b *bench) plain(ctx context.Context, l *library) (*app, error) {
	return b.app(ctx, shape{lib: l})
}

func (b *bench) sliding(ctx context.Context, l *library) (*app, error) {
	return b.app(ctx, shape{lib: l, sliding: true})
}

func (b *bench) app(ctx context.Context, s shape) (*app, error) {
	if a := b.apps[s]; a != nil {
		return a, nil
	}
	a, err := b.launch(ctx, s.lib, appOptions{sliding: s.sliding})
	if err == nil {
		b.apps[s] = a
	}
	return a, err
}

// launch starts an application on a database of its own and warms it up.
func (b *bench) launch(ctx context.Context, l *library, o appOptions) (*app, error) {
	db, err := b.server.database(ctx)
	if err != nil {
		return nil, err
	}
	return b.launchOn(ctx, l, db, o)
}

func (b *bench) launchOn(ctx context.Context, l *library, db *database, o appOptions) (*app, error) {
	o.gates, o.storeTimeout = b.gates, b.StoreTimeout
	a, err := l.start(ctx, db, o)
	if err != nil {
		return nil, err
	}
	if err := (&browser{app: a}).must(ctx, "/visit"); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

// visitor returns a browser with a session and no user, user one that has logged in
// as well.
func (a *app) visitor(ctx context.Context) (*browser, error) {
	w := &browser{app: a}
	return w, w.must(ctx, "/visit")
}

func (a *app) user(ctx context.Context) (*browser, error) {
	w, err := a.visitor(ctx)
	if err != nil {
		return nil, err
	}
	return w, w.must(ctx, "/login")
}
