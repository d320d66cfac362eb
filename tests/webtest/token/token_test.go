package token

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/pgsession/session"
)

const (
	user = session.Key[string]("user")

	// patience bounds what a browser does in one test.
	patience = 5 * time.Minute
)

// api is the application, on one site. Pages of one origin on another may ask it, as
// docs/tokens.md says, without credentials.
func api(t *testing.T, origin func() string) *httptest.Server {
	m, err := session.New(session.NewMemoryStore(), session.Config{
		Secret: "for tests only: 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A", TokenPrefix: "shop_", DisablePrune: true, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	app := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		switch r.URL.Path {
		case "/login":
			s.UseToken()
			s.Renew()
			user.Set(s, "ada")
		case "/renew":
			s.Renew()
		case "/cookie": // for browsers of the site itself
			user.Set(s, "bob")
		case "/logout":
			s.Destroy()
		}
		name, ok := user.Get(s)
		if !ok {
			name = "nobody"
		}
		_, _ = io.WriteString(w, name)
	}))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Origin")
		if o := origin(); r.Header.Get("Origin") == o {
			w.Header().Set("Access-Control-Allow-Origin", o)
			w.Header().Set("Access-Control-Allow-Headers", "Authorization")
			w.Header().Set("Access-Control-Expose-Headers", "Session-Token")
		}
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		app.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server
}

// page serves an empty page, of another site than the application's.
func page(t *testing.T) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<!doctype html><title>page</title>")
	}))
	t.Cleanup(server.Close)
	return server
}

// tab is a Chromium with one tab and a profile of its own.
type tab struct {
	t   *testing.T
	ctx context.Context
}

func newTab(t *testing.T) *tab {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if path, err = exec.LookPath("google-chrome"); err != nil {
			t.Fatal("no browser found: install chromium (Debian, Ubuntu: sudo apt-get install chromium)")
		}
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(patience),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.Flag("password-store", "basic"),
	}
	for _, name := range []string{"disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage", "no-default-browser-check"} {
		options = append(options, chromedp.Flag(name, true))
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	ctx, cancelAllocator := chromedp.NewExecAllocator(ctx, options...)
	ctx, _ = chromedp.NewContext(ctx)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("close the browser: %v", err)
		}
		cancelAllocator()
		cancel()
	})
	return &tab{t, ctx}
}

func (b *tab) visit(address string) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, chromedp.Navigate(address)); err != nil {
		b.t.Fatal(err)
	}
}

// fetch makes a request from the page and returns the status and the body, or that the
// browser has kept the answer from it. A token that comes is kept in the page.
func (b *tab) fetch(address, options string) string {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`fetch("`+address+`", `+options+`).then(async r => {
		const t = r.headers.get("Session-Token"); if (t) window.token = t
		return r.status + " " + (await r.text()).trim() + (t ? ", a token" : "")
	}, e => "kept from the page")`, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

// A page on another site logs in, is the user, has its token renewed and logs out, and
// no cookie is set; a page of a site that is not allowed reads nothing, and no browser
// attaches a token for it.
func TestChromiumTokenFromAnotherSite(t *testing.T) {
	pages, others := page(t), page(t)
	server := api(t, func() string { return pages.URL })
	app := strings.Replace(server.URL, "127.0.0.1", "localhost", 1) // a site of its own
	b := newTab(t)

	const (
		omit    = `{method: "POST", credentials: "omit"}`
		include = `{method: "POST", credentials: "include"}`
		bearer  = `{method: "POST", credentials: "omit", headers: {Authorization: "Bearer " + window.token}}`
		both    = `{method: "POST", headers: {Authorization: "Bearer " + window.token}}`
	)
	b.visit(pages.URL)
	for _, tt := range []struct{ what, path, options, want string }{
		{"without a token", "/me", omit, "200 nobody"},
		{"login", "/login", omit, "200 ada, a token"},
		{"with the token", "/me", bearer, "200 ada"},
		{"without it again", "/me", omit, "200 nobody"},
		{"with credentials", "/me", include, "kept from the page"},
		{"renewal", "/renew", bearer, "200 ada, a token"},
		{"with the new token", "/me", bearer, "200 ada"},
		{"logout", "/logout", bearer, "200 nobody"},
		{"after it", "/me", bearer, "200 nobody"},
		{"login again", "/login", omit, "200 ada, a token"},
	} {
		if got := b.fetch(app+tt.path, tt.options); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.what, got, tt.want)
		}
	}
	token, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`window.token`))
	if err != nil {
		t.Fatal(err)
	}

	b.visit(others.URL)
	if got := b.fetch(app+"/me", omit); got != "kept from the page" {
		t.Errorf("a site that is not allowed: got %q", got)
	}

	// The site itself: nothing was set, and a token beside its cookie is refused.
	b.visit(app)
	if got := b.fetch("/me", `{method: "POST"}`); got != "200 nobody" {
		t.Errorf("the site itself, before it has a cookie: got %q, want nobody", got)
	}
	if got := b.fetch("/cookie", `{method: "POST"}`); got != "200 bob" {
		t.Errorf("a session with a cookie: got %q, want bob and no token", got)
	}
	if got := b.fetch("/me", strings.ReplaceAll(both, "window.token", `"`+token+`"`)); !strings.HasPrefix(got, "400 ") {
		t.Errorf("both: got %q, want 400", got)
	}
	if got := b.fetch("/me", strings.ReplaceAll(bearer, "window.token", `"`+token+`"`)); got != "200 ada" {
		t.Errorf("the token alone: got %q, want ada", got)
	}
	if got := b.fetch("/login", `{method: "POST"}`); !strings.HasPrefix(got, "400 ") {
		t.Errorf("a script that wants a token beside a cookie: got %q, want 400", got)
	}
}
