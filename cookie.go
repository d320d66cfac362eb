package session

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gorilla/securecookie"
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

	// Name defaults to "session", with [FormatExpress] to "connect.sid".
	Name string

	// Domain defaults to none: this host only.
	Domain string

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
	if len(c.Name)+maxSignedBytes > maxCookieBytes {
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
	c.checkSecure(fault)
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
	for _, prefix := range []string{"__secure-", "__host-"} {
		if strings.HasPrefix(lower, prefix) && c.Secure != SecureAlways {
			fault("Cookie.Name %q needs Cookie.Secure: SecureAlways, or browsers drop the cookie", c.Name)
		}
	}
	if strings.HasPrefix(lower, "__host-") && (c.Domain != "" || c.Path != "/") {
		fault("Cookie.Name %q needs Cookie.Path / and no Cookie.Domain, or browsers drop the cookie", c.Name)
	}
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

const (
	idBytes = 24 // of randomness: 192 bits
	idLen   = 32 // of base64url

	// maxSignedBytes is more than either codec makes of an ID.
	maxSignedBytes = 200

	// maxCandidates bounds the cookies of one name that are verified.
	maxCandidates = 8

	labelSecureCookie = "pgsession cookie securecookie hmac-sha256 v1"
)

// codec signs session IDs and verifies them. Neither format carries data, and
// neither accepts the other's cookies.
type codec interface {
	// find returns the first session ID in the Cookie header lines that
	// verifies, by the format's own rule of what is first. old says that it
	// was signed with an old secret; bad counts cookies that did not verify.
	find(lines []string, name string) (id string, old bool, bad int)
	sign(name, id string) (string, error)
}

func newCodec(cfg *Config) (codec, error) {
	secrets := append([]string{cfg.Secret}, cfg.OldSecrets...)
	if cfg.Cookie.Format == FormatExpress {
		return expressCodec(secrets), nil
	}
	var c secureCodec
	for _, secret := range secrets {
		key, err := hkdf.Key(sha256.New, []byte(secret), nil, labelSecureCookie, 32)
		if err != nil {
			return nil, fmt.Errorf("session: deriving the cookie key: %w", err)
		}
		// The record decides how long a session lives; the cookie's own clock
		// would end long ones after the library's default of 30 days.
		c = append(c, securecookie.New(key, nil).MaxAge(0).SetSerializer(securecookie.NopEncoder{}))
	}
	return c, nil
}

// eachCookie calls yield with the value of each cookie of this name, as Node's
// cookie package cuts the header: pairs end at a semicolon only, names are
// compared as they stand, white space around and one pair of quotes are
// dropped. It stops when yield returns false.
func eachCookie(lines []string, name string, yield func(value string) bool) {
	for _, line := range lines {
		for more := true; more; {
			var pair string
			pair, line, more = strings.Cut(line, ";")
			k, v, ok := strings.Cut(pair, "=")
			if !ok || strings.Trim(k, " \t") != name {
				continue
			}
			v = strings.Trim(v, " \t")
			if len(v) > 0 && v[0] == '"' && v[len(v)-1] == '"' {
				v = v[1:max(1, len(v)-1)]
			}
			if !yield(v) {
				return
			}
		}
	}
}

// secureCodec is gorilla/securecookie, one for each secret, the current first.
type secureCodec []*securecookie.SecureCookie

func (c secureCodec) find(lines []string, name string) (id string, old bool, bad int) {
	eachCookie(lines, name, func(value string) bool {
		for i, sc := range c {
			var b []byte
			// 1. The signature, in constant time. 2. Length and alphabet.
			if sc.Decode(name, value, &b) == nil && validID(b) {
				id, old = string(b), i > 0
				return false
			}
		}
		bad++
		return bad < maxCandidates
	})
	return id, old, bad
}

func (c secureCodec) sign(name, id string) (string, error) {
	return c[0].Encode(name, []byte(id))
}

// validID reports whether b is 32 characters of base64url.
func validID(b []byte) bool {
	if len(b) != idLen {
		return false
	}
	for _, c := range b {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// expressCodec holds the secrets, the current first.
type expressCodec []string

// find follows express-session and its cookie and cookie-signature packages:
// the first cookie of the name decides, even a bad one.
func (c expressCodec) find(lines []string, name string) (id string, old bool, bad int) {
	eachCookie(lines, name, func(value string) bool {
		var ok bool
		if id, old, ok = c.verify(value); !ok && value != "" {
			bad = 1
		}
		return false
	})
	return id, old, bad
}

func (c expressCodec) verify(value string) (id string, old, ok bool) {
	// 1. Node reads header bytes as Latin-1.
	value = fromLatin1(value)
	// 2. decodeURIComponent; if that fails the text stays as it is.
	if strings.IndexByte(value, '%') >= 0 {
		if s, err := url.PathUnescape(value); err == nil && utf8.ValidString(s) {
			value = s
		}
	}
	// 3. "s:" marks a signed value.
	rest, signed := strings.CutPrefix(value, "s:")
	// 4. The ID ends at the last dot.
	dot := strings.LastIndexByte(rest, '.')
	if !signed || dot < 0 {
		return "", false, false
	}
	id, mac := rest[:dot], rest[dot+1:]
	// 5. Compared as text, in constant time: a signature that decodes to the
	// same bytes but is written differently is refused, as in Node.
	for i, secret := range c {
		if hmac.Equal([]byte(mac), expressMAC(secret, id)) {
			// 6. An empty ID is no session; PostgreSQL cannot hold a NUL.
			if id == "" || strings.IndexByte(id, 0) >= 0 {
				return "", false, false
			}
			return id, i > 0, true
		}
	}
	return "", false, false
}

func (c expressCodec) sign(_, id string) (string, error) {
	return encodeURIComponent("s:" + id + "." + string(expressMAC(c[0], id))), nil
}

// expressMAC returns the unpadded base64 of HMAC-SHA-256.
func expressMAC(secret, id string) []byte {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(id))
	return base64.RawStdEncoding.AppendEncode(nil, h.Sum(nil))
}

func fromLatin1(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			runes := make([]rune, len(s))
			for j := 0; j < len(s); j++ {
				runes[j] = rune(s[j])
			}
			return string(runes)
		}
	}
	return s
}

