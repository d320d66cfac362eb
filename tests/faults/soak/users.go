package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/pgsession/session/tests/faults"
)

const (
	steadyUsers  = 4 // whose sessions are revoked now and then
	briefUsers   = 2 // whose sessions expire
	userBrowsers = 3

	workers = 16
	pace    = 60 * time.Millisecond // of each worker

	revokePause = 2 * time.Second // on average

	// padBytes make a third of the sessions large enough to be stored out of line.
	padBytes = 3000
)

// mix weighs what the workers do.
var mix = []struct {
	kind   faults.Kind
	weight int
}{
	{faults.Read, 44},
	{faults.Write, 22},
	{faults.Add, 16},
	{faults.Renew, 6},
	{faults.Logout, 3},
	{faults.Replay, 5},
	{faults.Visit, 2},
	{faults.Public, 2},
}

func deal(rng *rand.Rand) faults.Kind {
	n := 0
	for _, m := range mix {
		n += m.weight
	}
	n = rng.IntN(n)
	for _, m := range mix {
		if n -= m.weight; n < 0 {
			return m.kind
		}
	}
	panic("unreachable")
}

// user has several browsers.
type user struct {
	name     string
	browsers []*browser

	mu      sync.Mutex
	current *revocation // nil: none is under way
	begun   int
}

type browser struct {
	*faults.Browser
	wire *wire

	// awake is locked while the browser's session is left to expire.
	awake sync.RWMutex
}

// revocation is the end of several sessions of a user by one request.
type revocation struct {
	ready    sync.WaitGroup // until the ledger knows of each session that it may end
	arrived  map[*wire]func()
	answered chan struct{}
	ok       bool // the answer, when answered is closed
}

// revocations returns how many have begun, and whether one is under way.
func (u *user) revocations() (begun int, underWay bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.begun, u.current != nil
}

func (u *user) revocation() *revocation {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.current
}

func (u *user) setRevocation(r *revocation) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.current = r; r != nil {
		u.begun++
	}
}

// newUsers makes the users and browsers.
func (s *soak) newUsers() {
	for i := range steadyUsers + briefUsers {
		u := &user{name: fmt.Sprintf("user %d", i)}
		brief := i >= steadyUsers
		for n := range userBrowsers {
			w := &wire{s: s, user: u, brief: brief}
			pad := ""
			if n == 0 {
				pad = strings.Repeat("x", padBytes)
			}
			u.browsers = append(u.browsers, &browser{Browser: s.ledger.NewBrowser(u.name, pad, w), wire: w})
		}
		s.browsers = append(s.browsers, u.browsers...)
		if brief {
			s.brief = append(s.brief, u.browsers...)
		} else {
			s.steady = append(s.steady, u)
		}
	}
}

// work does random things, one after the other.
func (s *soak) work(ctx context.Context, rng *rand.Rand) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.use(s.browsers[rng.IntN(len(s.browsers))], deal(rng), s.target(rng))
	}
}

// use sends a request of a browser whose session is not left to expire.
func (s *soak) use(b *browser, kind faults.Kind, base string) {
	if !b.awake.TryRLock() {
		return
	}
	defer b.awake.RUnlock()
	switch kind {
	case faults.Replay, faults.Visit, faults.Public:
	default:
		if b.wire.lapsed.Load() {
			kind = faults.Logout
		}
		base += wayUsed
	}
	s.enter(b.Do(kind, base))
}

// enter takes an answer that the ledger has.
func (s *soak) enter(a faults.Answer) faults.Answer {
	if a.Fault != "" {
		s.problem("%s: %s", a.Kind, a.Fault)
	}
	return a
}

// rest leaves brief sessions alone, one after the other, until they have expired.
func (s *soak) rest(ctx context.Context, rng *rand.Rand, first func()) {
	for ctx.Err() == nil {
		if s.restOne(ctx, s.brief[rng.IntN(len(s.brief))], s.target(rng)) {
			first()
		}
	}
}

func (s *soak) restOne(ctx context.Context, b *browser, base string) bool {
	b.awake.Lock()
	defer b.awake.Unlock()
	if !b.LoggedIn() {
		s.enter(b.Do(faults.Login, base))
	}
	if b.wire.late.Load() && s.endLate(ctx) != nil {
		return false
	}
	return pause(ctx, resting) && s.enter(b.Do(faults.Logout, base+wayRested)).OK()
}

// revokeAgain ends all sessions of a random user, or all but one's own, now and
// then.
func (s *soak) revokeAgain(ctx context.Context, rng *rand.Rand, first func()) {
	for pause(ctx, about(rng, revokePause)) {
		u := s.steady[rng.IntN(len(s.steady))]
		var own *browser
		if rng.IntN(2) == 0 {
			own = u.browsers[rng.IntN(len(u.browsers))]
		}
		switch ok := s.revoke(u, own, s.target(rng)); {
		case ok:
			s.revoked.Add(1)
			first()
		case s.endLate(ctx) != nil: // until then the user's logins wait
			return // and nobody logs in any more
		}
		u.setRevocation(nil)
	}
}

// revoke ends all sessions of a user but own's, if that is not nil.
func (s *soak) revoke(u *user, own *browser, base string) bool {
	r := &revocation{arrived: map[*wire]func(){}, answered: make(chan struct{})}
	for _, b := range u.browsers {
		if b != own {
			r.ready.Add(1)
			r.arrived[b.wire] = sync.OnceFunc(r.ready.Done)
		}
	}
	u.setRevocation(r)
	var others sync.WaitGroup
	for _, b := range u.browsers {
		if b != own {
			others.Go(func() {
				s.enter(b.Do(faults.Logout, base+wayRevoke))
				r.arrived[b.wire]() // also where it had no session
			})
		}
	}
	if own != nil {
		s.enter(own.Do(faults.Read, base+wayRevoke))
	} else {
		r.ready.Wait()
		r.ok = s.revokeAll(u, base)
	}
	close(r.answered)
	others.Wait()
	return r.ok
}

func (s *soak) revokeAll(u *user, base string) bool {
	req, err := http.NewRequest(http.MethodPost, base+"/soak/revoke?user="+url.QueryEscape(u.name), nil)
	if err != nil {
		return false
	}
	rep, err := s.exchange(req)
	return err == nil && rep.status == http.StatusOK
}
