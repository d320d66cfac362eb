// Package bearer turns session IDs into the tokens of clients without cookies, and
// finds them in an Authorization header (RFC 6750, section 2.1).
//
// A token is a prefix, by which it is known from those of others, and a session ID
// that is encrypted: AES-256-GCM under a key of its own, with the prefix as
// additional data. So an ID comes out only of what was made here, and whoever holds
// a token does not know the ID in it. That matters where the secret signs cookies as
// it is, as in Express's format: another part of such a program may sign whatever a
// client sends, and what it signs is no cookie of a token's session.
//
// Any bytes may come in: nothing panics, and the work is bounded by the length of
// the header and one decryption for each secret.
package bearer

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
)

const labelToken = "pgsession bearer token aes-256-gcm v1"

const (
	// idBytes is the randomness of a session ID.
	idBytes = 24

	// overhead is that of the nonce and the tag.
	overhead = 12 + 16

	// MaxPrefixBytes bounds a prefix.
	MaxPrefixBytes = 32
)

// ValidPrefix reports whether a prefix is letters and digits with one underscore at
// the end. So of two prefixes none begins with the other, whatever they are: a token
// is of one kind at most. All of these characters may stand in a token (token68, RFC
// 9110, section 11.2).
func ValidPrefix(prefix string) bool {
	name, ok := strings.CutSuffix(prefix, "_")
	if !ok || name == "" || len(prefix) > MaxPrefixBytes {
		return false
	}
	for _, c := range []byte(name) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9') {
			return false
		}
	}
	return true
}

// Codec makes tokens and opens them. It is safe for concurrent use.
type Codec struct {
	prefix string
	keys   []cipher.AEAD // the current first
}

// NewCodec derives a key from each secret. The first makes tokens, all open them.
func NewCodec(secrets []string, prefix string) (*Codec, error) {
	c := &Codec{prefix: prefix}
	for _, secret := range secrets {
		key, err := hkdf.Key(sha256.New, []byte(secret), nil, labelToken, 32)
		if err != nil {
			return nil, fmt.Errorf("session: deriving the key of tokens: %w", err)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, fmt.Errorf("session: deriving the key of tokens: %w", err)
		}
		// It picks its own random nonces, as FIPS 140-3 asks, which are good for
		// four thousand million tokens under one secret.
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, fmt.Errorf("session: deriving the key of tokens: %w", err)
		}
		c.keys = append(c.keys, aead)
	}
	return c, nil
}

// Make returns a token for id, which must be 24 bytes in base64url.
func (c *Codec) Make(id string) (string, error) {
	raw, err := encoding.DecodeString(id)
	if err != nil || len(raw) != idBytes {
		return "", errID // only an ID that was not made here; it is not shown
	}
	return c.prefix + encoding.EncodeToString(c.keys[0].Seal(nil, nil, raw, []byte(c.prefix))), nil // #nosec G407 -- the nonce is random, see NewCodec
}

var errID = fmt.Errorf("session: a session ID that is not %d bytes in base64url has no token", idBytes)

// encoding refuses what would be the same bytes written otherwise.
var encoding = base64.RawURLEncoding.Strict()

// Find looks for a token in the Authorization lines of a request. ours says that
// there is one with the prefix, be it good or bad; anything else belongs to the
// application. Of a request with several lines, of which one is ours, nobody can say
// which another program goes by: several.
func (c *Codec) Find(lines []string) (token string, ours, several bool) {
	for _, line := range lines {
		if t, ok := c.find(line); ok {
			token, ours = t, true
		}
	}
	return token, ours, ours && len(lines) > 1
}

// find recognises generously, so that what looks like ours is never somebody else's;
// Open is strict.
func (c *Codec) find(line string) (token string, ours bool) {
	const scheme = "bearer"
	// 1. The scheme, in any case (RFC 9110, section 11.1), and white space.
	line = strings.Trim(line, " \t")
	if len(line) <= len(scheme) || !strings.EqualFold(line[:len(scheme)], scheme) {
		return "", false
	}
	token = strings.TrimLeft(line[len(scheme):], " ")
	if len(token) == len(line)-len(scheme) && token[0] != '\t' {
		return "", false // "Bearerx"
	}
	// 2. The prefix, as it is written: tokens have case.
	return token, strings.HasPrefix(strings.TrimLeft(token, " \t"), c.prefix)
}

// Formed reports whether a token, opened or not, is written as Make writes them:
// somebody's who has another secret.
func (c *Codec) Formed(token string) bool {
	_, ok := c.box(token)
	return ok
}

// box decodes a token.
func (c *Codec) box(token string) (box []byte, ok bool) {
	// 1. Nothing is decoded that has another length than all tokens.
	text, ok := strings.CutPrefix(token, c.prefix)
	if !ok || len(text) != encoding.EncodedLen(idBytes+overhead) {
		return nil, false
	}
	// 2. base64url. A line end, which package base64 passes over, makes it shorter.
	box, err := encoding.DecodeString(text)
	return box, err == nil && len(box) == idBytes+overhead
}

// Open returns the session ID in a token; old says that an old secret opens it.
func (c *Codec) Open(token string) (id string, old, ok bool) {
	box, ok := c.box(token)
	if !ok {
		return "", false, false
	}
	// 3. The tag is compared in constant time.
	for i, key := range c.keys {
		if raw, err := key.Open(nil, nil, box, []byte(c.prefix)); err == nil {
			return encoding.EncodeToString(raw), i > 0, true
		}
	}
	return "", false, false
}
