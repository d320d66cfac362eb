package outage

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// dialPace is how far apart dials are at least while none succeeds, for each
// address that one connection may have to be dialled at: twenty a second.
const dialPace = 50 * time.Millisecond

// dialsAtOnce is how many dial at once: a connection costs the server a process,
// and after an outage everybody needs one. Meanwhile one connection does the work
// of many, by the statements that requests share.
const dialsAtOnce = 2

// lookForIdle is how often those who wait to dial look for a connection that others
// have given back.
const lookForIdle = 10 * time.Millisecond

// hungDial is how long one dial that hangs keeps back the next.
const hungDial = time.Second

// Dials makes those who dial a server that does not answer take turns, all kinds
// together. It is safe for concurrent use.
type Dials struct {
	pace    time.Duration
	failing atomic.Bool
	said    atomic.Bool // the server did, when the last dial failed

	places  chan struct{}
	waiting atomic.Int32  // for a place
	freed   chan struct{} // gets one when a connection is given back, if somebody waits

	mu      sync.Mutex
	began   time.Time     // the last turn
	next    time.Time     // the next one
	changed chan struct{} // closed when next has come nearer
}

func (d *Dials) init(addresses int) {
	// A connection to one address is dialled less often than it might be.
	d.pace = min(max(dialPace*time.Duration(addresses), 3*dialPace/2), 5*dialPace)
	d.changed = make(chan struct{})
	d.places = make(chan struct{}, dialsAtOnce)
	d.freed = make(chan struct{}, 1)
}

// Place waits for a place among those who dial, as long as one must: as soon as
// there is an idle connection it returns as well, or when ctx ends. leave must be
// called.
func (d *Dials) Place(ctx context.Context, must func() bool) (leave func()) {
	leave = func() { <-d.places }
	select {
	case d.places <- struct{}{}:
		return leave
	default:
	}
	d.waiting.Add(1)
	defer d.waiting.Add(-1)
	t := time.NewTicker(lookForIdle)
	defer t.Stop()
	for must() {
		select {
		case d.places <- struct{}{}:
			return leave
		case <-d.freed:
		case <-t.C:
		case <-ctx.Done():
			return func() {}
		}
	}
	return func() {}
}

// Freed says that a connection was given back.
func (d *Dials) Freed() {
	if d.waiting.Load() == 0 {
		return
	}
	select {
	case d.freed <- struct{}{}:
	default:
	}
}

// Failing reports whether dialling has failed, and nobody has got through since.
func (d *Dials) Failing() bool { return d.failing.Load() }

// Silent reports whether the last dial that failed did so without a word of the
// server's.
func (d *Dials) Silent() bool { return !d.said.Load() }

// Turn waits, while dialling fails, for one's turn to dial. It returns early when
// ctx ends. Who had one says how it went by Fine, Failed or GaveUp.
func (d *Dials) Turn(ctx context.Context) {
	for d.failing.Load() {
		d.mu.Lock()
		now := time.Now()
		wait, changed := d.next.Sub(now), d.changed
		if wait <= 0 {
			d.began, d.next = now, now.Add(max(hungDial, d.pace))
			d.mu.Unlock()
			return
		}
		d.mu.Unlock()
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-changed:
		case <-ctx.Done():
		}
		t.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// Failed says that a dial has failed: refused by the server in so many words
// (said), or without any.
func (d *Dials) Failed(said bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.said.Store(said)
	if !d.failing.Load() {
		d.began = time.Now()
		d.failing.Store(true)
	}
	d.next = d.began.Add(d.pace)
	d.wakeLocked()
}

// GaveUp says that somebody waits no longer for a dial, which may still go on. If
// it was his turn, the next one's comes.
func (d *Dials) GaveUp() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if next := d.began.Add(d.pace); d.failing.Load() && next.Before(d.next) {
		d.next = next
		d.wakeLocked()
	}
}

// Fine says that a dial has succeeded, or a statement was answered.
func (d *Dials) Fine() {
	if !d.failing.Load() {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failing.Store(false)
	d.next = time.Time{}
	d.wakeLocked()
}

func (d *Dials) wakeLocked() {
	close(d.changed)
	d.changed = make(chan struct{})
}
