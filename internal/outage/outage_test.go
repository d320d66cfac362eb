package outage_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session/internal/outage"
)

const limit = outage.Longest

var errRefused = errors.New("connection refused")

// watched is a Watch whose calls are counted.
type watched struct {
	*outage.Watch
	down, again, up atomic.Int64
	refused         atomic.Uint64
	last            atomic.Pointer[outage.Refused]
}

func watch(opts outage.Options) *watched {
	w := new(watched)
	opts.Down = func(_ *outage.Kind, r *outage.Refused, again bool) {
		w.last.Store(r)
		if again {
			w.again.Add(1)
			return
		}
		w.down.Add(1)
	}
	opts.Up = func(_ *outage.Kind, _ time.Duration, refused uint64) {
		w.up.Add(1)
		w.refused.Store(refused)
	}
	w.Watch = outage.New(opts)
	return w
}

func enter(t *testing.T, k *outage.Kind) *outage.Pass {
	t.Helper()
	p, err := k.Enter(limit, 0)
	if err != nil {
		t.Fatalf("Enter: got %v, want to be let in", err)
	}
	return p
}

func refused(t *testing.T, k *outage.Kind) *outage.Refused {
	t.Helper()
	p, err := k.Enter(limit, 0)
	var r *outage.Refused
	if !errors.As(err, &r) {
		if p != nil {
			p.Leave()
		}
		t.Fatalf("Enter: got %v, want to be refused", err)
	}
	return r
}

// answer is a request that is answered.
func answer(t *testing.T, k *outage.Kind) {
	t.Helper()
	p := enter(t, k)
	try := p.Try()
	try.Hold()
	try.Answered()
	p.Leave()
}

// takeDown has one request wait until k is down, and returns it.
func takeDown(t *testing.T, k *outage.Kind) *outage.Pass {
	t.Helper()
	p := enter(t, k)
	try := p.Try()
	try.Lost(errRefused)
	<-p.Round().Done()
	try.End()
	p.Leave()
	synctest.Wait()
	return p
}

func TestDownAfterSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(outage.Options{})
		answer(t, &w.Read)
		p := enter(t, &w.Read)
		try := p.Try()
		try.Hold()
		start := time.Now()
		time.Sleep(limit - time.Millisecond)
		enter(t, &w.Read).Leave() // still waits as always
		select {
		case <-p.Round().Done():
			t.Error("down before the limit")
		default:
		}
		<-p.Round().Done()
		if took := time.Since(start); took < limit || took > limit+100*time.Millisecond {
			t.Errorf("down after %v, want %v and a moment", took, limit)
		}
		synctest.Wait()
		if !errors.As(p.Stopped(), new(*outage.Refused)) || w.down.Load() != 1 || !w.Read.State().Down {
			t.Errorf("got %v, %d reports and %+v, want a refusal, one and down", p.Stopped(), w.down.Load(), w.Read.State())
		}
		if w.Write.State().Down {
			t.Error("writes are down, want only reads")
		}
		try.End()
		p.Leave()
	})
}

// StoreTimeout may be less than the longest limit. A single request with less
// time than others does not shorten it.
func TestLimitIsWhatRequestsAreGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(outage.Options{})
		for _, within := range []time.Duration{time.Second, time.Millisecond} {
			p, err := w.Read.Enter(within, 0)
			if err != nil {
				t.Fatal(err)
			}
			p.Leave()
		}
		p, _ := w.Read.Enter(time.Millisecond, 0)
		try := p.Try()
		start := time.Now()
		try.Hold()
		<-p.Round().Done()
		if took := time.Since(start); took < time.Second || took > 1100*time.Millisecond {
			t.Errorf("down after %v, want a second", took)
		}
		try.End()
	})
}

