package settings

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/pgsession/session"
)

const (
	always = session.SecureAlways
	never  = session.SecureNever
)

// The table of docs/operations.md, "Cookie settings that change": ada is logged in,
// the settings change, and she goes on. Each step is what the page says then, who
// it is and how many cookies came with the request, and after a slash how many the
// browser keeps. Never is anybody there who has logged out.
func TestChromiumCookieSettings(t *testing.T) {
	s := newSite(t)
	const home = "https://www.shop.test/app/"
	// Another cookie for a browser, beside the one it has: both are sent, the first
	// that lives counts, and the old one is dead from the first renewal or logout on.
	beside := [6]string{"ada 1/2", "ada 2/2", "nobody 1/1", "bob 2/2", "nobody 1/1", "eve 2/2"}
	// As that, and a logout in which both come with different sessions takes both
	// away: the library knows that a cookie with a Domain may have one without beside it.
	wider := [6]string{"ada 1/2", "ada 2/2", "nobody 1/1", "bob 2/2", "nobody 0/0", "eve 1/1"}
	// The same cookie for a browser, with other attributes.
	same := [6]string{"ada 1/1", "ada 1/1", "nobody 0/0", "bob 1/1", "nobody 0/0", "eve 1/1"}
	// A cookie that the program does not ask for any more.
	unread := [6]string{"nobody 0/1", "nobody 0/1", "nobody 0/1", "bob 1/2", "nobody 0/1", "eve 1/2"}
	express := func(c session.CookieConfig) session.CookieConfig {
		c.Format = session.FormatExpress
		return c
	}
	type settings = session.CookieConfig
	for _, tt := range []struct {
		name          string
		before, after settings
		want          [6]string // her next two visits; she logs out; bob in; out; eve in
	}{
		{"Domain, none to the parent", settings{}, settings{Domain: "shop.test"}, wider},
		{"Domain, the parent to none", settings{Domain: "shop.test"}, settings{}, beside},
		{"Domains, none to a list", settings{}, settings{Domains: []string{"shop.test"}}, wider},
		{"Path, / to /app", settings{}, settings{Path: "/app"}, beside},
		{"Path, /app to /", settings{Path: "/app"}, settings{}, beside},
		{"Partitioned, on", settings{Secure: always}, settings{Secure: always, Partitioned: true}, beside},
		{"Partitioned, off", settings{Secure: always, Partitioned: true}, settings{Secure: always}, beside},
		{"Name", settings{}, settings{Name: "__Host-session", Secure: always}, unread},
		{"Name, from __Host- with a Domain", settings{Name: "__Host-session", Secure: always}, settings{Domain: "shop.test"}, unread},
		{"Secure, never to always", settings{Secure: never}, settings{Secure: always}, same},
		{"Secure, always to never", settings{Secure: always}, settings{Secure: never}, same},
		{"SameSite, Lax to Strict", settings{}, settings{SameSite: http.SameSiteStrictMode}, same},
		{"BrowserSession, on", settings{}, settings{BrowserSession: true}, same},
		// An existing session of Express's format has its attributes in its record.
		{"Express, Domain, none to the parent", express(settings{}), express(settings{Domain: "shop.test"}), same},
		{"Express, Path, / to /app", express(settings{}), express(settings{Path: "/app"}), same},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.begin(t)
			s.deploy(tt.before)
			want(t, "before", s.visit(home+"login/ada"), "welcome")
			want(t, "before", s.visit(home), "ada 1")
			s.deploy(tt.after)
			for i, does := range []string{"", "", "logout", "login/bob", "logout", "login/eve"} {
				if does != "" {
					s.visit(home + does)
				}
				want(t, fmt.Sprint("step ", i+1), fmt.Sprintf("%s/%d", s.visit(home), s.kept()), tt.want[i])
			}
		})
	}
}

// Two people, one after the other, in one browser, each with one of the cookies,
// since the second has logged in where the first one's does not come: where both
// come the first one counts. Who logs out there ends both; who logs out where the
// new one comes alone has left the other where it is. That is the case for which
// the documents advise another Name.
func TestChromiumCookieSettingsElsewhere(t *testing.T) {
	s := newSite(t)
	type settings = session.CookieConfig
	for _, tt := range []struct {
		name            string
		before, after   settings
		home, elsewhere string
	}{
		{"Domain", settings{}, settings{Domain: "shop.test"}, "https://www.shop.test/", "https://api.shop.test/"},
		{"Path", settings{Path: "/app"}, settings{}, "https://www.shop.test/app/", "https://www.shop.test/"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			begin := func(after settings, who string) {
				t.Helper()
				s.begin(t)
				s.deploy(tt.before)
				s.visit(tt.home + "login/ada")
				s.deploy(after)
				s.visit(tt.elsewhere + "login/" + who)
				want(t, "elsewhere", s.visit(tt.elsewhere), who+" 1")
			}
			begin(tt.after, "bob")
			want(t, "home", s.visit(tt.home), "ada 2")           // not bob: hers is older, or its path longer
			want(t, "elsewhere", s.visit(tt.elsewhere), "ada 1") // the visit has sent her new cookie, in place of bob's

			begin(tt.after, "bob")
			s.visit(tt.elsewhere + "logout")
			want(t, "elsewhere, logged out", s.visit(tt.elsewhere), "nobody 0")
			want(t, "home, logged out elsewhere", s.visit(tt.home), "ada 1")

			begin(tt.after, "bob")
			s.visit(tt.home + "logout")
			want(t, "elsewhere, logged out at home", s.visit(tt.elsewhere)[:6], "nobody")
			want(t, "home, logged out at home", s.visit(tt.home)[:6], "nobody")

			// One's own sessions end with Revoke, whatever cookies there are.
			begin(tt.after, "ada")
			s.visit(tt.elsewhere + "logout-everywhere")
			want(t, "home, logged out everywhere", s.visit(tt.home)[:6], "nobody")

			renamed := tt.after
			renamed.Name = "sid"
			begin(renamed, "bob")
			want(t, "home, with another name", s.visit(tt.home), "bob 1")
			s.visit(tt.elsewhere + "logout")
			want(t, "home, with another name, logged out", s.visit(tt.home), "nobody 0")
			// The old cookie is still there, and so is its session.
			s.deploy(tt.before)
			want(t, "home, the change taken back", s.visit(tt.home), "ada 1")
		})
	}
}

