package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/tests/faults"
)

type options struct {
	name     string
	duration time.Duration
	seed     uint64
	hashIDs  bool // else half of the processes encrypt
	logger   *slog.Logger

	// For tests: a database that is left alone, and with it the processes, and
	// a way in which their stores break promises.
	databaseURL string
	broken      string
	requests    int64 // go on until so many were answered with 2xx

	// found, if it is set, ends the soak when it is true of the findings; at the latest
	// after duration.
	found func(*faults.Findings) bool
}

// soak is one soak under way.
type soak struct {
	o         options
	ledger    *faults.Ledger
	server    *pgtest.Server // nil: left alone
	pool      *pgxpool.Pool  // the soak's own
	manager   *session.Manager
	processes []*process
	transport *http.Transport
	observer  *http.Client

	browsers []*browser // all
	brief    []*browser // whose sessions expire
	steady   []*user    // whose sessions are revoked

	crashed atomic.Bool // a process has ended by itself

	meter meter
	tally
	troubles
	problems
}

// run soaks. The error says why that was not possible; what was found is in the
// result.
func run(ctx context.Context, o options) (_ *result, err error) {
	s := &soak{
		o: o, ledger: faults.NewLedger(), meter: meter{pruned: map[int]uint64{}},
		transport: &http.Transport{MaxIdleConnsPerHost: workers, IdleConnTimeout: 5 * time.Second},
		observer:  &http.Client{Timeout: aliveTimeout},
	}
	defer s.transport.CloseIdleConnections()
	defer s.observer.CloseIdleConnections()
	dbURL := o.databaseURL
	if dbURL == "" {
		if s.server, err = pgtest.Find(ctx, pgtest.Options{OwnOnly: true}); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, s.server.Close()) }()
		dbURL = s.server.URL()
	}
	if err := s.open(ctx, dbURL); err != nil {
		return nil, err
	}
	defer s.pool.Close()
	defer s.stopAll()
	if err := s.startAll(ctx, dbURL); err != nil {
		return nil, err
	}
	began := time.Now()
	s.load(ctx)
	took := time.Since(began)
	if err := s.settle(context.WithoutCancel(ctx)); err != nil {
		return nil, err
	}
	return s.result(took), nil
}

// open connects the soak itself with the database, by a manager that encrypts
// nothing and reads everything.
func (s *soak) open(ctx context.Context, dbURL string) (err error) {
	if s.pool, err = newPool(ctx, dbURL, "soak", 3); err != nil {
		return err
	}
	quiet := slog.New(slog.DiscardHandler)
	store, err := session.NewPostgresStore(ctx, s.pool, session.PostgresOptions{HashIDs: s.o.hashIDs, Logger: quiet})
	if err == nil {
		s.manager, err = session.New(store, session.Config{Secret: faults.Secret, UserKey: string(keyUser), DisablePrune: true, Logger: quiet})
	}
	if err != nil {
		s.pool.Close()
	}
	return err
}

// startAll starts four processes, each set up differently.
func (s *soak) startAll(ctx context.Context, dbURL string) error {
	encrypt := !s.o.hashIDs
	for i, set := range []settings{
		{Connections: 4, Encrypt: encrypt},
		{Connections: 4, DisableBatching: true},
		{Connections: 2, Slots: 1, MaxBatch: 3},
		{Connections: 3, DisableBatching: true, Encrypt: encrypt},
	} {
		set.Name, set.DatabaseURL, set.HashIDs, set.Broken = strconv.Itoa(i+1), dbURL, s.o.hashIDs, s.o.broken
		s.processes = append(s.processes, &process{s: s, settings: set, steady: i < 2})
	}
	errs := make([]error, len(s.processes))
	var starting sync.WaitGroup
	for i, p := range s.processes {
		starting.Go(func() { errs[i] = p.start(ctx) })
	}
	starting.Wait()
	return errors.Join(errs...)
}

func (s *soak) stopAll() {
	var stopping sync.WaitGroup
	for _, p := range s.processes {
		stopping.Go(p.stop)
	}
	stopping.Wait()
}

// target returns the address of a random process.
func (s *soak) target(rng *rand.Rand) string {
	for {
		if l := s.processes[rng.IntN(len(s.processes))].life.Load(); l != nil {
			return l.url
		}
	}
}

// steadyHost is where a process listens that nobody kills.
func (s *soak) steadyHost() string {
	return strings.TrimPrefix(s.processes[0].life.Load().url, "http://")
}

