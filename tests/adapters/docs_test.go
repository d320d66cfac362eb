package adapters_test

import (
	"os"
	"strings"
	"testing"
)

// Go's test cache does not see changes of a file outside of the module: use -count=1.
const document = "../../docs/adapters.md"

// The blocks of the document are these files, from below the package clause to
// the end, and no others.
func TestBlocksAreTheCompiledFiles(t *testing.T) {
	page := read(t, document)
	files := []string{
		"chi/chi.go", "gorillamux/mux.go", "httprouter/httprouter.go", "gin/gin.go",
		"echo/echo.go", "echo/middleware.go", "echo5/middleware.go",
		"template/template.go", "templ/templ.go", "templ/page.templ", "httptest/account_test.go",
	}
	for _, file := range files {
		language := file[strings.LastIndex(file, ".")+1:]
		_, code, ok := strings.Cut(read(t, file), "package web\n\n")
		if !ok {
			t.Fatalf("%s has no package web", file)
		}
		if !strings.Contains(page, "\n```"+language+"\n"+code+"```\n") {
			t.Errorf("no block of the document is %s", file)
		}
	}
	if got := strings.Count(page, "\n```go\n") + strings.Count(page, "\n```templ\n"); got != len(files) {
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
