package main

import (
	"syscall"
	"time"
)

// sleepUntil waits in the kernel: Go's own timers come up to a millisecond late,
// which is as much as is to be waited for.
func sleepUntil(t time.Time) {
	for d := time.Until(t); d > 0; d = time.Until(t) {
		ts := syscall.NsecToTimespec(d.Nanoseconds())
		_ = syscall.Nanosleep(&ts, nil) // a signal may have ended it early
	}
}
