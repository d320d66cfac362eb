package main_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/tests/faults"
	soak "github.com/pgsession/session/tests/faults/soak"
)

// Ways in which a store breaks promises.
const (
	drop     = "drop"     // one save in 50 is acknowledged and not written
	restore  = "restore"  // one destroyed session in 3 comes back
	immortal = "immortal" // sessions that should expire do not
	hasty    = "hasty"    // sessions end after a twentieth of their time
	unheard  = "unheard"  // one revocation in 3 does nothing
	refuse   = "refuse"   // one revocation in 2 fails, which breaks no promise
	forget   = "forget"   // one load in 50 finds nothing
	mix      = "mix"      // one load in 50 finds another session
	leak     = "leak"     // each load leaves a goroutine and 128 KiB behind
	crash    = "crash"    // one load in 300 ends its process
)

// broken is a store that breaks its promises in one way.
type broken struct {
	*session.PostgresStore
	how   string
	never chan struct{} // what a leaked goroutine waits for

	mu   sync.Mutex
	last session.Record
}

func breakStore(how string, s *session.PostgresStore) session.Store {
	if how == "" {
		return s
	}
	return &broken{PostgresStore: s, how: how, never: make(chan struct{})}
}

// due reports whether to break a promise of a kind now, one in n.
func (b *broken) due(how string, n int) bool { return b.how == how && rand.IntN(n) == 0 }

func (b *broken) Load(ctx context.Context, id string) (session.Record, error) {
	if b.how == leak {
		kept := bytes.Repeat([]byte("x"), 128<<10)
		go func() {
			<-b.never
			runtime.KeepAlive(kept)
		}()
	}
	if b.due(crash, 300) {
		go panic(crash) // not in the handler, where net/http would catch it
	}
	if b.due(forget, 50) {
		return session.Record{}, session.ErrNotFound
	}
	r, err := b.PostgresStore.Load(ctx, id)
	if err != nil || b.how != mix {
		return r, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.due(mix, 20) {
		return b.last, nil
	}
	b.last = r
	return r, nil
}

func (b *broken) Create(ctx context.Context, id string, r session.Record) error {
	r.TTL = b.ttl(r.TTL)
	return b.PostgresStore.Create(ctx, id, r)
}

func (b *broken) Update(ctx context.Context, id string, c session.Change) error {
	if c.NewID == "" && b.due(drop, 20) {
		return nil
	}
	c.TTL = b.ttl(c.TTL)
	return b.PostgresStore.Update(ctx, id, c)
}

func (b *broken) Touch(ctx context.Context, id string, ttl time.Duration) error {
	return b.PostgresStore.Touch(ctx, id, b.ttl(ttl))
}

func (b *broken) ttl(ttl time.Duration) time.Duration {
	switch b.how {
	case immortal:
		return max(ttl, time.Hour)
	case hasty:
		return ttl / 20
	}
	return ttl
}

func (b *broken) Delete(ctx context.Context, id string) error {
	if !b.due(restore, 2) {
		return b.PostgresStore.Delete(ctx, id)
	}
	r, err := b.PostgresStore.Load(ctx, id)
	if err != nil {
		return nil
	}
	if err := b.PostgresStore.Delete(ctx, id); err != nil {
		return err
	}
	return b.Create(ctx, id, r)
}

func (b *broken) DeleteFound(ctx context.Context, q session.Query) (int64, error) {
	if b.due(unheard, 1) {
		return 1, nil
	}
	if b.due(refuse, 2) {
		return 0, errors.New(refuse)
	}
	return b.PostgresStore.DeleteFound(ctx, q)
}

// A store that breaks its promises is found out, each way in its own column.
func TestSoakFindsBrokenPromises(t *testing.T) {
	for _, tt := range []struct {
		how  string
		want func(f *faults.Findings) *int
	}{
		{drop, func(f *faults.Findings) *int { return &f.Lost }},
		{restore, func(f *faults.Findings) *int { return &f.Resurrected }},
		{immortal, func(f *faults.Findings) *int { return &f.Resurrected }},
		{hasty, func(f *faults.Findings) *int { return &f.LoggedOut }},
		{unheard, func(f *faults.Findings) *int { return &f.Resurrected }},
		{forget, func(f *faults.Findings) *int { return &f.LoggedOut }},
		{mix, func(f *faults.Findings) *int { return &f.Foreign }},
	} {
		t.Run(tt.how, func(t *testing.T) {
			t.Parallel()
			// What a store does wrong may show in another column first.
			found := func(f *faults.Findings) bool { return *tt.want(f) != 0 }
			got, err := soak.SoakBroken(t.Context(), pgtest.URL(t), tt.how, 0, found)
			if err != nil {
				t.Fatal(err)
			}
			if !found(&got.Findings) {
				t.Errorf("got %+v, want some", got.Findings)
			}
		})
	}
}

// What grows is found out too.
func TestSoakFindsLeaks(t *testing.T) {
	// Of two thirds of them a process answers a quarter: what those leave behind
	// must be seen over all the limits.
	got, err := soak.SoakBroken(t.Context(), pgtest.URL(t), leak, 2400, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"goroutines", "heap", "resident memory"}; !slices.Equal(got.Grown, want) {
		t.Errorf("what grows: got %q, want %q", got.Grown, want)
	}
	if got.Findings != (faults.Findings{}) || len(got.Problems) != 0 {
		t.Errorf("else: got %+v, want nothing", got)
	}
}

// A revocation that fails is answered so, and nothing is found.
func TestSoakLetsRevocationsFail(t *testing.T) {
	got, err := soak.SoakBroken(t.Context(), pgtest.URL(t), refuse, 300, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Findings != (faults.Findings{}) || len(got.Grown) != 0 || len(got.Problems) != 0 {
		t.Errorf("got %+v, want nothing", got)
	}
}

func TestSoakFindsACrash(t *testing.T) {
	none := func(*faults.Findings) bool { return false } // the crash ends it
	got, err := soak.SoakBroken(t.Context(), pgtest.URL(t), crash, 0, none)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ended by itself", "said: panic: " + crash} {
		if !slices.ContainsFunc(got.Problems, func(p string) bool { return strings.Contains(p, want) }) {
			t.Errorf("got %q, want %q", got.Problems, want)
		}
	}
}

// The first and the last third of the samples are compared, without the first tenth.
func TestFlat(t *testing.T) {
	rising := make([]float64, 100)
	for i := range rising {
		rising[i] = float64(i)
	}
	warm := slices.Repeat([]float64{20}, 100)
	copy(warm, make([]float64, 10))
	outlier := slices.Repeat([]float64{20}, 100)
	outlier[95] = 1000
	for _, tt := range []struct {
		name   string
		values []float64
		want   bool
	}{
		{"as it was", slices.Repeat([]float64{20}, 100), true},
		{"warm after a tenth", warm, true},
		{"an outlier", outlier, true},
		{"rising", rising, false},
		{"too short", slices.Repeat([]float64{20}, 10), false},
		{"never measured", nil, false},
	} {
		if err := soak.Grown(tt.values); (err == nil) != tt.want {
			t.Errorf("%s: got %v, want flat: %t", tt.name, err, tt.want)
		}
	}
}
