package session_test

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/pgsession/session"
)

// docSection returns the part of a page below a heading, to the next of its level.
func docSection(t *testing.T, page, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut(page, "\n"+heading+"\n")
	if !ok {
		t.Fatalf("got no heading %q", heading)
	}
	level, _, _ := strings.Cut(heading, " ")
	section, _, _ := strings.Cut(rest, "\n"+level+" ")
	return section
}

// docRows returns the first cells of the rows of the tables in a text.
func docRows(text string) (first []string) {
	for line := range strings.Lines(text) {
		if cell, ok := strings.CutPrefix(line, "| "); ok {
			cell, _, _ = strings.Cut(cell, " |")
			first = append(first, cell)
		}
	}
	return first
}

// The README stays a page that one reads to its end: what a table of evidence or
// of settings needs has a page of its own.
func TestDocsReadmeIsShort(t *testing.T) {
	t.Parallel()
	readme := docRead(t, "README.md")
	if len(readme) > 7500 {
		t.Errorf("README.md: got %d bytes, want 7500 at most", len(readme))
	}
	section := docSection(t, readme, "## What is guaranteed")
	if got := len(regexp.MustCompile(`(?m)^\d+\. `).FindAllString(section, -1)); got != 8 {
		t.Errorf("guarantees: got %d sentences, want 8", got)
	}
	for _, command := range []string{"\ngo run ./examples/quickstart\n", "\ngo test ./...\n"} {
		before, _, ok := strings.Cut(readme, command)
		if !ok || strings.Contains(before, "\n## ") {
			t.Errorf("got no %q above the first heading", strings.TrimSpace(command))
		}
	}
}

// Every Markdown file of the repository can be found from docs/README.md, but for
// the figures of the benchmarks, whose report it names. The README leads there.
func TestDocsIndexIsComplete(t *testing.T) {
	t.Parallel()
	linked := map[string]bool{"docs/README.md": true}
	for _, m := range docLink.FindAllStringSubmatch(docRead(t, "docs/README.md"), -1) {
		path, _, _ := strings.Cut(m[1], "#")
		linked[filepath.ToSlash(filepath.Join("docs", filepath.FromSlash(path)))] = true
	}
	for _, file := range docFiles(t) {
		if !linked[file] && !strings.HasPrefix(file, "bench/results/") {
			t.Errorf("docs/README.md: got no link to %s", file)
		}
	}
	if !strings.Contains(docRead(t, "README.md"), "](docs/README.md)") {
		t.Error("README.md: got no link to docs/README.md")
	}
}

// Every guarantee has a test: one that is named, or a directory of tests.
func TestDocsGuaranteesAreTested(t *testing.T) {
	t.Parallel()
	rows := 0
	for line := range strings.Lines(docRead(t, "docs/guarantees.md")) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| guarantee |") {
			continue
		}
		rows++
		_, shown, _ := strings.Cut(line[2:], " | ")
		tested := docTest.MatchString(shown)
		for _, m := range docTestLink.FindAllStringSubmatch(shown, -1) {
			tested = tested || docHasTests(m[2])
		}
		if !tested {
			t.Errorf("got a guarantee without a test: %s", line)
		}
	}
	if rows < 30 {
		t.Errorf("guarantees: got %d, want 30 at least", rows)
	}
}

// docHasTests reports whether a link of a page in docs leads to tests, or to a
// program that runs them.
func docHasTests(link string) bool {
	target := filepath.Join("docs", filepath.FromSlash(link))
	tests, err := filepath.Glob(filepath.Join(target, "*_test.go"))
	if err == nil && len(tests) > 0 || strings.HasSuffix(target, "_test.go") {
		return true
	}
	b, err := os.ReadFile(target)
	return err == nil && strings.Contains(string(b), "go test ")
}

// The page of settings has a row for each field and for each variable.
func TestDocsConfigurationIsComplete(t *testing.T) {
	t.Parallel()
	page := docRead(t, "docs/configuration.md")
	for heading, typ := range map[string]reflect.Type{
		"## Config":          reflect.TypeFor[session.Config](),
		"## Cookie":          reflect.TypeFor[session.CookieConfig](),
		"## PostgresOptions": reflect.TypeFor[session.PostgresOptions](),
	} {
		want := map[string]bool{}
		for i := range typ.NumField() {
			if f := typ.Field(i); f.IsExported() {
				want[f.Name] = true
			}
		}
		for _, cell := range docRows(docSection(t, page, heading)) {
			if cell == "field" {
				continue
			}
			for name := range strings.SplitSeq(cell, ", ") {
				name = strings.Trim(name, "`")
				if !want[name] {
					t.Errorf("%s: got a row %s, want none: no such field, or twice", heading, name)
				}
				delete(want, name)
			}
		}
		for name := range want {
			t.Errorf("%s: got no row for %s", heading, name)
		}
	}
	variables := strings.Join(docRows(docSection(t, page, "## Environment")), "\n") + "\n"
	source := docRead(t, "config.go")
	read := regexp.MustCompile(`os\.Getenv\("(\w+)"\)`).FindAllStringSubmatch(source, -1)
	if len(read) < 4 {
		t.Errorf("variables in the source: got %d, want 4 at least", len(read))
	}
	for _, m := range read {
		if !strings.Contains(variables, "`"+m[1]+"`\n") {
			t.Errorf("## Environment: got no row for %s", m[1])
		}
	}
}
