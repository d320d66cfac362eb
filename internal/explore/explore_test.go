package explore_test

import (
	"flag"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgsession/session/internal/explore"
)

// How much is explored.
var (
	seed      = flag.Uint64("seed", 1, "explore: the first random schedule; each has the number after the one before")
	schedules = flag.Uint64("schedules", 3000, "explore: how many random schedules")
	until     = flag.String("until", "", "explore: end at the first breach of this rule, or of any")
	atLeast   = flag.Int("distinct", 0, "explore: fail with fewer distinct schedules whose operations overlap")
	bound     = flag.Int("bound", 1, "explore: all schedules of handlers with so many calls in all, and with one less every fault in them")
)

// tally is what has been explored.
type tally struct {
	mu       sync.Mutex
	runs     int
	faulty   int
	distinct map[uint64]struct{} // schedules whose operations overlap
	breaches map[string]int
	first    map[string]finding // by rule
	enough   atomic.Bool
}

// finding is the first history that breaks a rule; at says which was the first,
// whoever of the workers came to it.
type finding struct {
	at     uint64
	script explore.Script
	why    string
}

func newTally() *tally {
	return &tally{distinct: map[uint64]struct{}{}, breaches: map[string]int{}, first: map[string]finding{}}
}

// add judges one history.
func (c *tally) add(h *explore.History, at uint64) {
	breaches, overlaps, print := explore.Breaches(h), h.Overlaps(), h.Print()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runs++
	if h.Struck() {
		c.faulty++
	}
	if overlaps {
		c.distinct[print] = struct{}{}
	}
	for _, b := range breaches {
		c.breaches[b.Rule]++
		if *until == b.Rule || *until == "any" {
			c.enough.Store(true)
		}
		if old, ok := c.first[b.Rule]; !ok || at < old.at {
			s := h.Script.Clone()
			s.Steps = slices.Clone(h.Steps)
			c.first[b.Rule] = finding{at, s, b.Why}
		}
	}
}

// eachWorker runs f on every processor, with a lab of its own.
func eachWorker(t *testing.T, f func(l *lab)) {
	t.Run("workers", func(t *testing.T) {
		for i := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				f(newLab(t))
			})
		}
	})
}

// TestExplore goes through small schedules systematically and through larger
// ones at random. What breaks a rule is printed as a script for known_test.go.
func TestExplore(t *testing.T) {
	began, all := time.Now(), newTally()
	systematic(t, all)
	small := all.runs
	random(t, all, explore.Random, *schedules)
	d := time.Since(began)
	t.Logf("%d schedules (%d systematic, %d struck by a fault), %d distinct ones whose operations overlap, in %v: %.0f a second; go on with -seed=%d -bound=0",
		all.runs, small, all.faulty, len(all.distinct), d.Round(time.Millisecond), float64(all.runs)/d.Seconds(), *seed+*schedules)
	if len(all.distinct) < *atLeast {
		t.Errorf("%d distinct schedules whose operations overlap, want %d", len(all.distinct), *atLeast)
	}
	all.report(t)
}

// report fails for what breaks a rule, and prints a small script of each.
func (c *tally) report(t *testing.T) {
	l := newLab(t)
	for _, rule := range slices.Sorted(maps.Keys(c.breaches)) {
		first := c.first[rule]
		script, h := explore.Shrink(l.run, &first.script, rule)
		t.Errorf("%s broken in %d of them: %v, in\n%s", rule, c.breaches[rule], explore.Breaches(h), script.Text(h.Did()))
	}
}

// TestExploreLogins goes through requests that log in, with Config.MaxPerUser: from a
// bound of 2 on pairs of them in every order, and more in random ones with faults.
func TestExploreLogins(t *testing.T) {
	all := newTally()
	orders(t, all, func(send func(explore.Script) bool) { explore.Logins(*bound-2, send) })
	small := all.runs
	random(t, all, explore.RandomLogins, *schedules/4)
	t.Logf("%d schedules (%d systematic, %d struck by a fault), %d distinct ones whose operations overlap", all.runs, small, all.faulty, len(all.distinct))
	all.report(t)
}

// TestExploreSplit counts what the window between a request's last store operation
// and its header leaves: schedules in which others move there. It is no promise,
// so nothing of it fails.
func TestExploreSplit(t *testing.T) {
	joined, split := newTally(), newTally()
	n := *schedules / 2
	random(t, joined, explore.Random, n)
	random(t, split, func(seed uint64) (explore.Script, explore.Choose) {
		script, choose := explore.Random(seed)
		script.Split = true
		return script, choose
	}, n)
	for _, rule := range explore.Rules {
		t.Logf("%s: broken in %d of %d, and in %d with the window open", rule.Name, joined.breaches[rule.Name], n, split.breaches[rule.Name])
	}
}

// systematic goes through all small scripts in all orders.
func systematic(t *testing.T, all *tally) {
	orders(t, all, func(send func(explore.Script) bool) {
		explore.Small(*bound, send)
		explore.Small(*bound-1, func(s explore.Script) bool {
			explore.Faults(s, 3, send)
			return true
		})
	})
}

// orders goes through all orders of the scripts that heads sends.
func orders(t *testing.T, all *tally, scripts func(send func(explore.Script) bool)) {
	type work struct {
		at   uint64
		head explore.Script
	}
	heads := make(chan work, 100)
	go func() {
		defer close(heads)
		var at uint64
		scripts(func(s explore.Script) bool {
			at++
			heads <- work{at << 20, s}
			return true
		})
	}()
	eachWorker(t, func(l *lab) {
		l.key = true
		for w := range heads {
			if all.enough.Load() {
				continue
			}
			explore.All(l.run, &w.head, 1<<20, func(h *explore.History) bool {
				all.add(h, w.at)
				w.at++
				return true
			})
		}
	})
}

// random goes through n random schedules, from the flag's seed on.
func random(t *testing.T, all *tally, script func(seed uint64) (explore.Script, explore.Choose), n uint64) {
	var next atomic.Uint64
	eachWorker(t, func(l *lab) {
		for {
			i := next.Add(1) - 1
			if i >= n || all.enough.Load() {
				return
			}
			script, choose := script(*seed + i)
			all.add(l.run(&script, choose), 1<<62+*seed+i)
		}
	})
}
