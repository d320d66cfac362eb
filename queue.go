package session

import (
	"context"
	"sync"
)

// queue lets one request of a session at a time save in this program, so that
// they do not all conflict: each starts from what the one before has written.
type queue struct {
	mu    sync.Mutex
	lines map[string]*line
}

// line is the queue of one session ID while anybody is in it.
type line struct {
	turn    chan struct{} // holds one token
	members int
	last    *loaded // as last written by a member; guarded by queue.mu
}

// turn is a place at the head of a line.
type turn struct {
	q    *queue
	id   string
	l    *line
	seen *loaded // line.last at the time of joining
}

// acquire waits for the turn of id; its release must be called.
func (q *queue) acquire(ctx context.Context, id string) (turn, error) {
	q.mu.Lock()
	l := q.lines[id]
	if l == nil {
		if q.lines == nil {
			q.lines = make(map[string]*line)
		}
		l = &line{turn: make(chan struct{}, 1)}
		q.lines[id] = l
	}
	l.members++
	t := turn{q: q, id: id, l: l, seen: l.last}
	q.mu.Unlock()
	select {
	case l.turn <- struct{}{}:
		return t, nil
	case <-ctx.Done():
		t.leave()
		return turn{}, context.Cause(ctx)
	}
}

// newer returns the record as a member wrote it while this one waited, nil if
// none did. It is newer than what this one has loaded, but others may have
// written since.
func (t *turn) newer() *loaded {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	if t.l.last == t.seen {
		return nil
	}
	return t.l.last
}

// written tells the members behind what the record is now.
func (t *turn) written(rec *loaded) {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	t.l.last = rec
}

func (t *turn) release() {
	<-t.l.turn
	t.leave()
}

func (t *turn) leave() {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	if t.l.members--; t.l.members == 0 {
		delete(t.q.lines, t.id)
	}
}
