package settings

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"

	"github.com/pgsession/session"
)

const user = session.Key[string]("user")

// patience bounds what is waited for; no test depends on how long it takes.
const patience = 2 * time.Minute

// site is a service on several hosts, and a Chromium to which every name is this
// machine. Its sessions outlive a deployment, as those in a table do.
type site struct {
	t       *testing.T
	store   *session.MemoryStore
	handler atomic.Value // http.Handler
	manager *session.Manager
	name    string // of the cookie
	ports   map[string]string
	ctx     context.Context
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, ports: map[string]string{}}
	current := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/favicon.ico" { // which the browser asks for when it likes
			http.NotFound(w, r)
			return
		}
		s.handler.Load().(http.Handler).ServeHTTP(w, r)
	})
	quiet := log.New(io.Discard, "", 0) // handshakes that the browser gives up
	plain, tls := httptest.NewUnstartedServer(current), httptest.NewUnstartedServer(current)
	plain.Config.ErrorLog, tls.Config.ErrorLog = quiet, quiet
	plain.Start()
	tls.StartTLS()
	t.Cleanup(plain.Close)
	t.Cleanup(tls.Close)
	for _, server := range []*httptest.Server{plain, tls} {
		u, err := url.Parse(server.URL)
		must(t, err)
		s.ports[u.Scheme] = u.Port()
	}
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
		chromedp.Flag("ignore-certificate-errors", true),
		chromedp.Flag("disable-features", "HttpsUpgrades,HttpsFirstBalancedModeAutoEnable"),
	}
	for _, name := range []string{"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage", "no-default-browser-check"} {
		options = append(options, chromedp.Flag(name, true))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	ctx, cancelAllocator := chromedp.NewExecAllocator(ctx, options...)
	ctx, _ = chromedp.NewContext(ctx)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("close the browser: %v", err)
		}
		cancelAllocator()
		cancel()
	})
	s.ctx = ctx
	must(t, chromedp.Do(ctx, chromedp.Navigate("about:blank")))
	return s
}

// begin forgets all sessions and all cookies.
func (s *site) begin(t *testing.T) {
	t.Helper()
	s.t, s.store = t, session.NewMemoryStore()
	_, err := chromedp.Call(s.ctx, storage.ClearCookies, storage.ClearCookiesParams{})
	must(t, err)
}

// forget ends all sessions, as time does.
func (s *site) forget() {
	s.t.Helper()
	if _, err := s.manager.Revoke(s.ctx, session.Everyone()); err != nil {
		s.t.Fatal(err)
	}
}

// deploy starts the next version of the program: the same sessions, the same
// secret, other settings of the cookie.
func (s *site) deploy(c session.CookieConfig, around ...func(http.Handler) http.Handler) {
	s.t.Helper()
	m, err := session.New(s.store, session.Config{
		Secret: "kq7Vw2mT9xB4nR8sL1cZ6yH3pD5gJ0fa", Cookie: c, UserKey: string(user), Logger: slog.New(slog.DiscardHandler),
		TouchInterval: time.Nanosecond, // each visit sends the cookie, as one a minute does
	})
	must(s.t, err)
	s.t.Cleanup(func() { _ = m.Close() })
	s.manager, s.name = m, c.Name
	if s.name == "" {
		s.name = map[session.CookieFormat]string{session.FormatSecureCookie: "session", session.FormatExpress: "connect.sid"}[c.Format]
	}
	h := m.Handler(s.pages(m))
	for _, f := range around {
		h = f(h)
	}
	s.handler.Store(http.Handler(http.HandlerFunc(h.ServeHTTP)))
}

// pages answer at /app/ and at /: /login/NAME, /logout, /logout-everywhere and all
// else, which says who is logged in and how many cookies of the name came with the request.
func (s *site) pages(m *session.Manager) http.Handler {
	name := s.name
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		current := session.From(r.Context())
		path := strings.TrimPrefix(r.URL.Path, "/app")
		if who, ok := strings.CutPrefix(path, "/login/"); ok {
			user.Set(current, who) // Config.UserKey: a login
			_, _ = io.WriteString(w, "welcome")
			return
		}
		who, ok := user.Get(current)
		switch {
		case path == "/logout":
			current.Destroy()
			_, _ = io.WriteString(w, "bye")
			return
		case path == "/logout-everywhere":
			if _, err := m.Revoke(r.Context(), user.Is(who)); err != nil {
				http.Error(w, "try again", http.StatusServiceUnavailable)
				return
			}
			current.Destroy()
			_, _ = io.WriteString(w, "bye")
			return
		case !ok:
			who = "nobody"
		}
		_, _ = fmt.Fprintf(w, "%s %d", who, len(r.CookiesNamed(name)))
	})
}

// visit goes to an address of the site, such as "https://www.shop.test/app/", and
// returns what the page says.
func (s *site) visit(address string) string {
	s.t.Helper()
	u, err := url.Parse(address)
	must(s.t, err)
	u.Host += ":" + s.ports[u.Scheme]
	must(s.t, chromedp.Do(s.ctx, chromedp.Navigate(u.String())))
	text, err := chromedp.Run(s.ctx, chromedp.Evaluate[string]("document.body ? document.body.innerText.trim() : ''"))
	must(s.t, err)
	return text
}

// kept is how many cookies of any of the names the browser has.
func (s *site) kept() int {
	s.t.Helper()
	r, err := chromedp.Call(s.ctx, storage.GetCookies, storage.GetCookiesParams{})
	must(s.t, err)
	return len(r.Cookies)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
