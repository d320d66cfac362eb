package session_test

import (
	"slices"
	"testing"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/batch"
	"github.com/pgsession/session/internal/pgtest"
)

// Far from the database there are more slots of each kind, as far as there are
// connections; a number that was given stands.
func TestPostgresSlots(t *testing.T) {
	const patience, farPatience = 5 * time.Millisecond, 10 * time.Millisecond
	url := pgtest.URL(t)
	for _, tt := range []struct {
		name                                         string
		conns                                        int32
		opts                                         session.PostgresOptions
		loads, writes, farLoads, farWrites, renewals batch.Slots
	}{
		{
			"a large pool", 16,
			session.PostgresOptions{},
			batch.Slots{Usual: 2, Most: 8, Patience: patience},
			batch.Slots{Usual: 1, Most: 4, Patience: patience},
			batch.Slots{Usual: 2, Most: 8, Patience: farPatience},
			batch.Slots{Usual: 2, Most: 4, Patience: farPatience},
			batch.Slots{Usual: 2, Most: 3, Patience: patience},
		},
		{
			"a small pool", 4,
			session.PostgresOptions{},
			batch.Slots{Usual: 2, Most: 2, Patience: patience},
			batch.Slots{Usual: 1, Most: 2, Patience: patience},
			batch.Slots{Usual: 2, Most: 2, Patience: farPatience},
			batch.Slots{Usual: 2, Most: 2, Patience: farPatience},
			batch.Slots{Usual: 2, Most: 2, Patience: patience},
		},
		{
			"a number", 16,
			session.PostgresOptions{BatchSlots: 3},
			batch.Slots{Usual: 3, Most: 3},
			batch.Slots{Usual: 3, Most: 3},
			batch.Slots{Usual: 3, Most: 3},
			batch.Slots{Usual: 3, Most: 3},
			batch.Slots{Usual: 3, Most: 3},
		},
	} {
		store := newStore(t, openPool(t, url, maxConns(tt.conns)), tt.opts)
		check := func(when string, loads, writes batch.Slots) {
			t.Helper()
			for kind, got := range store.Slots() {
				want := map[string]batch.Slots{"loads": loads, "renewals": tt.renewals}[kind]
				if want == (batch.Slots{}) {
					want = writes
				}
				if got != want {
					t.Errorf("%s, %s: %s: got %+v, want %+v", tt.name, when, kind, got, want)
				}
			}
		}
		check("at first", tt.loads, tt.writes)
		for range session.WayLoads {
			store.Loaded(time.Millisecond)
		}
		check("far away", tt.farLoads, tt.farWrites)
		for range session.WayLoads {
			store.Loaded(time.Microsecond)
		}
		check("near again", tt.loads, tt.writes)
	}
}

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
