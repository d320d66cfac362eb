package session_test

import (
	"slices"
	"testing"
	"time"

	"github.com/pgsession/session"
)

// The shortest of some loads says how far away the database is, and only a change is
// told.
func TestWay(t *testing.T) {
	const near, far = 200 * time.Microsecond, 1200 * time.Microsecond
	var told []bool
	w := session.NewWay(func(far bool) { told = append(told, far) })
	for _, tt := range []struct {
		name  string
		loads []time.Duration
		want  []bool
	}{
		{"few", slices.Repeat([]time.Duration{far}, session.WayLoads-1), nil},
		{"far", []time.Duration{far}, []bool{true}},
		{"far, still", slices.Repeat([]time.Duration{far, time.Minute}, session.WayLoads), []bool{true}},
		{"near, but busy", append(slices.Repeat([]time.Duration{time.Second}, session.WayLoads-1), near), []bool{true, false}},
		{"busy", slices.Repeat([]time.Duration{time.Second, near, far, near}, session.WayLoads), []bool{true, false}},
		{"far again", slices.Repeat([]time.Duration{far}, session.WayLoads), []bool{true, false, true}},
	} {
		for _, d := range tt.loads {
			session.Took(w, d)
		}
		if !slices.Equal(told, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, told, tt.want)
		}
	}
	session.Took(nil, far) // as with slots that are fixed
}
