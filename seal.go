package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// memberSealed holds the application's keys of an encrypted record.
const memberSealed = "__sealed"

const (
	labelSeal = "pgsession record aes-256-gcm v1"
	labelFind = "pgsession find hmac-sha-256 v1"
)

// errSealed never becomes anything milder: data that does not open is neither
// shown nor taken for an empty session.
var errSealed = errors.New("session: encrypted record does not open: was a secret dropped, or data moved to another row?")

// sealer encrypts the application's keys of a record under a key of its own for
// each session ID, so that data pasted into another row does not open.
type sealer struct {
	roots   [][]byte // one for each secret, the current first
	userKey string   // whose sealed value can be found, "" if none
}

func newSealer(cfg *Config) (sealer, error) {
	s := sealer{userKey: cfg.UserKey}
	for _, secret := range append([]string{cfg.Secret}, cfg.OldSecrets...) {
		root, err := hkdf.Extract(sha256.New, []byte(secret), nil)
		if err != nil {
			return s, fmt.Errorf("session: deriving the encryption key: %w", err)
		}
		s.roots = append(s.roots, root)
	}
	return s, nil
}

// aead returns AES-256-GCM under the key of id. It picks its own random nonces,
// as FIPS 140-3 asks.
func aead(root []byte, id string) (cipher.AEAD, error) {
	key, err := hkdf.Expand(sha256.New, root, labelSeal+"\x00"+id, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// open replaces the sealed member, if there is one, by the keys inside it.
func (s *sealer) open(id string, d *document) error {
	raw := d.get(memberSealed)
	if raw == nil {
		return nil
	}
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return errSealed
	}
	box, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return errSealed
	}
	for _, root := range s.roots {
		c, err := aead(root, id)
		if err != nil {
			return fmt.Errorf("session: opening an encrypted record: %w", err)
		}
		if plain, err := c.Open(nil, nil, box, nil); err == nil {
			d.members = slices.DeleteFunc(d.members, func(m member) bool {
				return m.is(memberSealed) || strings.HasPrefix(m.name(), prefixFind)
			})
			d.members = append(d.members, parseMembers(plain)...)
			return nil
		}
	}
	return errSealed
}

// seal encodes a record with the application's keys encrypted. The cookie stays
// readable, for Express and for operators.
func (s *sealer) seal(id string, d *document) ([]byte, error) {
	var outer, inner document
	for _, m := range d.members {
		if bookkeeping(m.name()) {
			outer.members = append(outer.members, m)
		} else {
			inner.members = append(inner.members, m)
		}
	}
	c, err := aead(s.roots[0], id)
	if err != nil {
		return nil, fmt.Errorf("session: encrypting a record: %w", err)
	}
	box := base64.RawStdEncoding.EncodeToString(c.Seal(nil, nil, inner.encode(), nil)) // #nosec G407 -- the nonce is random, see aead
	outer.set(memberSealed, appendJSONString(nil, box))
	if text, ok := jsonText(inner.get(s.userKey)); ok && s.userKey != "" {
		hash, err := findValue(s.roots[0], s.userKey, text)
		if err != nil {
			return nil, err
		}
		outer.set(prefixFind+s.userKey, appendJSONString(nil, hash))
	}
	return outer.encode(), nil
}

// findValues returns what a record may hold to say that its key has the value
// text: that itself, or its hash under one of the secrets.
func (s *sealer) findValues(key, text string) ([]string, error) {
	values := []string{text}
	for _, root := range s.roots {
		hash, err := findValue(root, key, text)
		if err != nil {
			return nil, err
		}
		values = append(values, hash)
	}
	return values, nil
}

// findValue hashes a value so that equal ones can be found without telling
// which they are: half an HMAC, under a key of its own.
func findValue(root []byte, key, text string) (string, error) {
	k, err := hkdf.Expand(sha256.New, root, labelFind, 32)
	if err != nil {
		return "", fmt.Errorf("session: deriving the key of a searchable hash: %w", err)
	}
	mac := hmac.New(sha256.New, k)
	mac.Write([]byte(key + "\x00" + text))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16]), nil
}