func encodeURIComponent(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_.!~*'()", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}

// attributes are those of a Set-Cookie header, beside its lifetime.
type attributes struct {
	domain, path, sameSite, priority string
	secure, partitioned              bool
}

// recorded returns the attributes of an existing Express session: those of its
// record, but always HttpOnly. What a browser or Express itself would choke on
// is an error.
func (d *document) recorded() (attributes, error) {
	c, ok := d.cookie()
	if !ok {
		return attributes{}, errors.New("no cookie object")
	}
	a := attributes{path: "/"} // as in Express where the record has none; its null is no Path at all
	if string(c.get("path")) == "null" {
		a.path = ""
	}
	for name, field := range map[string]*string{"domain": &a.domain, "path": &a.path, "priority": &a.priority} {
		if raw := c.get(name); raw != nil && json.Unmarshal(raw, field) != nil { // null leaves it empty
			return a, errors.New(name + " is not a string")
		}
	}
	if (&http.Cookie{Name: "x", Domain: a.domain, Path: a.path}).Valid() != nil { // #nosec G124 -- never sent
		return a, errors.New("domain or path is not valid in a cookie")
	}
	switch p := strings.ToLower(a.priority); p {
	case "":
	case "low", "medium", "high":
		a.priority = strings.ToUpper(p[:1]) + p[1:]
	default:
		return a, errors.New("priority is not low, medium or high")
	}
	a.secure = bytes.Equal(c.get("secure"), []byte("true"))
	a.partitioned = bytes.Equal(c.get("partitioned"), []byte("true"))
	switch s := strings.ToLower(string(c.get("sameSite"))); s {
	case "", "null", "false":
	case "true", `"strict"`:
		a.sameSite = "Strict"
	case `"lax"`:
		a.sameSite = "Lax"
	case `"none"`:
		a.sameSite = "None"
	default:
		return a, errors.New("sameSite is not lax, strict, none or a boolean")
	}
	return a, nil
}

// healthyCookie returns the record's cookie object; ok is false unless Express
// can use it. It answers 500 where there is none, and never answers where
// originalMaxAge is no number or an attribute is none that it knows.
func (d *document) healthyCookie() (c document, ok bool) {
	if _, err := d.recorded(); err != nil {
		return document{}, false
	}
	c, _ = d.cookie()
	maxAge := c.get("originalMaxAge")
	_, number := duration(maxAge)
	return c, number || maxAge == nil || string(maxAge) == "null"
}

// newCookie returns the cookie object of a new record, its members in the
// order in which Express writes them.
func (m *Manager) newCookie(r *http.Request) document {
	a := m.configured(r)
	var c document
	add := func(name string, value []byte) {
		c.members = append(c.members, newMember(appendJSONString(nil, name), value))
	}
	add("originalMaxAge", []byte("null"))
	if a.partitioned {
		add("partitioned", []byte("true"))
	}
	add("expires", []byte("null"))
	add("secure", strconv.AppendBool(nil, a.secure))
	add("httpOnly", []byte("true"))
	if a.domain != "" {
		add("domain", appendJSONString(nil, a.domain))
	}
	add("path", appendJSONString(nil, a.path))
	if a.sameSite != "" {
		add("sameSite", appendJSONString(nil, strings.ToLower(a.sameSite)))
	}
	return c
}

// lifetime is what a Set-Cookie header says about the cookie's end.
type lifetime struct {
	ttl       time.Duration
	untilExit bool // ends with the browser: neither Max-Age nor Expires
}

// setCookie writes a Set-Cookie header, the attributes in Express's order. An
// empty value makes the browser drop the cookie.
func (m *Manager) setCookie(value string, a attributes, l lifetime, now time.Time) string {
	var b strings.Builder
	attr := func(name, value string) {
		if value != "" {
			b.WriteString("; ")
			b.WriteString(name)
			b.WriteString(value)
		}
	}
	flag := func(name string, on bool) {
		if on {
			b.WriteString("; ")
			b.WriteString(name)
		}
	}
	b.WriteString(m.cfg.Cookie.Name)
	b.WriteByte('=')
	b.WriteString(value)
	attr("Domain=", a.domain)
	attr("Path=", a.path)
	switch {
	case value == "":
		attr("Expires=", time.Unix(0, 0).UTC().Format(http.TimeFormat))
		attr("Max-Age=", "0")
	case !l.untilExit:
		// Rounded up: the cookie never ends before the record.
		seconds := max(0, int64((l.ttl+time.Second-1)/time.Second))
		end := now.Add(max(0, l.ttl) + time.Second - 1).Truncate(time.Second)
		attr("Expires=", end.UTC().Format(http.TimeFormat))
		if m.cfg.Cookie.Format != FormatExpress {
			attr("Max-Age=", strconv.FormatInt(seconds, 10))
		}
	}
	flag("HttpOnly", true)
	flag("Secure", a.secure)
	flag("Partitioned", a.partitioned)
	attr("Priority=", a.priority)
	attr("SameSite=", a.sameSite)
	return b.String()
}
