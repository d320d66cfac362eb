package sessionadmin_test

import (
	"context"
	"reflect"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/sessionadmin"
)

// pass moves the clock of a bubble.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// Every count is on the page: one that is new in session.Stats, too.
func TestEveryCountIsShown(t *testing.T) {
	var s session.Stats
	v := reflect.ValueOf(&s).Elem()
	var want []uint64
	for i := range v.NumField() {
		if v.Field(i).Kind() == reflect.Uint64 {
			v.Field(i).SetUint(uint64(i + 1))
			want = append(want, uint64(i+1))
		}
	}
	got := sessionadmin.CountedFields(s)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got the fields %v of session.Stats, want %v", got, want)
	}
}

// A count is in the bin of the minute in which it happened, and a day's minutes
// are kept.
func TestHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pass(20 * time.Second) // after a full minute
		var creates atomic.Uint64
		creates.Store(1000) // before the noting began
		h := sessionadmin.NewHistory(func() session.Stats { return session.Stats{Creates: creates.Load()} })
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			h.Run(ctx)
		}()
		minute := func(created uint64) {
			creates.Add(created)
			pass(time.Minute)
		}
		for n := range uint64(5) {
			minute(n + 1)
		}
		creates.Add(100) // in the minute that has only begun
		got, at, total := h.Created("1h")
		if want := []uint64{1, 2, 3, 4, 5, 100}; !slices.Equal(got[54:], want) || total != 115 || slices.Max(got[:54]) != 0 {
			t.Errorf("the last minutes: got %v and %d in all, want %v and 115", got[54:], total, want)
		}
		if last := at[59]; !last.Equal(time.Now().Truncate(time.Minute)) || at[58].Sub(at[57]) != time.Minute {
			t.Errorf("the last bin begins at %v, want the last full minute", last)
		}
		for range 2 * 24 * 60 {
			minute(2)
		}
		if got := h.Samples(); got != 24*60+1 {
			t.Errorf("samples: got %d, want those of a day", got)
		}
		got, _, total = h.Created("24h")
		if got[0] != 60 || got[46] != 60 || total > 2*24*60 || total < 2*(23*60+30) {
			t.Errorf("half hours: got %d, %d and %d in all, want 60, 60 and a day's", got[0], got[46], total)
		}
		stop()
		<-ended
	})
}

func TestPrunes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var prunes atomic.Uint64
		h := sessionadmin.NewHistory(func() session.Stats { return session.Stats{Pruned: prunes.Load()} })
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go h.Run(ctx)
		start := time.Now()
		for _, pruned := range []uint64{0, 7, 0, 0, 5, 6, 0, 1, 0} { // the fourth and fifth minute are one prune
			prunes.Add(pruned)
			pass(time.Minute)
		}
		got, at := h.Prunes(2)
		if want := []uint64{1, 11}; !slices.Equal(got, want) || at[1].Sub(start) != 6*time.Minute {
			t.Errorf("got %v, the second until %v, want %v, 6m", got, at[1].Sub(start), want)
		}
		if got, _ := h.Prunes(9); !slices.Equal(got, []uint64{1, 11, 7}) {
			t.Errorf("all: got %v, want 1, 11 and 7", got)
		}
	})
}

func TestFormats(t *testing.T) {
	now := time.Now()
	for _, c := range []struct{ got, want string }{
		{sessionadmin.Group(0), "0"},
		{sessionadmin.Group(999), "999"},
		{sessionadmin.Group(1000), "1,000"},
		{sessionadmin.Group(-1234567), "-1,234,567"},
		{sessionadmin.Short(7), "7"},
		{sessionadmin.Short(1500), "1.5k"},
		{sessionadmin.Short(2e6), "2M"},
		{sessionadmin.SizeText(999), "999 bytes"},
		{sessionadmin.SizeText(1024), "1.0 KB"},
		{sessionadmin.SizeText(900 << 20), "900 MB"},
		{sessionadmin.SizeText(3 << 40), "3.0 TB"},
		{sessionadmin.Share(0, 0), "–"},
		{sessionadmin.Share(0, 9), "0 %"},
		{sessionadmin.Share(1, 100000), "< 0.1 %"},
		{sessionadmin.Share(99999, 100000), "> 99.9 %"},
		{sessionadmin.Share(25, 1000), "2.5 %"},
		{sessionadmin.Share(9, 9), "100 %"},
		{sessionadmin.Ago(now, now), "just now"},
		{sessionadmin.Ago(now.Add(-59*time.Second), now), "59 s ago"},
		{sessionadmin.Ago(now.Add(-119*time.Second), now), "1 min ago"},
		{sessionadmin.Ago(now.Add(-47*time.Hour), now), "47 h ago"},
		{sessionadmin.Ago(now.Add(49*time.Hour), now), "in 2 days"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	for _, c := range []struct{ step, want float64 }{{0, 1}, {1, 1}, {4.9, 2}, {5, 5}, {99, 50}, {1234, 1000}} {
		if got := sessionadmin.Nice(c.step); got != c.want {
			t.Errorf("a step of %v: got %v, want %v", c.step, got, c.want)
		}
	}
	if line, area := sessionadmin.Spark([]uint64{0, 2}); line != "M0.00,22.00 L100.00,2.00" || area != "M0,24 L0.00,22.00 L100.00,2.00 L100,24 Z" {
		t.Errorf("a spark: got %q and %q", line, area)
	}
}
