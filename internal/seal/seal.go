// Package seal encrypts the application's keys of a record, with AES-256-GCM
// under a key of its own for each session ID.
//
// Data that does not open, because it was changed, moved to another row, or
// sealed under a secret that is not there any more, is an error: never plain
// data, never an empty record. Two records of one session never look alike, and
// what can be told from outside is the length, the cookie object, the times and
// tags beside it and, where a user key is set, which records have the same user.
package seal

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
	"strings"

	"github.com/pgsession/session/internal/jsonobj"
	"github.com/pgsession/session/internal/row"
)

const (
	labelSeal = "pgsession record aes-256-gcm v1"
	labelFind = "pgsession find hmac-sha-256 v1"
)

// ErrUnopened says that no secret opens a record. It never becomes anything
// milder: such data is neither shown nor taken for an empty session.
var ErrUnopened = errors.New("session: encrypted record does not open: was a secret dropped, or data moved to another row?")

// Sealer seals and opens records. It is safe for concurrent use; the zero Sealer
// opens nothing and cannot seal.
type Sealer struct {
	roots   [][]byte // one for each secret, the current first
	userKey string   // whose sealed value can be found, "" if none
}

// New returns a Sealer that seals under the first secret and opens what any of
// them has sealed. Records can be found by the value of userKey unless it is
// empty.
func New(secrets []string, userKey string) (Sealer, error) {
	s := Sealer{userKey: userKey}
	for _, secret := range secrets {
		root, err := hkdf.Extract(sha256.New, []byte(secret), nil)
		if err != nil {
			return s, fmt.Errorf("session: deriving the encryption key: %w", err)
		}
		s.roots = append(s.roots, root)
	}
	return s, nil
}

// Current returns a Sealer that opens only what the current secret has sealed.
func (s Sealer) Current() Sealer {
	s.roots = s.roots[:1]
	return s
}

// WithUserKey returns a Sealer whose records can be found by the value of key.
func (s Sealer) WithUserKey(key string) Sealer {
	s.userKey = key
	return s
}

// UserKey returns the key by whose value a sealed record can be found: the
// Sealer's, else the one that the record itself has a hash of, "" if none.
func (s *Sealer) UserKey(r *row.Row) string {
	key := s.userKey
	if key == "" {
		for name := range r.All() {
			if found, ok := strings.CutPrefix(name, row.PrefixFind); ok {
				key = found
			}
		}
	}
	return key
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

// Open replaces the sealed member of the record of id, if there is one, by the
// keys inside it. If none of the secrets opens it, that is [ErrUnopened] and r
// stays as it is.
func (s *Sealer) Open(id string, r *row.Row) error {
	raw := r.Get(row.MemberSealed)
	if raw == nil {
		return nil
	}
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return ErrUnopened
	}
	box, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return ErrUnopened
	}
	for _, root := range s.roots {
		c, err := aead(root, id)
		if err != nil {
			return fmt.Errorf("session: opening an encrypted record: %w", err)
		}
		if plain, err := c.Open(nil, nil, box, nil); err == nil {
			r.Set(row.MemberSealed, nil)
			r.DeletePrefix(row.PrefixFind)
			inner, _ := jsonobj.Scan(plain) // sealed by Seal, so an object
			r.Append(inner)
			return nil
		}
	}
	return ErrUnopened
}

// Seal encodes the record of id with the application's keys encrypted, and
// leaves r as it is. The cookie stays readable, for Express and for operators.
func (s *Sealer) Seal(id string, r *row.Row) ([]byte, error) {
	outer, inner := r.Split(row.Bookkeeping)
	c, err := aead(s.roots[0], id)
	if err != nil {
		return nil, fmt.Errorf("session: encrypting a record: %w", err)
	}
	box := base64.RawStdEncoding.EncodeToString(c.Seal(nil, nil, inner.Encode(), nil)) // #nosec G407 -- the nonce is random, see aead
	outer.Set(row.MemberSealed, jsonobj.AppendString(nil, box))
	if text, ok := jsonobj.Text(inner.Get(s.userKey)); ok && s.userKey != "" {
		hash, err := findValue(s.roots[0], s.userKey, text)
		if err != nil {
			return nil, err
		}
		outer.Set(row.PrefixFind+s.userKey, jsonobj.AppendString(nil, hash))
	}
	return outer.Encode(), nil
}

// FindValues returns what a record may hold to say that its key has the value
// text: that itself, or its hash under one of the secrets.
func (s *Sealer) FindValues(key, text string) ([]string, error) {
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