// In Express's format the first cookie decides, alive or not: whose session has
// ended before the change cannot log in as long as the browser has the old cookie,
// and with another name can.
func TestChromiumCookieSettingsExpressShadow(t *testing.T) {
	s := newSite(t)
	const home = "https://www.shop.test/app/"
	for _, tt := range []struct {
		name, bob string
		after     session.CookieConfig
	}{
		{"the same name", "nobody 2", session.CookieConfig{Domain: "shop.test"}},
		{"another name", "bob 1", session.CookieConfig{Domain: "shop.test", Name: "sid"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.begin(t)
			before := session.CookieConfig{Format: session.FormatExpress}
			tt.after.Format = session.FormatExpress
			s.deploy(before)
			s.visit(home + "login/ada")
			s.forget()
			s.deploy(tt.after)
			s.visit(home + "login/bob")
			want(t, "bob", s.visit(home), tt.bob)
		})
	}
}

// A Secure cookie that a browser has from HTTPS cannot be replaced over HTTP.
func TestChromiumCookieSettingsOverHTTP(t *testing.T) {
	s := newSite(t)
	s.begin(t)
	s.deploy(session.CookieConfig{Secure: always})
	s.visit("https://www.shop.test/login/ada")
	s.deploy(session.CookieConfig{Secure: never})
	want(t, "over HTTP", s.visit("http://www.shop.test/"), "nobody 0")
	s.visit("http://www.shop.test/login/bob")
	want(t, "logged in over HTTP", s.visit("http://www.shop.test/"), "nobody 0")
	want(t, "over HTTPS", s.visit("https://www.shop.test/"), "ada 1")
	want(t, "after a visit over HTTPS", s.visit("http://www.shop.test/"), "ada 1")
}

// dropOldCookie of docs/operations.md leaves the browser with one cookie, and nobody
// is logged out by it.
func TestChromiumCookieSettingsDropOldCookie(t *testing.T) {
	s := newSite(t)
	const home = "https://www.shop.test/app/"
	type settings = session.CookieConfig
	for _, tt := range []struct {
		name          string
		before, after settings
		old           http.Cookie
	}{
		{"Domain, none to the parent", settings{}, settings{Domain: "shop.test"}, http.Cookie{Path: "/"}},
		{"Domain, the parent to none", settings{Domain: "shop.test"}, settings{}, http.Cookie{Path: "/", Domain: "shop.test"}},
		{"Path, / to /app", settings{}, settings{Path: "/app"}, http.Cookie{Path: "/"}},
		{"Path, /app to /", settings{Path: "/app"}, settings{}, http.Cookie{Path: "/app"}},
		{"Partitioned, on", settings{Secure: always}, settings{Secure: always, Partitioned: true}, http.Cookie{Path: "/", Secure: true}},
		{"Partitioned, off", settings{Secure: always, Partitioned: true}, settings{Secure: always}, http.Cookie{Path: "/", Secure: true, Partitioned: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.begin(t)
			s.deploy(tt.before)
			s.visit(home + "login/ada")
			s.deploy(tt.after, func(next http.Handler) http.Handler { return dropOldCookie(tt.old, next) })
			for i, step := range []string{"ada 1/2", "ada 2/1", "ada 1/1"} {
				want(t, fmt.Sprint("visit ", i+1), fmt.Sprintf("%s/%d", s.visit(home), s.kept()), step)
			}
			s.visit(home + "logout")
			want(t, "logged out", fmt.Sprintf("%s/%d", s.visit(home), s.kept()), "nobody 0/0")
		})
	}
}

// dropOldCookie is that of the documents, with the old settings as an argument.
func dropOldCookie(old http.Cookie, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.CookiesNamed("session")) > 1 {
			old.Name, old.MaxAge = "session", -1
			http.SetCookie(w, &old)
		}
		next.ServeHTTP(w, r)
	})
}

func want(t *testing.T, step, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", step, got, want)
	}
}
