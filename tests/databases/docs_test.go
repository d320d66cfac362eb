package databases

import (
	"os"
	"strings"
	"testing"
)

// Go's test cache does not see changes of a file outside of the module: use -count=1.
const document = "../../docs/databases.md"

// The blocks of the document are these files, from below the package clause to
// the end, and no others.
func TestBlocksAreTheCompiledFiles(t *testing.T) {
	t.Parallel()
	page := read(t, document)
	files := []string{"open.go", "sql.go", "gorm.go", "sqlx.go", "bun.go", "ent.go", "sqlc.go", "migrate.go"}
	for _, file := range files {
		_, code, ok := strings.Cut(read(t, file), "package databases\n\n")
		if !ok {
			t.Fatalf("%s has no package databases", file)
		}
		if !strings.Contains(page, "\n```go\n"+code+"```\n") {
			t.Errorf("no block of the document is %s", file)
		}
	}
	if got := strings.Count(page, "\n```go\n"); got != len(files) {
		t.Errorf("blocks of code: got %d, want the %d that are compared", got, len(files))
	}
}

// The other page's block is a function here.
func TestCheckoutIsTheDocuments(t *testing.T) {
	t.Parallel()
	_, code, ok := strings.Cut(read(t, "checkout.go"), "\nfunc checkout(")
	if !ok {
		t.Fatal("checkout.go has no function checkout")
	}
	if page := read(t, "../../docs/transactions.md"); !strings.Contains(page, "\n```go\nfunc checkout("+code+"```\n") {
		t.Error("no block of docs/transactions.md is the function checkout")
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