func TestNotDown(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(*testing.T, *outage.Kind)
	}{
		{"waiting for the pool", func(t *testing.T, k *outage.Kind) {
			p := enter(t, k)
			try := p.Try() // holds nothing
			time.Sleep(10 * limit)
			try.End()
			p.Leave()
		}},
		{"the server says that it has too many connections", func(t *testing.T, k *outage.Kind) {
			for range 20 {
				p := enter(t, k)
				try := p.Try()
				try.Hold()
				time.Sleep(limit / 2)
				try.Said(errors.New("too many connections"))
				try.End()
				p.Leave()
			}
		}},
		{"others are answered", func(t *testing.T, k *outage.Kind) {
			p := enter(t, k)
			try := p.Try()
			try.Hold()
			for range 20 {
				time.Sleep(limit / 2)
				answer(t, k)
			}
			try.End()
			p.Leave()
		}},
		{"silences with nobody trying between them", func(t *testing.T, k *outage.Kind) {
			for range 20 {
				p := enter(t, k)
				try := p.Try()
				try.Hold()
				time.Sleep(limit / 2)
				try.End()
				p.Leave()
				time.Sleep(4 * limit)
			}
		}},
		{"the last one gave up at the limit", func(t *testing.T, k *outage.Kind) {
			p := enter(t, k)
			try := p.Try()
			try.Hold()
			time.Sleep(limit + time.Millisecond)
			try.End()
			p.Leave()
			time.Sleep(limit)
		}},
		{"answered in the last moment", func(t *testing.T, k *outage.Kind) {
			for range 20 {
				p := enter(t, k)
				try := p.Try()
				try.Hold()
				time.Sleep(limit + 50*time.Millisecond) // as when this program was stopped, and goes on
				try.Answered()
				p.Leave()
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := watch(outage.Options{})
				tt.do(t, &w.Read)
				time.Sleep(limit)
				synctest.Wait()
				if w.down.Load() != 0 || w.Read.State() != (outage.State{}) {
					t.Errorf("got %d reports and %+v, want none", w.down.Load(), w.Read.State())
				}
			})
		})
	}
}

// So is one that a single browser meets, with pauses.
func TestDownByFewRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(outage.Options{})
		for range 3 {
			p := enter(t, &w.Read)
			try := p.Try()
			try.Hold()
			time.Sleep(limit * 19 / 20)
			try.Lost(nil)
			try.End()
			p.Leave()
			time.Sleep(limit)
			if w.Read.State().Down {
				return
			}
		}
		t.Error("three requests that had no answer: got up, want down")
	})
}

// One request after the other that nobody answers is a silence too.
func TestDownByRefusedDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(outage.Options{})
		start := time.Now()
		for !w.Write.State().Down {
			p := enter(t, &w.Write)
			try := p.Try()
			try.Lost(errRefused)
			time.Sleep(10 * time.Millisecond) // its pause before it tries again
			try.End()
			p.Leave()
		}
		if took := time.Since(start); took < limit || took > limit+200*time.Millisecond {
			t.Errorf("down after %v, want %v", took, limit)
		}
		r := refused2(t, &w.Write)
		for _, want := range []string{"write", "connection refused", "5.1s"} {
			if !strings.Contains(r.Error(), want) {
				t.Errorf("got %q, want %q in it", r, want)
			}
		}
		if errors.Is(r, errRefused) {
			t.Error("the refusal is its cause, want only its text")
		}
	})
}

// refused2 is the second request of those that come at one moment.
func refused2(t *testing.T, k *outage.Kind) *outage.Refused {
	t.Helper()
	probe := enter(t, k)
	defer probe.Leave()
	return refused(t, k)
}

func TestOneProbeAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(outage.Options{})
		old := takeDown(t, &w.Read)
		if old.Probe() {
			t.Error("who came before is a probe, want none")
		}
		for range 10 {
			probe := enter(t, &w.Read)
			if !probe.Probe() || probe.Stopped() != nil {
				t.Fatalf("got probe %t and %v, want one that may try", probe.Probe(), probe.Stopped())
			}
			for range 100 {
				refused(t, &w.Read)
			}
			try := probe.Try()
			try.Lost(errRefused)
			if probe.Stopped() == nil {
				t.Error("a probe that has failed: got none, want to be refused")
			}
			try.End()
			probe.Leave()
			refused(t, &w.Read) // not yet
			time.Sleep(300 * time.Millisecond)
		}
		if got, want := w.Read.State(), (outage.State{Down: true, Refused: 1010}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		slow := enter(t, &w.Read)
		time.Sleep(limit / 2)
		refused(t, &w.Read) // however long it takes
		slow.Leave()
		answer(t, &w.Read)
		for w.Read.State().Down {
			answer(t, &w.Read)
		}
		if w.down.Load() != 1 || w.again.Load() != 0 || w.up.Load() != 1 || w.refused.Load() != 1011 {
			t.Errorf("got %d, %d and %d reports of down, again and up, %d refused; want 1, 0, 1 and 1011",
				w.down.Load(), w.again.Load(), w.up.Load(), w.refused.Load())
		}
	})
}

func TestReopensGradually(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(outage.Options{})
		takeDown(t, &w.Read)
		probe := enter(t, &w.Read)
		try := probe.Try()
		try.Hold()
		try.Answered()
		probe.Leave()
		for allowed := 2; allowed < 128; allowed *= 2 {
			passes := make([]*outage.Pass, allowed)
			for i := range passes {
				passes[i] = enter(t, &w.Read)
			}
			refused(t, &w.Read)
			if w.up.Load() != 0 {
				t.Fatalf("up with %d at once", allowed)
			}
			try := passes[0].Try()
			try.Hold()
			try.Answered()
			for _, p := range passes {
				p.Leave()
				p.Leave()
			}
		}
		if w.up.Load() != 1 || w.Read.State().Down {
			t.Errorf("got %d reports and %+v, want up", w.up.Load(), w.Read.State())
		}
		for range 10_000 {
			enter(t, &w.Read)
		}
	})
}

// While it reopens, failures halve what is let in, and silence ends it.
func TestDownAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(outage.Options{})
		takeDown(t, &w.Read)
		answer(t, &w.Read)
		answer(t, &w.Read)
		answer(t, &w.Read) // 8
		p := enter(t, &w.Read)
		try := p.Try()
		try.Lost(errRefused)
		for range 3 {
			enter(t, &w.Read)
		}
		refused(t, &w.Read)
		<-p.Round().Done()
		synctest.Wait()
		if w.down.Load() != 1 || w.again.Load() != 1 {
			t.Errorf("got %d and %d reports, want that it is down, and once more", w.down.Load(), w.again.Load())
		}
		// An answer that comes late is one all the same.
		try.Answered()
		enter(t, &w.Read)
		enter(t, &w.Read)
		refused(t, &w.Read)
	})
}

// What the server says while it does not serve ends no outage.
func TestSaidWhileDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(outage.Options{})
		takeDown(t, &w.Read)
		probe := enter(t, &w.Read)
		try := probe.Try()
		try.Hold()
		try.Said(errors.New("the database system is starting up"))
		if probe.Stopped() == nil {
			t.Error("a probe that was told to go away: got none, want to be refused")
		}
		probe.Leave()
		if r := refused(t, &w.Read); !strings.Contains(r.Error(), "starting up") {
			t.Errorf("got %q, want what the server said", r)
		}
	})
}

func TestWaitingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(outage.Options{})
		var passes []*outage.Pass
		for range outage.MaxRequests {
			passes = append(passes, enter(t, &w.Read))
		}
		for range 10 { // it is busy, and answers
			passes = append(passes, enter(t, &w.Read))
		}
		try := passes[0].Try()
		try.Hold()
		time.Sleep(1100 * time.Millisecond)
		r := refused(t, &w.Read)
		if r.For != 0 || !strings.Contains(r.Error(), "too many") {
			t.Errorf("got %q, want that too many wait", r)
		}
		for _, p := range passes[:11] {
			p.Leave()
		}
		enter(t, &w.Read)
		refused(t, &w.Read)
		try.Answered()
		enter(t, &w.Read)
		if w.down.Load() != 0 {
			t.Error("down, want only full")
		}

		big, err := w.Write.Enter(limit, outage.MaxBytes-10)
		if err != nil {
			t.Fatal(err)
		}
		try = big.Try()
		try.Hold()
		time.Sleep(1100 * time.Millisecond)
		if _, err := w.Write.Enter(limit, 11); err == nil {
			t.Error("11 bytes more: got let in, want refused")
		}
		if _, err := w.Write.Enter(limit, 10); err != nil {
			t.Errorf("10 bytes more: got %v, want let in", err)
		}
		big.Leave()
		if _, err := w.Write.Enter(limit, 1<<20); err != nil {
			t.Errorf("a megabyte, when much has left: got %v, want let in", err)
		}
	})
}

// A kind whose operations wait for locks is not down.
func TestLocked(t *testing.T) {
	for _, locked := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			asked := 0
			w := watch(outage.Options{Locked: func(_ *outage.Kind, within time.Duration) bool {
				asked++
				if within <= 0 || within > limit/5 {
					t.Errorf("asked with %v left, want a fifth of %v at most", within, limit)
				}
				return locked
			}})
			p := enter(t, &w.Write)
			try := p.Try()
			try.Hold()
			time.Sleep(10*limit + time.Second)
			try.End()
			p.Leave()
			synctest.Wait()
			if down := w.Write.State().Down; down == locked || !locked && asked != 1 || locked && asked < 10 {
				t.Errorf("locked %t: got down %t, asked %d times", locked, down, asked)
			}
		})
	}
}

// Two dial at once; the others wait until they may, or need not.
func TestDialsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(outage.Options{})
		var must atomic.Bool
		must.Store(true)
		one, two := w.Dials.Place(t.Context(), must.Load), w.Dials.Place(t.Context(), must.Load)
		var in atomic.Int64
		place := func(ctx context.Context) {
			leave := w.Dials.Place(ctx, must.Load)
			in.Add(1)
			leave()
		}
		ctx, cancel := context.WithCancel(t.Context())
		go place(ctx)
		time.Sleep(time.Minute)
		if in.Load() != 0 {
			t.Error("a third dials, want two")
		}
		cancel()
		synctest.Wait()
		if in.Load() != 1 {
			t.Error("whose time is over still waits")
		}
		go place(t.Context())
		synctest.Wait()
		one()
		synctest.Wait()
		if in.Load() != 2 {
			t.Error("a place is free, and nobody takes it")
		}
		one = w.Dials.Place(t.Context(), must.Load)
		go place(t.Context())
		synctest.Wait()
		start := time.Now()
		must.Store(false)
		w.Dials.Freed()
		synctest.Wait()
		if in.Load() != 3 || time.Since(start) != 0 {
			t.Error("a connection was given back, and nobody takes it")
		}
		one()
		two()
	})
}

// The kinds do not judge each other, but share what they learn of dialling.
func TestKindsShareDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(outage.Options{})
		takeDown(t, &w.Read)
		takeDown(t, &w.Write)
		w.Dials.Failed(false)
		if refused2(t, &w.Read); !w.Dials.Failing() {
			t.Error("dialling does not fail, want that it does")
		}
		refused(t, &w.Read) // it had its turn
		answer(t, &w.Write)
		if w.Dials.Failing() {
			t.Error("dialling fails, want that an answer ends that")
		}
		if !w.Read.State().Down {
			t.Error("reads are open, want that only an answer to a read does that")
		}
		enter(t, &w.Read) // at once
	})
}

