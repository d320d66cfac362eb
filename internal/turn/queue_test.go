package turn_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/pgsession/session/internal/turn"
)

func acquire(t *testing.T, q *turn.Queue[int], name string) turn.Turn[int] {
	t.Helper()
	p, err := q.Acquire(t.Context(), name)
	if err != nil {
		t.Error(err)
	}
	return p
}

// One at a time, and each starts from what the one before has written.
func TestQueueOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const members = 64
		var q turn.Queue[int]
		var inside, sum, stale int
		var wg sync.WaitGroup
		first := acquire(t, &q, "a")
		for range members {
			wg.Go(func() {
				p := acquire(t, &q, "a")
				defer p.Release()
				inside++
				if inside != 1 {
					t.Errorf("got %d at the head of the line, want 1", inside)
				}
				last, ok := p.Newer()
				if !ok {
					stale++
				}
				sum = last + 1
				p.Written(sum)
				inside--
			})
		}
		synctest.Wait() // all of them are in line
		first.Written(100)
		first.Release()
		wg.Wait()
		if sum != 100+members || stale != 0 {
			t.Errorf("got %d, %d without news, want %d, 0", sum, stale, 100+members)
		}
	})
}

func TestQueueNewer(t *testing.T) {
	var q turn.Queue[int]
	p := acquire(t, &q, "a")
	if v, ok := p.Newer(); ok {
		t.Errorf("nobody before: got %d", v)
	}
	p.Written(1)
	if v, ok := p.Newer(); !ok || v != 1 {
		t.Errorf("its own: got %d, %t, want 1, true", v, ok)
	}
	p.Release()

	// The line is empty, so the next one has joined after that write.
	p = acquire(t, &q, "a")
	if v, ok := p.Newer(); ok {
		t.Errorf("joined after the write: got %d, want nothing newer", v)
	}
	p.Release()
}

// Names do not wait for each other.
func TestQueueNamesAreIndependent(t *testing.T) {
	var q turn.Queue[int]
	a, b := acquire(t, &q, "a"), acquire(t, &q, "b")
	a.Written(1)
	if _, ok := b.Newer(); ok {
		t.Error("got news of another line")
	}
	b.Release()
	a.Release()
}

// A member that gives up leaves the line as it was, and the reason is its
// context's.
func TestQueueGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q turn.Queue[int]
		p := acquire(t, &q, "a")
		reason := errors.New("the reason")
		ctx, cancel := context.WithCancelCause(t.Context())
		gone, served := make(chan error), make(chan int)
		go func() {
			_, err := q.Acquire(ctx, "a")
			gone <- err
		}()
		go func() {
			p := acquire(t, &q, "a")
			defer p.Release()
			v, _ := p.Newer()
			served <- v
		}()
		synctest.Wait() // both are in line
		cancel(reason)
		if err := <-gone; !errors.Is(err, reason) {
			t.Errorf("got %v, want the context's cause", err)
		}
		p.Written(7)
		p.Release()
		if v := <-served; v != 7 {
			t.Errorf("the one behind: got %d, want 7", v)
		}
	})
}
