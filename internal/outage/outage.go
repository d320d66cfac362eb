// Package outage decides when a store is down, so that requests need not find
// out one by one, each at the price of its whole timeout. It knows neither SQL
// nor HTTP: what was tried, and what came of it, it is told.
//
// A [Kind] watches one kind of operation, reads or writes, of one store. The
// kind is down when nothing was heard from the server for a time while an
// operation of the kind held a connection or dialled. Waiting for a pool or for
// a lock does not count, and whatever the server says ends the silence, also
// that it has too many connections. So
//
//   - until then requests wait as they always do: a restart is a slow request
//     and not an error. Where nothing is heard, those that wait are bounded, in
//     number and in bytes;
//   - while it is down a request is refused at once, but for one at a time, the
//     probe: a real request, which finds out for all;
//   - an answer lets two requests in, and each further one twice as many, until
//     they are so many that nobody counts any more.
//
// A refused request is certain: nothing was sent for it.
package outage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// Longest is the silence after which a kind is down, unless its requests
	// are given less time than that.
	Longest = 5 * time.Second

	// MaxRequests and MaxBytes bound what waits for a kind of which nothing was
	// heard for a while: its requests, and the data in them.
	MaxRequests = 4096
	MaxBytes    = 64 << 20

	// ProbePatience is how long a probe waits for a connection. Where packets
	// are swallowed the dial of the one before is still under way, so that after
	// the outage no probe has to wait for the timeout of an old dial.
	ProbePatience = time.Second

	// doubtAfter is the silence after which the bounds count, a fifth of the
	// limit at most.
	doubtAfter = time.Second

	// forgetAfter is after how many limits without a try a silence is forgotten.
	// Fewer would let requests that come one by one find out each for itself.
	forgetAfter = 3

	// wideOpen is how many requests at once are let in before all are.
	wideOpen = 128
)

// Options are what a [Watch] is told about its store, and whom it tells.
type Options struct {
	// Addresses is how often one connection may have to be dialled: hosts, with
	// and without TLS. Default 1.
	Addresses int

	// Down is called when a kind has gone down, also when it has again before it
	// was up: requests that wait in a queue are to be refused with r. Up is called
	// when all requests are let in again. Both are called without a lock, and may
	// overlap others.
	Down func(k *Kind, r *Refused, again bool)
	Up   func(k *Kind, after time.Duration, refused uint64)

	// Locked, if it is set, is asked before a kind goes down, at most a fifth of
	// the limit before: whether the operations only wait for locks. It must come
	// back in time.
	Locked func(k *Kind, within time.Duration) bool
}

// Watch watches both kinds of operations of one store, which share its pool. It
// is safe for concurrent use, like its parts.
type Watch struct {
	Read, Write Kind
	Dials       Dials
}

// New returns a Watch.
func New(opts Options) *Watch {
	w := new(Watch)
	w.Dials.init(max(opts.Addresses, 1))
	w.Read.init("read", &w.Write, &w.Dials, opts)
	w.Write.init("write", &w.Read, &w.Dials, opts)
	return w
}

var errNoAnswer = errors.New("no answer")

// Refused is the error of a request that was refused. It is no deadline's and no
// server's: it does not unwrap to the error that it quotes.
type Refused struct {
	Kind  string        // "read" or "write"
	For   time.Duration // that it has been down; zero where too many requests wait
	Cause error         // of the last try
}

func (r *Refused) Error() string {
	if r.For == 0 {
		return fmt.Sprintf("too many requests wait for an answer to a %s already: refused without asking", r.Kind)
	}
	return fmt.Sprintf("the database has been down for %v (%ss): refused without asking; the last try: %v", r.For.Round(100*time.Millisecond), r.Kind, r.Cause)
}

// State is what a kind shows.
type State struct {
	Down    bool   // or not yet wholly open again
	Refused uint64 // requests, so far
}

type phase int

const (
	open      phase = iota
	down            // one request at a time, the probe
	reopening       // allowed requests at a time
)

// Kind watches one kind of operation.
type Kind struct {
	name  string
	other *Kind
	dials *Dials
	opts  Options

	mu    sync.Mutex
	phase phase
	limit time.Duration // of silence: the longest that a request was given, up to Longest

	// Requests. A round ends when the kind goes down: who came before is not
	// counted any more, and refused where it tries again.
	round    int
	ctx      context.Context // the round
	end      context.CancelFunc
	requests int
	bytes    int
	allowed  int
	probing  bool
	probeAt  time.Time // not before

	// Operations that hold a connection or dial.
	trying int
	silent time.Duration // up to since
	since  time.Time     // counts while trying > 0, else when the last has ended
	heard  time.Time     // when the server spoke last
	lost   error         // what became of the last that was not answered

	timer     *time.Timer
	armed     bool
	suspected bool // the limit is reached; one more moment, in case this program stood still
	asked     bool // opts.Locked was

	downAt         time.Time
	refused, total uint64
}

func (k *Kind) init(name string, other *Kind, dials *Dials, opts Options) {
	k.name, k.other, k.dials, k.opts = name, other, dials, opts
	k.newRound()
}

func (k *Kind) newRound() { k.ctx, k.end = context.WithCancel(context.Background()) }

// String returns "read" or "write".
func (k *Kind) String() string { return k.name }

// State returns what k shows.
func (k *Kind) State() State {
	k.mu.Lock()
	defer k.mu.Unlock()
	return State{Down: k.phase != open, Refused: k.total}
}

// Unanswered reports whether k is down, or has heard nothing for as long as
// that takes while it tried.
func (k *Kind) Unanswered() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.phase == down || k.limit > 0 && k.silenceLocked(time.Now()) >= k.limit
}

// HeardWithin reports whether the server has spoken to an operation of k within d.
func (k *Kind) HeardWithin(d time.Duration) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.heard.IsZero() && time.Since(k.heard) < d
}

// refuseLocked counts a request that is refused.
func (k *Kind) refuseLocked(now time.Time) *Refused {
	k.refused++
	k.total++
	return k.whyLocked(now, k.phase == open)
}

func (k *Kind) whyLocked(now time.Time, full bool) *Refused {
	r := &Refused{Kind: k.name, Cause: cmp.Or(k.lost, errNoAnswer)}
	if !full {
		r.For = max(now.Sub(k.downAt), 1)
	}
	return r
}
