package bridgetest

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Refuses reports whether a browser ignores c, also where c would end a cookie: by its
// name's prefix (RFC 6265bis, 4.1.3) or because it is partitioned and not secure.
func Refuses(c *http.Cookie) bool {
	name := strings.ToLower(c.Name)
	switch {
	case strings.HasPrefix(name, "__host-"):
		return !c.Secure || c.Domain != "" || c.Path != "/"
	case strings.HasPrefix(name, "__secure-"), c.Partitioned:
		return !c.Secure
	}
	return false
}

// Ends tests that h, asked by a browser with the cookie old, ends it. The request is
// without TLS, as from a proxy.
func Ends(t *testing.T, h http.Handler, old http.Cookie) {
	t.Helper()
	r := httptest.NewRequest("GET", "/", nil)
	r.AddCookie(&old)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		if c.Name != old.Name {
			continue
		}
		if Refuses(c) {
			t.Errorf("%s: a browser refuses what ends it: Secure %v, Path %q, Domain %q", c.Name, c.Secure, c.Path, c.Domain)
		}
		if c.MaxAge >= 0 || c.Path != old.Path || c.Domain != old.Domain || c.Partitioned != old.Partitioned || c.SameSite != old.SameSite {
			t.Errorf("%s: got Path %q, Domain %q, Partitioned %v, SameSite %v, Max-Age %d, want the old cookie's and one below 0",
				c.Name, c.Path, c.Domain, c.Partitioned, c.SameSite, c.MaxAge)
		}
		return
	}
	t.Errorf("%s: got it kept, want it ended", old.Name)
}

// Prefixed are cookies that browsers let nobody end who forgets one of their attributes.
var Prefixed = []http.Cookie{
	{Name: "__Host-old", Path: "/", Secure: true, SameSite: http.SameSiteLaxMode},
	{Name: "__Secure-old", Path: "/", Domain: "example.com", Secure: true, SameSite: http.SameSiteLaxMode},
	{Name: "embedded", Path: "/", Secure: true, Partitioned: true, SameSite: http.SameSiteNoneMode},
}
