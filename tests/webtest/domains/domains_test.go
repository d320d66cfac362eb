package domains

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/pgsession/session"
)

const user = session.Key[string]("user")

// patience bounds what is waited for; no test depends on how long it takes.
const patience = 2 * time.Minute

// browser is a Chromium to which every name is this machine.
type browser struct {
	t    *testing.T
	ctx  context.Context
	port string
}

func newBrowser(t *testing.T, h http.Handler) *browser {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	path, err := exec.LookPath("chromium")
	if err != nil {
		if path, err = exec.LookPath("google-chrome"); err != nil {
			t.Fatal("no browser found: install chromium (Debian, Ubuntu: sudo apt-get install chromium)")
		}
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(patience),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("host-resolver-rules", "MAP * 127.0.0.1"),
		// It is the test's own server that is asked, never one of these names.
		chromedp.Flag("disable-features", "HttpsUpgrades,HttpsFirstBalancedModeAutoEnable"),
	}
	for _, name := range []string{"disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage", "no-default-browser-check"} {
		options = append(options, chromedp.Flag(name, true))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	ctx, cancelAllocator := chromedp.NewExecAllocator(ctx, options...)
	ctx, _ = chromedp.NewContext(ctx)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("close the browser: %v", err)
		}
		cancelAllocator()
		cancel()
	})
	return &browser{t, ctx, server.URL[strings.LastIndexByte(server.URL, ':'):]}
}

// visit returns what the page at a host says.
func (b *browser) visit(host, path string) string {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, chromedp.Navigate("http://"+host+b.port+path)); err != nil {
		b.t.Fatal(err)
	}
	text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("document.body ? document.body.innerText.trim() : ''"))
	if err != nil {
		b.t.Fatal(err)
	}
	return text
}

func (b *browser) want(host, path, want string) {
	b.t.Helper()
	if got := b.visit(host, path); got != want {
		b.t.Errorf("%s%s: got %q, want %q", host, path, got, want)
	}
}

func application(t *testing.T, cfg session.Config) http.Handler {
	t.Helper()
	cfg.Secret, cfg.Logger = "kq7Vw2mT9xB4nR8sL1cZ6yH3pD5gJ0fa", slog.New(slog.DiscardHandler)
	m, err := session.New(session.NewMemoryStore(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	mux := http.NewServeMux()
	mux.HandleFunc("/login/{name}", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Renew()
		user.Set(s, r.PathValue("name"))
		_, _ = io.WriteString(w, "welcome")
	})
	mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) {
		session.From(r.Context()).Destroy()
		_, _ = io.WriteString(w, "bye")
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		name, ok := user.Get(session.From(r.Context()))
		if !ok {
			name = "nobody"
		}
		_, _ = fmt.Fprintf(w, "%s, %d cookies", name, len(r.Cookies()))
	})
	return m.Handler(mux)
}

// Hosts below a listed domain share a session, the others have each their own, and
// a logout leaves no cookie, whatever domain it was for.
func TestChromiumDomains(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, application(t, session.Config{Cookie: session.CookieConfig{Domains: []string{"shop.example", "eu.shop.example", "laden.test"}}}))
	b.want("www.shop.example", "/login/ada", "welcome")
	b.want("shop.example", "/", "ada, 1 cookies")
	b.want("pay.shop.example", "/", "ada, 1 cookies")
	b.want("www.laden.test", "/", "nobody, 0 cookies")
	b.want("www.laden.test", "/login/eve", "welcome")
	b.want("laden.test", "/", "eve, 1 cookies")
	b.want("shop.example", "/", "ada, 1 cookies")

	// A listed domain below another one: its hosts see both, and the logout there
	// ends both.
	b.want("eu.shop.example", "/", "ada, 1 cookies")
	b.want("www.eu.shop.example", "/login/bob", "welcome")
	b.want("shop.example", "/", "nobody, 1 cookies") // the login has renewed ada's session
	b.want("eu.shop.example", "/", "bob, 2 cookies")
	b.want("eu.shop.example", "/logout", "bye")
	b.want("eu.shop.example", "/", "nobody, 0 cookies")
	b.want("shop.example", "/", "nobody, 0 cookies")

	// Hosts that are not listed, and one that browsers take for another: the cookie
	// is for that host alone, and it is kept.
	for _, host := range []string{"other.test", "127.0.0.1", "www.shop.example."} {
		b.want(host, "/login/kim", "welcome")
		b.want(host, "/", "kim, 1 cookies")
	}
	b.want("sub.other.test", "/", "nobody, 0 cookies")
	b.want("www.shop.example", "/", "nobody, 0 cookies")
	b.want("laden.test", "/logout", "bye")
	b.want("www.laden.test", "/", "nobody, 0 cookies")
}

// A lie about the host, which a proxy has let through, gets a cookie that the
// browser does not take: nobody gets one for a domain that he is not on.
func TestChromiumDomainsForwardedLie(t *testing.T) {
	t.Parallel()
	app := application(t, session.Config{TrustProxy: true, Cookie: session.CookieConfig{Domains: []string{"shop.example", "laden.test"}}})
	var lie atomic.Value
	lie.Store("www.laden.test")
	b := newBrowser(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("X-Forwarded-Host", lie.Load().(string))
		app.ServeHTTP(w, r)
	}))
	b.want("www.shop.example", "/login/ada", "welcome")
	for _, host := range []string{"www.shop.example", "shop.example", "www.laden.test", "laden.test"} {
		b.want(host, "/", "nobody, 0 cookies")
	}
	lie.Store("www.shop.example")
	b.want("www.shop.example", "/login/ada", "welcome")
	b.want("shop.example", "/", "ada, 1 cookies")
}
