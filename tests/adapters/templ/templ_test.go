package web_test

import (
	"bytes"
	"context"
	"go/format"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/a-h/templ"
	"github.com/a-h/templ/generator"
	"github.com/a-h/templ/parser/v2"

	"github.com/pgsession/session"
	"github.com/pgsession/session/sessiontest"
	"github.com/pgsession/session/tests/adapters/check"
	web "github.com/pgsession/session/tests/adapters/templ"
)

// What is compiled is what page.templ says.
func TestGenerated(t *testing.T) {
	source, err := parser.Parse("page.templ")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	_, err = generator.Generate(source, &b, generator.WithVersion(templ.Version()), generator.WithFileName("page.templ"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := format.Source(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("page_templ.go")
	if err != nil {
		t.Fatal(err)
	}
	if code(t, got) != code(t, want) {
		t.Errorf("page_templ.go is not made of page.templ: run go run github.com/a-h/templ/cmd/templ@%s generate -f page.templ, then gofumpt", templ.Version())
	}
}

// code is what follows the imports, which gofumpt puts together.
func code(t *testing.T, file []byte) string {
	t.Helper()
	_, after, ok := strings.Cut(string(file), "\nconst (")
	if !ok {
		t.Fatal("got no constants in the file")
	}
	return after
}

const (
	userName = session.Key[string]("userName")
	flash    = session.Key[string]("flash")
)

func TestPage(t *testing.T) {
	m := sessiontest.NewManager(t)
	r := httptest.NewRequest("GET", "/", nil)
	get := func() string {
		w := httptest.NewRecorder()
		web.Routes(m).ServeHTTP(w, r)
		return w.Body.String()
	}
	if got := get(); !strings.Contains(got, "Log in") {
		t.Errorf("not logged in: got %q, want a link to the login", got)
	}
	sessiontest.Login(t, m, r, func(s *session.Session) {
		userName.Set(s, "<Ada>")
		flash.Set(s, "Saved.")
	})
	if got := get(); !strings.Contains(got, "Hello &lt;Ada&gt;") || !strings.Contains(got, "Saved.") {
		t.Errorf("logged in: got %q, want the name and the message", got)
	}
	if got := get(); !strings.Contains(got, "Hello") || strings.Contains(got, "Saved.") {
		t.Errorf("the next page: got %q, want the message no more", got)
	}
}

func TestOutage(t *testing.T) {
	s := check.New(t, web.Routes)
	cookie := s.Visit(t)
	s.Store.Down.Store(true)
	s.WantRefused(t, "GET", "/", cookie)
}

// A component that is streamed may change its session after the first byte.
func TestStreaming(t *testing.T) {
	page := templ.ComponentFunc(func(ctx context.Context, w io.Writer) error {
		_, err := io.WriteString(w, "page")
		_ = http.NewResponseController(w.(http.ResponseWriter)).Flush()
		userName.Update(session.From(ctx), func(name string) string { return name + "a" })
		return err
	})
	check.Late(t, func(m *session.Manager) http.Handler {
		return m.Handler(templ.Handler(page, templ.WithStreaming()))
	}, "/")
}
