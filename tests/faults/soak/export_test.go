package main

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/pgsession/session/tests/faults"
)

var (
	IsProcess  = isProcess
	RunProcess = runProcess
	Command    = command
)

// Soak runs both soaks.
func Soak(ctx context.Context, out io.Writer, duration time.Duration, seed uint64) error {
	return soakBoth(ctx, out, options{duration: duration, seed: seed, logger: slog.New(slog.DiscardHandler)})
}

// Broken is what a soak of stores that break promises has found.
type Broken struct {
	faults.Findings
	Grown    []string
	Problems []string
}

// SoakBroken soaks with stores that break promises until found is true of what the ledger
// has found, at most for four minutes; or, if requests is not 0, until so many of them have
// been answered and everything is measured.
func SoakBroken(ctx context.Context, dbURL, broken string, requests int64, found func(*faults.Findings) bool) (b Broken, err error) {
	o := options{
		name: broken, duration: 4 * time.Minute, seed: 1, hashIDs: true, logger: slog.New(slog.DiscardHandler),
		databaseURL: dbURL, broken: broken, found: found,
	}
	if requests > 0 {
		o.duration, o.found, o.requests = 0, nil, requests
	}
	r, err := run(ctx, o)
	if err != nil {
		return b, err
	}
	b.Findings, b.Problems = r.findings, r.problems
	for _, s := range r.series {
		if s.grown() != nil {
			b.Grown = append(b.Grown, s.name)
		}
	}
	slices.Sort(b.Grown)
	b.Grown = slices.Compact(b.Grown)
	return b, nil
}

// Grown says whether a number of connections has grown.
func Grown(values []float64) error {
	s := series{quantity: connections, values: values}
	return s.grown()
}
