package session_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

func docRead(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.FromSlash(file))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// docFiles lists the Markdown files of the repository, with slashes.
func docFiles(t *testing.T) (files []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git"):
			return filepath.SkipDir
		case strings.HasSuffix(d.Name(), ".md"):
			files = append(files, filepath.ToSlash(path))
		}
		return nil
	})
	if err != nil || len(files) < 2 {
		t.Fatalf("got %d Markdown files, %v, want several", len(files), err)
	}
	return files
}

var (
	docLink     = regexp.MustCompile(`!?\]\(<?([^)\s>]+)>?(?: "[^"]*")?\)|^\[[^\]]+\]: *(\S+)|\b(?:src|href|srcset)="([^"]+)"`)
	docCodeSpan = regexp.MustCompile("`[^`]*`")
	docHeading  = regexp.MustCompile(`^#{1,6} +(.*?)#* *$`)
	docAnchor   = regexp.MustCompile(`<a (?:id|name)="([^"]+)"`)
	docMarkup   = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

// docAnchors are the anchors of a document, as GitHub makes them of headings.
func docAnchors(text string) map[string]bool {
	anchors := map[string]bool{}
	fenced := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if docFence.MatchString(line) {
			fenced = !fenced
		}
		if fenced {
			continue
		}
		for _, m := range docAnchor.FindAllStringSubmatch(line, -1) {
			anchors[m[1]] = true
		}
		m := docHeading.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		slug := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(docMarkup.ReplaceAllString(m[1], "$1")))
		unique := slug
		for n := 1; anchors[unique]; n++ {
			unique = fmt.Sprintf("%s-%d", slug, n)
		}
		anchors[unique] = true
	}
	return anchors
}

// Every relative link in a Markdown file of the repository leads to a file that
// is there, and to a heading in it.
func TestDocsLinks(t *testing.T) {
	t.Parallel()
	links := 0
	for _, file := range docFiles(t) {
		fenced := false
		for i, line := range strings.Split(docRead(t, file), "\n") {
			if docFence.MatchString(line) {
				fenced = !fenced
			}
			if fenced {
				continue
			}
			// A link's text may be code; code may look like a link.
			line = docCodeSpan.ReplaceAllString(line, "code")
			for _, m := range docLink.FindAllStringSubmatch(line, -1) {
				links++
				if err := docFollow(file, m[1]+m[2]+m[3]); err != nil {
					t.Errorf("%s:%d: %v", file, i+1, err)
				}
			}
		}
	}
	t.Logf("%d links", links)
}

func docFollow(file, link string) error {
	u, err := url.Parse(link)
	if err != nil {
		return err
	}
	if u.Scheme != "" || u.Host != "" {
		return nil // out of the repository
	}
	target := file
	if u.Path != "" {
		target = filepath.Join(filepath.Dir(file), filepath.FromSlash(u.Path))
	}
	if rel := filepath.ToSlash(target); strings.HasPrefix(u.Path, "/") || rel == ".." || strings.HasPrefix(rel, "../") {
		return fmt.Errorf("%s leads out of the repository", link)
	}
	if _, err := os.Stat(target); err != nil {
		return err
	}
	if u.Fragment == "" || !strings.HasSuffix(target, ".md") {
		return nil
	}
	b, err := os.ReadFile(target)
	if err == nil && !docAnchors(string(b))[u.Fragment] {
		err = fmt.Errorf("%s: no such heading", link)
	}
	return err
}

