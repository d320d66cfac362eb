package explore

import (
	"slices"
	"sync"
	"testing/synctest"
	"time"
)

// Tick is how far time moves with each step. It is longer than the longest
// pause between two tries of a save, so that a request which pauses is at its
// next operation when the step ends, and deadlines of different steps differ.
const Tick = 70 * time.Millisecond

// Stage lets one actor at a time move. In a bubble of testing/synctest its clock
// moves once every goroutine waits; outside of one, time is real.
type Stage struct {
	blocked func(actor int) bool // outside of a bubble: it waits for another one
	changed chan struct{}        // likewise: somebody may have stopped

	mu      sync.Mutex
	seats   []seat
	current int // who moves; -1: time alone
}

// seat is an actor's place on the stage.
type seat struct {
	wake  chan struct{}
	where string // what it waits to do, while it is stopped
	state state
}

type state int

const (
	moving  state = iota // or waiting for something that is not the stage's
	stopped              // waits to be let on
	ended
)

// NewStage returns a stage for n actors, which have yet to Stop for the first
// time, in a bubble.
func NewStage(n int) *Stage {
	g := &Stage{seats: make([]seat, n), current: -1}
	for i := range g.seats {
		g.seats[i].wake = make(chan struct{})
	}
	return g
}

// NewStageOutside is NewStage without a bubble. blocked says whether an actor that
// moves, and has not stopped for a while, waits for another one to move.
func NewStageOutside(n int, blocked func(actor int) bool) *Stage {
	g := NewStage(n)
	g.blocked, g.changed = blocked, make(chan struct{}, 1)
	return g
}

// Stop makes the actor wait until it is let on. where says what it will do then.
func (g *Stage) Stop(actor int, where string) {
	g.set(actor, stopped, where)
	<-g.seats[actor].wake
}

// Await makes an actor that came to life in the step of another one, or by a
// deadline, wait for its own, so that one step is one actor's.
func (g *Stage) Await(actor int, where string) {
	g.mu.Lock()
	own := g.current == actor
	g.mu.Unlock()
	if !own {
		g.Stop(actor, where)
	}
}

// Sync makes what an actor has written visible to whoever calls it later, also where
// the actor then waits for another one and not for the stage.
func (g *Stage) Sync() {
	g.mu.Lock()
	defer g.mu.Unlock()
}

// End says that the actor has nothing more to do.
func (g *Stage) End(actor int) { g.set(actor, ended, "") }

func (g *Stage) set(actor int, to state, where string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seats[actor].state, g.seats[actor].where = to, where
	if g.changed != nil {
		select {
		case g.changed <- struct{}{}:
		default:
		}
	}
}

// Let lets a stopped actor move until it stops, ends or waits for another.
func (g *Stage) Let(actor int) {
	g.set(actor, moving, "")
	g.settle(actor, Tick, func() { g.seats[actor].wake <- struct{}{} })
}

// settle lets time pass until everybody waits; current may move meanwhile.
func (g *Stage) settle(current int, d time.Duration, begin func()) {
	g.mu.Lock()
	g.current = current
	g.mu.Unlock()
	begin()
	if g.blocked != nil {
		g.awaitQuiet()
		return
	}
	time.Sleep(d)
	synctest.Wait()
}

// awaitQuiet waits, outside of a bubble, until nobody moves any more.
func (g *Stage) awaitQuiet() {
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for {
		moving := g.Waiting()
		if len(moving) == 0 {
			return
		}
		select {
		case <-g.changed:
		case <-poll.C:
			// Whoever let another one go on did so before it stopped itself, so
			// one that looks blocked after that is.
			if !slices.ContainsFunc(moving, func(actor int) bool { return !g.blocked(actor) }) {
				g.Sync()
				return
			}
		}
	}
}

// Elapse lets time pass while nobody is let on.
func (g *Stage) Elapse(d time.Duration) { g.settle(-1, d, func() {}) }

// Ready returns the actors that can move.
func (g *Stage) Ready() []int { return g.in(stopped) }

// Waiting returns the actors that wait for something that is not the stage's:
// another one's turn, or a deadline.
func (g *Stage) Waiting() []int { return g.in(moving) }

func (g *Stage) in(s state) (actors []int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.seats {
		if g.seats[i].state == s {
			actors = append(actors, i)
		}
	}
	return actors
}

// Where returns what a stopped actor will do when it is let on.
func (g *Stage) Where(actor int) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.seats[actor].where
}

// PassTime lets time pass, limit at most, until somebody can move or all have
// ended. It reports false if everybody still waits then: they hang.
func (g *Stage) PassTime(limit time.Duration) bool {
	const stride = 10*Tick + 3*time.Millisecond // never at a deadline itself
	for left := limit; left > 0; left -= stride {
		g.settle(-1, stride, func() {})
		if len(g.Ready()) > 0 || len(g.Waiting()) == 0 {
			return true
		}
	}
	return false
}
