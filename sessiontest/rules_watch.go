package sessiontest

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/pgsession/session"
)

// watch is the group of rules of a [session.Watcher].
func watch(f *fixture) {
	watcher, ok := f.store.(session.Watcher)
	if !ok {
		f.Skip("the store has no Peek method")
	}
	g := &watchFixture{fixture: f, watcher: watcher}
	f.sub("Peek answers for each ID in the order asked", g.order)
	f.sub("Peek tells the time left and extends nothing", g.timeLeft)
	f.sub("Peek finds nothing where there is no record", g.absent)
	f.sub("Peek tells a renewed session ID", g.renewed)
	f.sub("Peek does not find an expired record", g.expired)
	f.sub("Peek answers for two thousand IDs at once", g.thousands)
	f.sub("Peek with an ended context is an error", g.endedContext)
}

type watchFixture struct {
	*fixture
	watcher session.Watcher
	peeked  time.Time // when the last Peek began
}

func (g *watchFixture) peek(f *fixture, ids ...string) []session.Peeked {
	f.Helper()
	g.peeked = time.Now()
	peeked, err := g.watcher.Peek(f.ctx, ids)
	if err != nil || len(peeked) != len(ids) {
		f.Fatalf("Peek of %d IDs: got %d answers, %v, want as many, no error", len(ids), len(peeked), err)
	}
	return peeked
}

// want checks an answer: it says what Load says, whose own rules are elsewhere.
func (g *watchFixture) want(f *fixture, id string, p session.Peeked) {
	f.Helper()
	r, err := f.store.Load(f.ctx, id)
	switch {
	case errors.Is(err, session.ErrRenewed):
		f.want("Peek of a renewed ID", p.Err, session.ErrRenewed)
	case errors.Is(err, session.ErrNotFound):
		if f.want("Peek of no live record", p.Err, session.ErrNotFound); errors.Is(p.Err, session.ErrRenewed) {
			f.Errorf("Peek of an ID that Load does not know as renewed: got %v", p.Err)
		}
	case err != nil:
		f.Errorf("Load: got %v", err)
	case p.Err != nil || p.TTL > r.TTL+tolerance+time.Since(g.peeked) || p.TTL < r.TTL-tolerance:
		f.Errorf("Peek of a live record: got %v, time left %v, want no error, about %v", p.Err, p.TTL, r.TTL)
	}
	if p.Err != nil && p.TTL != 0 {
		f.Errorf("Peek of no live record: got a time left of %v, want 0", p.TTL)
	}
}

func (g *watchFixture) order(f *fixture) {
	one, two, gone := f.create(`{"a":1}`, time.Hour), f.create(`{"a":1}`, 2*time.Hour), f.id()
	for _, ids := range [][]string{{one}, {one, two, gone}, {gone, two, one, one, gone, two}} {
		for i, p := range g.peek(f, ids...) {
			g.want(f, ids[i], p)
		}
	}
	if peeked, err := g.watcher.Peek(f.ctx, nil); len(peeked) != 0 || err != nil {
		f.Errorf("Peek of no IDs: got %d answers, %v, want none, no error", len(peeked), err)
	}
}

func (g *watchFixture) timeLeft(f *fixture) {
	id := f.create(`{"a":1}`, time.Hour)
	for _, ttl := range []time.Duration{time.Hour, 2 * time.Hour, time.Minute} {
		c := f.change(id, string(f.load(id)))
		c.TTL, c.Shorten = ttl, true
		f.update(id, c)
		before, err := f.store.Load(f.ctx, id)
		if err != nil {
			f.Fatalf("Load: got %v, want no error", err)
		}
		for range 3 {
			g.want(f, id, g.peek(f, id)[0])
		}
		if after, err := f.store.Load(f.ctx, id); err != nil || after.TTL > before.TTL {
			f.Errorf("time left: got %v, %v after Peek, want not more than the %v of before", after.TTL, err, before.TTL)
		}
	}
}

func (g *watchFixture) absent(f *fixture) {
	deleted := f.create(`{"a":1}`, time.Hour)
	if err := f.store.Delete(f.ctx, deleted); err != nil {
		f.Logf("Delete: got %v", err)
	}
	ids := []string{deleted, rand.Text(), ""}
	for i, p := range g.peek(f, ids...) {
		g.want(f, ids[i], p)
	}
}

func (g *watchFixture) renewed(f *fixture) {
	chain := f.chain(`{"a":1}`, 2)
	for i, p := range g.peek(f, chain...) {
		g.want(f, chain[i], p)
	}
}

func (g *watchFixture) expired(f *fixture) {
	id := f.create(`{"a":1}`, short)
	f.awaitExpiry(id)
	g.want(f, id, g.peek(f, id)[0])
}

func (g *watchFixture) thousands(f *fixture) {
	ids := make([]string, 2000)
	for i := range ids {
		ids[i] = rand.Text()
	}
	ids[0], ids[1999] = f.create(`{"a":1}`, time.Hour), f.create(`{"a":1}`, 2*time.Hour)
	peeked := g.peek(f, ids...)
	for _, i := range []int{0, 1, 1000, 1998, 1999} {
		g.want(f, ids[i], peeked[i])
	}
}

func (g *watchFixture) endedContext(f *fixture) {
	id := f.create(`{"a":1}`, time.Hour)
	ended, cancel := context.WithCancel(f.ctx)
	cancel()
	err := f.promptly("Peek", func() error {
		_, err := g.watcher.Peek(ended, []string{id})
		return err
	})
	if err == nil {
		f.Error("Peek with an ended context: got no error, want one")
	}
}
