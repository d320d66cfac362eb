// Package batch lets calls that come while others are under way share one piece
// of work, such as a statement.
//
// There are a few slots. A call that finds one free goes at once, alone or with
// those that were ready to run at the same moment. While all are taken, calls
// gather; a slot that becomes free takes all that
// wait, up to a maximum. So nothing ever waits for company, there are no timers,
// and the more load there is the more is shared.
package batch

import (
	"context"
	"errors"
	"fmt"
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

// Group shares calls with a question Q and an answer A. It is safe for
// concurrent use. Its functions are called by many goroutines at once, at most
// one for each slot.
type Group[Q, A any] struct {
	alone  func(context.Context, Q) (A, error)
	shared func(context.Context, []Q) []Answer[A]
	most   int

	mu      sync.Mutex
	free    int
	waiting []*call[Q, A]
	closed  bool
	idle    sync.WaitGroup // calls in a slot or waiting for one
}

type call[Q, A any] struct {
	ctx      context.Context
	question Q
	answer   Answer[A]
	panicked any
	begun    bool // a slot has taken it; guarded by the group's mu
	done     chan struct{}
}

func newCall[Q, A any](ctx context.Context, question Q) *call[Q, A] {
	return &call[Q, A]{ctx: ctx, question: question, done: make(chan struct{})}
}

// New returns a Group with slots slots, whose shared calls have most members at
// most; both are at least 1. alone does one call, shared several: it returns
// the members' answers in their order. alone runs on the caller's context,
// shared on one of its own, with the values of the first member's and the
// latest of their deadlines.
func New[Q, A any](slots, most int, alone func(context.Context, Q) (A, error), shared func(context.Context, []Q) []Answer[A]) *Group[Q, A] {
	return &Group[Q, A]{free: max(slots, 1), most: max(most, 1), alone: alone, shared: shared}
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
	g.idle.Add(1)
	defer g.idle.Done()
	var c *call[Q, A]
	if g.free > 0 {
		g.free--
		g.mu.Unlock()
		// Whoever is ready to run may be about to ask as well: the members of the
		// call before were all woken at the same moment. Where nobody is, this
		// costs nothing.
		runtime.Gosched()
		g.mu.Lock()
		if len(g.waiting) == 0 {
			g.mu.Unlock()
			defer g.next()
			return g.alone(ctx, question)
		}
		c = newCall[Q, A](ctx, question)
		g.waiting = slices.Insert(g.waiting, 0, c)
		g.mu.Unlock()
		g.next()
	} else {
		c = newCall[Q, A](ctx, question)
		g.waiting = append(g.waiting, c)
		g.mu.Unlock()
	}
	select {
	case <-c.done:
		if c.panicked != nil {
			panic(c.panicked)
		}
		return c.answer.Value, c.answer.Err
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

// next hands a slot that has become free to those who wait.
func (g *Group[Q, A]) next() {
	if members := g.take(); members != nil {
		g.idle.Add(1)
		go func() {
			defer g.idle.Done()
			defer g.next() // whichever way the call ends
			g.run(members)
		}()
	}
}

// take returns the next members of a slot, or frees it.
func (g *Group[Q, A]) take() []*call[Q, A] {
	g.mu.Lock()
	defer g.mu.Unlock()
	var members []*call[Q, A]
	for len(g.waiting) > 0 && len(members) < g.most {
		if c := g.waiting[0]; c.ctx.Err() == nil { // else nobody waits any more
			c.begun = true
			members = append(members, c)
		}
		g.waiting[0] = nil
		g.waiting = g.waiting[1:]
	}
	if members == nil {
		g.free++
		g.waiting = nil
	}
	return members
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
			close(c.done)
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

// Refuse answers the calls that wait for a slot with err. Nothing was begun for
// them.
func (g *Group[Q, A]) Refuse(err error) {
	g.mu.Lock()
	waiting := g.waiting
	g.waiting = nil
	g.mu.Unlock()
	for _, c := range waiting {
		c.answer.Err = err
		close(c.done)
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
