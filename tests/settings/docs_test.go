package settings

import (
	"os"
	"strings"
	"testing"
)

// Go's test cache does not see changes of a file outside of the module: use -count=1.
const document = "../../docs/settings.md"

// The blocks of the document are these files, from below the package clause to
// the end, and no others.
func TestBlocksAreTheCompiledFiles(t *testing.T) {
	page := read(t, document)
	files := []string{"open.go", "shop.go", "bank.go", "intranet.go", "api.go", "tenants.go", "serverless.go"}
	for _, file := range files {
		_, code, ok := strings.Cut(read(t, file), "package settings\n\n")
		if !ok {
			t.Fatalf("%s has no package settings", file)
		}
		if !strings.Contains(page, "\n```go\n"+code+"```\n") {
			t.Errorf("no block of the document is %s", file)
		}
	}
	if got := strings.Count(page, "\n```go\n"); got != len(files) {
		t.Errorf("blocks of code: got %d, want the %d that are compared", got, len(files))
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
