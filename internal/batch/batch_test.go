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
	began []time.Time // of each call
	ended []time.Time
	hangs map[int]chan struct{} // calls with these end when their channels do
}

func (r *recorder) work(ctx context.Context, qs []int) error {
	r.mu.Lock()
	r.calls = append(r.calls, slices.Clone(qs))
	i := len(r.began)
	r.began, r.ended = append(r.began, time.Now()), append(r.ended, time.Time{})
	r.now++
	r.most = max(r.most, r.now)
	hangs := r.hangs[qs[0]]
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.now--
		r.ended[i] = time.Now()
		r.mu.Unlock()
	}()
	if hangs != nil {
		<-hangs
		return nil
	}
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
	return r.adaptive(batch.Slots{Usual: slots}, most)
}

func (r *recorder) adaptive(slots batch.Slots, most int) *batch.Group[int, string] {
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
		g := batch.New(batch.Slots{Usual: 1}, 10,
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
		g := batch.New(batch.Slots{Usual: 1}, 10,
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

// hang is a recorder in which calls that begin with these hang; release ends one.
func hang(qs ...int) (r *recorder, release func(q int)) {
	r = &recorder{hangs: make(map[int]chan struct{})}
	for _, q := range qs {
		r.hangs[q] = make(chan struct{})
	}
	return r, func(q int) { close(r.hangs[q]); synctest.Wait() }
}

// Somebody's call does not come back. Those behind it wait until its time is over,
// and nobody else waits for it any more; when it is back there is one slot again.
func TestACallThatHangsHoldsOthersUpForItsPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, release := hang(0)
		g := r.adaptive(batch.Slots{Usual: 1, Most: 3, Patience: 2 * time.Second}, 10)
		start := time.Now()
		hung := ask(t, g, 0)
		ask(t, g, 1, 2)()
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("behind the hung call: answered after %v, want its patience of 2s and their own second", took)
		}
		start = time.Now()
		ask(t, g, 3)()
		if took := time.Since(start); took != time.Second {
			t.Errorf("later: answered after %v, want 1s", took)
		}
		ask(t, g, 4, 5, 6)()
		if got := fmt.Sprint(r.calls); got != "[[0] [1 2] [3] [4] [5 6]]" || r.most != 2 {
			t.Errorf("got %s, %d at once, want [[0] [1 2] [3] [4] [5 6]] and two", got, r.most)
		}
		release(0)
		hung()
		r.most = 0
		ask(t, g, 7, 8, 9)()
		if got := fmt.Sprint(r.calls[5:]); got != "[[7] [8 9]]" || r.most != 1 {
			t.Errorf("afterwards: got %s, %d at once, want [[7] [8 9]] one after the other", got, r.most)
		}
	})
}

// Each of several that hang costs its patience; where all slots hang others wait for
// the first that is back.
func TestSeveralCallsThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, release := hang(0, 1, 3)
		g := r.adaptive(batch.Slots{Usual: 1, Most: 3, Patience: 2 * time.Second}, 10)
		start := time.Now()
		first := ask(t, g, 0, 1)
		<-time.After(2 * time.Second)
		synctest.Wait()
		ask(t, g, 2)()
		if took := time.Since(start); took != 13*time.Second {
			t.Errorf("behind two: answered after %v, want the patience of 2s, five times that, and a second", took)
		}
		third := ask(t, g, 3)
		rest := ask(t, g, 4, 5)
		<-time.After(time.Hour)
		synctest.Wait()
		if got := fmt.Sprint(r.calls); got != "[[0] [1] [2] [3]]" || g.Waiting() != 2 {
			t.Errorf("all hang: got %s and %d that wait, want [[0] [1] [2] [3]] and two", got, g.Waiting())
		}
		release(1)
		rest()
		if got := fmt.Sprint(r.calls[4:]); got != "[[4 5]]" || r.most != 3 {
			t.Errorf("one is back: got %s, %d at once, want [[4 5]] and three at most", got, r.most)
		}
		release(0)
		release(3)
		first()
		third()
		g.Close()
	})
}