var (
	docTest     = regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z]\\w*)`")
	docTestLink = regexp.MustCompile(`\[([^\]]*)\]\(([^)#]*)[^)]*\)`)
)

// docTests maps the directories of the repository to the tests in them.
type docTests map[string]map[string]bool

func newDocTests(t *testing.T) docTests {
	t.Helper()
	tests := docTests{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := filepath.Dir(path)
		if tests[dir] == nil {
			tests[dir] = map[string]bool{}
		}
		for name := range docNames(f) {
			tests[dir][name] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests
}

// missing returns the tests that a line of a document names and that are not
// there: in the directory of the link that they are the text of, else in the
// package session.
func (tests docTests) missing(file, line string) (missing []string) {
	look := func(dir, text string) {
		for _, m := range docTest.FindAllStringSubmatch(text, -1) {
			if !tests[dir][m[1]] {
				missing = append(missing, m[1])
			}
		}
	}
	for _, m := range docTestLink.FindAllStringSubmatch(line, -1) {
		dir := filepath.Join(filepath.Dir(file), filepath.FromSlash(m[2]))
		if filepath.Ext(dir) == ".go" {
			dir = filepath.Dir(dir)
		}
		look(dir, m[1])
	}
	look(".", docTestLink.ReplaceAllString(line, ""))
	return missing
}

// where returns the directories that have a test of this name.
func (tests docTests) where(name string) (dirs []string) {
	for dir, names := range tests {
		if names[name] {
			dirs = append(dirs, filepath.ToSlash(dir))
		}
	}
	slices.Sort(dirs)
	return dirs
}

// Every test that a document names is there.
func TestDocsNamedTests(t *testing.T) {
	t.Parallel()
	tests := newDocTests(t)
	for _, file := range docFiles(t) {
		for i, line := range strings.Split(docRead(t, file), "\n") {
			for _, name := range tests.missing(file, line) {
				t.Errorf("%s:%d: got %s named, want a test that is there; in %q there is one, to link to", file, i+1, name, tests.where(name))
			}
		}
	}
	for _, tt := range []struct{ name, line, want string }{
		{"here", "| x | `TestDocsNamedTests`, `FuzzSealedRecord` |", "[]"},
		{"misspelled", "| x | `TestDocsNamedTests`, `TestDocsNamedTest` |", "[TestDocsNamedTest]"},
		{"elsewhere, not linked", "`TestGzip`", "[TestGzip]"},
		{"elsewhere", "[`TestGzip`](../tests/webtest), [`TestRandomSequences`](../tests/interop/random_test.go)", "[]"},
		{"here, linked elsewhere", "[`TestGzip`, `TestDocsNamedTests`](../tests/webtest)", "[TestDocsNamedTests]"},
		{"a helper of tests", "`sessiontest.TestStore`", "[]"},
	} {
		if got := fmt.Sprint(tests.missing("docs/x.md", tt.line)); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

var (
	docURL      = regexp.MustCompile("postgres(?:ql)?://[^\\s`'\"<>)]+")
	plainOwnURL = regexp.MustCompile(`\b(?:server|db|own)\.URL\(\)`)
)

// Whatever people copy gives a server up after two seconds: every URL of a database
// in a document, in an example of the reference, in a shell script or a setting, and
// those that the example programs and the benchmark connect to.
func TestDatabaseURLsHaveAConnectTimeout(t *testing.T) {
	seen := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == "node_modules" || d.Name() == ".git" {
				return filepath.SkipDir
			}
			return nil
		}
		path = filepath.ToSlash(path)
		name, ext := d.Name(), filepath.Ext(path)
		program := ext == ".go" && !strings.HasSuffix(name, "_test.go") && (strings.HasPrefix(path, "examples/") || strings.HasPrefix(path, "bench/"))
		reference := name == "doc.go" || strings.HasPrefix(name, "example") && strings.HasSuffix(name, "_test.go")
		copied := slices.Contains([]string{".md", ".sh", ".yml", ".yaml", ".env", ".toml", ".service"}, ext) || name == "Dockerfile" || strings.HasPrefix(path, ".ci/")
		if !program && !reference && !copied {
			return nil
		}
		text := docRead(t, path)
		for _, url := range docURL.FindAllString(text, -1) {
			if seen++; !strings.Contains(url, "connect_timeout=2") {
				t.Errorf("%s: %s: got no connect_timeout=2", path, url)
			}
		}
		if program && plainOwnURL.MatchString(text) {
			t.Errorf("%s connects to Server.URL, want ProgramURL", path)
		}
		return nil
	})
	if err != nil || seen < 4 {
		t.Errorf("got %d URLs, %v, want at least 4", seen, err)
	}
}

var readTimeout = regexp.MustCompile(`\bReadTimeout: `)

// The example programs wait for no client without an end: neither for a header nor for
// a form. One with streams says why it does so for the latter.
func TestExamplesEndSlowRequests(t *testing.T) {
	seen := 0
	err := filepath.WalkDir("examples", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text := docRead(t, filepath.ToSlash(path))
		for range strings.Count(text, "&http.Server{") {
			seen++
			if !strings.Contains(text, "ReadHeaderTimeout: ") || !readTimeout.MatchString(text) {
				t.Errorf("%s: got no ReadTimeout, or no ReadHeaderTimeout", path)
			}
		}
		return nil
	})
	if err != nil || seen < 10 {
		t.Errorf("got %d servers, %v, want at least 10", seen, err)
	}
}
