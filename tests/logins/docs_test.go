package logins

import (
	"os"
	"strings"
	"testing"
)

// Go's test cache does not see changes of a file outside of the module: use -count=1.
const document = "../../docs/logins.md"

// The blocks of the document are these files, from below the package clause to the end.
// Those of the last section, which is about passkeys, are examples/passkey's.
func TestBlocksAreTheCompiledFiles(t *testing.T) {
	page, _, _ := strings.Cut(read(t, document), "\n## Passkeys\n")
	files := []string{
		"goth/goth.go", "authboss/authboss.go",
		"../../examples/oidc/login.go", "../../examples/oidc/logout.go", "../../examples/oidc/accounts.go", "../../examples/oidc/sessions.go",
	}
	for _, file := range files {
		_, code, ok := strings.Cut(read(t, file), "\npackage ")
		if !ok {
			code = strings.TrimPrefix(read(t, file), "package ")
		}
		_, code, ok = strings.Cut(code, "\n\n")
		if !ok {
			t.Fatalf("%s has no package clause", file)
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