// Where calls are back within their patience there are the usual ones, whatever the
// load; where they take longer, others begin meanwhile.
func TestPatienceDecidesHowManyAreUnderWay(t *testing.T) {
	for _, tt := range []struct {
		name  string
		slots batch.Slots
		want  int
	}{
		{"back in time", batch.Slots{Usual: 1, Most: 9, Patience: 1100 * time.Millisecond}, 1},
		{"back in time, two", batch.Slots{Usual: 2, Most: 9, Patience: 1100 * time.Millisecond}, 2},
		{"slower", batch.Slots{Usual: 1, Most: 9, Patience: 300 * time.Millisecond}, 2},
		{"slower, two", batch.Slots{Usual: 2, Most: 9, Patience: 300 * time.Millisecond}, 3},
		{"five times slower", batch.Slots{Usual: 1, Most: 9, Patience: 150 * time.Millisecond}, 3},
		{"slower than there are slots", batch.Slots{Usual: 1, Most: 3, Patience: 10 * time.Millisecond}, 3},
		{"no patience given", batch.Slots{Usual: 2}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r recorder
				g := r.adaptive(tt.slots, 10)
				var callers sync.WaitGroup
				for caller := range 20 {
					callers.Go(func() {
						for turn := range 20 {
							<-time.After(time.Duration(37*caller+turn) * time.Millisecond)
							if _, err := g.Do(t.Context(), 1000+100*caller+turn); err != nil {
								t.Error(err)
							}
						}
					})
				}
				callers.Wait()
				if r.most != tt.want {
					t.Errorf("calls at once: got %d, want %d", r.most, tt.want)
				}
				if g.Armed() {
					t.Error("a timer runs where nobody waits")
				}
			})
		})
	}
}

// Whoever is refused, or has left, is not begun when the time of the call before them
// is over.
func TestPatienceEndsWithThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, release := hang(0)
		g := r.adaptive(batch.Slots{Usual: 1, Most: 3, Patience: 2 * time.Second}, 10)
		hung := ask(t, g, 0)
		if g.Armed() {
			t.Error("a timer runs where nobody waits")
		}
		refused := ask(t, g, 1, 2)
		if !g.Armed() {
			t.Error("no timer for those who wait")
		}
		refusal := errors.New("refused")
		g.Refuse(refusal)
		for _, err := range refused() {
			if !errors.Is(err, refusal) {
				t.Errorf("got %v, want the refusal", err)
			}
		}
		if g.Armed() {
			t.Error("a timer runs for those who were refused")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.Do(ctx, 3); !errors.Is(err, batch.ErrNotBegun) {
			t.Errorf("got %v, want ErrNotBegun", err)
		}
		<-time.After(time.Hour)
		synctest.Wait()
		if got := fmt.Sprint(r.calls); got != "[[0]]" || g.Armed() {
			t.Errorf("got %s, timer %t, want [[0]] and none", got, g.Armed())
		}
		release(0)
		hung()
	})
}

// The slots change under way: those who wait go on at once where there are more, or
// less patience, and no more begin where there are fewer.
func TestSlotsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, release := hang(1)
		g := r.adaptive(batch.Slots{Usual: 1, Most: 3, Patience: time.Minute}, 10)
		wait := ask(t, g, 1)
		behind := ask(t, g, 2, 3)
		g.SetSlots(batch.Slots{Usual: 2, Most: 3, Patience: time.Minute})
		synctest.Wait()
		if got := fmt.Sprint(r.calls); got != "[[1] [2 3]]" || g.Armed() {
			t.Errorf("more: got %s, timer %t, want [[1] [2 3]] and none", got, g.Armed())
		}
		behind()
		start := time.Now()
		behind = ask(t, g, 4, 5)
		g.SetSlots(batch.Slots{Usual: 1, Most: 2, Patience: 10 * time.Second})
		behind()
		if took := time.Since(start); took != 10*time.Second || fmt.Sprint(r.calls[2:]) != "[[4] [5]]" {
			t.Errorf("fewer: got %v after %v, want [[4] [5]] after 10s: a second, then what the first has left of its 10s, and a second", r.calls[2:], took)
		}
		release(1)
		wait()
	})
}

// However many hang, patience stays a time: it does not overflow, and others do not
// begin all at once.
func TestPatienceStaysATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 30
		hungs := make([]int, n)
		for i := range hungs {
			hungs[i] = i
		}
		r, release := hang(hungs...)
		g := r.adaptive(batch.Slots{Usual: 1, Most: n + 1, Patience: time.Second}, 1)
		wait := ask(t, g, hungs...)
		longest := time.Second
		for range 8 {
			longest *= 5
		}
		begun := func() int {
			synctest.Wait()
			r.mu.Lock()
			defer r.mu.Unlock()
			return len(r.calls)
		}
		<-time.After(2 * longest)
		for begun() < n {
			before := begun()
			<-time.After(longest)
			if got := begun(); got != before+1 {
				t.Fatalf("calls under way after another %v: got %d, want %d", longest, got, before+1)
			}
		}
		for _, q := range hungs {
			release(q)
		}
		wait()
	})
}

