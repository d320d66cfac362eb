// Package batch lets calls that come while others are under way share one piece
// of work, such as a statement.
//
// There are a few slots. A call that finds one free goes at once, alone or with
// those that were ready to run at the same moment. While all are taken, calls
// gather; a slot that becomes free takes all that wait, up to a maximum. So nothing
// waits for company, and the more load there is the more is shared. A call that
// is not back in time counts no more, so that others go on (Slots).
package batch

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"
)

// ErrClosed is the answer to a call after Close.
var ErrClosed = errors.New("batch: closed")

// ErrNotBegun says that a call's context has ended while the call waited for a
// slot: nothing was done for it. The error wraps the context's as well.
var ErrNotBegun = errors.New("batch: not begun")

var errNoAnswer = errors.New("batch: the shared call ended without an answer")

// Answer is what a shared call says to one of its members.
type Answer[A any] struct {
	Value A
	Err   error
}

// Slots say how many calls may be under way.
//
// There are Usual slots. Where all are taken, another call may begin beside them when
// all have been so for Patience, one more when the youngest of that number have been so for
// five times as long, and so on up to Most. So where calls are back in time there
// are Usual at once, and sharing does the rest; one that hangs is waited for no
// longer than that; and where all are slow there are few more.
type Slots struct {
	Usual    int           // at least 1
	Most     int           // at least Usual, which it is without Patience
	Patience time.Duration // zero: for ever
}

// morePatience is how many times longer each further call is waited for, up to the
// eighth: from there on times would no longer fit.
const (
	morePatience = 5
	mostPatience = 8
)

// complete makes the least of what is less.
func (s Slots) complete() Slots {
	s.Usual = max(s.Usual, 1)
	if s.Most < s.Usual || s.Patience <= 0 {
		s.Most = s.Usual
	}
	return s
}

// Group shares calls with a question Q and an answer A. It is safe for
// concurrent use. Its functions are called by many goroutines at once, at most
// one for each slot.
type Group[Q, A any] struct {
	alone  func(context.Context, Q) (A, error)
	shared func(context.Context, []Q) []Answer[A]
	slots  Slots
	most   int
	epoch  time.Time
	calls  sync.Pool // of *call[Q, A]

	mu      sync.Mutex
	waiting []*call[Q, A]
	spare   []*call[Q, A] // for waiting
	under   []slot        // those that are taken, the youngest last
	begun   uint64        // calls of all times
	timer   *time.Timer   // armed while calls wait for one of under to have had its time
	armed   bool
	due     time.Duration // when the timer fires
	closed  bool
	idle    sync.WaitGroup // calls under way
}

// slot is one that is taken.
type slot struct {
	number uint64        // of the call
	since  time.Duration // from the epoch on
}

type call[Q, A any] struct {
	ctx      context.Context
	question Q
	answer   Answer[A]
	panicked any
	begun    bool          // a slot has taken it; guarded by the group's mu
	done     chan struct{} // holds one
}

// New returns a Group whose shared calls have most members at most, at least 1.
// alone does one call, shared several: it returns the members' answers in their
// order. alone runs on the caller's context, shared on one of its own, with the
// values of the first member's and the latest of their deadlines.
func New[Q, A any](slots Slots, most int, alone func(context.Context, Q) (A, error), shared func(context.Context, []Q) []Answer[A]) *Group[Q, A] {
	g := &Group[Q, A]{slots: slots.complete(), most: max(most, 1), alone: alone, shared: shared, epoch: time.Now()}
	g.calls.New = func() any { return &call[Q, A]{done: make(chan struct{}, 1)} }
	return g
}

