package main_test

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/pgsession/session/internal/exampletest"
)

func TestMain(m *testing.M) { exampletest.Main(m) }

var must = exampletest.Must

// password is everybody's.
const password = "correct horse battery"

// visitor knows the pages of this application. It has no JavaScript and no eyes;
// profile in browser_test.go has both.
type visitor struct {
	*exampletest.Browser
	p *exampletest.Program
}

func newVisitor(t *testing.T, p *exampletest.Program) *visitor {
	return &visitor{exampletest.NewBrowser(t, "session"), p}
}

func (v *visitor) get(path string) exampletest.Response {
	v.T.Helper()
	return v.Get(v.p.URL + path)
}

// post sends names and values.
func (v *visitor) post(path string, fields ...string) exampletest.Response {
	v.T.Helper()
	return v.Post(v.p.URL+path, form(fields))
}

func form(fields []string) url.Values {
	f := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		f.Set(fields[i], fields[i+1])
	}
	return f
}

func (v *visitor) signUp(name string) exampletest.Response {
	v.T.Helper()
	return v.post("/signup", "name", name, "password", password)
}

// logIn sends the password unless fields say otherwise.
func (v *visitor) logIn(name string, fields ...string) exampletest.Response {
	v.T.Helper()
	return v.post("/login", append([]string{"name", name, "password", password}, fields...)...)
}

func (v *visitor) wantLoggedOut() {
	v.T.Helper()
	client := *v.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Get(v.p.URL + "/account")
	must(v.T, err)
	defer res.Body.Close()
	if res.StatusCode != http.StatusSeeOther || res.Header.Get("Location") != "/login" {
		v.T.Errorf("/account: got %s to %q, want 303 to /login", res.Status, res.Header.Get("Location"))
	}
}

// sessionID reads the ID from a cookie, which is signed but not secret to a test.
func sessionID(t *testing.T, v *visitor) string {
	t.Helper()
	b, err := base64.URLEncoding.DecodeString(v.Cookie())
	must(t, err)
	parts := strings.SplitN(string(b), "|", 3)
	if len(parts) != 3 {
		t.Fatal("the cookie has another form")
	}
	id, err := base64.URLEncoding.DecodeString(parts[1])
	must(t, err)
	if len(id) != 32 {
		t.Fatalf("the ID has %d characters, want 32", len(id))
	}
	return string(id)
}

func execute(t *testing.T, dsn, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	must(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	tag, err := conn.Exec(t.Context(), sql)
	must(t, err)
	if tag.RowsAffected() == 0 {
		t.Error("the statement has changed no row")
	}
}

// row is the one number that a query gives.
func row(t *testing.T, dsn, sql string) (n int64) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	must(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	must(t, conn.QueryRow(t.Context(), sql).Scan(&n))
	return n
}
