package devicebound

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// What is given to a browser lives this long. MinRefresh, Slack, ChallengeLife and
// Grace are variables for tests in a real browser alone, which cannot
// wait for minutes; they are not to be changed while a program serves.
var (
	// MinRefresh is the shortest life of a bound cookie that can be configured. A
	// browser signs six times in nine minutes for one site at most, and refuses
	// more.
	MinRefresh = 5 * time.Minute

	// Slack is how much longer than the browser keeps it a bound cookie is
	// accepted: for requests under way, and for clocks that differ.
	Slack = time.Minute

	// ChallengeLife is how long a challenge may be answered. A browser sends one
	// signed answer again and again while it is accepted.
	ChallengeLife = time.Minute

	// Grace is how long after a key was first proven a request without the bound
	// cookie may still have left the browser before it had that cookie.
	Grace = 10 * time.Second
)

// Purpose is what a token is for. One of another purpose never verifies.
type Purpose byte

// The purposes of tokens.
const (
	Registration Purpose = 'r' // the challenge of a new key
	Refresh      Purpose = 'c' // the challenge of a known key
	Cookie       Purpose = 'k' // the value of the bound cookie
)

const (
	labelTokens = "pgsession device-bound tokens hmac-sha256 v1"

	expiryBytes = 8
	tokenBytes  = expiryBytes + sha256.Size
)

// IdentifierBytes is the randomness of an identifier, IdentifierLen its length
// in base64url.
const (
	IdentifierBytes = 18
	IdentifierLen   = 24
)

// Tokens makes and checks tokens: expiry ‖ HMAC-SHA-256(purpose ‖ expiry ‖
// identifier), under a key derived from a secret. The first secret makes them;
// all of them check. It is safe for concurrent use.
type Tokens struct{ keys [][]byte }

// NewTokens derives the keys.
func NewTokens(secrets []string) (*Tokens, error) {
	t := &Tokens{}
	for _, secret := range secrets {
		key, err := hkdf.Key(sha256.New, []byte(secret), nil, labelTokens, sha256.Size)
		if err != nil {
			return nil, fmt.Errorf("session: deriving the key of device-bound tokens: %w", err)
		}
		t.keys = append(t.keys, key)
	}
	return t, nil
}

// Make returns a token of identifier that ends at end, rounded up to seconds.
func (t *Tokens) Make(p Purpose, identifier string, end time.Time) string {
	var b [tokenBytes]byte
	seconds := max(0, end.Add(time.Second-1).Unix())
	binary.BigEndian.PutUint64(b[:], uint64(seconds)) // #nosec G115 -- not negative
	copy(b[expiryBytes:], mac(t.keys[0], p, b[:expiryBytes], identifier))
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Check reports whether token was made for p and identifier and has not ended
// at now.
func (t *Tokens) Check(p Purpose, identifier, token string, now time.Time) bool {
	end, ok := t.End(p, identifier, token)
	return ok && now.Before(end)
}

// End returns when a token ends that was made for p and identifier, even if it has
// already; ok is false of any other.
func (t *Tokens) End(p Purpose, identifier, token string) (end time.Time, ok bool) {
	b, ok := decode(token, tokenBytes)
	if !ok {
		return time.Time{}, false
	}
	for _, key := range t.keys {
		// The signature first, in constant time; only then what it says.
		if hmac.Equal(b[expiryBytes:], mac(key, p, b[:expiryBytes], identifier)) {
			return time.Unix(int64(binary.BigEndian.Uint64(b)), 0), true // #nosec G115 -- made by Make
		}
	}
	return time.Time{}, false
}

// MakeRegistration returns the challenge of a registration, which names the
// identifier: the browser does not know it yet.
func (t *Tokens) MakeRegistration(identifier string, end time.Time) string {
	return identifier + "." + t.Make(Registration, identifier, end)
}

// CheckRegistration returns the identifier of a registration's challenge.
func (t *Tokens) CheckRegistration(challenge string, now time.Time) (identifier string, ok bool) {
	identifier, token, found := strings.Cut(challenge, ".")
	if !found || !IsIdentifier(identifier) || !t.Check(Registration, identifier, token, now) {
		return "", false
	}
	return identifier, true
}

// IsIdentifier reports whether s looks like an identifier that was made here.
func IsIdentifier(s string) bool {
	_, ok := decode(s, IdentifierBytes)
	return ok
}

// mac leaves nothing open: purpose and expiry have a fixed length.
func mac(key []byte, p Purpose, expiry []byte, identifier string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte{byte(p)})
	h.Write(expiry)
	h.Write([]byte(identifier))
	return h.Sum(nil)
}
