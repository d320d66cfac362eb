package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/bench/internal/rig"
)

// Report is everything that was measured; locked.json holds it.
type Report struct {
	rig.Occasion
	Seconds float64   `json:"lockedSeconds"`
	Conns   int       `json:"savers"`
	Blocked int       `json:"saversOfTheLockedSession"`
	Pool    int       `json:"pool"`
	Results []*Result `json:"results"`
}

// Result is one server.
type Result struct {
	Variant string  `json:"variant"`
	Free    []Run   `json:"unlocked"` // rounds
	Locked  []Run   `json:"locked"`
	Late    float64 `json:"lateMs"` // the latest neighbour, beyond the usual time
	Ratio   float64 `json:"ratio"`  // of all savers' throughput
}

// Run is one measurement; times in milliseconds, those of the neighbours.
type Run struct {
	All        float64 `json:"perSecond"`           // answers of all savers
	Neighbours float64 `json:"neighboursPerSecond"` // of those on other sessions
	P50        float64 `json:"p50"`
	P99        float64 `json:"p99"`
	Max        float64 `json:"max"`
	Waited     int     `json:"blockedAnswers"` // of savers of the locked session, all of them right
}

// savers is a Script: the first connections all write to one session, the others to
// sessions of their own.
type savers struct {
	*rig.Visits // the neighbours' part
	blocked     int
	request     []byte
	begun       func()       // called with the first requests
	merges      bool         // every number must come once
	seen        map[int]bool // answers of the shared session

	neighbours rig.Hist
	inTime     int
	waited     int
}

// Next implements rig.Script.
func (s *savers) Next(conn int) (int, []byte) {
	s.begun()
	if conn < s.blocked {
		return 0, s.request
	}
	return s.Visits.Next(conn - s.blocked)
}

// Done implements rig.Script.
func (s *savers) Done(conn, tag int, a rig.Answer) error {
	if conn >= s.blocked {
		s.neighbours.Add(a.Latency)
		if !a.Late {
			s.inTime++
		}
		return s.Visits.Done(conn-s.blocked, tag, a)
	}
	s.waited++
	n, err := strconv.Atoi(string(a.Body))
	if a.Status != http.StatusOK || err != nil {
		return fmt.Errorf("the locked session: got %d %q, want 200 and a number", a.Status, a.Body)
	}
	if s.merges && s.seen[n] {
		return fmt.Errorf("the locked session: got %d twice, want every number once", n)
	}
	s.seen[n] = true
	return nil
}

// stand is one server with its users.
type stand struct {
	options
	server *rig.Server
	users  *rig.Users
	shared string // cookie of the session that is locked
	seen   map[int]bool
	db     *pgx.Conn
}

