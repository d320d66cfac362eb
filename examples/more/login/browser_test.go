package main_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/pgsession/session/internal/exampletest"
	"github.com/pgsession/session/internal/pgtest"
)

// What the browser makes of the cookie.
func TestChromiumCookie(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		start func(*testing.T, ...string) *exampletest.Program
		https bool
	}{
		{"http", exampletest.Start, false},
		{"https", secure, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := tt.start(t, "DATABASE_URL="+pgtest.URL(t))
			b := newProfile(t, p, "")
			b.visit("/login")
			if b.cookie() != nil {
				t.Error("a visitor has a cookie")
			}
			b.signUp("ada")
			check := func(remember bool) {
				t.Helper()
				c := b.cookie()
				if c == nil {
					t.Fatal("got no cookie")
				}
				if !c.HTTPOnly || c.SameSite != network.CookieSameSiteLax || c.Secure != tt.https || c.Domain != "localhost" || c.Path != "/" {
					t.Errorf("got HttpOnly %v, SameSite %s, Secure %v, domain %s, path %s, want true, Lax, %v, localhost, /", c.HTTPOnly, c.SameSite, c.Secure, c.Domain, c.Path, tt.https)
				}
				if c.Session == remember {
					t.Errorf("ends with the browser: got %v, want %v", c.Session, !remember)
				}
				if left := time.Until(time.Unix(int64(c.Expires), 0)); remember && (left > 30*24*time.Hour || left < 30*24*time.Hour-time.Hour) {
					t.Errorf("got %v left, want 30 days", left)
				}
			}
			check(false)
			if eval[string](b, "document.cookie") != "" {
				t.Error("scripts can read the cookie")
			}
			b.press("Log out")
			if b.cookie() != nil {
				t.Error("a cookie is left after the logout")
			}
			b.logIn("ada", true)
			check(true)
		})
	}
}

func TestChromiumClosedAndOpenedAgain(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	b := newProfile(t, p, "")
	b.signUp("ada")
	b.quit()
	b.open()
	b.visit("/account")
	b.wantPath("/login")
	b.logIn("ada", true)
	b.quit()
	b.open()
	b.visit("/account")
	b.wantText("Hello, ada")
}

func TestChromiumLoginOutlivesProgramAndDatabase(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgtest.Options{})
	p := exampletest.Start(t, "DATABASE_URL="+server.URL())
	b := newProfile(t, p, "")
	b.signUp("ada")
	for _, mode := range []string{"fast", "immediate"} {
		must(t, server.Restart(t.Context(), mode))
		b.visit("/devices")
		b.wantText("This device")
	}
	p.Interrupt(os.Interrupt)
	p = exampletest.Start(t, "DATABASE_URL="+server.URL())
	b.url = strings.Replace(p.URL, "127.0.0.1", "localhost", 1) // the port is new; cookies do not know ports
	b.visit("/account")
	b.wantText("Hello, ada")
}

// The back button shows nothing of a user who has logged out, neither from the
// HTTP cache nor the page as it was, which Chromium keeps in memory.
func TestChromiumBackAfterLogout(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		start func(*testing.T, ...string) *exampletest.Program
	}{{"http", exampletest.Start}, {"https", secure}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := tt.start(t, "DATABASE_URL="+pgtest.URL(t))
			b := newProfile(t, p, "")
			b.signUp("ada")
			b.press("See devices")
			b.wantText("This device")
			eval[bool](b, "window.asItWas = true")
			b.press("Log out")
			b.back()
			b.wantPath("/login")
			if eval[bool](b, "!!window.asItWas") {
				t.Error("the page came out of memory as it was")
			}
			if text := b.text(); strings.Contains(text, "This device") || strings.Contains(text, "ada") {
				t.Errorf("got the page %q, want nothing of ada's", text)
			}
		})
	}
}

// The control of the test above: this Chromium does keep pages in memory, and
// shows them again without asking the server, unless they are marked no-store.
func TestChromiumKeepsPagesInMemory(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	b := newProfile(t, p, "")
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `<!DOCTYPE html><main>%s <a href="/next">Next</a></main>`, r.URL.Path)
	}))
	t.Cleanup(elsewhere.Close)
	b.visit(elsewhere.URL + "/first")
	eval[bool](b, "window.asItWas = true")
	b.press("Next")
	b.back()
	b.wantText("/first")
	if !eval[bool](b, "!!window.asItWas") {
		t.Error("the page was loaded again; want it out of memory, or the test of the back button shows nothing")
	}
}

func TestChromiumDevices(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	ada, phone := newProfile(t, p, ""), newProfile(t, p, "")
	ada.signUp("ada")
	phone.logIn("ada", true)
	phone.wantText("Hello, ada")

	ada.visit("/devices")
	ada.wantText("Chrome on Linux")
	ada.leads(chromedp.Click(chromedp.Search(`//li[not(.//*[contains(@class, "badge")])]//button`)))
	ada.wantText("The device is logged out.")
	phone.press("Devices")
	phone.wantPath("/login")

	phone.logIn("ada", false)
	ada.press("Account")
	ada.press("Change password")
	ada.fill("password", "another long password")
	ada.press("Change password")
	ada.wantText("Your password is changed")
	phone.press("Devices")
	phone.wantPath("/login")
	ada.press("Devices")
	ada.wantText("This device")
}