// Where more are under way than there may be now, the next begins when that is over.
func TestSlotsBecomeFewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		g := r.adaptive(batch.Slots{Usual: 3}, 10)
		wait, start := ask(t, g, 1, 2, 3), time.Now()
		g.SetSlots(batch.Slots{Usual: 1, Most: 2, Patience: time.Millisecond})
		ask(t, g, 4, 5)()
		if took := time.Since(start); took != 2*time.Second || fmt.Sprint(r.calls[3:]) != "[[4 5]]" {
			t.Errorf("got %v after %v, want [[4 5]] after the second of those before and its own", r.calls[3:], took)
		}
		wait()
	})
}

// Less patience counts for those who wait already.
func TestPatienceChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, release := hang(1)
		g := r.adaptive(batch.Slots{Usual: 1, Most: 2, Patience: time.Hour}, 10)
		wait, start := ask(t, g, 1), time.Now()
		behind := ask(t, g, 2)
		g.SetSlots(batch.Slots{Usual: 1, Most: 2, Patience: 3 * time.Second})
		behind()
		if took := time.Since(start); took != 4*time.Second {
			t.Errorf("got an answer after %v, want the patience of 3s and a second", took)
		}
		release(1)
		wait()
	})
}

// Close waits for those behind a call that hangs, and for that.
func TestCloseBehindACallThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, release := hang(0)
		g := r.adaptive(batch.Slots{Usual: 1, Most: 2, Patience: 2 * time.Second}, 10)
		hung, others := ask(t, g, 0), ask(t, g, 1, 2)
		closed := make(chan struct{})
		go func() { g.Close(); close(closed) }()
		others()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close came back while a call was under way")
		default:
		}
		release(0)
		hung()
		<-closed
		if g.Armed() {
			t.Error("a timer runs after Close")
		}
	})
}

// FuzzExactlyOnce lets calls come and go as the bytes say, and holds what
// happened against the model: every call that nobody gave up is done exactly
// once and gets its own answer; no more calls are under way than there are
// slots, and no shared one is larger than the maximum.
func FuzzExactlyOnce(f *testing.F) {
	f.Add(uint8(1), uint8(0), uint8(0), uint8(3), []byte{0, 0, 0, 1, 0, 2, 0, 0})
	f.Add(uint8(2), uint8(0), uint8(0), uint8(1), []byte{0, 0, 0, 0, 3, 3, 0})
	f.Add(uint8(0), uint8(0), uint8(0), uint8(0), []byte{0, 2, 0, 2, 0, 2})
	f.Add(uint8(1), uint8(3), uint8(4), uint8(3), []byte{0, 0, 5, 0, 3, 5, 0, 9, 2, 2, 17, 0, 3, 3})
	f.Add(uint8(2), uint8(4), uint8(9), uint8(2), []byte{0, 0, 0, 0, 0, 1, 7, 0, 0, 0, 5, 5, 5})
	f.Fuzz(func(t *testing.T, usual, extra, tenths, most uint8, steps []byte) {
		slots := batch.Slots{Usual: int(usual % 5), Most: int(usual%5 + extra%5), Patience: time.Duration(tenths%20) * time.Second / 10}
		most %= 9
		if len(steps) > 200 {
			steps = steps[:200]
		}
		synctest.Test(t, func(t *testing.T) {
			var r recorder
			g := r.adaptive(slots, int(most))
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
			if want := max(slots.Usual, slots.Most, 1); r.most > want {
				t.Errorf("%d calls at once, want %d at most", r.most, want)
			}
			r.wantPatience(t, slots)
			if g.Armed() {
				t.Error("a timer runs where nobody waits")
			}
		})
	})
}

// wantPatience checks that no call has begun beside the usual ones while they had
// their time still to go.
func (r *recorder) wantPatience(t *testing.T, slots batch.Slots) {
	t.Helper()
	usual := max(slots.Usual, 1)
	for i, began := range r.began {
		var beside []time.Time // the eldest first
		for j, before := range r.began[:i] {
			if r.ended[j].After(began) {
				beside = append(beside, before)
			}
		}
		more := len(beside) - usual
		if more < 0 {
			continue
		}
		patience := slots.Patience
		for range more {
			patience *= 5
		}
		if patience == 0 || began.Sub(beside[more]) < patience {
			t.Errorf("call %d of %v: began beside %d, the youngest %d within %v, want %v", i, r.calls[i], len(beside), usual, began.Sub(beside[more]), patience)
		}
	}
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
	g := batch.New(batch.Slots{Usual: 1}, 10, answer, nil)
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