func TestDialsTakeTurns(t *testing.T) {
	for _, addresses := range []int{1, 2, 4} {
		for _, hangs := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				w := watch(outage.Options{Addresses: addresses})
				w.Dials.Turn(t.Context()) // dialling goes well
				var dials atomic.Int64
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				w.Dials.Failed(false)
				for range 100 {
					go func() {
						for {
							w.Dials.Turn(ctx)
							if ctx.Err() != nil {
								return
							}
							dials.Add(int64(addresses))
							if hangs {
								<-ctx.Done()
								return
							}
							w.Dials.Failed(false)
						}
					}()
				}
				<-ctx.Done()
				synctest.Wait()
				most := int64(200)
				if hangs {
					most = 11 * int64(addresses)
				}
				if got := dials.Load(); got > most || got < most/2 {
					t.Errorf("%d addresses, hangs %t: got %d dials in 10 s, want %d at most and not many less", addresses, hangs, got, most)
				}
			})
		}
	}
}

func TestDialsLetAllGoAfterAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(outage.Options{})
		w.Dials.Failed(false)
		w.Dials.Turn(t.Context())
		var gone atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		for range 50 {
			go func() { w.Dials.Turn(t.Context()); gone.Add(1) }()
		}
		go func() { w.Dials.Turn(ctx); gone.Add(100) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		if gone.Load() != 100 {
			t.Errorf("got %d, want only the one whose round has ended", gone.Load())
		}
		start := time.Now()
		answer(t, &w.Read)
		synctest.Wait()
		if gone.Load() != 150 || time.Since(start) != 0 {
			t.Errorf("got %d after %v, want all at once", gone.Load(), time.Since(start))
		}
	})
}

// TestModel runs requests at random against a server that is up or not, and
// checks what must hold at any moment.
func TestModel(t *testing.T) {
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) { runModel(t, seed) })
	}
}

func runModel(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	w := watch(outage.Options{})
	k := &w.Read
	var serves, speaks atomic.Bool // else it says nothing
	var probes, inside atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	request := func(takes time.Duration) {
		wasDown := k.State().Down
		p, err := k.Enter(limit, 0)
		if err != nil {
			if !wasDown {
				t.Errorf("seed %d: refused by what was open: %v", seed, err)
			}
			return
		}
		defer p.Leave()
		inside.Add(1)
		defer inside.Add(-1)
		if p.Probe() {
			if probes.Add(1) > 1 {
				t.Errorf("seed %d: two probes", seed)
			}
			defer probes.Add(-1)
		}
		for p.Stopped() == nil && ctx.Err() == nil {
			try := p.Try()
			defer try.End()
			try.Hold()
			select {
			case <-time.After(takes):
			case <-p.Round().Done():
			}
			switch {
			case serves.Load():
				try.Answered()
				return
			case speaks.Load():
				try.Said(errRefused)
				return
			default:
				try.Lost(errRefused)
			}
		}
	}
	var downs int64
	for range 100 {
		switch rnd.IntN(10) {
		case 0:
			serves.Store(true)
			speaks.Store(true)
		case 1:
			serves.Store(false)
			speaks.Store(true)
		case 2, 3:
			serves.Store(false)
			speaks.Store(false)
		}
		for range rnd.IntN(20) {
			go request(time.Duration(1 + rnd.IntN(1e8)))
		}
		time.Sleep(time.Duration(1 + rnd.IntN(2e9)))
		synctest.Wait()
		if n := w.down.Load(); n > downs {
			downs = n
			if w.last.Load().For < limit {
				t.Errorf("seed %d: down after %v of silence", seed, w.last.Load().For)
			}
		}
		if w.down.Load()-w.up.Load() != map[bool]int64{true: 1}[k.State().Down] {
			t.Errorf("seed %d: %d times down, %d times up, down %t", seed, w.down.Load(), w.up.Load(), k.State().Down)
		}
	}
	serves.Store(true)
	for range 200 {
		go request(time.Millisecond)
		time.Sleep(10 * time.Millisecond)
	}
	synctest.Wait()
	if k.State().Down || inside.Load() != 0 {
		t.Errorf("seed %d: got down %t and %d inside, want up and nobody", seed, k.State().Down, inside.Load())
	}
	cancel()
}
