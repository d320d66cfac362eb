// Package turn lets callers that want the same thing go one after the other,
// each knowing what the one before it has left.
//
// The order of those that wait is the order in which the runtime wakes them:
// first come, first served, as a rule. A line takes memory only while somebody
// is in it, and a caller that gives up leaves it as it was.
package turn

import (
	"context"
	"sync"
)

// Queue has a line for each name. The zero Queue is ready; it must not be copied
// once it was used. It is safe for concurrent use.
type Queue[T any] struct {
	mu    sync.Mutex
	lines map[string]*line[T]
}

// line is the queue of one name while anybody is in it.
type line[T any] struct {
	head    chan struct{} // holds one token
	members int

	// What a member has written last, and how often any has; guarded by Queue.mu.
	last   T
	writes int
}

// Turn is a place at the head of a line, from [Queue.Acquire] until Release. It
// is for one goroutine.
type Turn[T any] struct {
	q    *Queue[T]
	name string
	l    *line[T]
	seen int // line.writes at the time of joining
}

// Acquire waits for the turn of name. If it returns no error, Release must be
// called; if ctx ends first, it returns ctx's cause.
func (q *Queue[T]) Acquire(ctx context.Context, name string) (Turn[T], error) {
	q.mu.Lock()
	l := q.lines[name]
	if l == nil {
		if q.lines == nil {
			q.lines = make(map[string]*line[T])
		}
		l = &line[T]{head: make(chan struct{}, 1)}
		q.lines[name] = l
	}
	l.members++
	t := Turn[T]{q: q, name: name, l: l, seen: l.writes}
	q.mu.Unlock()
	select {
	case l.head <- struct{}{}:
		return t, nil
	case <-ctx.Done():
		t.leave()
		return Turn[T]{}, context.Cause(ctx)
	}
}

// Newer returns what a member of the line has written last while this one
// waited; ok is false if none did. It is newer than what this one knew when it
// joined, but others, who do not stand in this line, may have written since.
func (t *Turn[T]) Newer() (last T, ok bool) {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	if t.l.writes == t.seen {
		return last, false
	}
	return t.l.last, true
}

// Written tells the members behind what there is now.
func (t *Turn[T]) Written(now T) {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	t.l.last = now
	t.l.writes++
}

// Release lets the next member have its turn.
func (t *Turn[T]) Release() {
	<-t.l.head
	t.leave()
}

func (t *Turn[T]) leave() {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	if t.l.members--; t.l.members == 0 {
		delete(t.q.lines, t.name)
	}
}
