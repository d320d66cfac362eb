package reentry_test

import (
	"sync"
	"testing"

	"github.com/pgsession/session/internal/reentry"
)

func is(want string) func(string) bool { return func(call string) bool { return call == want } }

func TestInsideIsThisGoroutineOnly(t *testing.T) {
	var g reentry.Guard[string]
	if g.Inside(is("a")) {
		t.Error("before any call: got inside")
	}
	g.Do("a", func() {
		if !g.Inside(is("a")) {
			t.Error("in the call: got outside; has the form of a stack trace changed?")
		}
		if g.Inside(is("b")) {
			t.Error("in another call: got inside")
		}
		other := make(chan bool)
		go func() { other <- g.Inside(is("a")) }()
		if <-other {
			t.Error("another goroutine: got inside")
		}
		g.Do("b", func() {
			if !g.Inside(is("a")) || !g.Inside(is("b")) {
				t.Error("in a call within: got outside")
			}
		})
		if !g.Inside(is("a")) || g.Inside(is("b")) {
			t.Error("after a call within: got inside that, or outside the first")
		}
	})
	if g.Inside(is("a")) {
		t.Error("after the call: got inside")
	}
}

// More calls at once than there are doors, each inside the one before.
func TestCallsWithoutADoor(t *testing.T) {
	const calls = 20
	var guards [calls]reentry.Guard[int]
	var enter func(n int)
	enter = func(n int) {
		other := make(chan bool)
		for i := range n {
			if !guards[i].Inside(func(call int) bool { return call == i }) {
				t.Errorf("call %d of %d: got outside", i, n)
			}
			go func() { other <- guards[i].Inside(func(int) bool { return true }) }()
			if <-other {
				t.Errorf("another goroutine, call %d of %d: got inside", i, n)
			}
		}
		if n < calls {
			if guards[n].Inside(func(int) bool { return true }) {
				t.Errorf("before call %d: got inside", n)
			}
			guards[n].Do(n, func() { enter(n + 1) })
		}
	}
	enter(0)
}

// Each of several goroutines is inside its own call, however deep its stack.
func TestCallsAtOnceAreToldApart(t *testing.T) {
	const calls = 20
	var g reentry.Guard[int]
	var all, done sync.WaitGroup
	all.Add(calls)
	for n := range calls {
		done.Go(func() {
			g.Do(n, func() {
				all.Done()
				all.Wait()
				deeper(50*n, func() {
					for i := range calls {
						if got := g.Inside(func(call int) bool { return call == i }); got != (i == n) {
							t.Errorf("goroutine %d, call %d: got inside %t", n, i, got)
						}
					}
				})
			})
		})
	}
	done.Wait()
}

func deeper(n int, f func()) {
	if n == 0 {
		f()
		return
	}
	deeper(n-1, f)
}

func TestAPanicLeaves(t *testing.T) {
	var g reentry.Guard[string]
	func() {
		defer func() { _ = recover() }()
		g.Do("a", func() { panic("x") })
	}()
	if g.Inside(is("a")) {
		t.Error("after a panic: got inside")
	}
	if n := reentry.DoorsTaken(); n != 0 {
		t.Errorf("after a panic: got %d doors taken, want none", n)
	}
}
