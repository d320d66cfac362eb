package session_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
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
		"## DeviceBound":     reflect.TypeFor[session.DeviceBoundConfig](),
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
	var source strings.Builder
	for _, file := range docSources(t) {
		if filepath.Dir(file) == "." { // those below internal that read variables are for tests
			source.WriteString(docRead(t, file))
		}
	}
	read := regexp.MustCompile(`(?m)^[^/\n]*os\.Getenv\("(\w+)"\)`).FindAllStringSubmatch(source.String(), -1)
	if len(read) < 4 {
		t.Errorf("variables in the source: got %d, want 4 at least", len(read))
	}
	for _, m := range read {
		if !strings.Contains(variables, "`"+m[1]+"`\n") {
			t.Errorf("## Environment: got no row for %s", m[1])
		}
	}
}

// The operations page has a row for each message that the library logs, with
// every attribute, and for each count of Stats, and no row for another message.
func TestDocsOperationsIsComplete(t *testing.T) {
	t.Parallel()
	page := docRead(t, "docs/operations.md")
	row := func(first string) string {
		for line := range strings.Lines(page) {
			if strings.HasPrefix(line, "| `"+first) {
				return line
			}
		}
		return ""
	}
	messages := map[string]bool{}
	for _, call := range docLogCalls(t) {
		messages[call.message] = true
		got := row(call.message)
		if got == "" {
			t.Errorf("%s: %q has no row", call.at, call.message)
		}
		for _, name := range call.attributes {
			if got != "" && !strings.Contains(got, "`"+name+"`") {
				t.Errorf("%s: the row of %q: got no attribute %s", call.at, call.message, name)
			}
		}
	}
	if len(messages) < 30 {
		t.Errorf("messages in the source: got %d, want 30 at least", len(messages))
	}
	for _, cell := range docRows(docSection(t, page, "## Log messages")) {
		if message := strings.Trim(cell, "`"); cell != "message" && !messages[message] {
			t.Errorf("the row of %q: got no such message in the source", message)
		}
	}
	for i, stats := 0, reflect.TypeFor[session.Stats](); i < stats.NumField(); i++ {
		if name := stats.Field(i).Name; row(name) == "" {
			t.Errorf("Stats.%s has no row", name)
		}
	}
}

type docLogCall struct {
	at, message string
	attributes  []string
}

var docAttribute = regexp.MustCompile(`^[a-z][a-zA-Z]*$`)

// docSources lists the source files of the package and of those below internal,
// where parts of it live.
func docSources(t *testing.T) (files []string) {
	t.Helper()
	for _, pattern := range []string{"*.go", "internal/*/*.go"} {
		found, err := filepath.Glob(filepath.FromSlash(pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range found {
			if !strings.HasSuffix(file, "_test.go") {
				files = append(files, file)
			}
		}
	}
	return files
}

// docLogCalls finds what the package logs.
func docLogCalls(t *testing.T) (calls []docLogCall) {
	t.Helper()
	fset := token.NewFileSet()
	for _, file := range docSources(t) {
		f, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			fun, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !slices.Contains([]string{"Debug", "Info", "Warn", "Error", "LogAttrs", "log", "logUnlocked", "logLateLocked"}, fun.Sel.Name) {
				return true
			}
			c := docLogCall{at: fset.Position(call.Pos()).String()}
			if fun.Sel.Name == "log" { // Session.log
				c.attributes = []string{"error", "method"}
			}
			if fun.Sel.Name == "logLateLocked" {
				c.attributes = []string{"call", "notLogged"}
			}
			for _, arg := range call.Args {
				if s, ok := docString(arg); ok && strings.HasPrefix(s, "session: ") {
					c.message = s
				} else if ok && docAttribute.MatchString(s) {
					c.attributes = append(c.attributes, s)
				}
				if a, ok := arg.(*ast.CallExpr); ok && len(a.Args) > 0 { // slog.String("name", …)
					if s, ok := docString(a.Args[0]); ok && docAttribute.MatchString(s) {
						c.attributes = append(c.attributes, s)
					}
				}
			}
			if c.message != "" {
				calls = append(calls, c)
			}
			return true
		})
	}
	return calls
}

func docString(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil && !bytes.ContainsRune([]byte(s), '\n')
}

// Every row of the page of faults says what shows it.
func TestDocsFaultsAreTested(t *testing.T) {
	t.Parallel()
	rows := 0
	for line := range strings.Lines(docRead(t, "docs/faults.md")) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| fault |") || strings.HasPrefix(line, "| attack ") {
			continue
		}
		rows++
		if strings.HasSuffix(strings.ReplaceAll(line, " ", ""), "||\n") {
			t.Errorf("got a row without a test: %s", line)
		}
	}
	if rows < 45 {
		t.Errorf("rows: got %d, want 45 at least", rows)
	}
}