// Do returns the answer to question. When ctx ends while the call waits or is
// shared, Do returns its error at once, with [ErrNotBegun] if it was still
// waiting; a shared call goes on for the others.
func (g *Group[Q, A]) Do(ctx context.Context, question Q) (A, error) {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		var none A
		return none, ErrClosed
	}
	var c *call[Q, A]
	if len(g.waiting) == 0 && g.mayBegin() {
		number := g.begin()
		g.mu.Unlock()
		// Whoever is ready to run may be about to ask as well: the members of the
		// call before were all woken at the same moment. Where nobody is, this
		// costs nothing.
		runtime.Gosched()
		g.mu.Lock()
		if len(g.waiting) == 0 {
			g.mu.Unlock()
			defer g.end(number)
			return g.alone(ctx, question)
		}
		c = g.newCall(ctx, question)
		g.waiting = slices.Insert(g.waiting, 0, c)
		go g.work(number, g.take())
		g.proceed()
	} else {
		c = g.newCall(ctx, question)
		g.waiting = append(g.waiting, c)
		if !g.armed { // else it is seen to
			g.proceed()
		}
	}
	g.mu.Unlock()
	select {
	case <-c.done:
		return g.answered(c)
	case <-ctx.Done():
		var none A
		g.mu.Lock()
		defer g.mu.Unlock()
		if !c.begun { // nor will it be: a slot passes it over now
			return none, fmt.Errorf("%w: %w", ErrNotBegun, context.Cause(ctx))
		}
		return none, context.Cause(ctx)
	}
}

// newCall returns a call that nobody knows yet.
func (g *Group[Q, A]) newCall(ctx context.Context, question Q) *call[Q, A] {
	c := g.calls.Get().(*call[Q, A])
	c.ctx, c.question, c.begun = ctx, question, false
	return c
}

// answered returns the answer of a call that nobody else knows any more.
func (g *Group[Q, A]) answered(c *call[Q, A]) (A, error) {
	a, panicked := c.answer, c.panicked
	*c = call[Q, A]{done: c.done}
	g.calls.Put(c)
	if panicked != nil {
		panic(panicked)
	}
	return a.Value, a.Err
}

// mayBegin reports whether there is a slot for another call. It is called with mu
// held, as all up to take are.
func (g *Group[Q, A]) mayBegin() bool {
	n := len(g.under)
	if n < g.slots.Usual || n >= g.slots.Most {
		return n < g.slots.Usual
	}
	left, _ := g.patience()
	return left <= 0
}

// patience returns how long others still wait for those under way, at least Usual, and
// until when. They are as patient with the youngest of these, which have perhaps
// begun because others hang, as the number under way tells.
func (g *Group[Q, A]) patience() (left, until time.Duration) {
	more := len(g.under) - g.slots.Usual
	until = g.under[more].since + g.slots.Patience*time.Duration(math.Pow(morePatience, float64(min(more, mostPatience))))
	return until - time.Since(g.epoch), until
}

// begin takes a slot for a call and gives it a number.
func (g *Group[Q, A]) begin() uint64 {
	g.idle.Add(1)
	g.begun++
	g.under = append(g.under, slot{g.begun, time.Since(g.epoch)})
	return g.begun
}

// over frees the slot of a call.
func (g *Group[Q, A]) over(number uint64) {
	g.under = slices.DeleteFunc(g.under, func(s slot) bool { return s.number == number })
}

// proceed begins calls for those who wait, as far as there are slots, and sees to
// it that the rest is not forgotten when patience is over.
func (g *Group[Q, A]) proceed() {
	for len(g.waiting) > 0 && g.mayBegin() {
		go g.work(g.begin(), g.take())
	}
	if len(g.waiting) == 0 || len(g.under) >= g.slots.Most { // more after SetSlots
		if g.armed {
			g.timer.Stop()
			g.armed = false
		}
		return
	}
	left, due := g.patience()
	switch {
	case g.armed && g.due <= due: // for a call before, perhaps: then it fires too early, and once more
		return
	case g.timer == nil:
		g.timer = time.AfterFunc(left, g.tick)
	default:
		g.timer.Reset(left)
	}
	g.armed, g.due = true, due
}

