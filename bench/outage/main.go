// Command outage measures what requests get while the database is gone, and how
// soon all is well when it is back: once with a server that refuses connections,
// once with a network that swallows every packet. Requests come at a steady rate
// whatever becomes of the ones before. From the directory bench:
//
//	go run ./outage                    a minute of each, at 2,000 requests a second
//	go run ./outage -for 10s -rate 500
package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/pgsession/session/bench/internal/rig"
	"github.com/pgsession/session/internal/pgtest"
)

type options struct {
	rate    int
	lasts   time.Duration // the outage
	normal  time.Duration // before it
	after   time.Duration // and after it
	timeout time.Duration // StoreTimeout
	pool    int
	faults  []string
}

func main() {
	var o options
	flag.IntVar(&o.rate, "rate", 2000, "requests a second")
	flag.DurationVar(&o.lasts, "for", time.Minute, "how long the outage lasts")
	flag.DurationVar(&o.normal, "normal", 10*time.Second, "how long all is well before it")
	flag.DurationVar(&o.after, "after", 10*time.Second, "how long it is watched afterwards")
	flag.DurationVar(&o.timeout, "timeout", 5*time.Second, "StoreTimeout")
	flag.IntVar(&o.pool, "pool", 16, "connections of the pool")
	fault := flag.String("fault", "", "refused or swallowed; default both")
	flag.Parse()
	o.faults = []string{"refused", "swallowed"}
	if *fault != "" {
		o.faults = []string{*fault}
	}
	rig.Main(func(ctx context.Context) error {
		for _, fault := range o.faults {
			if err := run(ctx, o, fault); err != nil {
				return fmt.Errorf("%s: %w", fault, err)
			}
		}
		return nil
	})
}

// run makes one outage, and prints what came of it.
func run(ctx context.Context, o options, fault string) error {
	server, err := pgtest.Find(ctx, pgtest.Options{OwnOnly: true, Settings: map[string]string{"max_connections": "60"}})
	if err != nil {
		return err
	}
	defer server.Close()
	b, err := newBreaker(server, fault)
	if err != nil {
		return err
	}
	defer b.close()
	p, err := newProgram(ctx, b.url, o)
	if err != nil {
		return err
	}
	defer p.close()

	load := p.start(ctx)
	v := watchVitals(p)
	sleep(ctx, o.normal)
	if err := b.begin(ctx); err != nil {
		return err
	}
	m := moments{began: time.Now()} // a server takes a moment to stop
	dials := p.dials.Load()
	sleep(ctx, o.lasts)
	m.dials = p.dials.Load() - dials
	if m.back, err = b.end(ctx); err != nil {
		return err
	}
	m.lasted = m.back.Sub(m.began)
	sleep(ctx, o.after)
	answers := load.stop()
	report(fault, o, answers, m, v.stop(), p)
	return ctx.Err()
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// moments are when things happened.
type moments struct {
	began, back time.Time
	lasted      time.Duration
	dials       int64
}
