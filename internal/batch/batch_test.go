package batch_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session/internal/batch"
)

// recorder is a Group's two functions. Each call takes a second of the test's
// clock and writes down who was in it.
type recorder struct {
	mu    sync.Mutex
	calls [][]int
	most  int // calls under way at once
	now   int
}

func (r *recorder) work(ctx context.Context, qs []int) error {
	r.mu.Lock()
	r.calls = append(r.calls, slices.Clone(qs))
	r.now++
	r.most = max(r.most, r.now)
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.now--
		r.mu.Unlock()
	}()
	select {
	case <-time.After(time.Second):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *recorder) alone(ctx context.Context, q int) (string, error) {
	if err := r.work(ctx, []int{q}); err != nil {
		return "", err
	}
	return fmt.Sprint(q), nil
}

var errOdd = errors.New("odd")

// shared answers 13 with an error of its own.
func (r *recorder) shared(ctx context.Context, qs []int) []batch.Answer[string] {
	err := r.work(ctx, qs)
	answers := make([]batch.Answer[string], len(qs))
	for i, q := range qs {
		answers[i] = batch.Answer[string]{Value: fmt.Sprint(q), Err: err}
		if q == 13 {
			answers[i] = batch.Answer[string]{Err: errOdd}
		}
	}
	return answers
}

func (r *recorder) group(slots, most int) *batch.Group[int, string] {
	return batch.New(slots, most, r.alone, r.shared)
}

// ask calls Do for each question in turn, each once those before are waiting.
func ask(t *testing.T, g *batch.Group[int, string], qs ...int) (wait func() []error) {
	errs := make([]error, len(qs))
	var wg sync.WaitGroup
	for i, q := range qs {
		wg.Go(func() {
			a, err := g.Do(t.Context(), q)
			if err == nil && a != fmt.Sprint(q) {
				err = fmt.Errorf("%d got the answer of %s", q, a)
			}
			errs[i] = err
		})
		synctest.Wait()
	}
	return func() []error { wg.Wait(); return errs }
}

func TestAFreeSlotIsTakenAtOnceAndAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		g := r.group(3, 10)
		start := time.Now()
		ask(t, g, 1, 2, 3)()
		if got := fmt.Sprint(r.calls); got != "[[1] [2] [3]]" || time.Since(start) != time.Second {
			t.Errorf("got %s in %v, want three calls of one each in 1s", got, time.Since(start))
		}
	})
}

func TestCallsGatherWhileAllSlotsAreTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		g := r.group(1, 3)
		start := time.Now()
		for i, err := range ask(t, g, 1, 2, 3, 4, 5, 6)() {
			if err != nil {
				t.Errorf("call %d: %v", i+1, err)
			}
		}
		if got := fmt.Sprint(r.calls); got != "[[1] [2 3 4] [5 6]]" || time.Since(start) != 3*time.Second {
			t.Errorf("got %s in %v, want [[1] [2 3 4] [5 6]] in 3s", got, time.Since(start))
		}
		if r.most != 1 {
			t.Errorf("got %d calls at once, want 1", r.most)
		}
	})
}

func TestABadMemberFailsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		errs := ask(t, r.group(1, 10), 1, 12, 13, 14)()
		if want := []error{nil, nil, errOdd, nil}; !slices.Equal(errs, want) {
			t.Errorf("got %v, want %v", errs, want)
		}
	})
}

func TestACallerWaitsOnItsOwnContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		g := r.group(1, 10)
		wait := ask(t, g, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		var gone error
		var wg sync.WaitGroup
		wg.Go(func() { _, gone = g.Do(ctx, 2) }) // leaves in the middle of the shared call
		synctest.Wait()
		early, leave := context.WithCancel(t.Context())
		wg.Go(func() { _, _ = g.Do(early, 3) }) // leaves before it
		synctest.Wait()
		rest := ask(t, g, 4)
		leave()
		wg.Wait()
		for _, err := range append(wait(), rest()...) {
			if err != nil {
				t.Errorf("a neighbour got %v", err)
			}
		}
		if !errors.Is(gone, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline of its own", gone)
		}
		if got := fmt.Sprint(r.calls); got != "[[1] [2 4]]" {
			t.Errorf("got %s, want [[1] [2 4]]", got)
		}
	})
}

func TestASharedCallHasTheLatestDeadlineAndTheFirstValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		block := make(chan struct{})
		var deadline time.Time
		var value any
		g := batch.New(1, 10,
			func(context.Context, int) (int, error) { <-block; return 0, nil },
			func(ctx context.Context, qs []int) []batch.Answer[int] {
				deadline, _ = ctx.Deadline()
				value = ctx.Value(key{})
				return make([]batch.Answer[int], len(qs))
			})
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = g.Do(t.Context(), 0) })
		synctest.Wait()
		last := time.Now().Add(time.Minute)
		for i, d := range []time.Time{time.Now().Add(time.Second), last, time.Now().Add(2 * time.Second)} {
			ctx, cancel := context.WithDeadline(context.WithValue(t.Context(), key{}, i), d)
			defer cancel()
			wg.Go(func() { _, _ = g.Do(ctx, i) })
			synctest.Wait()
		}
		close(block)
		wg.Wait()
		if !deadline.Equal(last) || value != 0 {
			t.Errorf("got deadline %v and value %v, want %v and 0", deadline, value, last)
		}
	})
}

func TestCloseDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		g := r.group(1, 2)
		wait := ask(t, g, 1, 2, 3, 4)
		g.Close()
		if got := fmt.Sprint(r.calls); got != "[[1] [2 3] [4]]" {
			t.Errorf("Close came back after %s, want all four", got)
		}
		for _, err := range wait() {
			if err != nil {
				t.Error(err)
			}
		}
		if _, err := g.Do(t.Context(), 5); !errors.Is(err, batch.ErrClosed) {
			t.Errorf("after Close: got %v, want ErrClosed", err)
		}
		g.Close() // again does nothing
	})
}

func TestAPanicReachesTheCallersAndFreesTheSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		var calls atomic.Int32
		g := batch.New(1, 10,
			func(_ context.Context, q int) (int, error) {
				if calls.Add(1) == 1 {
					<-gate
				}
				return q, nil
			},
			func(context.Context, []int) []batch.Answer[int] { panic("shared") })
		var panics atomic.Int32
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				defer func() {
					if recover() == "shared" {
						panics.Add(1)
					}
				}()
				_, _ = g.Do(t.Context(), i)
			})
			synctest.Wait()
		}
		close(gate)
		wg.Wait()
		if panics.Load() != 2 {
			t.Errorf("got %d panics, want 2", panics.Load())
		}
		if a, err := g.Do(t.Context(), 7); a != 7 || err != nil {
			t.Errorf("afterwards got %d, %v; want 7 and no error", a, err)
		}
	})
}

// FuzzExactlyOnce lets calls come and go as the bytes say, and holds what
// happened against the model: every call that nobody gave up is done exactly
// once and gets its own answer; no more calls are under way than there are
// slots, and no shared one is larger than the maximum.
func FuzzExactlyOnce(f *testing.F) {
	f.Add(uint8(1), uint8(3), []byte{0, 0, 0, 1, 0, 2, 0, 0})
	f.Add(uint8(2), uint8(1), []byte{0, 0, 0, 0, 3, 3, 0})
	f.Add(uint8(0), uint8(0), []byte{0, 2, 0, 2, 0, 2})
	f.Fuzz(func(t *testing.T, slots, most uint8, steps []byte) {
		slots, most = slots%5, most%9
		if len(steps) > 200 {
			steps = steps[:200]
		}
		synctest.Test(t, func(t *testing.T) {
			var r recorder
			g := r.group(int(slots), int(most))
			var wg sync.WaitGroup
			stayed := map[int]bool{}
			for q, step := range steps {
				if q == 13 {
					continue
				}
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if step%4 == 3 { // gives up after as many tenths of a second
					ctx, cancel = context.WithTimeout(ctx, time.Duration(step)*time.Second/10)
				} else {
					stayed[q] = true
				}
				wg.Go(func() {
					defer cancel()
					a, err := g.Do(ctx, q)
					if err == nil && a != fmt.Sprint(q) {
						t.Errorf("%d got the answer of %s", q, a)
					}
					if err != nil && step%4 != 3 {
						t.Errorf("%d: %v", q, err)
					}
				})
				synctest.Wait()
				if step%4 == 1 {
					<-time.After(time.Duration(step) * time.Second / 16)
				}
			}
			wg.Wait()
			g.Close()
			done := map[int]int{}
			for _, call := range r.calls {
				if len(call) > max(int(most), 1) {
					t.Errorf("%d calls shared, want %d at most", len(call), max(int(most), 1))
				}
				for _, q := range call {
					done[q]++
				}
			}
			for q, n := range done {
				if n != 1 {
					t.Errorf("%d was done %d times", q, n)
				}
			}
			for q := range stayed {
				if done[q] != 1 {
					t.Errorf("%d was done %d times, want once", q, done[q])
				}
			}
			if r.most > max(int(slots), 1) {
				t.Errorf("%d calls at once, want %d at most", r.most, max(int(slots), 1))
			}
		})
	})
}

// Those who wait for a slot are refused, at once and as such; those who have begun
// go on.
func TestRefuse(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	answer := func(context.Context, int) (int, error) {
		close(begun)
		<-release
		return 1, nil
	}
	g := batch.New(1, 10, answer, nil)
	refusal := errors.New("refused")
	var first, others sync.WaitGroup
	first.Go(func() {
		if n, err := g.Do(t.Context(), 0); n != 1 || err != nil {
			t.Errorf("begun: got %d, %v, want its answer", n, err)
		}
	})
	<-begun
	for range 5 {
		others.Go(func() {
			if _, err := g.Do(t.Context(), 0); !errors.Is(err, refusal) || errors.Is(err, batch.ErrNotBegun) {
				t.Errorf("waiting: got %v, want the refusal", err)
			}
		})
	}
	for tick := time.NewTicker(time.Millisecond); g.Waiting() < 5; <-tick.C {
	}
	g.Refuse(refusal)
	others.Wait()
	close(release)
	first.Wait()
	if n := g.Waiting(); n != 0 {
		t.Errorf("waiting afterwards: got %d, want none", n)
	}
}

// Who leaves while it waits knows that nothing was done for it; who leaves in the
// middle of a shared call does not.
func TestNotBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		g := r.group(1, 1)
		wait := ask(t, g, 1)
		leaver := func(after time.Duration) func() error {
			ctx, cancel := context.WithTimeout(t.Context(), after)
			errs := make(chan error, 1)
			go func() {
				defer cancel()
				_, err := g.Do(ctx, 2)
				errs <- err
			}()
			synctest.Wait()
			return func() error { return <-errs }
		}
		inTheMiddle, waiting := leaver(1500*time.Millisecond), leaver(500*time.Millisecond)
		if err := waiting(); !errors.Is(err, batch.ErrNotBegun) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while it waits: got %v, want ErrNotBegun and its context's", err)
		}
		if err := inTheMiddle(); errors.Is(err, batch.ErrNotBegun) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("in the middle: got %v, want its context's alone", err)
		}
		wait()
	})
}
