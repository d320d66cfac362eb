package explore_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	whichMutants = flag.String("mutants", "", "mutants: run those of the mechanisms of rules (rules), all of them (all), or those whose description matches")
	rootTests    = flag.Bool("root", true, "mutants: run the tests of the root package on those that the explorer does not find")
)

// root is the root package's folder.
const root = "../.."

// TestMutants lets the explorer, and where that finds nothing the tests of the
// root package that need no PostgreSQL, run on code with one fault in it, which
// they must find; where the mutant names a test, that one. What no one finds is either a fault that does not matter, or a
// test that is missing. Every mutant is held to the code as it is in any case.
func TestMutants(t *testing.T) {
	var table []string
	for _, m := range mutants {
		text, err := os.ReadFile(filepath.Join(root, m.file))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), m.old); n != 1 {
			t.Errorf("%s: %d times in the code, want once: %q", m.off, n, m.old)
			continue
		}
		if !m.wanted() {
			continue
		}
		began := time.Now()
		by := m.killed(t, string(text))
		row := fmt.Sprintf("%-25s %-60s %-40s %4.0f s", m.file, m.off, by, time.Since(began).Seconds())
		table = append(table, row)
		t.Log(row)
		switch {
		case by == "":
			t.Errorf("not found: %s", m.off)
		case m.test != "" && by != m.test:
			t.Errorf("%s: found by %s, want %s", m.off, by, m.test)
		case m.rule != "" && !strings.Contains(by, m.rule):
			t.Errorf("%s: found by %s, want %s", m.off, by, m.rule)
		}
	}
	if len(table) > 0 {
		t.Logf("%d mutants, without which does not work:\n%s", len(table), strings.Join(table, "\n"))
	}
}

func (m *mutant) wanted() bool {
	switch *whichMutants {
	case "":
		return false
	case "all":
		return true
	case "rules":
		return m.rule != ""
	}
	return regexp.MustCompile(*whichMutants).MatchString(m.file + ": " + m.off)
}

// killed says who finds the mutant, "" if nobody does.
func (m *mutant) killed(t *testing.T, text string) string {
	dir := t.TempDir()
	overlay := m.overlay(t, dir, text)
	if m.test != "" {
		out, failed := run(t, dir, overlay, "./"+filepath.Dir(m.file), "-test.timeout", "5m", "-test.run", "^"+m.test+"$")
		if !failed {
			return ""
		}
		return found(out)
	}
	out, failed := run(t, dir, overlay, "./internal/explore", m.explore()...)
	if failed {
		return found(out)
	}
	if m.postgres || !*rootTests {
		return ""
	}
	out, failed = run(t, dir, overlay, ".", "-test.timeout", "2m", "-test.run", "^("+strings.Join(serverless(t), "|")+")$")
	if !failed {
		return ""
	}
	// A test that fails without the mutant as well says nothing.
	same := *m
	same.new = m.old
	var by []string
	for _, f := range fails.FindAllStringSubmatch(out, -1) {
		if _, failed := run(t, dir, same.overlay(t, dir, text), ".", "-test.run", "^"+f[1]+"$"); !failed {
			by = append(by, f[1])
		}
		if len(by) > 1 {
			break
		}
	}
	return strings.Join(by, " ")
}

// explore returns the arguments for the explorer. Rules whose mechanism is off are
// looked for until they are broken.
func (m *mutant) explore() []string {
	if m.postgres {
		return []string{"-test.run", "ExplorePostgres$", "-postgres", "200"}
	}
	args := []string{"-test.run", "Explore$|ExploreKnown$", "-bound", "1", "-schedules", "40000", "-until", "any"}
	switch m.rule {
	case "":
	case "R11":
		args = []string{"-test.run", "ExploreLogins$", "-bound", "2", "-schedules", "80000", "-until", m.rule}
	default:
		args[len(args)-1] = m.rule
	}
	return args
}

// overlay writes the mutant beside the code, for the go command.
func (m *mutant) overlay(t *testing.T, dir, text string) string {
	original, err := filepath.Abs(filepath.Join(root, m.file))
	if err != nil {
		t.Fatal(err)
	}
	changed, list := filepath.Join(dir, filepath.Base(m.file)), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{changed: strings.Replace(text, m.old, m.new, 1), list: string(replace)} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// run runs a package's tests with an overlay, and reports whether they fail.
func run(t *testing.T, dir, overlay, pkg string, args ...string) (out string, failed bool) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	binary := filepath.Join(dir, "test"+strings.Trim(filepath.Base(pkg), "."))
	build := exec.CommandContext(ctx, "go", "test", "-overlay", overlay, "-c", "-o", binary, pkg)
	build.Dir = root
	if b, err := build.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, b)
		return "", false
	}
	test := exec.CommandContext(ctx, binary, append(args, "-test.v")...)
	test.Dir = filepath.Join(root, pkg)
	b, err := test.CombinedOutput()
	return string(b), err != nil
}

var (
	breach = regexp.MustCompile(`(R\d+) broken in|breaks \[\{(R\d+)`)
	fails  = regexp.MustCompile(`(?m)^--- FAIL: (\w+)`)
	hangs  = regexp.MustCompile(`panic: explore: a goroutine neither ends nor waits`)
)

// found says in a few words what the output of failed tests says.
func found(out string) string {
	var by []string
	for _, m := range breach.FindAllStringSubmatch(out, -1) {
		by = append(by, m[1]+m[2])
	}
	if hangs.MatchString(out) {
		by = append(by, "R8")
	}
	if len(by) == 0 {
		for _, m := range fails.FindAllStringSubmatch(out, 2) {
			by = append(by, m[1])
		}
	}
	if len(by) == 0 {
		return "a panic"
	}
	slices.Sort(by)
	return strings.Join(slices.Compact(by), " ")
}

// serverless returns the tests of the root package in files that know nothing of
// PostgreSQL and of documents.
func serverless(t *testing.T) (names []string) {
	files, err := filepath.Glob(filepath.Join(root, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatal("no tests in the root package", err)
	}
	test := regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if regexp.MustCompile(`[pP]ostgres|pgtest|newStore\(|[dD]ocs|connect\(|testing/fstest|go/ast`).Match(text) {
			continue
		}
		for _, m := range test.FindAllStringSubmatch(string(text), -1) {
			if m[1] != "TestMain" {
				names = append(names, m[1])
			}
		}
	}
	return names
}
