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

// SoakBroken soaks with stores that break promises, at most for duration, and
// until the ledger has found something, unless whole is set.
func SoakBroken(ctx context.Context, dbURL, broken string, duration time.Duration, whole bool) (b Broken, err error) {
	r, err := run(ctx, options{
		name: broken, duration: duration, seed: 1, hashIDs: true, logger: slog.New(slog.DiscardHandler),
		databaseURL: dbURL, broken: broken, untilFound: !whole,
	})
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

// Grown says whether a number of connections, taken every second, has grown.
func Grown(values []float64) error {
	s := series{quantity: connections, values: values}
	for i := range values {
		s.at = append(s.at, time.Time{}.Add(time.Duration(i)*time.Second))
	}
	return s.grown()
}
