package main_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/pgsession/session"
	main "github.com/pgsession/session/examples/more/callback"
	"github.com/pgsession/session/internal/exampletest"
)

func TestMain(m *testing.M) { exampletest.Main(m) }

// site is the shop and its provider, two sites to a browser, and what the shop was
// asked for: whether the callback came with a cookie.
type site struct {
	shop, provider string
	cookies        chan bool
}

func newSite(t *testing.T, mode http.SameSite) *site {
	t.Helper()
	sessions, err := session.New(session.NewMemoryStore(), session.Config{
		Secret: exampletest.Secret, Logger: slog.New(slog.DiscardHandler), UserKey: "user", Cookie: session.CookieConfig{SameSite: mode},
	})
	exampletest.Must(t, err)
	t.Cleanup(func() { exampletest.Must(t, sessions.Close()) })
	s := &site{cookies: make(chan bool, 16)}
	var shop, provider http.Handler
	shopServer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/login/callback" {
			s.cookies <- r.Header.Get("Cookie") != ""
		}
		shop.ServeHTTP(w, r)
	}))
	t.Cleanup(shopServer.Close)
	providerServer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { provider.ServeHTTP(w, r) }))
	t.Cleanup(providerServer.Close)
	s.shop, s.provider = strings.Replace(shopServer.URL, "127.0.0.1", "localhost", 1), providerServer.URL
	shop, provider = main.NewShop(sessions, s.provider), main.NewProvider(s.shop)
	return s
}

// browser is a real one.
type browser struct {
	t   *testing.T
	ctx context.Context
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	exampletest.Must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 5*exampletest.Deadline) // on a busy machine
	t.Cleanup(cancel)
	ctx, cancelAllocator := chromedp.NewExecAllocator(ctx, chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()),
		chromedp.WSURLReadTimeout(exampletest.Deadline), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun)
	t.Cleanup(cancelAllocator)
	ctx, _ = chromedp.NewContext(ctx)
	t.Cleanup(func() { exampletest.Must(t, chromedp.Cancel(ctx)) })
	return &browser{t, ctx}
}

func (b *browser) visit(url string) {
	b.t.Helper()
	_, err := chromedp.Run(b.ctx, chromedp.NavigateResponse(url))
	exampletest.Must(b.t, err)
}

// press presses a button and waits for a page with a text.
func (b *browser) press(label, want string) {
	b.t.Helper()
	exampletest.Must(b.t, chromedp.Do(b.ctx, chromedp.Click(chromedp.Search(`//button[normalize-space()="`+label+`"]`))))
	b.see(want)
}

func (b *browser) see(want string) {
	b.t.Helper()
	exampletest.Must(b.t, chromedp.Do(b.ctx, chromedp.WaitVisible(chromedp.Search(`//main[contains(., "`+want+`")]`))))
}

// The provider's form brings no cookie, what the page posts again does; the login's
// state, the cart and the session's one cookie are as they were.
func TestChromiumCallback(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string]http.SameSite{"Lax": http.SameSiteLaxMode, "Strict": http.SameSiteStrictMode} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, b := newSite(t, mode), newBrowser(t)
			b.visit(s.shop)
			b.press("Add to cart", "In your cart: 1.")
			b.press("Log in", "Log in to the shop?")
			b.press("I am ada", "Hello, ada. In your cart: 1.")
			if first, second := <-s.cookies, <-s.cookies; first || !second || len(s.cookies) > 0 {
				t.Errorf("the callback came with a cookie: got %v, then %v, and %d more, want false, then true", first, second, len(s.cookies))
			}
			// A login that this browser has not begun is refused, and changes nothing.
			b.visit(s.provider + "/authorize?state=mallorys")
			exampletest.Must(t, chromedp.Do(b.ctx, chromedp.Click(chromedp.Search(`//button`)),
				chromedp.WaitVisible(chromedp.Search(`//body[contains(., "not begun in this browser")]`))))
			b.visit(s.shop)
			b.see("Hello, ada. In your cart: 1.")
		})
	}
}

// Without PostAgain the callback sees no state: what the test above would be then.
func TestCallbackWithoutCookies(t *testing.T) {
	t.Parallel()
	s := newSite(t, http.SameSiteLaxMode)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.shop+"/login/callback", strings.NewReader("state=x&name=ada"))
	exampletest.Must(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := http.DefaultClient.Do(req) // no browser says where it comes from
	exampletest.Must(t, err)
	exampletest.Read(t, res).Want(t, http.StatusForbidden, "not begun in this browser")
	if got := res.Header.Get("Set-Cookie"); got != "" {
		t.Error("got a cookie, want none: it would replace the user's")
	}
}

func TestProgram(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t)
	exampletest.NewBrowser(t, "session").Get(p.URL).Want(t, 200, "In your cart: 0.")
	p.Interrupt(os.Interrupt)
}
