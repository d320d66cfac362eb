package devicebound

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// long is so long that no bound cookie ends, and none is refreshed beside a
// request, while a test runs.
const long = time.Hour

// thief has a copy of cookies, and neither a browser nor a key.
type thief struct {
	url     string
	cookies map[string]string
}

func (b *browser) steal() thief { return thief{b.site.url, b.cookies()} }

// page gets the account's page, without following.
func (c thief) page(t *testing.T) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", c.url+"/account", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range c.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	client := http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

func memory() session.Store { return session.NewMemoryStore() }

// A copy of all cookies works at first, and stops, while the browser goes on. Two
// instances that share PostgreSQL alone answer in turn.
func TestChromiumCopyStops(t *testing.T) {
	t.Parallel()
	store, err := session.NewPostgresStore(t.Context(), pgtest.Pool(t), session.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, 3*time.Second, store)
	b := newBrowser(s)
	b.logInBound()
	var copied thief
	eventually(t, "a copy with the bound cookie in it, that works", func() bool {
		copied = b.steal()
		_, body := copied.page(t)
		return strings.Contains(body, "ada bound=true")
	})
	eventually(t, "the copy's end", func() bool {
		status, body := copied.page(t)
		return status == http.StatusTemporaryRedirect && !strings.Contains(body, "ada")
	})
	delete(copied.cookies, "session-bound")
	if status, body := copied.page(t); status != 200 || !strings.Contains(body, "nobody") {
		t.Errorf("the copy without its bound cookie: got %d %q", status, body)
	}
	// Three times, and until each instance has answered a refresh: which one does depends
	// on what else was asked for.
	by := func(instance int) int {
		return s.count(0, func(e exchange) bool { return refreshed(e) && e.instance == instance })
	}
	times := 0
	eventually(t, "a refresh answered by each of the instances", func() bool {
		eventually(t, "the bound cookie's end", func() bool { return b.cookies()["session-bound"] == "" })
		if times++; times > 3 {
			copied.page(t) // the other one's turn
		}
		if got := b.fetch("GET", "/account", ""); got != "200 ada bound=true" {
			t.Errorf("the browser: got %q", got)
		}
		return times >= 3 && by(0) > 0 && by(1) > 0
	})
	if got := s.count(0, ended); got > 0 || b.deleted.Load() > 0 {
		t.Errorf("got %d ends of the binding told, %d carried out, want none", got, b.deleted.Load())
	}
}

// Five requests at once wait for one refresh.
func TestChromiumRequestsAreHeldBack(t *testing.T) {
	t.Parallel()
	s := newSite(t, long, memory())
	b := newBrowser(s)
	b.logInBound()
	b.expire()
	n := s.mark()
	got := eval[string](b, `Promise.all([1,2,3,4,5].map(i => fetch("/account?"+i).then(r => r.text()))).then(all => all.filter(t => t.includes("ada bound=true")).length + "")`)
	if got != "5" {
		t.Errorf("got %s of five pages, want all", got)
	}
	if got := s.count(n, refreshed); got != 1 {
		t.Errorf("got %d refreshes, want 1", got)
	}
	for _, e := range s.since(n) {
		if e.path == "/account" && len(e.cookies) != 2 {
			t.Errorf("got a page asked for with %v before the refresh", e.cookies)
		}
	}
}

// A renewal keeps the binding, a logout ends it, and a restart of the browser
// keeps it.
func TestChromiumRenewRestartLogout(t *testing.T) {
	t.Parallel()
	s := newSite(t, long, memory())
	b := newBrowser(s)
	b.logInBound()
	before := b.cookies()
	if got := b.fetch("POST", "/renew", ""); got != "200 ada bound=true" {
		t.Errorf("renewal: got %q", got)
	}
	if b.cookies()["session"] == before["session"] {
		t.Error("renewal: got the same session cookie")
	}
	b.expire()
	if got := b.fetch("GET", "/account", ""); got != "200 ada bound=true" {
		t.Errorf("refreshed after the renewal: got %q", got)
	}

	b.expire()
	b.quit()
	b.open()
	n := s.mark()
	b.visit("/account")
	b.wantText("after a restart", "ada bound=true")
	if got := s.count(n, refreshed); got != 1 {
		t.Errorf("after a restart: got %d refreshes, want 1", got)
	}

	if got := b.fetch("POST", "/logout", ""); got != "200 nobody bound=false" {
		t.Errorf("logout: got %q", got)
	}
	if left := b.cookies(); len(left) > 0 {
		t.Errorf("logout: got %d cookies left", len(left))
	}
	n = s.mark()
	b.visit("/account")
	b.wantText("after the logout", "nobody bound=false")
	if got := s.count(n, ended); got != 1 {
		t.Errorf("after the logout: got the binding's end told %d times, want once", got)
	}
	n = s.mark()
	b.visit("/account")
	if got := s.count(n, func(e exchange) bool { return e.path == "/session/bind" }); got != 0 {
		t.Errorf("after its end: got %d requests for the binding", got)
	}
	b.logInBound() // and it can be bound again
}

