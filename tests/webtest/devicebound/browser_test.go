package devicebound

import (
	"context"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"
)

// browser is a Chromium with a user data directory, and one tab.
type browser struct {
	t       *testing.T
	site    *site
	dir     string
	ctx     context.Context
	quit    func()
	made    atomic.Int64 // device-bound sessions that it says it has made
	deleted atomic.Int64
}

func newBrowser(s *site) *browser {
	s.t.Helper()
	b := &browser{t: s.t, site: s, dir: s.t.TempDir()}
	b.open()
	return b
}

func (b *browser) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// open starts the browser, without the limit of six signatures in nine minutes.
func (b *browser) open() {
	b.t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if path, err = exec.LookPath("google-chrome"); err != nil {
			b.t.Fatal("no browser found: install chromium (Debian, Ubuntu: sudo apt-get install chromium)")
		}
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(b.dir), chromedp.WSURLReadTimeout(patience),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
	}
	for _, name := range []string{
		"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage", "no-default-browser-check",
	} {
		options = append(options, chromedp.Flag(name, true))
	}
	options = append(options, chromedp.Flag("password-store", "basic"),
		chromedp.Flag("enable-features", "DeviceBoundSessions:RefreshQuota/false,EnableBoundSessionCredentialsSoftwareKeysForManualTesting"),
		chromedp.Flag("ignore-certificate-errors-spki-list", b.site.pin))
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	ctx, cancelAllocator := chromedp.NewExecAllocator(ctx, options...)
	ctx, _ = chromedp.NewContext(ctx)
	closed := false
	b.ctx, b.quit = ctx, func() {
		if closed {
			return
		}
		closed = true
		if err := chromedp.Cancel(ctx); err != nil {
			b.t.Errorf("close the browser: %v", err)
		}
		cancelAllocator()
		cancel()
	}
	b.t.Cleanup(func() { b.quit() })
	b.must(chromedp.Do(b.ctx, chromedp.Navigate("about:blank")))
	b.must(chromedp.Listen(b.ctx, func(event any) {
		e, ok := event.(*network.EventDeviceBoundSessionEventOccurred)
		switch {
		case !ok:
		case e.CreationEventDetails != nil && e.Succeeded:
			b.made.Add(1)
		case e.TerminationEventDetails != nil:
			b.deleted.Add(1)
		}
	}))
	call(b, network.Enable, network.EnableParams{})
	call(b, network.EnableDeviceBoundSessions, network.EnableDeviceBoundSessionsParams{Enable: true})
}

// call is a command of the DevTools protocol.
func call[P, R any](b *browser, cmd cdp.Command[P, R], params P) R {
	b.t.Helper()
	r, err := chromedp.Call(b.ctx, cmd, params)
	b.must(err)
	return r
}

// eval runs a script in the page, to the end of its promise.
func eval[T any](b *browser, script string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	b.must(err)
	return v
}

// visit is the address bar.
func (b *browser) visit(path string) int {
	b.t.Helper()
	if strings.HasPrefix(path, "/") {
		path = b.site.url + path
	}
	res, err := chromedp.Run(b.ctx, chromedp.NavigateResponse(path))
	b.must(err)
	if res == nil { // the browser's own page says that there was no answer
		return 0
	}
	return int(res.Status)
}

// wantText waits for the page: one that loads itself again takes a moment.
func (b *browser) wantText(what, want string) {
	b.t.Helper()
	eventually(b.t, what+": "+want, func() bool {
		text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("document.body ? document.body.innerText.trim() : ''"))
		return err == nil && strings.Contains(text, want)
	})
}

// fetch is one of a script's, and gives status and text.
func (b *browser) fetch(method, path, body string) string {
	b.t.Helper()
	options := `{method:"` + method + `"`
	if body != "" {
		options += `,body:"` + body + `"`
	}
	return eval[string](b, `fetch("`+path+`",`+options+`}).then(async r => r.status + " " + (await r.text()).replace(/<[^>]*>/g, "").trim(), e => "no answer")`)
}

// cookies are those of the site, by name.
func (b *browser) cookies() map[string]string {
	b.t.Helper()
	all := map[string]string{}
	for _, c := range call(b, storage.GetCookies, storage.GetCookiesParams{}).Cookies {
		if c.Domain == "localhost" {
			all[c.Name] = c.Value
		}
	}
	return all
}

// expire drops the bound cookie, as the end of its life does.
func (b *browser) expire() {
	b.t.Helper()
	call(b, network.DeleteCookies, network.DeleteCookiesParams{Name: "session-bound", URL: b.site.url})
	if _, there := b.cookies()["session-bound"]; there {
		b.t.Fatal("got the bound cookie still there")
	}
}

// logIn presses the button and follows.
func (b *browser) logIn() {
	b.t.Helper()
	b.visit("/login")
	_, err := chromedp.RunResponse(b.ctx, chromedp.Click(chromedp.CSS("button")))
	b.must(err)
	b.wantText("login", "ada bound=")
}

// logInBound waits until the session is bound, for the browser and for the server.
func (b *browser) logInBound() {
	b.t.Helper()
	before := b.made.Load()
	b.logIn()
	eventually(b.t, "registration", func() bool { return b.made.Load() > before })
	b.visit("/account")
	b.wantText("first proven page", "ada bound=true")
}
