package faults_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/tests/faults"
)

func TestMain(m *testing.M) { pgtest.Main(withTable{m}) }

// withTable prints the table of the faults after the tests.
type withTable struct{ *testing.M }

func (w withTable) Run() int {
	code := w.M.Run()
	table.print()
	return code
}

var table results

// results are the rows of the table.
type results struct {
	mu   sync.Mutex
	rows [][]string
}

func (r *results) add(fault string, rep *faults.Report, f faults.Findings, opened int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, []string{
		fault, strconv.Itoa(rep.Requests),
		fmt.Sprintf("%d / %d", rep.OK, rep.Unavailable), strconv.Itoa(rep.Ended), strconv.Itoa(rep.Other),
		seconds(rep.LongestGap), seconds(rep.LongestPublicGap),
		strconv.Itoa(f.Lost), strconv.Itoa(f.Resurrected), strconv.Itoa(f.LoggedOut), strconv.Itoa(f.Foreign),
		strconv.FormatInt(opened, 10),
	})
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func (r *results) print() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.rows) == 0 {
		return
	}
	slices.SortFunc(r.rows, slices.Compare)
	rows := append([][]string{{
		"fault", "requests", "2xx / 503", "409", "other", "longest gap", "of public pages",
		"lost", "resurrected", "wrongly logged out", "foreign", "connections opened",
	}}, r.rows...)
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len(cell))
		}
	}
	for n, row := range rows {
		line := "|"
		for i, cell := range row {
			line += fmt.Sprintf(" %-*s |", widths[i], cell)
		}
		fmt.Fprintln(os.Stdout, line)
		if n == 0 {
			for _, w := range widths {
				fmt.Fprint(os.Stdout, "|"+strings.Repeat("-", w+2))
			}
			fmt.Fprintln(os.Stdout, "|")
		}
	}
}