func measure(ctx context.Context, module string, o options) (*Report, error) {
	stage, err := rig.NewStage(ctx, rig.Setup{Module: module, Pool: o.pool, Packages: []string{"./server", "./peers/selectupdate"}})
	if err != nil {
		return nil, err
	}
	defer stage.Close()
	r := &Report{
		Occasion: rig.Now(stage.Postgres.Version),
		Seconds:  o.duration.Seconds(), Conns: o.conns, Blocked: o.blocked, Pool: o.pool,
	}
	for _, name := range o.variants {
		rig.Log("measuring %s", name)
		s, err := newStand(ctx, stage, o, name)
		if err != nil {
			return nil, err
		}
		result, err := s.measure(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		r.Results = append(r.Results, result)
	}
	return r, nil
}

const lockedUser = "locked"

func newStand(ctx context.Context, stage *rig.Stage, o options, name string) (*stand, error) {
	v := rig.FindVariant(name)
	s := &stand{options: o, seen: make(map[int]bool)}
	var err error
	if s.server, err = stage.Enter(ctx, v); err != nil {
		return nil, err
	}
	if s.users, err = rig.LoginUsers(s.server, "user", o.users); err != nil {
		return nil, err
	}
	if s.shared, err = s.server.Login(http.DefaultClient, lockedUser); err != nil {
		return nil, err
	}
	s.db, err = stage.Connect(ctx, v.Database())
	return s, err
}

func (s *stand) measure(ctx context.Context) (*Result, error) {
	result := &Result{Variant: s.server.Variant.Name}
	if _, err := s.run(ctx, s.duration/3, func() {}); err != nil { // warms up
		return nil, err
	}
	var late, ratio []float64
	for range s.rounds {
		free, err := s.run(ctx, s.duration, func() {})
		if err != nil {
			return nil, fmt.Errorf("without a lock: %w", err)
		}
		locked, err := s.lockedRun(ctx)
		if err != nil {
			return nil, fmt.Errorf("with a lock: %w", err)
		}
		result.Free, result.Locked = append(result.Free, free), append(result.Locked, locked)
		late = append(late, locked.Max-free.P50)
		ratio = append(ratio, locked.All/max(free.All, 1e-9))
	}
	result.Late, result.Ratio = slices.Max(late), rig.Median(ratio)
	return result, nil
}

// lockedRun locks the row for the whole duration.
func (s *stand) lockedRun(ctx context.Context) (run Run, err error) {
	tx, err := s.db.Begin(ctx)
	if err != nil {
		return run, err
	}
	tag, err := tx.Exec(ctx, "SELECT 1 FROM schema_system.session WHERE sess->>'user_id' = $1 FOR UPDATE", lockedUser)
	if err == nil && tag.RowsAffected() != 1 {
		err = fmt.Errorf("%d rows of the user to lock, want 1", tag.RowsAffected())
	}
	if err != nil {
		return run, errors.Join(err, tx.Rollback(ctx))
	}
	begun, committed := make(chan struct{}), make(chan error, 1)
	begin := sync.OnceFunc(func() { close(begun) })
	go func() {
		<-begun // so that the lock outlasts the run
		select {
		case <-time.After(s.duration):
		case <-ctx.Done():
		}
		committed <- tx.Commit(context.WithoutCancel(ctx))
	}()
	run, err = s.run(ctx, s.duration, begin)
	begin() // also where it has failed before
	return run, errors.Join(err, <-committed)
}

func (s *stand) run(ctx context.Context, d time.Duration, begun func()) (Run, error) {
	script := &savers{
		Visits:  rig.NewVisits(s.server.Variant, rig.Write, s.users, s.conns-s.blocked, 0),
		blocked: s.blocked, begun: begun, request: rig.Request(rig.Write, s.shared), merges: s.server.Variant.Ours, seen: s.seen,
	}
	result, err := rig.Load{Addrs: []string{s.server.Addr}, Conns: s.conns, Duration: d, Script: script}.Run(ctx)
	if err != nil {
		return Run{}, err
	}
	h := &script.neighbours
	return Run{
		All: result.PerSecond(), Neighbours: float64(script.inTime) / d.Seconds(),
		P50: rig.Milliseconds(h.Quantile(0.5)), P99: rig.Milliseconds(h.Quantile(0.99)), Max: rig.Milliseconds(h.Max()), Waited: script.waited,
	}, nil
}

func (r *Report) table() string {
	t := rig.Table{Head: []string{"server", "all savers/s", "locked", "ratio", "neighbours/s", "locked", "p99 ms", "locked", "max ms", "locked", "latest by ms"}}
	for _, x := range r.Results {
		row := []string{rig.FindVariant(x.Variant).Label}
		for _, f := range []func(Run) float64{func(r Run) float64 { return r.All }, func(r Run) float64 { return r.Neighbours }} {
			row = append(row, rig.Int(rig.MedianOf(x.Free, f)), rig.Int(rig.MedianOf(x.Locked, f)))
			if len(row) == 3 {
				row = append(row, rig.Fixed(x.Ratio, 2))
			}
		}
		for _, f := range []func(Run) float64{func(r Run) float64 { return r.P99 }, func(r Run) float64 { return r.Max }} {
			row = append(row, rig.Fixed(rig.MedianOf(x.Free, f), 1), rig.Fixed(rig.MedianOf(x.Locked, f), 1))
		}
		t.Add(append(row, rig.Fixed(x.Late, 1))...)
	}
	return t.String()
}

func (r *Report) part() string {
	return fmt.Sprintf("%d savers, %d of them on a session whose row another transaction holds for %s s; %d database connections; PostgreSQL %s, %s.\n\n",
		r.Conns, r.Blocked, strconv.FormatFloat(r.Seconds, 'f', -1, 64), r.Pool, r.Postgres, r.Date()) + r.table()
}

// Output implements [rig.Reporter].
func (r *Report) Output() rig.Output {
	return rig.Output{
		Name: "locked", Title: "One locked row", Text: r.part(),
		Parts: map[string]string{"locked": r.part()},
	}
}
