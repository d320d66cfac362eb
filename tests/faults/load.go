package faults

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Load is what many browsers do at once, without end.
type Load struct {
	Ledger *Ledger

	// Target gives the address of a program for the next request.
	Target func() string

	// Users have Sessions browsers each. Defaults 5 and 3.
	Users, Sessions int

	// Workers send the requests of all browsers, so that several of one
	// session overlap; each rests for Pace between two. Public pages and
	// visits without a cookie have a worker more. Defaults 12 and 20 ms.
	Workers int
	Pace    time.Duration

	// Mix weighs the kinds of requests. Default: mostly reads.
	Mix map[Kind]int

	// Pad is text that every session carries.
	Pad string
}

// Report is what became of a load.
type Report struct {
	Requests    int
	OK          int // 2xx
	Unavailable int // 503
	Ended       int // 409, where a logout was faster
	Other       int // everything else, broken connections too

	// LongestGap is the longest time without a 2xx for a session, and
	// LongestPublicGap for a page that does not use one.
	LongestGap, LongestPublicGap time.Duration

	// Failed are the answers that were neither 2xx nor 409.
	Failed []Answer

	// Faults are answers that must never be, and how often they came.
	Faults map[string]int
}

// Since counts the failed answers to requests of a kind that began at t or
// later; kind "" means all.
func (r *Report) Since(t time.Time, kind Kind) int {
	n := 0
	for _, a := range r.Failed {
		if !a.Began.Before(t) && (kind == "" || a.Kind == kind) {
			n++
		}
	}
	return n
}

// Slowest returns how long the slowest failed answer took.
func (r *Report) Slowest() time.Duration {
	var most time.Duration
	for _, a := range r.Failed {
		most = max(most, a.Took)
	}
	return most
}

// Run is a load under way.
type Run struct {
	load     Load
	browsers []*Browser
	stop     chan struct{}
	workers  sync.WaitGroup

	mu         sync.Mutex
	report     Report
	lastOK     time.Time
	lastPublic time.Time
	waiting    []waiting              // for 2xx of sessions
	failing    []waiting              // for failed answers
	underWay   map[chan struct{}]bool // requests; closed when one was answered
}

type waiting struct {
	left int // so many answers
	done chan struct{}
}

// count takes an answer that some wait for, and returns those who still do.
func count(all []waiting) []waiting {
	left := all[:0]
	for _, w := range all {
		if w.left--; w.left > 0 {
			left = append(left, w)
			continue
		}
		close(w.done)
	}
	return left
}

var usualMix = map[Kind]int{Read: 46, Write: 22, Add: 16, Renew: 6, Logout: 3, Replay: 7}

// Start logs nobody in yet; the requests do.
func (l Load) Start() *Run {
	or := func(n *int, usual int) {
		if *n == 0 {
			*n = usual
		}
	}
	or(&l.Users, 5)
	or(&l.Sessions, 3)
	or(&l.Workers, 12)
	if l.Pace == 0 {
		l.Pace = 20 * time.Millisecond
	}
	if l.Mix == nil {
		l.Mix = usualMix
	}
	r := &Run{load: l, stop: make(chan struct{}), lastOK: time.Now(), lastPublic: time.Now()}
	r.report.Faults, r.underWay = map[string]int{}, map[chan struct{}]bool{}
	for user := range l.Users {
		for range l.Sessions {
			r.browsers = append(r.browsers, l.Ledger.NewBrowser(fmt.Sprintf("user %d", user), l.Pad, nil))
		}
	}
	kinds := l.kinds()
	for range l.Workers {
		r.workers.Go(func() { r.work(func() Kind { return kinds[rand.IntN(len(kinds))] }) })
	}
	r.workers.Go(func() {
		next := 0
		r.work(func() Kind { next++; return []Kind{Public, Visit}[next%2] })
	})
	return r
}

// kinds lists each kind as often as it weighs.
func (l *Load) kinds() []Kind {
	var all []Kind
	for kind, weight := range l.Mix {
		for range weight {
			all = append(all, kind)
		}
	}
	return all
}