// load runs everything at once until the time is over, each kind of trouble, of
// revocation and of expiry has been seen, and enough was measured, however long
// that takes here.
func (s *soak) load(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	s.newUsers()
	var running, first sync.WaitGroup
	stream := uint64(0)
	random := func() *rand.Rand {
		stream++
		return rand.New(rand.NewPCG(s.o.seed, stream))
	}
	// once lets the soak wait for the first success of something.
	once := func(f func(context.Context, *rand.Rand, func())) {
		first.Add(1)
		rng, done := random(), sync.OnceFunc(first.Done)
		running.Go(func() { defer done(); f(ctx, rng, done) })
	}
	once(s.revokeAgain)
	for range 3 {
		once(s.rest)
	}
	if s.server != nil {
		once(s.trouble)
	}
	for range workers {
		rng := random()
		running.Go(func() { s.work(ctx, rng) })
	}
	running.Go(func() { s.measure(ctx) })
	running.Go(func() { s.report(ctx) })
	running.Go(func() { s.watch(ctx, stop) })
	if pause(ctx, s.o.duration) && s.o.found == nil {
		seen := make(chan struct{})
		go func() { first.Wait(); close(seen) }()
		select {
		case <-seen:
		case <-ctx.Done():
		}
		for !s.enough() && pause(ctx, again) {
		}
	}
	stop()
	running.Wait()
}

// enough reports whether the soak can be judged.
func (s *soak) enough() bool {
	series := 1 // of connections
	for _, p := range s.processes {
		if p.steady {
			series += 3
		}
	}
	if !s.meter.enough(series) || s.ok.Load() < s.o.requests {
		return false
	}
	counts := s.counts()
	for _, name := range s.wanted() {
		if counts[name] == 0 {
			return false
		}
	}
	return true
}

// report says every minute how it goes.
func (s *soak) report(ctx context.Context) {
	for pause(ctx, time.Minute) {
		s.o.logger.Info("under way", "soak", s.o.name, "requests", s.requests.Load(), "2xx", s.ok.Load(), "found", s.findings())
	}
}

// watch stops the soak when there is no sense in going on.
func (s *soak) watch(ctx context.Context, stop func()) {
	for pause(ctx, again) {
		if f := s.findings(); s.crashed.Load() || s.o.found != nil && s.o.found(&f) {
			stop()
		}
	}
}

func (s *soak) findings() faults.Findings {
	f, _ := s.ledger.Findings()
	f.Resurrected += int(s.undead.Load())
	return f
}

// settle ends the load's sessions in good order, and closes the books: whoever
// was logged in still is, in all processes, and the table agrees with the ledger.
func (s *soak) settle(ctx context.Context) error {
	for _, b := range s.browsers {
		if b.wire.brief || b.wire.inDoubt() { // it expires, or has ended
			s.expect(b, faults.Logout, s.processes[0])
		}
	}
	for _, u := range s.steady {
		for _, b := range u.browsers {
			for _, p := range s.processes {
				s.expect(b, faults.Read, p)
			}
		}
	}
	// What expires meanwhile is not meant.
	var before string
	if err := s.ask(ctx, &before, "SELECT localtimestamp::text"); err != nil {
		return err
	}
	if _, err := s.manager.Prune(ctx); err != nil {
		return err
	}
	var left int
	if err := s.ask(ctx, &left, "SELECT count(*) FROM schema_system.session WHERE expire < $1::text::timestamp", before); err != nil {
		return err
	}
	if left != 0 {
		s.problem("expired rows after pruning: got %d, want none", left)
	}
	rows, err := s.rows(ctx)
	if err != nil {
		return err
	}
	s.ledger.Audit(rows)
	s.stopAll()
	for range int(aliveTimeout / again) { // a backend ends after its client
		if err := s.ask(ctx, &left, sqlConnections, applicationName+"%"); err != nil {
			return err
		}
		if left == 0 || !pause(ctx, again) {
			break
		}
	}
	if left != 0 {
		s.problem("connections after the end of all processes: got %d, want none", left)
	}
	return nil
}

// expect sends a request, of a browser that has a session, that must succeed, at once or
// when the database answers in time again.
func (s *soak) expect(b *browser, kind faults.Kind, p *process) {
	l := p.life.Load()
	for end := time.Now().Add(aliveTimeout); l != nil && b.LoggedIn(); time.Sleep(again) {
		a := s.enter(b.Do(kind, l.url+wayUsed))
		if a.OK() {
			return
		}
		if a.Status != http.StatusServiceUnavailable || time.Now().After(end) {
			s.problem("%s when all was over: got status %d, want 200", kind, a.Status)
			return
		}
	}
}

// rows returns the table's rows, by the application's own means where some are
// encrypted.
func (s *soak) rows(ctx context.Context) ([]faults.Row, error) {
	if s.o.hashIDs {
		return faults.ReadRows(ctx, s.pool)
	}
	infos, err := s.manager.Sessions(ctx, session.Everyone())
	if err != nil {
		return nil, err
	}
	if len(infos) == 1000 {
		return nil, errors.New("more sessions than Manager.Sessions returns")
	}
	keys := []string{string(keyUser), "serial", "count", "last", "pad"}
	for n := range s.marks.Load() {
		keys = append(keys, fmt.Sprint(markPrefix, n+1))
	}
	var rows []faults.Row
	for _, i := range infos {
		row := faults.Row{}
		for _, key := range keys {
			if v, ok := session.Key[json.RawMessage](key).Of(i); ok {
				row[key] = v
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
}
