package reentry_test

import (
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

func TestAPanicLeaves(t *testing.T) {
	var g reentry.Guard[string]
	func() {
		defer func() { _ = recover() }()
		g.Do("a", func() { panic("x") })
	}()
	if g.Inside(is("a")) {
		t.Error("after a panic: got inside")
	}
}
