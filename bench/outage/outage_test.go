package main

import (
	"testing"
	"time"

	"github.com/pgsession/session/bench/internal/rig"
)

func TestMain(m *testing.M) { rig.RunTests(m) }

// A short outage of each kind is measured to the end.
func TestShortRun(t *testing.T) {
	o := options{rate: 100, lasts: time.Second, normal: 300 * time.Millisecond, after: time.Second, timeout: 300 * time.Millisecond, pool: 4}
	for _, fault := range []string{"refused", "swallowed"} {
		if err := run(t.Context(), o, fault); err != nil {
			t.Errorf("%s: %v", fault, err)
		}
	}
}
