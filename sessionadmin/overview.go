package sessionadmin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/tablestats"
)

const (
	// A measurement serves for this many times as long as it took, so that
	// somebody who keeps reloading takes 2 % of a core at most, ...
	reuse = 50

	longestReuse = time.Minute // ... and nobody looks at old numbers.

	// Of fewer rows an average says how large an empty index is.
	fewest = 100
)

// measurement is what the database said of the table, or did not.
type measurement struct {
	began, ended     time.Time
	endings          uint64 // before it: a later one has changed what it may have counted
	stats            tablestats.Stats
	ages             tablestats.Ages
	statsErr, ageErr error
}

// fresh reports whether it serves a request that came at t, with so many endings of
// sessions until now.
func (m *measurement) fresh(t time.Time, endings uint64) bool {
	took := m.ended.Sub(m.began)
	switch {
	case m.endings != endings:
		return false
	case m.ended.After(t): // taken while the request waited
		return true
	case m.statsErr != nil:
		return false
	}
	return t.Sub(m.ended) < min(reuse*took, longestReuse)
}

// measure measures the table, once for all who wait.
func (h *Handler) measure(ctx context.Context) *measurement {
	came := time.Now()
	if m := h.last.Load(); m != nil && m.fresh(came, h.endings.Load()) {
		return m
	}
	h.measuring.Lock()
	defer h.measuring.Unlock()
	if m := h.last.Load(); m != nil && m.fresh(came, h.endings.Load()) {
		return m
	}
	ctx = context.WithoutCancel(ctx) // others wait for it, too
	bounded := func(f func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(ctx, h.opts.Timeout)
		defer cancel()
		err := f(ctx)
		if err != nil {
			h.opts.Logger.ErrorContext(ctx, "sessionadmin: the table could not be measured", slog.Any("error", err))
		}
		return err
	}
	m := &measurement{began: time.Now(), endings: h.endings.Load()}
	m.statsErr = bounded(func(ctx context.Context) (err error) {
		m.stats, err = tablestats.Read(ctx, h.opts.Pool, h.opts.Schema, h.opts.Table)
		return err
	})
	if m.ageErr = m.statsErr; m.statsErr == nil {
		m.ageErr = bounded(func(ctx context.Context) (err error) {
			m.ages, err = tablestats.ReadAges(ctx, h.opts.Pool, h.opts.Schema, h.opts.Table)
			return err
		})
	}
	m.ended = time.Now()
	h.last.Store(m)
	return m
}

// overview is the first page.
type overview struct {
	frame
	Trouble []string // what the database did not say, and why
	Measured,
	Began time.Time
	Took time.Duration

	Stats     *tablestats.Stats // of the table; nil: no answer
	Counted   bool              // its rows, too
	Records   int64             // sessions, expired ones too
	Rows      int64             // marks of renewed IDs, too
	PerRecord int64             // bytes
	Over      time.Time         // the oldest expiry, if that has passed
	HeapShare float64
	HeapKnown bool
	Storage   []part

	Spans        []span
	Span         span
	Flow         chart
	Expiry, Ages *chart
	Counters     []count
	Errors       uint64 // of the store, in the span
	Conflicts    uint64
	Created      uint64
	Ended        uint64 // logged out or revoked, as in the picture
	Expired      uint64 // records and marks, pruned
	Prunes       []prune
	Pruned       uint64
}

// part is a part of the table's bytes.
type part struct {
	Name, Class string
	Bytes       int64
	X, W        float64
}

// count is a row of the table of counters.
type count struct {
	counter
	InSpan, Total uint64
	Line, Area    string
}

func (h *Handler) overview(w http.ResponseWriter, r *http.Request) {
	chosen := spans[0]
	for _, s := range spans {
		if s.Name == r.URL.Query().Get("span") {
			chosen = s
		}
	}
	v := overview{frame: h.frame("Sessions", "overview"), Spans: spans, Span: chosen}
	code := http.StatusOK
	if !v.database(h.measure(r.Context())) {
		code = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "5")
	}
	v.process(h.history)
	h.render(w, code, "overview.html", v)
}

