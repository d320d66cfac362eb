package session_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/pgsession/session"
)

var ofTwoShops = session.CookieConfig{Domains: []string{"shop.example", "EU.Shop.example", "laden.example.org", "xn--bcher-kva.example"}}

// domainOn logs a visitor in and returns the Domain of the cookie, "" for none.
func domainOn(t testing.TB, m *session.Manager, r *http.Request) string {
	t.Helper()
	resp := (&browser{m: m}).send(r, func(_ http.ResponseWriter, r *http.Request) { userKey.Set(session.From(r.Context()), "ada") })
	wantResponse(t, "login", resp, 200, "set")
	c, err := http.ParseSetCookie(resp.setCookie())
	if err != nil {
		t.Fatal("got a Set-Cookie header that does not parse")
	}
	if resp.header.Get("Cache-Control") != "no-store" {
		t.Errorf("Cache-Control: got %q, want no-store: a cache may keep one host's page for another", resp.header.Get("Cache-Control"))
	}
	return c.Domain
}

func TestCookieDomains(t *testing.T) {
	long := strings.Repeat("a.", 121) // with shop.example 254 bytes
	for _, c := range []struct {
		name, host, forwarded string
		trust                 bool
		want                  string
	}{
		{"the domain itself", "shop.example", "", false, "shop.example"},
		{"a host below", "www.shop.example", "", false, "shop.example"},
		{"hosts far below", "a.b.c.shop.example", "", false, "shop.example"},
		{"the longest counts", "eu.shop.example", "", false, "eu.shop.example"},
		{"the longest counts, below", "www.eu.shop.example", "", false, "eu.shop.example"},
		{"another one", "www.laden.example.org", "", false, "laden.example.org"},
		{"capitals", "WWW.Shop.EXAMPLE", "", false, "shop.example"},
		{"a port", "www.shop.example:8443", "", false, "shop.example"},
		{"Punycode", "www.xn--bcher-kva.example", "", false, "xn--bcher-kva.example"},

		{"a host that is not listed", "other.example", "", false, ""},
		{"a host that ends like it", "evilshop.example", "", false, ""},
		{"the domain above", "example.org", "", false, ""},
		{"a domain that begins like it", "shop.example.evil", "", false, ""},
		{"a dot at the end is another host", "www.shop.example.", "", false, ""},
		{"a dot at the end, and a port", "shop.example.:80", "", false, ""},
		{"raw UTF-8", "b\u00fccher.example", "", false, ""},
		{"IPv4", "127.0.0.1:8080", "", false, ""},
		{"IPv6", "[::1]:8080", "", false, ""},
		{"IPv6 that ends like it", "[::1].shop.example", "", false, ""},
		{"IPv6 without brackets", "::1", "", false, ""},
		{"no host", "", "", false, ""},
		{"a port alone", ":80", "", false, ""},
		{"dots", "...", "", false, ""},
		{"the longest name", "aa." + long[4:] + "shop.example", "", false, "shop.example"},
		{"too long for a name", long + "shop.example", "", false, ""},
		{"a megabyte", strings.Repeat("a.", 1<<19) + "shop.example", "", false, ""},

		{"a proxy that is not trusted", "shop.example", "laden.example.org", false, "shop.example"},
		{"a proxy", "backend:8080", "www.laden.example.org", true, "laden.example.org"},
		{"a proxy that says nothing", "shop.example", "", true, "shop.example"},
		{"a proxy, a list: the first", "backend", "eu.shop.example, laden.example.org", true, "eu.shop.example"},
		{"a proxy, spaces and a port", "backend", " shop.example:443 ", true, "shop.example"},
		{"a proxy names a host that is not listed", "shop.example", "evil.example", true, ""},
		{"a proxy, an attribute", "backend", "shop.example; Path=/x", true, ""},
	} {
		for _, f := range bothFormats {
			cookie := ofTwoShops
			cookie.Format = f.format
			m := newManager(t, newHookedStore(), session.Config{TrustProxy: c.trust, Cookie: cookie})
			r := httptest.NewRequest("GET", "/", nil)
			r.Host = c.host
			if c.forwarded != "" {
				r.Header.Set("X-Forwarded-Host", c.forwarded)
			}
			if got := domainOn(t, m, r); got != c.want {
				t.Errorf("%s, %s: got Domain %q, want %q", f.name, c.name, got, c.want)
			}
		}
	}
}

