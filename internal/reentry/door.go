package reentry

import (
	"reflect"
	"sync/atomic"
)

// door is a function that one call at a time goes through.
type door struct {
	through func(func())
	entry   uintptr // where its code begins
	taken   atomic.Bool
}

// doors are more than are used at once as a rule: one for each function of
// Key.Update that runs, in the whole program.
var doors = [...]door{{through: door0}, {through: door1}, {through: door2}, {through: door3}, {through: door4}, {through: door5}, {through: door6}, {through: door7}}

func init() {
	for i := range doors {
		doors[i].entry = reflect.ValueOf(doors[i].through).Pointer()
	}
}

// Each has code of its own, and a place on the stack.
//
//go:noinline
func door0(f func()) { f() }

//go:noinline
func door1(f func()) { f() }

//go:noinline
func door2(f func()) { f() }

//go:noinline
func door3(f func()) { f() }

//go:noinline
func door4(f func()) { f() }

//go:noinline
func door5(f func()) { f() }

//go:noinline
func door6(f func()) { f() }

//go:noinline
func door7(f func()) { f() }

// takeDoor returns a door that nobody goes through, -1 if there is none.
func takeDoor() int {
	for i := range doors {
		if !doors[i].taken.Load() && doors[i].taken.CompareAndSwap(false, true) {
			return i
		}
	}
	return -1
}

func leaveDoor(i int) { doors[i].taken.Store(false) }
