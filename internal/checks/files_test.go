package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What the files of the root package may be. These only ever go down.
const (
	maxFileLines      = 500  // of a source file
	maxComponentFiles = 6    // of the largest component
	maxComponentLines = 1500 // of the largest component
)

const (
	module       = "github.com/pgsession/session"
	pgx          = "github.com/jackc/pgx/v5"
	securecookie = "github.com/gorilla/securecookie"
)

// mayImport is the house: for each package of the module, by its path below the
// module's, what its code may import beside the standard library: packages of
// the module, "." being the root, and other modules. Whatever the table does
// not say is forbidden, so a new package must be entered here. Tests may import
// more. The packages of examples/ share one line.
var mayImport = map[string][]string{
	".": {
		"internal/backoff", "internal/batch", "internal/bearer", "internal/cookie", "internal/devicebound", "internal/gate", "internal/jsonobj", "internal/mark", "internal/outage", "internal/pgrun",
		"internal/pgtable", "internal/reentry", "internal/row", "internal/seal", "internal/secret", "internal/shard", "internal/tablestats", "internal/turn", pgx, securecookie,
	},
	"sessionadmin": {".", "internal/gate", "internal/tablestats", pgx},
	"sessiontest":  {"."},
	"examples/":    {".", "internal/pgtest", pgx},

	"internal/jsonobj":     {},
	"internal/bearer":      {},
	"internal/cookie":      {securecookie},
	"internal/devicebound": {},
	"internal/row":         {"internal/jsonobj", "internal/cookie"},
	"internal/seal":        {"internal/row", "internal/jsonobj"},
	"internal/turn":        {},
	"internal/backoff":     {},
	"internal/gate":        {},
	"internal/secret":      {},
	"internal/batch":       {},
	"internal/outage":      {},
	"internal/tablestats":  {"internal/mark", "internal/pgrun", pgx},
	"internal/mark":        {},
	"internal/reentry":     {},
	"internal/pgrun":       {"internal/backoff", "internal/outage", pgx},
	"internal/pgtable":     {"internal/backoff", "internal/pgrun", "internal/row", "internal/shard", pgx},
	"internal/shard":       {},

	// For tests and for this module's own upkeep.
	"internal/pgtest":      {pgx},
	"internal/exampletest": {"internal/pgtest", pgx},
	"internal/hostile":     {"internal/pgtest", pgx},
	"internal/citustest":   {"internal/pgtest", pgx},
	"internal/checks":      {},
	"internal/explore":     {},
}

// TestImports holds the packages of the module to the table, on each system
// that has files of its own.
func TestImports(t *testing.T) {
	openFolders(t)
	for _, system := range []string{"linux", "darwin", "windows"} {
		pkgs, err := list(filepath.Join("..", ".."), []string{"GOOS=" + system}, "-deps", "./...")
		if err != nil {
			t.Fatal(err)
		}
		for _, fault := range importFaults(pkgs, mayImport) {
			t.Errorf("%s: %s", system, fault)
		}
	}
}

