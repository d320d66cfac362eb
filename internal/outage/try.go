package outage

import "time"

// Try is what a request does once to be answered: it dials, and has a statement
// on a connection. It may be used by several goroutines at once. After Answered,
// Said or End it is over, and further calls do nothing.
type Try struct {
	p *Pass

	// Under k.mu.
	held, over bool
}

// Try begins one, which counts from its first Hold on. One of the calls that end
// it must follow.
func (p *Pass) Try() *Try { return &Try{p: p} }

// Hold says that a connection is held now, or dialled.
func (t *Try) Hold() {
	k := t.p.k
	k.mu.Lock()
	defer k.mu.Unlock()
	t.holdLocked()
}

func (t *Try) holdLocked() {
	if t.held || t.over {
		return
	}
	t.held = true
	k := t.p.k
	if k.trying++; k.trying == 1 {
		now := time.Now()
		if now.Sub(k.since) > forgetAfter*k.limit { // nobody has tried for long: that silence says nothing any more
			k.silent = 0
		}
		k.since = now
	}
	k.armLocked()
}

// Hopeless reports whether the kind has gone down since: the server need not be
// asked for anything more on the connection.
func (t *Try) Hopeless() bool { return t.p.ctx.Err() != nil }

// Answered says that the server has answered a statement.
func (t *Try) Answered() {
	k := t.p.k
	k.mu.Lock()
	if t.over {
		k.mu.Unlock()
		return
	}
	now := time.Now()
	k.heardLocked(now)
	t.endLocked(now)
	var after time.Duration
	var refused uint64
	up, phase := false, k.phase
	switch phase {
	case open:
	case down:
		k.phase, k.allowed, k.probing = reopening, 2, false
		if k.trying > 0 {
			k.armLocked()
		}
	case reopening:
		if k.allowed *= 2; k.allowed >= wideOpen {
			k.phase, up = open, true
			after, refused = now.Sub(k.downAt), k.refused
		}
	}
	k.mu.Unlock()
	k.dials.Fine()
	if phase == down {
		k.other.due() // its next request need not wait for its turn
	}
	if up && k.opts.Up != nil {
		k.opts.Up(k, after, refused)
	}
}

// Said says that the server has spoken, but does not serve: it has too many
// connections, starts, or has cancelled the statement. That ends the silence, and
// opens nothing.
func (t *Try) Said(err error) {
	k := t.p.k
	k.mu.Lock()
	defer k.mu.Unlock()
	if t.over {
		return
	}
	now := time.Now()
	k.heardLocked(now)
	t.endLocked(now)
	t.failedLocked(err)
}

// Lost says that an attempt has ended without an answer: refused, broken off, or
// too late. err may be nil, where nothing is known beyond that. The silence goes on until something is heard or nobody tries any
// more.
func (t *Try) Lost(err error) {
	k := t.p.k
	k.mu.Lock()
	defer k.mu.Unlock()
	if t.over {
		return
	}
	t.holdLocked()
	t.failedLocked(err)
}

// End says that nothing is tried any more.
func (t *Try) End() {
	k := t.p.k
	k.mu.Lock()
	defer k.mu.Unlock()
	t.endLocked(time.Now())
}

func (t *Try) endLocked(now time.Time) {
	t.over = true
	if !t.held {
		return
	}
	t.held = false
	k := t.p.k
	if k.trying--; k.trying == 0 {
		k.silent += now.Sub(k.since)
		k.since = now
	}
}

func (t *Try) failedLocked(err error) {
	k := t.p.k
	if err != nil {
		k.lost = err
	}
	if t.p.round != k.round {
		return
	}
	t.p.failed = true
	if k.phase == reopening {
		k.allowed = max(k.allowed/2, 1)
	}
}

func (k *Kind) heardLocked(now time.Time) {
	k.silent, k.since, k.heard, k.lost = 0, now, now, nil
	k.suspected, k.asked = false, false
}

// silenceLocked returns for how long nothing was heard while something was tried.
func (k *Kind) silenceLocked(now time.Time) time.Duration {
	if k.trying == 0 {
		return k.silent
	}
	return k.silent + now.Sub(k.since)
}

// due lets the next probe in at once.
func (k *Kind) due() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.probeAt = time.Time{}
}

// armLocked has the silence looked at when it may have become too long, unless
// that is to happen anyway. So there is one timer however many operations there
// are, and while they are answered it goes off about once in a limit.
func (k *Kind) armLocked() {
	if k.armed || k.phase == down {
		return
	}
	k.armed = true
	d := k.limit - k.silenceLocked(time.Now())
	switch {
	case k.suspected:
		d = min(k.limit/20, 100*time.Millisecond)
	case k.opts.Locked != nil && !k.asked:
		d -= k.limit / 5
	}
	d = max(d, time.Millisecond)
	if k.timer == nil {
		k.timer = time.AfterFunc(d, k.look)
		return
	}
	k.timer.Reset(d)
}

// look is called by the timer.
func (k *Kind) look() {
	k.mu.Lock()
	k.armed = false
	if k.trying == 0 || k.phase == down {
		k.mu.Unlock()
		return
	}
	now := time.Now()
	left := k.limit - k.silenceLocked(now)
	within := max(left, k.limit/20)
	ask := k.opts.Locked != nil && !k.asked && left <= k.limit/5
	switch {
	case ask:
		k.asked = true
	case left > 0:
	case !k.suspected:
		// If this program was stopped for that long, the answers are there, and
		// only have to be read.
		k.suspected = true
	default:
		k.downLocked(now)
		return
	}
	k.armLocked()
	k.mu.Unlock()
	if ask && k.opts.Locked(k, within) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.heardLocked(time.Now())
	}
}

// downLocked ends the round, and unlocks k.mu. Those who wait in a queue are told
// before those who try, so that they know that nothing was sent for them.
func (k *Kind) downLocked(now time.Time) {
	again := k.phase == reopening
	if !again {
		k.downAt, k.refused = now.Add(-k.silenceLocked(now)), 0
	}
	k.phase, k.allowed, k.probing, k.probeAt = down, 1, false, now
	k.requests, k.bytes = 0, 0
	k.suspected, k.asked = false, false
	k.round++
	end := k.end
	k.newRound()
	r := k.whyLocked(now, false)
	k.mu.Unlock()
	if k.opts.Down != nil {
		k.opts.Down(k, r, again)
	}
	end()
}
