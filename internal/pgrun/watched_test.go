package pgrun_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/outage"
	"github.com/pgsession/session/internal/pgrun"
)

// watch has the rig's Runner watched, as a store does it.
func (r *rig) watch() *outage.Watch {
	runner := r.runner
	w := outage.New(outage.Options{Locked: runner.Locked, Down: func(k *outage.Kind, _ *outage.Refused, _ bool) { runner.Abandon(k) }})
	runner.Watch = w
	return w
}

// one asks for a 1, within limit.
func (r *rig) one(repeat pgrun.Repetition, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(r.t.Context(), limit)
	defer cancel()
	_, err := pgrun.Run(ctx, r.runner, repeat, func(ctx context.Context, c *pgx.Conn) (n int, err error) {
		return n, c.QueryRow(ctx, "SELECT 1").Scan(&n)
	})
	return err
}

func isRefused(err error) bool { return errors.As(err, new(*outage.Refused)) }

// brief is the time that requests are given, and so the limit of silence.
const brief = 400 * time.Millisecond

// untilDown has requests of a kind wait for an answer until it is down.
func (r *rig) untilDown(k *outage.Kind, repeat pgrun.Repetition) {
	r.t.Helper()
	r.until(k.String()+" is down", func() bool {
		if err := r.one(repeat, brief); err == nil {
			r.t.Fatal("got an answer, want none")
		}
		return k.State().Down
	})
}

// Who waits for the pool knows nothing of the server.
func TestWaitingForThePoolIsNoSilence(t *testing.T) {
	r := newRig(t, 2)
	w := r.watch()
	for range 2 {
		c, err := r.pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Release()
	}
	for range 5 {
		together(4, func(i int) {
			repeat := pgrun.Read
			if i%2 == 0 {
				repeat = pgrun.Once
			}
			if err := r.one(repeat, brief); err == nil || isRefused(err) {
				t.Errorf("got %v, want no connection", err)
			}
		})
	}
	if w.Read.State() != (outage.State{}) || w.Write.State() != (outage.State{}) {
		t.Errorf("got %+v and %+v, want that all is well", w.Read.State(), w.Write.State())
	}
}

// Nobody listens: that is no answer. While it lasts, requests in their dozens
// cost a dial now and then.
func TestRefusedDialsAreSilence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := url.URL{Scheme: "postgres", Host: l.Addr().String(), Path: "/x", RawQuery: "sslmode=disable"}
	l.Close()
	var dials atomic.Int64
	cfg, err := pgxpool.ParseConfig(u.String())
	if err != nil {
		t.Fatal(err)
	}
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	r := &rig{t: t, pool: pool, runner: pgrun.New(pool, patience, pgrun.Errors{Uncertain: errUncertain, Invalid: errInvalid})}
	w := r.watch()
	start := time.Now()
	together(8, func(i int) {
		if i%2 == 0 {
			r.untilDown(&w.Read, pgrun.Read)
			return
		}
		r.untilDown(&w.Write, pgrun.Once)
	})
	refused := 0
	for time.Since(start) < 3*time.Second {
		err := r.one(pgrun.Read, patience)
		if !isRefused(err) || errors.Is(err, errUncertain) || !strings.Contains(err.Error(), "refused") {
			t.Fatalf("while it is down: got %v, want to be refused for certain, and why", err)
		}
		if err := r.one(pgrun.Once, patience); !isRefused(err) || errors.Is(err, errUncertain) {
			t.Fatalf("a write: got %v, want to be refused for certain", err)
		}
		refused += 2
	}
	took := time.Since(start)
	// Before dialling is known to fail each of those who run may have dialled.
	if most := 8 + int64(took/(75*time.Millisecond)) + 1; dials.Load() > most || dials.Load() < 5 {
		t.Errorf("got %d dials in %v for %d requests, want %d at most and some", dials.Load(), took, refused, most)
	}
}

// Packets disappear, also those of a ping before a statement, and old connections
// never come to life again: new ones are made at once.
func TestSwallowedPacketsAreSilence(t *testing.T) {
	for _, tt := range []struct {
		name  string
		pings bool
	}{{"a statement", false}, {"a ping", true}} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, 4)
			cfg := r.pool.Config()
			cfg.ConnConfig.ConnectTimeout = 5 * time.Second
			cfg.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return tt.pings }
			pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			r.pool, r.runner = pool, pgrun.New(pool, patience, pgrun.Errors{Uncertain: errUncertain, Invalid: errInvalid})
			w := r.watch()
			old := r.pids()
			r.proxy.mute.Store(true)
			r.proxy.deaf.Store(true)
			r.untilDown(&w.Read, pgrun.Read)
			if got := r.pool.Stat().IdleConns(); got != 0 {
				t.Errorf("idle connections: got %d, want none: they may be dead", got)
			}
			if w.Write.State().Down {
				t.Error("writes are down, want that nobody judges them by reads")
			}
			r.proxy.mute.Store(false)
			r.proxy.deaf.Store(false)
			r.until("reads are answered", func() bool { return r.one(pgrun.Read, patience) == nil })
			r.until("all are let in", func() bool { _ = r.one(pgrun.Read, patience); return !w.Read.State().Down })
			for _, pid := range r.pids() {
				for _, o := range old {
					if pid == o {
						t.Errorf("a connection of before is still used")
					}
				}
			}
		})
	}
}

