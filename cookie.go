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

// configured returns the attributes that the configuration gives on r.
func (m *Manager) configured(r *http.Request) attributes {
	c := &m.cfg.Cookie
	a := attributes{domain: c.Domain, path: c.Path, partitioned: c.Partitioned, secure: m.secure(r)}
	switch c.SameSite {
	case http.SameSiteLaxMode:
		a.sameSite = "Lax"
	case http.SameSiteStrictMode:
		a.sameSite = "Strict"
	case http.SameSiteNoneMode:
		a.sameSite = "None"
	}
	return a
}

// secure reports whether a cookie made on r is to have the Secure attribute.
func (m *Manager) secure(r *http.Request) bool {
	switch m.cfg.Cookie.Secure {
	case SecureAlways:
		return true
	case SecureNever:
		return false
	}
	if r.TLS != nil {
		return true
	}
	proto := r.Header.Get("X-Forwarded-Proto")
	if proto == "" {
		return false
	}
	if !m.cfg.TrustProxy {
		m.warnProxy.Do(func() {
			m.cfg.Logger.Warn("session: X-Forwarded-Proto seen but Config.TrustProxy is not set: session cookies are sent without Secure; set TrustProxy if your proxy sets this header, or SecureAlways")
		})
		return false
	}
	proto, _, _ = strings.Cut(proto, ",") // the client's side comes first
	return strings.EqualFold(strings.TrimSpace(proto), "https")
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