// A link on another site is not held back: the page loads itself again, and the
// user never sees a login. With the bound cookie there nothing happens to it.
func TestChromiumLinkFromAnotherSite(t *testing.T) {
	t.Parallel()
	s := newSite(t, long, memory())
	b := newBrowser(s)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<!doctype html><a href="%s/account?from=elsewhere">Link</a>`, s.url)
	}))
	t.Cleanup(other.Close)
	follow := func(what string) {
		t.Helper()
		b.visit(other.URL) // 127.0.0.1 is another site than localhost
		_, err := chromedp.RunResponse(b.ctx, chromedp.Click(chromedp.CSS("a")))
		b.must(err)
		b.wantText(what, "ada bound=true")
		if got := eval[string](b, "location.pathname + location.search"); got != "/account?from=elsewhere" {
			t.Errorf("%s: got to %s", what, got)
		}
	}
	b.logInBound()
	n := s.mark()
	follow("with the bound cookie")
	if got := s.count(n, func(e exchange) bool { return e.path == "/account" }); got != 1 {
		t.Errorf("with the bound cookie: got %d pages asked for, want 1", got)
	}
	b.expire()
	n = s.mark()
	follow("without it")
	pages := 0
	for _, e := range s.since(n) {
		if e.path != "/account" {
			continue
		}
		switch pages++; {
		case pages == 1 && (e.status != http.StatusForbidden || e.site != "cross-site"):
			t.Errorf("got first %v, want a page that loads itself again", e)
		case pages == 2 && e.status != http.StatusOK:
			t.Errorf("got then %v, want the page", e)
		}
	}
	if pages != 2 || s.count(0, ended) > 0 {
		t.Errorf("got %d pages, want 2; binding ended: %d", pages, s.count(0, ended))
	}
}

// The same while the browser refreshes beside each request, as it does in the last
// two minutes of a bound cookie: a link on another site starts no refresh that
// lacks the session's cookie, which would end the binding.
func TestChromiumLinkBesideRefresh(t *testing.T) {
	t.Parallel()
	s := newSite(t, time.Minute, memory())
	b := newBrowser(s)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<!doctype html><a href="%s/account">Link</a>`, s.url)
	}))
	t.Cleanup(other.Close)
	b.logInBound()
	for range 3 {
		b.visit(other.URL)
		_, err := chromedp.RunResponse(b.ctx, chromedp.Click(chromedp.CSS("a")))
		b.must(err)
		b.wantText("link", "ada bound=true")
	}
	b.expire()
	b.visit("/account")
	b.wantText("after it", "ada bound=true")
	if got := s.count(0, ended); got > 0 || b.deleted.Load() > 0 {
		t.Errorf("got the binding ended %d times", got)
	}
	if s.count(0, refreshed) == 0 {
		t.Error("got no refresh")
	}
}

// A bound cookie that is there but wrong heals, for a page and for a form, which
// keeps what it carries.
func TestChromiumWrongBoundCookieHeals(t *testing.T) {
	t.Parallel()
	s := newSite(t, long, memory())
	b := newBrowser(s)
	b.logInBound()
	yes := true
	spoil := func() {
		call(b, network.SetCookie, network.SetCookieParams{
			Name: "session-bound", Value: "wrong", URL: s.url, Secure: &yes, HTTPOnly: &yes, SameSite: network.CookieSameSiteLax,
		})
		if b.cookies()["session-bound"] != "wrong" {
			t.Fatal("got the bound cookie not changed")
		}
	}
	for range 2 {
		spoil()
		n := s.mark()
		b.visit("/account")
		b.wantText("page", "ada bound=true")
		if got := s.count(n, func(e exchange) bool { return e.status == http.StatusTemporaryRedirect }); got != 1 {
			t.Errorf("page: got %d redirects, want 1", got)
		}
		spoil()
		if got := b.fetch("POST", "/account", "a form"); got != "200 ada bound=true a form" {
			t.Errorf("form: got %q", got)
		}
	}
}