func (r *Run) work(next func() Kind) {
	tick := time.NewTicker(r.load.Pace)
	defer tick.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-tick.C:
		}
		done := r.begin()
		r.enter(r.browsers[rand.IntN(len(r.browsers))].Do(next(), r.load.Target()))
		done()
	}
}

// begin enters a request that is under way until done is called.
func (r *Run) begin() (done func()) {
	q := make(chan struct{})
	r.mu.Lock()
	r.underWay[q] = true
	r.mu.Unlock()
	return func() {
		r.mu.Lock()
		delete(r.underWay, q)
		r.mu.Unlock()
		close(q)
	}
}

func (r *Run) enter(a Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rep := &r.report
	rep.Requests++
	if a.Fault != "" {
		rep.Faults[string(a.Kind)+": "+a.Fault]++
	}
	switch {
	case a.OK():
		rep.OK++
		r.gaps(a.Kind == Public || a.Kind == Visit)
		return
	case a.Status == 409:
		rep.Ended++
		return
	case a.Status == 503:
		rep.Unavailable++
	default:
		rep.Other++
	}
	r.failing = count(r.failing)
	if len(rep.Failed) < 100_000 {
		rep.Failed = append(rep.Failed, a)
	}
}

// gaps takes a 2xx.
func (r *Run) gaps(public bool) {
	now, rep := time.Now(), &r.report
	if public {
		rep.LongestPublicGap = max(rep.LongestPublicGap, now.Sub(r.lastPublic))
		r.lastPublic = now
		return
	}
	rep.LongestGap = max(rep.LongestGap, now.Sub(r.lastOK))
	r.lastOK = now
	r.waiting = count(r.waiting)
}

// Wait returns when n more requests of sessions were answered with 2xx, or with
// an error after a minute without one.
func (r *Run) Wait(n int) error {
	w := waiting{n, make(chan struct{})}
	r.mu.Lock()
	r.waiting = append(r.waiting, w)
	r.mu.Unlock()
	return r.while(fmt.Sprintf("not %d answers of 2xx", n), w.done, func(rep *Report) int { return rep.OK })
}

// while waits for done, or until progress has stood still for a minute.
func (r *Run) while(what string, done <-chan struct{}, progress func(*Report) int) error {
	now := func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		return progress(&r.report)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for before := now(); ; {
		select {
		case <-done:
			return nil
		case <-timer.C:
		}
		after := now()
		if after == before {
			return fmt.Errorf("faults: %s, and no more in %v", what, patience)
		}
		before = after
		timer.Reset(patience)
	}
}

// WaitFailed returns when n more requests have failed, or with an error after a
// minute without one.
func (r *Run) WaitFailed(n int) error {
	w := waiting{n, make(chan struct{})}
	r.mu.Lock()
	r.failing = append(r.failing, w)
	r.mu.Unlock()
	return r.while(fmt.Sprintf("not %d failed answers", n), w.done, func(rep *Report) int { return rep.Unavailable + rep.Other })
}

// WaitAnswered returns when each request that is under way now was answered. A
// browser waits for a minute, and what it then has not got is a broken answer.
func (r *Run) WaitAnswered() {
	r.mu.Lock()
	all := slices.Collect(maps.Keys(r.underWay))
	r.mu.Unlock()
	for _, q := range all {
		<-q
	}
}

// Stop ends the load when every request under way was answered.
func (r *Run) Stop() Report {
	close(r.stop)
	r.workers.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.LongestGap = max(r.report.LongestGap, time.Since(r.lastOK))
	r.report.LongestPublicGap = max(r.report.LongestPublicGap, time.Since(r.lastPublic))
	return r.report
}

// Close closes the browsers' idle connections.
func (r *Run) Close() {
	for _, b := range r.browsers {
		b.Close()
	}
}

// Browsers returns those of the load.
func (r *Run) Browsers() []*Browser { return r.browsers }