// Of what the client sends nothing gets into the header, nor is its host walked
// through where it cannot be a name.
func TestCookieDomainsLookUpCostsNothing(t *testing.T) {
	m := newManager(t, newHookedStore(), session.Config{Cookie: ofTwoShops})
	for host, want := range map[string]string{"a.b.www.shop.example:8080": "shop.example", "nobody.example.net": ""} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = host
		if n := testing.AllocsPerRun(100, func() {
			if got := m.CookieDomain(r); got != want {
				t.Errorf("%s: got %q, want %q", host, got, want)
			}
		}); n != 0 {
			t.Errorf("%s: got %v allocations, want none", host, n)
		}
	}
}

func TestCookieDomainsFaults(t *testing.T) {
	for _, c := range []struct {
		domain, want string // "" for none
	}{
		{"example.com", ""},
		{"a-b.example.com", ""},
		{"Example.COM", ""},
		{"xn--bcher-kva.example", ""},
		{"app.localhost", ""},
		{strings.Repeat("a", 63) + ".example", ""},
		{"", "has no dot"},
		{"localhost", "has no dot: browsers take no cookie for all of a top-level domain"},
		{".example.com", "must not begin or end with a dot"},
		{"example.com.", "must not begin or end with a dot"},
		{"*.example.com", "is not a domain name"},
		{"example..com", "is not a domain name"},
		{"-a.example.com", "is not a domain name"},
		{"a_b.example.com", "is not a domain name"},
		{"exa mple.com", "is not a domain name"},
		{"example.com; Path", "is not a domain name"},
		{"a\nb.example", "is not a domain name"},
		{strings.Repeat("a", 64) + ".example", "is not a domain name"},
		{strings.Repeat("a.", 130) + "example", "is longer than a domain name can be"},
		{"b\u00fccher.example", "must be written as browsers send it: xn--, Punycode"},
		{"example.com:443", "must be a name alone"},
		{"https://example.com", "must be a name alone"},
		{"example.com/app", "must be a name alone"},
		{"127.0.0.1", "is an address"},
		{"10.1", "is an address"},
		{"::1", "is an address"},
		{"[::1]", "is an address"},
	} {
		_, err := session.New(session.NewMemoryStore(), session.Config{Secret: testSecret, DisablePrune: true, Cookie: session.CookieConfig{Domains: []string{c.domain}}})
		got := faults(err)
		switch {
		case c.want == "" && len(got) != 0:
			t.Errorf("%q: got %q, want no fault", c.domain, got)
		case c.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], "session: Cookie.Domains[0] ") || !strings.Contains(got[0], c.want)):
			t.Errorf("%q: got %q, want %q", c.domain, got, c.want)
		}
	}
	_, err := session.New(session.NewMemoryStore(), session.Config{
		Secret:      testSecret,
		Cookie:      session.CookieConfig{Name: "__hOsT-id", Domain: "example.com", Domains: []string{"example.com", "127.0.0.1", "b.example."}, Secure: session.SecureAlways},
		DeviceBound: session.DeviceBoundConfig{Refresh: session.DefaultPruneInterval},
	})
	all := strings.Join(faults(err), "\n")
	for _, want := range []string{"Cookie.Domain and Cookie.Domains are both set", `Cookie.Name "__hOsT-id" does not go with Cookie.Domains`, "Cookie.Domains[1]", "Cookie.Domains[2]", "DeviceBound does not work with Cookie.Domains"} {
		if !strings.Contains(all, want) {
			t.Errorf("got nothing with %q in %q", want, all)
		}
	}
}

