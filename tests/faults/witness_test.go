package faults_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	storeoutage "github.com/pgsession/session/internal/outage"
	"github.com/pgsession/session/tests/faults"
)

const (
	// silent is half of the silence that a program takes for an outage, in which it refuses
	// requests: programs are not served at the same moments as the witness.
	silent = storeoutage.Longest / 2

	glance = 25 * time.Millisecond // between two questions of the witness
)

// witness asks the database all the time, by the programs' own address, and keeps when it
// got no answer for long: a machine may need more for a restart than a program waits.
type witness struct {
	url      string
	stop     context.CancelFunc
	all      sync.WaitGroup
	silences []span // each longer than silent
}

// span is a time without an answer.
type span struct{ from, to time.Time }

func (s span) String() string { return s.to.Sub(s.from).Round(time.Millisecond).String() }

func newWitness(t *testing.T, dbURL string) *witness {
	ctx, stop := context.WithCancel(context.Background())
	w := &witness{url: dbURL, stop: stop}
	w.all.Go(func() { w.watch(ctx) })
	t.Cleanup(w.end)
	return w
}

// end returns when the witness is gone.
func (w *witness) end() {
	w.stop()
	w.all.Wait()
}

func (w *witness) watch(ctx context.Context) {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	var c *pgx.Conn
	heard := time.Now()
	for ; ctx.Err() == nil; <-tick.C {
		if c = w.ask(ctx, c); c != nil {
			now := time.Now()
			if now.Sub(heard) > silent {
				w.silences = append(w.silences, span{heard, now})
			}
			heard = now
		}
	}
	if now := time.Now(); now.Sub(heard) > silent {
		w.silences = append(w.silences, span{heard, now})
	}
	if c != nil {
		_ = c.Close(context.Background())
	}
}

// ask returns the connection on which the database has answered, or nil.
func (w *witness) ask(ctx context.Context, c *pgx.Conn) *pgx.Conn {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if c == nil {
		var err error
		if c, err = pgx.Connect(ctx, w.url); err != nil {
			return nil
		}
	}
	if _, err := c.Exec(ctx, "SELECT 1"); err != nil {
		_ = c.Close(ctx)
		return nil
	}
	return c
}

// excuses reports whether a 503 is what the documents say: the database had been silent,
// and was, or had only just come back.
func (w *witness) excuses(a faults.Answer) bool {
	return a.Status == 503 && slices.ContainsFunc(w.silences, func(s span) bool {
		return a.Began.Add(a.Took).After(s.from.Add(silent)) && a.Began.Before(s.to.Add(silent))
	})
}

func TestWitnessExcuses(t *testing.T) {
	start := time.Now()
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	w := witness{silences: []span{{at(10), at(17)}}}
	for _, tt := range []struct {
		name        string
		began, came float64
		status      int
		want        bool
	}{
		{"refused at once", 15.2, 15.2, 503, true},
		{"waited, then refused", 9, 15.1, 503, true},
		{"as it comes back", 17.5, 17.5, 503, true},
		{"broken", 15.2, 15.2, 0, false},
		{"another error", 15.2, 15.2, 500, false},
		{"refused too early", 11, 12, 503, false},
		{"refused when it was back for long", 20, 20, 503, false},
	} {
		a := faults.Answer{Kind: faults.Read, Began: at(tt.began), Took: at(tt.came).Sub(at(tt.began)), Status: tt.status}
		if got := w.excuses(a); got != tt.want {
			t.Errorf("%s: got excused: %t, want %t", tt.name, got, tt.want)
		}
	}
}
