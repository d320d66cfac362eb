package rig_test

import (
	"testing"
	"time"

	"github.com/pgsession/session/bench/internal/rig"
)

func TestMachineTime(t *testing.T) {
	const ms = 10 * time.Millisecond // of a tick
	got, err := rig.MachineTimeIn("cpu  1 2 4 1000 2000 8 16 32 64 128\ncpu0 9 9 9 9 9 9 9 9 9 9\n")
	want := rig.MachineTime{Busy: (1 + 2 + 4 + 8 + 16) * ms, Stolen: 32 * ms} // guests are in the first already
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8 9", "cpu 1 2 x 4 5 6 7 8"} {
		if got, err := rig.MachineTimeIn(bad); err == nil {
			t.Errorf("%q: got %+v, want an error", bad, got)
		}
	}
}

func TestUsageBetweenTwoTimes(t *testing.T) {
	start := time.Now()
	before := rig.Usage{Server: 1, Store: 2, Own: 3, WAL: 4, Machine: rig.MachineTime{Busy: 5, Stolen: 6}, At: start}
	after := rig.Usage{
		Server: 1 + 200*time.Millisecond, Store: 2 + 300*time.Millisecond, Own: 3 + 400*time.Millisecond, WAL: 104,
		Machine: rig.MachineTime{Busy: 5 + 1300*time.Millisecond, Stolen: 6 + 20*time.Millisecond}, At: start.Add(time.Second),
	}
	used := after.Sub(before)
	if used.CPU() != 500*time.Millisecond || used.WAL != 100 || used.Elapsed != time.Second {
		t.Errorf("got %v of CPU, %d bytes, %v, want 500ms, 100, 1s", used.CPU(), used.WAL, used.Elapsed)
	}
	if others, stolen := used.Foreign(2); others != 0.2 || stolen != 0.01 {
		t.Errorf("others: got %v and %v, want 0.2 and 0.01 of two cores", others, stolen)
	}
	// The clocks of /proc tick apart: less than nothing is nothing.
	if others, _ := (rig.Usage{Server: 2, Elapsed: 1, Machine: rig.MachineTime{Busy: 1}}).Foreign(1); others != 0 {
		t.Errorf("others: got %v, want 0", others)
	}
	if others, stolen := (rig.Usage{}).Foreign(0); others != 0 || stolen != 0 {
		t.Errorf("no time: got %v and %v, want 0", others, stolen)
	}
}
