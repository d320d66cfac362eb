// Package moving compares the guides for those who come from another library with
// the code in the folders below, which is compiled and tested with that library.
package moving

import (
	"os"
	"path"
	"strings"
	"testing"
)

// The blocks of the guides that need what they come from are these files, from
// below the package clause to the end. Go's test cache does not see changes of a
// file outside of the module: use -count=1.
func TestBlocksAreTheCompiledFiles(t *testing.T) {
	for page, files := range map[string][]string{
		"moving-from-scs.md":     {"fromscs/forged_test.go", "fromscs/loggers.go", "fromscs/carryover.go"},
		"moving-from-gorilla.md": {"fromgorilla/managers.go", "fromgorilla/carryover.go"},
		"moving-from-others.md":  {"fromothers/carryover.go", "fromothers/django.go", "fromothers/rails.go", "fromothers/laravel.go"},
	} {
		text := read(t, "../../docs/"+page)
		for _, file := range files {
			_, code, ok := strings.Cut(read(t, file), "package "+path.Dir(file)+"\n\n")
			if !ok {
				t.Fatalf("%s has no package %s", file, path.Dir(file))
			}
			if !strings.Contains(text, "\n```go\n"+code+"```\n") {
				t.Errorf("no block of %s is %s", page, file)
			}
		}
		// The two programs before and after are whole, and compared by nobody.
		others := strings.Count(text, "\n```go\npackage main\n")
		if got := strings.Count(text, "\n```go\n"); got != len(files)+others {
			t.Errorf("%s: blocks of code: got %d, want the %d that are compared and %d programs", page, got, len(files), others)
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