// A cookie that was planted before the login is worth nothing after it: neither
// the attacker's own session nor one that is nobody's.
func TestChromiumFixation(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	victim := newProfile(t, p, "")
	victim.signUp("ada")
	victim.press("Log out")
	for _, tt := range []struct {
		name  string
		plant func(*visitor)
	}{
		{"the attacker's session", func(v *visitor) { v.signUp("mallory") }},
		{"nobody's session", func(v *visitor) { v.signUp("eve"); v.post("/delete") }},
	} {
		attacker := newVisitor(t, p)
		tt.plant(attacker)
		planted := attacker.Cookie()
		if planted == "" {
			t.Fatalf("%s: the attacker has no session", tt.name)
		}
		call(victim, network.SetCookie, network.SetCookieParams{Name: "session", Value: planted, URL: victim.url})
		if c := victim.cookie(); c == nil || c.Value != planted {
			t.Fatalf("%s: the cookie is not planted", tt.name)
		}
		victim.visit("/signup") // shows a form to anybody; the login page would not
		eval[string](victim, `document.querySelector("form[action='/signup']").action = "/login"`)
		victim.fill("name", "ada", "password", password)
		victim.press("Create account")
		victim.wantText("Hello, ada")
		if victim.cookie().Value == planted {
			t.Errorf("%s: the planted cookie is still the session's", tt.name)
		}
		attacker.SetCookie(planted)
		attacker.wantLoggedOut()
		victim.press("Log out")
	}
}

func TestChromiumOtherSites(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	ada, phone := newProfile(t, p, ""), newVisitor(t, p)
	ada.signUp("ada")
	phone.logIn("ada")
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `<!DOCTYPE html><main><form method="post" action="%[1]s/devices/revoke-others"><button>Win</button></form> <a href="%[1]s/account">Link</a></main>`, ada.url)
	}))
	t.Cleanup(evil.Close)

	requests := make(chan *network.EventRequestWillBeSentExtraInfo, 1)
	must(t, chromedp.Listen(ada.ctx, func(event any) {
		if e, ok := event.(*network.EventRequestWillBeSentExtraInfo); ok && e.Headers["Origin"] != nil {
			requests <- e // the form
		}
	}))
	for _, tt := range []struct {
		name, url, from string
		cookie          bool
	}{
		{"another site", evil.URL, "cross-site", false}, // 127.0.0.1 and localhost are two
		{"another origin of the same site", strings.Replace(evil.URL, "127.0.0.1", "localhost", 1), "same-site", true},
	} {
		ada.visit(tt.url)
		if code := ada.press("Win"); code != http.StatusForbidden {
			t.Errorf("the form of %s: got %d, want 403", tt.name, code)
		}
		sent := <-requests
		if got := sent.Headers["Sec-Fetch-Site"]; got != tt.from {
			t.Errorf("the form of %s: got Sec-Fetch-Site %s, want %s", tt.name, got, tt.from)
		}
		if got := sent.Headers["Cookie"] != nil; got != tt.cookie || len(sent.AssociatedCookies) != 1 {
			t.Errorf("the form of %s: carries the session: got %v, want %v", tt.name, got, tt.cookie)
		}
		phone.get("/account").Want(t, 200, "Hello, ada")

		ada.visit(tt.url) // a link is a visit like any other
		ada.press("Link")
		ada.wantText("Hello, ada")
	}
}

// A browser that keeps no cookies is told so, and not sent in circles.
func TestChromiumWithoutCookies(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	newVisitor(t, p).signUp("ada")
	b := newProfile(t, p, `{"profile": {"default_content_setting_values": {"cookies": 2}}}`)
	if code := b.logIn("ada", false); code != http.StatusOK {
		t.Errorf("got %d, want 200", code)
	}
	b.wantPath("/login/done")
	b.wantText("Please allow cookies")
	if b.cookie() != nil {
		t.Error("got a cookie; the browser was to refuse it")
	}
	b.visit("/account")
	b.wantPath("/login")
}

// The policy breaks nothing of ours, and runs no script that somebody got into a
// page.
func TestChromiumPolicy(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	b := newProfile(t, p, "")
	complaints := chromedp.Events(b.ctx, log.EntryAdded)
	call(b, log.Enable, cdp.Empty{})
	b.signUp("ada")
	for _, path := range []string{"/devices", "/password", "/delete", "/confirm", "/account"} {
		b.visit(path)
	}
	ran := eval[bool](b, `(() => {
		const s = document.createElement("script");
		s.textContent = "window.ran = true";
		document.body.append(s);
		return !!window.ran })()`)
	if ran {
		t.Error("the script ran")
	}
	for e, err := range complaints { // the first: nothing before the script broke the policy
		must(t, err)
		if !strings.Contains(e.Entry.Text, "inline script") {
			t.Errorf("got the complaint %q, want only the one about the script", e.Entry.Text)
		}
		break
	}
}
