package sessionadmin

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/pgsession/session"
)

const (
	interval = time.Minute // between two samples
	kept     = 24*60 + 1   // samples: a day of them
)

// sample is what the manager had counted by then.
type sample struct {
	at    time.Time
	stats session.Stats
}

// history keeps the manager's counts of the last day, in this process.
type history struct {
	stats func() session.Stats
	ended chan struct{}

	mu      sync.Mutex
	samples []sample // the oldest first, never none
}

func newHistory(stats func() session.Stats) *history {
	return &history{stats: stats, ended: make(chan struct{}), samples: []sample{{time.Now(), stats()}}}
}

// run takes a sample at every full minute until ctx ends.
func (h *history) run(ctx context.Context) {
	defer close(h.ended)
	for {
		now := time.Now()
		t := time.NewTimer(now.Truncate(interval).Add(interval).Sub(now))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
			h.add(sample{time.Now(), h.stats()})
		}
	}
}

func (h *history) add(s sample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.samples) == kept {
		h.samples = slices.Delete(h.samples, 0, 1)
	}
	h.samples = append(h.samples, s)
}

// span is a stretch of time up to now that the pictures show.
type span struct {
	Name, Text, Per string
	bin             time.Duration
	bins            int
}

var spans = []span{
	{"1h", "hour", "minute", time.Minute, 60},
	{"6h", "6 hours", "5 minutes", 5 * time.Minute, 72},
	{"24h", "24 hours", "30 minutes", 30 * time.Minute, 48},
}

// series is what happened in each bin of a span.
type series struct {
	span
	Began time.Time   // when the counting did
	At    []time.Time // when each bin begins; the last one ends now
	edges []session.Stats
}

// series returns the counts over a span. Bins begin at full minutes.
func (h *history) series(s span) series {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := sample{time.Now(), h.stats()} // after every sample
	r := series{span: s, Began: h.samples[0].at}
	first := now.at.Truncate(s.bin).Add(-time.Duration(s.bins-1) * s.bin)
	for i := range s.bins {
		at := first.Add(time.Duration(i) * s.bin)
		r.At = append(r.At, at)
		r.edges = append(r.edges, h.before(at).stats)
	}
	r.edges = append(r.edges, now.stats)
	return r
}

// before returns the sample of a full minute, which is taken a moment later, or
// the nearest before it.
func (h *history) before(t time.Time) sample {
	late := t.Add(interval / 2)
	i, _ := slices.BinarySearchFunc(h.samples, late, func(s sample, t time.Time) int { return s.at.Compare(t) })
	return h.samples[max(i-1, 0)]
}

// each returns how much a count grew in each bin.
func (s *series) each(count func(session.Stats) uint64) []uint64 {
	grown := make([]uint64, s.bins)
	for i := range grown {
		grown[i] = growth(count(s.edges[i]), count(s.edges[i+1]))
	}
	return grown
}

// total returns how much a count grew over the span.
func (s *series) total(count func(session.Stats) uint64) uint64 {
	return growth(count(s.edges[0]), count(s.edges[s.bins]))
}

// growth is never negative: samples are out of order where the clock was set back.
func growth(from, to uint64) uint64 {
	if to < from {
		return 0
	}
	return to - from
}

// counter is one of the manager's counts.
type counter struct {
	Name, Meaning string
	of            func(session.Stats) uint64
	Trouble       bool // somebody should look if it grows
}

var counters = []counter{
	{"Store errors", "failures that requests met", func(s session.Stats) uint64 { return s.StoreErrors }, true},
	{"Refused", "store errors at once, because the database was down", func(s session.Stats) uint64 { return s.Refused }, true},
	{"Conflicts", "saves merged with another request's", func(s session.Stats) uint64 { return s.Conflicts }, false},
	{"Bad cookies", "session cookies that did not verify", func(s session.Stats) uint64 { return s.BadCookies }, false},
	{"Loads", "records asked for", func(s session.Stats) uint64 { return s.Loads }, false},
	{"Misses", "loads of what had expired, ended or never was", func(s session.Stats) uint64 { return s.Misses }, false},
	{"Creates", "new sessions stored", func(s session.Stats) uint64 { return s.Creates }, false},
	{"Renewals", "IDs changed, as at a login", func(s session.Stats) uint64 { return s.Renewals }, false},
	{"Saves", "changes stored, renewals included", func(s session.Stats) uint64 { return s.Saves }, false},
	{"Touches", "expiries moved, nothing else", func(s session.Stats) uint64 { return s.Touches }, false},
	{"Destroys", "logouts and revoked sessions", func(s session.Stats) uint64 { return s.Destroys }, false},
	{"Pruned", "expired records and marks of renewed IDs, deleted", func(s session.Stats) uint64 { return s.Pruned }, false},
	{"Bound", "keys of devices registered", func(s session.Stats) uint64 { return s.Bound }, false},
	{"Refreshed", "proofs of such keys", func(s session.Stats) uint64 { return s.Refreshed }, false},
	{"Unproven", "proofs that did not verify, or were missing", func(s session.Stats) uint64 { return s.Unproven }, false},
	{"Events dropped", "because Config.OnEvent was too slow", func(s session.Stats) uint64 { return s.EventsDropped }, true},
}
