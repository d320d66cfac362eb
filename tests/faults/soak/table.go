package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/pgsession/session/tests/faults"
)

// result is what a soak has come to.
type result struct {
	name     string
	took     time.Duration
	counts   map[string]int64
	findings faults.Findings
	notes    []string
	problems []string
	series   []*series
	wanted   []string // counts that must not be 0
}

func (s *soak) result(took time.Duration) *result {
	_, notes := s.ledger.Findings()
	return &result{
		name: s.o.name, took: took, findings: s.findings(), notes: notes, problems: s.list(), series: s.meter.all,
		counts: s.counts(), wanted: s.wanted(),
	}
}

func (s *soak) counts() map[string]int64 {
	return map[string]int64{
		"requests": s.requests.Load(), "2xx": s.ok.Load(), "409": s.ended.Load(), "503": s.unavailable.Load(),
		"other": s.other.Load(), "broken connections": s.broken.Load(),
		"process kills": s.kills.Load(), "process restarts": s.stops.Load(), "backend kills": s.backendKills.Load(),
		"connections terminated": s.terminations.Load(), "database restarts": s.restarts.Load(),
		"revocations": s.revoked.Load(), "expired": s.expired.Load(), "pruned": int64(s.meter.prunedRows()),
	}
}

// happened are the counts that a soak must have.
var happened = []string{"requests", "2xx", "revocations", "expired", "pruned"}

// troubled are those that it must have where it may kill.
var troubled = []string{"process kills", "process restarts", "backend kills", "connections terminated", "database restarts"}

// wanted returns the counts that this soak must have.
func (s *soak) wanted() []string {
	if s.server == nil {
		return happened
	}
	return slices.Concat(happened, troubled)
}

// failures returns what was broken.
func (r *result) failures() []error {
	var errs []error
	fail := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: "+format, append([]any{r.name}, args...)...))
	}
	if r.findings != (faults.Findings{}) {
		fail("the ledger: got %+v, want none: %q", r.findings, r.notes)
	}
	for _, problem := range r.problems {
		fail("%s", problem)
	}
	for _, s := range r.series {
		if err := s.grown(); err != nil {
			fail("%w", err)
		}
	}
	for _, name := range r.wanted {
		if r.counts[name] == 0 {
			fail("%s: got none, want some", name)
		}
	}
	return errs
}

// printTables prints what was done and found, and what stayed as it was.
func printTables(out io.Writer, results []*result) {
	names := []string{
		"requests", "2xx", "409", "503", "other", "broken connections", "process kills", "process restarts", "backend kills",
		"connections terminated", "database restarts", "revocations", "expired", "pruned",
	}
	done := [][]string{append(append([]string{"soak", "minutes"}, names...), "lost", "resurrected", "wrongly logged out", "foreign")}
	flat := [][]string{{"soak", "of", "median", "first third", "last third", "at most"}}
	for _, r := range results {
		row := []string{r.name, fmt.Sprintf("%.1f", r.took.Minutes())}
		for _, name := range names {
			row = append(row, fmt.Sprint(r.counts[name]))
		}
		f := r.findings
		for _, n := range []int{f.Lost, f.Resurrected, f.LoggedOut, f.Foreign} {
			row = append(row, fmt.Sprint(n))
		}
		done = append(done, row)
		for _, s := range r.series {
			first, last, err := s.thirds()
			if err == nil {
				flat = append(flat, []string{r.name, s.of, s.name, s.format(first), s.format(last), s.format(s.limit(first))})
			}
		}
	}
	printTable(out, done)
	fmt.Fprintln(out)
	printTable(out, flat)
}

func printTable(out io.Writer, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len(cell))
		}
	}
	for n, row := range rows {
		for i, cell := range row {
			fmt.Fprintf(out, "| %-*s ", widths[i], cell)
		}
		fmt.Fprintln(out, "|")
		if n == 0 {
			for _, w := range widths {
				fmt.Fprint(out, "|"+strings.Repeat("-", w+2))
			}
			fmt.Fprintln(out, "|")
		}
	}
}
