// Package devicebound is the part of Device Bound Session Credentials (DBSC, a W3C
// draft) that knows no session, no store and no request: proofs that a browser
// signs with the key of its device, the tokens that a server gives it to sign
// and to keep, and the header fields in which both travel.
//
// Nothing here holds state, so any instance can check what another one gave
// out. Any bytes may come in: nothing panics, and the work is bounded by a few
// kilobytes, one signature and one HMAC for each secret.
package devicebound

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"strings"
	"unicode/utf8"
)

const (
	// maxProofBytes is five times what a browser sends.
	maxProofBytes = 2048

	coordinateBytes = 32
	signatureBytes  = 64
)

// ErrProof says that a proof is not one, or not by the key that it had to be by.
// It says nothing more: whoever sends such proofs learns nothing from it.
var ErrProof = errors.New("session: not a valid proof of a device's key")

// Key is a public key on P-256: the two coordinates of its point. Keys are
// equal if they are ==.
type Key [2 * coordinateBytes]byte

// ParseKey returns the key of its text. It may be off the curve; no proof
// verifies under such a key.
func ParseKey(text string) (k Key, ok bool) {
	b, ok := decode(text, len(k))
	copy(k[:], b)
	return k, ok
}

// String returns the key's text, 86 characters of base64url.
func (k Key) String() string { return base64.RawURLEncoding.EncodeToString(k[:]) }

// Proof is a signed answer to a challenge. What it says is worth nothing before
// [Proof.By].
type Proof struct {
	// Challenge is what was signed.
	Challenge string

	// Key is the one that a registration brings with it.
	Key    Key
	HasKey bool

	signed    string // header and claims as they came
	signature [signatureBytes]byte
}

// ParseProof reads the value of a Secure-Session-Response header: a JWS in its
// compact form (RFC 7515, section 3.1), bare or as a quoted string.
func ParseProof(value string) (p Proof, err error) {
	// 1. Bounded, and three parts.
	if len(value) > maxProofBytes {
		return p, ErrProof
	}
	if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
		value = value[1 : len(value)-1]
	}
	head, rest, ok1 := strings.Cut(value, ".")
	claims, signature, ok2 := strings.Cut(rest, ".")
	if !ok1 || !ok2 {
		return p, ErrProof
	}
	p.signed = value[:len(head)+1+len(claims)]
	// 2. r and s, 32 bytes each (RFC 7518, section 3.4). ASN.1 has another length.
	raw, ok := decode(signature, signatureBytes)
	if !ok {
		return p, ErrProof
	}
	copy(p.signature[:], raw)
	// 3. The header says ES256 and dbsc+jwt: so no "none", no HMAC under a public
	// key, and no token that this or another server has taken for something else.
	members, ok := object(head)
	if !ok || !isString(members["alg"], "ES256") || !isString(members["typ"], "dbsc+jwt") {
		return p, ErrProof
	}
	// 4. What must be understood is not (RFC 7515, section 4.1.11). Other members
	// are ignored, as that section asks, or the next browser would be shut out.
	if members["crit"] != nil {
		return p, ErrProof
	}
	// 5. The key that it brings.
	if raw := members["jwk"]; raw != nil {
		if p.Key, ok = parseJWK(raw); !ok {
			return p, ErrProof
		}
		p.HasKey = true
	}
	// 6. The challenge.
	if members, ok = object(claims); !ok {
		return p, ErrProof
	}
	if p.Challenge, ok = text(members["jti"]); !ok || p.Challenge == "" {
		return p, ErrProof
	}
	return p, nil
}

// By reports whether the proof was signed by key.
func (p *Proof) By(key Key) bool {
	curve := elliptic.P256()
	// Off the curve, or its point at infinity: refused here.
	public, err := ecdsa.ParseUncompressedPublicKey(curve, append([]byte{4}, key[:]...))
	if err != nil {
		return false
	}
	r := new(big.Int).SetBytes(p.signature[:signatureBytes/2])
	s := new(big.Int).SetBytes(p.signature[signatureBytes/2:])
	hash := sha256.Sum256([]byte(p.signed))
	return ecdsa.Verify(public, hash[:], r, s) // refuses an r or s of zero, or over the order
}

// parseJWK reads a public key (RFC 7518, section 6.2).
func parseJWK(raw []byte) (k Key, ok bool) {
	members, ok := membersOf(raw)
	if !ok || !isString(members["kty"], "EC") || !isString(members["crv"], "P-256") || members["d"] != nil {
		return k, false
	}
	for i, name := range []string{"x", "y"} {
		c, ok := text(members[name])
		if !ok {
			return k, false
		}
		b, ok := decode(c, coordinateBytes)
		if !ok {
			return k, false
		}
		copy(k[i*coordinateBytes:], b)
	}
	return k, true
}

// decode reads exactly n bytes of base64url without padding, written in the one
// way there is: no line breaks, which Go passes over, and no spare bits.
func decode(s string, n int) ([]byte, bool) {
	if len(s) != base64.RawURLEncoding.EncodedLen(n) || strings.ContainsAny(s, "\r\n") {
		return nil, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return b, err == nil && len(b) == n
}

// object reads a part of a JWS that is a JSON object.
func object(part string) (map[string]json.RawMessage, bool) {
	n := base64.RawURLEncoding.DecodedLen(len(part))
	raw, ok := decode(part, n)
	if !ok {
		return nil, false
	}
	return membersOf(raw)
}

// membersOf takes a JSON object apart. One name twice is refused: two readers
// may take two different values (RFC 7515, section 4).
func membersOf(raw []byte) (map[string]json.RawMessage, bool) {
	if !utf8.Valid(raw) || !json.Valid(raw) {
		return nil, false
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return nil, false
	}
	members := map[string]json.RawMessage{}
	for dec.More() {
		t, err := dec.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, false
		}
		if _, twice := members[name]; twice {
			return nil, false
		}
		var value json.RawMessage
		if dec.Decode(&value) != nil {
			return nil, false
		}
		members[name] = value
	}
	return members, true
}

// text reads a JSON string.
func text(raw []byte) (s string, ok bool) {
	if len(raw) == 0 || raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		return "", false
	}
	return s, true
}

func isString(raw []byte, want string) bool {
	s, ok := text(raw)
	return ok && s == want
}
