// Package reentry tells a goroutine that calls back into what is calling it from
// any other goroutine that calls at the same time. The first would wait for
// itself for ever; the second only has to wait.
//
// Go gives a goroutine no name, on purpose. So a call goes through a door, a
// function that no other call goes through meanwhile, and who finds a door among
// the functions on its own stack is inside that call. That costs a call next to
// nothing, and only who asks during one looks at a stack. Where all doors are
// taken the number that the runtime prints in a stack trace is read, which takes
// microseconds; if that cannot be read any more, nothing is found to be inside,
// and callers still have their deadlines.
package reentry

import (
	"bytes"
	"runtime"
	"slices"
	"strconv"
	"sync"
)

// Guard notes which goroutines are inside a call, and of which. The zero Guard is
// ready. It is safe for concurrent use.
type Guard[Call comparable] struct {
	mu     sync.Mutex
	inside []entry[Call]
	room   [1]entry[Call] // for inside, so that one call allocates nothing
}

type entry[Call comparable] struct {
	door      int    // -1: none was free
	goroutine uint64 // only without a door
	call      Call
}

// Do calls f; meanwhile Inside finds the call for this goroutine, until f has
// returned or panicked.
func (g *Guard[Call]) Do(call Call, f func()) {
	e := entry[Call]{door: takeDoor(), call: call}
	if e.door < 0 {
		e.goroutine = goroutine()
	} else {
		defer leaveDoor(e.door)
	}
	g.mu.Lock()
	if g.inside == nil {
		g.inside = g.room[:0]
	}
	g.inside = append(g.inside, e)
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		i := slices.Index(g.inside, e)
		g.inside = slices.Delete(g.inside, i, i+1)
	}()
	if e.door < 0 {
		f()
		return
	}
	doors[e.door].through(f)
}

// Inside reports whether this goroutine is inside a call for which is returns
// true. It costs next to nothing while nobody is inside any.
func (g *Guard[Call]) Inside(is func(Call) bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.inside) == 0 {
		return false
	}
	var me caller
	return slices.ContainsFunc(g.inside, func(e entry[Call]) bool {
		return is(e.call) && me.inside(e.door, e.goroutine)
	})
}

// caller is what is known of the goroutine that asks. It is for one call.
type caller struct {
	stack     []uintptr
	goroutine uint64
}

func (c *caller) inside(door int, number uint64) bool {
	if door < 0 {
		if c.goroutine == 0 {
			c.goroutine = goroutine()
		}
		return number != 0 && c.goroutine == number
	}
	if c.stack == nil {
		c.stack = stack()
	}
	return slices.Contains(c.stack, doors[door].entry)
}

// stack returns where the functions on this goroutine's stack begin.
func stack() []uintptr {
	pcs := make([]uintptr, 64)
	n := runtime.Callers(0, pcs)
	for n == len(pcs) { // there may be more
		pcs = make([]uintptr, 2*n)
		n = runtime.Callers(0, pcs)
	}
	begins := pcs[:0]
	for _, pc := range pcs[:n] {
		if f := runtime.FuncForPC(pc - 1); f != nil { // else no function of Go's
			begins = append(begins, f.Entry())
		}
	}
	return begins
}

// goroutine returns the number of the calling goroutine, 0 if it is not known.
func goroutine() uint64 {
	var trace [64]byte
	text := trace[:runtime.Stack(trace[:], false)] // goroutine 1 [running]:
	_, text, _ = bytes.Cut(text, []byte(" "))
	text, _, _ = bytes.Cut(text, []byte(" "))
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
