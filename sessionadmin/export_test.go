package sessionadmin

import (
	"context"
	"time"

	"github.com/pgsession/session"
)

var (
	Group    = group[int64]
	Short    = short
	SizeText = sizeText
	Share    = share
	Ago      = ago
	Nice     = nice
	Spark    = spark
	Policy   = policy
	Pieces   = pieces
)

// Receipt is where an ending leads to.
func (h *Handler) Receipt(key, value string, n int64, at time.Time) string {
	q := query{key, value}
	return q.address(h.receipt(q, n, at))
}

// History is the noting of counts, for tests that own the clock.
type History struct{ h *history }

func NewHistory(stats func() session.Stats) History { return History{newHistory(stats)} }

func (h History) Run(ctx context.Context) { h.h.run(ctx) }

func (h History) Samples() int { return len(h.h.samples) }

// Created is what was created in each bin of a span, and when the bins begin.
func (h History) Created(name string) (created []uint64, at []time.Time, total uint64) {
	for _, s := range spans {
		if s.Name == name {
			r := h.h.series(s)
			of := func(s session.Stats) uint64 { return s.Creates }
			return r.each(of), r.At, r.total(of)
		}
	}
	return nil, nil, 0
}

// Prunes are the last prunes: how many rows each.
func (h History) Prunes(n int) (rows []uint64, at []time.Time) {
	for _, p := range h.h.prunes(n, sample{time.Now(), h.h.stats()}) {
		rows, at = append(rows, p.Rows), append(at, p.At)
	}
	return rows, at
}

// CountedFields are the values that the pages show of these counts.
func CountedFields(s session.Stats) (values []uint64) {
	for _, c := range counters {
		values = append(values, c.of(s))
	}
	return values
}