// database fills in what was measured; false if there is nothing.
func (v *overview) database(m *measurement) bool {
	v.Measured, v.Took = m.ended, m.ended.Sub(m.began)
	switch {
	case errors.Is(m.statsErr, tablestats.ErrNoTable):
		v.Trouble = append(v.Trouble, "There is no table "+v.Table+", or this program may not use its schema.")
		return false
	case m.statsErr != nil && m.stats.Bytes() == 0:
		v.Trouble = append(v.Trouble, "The database does not answer. The counts of this process are below; the log has the error.")
		return false
	case m.statsErr != nil:
		v.Trouble = append(v.Trouble, "The rows could not be counted in time. The sizes are right.")
	case m.ageErr != nil:
		v.Trouble = append(v.Trouble, "The sessions' ages could not be read in time.")
	}
	s := m.stats
	v.Stats, v.Counted = &s, m.statsErr == nil
	v.HeapShare, v.HeapKnown = s.HeapOnlyShare()
	v.Storage = storage(&s)
	if v.Counted {
		v.Records, v.Rows = s.Live+s.Expired, s.Rows()
		if v.Rows >= fewest {
			v.PerRecord = s.Bytes() / v.Rows
		}
		if s.Expired > 0 {
			v.Over = s.OldestExpiry
		}
		expiry := expiryChart(&s)
		v.Expiry = &expiry
	}
	if m.ageErr == nil {
		ages := ageChart(&m.ages)
		v.Ages = &ages
	}
	return true
}

// process fills in what this process has counted.
func (v *overview) process(h *history) {
	s := h.series(v.Span)
	now := s.edges[s.bins]
	v.Began = s.Began
	v.Flow = flowChart(s)
	v.Pruned = now.Pruned
	v.Prunes = h.prunes(4, sample{time.Now(), now})
	for _, c := range counters {
		row := count{counter: c, InSpan: s.total(c.of), Total: c.of(now)}
		row.Line, row.Area = spark(s.each(c.of)[:s.bins-1]) // the last has only begun
		v.Counters = append(v.Counters, row)
	}
	v.Errors = s.total(func(s session.Stats) uint64 { return s.StoreErrors })
	v.Conflicts = s.total(func(s session.Stats) uint64 { return s.Conflicts })
	v.Created = s.total(func(s session.Stats) uint64 { return s.Creates })
	v.Ended = s.total(func(s session.Stats) uint64 { return s.Destroys })
	v.Expired = s.total(func(s session.Stats) uint64 { return s.Pruned })
}

// storage lays the table's parts out in one bar.
func storage(s *tablestats.Stats) []part {
	parts := []part{
		{Name: "rows", Class: "created", Bytes: s.TableBytes},
		{Name: "indexes", Class: "ended", Bytes: s.IndexBytes},
		{Name: "out of line", Class: "pruned", Bytes: s.ToastBytes},
	}
	x := 0.0
	for i := range parts {
		parts[i].X, parts[i].W = round(x), round(100*float64(parts[i].Bytes)/float64(max(s.Bytes(), 1)))
		x += parts[i].W
	}
	return parts
}

// prune is a time in which expired records and marks of renewed IDs were deleted.
type prune struct {
	At   time.Time // of its end, to the minute
	Rows uint64
}

// prunes returns the last n prunes of the day up to now, the latest first.
func (h *history) prunes(n int, now sample) []prune {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []prune
	running := false // in the minute after this one
	for i, later := len(h.samples)-1, now; i >= 0; i-- {
		at := later.at
		grown := growth(h.samples[i].stats.Pruned, later.stats.Pruned)
		later = h.samples[i]
		switch {
		case grown == 0:
		case running: // one prune may take minutes
			found[len(found)-1].Rows += grown
		case len(found) == n:
			return found
		default:
			found = append(found, prune{at, grown})
		}
		running = grown > 0
	}
	return found
}
