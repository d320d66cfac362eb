package outage

import (
	"context"
	"time"
)

// Pass lets one request in. It may be used by several goroutines at once.
type Pass struct {
	k     *Kind
	round int
	bytes int
	probe bool
	ctx   context.Context // the round

	// Under k.mu.
	failed bool // as a probe
	left   bool
}

// Enter lets a request in that has within to be answered and keeps bytes of data,
// or refuses it with a [*Refused]. Its Leave must be called.
func (k *Kind) Enter(within time.Duration, bytes int) (*Pass, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	k.limit = max(k.limit, min(within, Longest))
	switch k.phase {
	case open:
		full := k.requests >= MaxRequests || k.bytes+bytes > MaxBytes
		if full && k.silenceLocked(now) >= min(doubtAfter, k.limit/5) {
			return nil, k.refuseLocked(now)
		}
	case down:
		if k.probing || now.Before(k.probeAt) {
			return nil, k.refuseLocked(now)
		}
		k.probing = true
		k.probeAt = now.Add(2 * k.dials.pace)
	case reopening:
		if k.requests >= k.allowed {
			return nil, k.refuseLocked(now)
		}
	}
	k.requests++
	k.bytes += bytes
	return &Pass{k: k, round: k.round, bytes: bytes, probe: k.phase == down, ctx: k.ctx}, nil
}

// Leave says that the request has been answered. Further calls do nothing.
func (p *Pass) Leave() {
	k := p.k
	k.mu.Lock()
	defer k.mu.Unlock()
	if p.left || p.round != k.round {
		return
	}
	p.left = true
	k.requests--
	k.bytes -= p.bytes
	if p.probe && k.phase == down {
		k.probing = false
	}
}

// Kind returns what the request was let in to.
func (p *Pass) Kind() *Kind { return p.k }

// Probe reports whether the request is the one that finds out.
func (p *Pass) Probe() bool {
	if !p.probe {
		return false
	}
	p.k.mu.Lock()
	defer p.k.mu.Unlock()
	return p.round == p.k.round && p.k.phase == down
}

// Round ends when the kind goes down after the request was let in: nobody need
// wait any longer. A probe that fails is told by [Pass.Stopped].
func (p *Pass) Round() context.Context { return p.ctx }

// Dials is where those who dial take turns.
func (p *Pass) Dials() *Dials { return p.k.dials }

// Failed says that the request has failed before it could try. It matters of a
// probe only: the next one is let in.
func (p *Pass) Failed(err error) {
	k := p.k
	k.mu.Lock()
	defer k.mu.Unlock()
	if p.probe && p.round == k.round && k.phase == down {
		p.failed = true
		if k.lost == nil {
			k.lost = err
		}
	}
}

// Stopped returns a [*Refused] if the request is not to try again: the kind has
// gone down since it was let in, or it is a probe that has failed.
func (p *Pass) Stopped() error {
	k := p.k
	k.mu.Lock()
	defer k.mu.Unlock()
	if p.round != k.round || p.failed && k.phase == down {
		return k.whyLocked(time.Now(), false)
	}
	return nil
}
