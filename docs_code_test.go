package session_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// docPrelude declares what fragments of Go in the documents use without saying so.
var docPrelude = map[string]string{
	"ctx":        "var ctx context.Context",
	"pool":       "var pool *pgxpool.Pool",
	"mux":        "var mux *http.ServeMux",
	"onlyAdmins": "func onlyAdmins(next http.Handler) http.Handler { return next }",
	"w":          "var w http.ResponseWriter",
	"r":          "var r *http.Request",
	"s":          "var s *session.Session",
	"sessions":   "var sessions *session.Manager",
	"store":      "var store session.Store",
	"cfg":        "var cfg session.Config",
	"userID":     `const userID = session.Key[int64]("userId")`,
	"account":    "func account(http.ResponseWriter, *http.Request) {}",
	"login":      "func login(http.ResponseWriter, *http.Request) {}",
	"logout":     "func logout(http.ResponseWriter, *http.Request) {}",
}

// docPackages are the packages that a fragment may use without importing them.
var docPackages = []string{
	"context", "encoding/json", "errors", "expvar", "fmt", "html/template", "io", "log", "log/slog", "net/http", "net/http/httptest", "os", "os/signal", "syscall",
	"strings", "testing", "testing/synctest", "time", "github.com/jackc/pgx/v5", "github.com/jackc/pgx/v5/pgxpool",
	"github.com/pgsession/session", "github.com/pgsession/session/sessionadmin", "github.com/pgsession/session/sessiontest",
}

// docShorthand are documents whose Go is written in shorthand (functions without
// bodies, for instance), and is only parsed.
var docShorthand = []string{"docs/design.md"}

type docBlock struct {
	file string
	line int
	text string
}

var docFence = regexp.MustCompile("^( *)```([a-z]*)")

// docBlocks returns the fenced blocks of Go in a document.
func docBlocks(t *testing.T, file string) (blocks []docBlock) {
	t.Helper()
	var block *docBlock
	indent, fenced := "", false
	for i, line := range strings.Split(docRead(t, file), "\n") {
		switch m := docFence.FindStringSubmatch(line); {
		case m != nil && !fenced:
			fenced, indent = true, m[1]
			if m[2] == "go" {
				block = &docBlock{file: file, line: i + 2}
			}
		case m != nil:
			if block != nil {
				blocks = append(blocks, *block)
			}
			block, fenced = nil, false
		case block != nil:
			line = strings.TrimPrefix(line, indent)
			if s := strings.TrimSpace(line); s == "..." || s == "…" {
				line = ""
			}
			block.text += line + "\n"
		}
	}
	if fenced {
		t.Errorf("%s: a fenced block has no end", file)
	}
	return blocks
}

// parse parses the block as a file, as declarations or as statements.
func (b *docBlock) parse(fset *token.FileSet) (*ast.File, error) {
	var firstErr error
	for _, form := range []string{"%s", "package p; %s", "package p; func fragment_() { %s }"} {
		src := fmt.Sprintf("//line %s:%d\n"+form, b.file, b.line, b.text)
		f, err := parser.ParseFile(fset, "", src, parser.SkipObjectResolution)
		if err == nil {
			return f, nil
		}
		if firstErr == nil || form != "%s" && strings.Contains(firstErr.Error(), "expected 'package'") {
			firstErr = err
		}
	}
	return nil, firstErr
}

// docExports are the export files of packages in the build cache, which holds
// them since this test was built: much faster than their sources.
type docExports map[string]string

func newDocExports(t *testing.T) docExports {
	t.Helper()
	args := append([]string{"list", "-deps", "-export", "-f", "{{.ImportPath}}={{.Export}}"}, docPackages...)
	out, err := exec.CommandContext(t.Context(), "go", args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Log(string(exit.Stderr))
		}
		t.Fatalf("go list: %v", err)
	}
	exports := docExports{}
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), "=")
		exports[path] = file
	}
	return exports
}

func (e docExports) lookup(path string) (io.ReadCloser, error) {
	file := e[path]
	if file == "" {
		return nil, errors.New("not among this module's packages: " + path)
	}
	return os.Open(file)
}

// docCheck type-checks blocks of one document after another.
type docCheck struct {
	fset     *token.FileSet
	exports  docExports
	importer types.Importer
	earlier  []docBlock // blocks of declarations before this one
}

// check returns what is wrong with a block. foreign names a package outside of
// this module that it needs, and which keeps it from being checked.
func (c *docCheck) check(b docBlock) (foreign string, err error) {
	f, err := b.parse(c.fset)
	if err != nil {
		return "", err
	}
	for _, spec := range f.Imports {
		if path, _ := strconv.Unquote(spec.Path.Value); path != "unsafe" && c.exports[path] == "" {
			return path, nil
		}
	}
	program := strings.HasPrefix(strings.TrimSpace(b.text), "package ")
	files := []*ast.File{f}
	if !program {
		files, err = c.complete(b, f)
		if err != nil {
			return "", err
		}
	}
	var errs []error
	conf := types.Config{Importer: c.importer, Error: func(err error) {
		var te types.Error
		if errors.As(err, &te) && te.Soft && !program {
			return // unused names, in a fragment
		}
		errs = append(errs, err)
	}}
	_, _ = conf.Check(f.Name.Name, c.fset, files, nil) // Error has had them all
	if len(errs) == 0 && !program && !docDeclares(f, "fragment_") {
		c.earlier = append(c.earlier, b)
	}
	return "", errors.Join(errs...)
}

