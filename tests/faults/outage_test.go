package faults_test

import (
	"bytes"
	"context"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/pgtest"
)

// asked counts what the programs ask of the database.
type asked struct{ dials, statements atomic.Int64 }

func (a *asked) pool(cfg *pgxpool.Config) {
	cfg.ConnConfig.ConnectTimeout = 2 * time.Second
	cfg.ConnConfig.Tracer = a
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		a.dials.Add(1)
		return dial(ctx, network, addr)
	}
}

func (a *asked) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	a.statements.Add(1)
	return ctx
}

func (*asked) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// An outage that lasts, of a server that is gone and of a network that swallows
// all packets: once it is known nobody waits, the database is not asked by those
// who are refused, and nothing piles up. Afterwards everybody is still logged in.
func TestFaultOutageRefused(t *testing.T) {
	server := newServer(t)
	var a asked
	r := newRig(t, server.URL(), rigOptions{timeout: brief, pool: a.pool})
	outage(t, r, &a, "outage, refused", func() {
		if err := server.Stop(t.Context(), "fast"); err != nil {
			t.Fatal(err)
		}
	}, func() {
		if err := server.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestFaultOutageSwallowed(t *testing.T) {
	n := newNetwork(t, pgtest.URL(t))
	var a asked
	r := newRig(t, n.url, rigOptions{timeout: brief, pool: a.pool})
	outage(t, r, &a, "outage, packets swallowed", func() { n.add("timeout", map[string]int{"timeout": 0}) }, n.heal)
}

func outage(t *testing.T, r *rig, a *asked, name string, begin, end func()) {
	t.Helper()
	refused := func() (n uint64) {
		for _, p := range r.programs {
			n += p.Manager.Stats().Refused
		}
		return n
	}
	begin()
	until(t, "both programs know that reads and writes are down", func() bool {
		for _, p := range r.programs {
			if s := p.Manager.Stats(); !s.ReadsDown || !s.WritesDown {
				return false
			}
		}
		return true
	})
	const enough = 500
	start := time.Now()
	wasRefused, dials, statements, goroutines := refused(), a.dials.Load(), a.statements.Load(), goroutinesOfOurs()
	if err := r.run.WaitFailed(enough); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	// Nearly all. In each program one request at a time tries, some seven in a second: where
	// the machine is so busy that few others come, they are no small part.
	least := enough * 0.9
	if took > 4*time.Second {
		least = max(least-2*7*took.Seconds(), enough/4)
	}
	if got := refused() - wasRefused; float64(got) < least {
		t.Errorf("of %d requests that failed in %v, refused: got %d, want %.0f at least", enough, took, got, least)
	}
	// For each program, twenty a second, and the cancel requests of what ran when it began.
	if got, most := a.dials.Load()-dials, 2*(20*took.Seconds()+20); float64(got) > most {
		t.Errorf("dials in %v: got %d, want %.0f at most", took, got, most)
	}
	if got := a.statements.Load() - statements; got > 2*conns {
		t.Errorf("statements for %d requests: got %d, want hardly any", enough, got)
	}
	if got := goroutinesOfOurs(); got > goroutines+100 {
		t.Errorf("goroutines: got %d, %d when it was known, want no more", got, goroutines)
	}
	end()
	r.waitOpen()
	back := time.Now()
	r.wait(recovery)
	res := r.finish(name)
	res.refused(t)
	res.recovered(t, back)
	res.reconnected(t, 2)
}

// goroutinesOfOurs counts those of the library and of pgx. The network in between has a
// dozen for each connection that was dialled, which are counted as dials.
func goroutinesOfOurs() (n int) {
	stacks := make([]byte, 1<<20)
	for size := runtime.Stack(stacks, true); ; size = runtime.Stack(stacks, true) {
		if size < len(stacks) {
			stacks = stacks[:size]
			break
		}
		stacks = make([]byte, 2*len(stacks)) // there may be more
	}
	for g := range bytes.SplitSeq(stacks, []byte("\n\n")) {
		if bytes.Contains(g, []byte("github.com/jackc/")) || bytes.Contains(g, []byte("github.com/pgsession/session.")) || bytes.Contains(g, []byte("github.com/pgsession/session/internal/pgrun.")) {
			n++
		}
	}
	return n
}
