// Package cookie turns session IDs into signed cookies and back, in the formats
// of gorilla/securecookie and of express-session.
//
// A cookie holds a signed session ID and nothing else. An ID comes out only if a
// signature over it verified, compared in constant time; neither format accepts
// the other's cookies. Any bytes may come in: nothing panics, and the work is
// bounded by the length of the header and a few signatures.
package cookie

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// IDBytes is the randomness of a session ID: 192 bits.
	IDBytes = 24

	// IDLen is the length of a session ID in base64url.
	IDLen = 32

	// MaxSignedBytes is more than either codec makes of an ID of IDLen.
	MaxSignedBytes = 200
)

// maxCandidates bounds the cookies of one name that are verified.
const maxCandidates = 8

// Signed is a session ID that came with a signature that verified.
type Signed struct {
	ID  string
	Old bool // signed with an old secret
}

// Codec signs session IDs and verifies them. It is safe for concurrent use.
type Codec interface {
	// Find appends to found the session IDs in the Cookie header lines that
	// verify, each once, the first first; in Express's format, as there, the first
	// cookie alone counts. bad counts cookies that did not verify. A browser sends
	// several cookies of one name where they were set for several domains or paths.
	Find(lines []string, name string, found []Signed) (all []Signed, bad int)

	// Formed reports whether one of the cookies of this name, verified or not, is
	// written as Sign writes them: somebody's who has another secret.
	Formed(lines []string, name string) bool

	// Sign returns the value of the cookie name that stands for id.
	Sign(name, id string) (string, error)
}

// NewCodec returns the Codec of gorilla/securecookie's format, under keys
// derived from the secrets, or with express that of express-session's, which
// uses them as they are. The first secret signs; all of them verify.
func NewCodec(secrets []string, express bool) (Codec, error) {
	if express {
		return expressCodec(slices.Clone(secrets)), nil
	}
	return newSecureCodec(secrets)
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

// Values returns the values of the cookies of this name, the first n at most.
func Values(lines []string, name string, n int) (values []string) {
	eachCookie(lines, name, func(value string) bool {
		values = append(values, value)
		return len(values) < n
	})
	return values
}

// expressCodec holds the secrets, the current first.
type expressCodec []string

// Find follows express-session and its cookie and cookie-signature packages:
// the first cookie of the name decides, even a bad one.
func (c expressCodec) Find(lines []string, name string, found []Signed) (all []Signed, bad int) {
	eachCookie(lines, name, func(value string) bool {
		if id, old, ok := c.verify(value); ok {
			found = append(found, Signed{ID: id, Old: old})
		} else if value != "" {
			bad = 1
		}
		return false
	})
	return found, bad
}

// Formed looks at the one cookie that Find looks at.
func (c expressCodec) Formed(lines []string, name string) (formed bool) {
	eachCookie(lines, name, func(value string) bool {
		id, mac, ok := cutExpress(value)
		raw, err := base64.RawStdEncoding.DecodeString(mac)
		formed = ok && id != "" && err == nil && len(raw) == sha256.Size
		return false
	})
	return formed
}

func (c expressCodec) verify(value string) (id string, old, ok bool) {
	id, mac, ok := cutExpress(value)
	if !ok {
		return "", false, false
	}
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

// cutExpress takes a cookie's value apart.
func cutExpress(value string) (id, mac string, ok bool) {
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
		return "", "", false
	}
	return rest[:dot], rest[dot+1:], true
}

func (c expressCodec) Sign(_, id string) (string, error) {
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
