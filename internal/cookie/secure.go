package cookie

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"sync"

	"github.com/gorilla/securecookie"
)

const labelSecureCookie = "pgsession cookie securecookie hmac-sha256 v1"

// secureCodec is gorilla/securecookie, one for each secret, the current first.
type secureCodec []*secureKey

// secureKey signs by securecookie and verifies what that has signed, as its Decode
// does. The cookie of every request is verified, and Decode would prepare the key
// each time: here that is done once for each verifier, and these are used again.
type secureKey struct {
	key       []byte
	signer    *securecookie.SecureCookie
	verifiers sync.Pool // of *verifier
}

func newSecureCodec(secrets []string) (c secureCodec, err error) {
	for _, secret := range secrets {
		key, err := hkdf.Key(sha256.New, []byte(secret), nil, labelSecureCookie, 32)
		if err != nil {
			return nil, fmt.Errorf("session: deriving the cookie key: %w", err)
		}
		// The record decides how long a session lives; the cookie's own clock
		// would end long ones after the library's default of 30 days.
		signer := securecookie.New(key, nil).MaxAge(0).SetSerializer(securecookie.NopEncoder{})
		c = append(c, &secureKey{key: key, signer: signer})
	}
	return c, nil
}

// Find looks at maxCandidates cookies at most.
func (c secureCodec) Find(lines []string, name string, found []Signed) (all []Signed, bad int) {
	seen := 0
	eachCookie(lines, name, func(value string) bool {
		seen++
		if s, ok := c.verify(name, value); !ok {
			bad++
		} else if !slices.ContainsFunc(found, func(f Signed) bool { return f.ID == s.ID }) {
			found = append(found, s)
		}
		return seen < maxCandidates
	})
	return found, bad
}

// Formed looks at the cookies that Find looks at.
func (c secureCodec) Formed(lines []string, name string) (formed bool) {
	seen := 0
	eachCookie(lines, name, func(value string) bool {
		seen++
		formed = formedSecure(value)
		return !formed && seen < maxCandidates
	})
	return formed
}

// formedSecure goes through the steps of verifier.verify but the signature.
func formedSecure(value string) bool {
	if len(value) > MaxSignedBytes {
		return false
	}
	decoded, err := base64.URLEncoding.DecodeString(value)
	if err != nil {
		return false
	}
	date, rest, _ := bytes.Cut(decoded, []byte("|"))
	encoded, mac, _ := bytes.Cut(rest, []byte("|"))
	if _, err := strconv.ParseInt(string(date), 10, 64); err != nil || len(mac) != sha256.Size {
		return false
	}
	id, err := base64.URLEncoding.DecodeString(string(encoded))
	return err == nil && validID(id)
}

func (c secureCodec) verify(name, value string) (s Signed, ok bool) {
	for i, k := range c {
		v, _ := k.verifiers.Get().(*verifier)
		if v == nil {
			v = &verifier{hash: hmac.New(sha256.New, k.key)}
		}
		id, ok := v.verify(name, value)
		k.verifiers.Put(v)
		if ok {
			return Signed{ID: id, Old: i > 0}, true
		}
	}
	return Signed{}, false
}

func (c secureCodec) Sign(name, id string) (string, error) {
	return c[0].signer.Encode(name, []byte(id))
}

// verifier verifies one cookie at a time under one key.
type verifier struct {
	hash          hash.Hash // HMAC-SHA-256 under the key
	text, decoded [MaxSignedBytes]byte
	id            [MaxSignedBytes]byte
	prefix, sum   []byte
}

// verify returns the session ID that value holds.
func (v *verifier) verify(name, value string) (id string, ok bool) {
	// 1. Longer than what holds a session ID: it holds something else.
	if len(value) > MaxSignedBytes {
		return "", false
	}
	// 2. base64url of "date|value|mac".
	n, err := base64.URLEncoding.Decode(v.decoded[:], v.text[:copy(v.text[:], value)])
	if err != nil {
		return "", false
	}
	date, rest, _ := bytes.Cut(v.decoded[:n], []byte("|"))
	encoded, mac, cut := bytes.Cut(rest, []byte("|"))
	if !cut {
		return "", false
	}
	// 3. The signature of "name|date|value", in constant time.
	v.hash.Reset()
	v.prefix = append(append(v.prefix[:0], name...), '|')
	v.hash.Write(v.prefix)
	v.hash.Write(v.decoded[:n-len(mac)-1])
	v.sum = v.hash.Sum(v.sum[:0])
	if !hmac.Equal(mac, v.sum) {
		return "", false
	}
	// 4. The date is one; how old it is does not matter.
	if _, err := strconv.ParseInt(string(date), 10, 64); err != nil {
		return "", false
	}
	// 5. The value is base64url once more. 6. Length and alphabet.
	n, err = base64.URLEncoding.Decode(v.id[:], encoded)
	if err != nil || !validID(v.id[:n]) {
		return "", false
	}
	return string(v.id[:n]), true
}

// validID reports whether b is 32 characters of base64url.
func validID(b []byte) bool {
	if len(b) != IDLen {
		return false
	}
	for _, c := range b {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}