// openFolders opens every folder of the module, so that go test does not take
// this test's result from its cache when a file of one has changed: it knows
// what the test reads, and not what the go command reads for it.
func openFolders(t *testing.T) {
	t.Helper()
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || path == root {
			return err
		}
		_, err = os.Stat(filepath.Join(path, "go.mod"))
		if err == nil || strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules" {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// importFaults returns what of pkgs, as go list -deps gives them, is not as table says.
func importFaults(pkgs []listed, table map[string][]string) []string {
	var faults []string
	byPath := map[string]listed{}
	for _, p := range pkgs {
		byPath[p.ImportPath] = p
	}
	missing := map[string]bool{}
	for name := range table {
		missing[name] = true
	}
	for _, p := range pkgs {
		if p.Standard || p.Module == nil || p.Module.Path != module {
			continue
		}
		name := short(p.ImportPath)
		entry := name
		if strings.HasPrefix(name, "examples/") {
			entry = "examples/"
		}
		allowed, ok := table[entry]
		if !ok {
			faults = append(faults, name+" is not in the table of what may import what; enter it there")
			continue
		}
		delete(missing, entry)
		if strings.HasPrefix(name, "internal/") && slices.Contains(p.Deps, module) {
			faults = append(faults, name+" needs the root package, which no package below internal/ may")
		}
		for _, imported := range p.Imports {
			q := byPath[imported]
			what := short(imported)
			if !q.Standard && q.Module != nil && q.Module.Path != module {
				what = q.Module.Path
			}
			if !q.Standard && !slices.Contains(allowed, what) {
				faults = append(faults, name+" may not import "+imported)
			}
		}
	}
	for name := range missing {
		faults = append(faults, name+" is in the table but not in the module")
	}
	slices.Sort(faults)
	return faults
}

// short returns a package's path below the module's.
func short(path string) string {
	if path == module {
		return "."
	}
	return strings.TrimPrefix(path, module+"/")
}

func TestImportFaults(t *testing.T) {
	ours := &struct{ Path string }{module}
	pkgs := []listed{
		{ImportPath: "fmt", Standard: true},
		{ImportPath: "example.com/x/y", Module: &struct{ Path string }{"example.com/x"}},
		{ImportPath: module, Module: ours, Imports: []string{"fmt", "example.com/x/y"}},
		{ImportPath: module + "/sessiontest", Module: ours, Imports: []string{module}},
		{ImportPath: module + "/internal/leaf", Module: ours, Imports: []string{"fmt", module + "/sessiontest"}, Deps: []string{"fmt", module, module + "/sessiontest"}},
		{ImportPath: module + "/internal/new", Module: ours},
	}
	table := map[string][]string{".": {"example.com/x"}, "sessiontest": {}, "internal/leaf": {"sessiontest"}, "internal/gone": {}}
	want := []string{
		"internal/gone is in the table but not in the module",
		"internal/leaf needs the root package, which no package below internal/ may",
		"internal/new is not in the table of what may import what; enter it there",
		"sessiontest may not import " + module,
	}
	if got := importFaults(pkgs, table); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestFiles holds the files of the root package to their limits.
func TestFiles(t *testing.T) {
	files, err := fileGraph(filepath.Join("..", ".."), allNames)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.lines > maxFileLines {
			t.Errorf("%s has %d lines, want %d at most", f.name, f.lines, maxFileLines)
		}
	}
	largest := components(files)[0]
	if len(largest) > maxComponentFiles || largest.lines() > maxComponentLines {
		t.Errorf("%d files of %d lines all need each other, want %d of %d at most; go run ./internal/checks files shows the arrows",
			len(largest), largest.lines(), maxComponentFiles, maxComponentLines)
	}
	t.Logf("%d files, %d lines, %d arrows; largest component: %d files, %d lines",
		len(files), component(files).lines(), arrows(files), len(largest), largest.lines())
}

// TestFileGraph says which uses of names are arrows.
func TestFileGraph(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":   "module example.com/graph\n\ngo 1.25\n",
		"types.go": "package graph\n\ntype base struct{ field int }\n\ntype outer struct{ base }\n\ntype generic[T any] struct{ item T }\n",
		// A method is its own file's, not the type's; and so the type's file needs nothing of it.
		"method.go": "package graph\n\nfunc (base) method() int { return limit }\n",
		"limit.go":  "package graph\n\nimport \"strconv\"\n\nvar limit = len(strconv.Itoa(1))\n",
		// A promoted field is that of the struct that declares it; a local name is no arrow.
		"field.go":    "package graph\n\nfunc get(field func() outer) int { return field().field }\n",
		"key.go":      "package graph\n\nvar key = generic[int]{item: 1}\n",
		"instance.go": "package graph\n\nvar item = key.item\n",
		// The type is inferred, not named.
		"inferred.go": "package graph\n\nvar inferred = key\n",
		"circle.go":   "package graph\n\nfunc circle(n int) int { return back(n) }\n",
		"back.go":     "package graph\n\nfunc back(n int) int { return circle(n) }\n",
		"x_test.go":   "package graph\n\nvar _ = limit + key.item\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOWORK", "off")
	for _, test := range []struct {
		name string
		what counted
		want []string
	}{
		{"all names", allNames, []string{
			"back.go circle.go [circle]", "circle.go back.go [back]", "field.go types.go [field outer]", "inferred.go key.go [key]",
			"instance.go key.go [key]", "instance.go types.go [item]", "key.go types.go [generic item]", "method.go limit.go [limit]",
			"method.go types.go [base]",
		}},
		{"without fields", packageNames, []string{
			"back.go circle.go [circle]", "circle.go back.go [back]", "field.go types.go [outer]", "inferred.go key.go [key]",
			"instance.go key.go [key]", "key.go types.go [generic]", "method.go limit.go [limit]", "method.go types.go [base]",
		}},
	} {
		files, err := fileGraph(dir, test.what)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		var got []string
		for _, f := range files {
			for _, g := range f.used() {
				got = append(got, fmt.Sprint(f.name, " ", g.name, " ", f.uses[g]))
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got\n%s\nwant\n%s", test.name, strings.Join(got, "\n"), strings.Join(test.want, "\n"))
		}
		largest := components(files)[0]
		if len(largest) != 2 || largest[0].name != "back.go" || largest[1].name != "circle.go" || largest.lines() != 6 {
			t.Errorf("%s: the largest component has %d files of %d lines, want back.go and circle.go of 6", test.name, len(largest), largest.lines())
		}
	}
}
