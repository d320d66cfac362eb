package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// vulnMessage is one value of what govulncheck -format json writes, as far as it
// matters here.
type vulnMessage struct {
	OSV *struct {
		ID      string `json:"id"`
		Summary string `json:"summary"`
	} `json:"osv"`
	Finding *vulnFinding `json:"finding"`
}

// vulnFinding is a vulnerability that concerns the code. Trace begins at what is
// vulnerable; without a package only the module is needed, and without a
// function the package is imported and nothing vulnerable of it called.
type vulnFinding struct {
	OSV          string      `json:"osv"`
	FixedVersion string      `json:"fixed_version"`
	Trace        []vulnFrame `json:"trace"`
}

type vulnFrame struct {
	Module   string `json:"module"`
	Version  string `json:"version"`
	Package  string `json:"package"`
	Function string `json:"function"`
	Position *struct {
		Filename string `json:"filename"`
		Line     int    `json:"line"`
	} `json:"position"`
}

// standardLibrary is the name of the module that holds it.
const standardLibrary = "stdlib"

// depth is how near a finding comes: 2 called, 1 imported, 0 only required.
func (f *vulnFinding) depth() int {
	switch {
	case f.Trace[0].Function != "":
		return 2
	case f.Trace[0].Package != "":
		return 1
	}
	return 0
}

// where is the place in our own code from which the call begins.
func (f *vulnFinding) where() string {
	last := f.Trace[len(f.Trace)-1]
	if f.depth() < 2 || last.Position == nil {
		return ""
	}
	return fmt.Sprintf(", called from %s:%d", last.Position.Filename, last.Position.Line)
}

// printVulns reads what govulncheck found and writes a line for each
// vulnerability of a dependency, and one for those that the code reaches in the
// standard library. Those that the code reaches through a dependency are an error:
// a newer version of it is for this repository to choose. Those of the standard
// library are not: they are mended by the Go release that builds the program,
// which whoever builds it chooses. Nor are those that nothing calls.
func printVulns(out io.Writer, in io.Reader) error {
	messages, err := decodeAll[vulnMessage](in)
	if err != nil {
		return fmt.Errorf("the output of govulncheck: %w", err)
	}
	if len(messages) == 0 {
		return errors.New("govulncheck wrote nothing")
	}
	summary := map[string]string{}
	nearest := map[string]*vulnFinding{}
	for _, m := range messages {
		if m.OSV != nil {
			summary[m.OSV.ID] = m.OSV.Summary
		}
		f := m.Finding
		if f == nil || len(f.Trace) == 0 {
			continue
		}
		key := f.OSV + " " + f.Trace[0].Module
		if had := nearest[key]; had == nil || had.depth() < f.depth() {
			nearest[key] = f
		}
	}
	findings := slices.SortedFunc(maps.Values(nearest), func(a, b *vulnFinding) int {
		return cmp.Or(cmp.Compare(b.depth(), a.depth()), cmp.Compare(a.Trace[0].Module, b.Trace[0].Module), cmp.Compare(a.OSV, b.OSV))
	})
	bad := 0
	var release []string // of what a newer Go release mends
	for _, f := range findings {
		at := f.Trace[0]
		if at.Module == standardLibrary {
			if f.depth() == 2 {
				release = append(release, f.OSV+" ("+cmp.Or(f.FixedVersion, "no version")+")")
			}
			continue
		}
		verdict := []string{"required", "imported, not called", "FAIL: called"}[f.depth()]
		if f.depth() == 2 {
			bad++
		}
		fmt.Fprintf(out, "%s: %s@%s %s: %s (mended in %s%s)\n",
			verdict, at.Module, at.Version, f.OSV, summary[f.OSV], cmp.Or(f.FixedVersion, "no version"), f.where())
	}
	if len(release) > 0 {
		fmt.Fprintf(out, "reached in this Go's standard library, with the release that mends it: %s\n", strings.Join(release, ", "))
	}
	if bad > 0 {
		return fmt.Errorf("%d vulnerabilities of dependencies are reached", bad)
	}
	return nil
}
