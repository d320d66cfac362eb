// Package reentry tells a goroutine that calls back into what is calling it from
// any other goroutine that calls at the same time. The first would wait for
// itself for ever; the second only has to wait.
//
// Go gives a goroutine no name, on purpose, so the number that the runtime prints
// in a stack trace is read. If that cannot be read any more, nothing is found to
// be inside, and callers still have their deadlines.
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
	trace  [64]byte
}

type entry[Call comparable] struct {
	goroutine uint64
	call      Call
}

// Do calls f; meanwhile Inside finds the call for this goroutine, until f has
// returned or panicked.
func (g *Guard[Call]) Do(call Call, f func()) {
	g.mu.Lock()
	e := entry[Call]{g.goroutine(), call}
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
	f()
}

// Inside reports whether this goroutine is inside a call for which is returns
// true. It costs next to nothing while nobody is inside any.
func (g *Guard[Call]) Inside(is func(Call) bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.inside) == 0 {
		return false
	}
	id := g.goroutine()
	return id != 0 && slices.ContainsFunc(g.inside, func(e entry[Call]) bool { return e.goroutine == id && is(e.call) })
}

// goroutine returns the number of the calling goroutine, 0 if it is not known. It
// is called with g.mu locked.
func (g *Guard[Call]) goroutine() uint64 {
	text := g.trace[:runtime.Stack(g.trace[:], false)] // goroutine 1 [running]:
	_, text, _ = bytes.Cut(text, []byte(" "))
	text, _, _ = bytes.Cut(text, []byte(" "))
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
