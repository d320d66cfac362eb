package main_test

import (
	"os"
	"strings"
	"testing"
)

// The blocks of the document are these files, from below the package clause to the end.
// Go's test cache does not see changes of a file outside of the module: use -count=1.
func TestBlocksAreTheCompiledFiles(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/logins.md")
	must(t, err)
	_, section, ok := strings.Cut(string(page), "\n## Passkeys\n")
	if !ok {
		t.Fatal("docs/logins.md has no section Passkeys")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	files := []string{"ceremony.go", "session.go"}
	for _, file := range files {
		b, err := os.ReadFile(file)
		must(t, err)
		_, code, ok := strings.Cut(string(b), "package main\n\n")
		if !ok || !strings.Contains(section, "\n```go\n"+code+"```\n") {
			t.Errorf("no block of the section is %s", file)
		}
	}
	if got := strings.Count(section, "\n```go\n"); got != len(files) {
		t.Errorf("blocks of code: got %d, want the %d that are compared", got, len(files))
	}
}