// complete returns a fragment with its imports, and the files that declare what
// it uses and an earlier block or the prelude says.
func (c *docCheck) complete(b docBlock, f *ast.File) ([]*ast.File, error) {
	taken := docNames(f)
	var others string
	for _, e := range slices.Backward(c.earlier) {
		if ef, err := e.parse(c.fset); err == nil && !docOverlap(taken, docNames(ef)) && len(ef.Imports) == 0 {
			others += e.text
			for name := range docNames(ef) {
				taken[name] = true
			}
		}
	}
	for name, decl := range docPrelude {
		if !taken[name] {
			others += decl + "\n"
		}
	}
	rest, err := parser.ParseFile(c.fset, "prelude", "package p; "+docImports(others, nil)+others, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	kind := "package p; "
	if docDeclares(f, "fragment_") {
		kind = "package p; func fragment_() {"
	}
	body := b.text
	if docDeclares(f, "fragment_") {
		body += "}"
	}
	src := strings.Replace(kind, "package p; ", "package p; "+docImports(b.text, f.Imports), 1)
	whole, err := parser.ParseFile(c.fset, "", fmt.Sprintf("//line %s:%d\n%s%s", b.file, b.line, src, body), parser.SkipObjectResolution)
	return []*ast.File{whole, rest}, err
}

// docImports imports the packages that src seems to use, beside its own imports.
func docImports(src string, own []*ast.ImportSpec) (imports string) {
	for _, path := range docPackages {
		name := filepath.Base(path)
		if name == "v5" {
			name = "pgx"
		}
		there := slices.ContainsFunc(own, func(s *ast.ImportSpec) bool { return s.Path.Value == strconv.Quote(path) })
		if !there && regexp.MustCompile(`\b`+name+`\.[A-Z]`).MatchString(src) {
			imports += "import " + strconv.Quote(path) + "; "
		}
	}
	return imports
}

// docNames are the names that a file declares.
func docNames(f *ast.File) map[string]bool {
	names := map[string]bool{}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				names[d.Name.Name] = true
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					names[spec.Name.Name] = true
				case *ast.ValueSpec:
					for _, name := range spec.Names {
						names[name.Name] = true
					}
				}
			}
		}
	}
	return names
}

func docDeclares(f *ast.File, name string) bool { return docNames(f)[name] }

func docOverlap(a, b map[string]bool) bool {
	for name := range b {
		if a[name] {
			return true
		}
	}
	return false
}

// Every block of Go in the README and in docs parses, and is right by its types
// unless it needs a package that this module has not.
func TestDocsGoBlocks(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	exports := newDocExports(t)
	check := docCheck{fset: fset, exports: exports, importer: importer.ForCompiler(fset, "gc", exports.lookup)}
	checked, parsed := 0, map[string]int{}
	for _, file := range append([]string{"README.md"}, files...) {
		file = filepath.ToSlash(file)
		check.earlier = nil
		for _, block := range docBlocks(t, file) {
			if slices.Contains(docShorthand, file) {
				if _, err := block.parse(fset); err != nil {
					t.Error(err)
				}
				parsed["(shorthand)"]++
				continue
			}
			foreign, err := check.check(block)
			switch {
			case err != nil:
				t.Error(err)
			case foreign != "":
				parsed[foreign]++
			default:
				checked++
			}
		}
	}
	t.Logf("%d blocks type-checked; only parsed: %v", checked, parsed)
	if checked < 5 {
		t.Errorf("type-checked: got %d blocks, want 5 at least", checked)
	}
}

// The check of blocks finds what it is for.
func TestDocsGoBlocksFaults(t *testing.T) {
	t.Parallel()
	fset := token.NewFileSet()
	exports := newDocExports(t)
	check := docCheck{fset: fset, exports: exports, importer: importer.ForCompiler(fset, "gc", exports.lookup)}
	for _, tt := range []struct{ name, text, want string }{
		{"no Go", "if {", "x.md:7"},
		{"a method that is not there", "s.Renw()", "Renw"},
		{"a value of another type", `userID.Set(s, "42")`, "42"},
		{"a field that is not there", "cfg.Timeout = 1", "Timeout"},
		{"an unused import in a program", "package main\nimport \"os\"\nfunc main() {}", "imported and not used"},
		{"nothing", "s.Renew()", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := check.check(docBlock{"x.md", 7, tt.text})
			if got := fmt.Sprint(err); tt.want == "" && err != nil || tt.want != "" && !strings.Contains(got, tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