// Whoever waits when it becomes known, for a connection or for an answer, goes at
// once, however much time it has.
func TestAllGoWhenItIsDown(t *testing.T) {
	r := newRig(t, 1)
	r.watch()
	r.pids()
	r.proxy.mute.Store(true)
	r.proxy.deaf.Store(true)
	sent := make(chan error, 1)
	go func() { sent <- r.one(pgrun.Once, 20*patience) }() // takes the connection
	r.until("the write has it", func() bool { return r.pool.Stat().AcquiredConns() == 1 })
	together(5, func(int) {
		start := time.Now()
		if err := r.one(pgrun.Read, 20*patience); errors.Is(err, errUncertain) || !isRefused(err) {
			t.Errorf("got %v after %v, want to be refused", err, time.Since(start))
		}
	})
	if err := <-sent; !errors.Is(err, errUncertain) {
		t.Errorf("the one write that was sent: got %v, want uncertain", err)
	}
}

// A caller whose statement is under way goes with its round, also where nobody cuts
// the statement's connection.
func TestAStatementsCallerGoesWithItsRound(t *testing.T) {
	for _, tt := range []struct {
		name   string
		repeat pgrun.Repetition
		kind   func(*outage.Watch) *outage.Kind
		want   func(error) bool
	}{
		{"read", pgrun.Read, func(w *outage.Watch) *outage.Kind { return &w.Read }, isRefused},
		{"write", pgrun.Once, func(w *outage.Watch) *outage.Kind { return &w.Write }, func(err error) bool { return errors.Is(err, errUncertain) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, 8)
			w := outage.New(outage.Options{Locked: r.runner.Locked, Down: func(*outage.Kind, *outage.Refused, bool) {}, Up: func(*outage.Kind, time.Duration, uint64) {}})
			r.runner.Watch = w
			r.pids()
			r.proxy.mute.Store(true)
			r.proxy.deaf.Store(true)
			gone := make(chan error, 1)
			go func() { gone <- r.one(tt.repeat, 20*patience) }()
			r.until("it is under way", func() bool { return r.pool.Stat().AcquiredConns() == 1 })
			r.untilDown(tt.kind(w), tt.repeat)
			select {
			case err := <-gone:
				if !tt.want(err) {
					t.Errorf("got %v, want what belongs to a kind that is down", err)
				}
			case <-time.After(patience):
				t.Error("still waiting, want it gone with the others")
			}
			r.proxy.mute.Store(false)
			r.proxy.deaf.Store(false)
			r.proxy.cut()
		})
	}
}

// A statement that waits for a lock has a server that lives.
func TestLocked(t *testing.T) {
	r := newRig(t, 4)
	w := r.watch()
	if r.runner.Locked(&w.Read, time.Second) {
		t.Error("without a statement: got locked")
	}
	unlock := r.lock()
	defer unlock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = r.wait(t.Context(), pgrun.Read)
	}()
	r.until("it waits", func() bool { return len(r.waiting()) == 1 })
	if !r.runner.Locked(&w.Read, patience) {
		t.Error("a statement waits for a lock: got that it does not")
	}
	if r.runner.Locked(&w.Write, patience) {
		t.Error("no write does: got locked")
	}
	unlock()
	<-ended

	ctx, cancel := context.WithCancel(t.Context())
	asleep := make(chan struct{})
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = pgrun.Run(ctx, r.runner, pgrun.Read, func(ctx context.Context, c *pgx.Conn) (struct{}, error) {
			close(asleep)
			_, err := c.Exec(ctx, "SELECT pg_sleep(1)")
			return struct{}{}, err
		})
	}()
	<-asleep
	if r.runner.Locked(&w.Read, patience) {
		t.Error("a statement that sleeps: got locked")
	}
	cancel()
	<-ended
}

// What the server says is an answer, though it serves nobody.
func TestTooManyConnectionsIsNoSilence(t *testing.T) {
	r := newRig(t, 2)
	if _, err := r.admin.Exec(t.Context(), "CREATE ROLE outage_limited LOGIN PASSWORD 'limited' CONNECTION LIMIT 0"); err != nil {
		t.Fatal(err)
	}
	cfg := r.pool.Config()
	cfg.ConnConfig.User, cfg.ConnConfig.Password = "outage_limited", "limited"
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pool.Close()
		_, _ = r.admin.Exec(context.Background(), "DROP ROLE outage_limited")
	})
	r.runner = pgrun.New(pool, patience, pgrun.Errors{Uncertain: errUncertain, Invalid: errInvalid})
	w := r.watch()
	for range 2 { // and for longer than their limit of silence, for which nobody is to stand still
		if err := r.one(pgrun.Read, 10*brief); err == nil || isRefused(err) {
			t.Errorf("got %v, want that there are too many connections", err)
		}
	}
	if w.Read.State() != (outage.State{}) {
		t.Errorf("got %+v, want that all is well", w.Read.State())
	}
}