// take returns the next members of a call, none if nobody waits any more.
func (g *Group[Q, A]) take() []*call[Q, A] {
	members := g.spare
	g.spare = nil
	n := 0
	for ; n < len(g.waiting) && len(members) < g.most; n++ {
		if c := g.waiting[n]; c.ctx.Err() == nil { // else nobody waits any more
			c.begun = true
			members = append(members, c)
		}
	}
	g.waiting = slices.Delete(g.waiting, 0, n)
	return members
}

// tick is what the timer calls.
func (g *Group[Q, A]) tick() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.armed = false
	g.proceed()
}

// end frees the slot of a call and lets others go on.
func (g *Group[Q, A]) end(number uint64) {
	g.mu.Lock()
	g.over(number)
	g.proceed()
	g.mu.Unlock()
	g.idle.Done() // not before, or Close might miss those who wait
}

// work answers the members in their slot, and then whoever waits, as long as
// somebody does.
func (g *Group[Q, A]) work(number uint64, members []*call[Q, A]) {
	returned := false
	defer func() {
		if !returned { // runtime.Goexit in the shared call
			g.end(number)
		}
	}()
	for more := true; more; {
		if len(members) > 0 {
			g.run(members)
		}
		g.mu.Lock()
		clear(members)
		g.spare = members[:0]
		g.over(number)
		if more = len(g.waiting) > 0 && g.mayBegin(); more {
			number, members = g.begin(), g.take()
		}
		g.proceed()
		g.mu.Unlock()
		g.idle.Done()
	}
	returned = true
}

// run answers the members.
func (g *Group[Q, A]) run(members []*call[Q, A]) {
	answered := false
	defer func() {
		var v any
		if !answered {
			v = recover() // it belongs to the callers' goroutines
		}
		for _, c := range members {
			if !answered {
				c.panicked, c.answer.Err = v, errNoAnswer // the latter after runtime.Goexit
			}
			c.done <- struct{}{} // from here on its caller's
		}
	}()
	ctx, cancel := sharedContext(members)
	defer cancel()
	if len(members) == 1 {
		members[0].answer.Value, members[0].answer.Err = g.alone(ctx, members[0].question)
		answered = true
		return
	}
	questions := make([]Q, len(members))
	for i, c := range members {
		questions[i] = c.question
	}
	answers := g.shared(ctx, questions)
	for i, c := range members {
		c.answer = answers[i]
	}
	answered = true
}

// sharedContext ends when no member would wait any longer, and not because one
// of them goes away.
func sharedContext[Q, A any](members []*call[Q, A]) (context.Context, context.CancelFunc) {
	ctx := context.WithoutCancel(members[0].ctx)
	var last time.Time
	for _, c := range members {
		deadline, ok := c.ctx.Deadline()
		if !ok {
			return context.WithCancel(ctx)
		}
		if deadline.After(last) {
			last = deadline
		}
	}
	return context.WithDeadline(ctx, last)
}

// SetSlots sets the slots for calls that begin from now on.
func (g *Group[Q, A]) SetSlots(slots Slots) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.slots = slots.complete()
	g.proceed()
}

// Slots returns the slots as they are now.
func (g *Group[Q, A]) Slots() Slots {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.slots
}

// Refuse answers the calls that wait for a slot with err. Nothing was begun for
// them.
func (g *Group[Q, A]) Refuse(err error) {
	g.mu.Lock()
	waiting := g.waiting
	g.waiting = nil
	g.proceed() // stops the timer
	g.mu.Unlock()
	for _, c := range waiting {
		c.answer.Err = err
		c.done <- struct{}{}
	}
}

// Waiting returns how many calls wait for a slot.
func (g *Group[Q, A]) Waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting)
}

// Close refuses further calls and waits for those that have begun.
func (g *Group[Q, A]) Close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.idle.Wait()
}
