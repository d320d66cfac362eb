package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"

	"github.com/pgsession/session/bench/internal/rig"
)

// Report is everything that was measured; streams.json holds it.
type Report struct {
	rig.Occasion
	Seconds float64 `json:"seconds"`
	Logouts int     `json:"logouts"`
	Cells   []*Cell `json:"cells"`
}

// Cell is one number of streams.
type Cell struct {
	Streams     int       `json:"streams"`
	Statements  float64   `json:"statementsASecond"`
	ProgramCPU  float64   `json:"programCPU"`  // milliseconds a second
	DatabaseCPU float64   `json:"databaseCPU"` // likewise
	Heap        float64   `json:"heapBytesAStream"`
	Delay       []float64 `json:"delay"` // milliseconds from a logout's answer to the end of its stream
}

const database = "bench_streams"

func measure(ctx context.Context, o options) (*Report, error) {
	stage, err := rig.NewStage(ctx, rig.Setup{})
	if err != nil {
		return nil, err
	}
	defer stage.Close()
	if err := stage.Postgres.Create(ctx, database, ""); err != nil {
		return nil, err
	}
	r := &Report{Occasion: rig.Now(stage.Postgres.Version), Seconds: o.open.Seconds(), Logouts: o.logouts}
	for _, n := range o.streams {
		rig.Log("%d streams", n)
		c, err := one(ctx, stage, o, n)
		if err != nil {
			return nil, fmt.Errorf("%d streams: %w", n, err)
		}
		r.Cells = append(r.Cells, c)
	}
	return r, nil
}

// program has a session and a stream for each of many users.
type program struct {
	m       *session.Manager
	cookies []string
	streams []context.Context
	done    []func()
}

// one opens n streams and measures what they cost while nothing else happens.
func one(ctx context.Context, stage *rig.Stage, o options, n int) (c *Cell, err error) {
	pool, err := pgxpool.New(ctx, stage.Postgres.URL(database))
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, "DROP SCHEMA IF EXISTS schema_system CASCADE"); err != nil {
		return nil, err
	}
	quiet := slog.New(slog.DiscardHandler)
	store, err := session.NewPostgresStore(ctx, pool, session.PostgresOptions{Logger: quiet})
	if err != nil {
		return nil, err
	}
	m, err := session.New(store, session.Config{Secret: stage.Secret, DisablePrune: true, Logger: quiet})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	p := &program{m: m, cookies: make([]string, n), streams: make([]context.Context, n), done: make([]func(), n)}
	if err := p.login(); err != nil {
		return nil, err
	}
	if _, err := pool.Exec(ctx, "VACUUM ANALYZE schema_system.session"); err != nil {
		return nil, err
	}
	c = &Cell{Streams: n}
	before := heap()
	if err := p.open(ctx); err != nil {
		return nil, err
	}
	defer p.leave()
	c.Heap = max(0, float64(heap())-float64(before)) / float64(n)
	if err := p.idle(ctx, stage.Postgres, o.open, c); err != nil {
		return nil, err
	}
	return c, p.logouts(ctx, min(o.logouts, n), c)
}

// heap returns how many bytes are in use.
func heap() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// serve makes a request with a user's cookie, and returns the cookie that was sent.
func (p *program) serve(ctx context.Context, user int, f func(*session.Session)) error {
	r := httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx)
	if cookie := p.cookies[user]; cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	w := httptest.NewRecorder()
	p.m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { f(session.From(r.Context())) })).ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		return fmt.Errorf("got status %d, want 200", w.Code)
	}
	if cookie, _, _ := strings.Cut(w.Header().Get("Set-Cookie"), ";"); cookie != "" {
		p.cookies[user] = cookie
	}
	return nil
}

// each calls f for every user, some at once.
func (p *program) each(f func(user int) error) error {
	const workers = 32
	errs := make([]error, workers)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := w; i < len(p.cookies) && errs[w] == nil; i += workers {
				errs[w] = f(i)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

const user session.Key[string] = "user_id"

func (p *program) login() error {
	return p.each(func(i int) error {
		return p.serve(context.Background(), i, func(s *session.Session) { user.Set(s, fmt.Sprint("user ", i)) })
	})
}

// open lets each user open a stream, whose handler is still there when it returns.
func (p *program) open(ctx context.Context) error {
	return p.each(func(i int) error {
		ready, leave, left := make(chan bool), make(chan struct{}), make(chan error, 1)
		go func() {
			left <- p.serve(ctx, i, func(s *session.Session) {
				_, known := user.Get(s)
				stream, stop := s.Watch(ctx)
				defer stop()
				p.streams[i] = stream
				ready <- known
				<-leave
			})
		}()
		p.done[i] = sync.OnceFunc(func() {
			close(leave)
			<-left
		})
		if !<-ready {
			return errors.New("got no user in a session")
		}
		return nil
	})
}

func (p *program) leave() {
	for _, done := range p.done {
		if done != nil {
			done()
		}
	}
}

// idle measures while the streams are open and nothing happens.
func (p *program) idle(ctx context.Context, pg *rig.Postgres, open time.Duration, c *Cell) error {
	if err := pg.Count(ctx, true); err != nil {
		return err
	}
	began := time.Now()
	n, program, db, err := used(ctx, pg)
	if err != nil {
		return err
	}
	select {
	case <-time.After(open):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	endN, endProgram, endDB, err := used(ctx, pg)
	if err != nil {
		return err
	}
	seconds := time.Since(began).Seconds()
	c.Statements, c.ProgramCPU, c.DatabaseCPU = float64(endN-n)/seconds, (endProgram-program)/seconds, (endDB-db)/seconds
	for i, s := range p.streams {
		if s.Err() != nil {
			return fmt.Errorf("stream %d has ended: %w", i, context.Cause(s))
		}
	}
	return pg.Count(ctx, false)
}

// used returns how many statements there were so far, and the CPU milliseconds.
func used(ctx context.Context, pg *rig.Postgres) (n int64, program, db float64, err error) {
	if n, err = pg.Statements(ctx, database); err != nil {
		return 0, 0, 0, err
	}
	mine, err := rig.ProcessCPU(os.Getpid())
	if err != nil {
		return 0, 0, 0, err
	}
	theirs, err := pg.CPU()
	return n, rig.Microseconds(mine) / 1000, rig.Microseconds(theirs) / 1000, err
}

// logouts ends sessions by requests of their own, and waits for their streams.
func (p *program) logouts(ctx context.Context, n int, c *Cell) error {
	for i := range n {
		if err := p.serve(ctx, i, func(s *session.Session) { s.Destroy() }); err != nil {
			return err
		}
		answered := time.Now()
		select {
		case <-p.streams[i].Done():
		case <-time.After(time.Minute):
			return fmt.Errorf("stream %d has not ended a minute after the logout", i)
		}
		if cause := context.Cause(p.streams[i]); !errors.Is(cause, session.ErrDestroyed) {
			return fmt.Errorf("stream %d: got cause %w, want ErrDestroyed", i, cause)
		}
		c.Delay = append(c.Delay, rig.Microseconds(time.Since(answered))/1000)
	}
	return nil
}
