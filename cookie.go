package session

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/pgsession/session/internal/cookie"
)

const (
	// maxCookieLifetime is the most that browsers keep a cookie
	// (RFC 6265bis, section 5.5).
	maxCookieLifetime = 400 * 24 * time.Hour
	// maxCookieBytes bounds name and value together (RFC 6265bis, section 5.4).
	maxCookieBytes = 4096
)

// CookieConfig sets the session cookie. It is always HttpOnly.
type CookieConfig struct {
	_ struct{}

	// Format picks the codec. Default [FormatSecureCookie]. A cookie of the other
	// format is never accepted.
	Format CookieFormat

	// Name defaults to "session", with [FormatExpress] to "connect.sid". One that
	// begins with __Host-, __Secure- or __Http- needs SecureAlways.
	Name string

	// Domain defaults to none: this host only.
	Domain string

	// Domains chooses the cookie's Domain by the request's host: that one itself if
	// it is listed, else the nearest listed domain above it. Of a host that is
	// neither, the cookie is for this host only. The host is the Host header's, with
	// Config.TrustProxy X-Forwarded-Host's where there is one; what it says is looked
	// up here and never copied. Whoever serves a host below a listed domain gets the
	// cookie of its users, so list only domains whose hosts are all yours. An
	// internationalized name is written in Punycode (xn--). It does not go with
	// Domain, with a Name that begins with __Host- and with Config.DeviceBound.
	// Default none.
	Domains []string

	// Path defaults to "/".
	Path string

	// SameSite defaults to Lax. [http.SameSiteDefaultMode] leaves the attribute
	// out. None needs SecureAlways.
	SameSite http.SameSite

	// Secure defaults to [SecureAuto].
	Secure SecureMode

	// Partitioned sets the attribute of that name (CHIPS). It needs
	// SecureAlways.
	Partitioned bool

	// BrowserSession leaves out Max-Age and Expires, so that the cookie ends
	// with the browser: Express's null maxAge. A session with an idle timeout
	// of its own (Session.SetIdleTimeout) still gets them.
	BrowserSession bool
}

// CookieFormat is a way to sign the session ID in the cookie.
type CookieFormat int

const (
	// FormatSecureCookie is gorilla/securecookie's format, with a key derived from
	// the secret.
	FormatSecureCookie CookieFormat = iota
	// FormatExpress is express-session's format, signed with the bare secret, so
	// that both programs accept each other's cookies. An existing session's
	// attributes come from its record, as in Express.
	FormatExpress
)

// String returns "securecookie" or "express".
func (f CookieFormat) String() string {
	switch f {
	case FormatSecureCookie:
		return "securecookie"
	case FormatExpress:
		return "express"
	}
	return fmt.Sprintf("CookieFormat(%d)", int(f))
}

// SecureMode says when the cookie has the Secure attribute.
type SecureMode int

const (
	// SecureAuto sets it on requests that came by HTTPS: over TLS, or as the
	// proxy says with Config.TrustProxy.
	SecureAuto SecureMode = iota
	// SecureAlways sets it always: browsers then send the cookie over HTTPS
	// (and to localhost) only.
	SecureAlways
	// SecureNever leaves it out even over HTTPS.
	SecureNever
)

// String returns "auto", "always" or "never".
func (s SecureMode) String() string {
	switch s {
	case SecureAuto:
		return "auto"
	case SecureAlways:
		return "always"
	case SecureNever:
		return "never"
	}
	return fmt.Sprintf("SecureMode(%d)", int(s))
}