// The database is down at each step: nobody is logged out.
func TestChromiumDatabaseDown(t *testing.T) {
	t.Parallel()
	s := newSite(t, long, memory())
	b := newBrowser(s)

	// While a key is registered: the session stays unbound, and works.
	s.downAt("/session/bind")
	n := s.mark()
	b.logIn()
	eventually(t, "a registration that fails", func() bool {
		return s.count(n, func(e exchange) bool { return e.path == "/session/bind" && e.status == 503 }) == 1
	})
	s.downAt("")
	b.visit("/account")
	b.wantText("unbound", "ada bound=false")

	b.logInBound() // the next login binds
	b.expire()
	s.db.set(true)
	if code := b.visit("/account"); code != http.StatusServiceUnavailable {
		t.Errorf("down: got %d, want 503", code)
	}
	if got := b.fetch("GET", "/account", ""); !strings.HasPrefix(got, "503") {
		t.Errorf("down: got %q, want 503", got)
	}
	s.db.set(false)
	b.wantLater("up again")

	// At the refresh alone: the page itself could be loaded.
	b.expire()
	s.downAt("/session/bind")
	n = s.mark()
	if code := b.visit("/account"); code != http.StatusServiceUnavailable {
		t.Errorf("down at the refresh: got %d, want 503", code)
	}
	if got := s.count(n, func(e exchange) bool { return e.path == "/account" && strings.HasPrefix(e.skipped, "server_error") }); got == 0 {
		t.Error("down at the refresh: got no Secure-Session-Skipped")
	}
	s.downAt("")
	b.wantLater("up again")
	if b.deleted.Load() > 0 {
		t.Error("got the binding ended by an outage")
	}
}

// wantLater waits until the browser, which waits longer after each failure, has
// tried again.
func (b *browser) wantLater(what string) {
	b.t.Helper()
	eventually(b.t, what, func() bool { return b.visit("/account") == 200 })
	b.wantText(what, "ada bound=true")
}

// The instance that gets a request dies, before it acts and after: at the
// registration, at each step of a refresh, and at a page. The other one goes on.
func TestChromiumInstanceKilled(t *testing.T) {
	t.Parallel()
	s := newSite(t, long, memory())
	b := newBrowser(s)
	at := func(is func(exchange) bool, acts bool) kill {
		return func(e exchange) (bool, bool) { return is(e), acts }
	}
	endpoint := func(id, proof bool) func(exchange) bool {
		return func(e exchange) bool { return e.path == "/session/bind" && e.id == id && e.proof == proof }
	}
	for _, acts := range []bool{false, true} {
		s.kills(at(endpoint(false, true), acts))
		n := s.mark()
		b.logIn()
		eventually(t, "a registration that is cut off", func() bool {
			return s.count(n, func(e exchange) bool { return e.path == "/session/bind" && e.status == 0 }) == 1
		})
		b.visit("/account")
		b.wantText("unbound", "ada bound=false")
		if !s.revives() {
			t.Fatal("got nobody killed")
		}
	}
	b.logInBound()
	for _, step := range []struct {
		name string
		is   func(exchange) bool
	}{
		{"asking for a challenge", endpoint(true, false)},
		{"proof", endpoint(true, true)},
		{"page", func(e exchange) bool { return e.path == "/account" }},
	} {
		for _, acts := range []bool{false, true} {
			if step.name == "asking for a challenge" { // nothing is cached over a restart of the browser
				b.quit()
				b.open()
			}
			b.expire()
			s.kills(at(step.is, acts))
			_, _ = chromedp.Run(b.ctx, chromedp.NavigateResponse(s.url+"/account")) // it may be an error page
			b.wantLater(fmt.Sprintf("%s, acts %v", step.name, acts))
			if !s.revives() {
				t.Errorf("%s: got nobody killed", step.name)
			}
		}
	}
	if got := s.count(0, ended); got > 0 || b.deleted.Load() > 0 {
		t.Errorf("got the binding ended %d times", got)
	}
}