func TestCookieDomainsAreCopied(t *testing.T) {
	list := []string{"Shop.example"}
	m := newManager(t, newHookedStore(), session.Config{Cookie: session.CookieConfig{Domains: list}})
	if list[0] != "Shop.example" {
		t.Error("New has changed the caller's list")
	}
	list[0] = "evil.example"
	for host, want := range map[string]string{"www.shop.example": "shop.example", "evil.example": ""} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = host
		if got := domainOn(t, m, r); got != want {
			t.Errorf("%s: got %q, want %q", host, got, want)
		}
	}
}

// A logout expires the cookie for the domain it was set on, for listed domains
// above that, from which the browser may have one, and for the host alone if it has
// come with several.
func TestCookieDomainsLogout(t *testing.T) {
	m := newManager(t, newHookedStore(), session.Config{Cookie: ofTwoShops})
	old := newManager(t, newHookedStore(), session.Config{}) // of before there was a list
	ask := func(m *session.Manager, host string, cookies []string, use func(*session.Session)) *response {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = host
		if len(cookies) > 0 {
			r.Header.Set("Cookie", strings.Join(cookies, "; "))
		}
		return ask(m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { use(session.From(r.Context())) })), r)
	}
	for _, c := range []struct {
		host    string
		several bool
		want    []string
	}{
		{"www.eu.shop.example", false, []string{"eu.shop.example", "shop.example"}},
		{"www.eu.shop.example", true, []string{"eu.shop.example", "shop.example", ""}},
		{"shop.example", false, []string{"shop.example"}},
		{"shop.example", true, []string{"shop.example", ""}},
		{"other.example", false, []string{""}},
		{"other.example", true, []string{""}},
	} {
		cookies := []string{ask(m, c.host, nil, logIn("ada")).newCookie()}
		if c.several {
			cookies = append(cookies, ask(old, c.host, nil, logIn("ada")).newCookie())
		}
		var got []string
		resp := ask(m, c.host, cookies, destroy)
		for _, line := range resp.setCookies() {
			cookie, err := http.ParseSetCookie(line)
			if err != nil || cookie.MaxAge >= 0 {
				t.Error("got a cookie that does not expire one")
				continue
			}
			got = append(got, cookie.Domain)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s, several cookies %v: got %q expired, want %q", c.host, c.several, got, c.want)
		}
	}
}

// A record made here tells Express the domain too.
func TestCookieDomainsInTheRecord(t *testing.T) {
	cookie := ofTwoShops
	cookie.Format = session.FormatExpress
	store := newHookedStore()
	m := newManager(t, store, session.Config{Cookie: cookie})
	b := &browser{m: m}
	send := func(use func(*session.Session)) *response {
		r := request("GET", b.cookie)
		r.Host = "www.shop.example"
		return b.send(r, func(_ http.ResponseWriter, r *http.Request) { use(session.From(r.Context())) })
	}
	send(logIn("ada"))
	var id string
	send(func(s *session.Session) { id = s.ID() })
	rec, err := store.Load(t.Context(), id)
	if err != nil || !strings.Contains(string(rec.Data), `"domain":"shop.example"`) {
		t.Errorf("the record does not hold the domain (%v)", err)
	}
	if got := send(renew).attributes(); !strings.HasPrefix(got, "Domain=shop.example; ") {
		t.Errorf("renewed: got %q, want the record's domain", got)
	}
}

func ExampleCookieConfig_domains() {
	sessions, err := session.New(session.NewMemoryStore(), session.Config{
		Secret: "for tests only: 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A",
		Logger: slog.New(slog.DiscardHandler),
		Cookie: session.CookieConfig{Domains: []string{"shop.example", "laden.example"}},
	})
	if err != nil {
		panic(err)
	}
	defer sessions.Close()
	visits := session.Key[int]("visits")
	handler := sessions.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		visits.Set(session.From(r.Context()), 1)
	}))
	for _, host := range []string{"shop.example", "www.laden.example", "localhost:8080"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Printf("%s: %q\n", host, w.Result().Cookies()[0].Domain)
	}
	// Output:
	// shop.example: "shop.example"
	// www.laden.example: "laden.example"
	// localhost:8080: ""
}