// check refuses what browsers refuse (RFC 6265bis, section 5.7).
func (c *CookieConfig) check(fault func(string, ...any)) {
	if c.Format != FormatSecureCookie && c.Format != FormatExpress {
		fault("Cookie.Format is %v: use FormatSecureCookie or FormatExpress", c.Format)
	}
	if c.Secure != SecureAuto && c.Secure != SecureAlways && c.Secure != SecureNever {
		fault("Cookie.Secure is %v: use SecureAuto, SecureAlways or SecureNever", c.Secure)
	}
	if err := (&http.Cookie{Name: c.Name}).Valid(); err != nil { // #nosec G124 -- never sent
		fault("Cookie.Name %q is not a valid cookie name (RFC 6265, section 4.1.1)", c.Name)
	}
	if err := (&http.Cookie{Name: "x", Domain: c.Domain}).Valid(); err != nil { // #nosec G124 -- never sent
		fault("Cookie.Domain %q is not a domain name", c.Domain)
	}
	if err := (&http.Cookie{Name: "x", Path: c.Path}).Valid(); err != nil || !strings.HasPrefix(c.Path, "/") { // #nosec G124 -- never sent
		fault("Cookie.Path %q must begin with / and have no control characters and no semicolon", c.Path)
	}
	if len(c.Name)+cookie.MaxSignedBytes > maxCookieBytes {
		fault("Cookie.Name has %d bytes: browsers refuse a name and value of over 4096 together", len(c.Name))
	}
	if len(c.Domain) > 1024 || len(c.Path) > 1024 {
		fault("Cookie.Domain and Cookie.Path may have 1024 bytes each: browsers ignore a longer attribute")
	}
	switch c.SameSite {
	case http.SameSiteDefaultMode, http.SameSiteLaxMode, http.SameSiteStrictMode, http.SameSiteNoneMode:
	default:
		fault("Cookie.SameSite is %d: use the constants of net/http", c.SameSite)
	}
	c.checkDomains(fault)
	c.checkSecure(fault)
}

// checkDomains checks the list, and what does not go with one.
func (c *CookieConfig) checkDomains(fault func(string, ...any)) {
	if len(c.Domains) == 0 {
		return
	}
	if c.Domain != "" {
		fault("Cookie.Domain and Cookie.Domains are both set: put the one among the others")
	}
	if strings.HasPrefix(strings.ToLower(c.Name), "__host-") {
		fault("Cookie.Name %q does not go with Cookie.Domains: browsers drop such a cookie with a Domain", c.Name)
	}
	for i, name := range c.Domains {
		if what := wrongDomain(name); what != "" {
			fault("Cookie.Domains[%d] %q %s", i, name, what)
		}
	}
}

// checkSecure lists what needs the Secure attribute on every response.
func (c *CookieConfig) checkSecure(fault func(string, ...any)) {
	if c.Secure != SecureAlways {
		if c.SameSite == http.SameSiteNoneMode {
			fault("Cookie.SameSite None needs Cookie.Secure: SecureAlways, or browsers drop the cookie")
		}
		if c.Partitioned {
			fault("Cookie.Partitioned needs Cookie.Secure: SecureAlways, or browsers drop the cookie")
		}
	}
	// Browsers compare the prefixes without regard to case.
	lower := strings.ToLower(c.Name)
	for _, prefix := range []string{"__secure-", "__host-", "__http-"} {
		if strings.HasPrefix(lower, prefix) && c.Secure != SecureAlways {
			fault("Cookie.Name %q needs Cookie.Secure: SecureAlways, or browsers drop the cookie", c.Name)
		}
	}
	if strings.HasPrefix(lower, "__host-") && (c.Domain != "" || c.Path != "/") {
		fault("Cookie.Name %q needs Cookie.Path / and no Cookie.Domain, or browsers drop the cookie", c.Name)
	}
}

// sameSite returns the attribute's value, "" where it is left out.
func (c *CookieConfig) sameSite() string {
	switch c.SameSite {
	case http.SameSiteLaxMode:
		return "Lax"
	case http.SameSiteStrictMode:
		return "Strict"
	case http.SameSiteNoneMode:
		return "None"
	}
	return ""
}

func sameSiteName(s http.SameSite) string {
	switch s {
	case http.SameSiteLaxMode:
		return "lax"
	case http.SameSiteStrictMode:
		return "strict"
	case http.SameSiteNoneMode:
		return "none"
	}
	return "unset"
}
