package devicebound_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/pgsession/session/internal/devicebound"
)

var b64 = base64.RawURLEncoding.EncodeToString

// device is a key pair.
type device struct {
	private *ecdsa.PrivateKey
	key     devicebound.Key
	jwk     string
}

func newDevice(tb testing.TB) device {
	tb.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	point, err := private.PublicKey.Bytes()
	if err != nil {
		tb.Fatal(err)
	}
	d := device{private: private}
	copy(d.key[:], point[1:])
	d.jwk = jwk("EC", "P-256", b64(point[1:33]), b64(point[33:]))
	return d
}

func jwk(kty, crv, x, y string) string {
	return fmt.Sprintf(`{"crv":%q,"kty":%q,"x":%q,"y":%q}`, crv, kty, x, y)
}

// sign returns a JWS of these parts, whatever they are.
func (d device) sign(header, claims string) string {
	signed := b64([]byte(header)) + "." + b64([]byte(claims))
	hash := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, d.private, hash[:])
	if err != nil {
		panic(err)
	}
	return signed + "." + b64(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

const (
	refreshHeader = `{"alg":"ES256","typ":"dbsc+jwt"}`
	claims        = `{"jti":"challenge"}`
)

func (d device) registration() string {
	return d.sign(`{"alg":"ES256","jwk":`+d.jwk+`,"typ":"dbsc+jwt"}`, claims)
}

// What browsers send is read, bare and quoted, and is by that key alone.
func TestProof(t *testing.T) {
	d, other := newDevice(t), newDevice(t)
	for _, tt := range []struct {
		name, value string
		hasKey      bool
	}{
		{"registration", d.registration(), true},
		{"refresh", d.sign(refreshHeader, claims), false},
		{"quoted", `"` + d.sign(refreshHeader, claims) + `"`, false},
		{"members of another version", d.sign(`{"alg":"ES256","typ":"dbsc+jwt","kid":"1","x":{"a":1,"a":2}}`, `{"iat":1,"jti":"challenge","authorization":"a"}`), false},
		{"space and escapes", d.sign(` { "typ" : "dbsc\u002bjwt" , "alg" : "ES256" } `, ` {"jti":"ch\u0061llenge"}`), false},
	} {
		p, err := devicebound.ParseProof(tt.value)
		if err != nil || p.Challenge != "challenge" || p.HasKey != tt.hasKey || tt.hasKey && p.Key != d.key {
			t.Errorf("%s: got challenge %q, key %v, error %v", tt.name, p.Challenge, p.HasKey, err)
		}
		if !p.By(d.key) || p.By(other.key) || p.By(devicebound.Key{}) {
			t.Errorf("%s: got by the key %v, by another %v, by none %v, want true, false, false", tt.name, p.By(d.key), p.By(other.key), p.By(devicebound.Key{}))
		}
	}
}

// Everything else is refused, with an error that tells nothing.
func TestProofAttacks(t *testing.T) {
	d := newDevice(t)
	x, y := b64(d.key[:32]), b64(d.key[32:])
	good := d.sign(refreshHeader, claims)
	part := strings.Split(good, ".")
	register := func(jwk string) string {
		return d.sign(`{"alg":"ES256","typ":"dbsc+jwt","jwk":`+jwk+`}`, claims)
	}
	hs := func(header string) string { // an HMAC under the public key: alg confusion
		signed := b64([]byte(header)) + "." + b64([]byte(claims))
		h := hmac.New(sha256.New, d.key[:])
		h.Write([]byte(signed))
		return signed + "." + b64(h.Sum(nil))
	}
	der, err := ecdsa.SignASN1(rand.Reader, d.private, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, value string }{
		{"empty", ""},
		{"a quote", `"`},
		{"two parts", part[0] + "." + part[1]},
		{"four parts", good + "." + part[2]},
		{"JSON serialization", `{"payload":"` + part[1] + `"}`},
		{"alg none, no signature", b64([]byte(`{"alg":"none","typ":"dbsc+jwt"}`)) + "." + part[1] + "."},
		{"alg none, signed", d.sign(`{"alg":"none","typ":"dbsc+jwt"}`, claims)},
		{"alg in other letters", d.sign(`{"alg":"es256","typ":"dbsc+jwt"}`, claims)},
		{"HS256", hs(`{"alg":"HS256","typ":"dbsc+jwt"}`)},
		{"HS256 of 64 bytes", d.sign(`{"alg":"HS256","typ":"dbsc+jwt"}`, claims)},
		{"RS256", d.sign(`{"alg":"RS256","typ":"dbsc+jwt"}`, claims)},
		{"ES384", d.sign(`{"alg":"ES384","typ":"dbsc+jwt"}`, claims)},
		{"alg missing", d.sign(`{"typ":"dbsc+jwt"}`, claims)},
		{"alg no string", d.sign(`{"alg":["ES256"],"typ":"dbsc+jwt"}`, claims)},
		{"typ of a usual token", d.sign(`{"alg":"ES256","typ":"JWT"}`, claims)},
		{"typ missing", d.sign(`{"alg":"ES256"}`, claims)},
		{"crit", d.sign(`{"alg":"ES256","typ":"dbsc+jwt","crit":["exp"]}`, claims)},
		{"crit empty", d.sign(`{"alg":"ES256","typ":"dbsc+jwt","crit":[]}`, claims)},
		{"alg twice", d.sign(`{"alg":"ES256","typ":"dbsc+jwt","alg":"ES256"}`, claims)},
		{"alg twice, once escaped", d.sign(`{"alg":"ES256","typ":"dbsc+jwt","\u0061lg":"none"}`, claims)},
		{"jti twice", d.sign(refreshHeader, `{"jti":"challenge","jti":"challenge"}`)},
		{"jti missing", d.sign(refreshHeader, `{}`)},
		{"jti empty", d.sign(refreshHeader, `{"jti":""}`)},
		{"jti no string", d.sign(refreshHeader, `{"jti":1}`)},
		{"header an array", d.sign(`["alg","ES256"]`, claims)},
		{"claims null", d.sign(refreshHeader, `null`)},
		{"two objects", d.sign(refreshHeader, claims+claims)},
		{"not UTF-8", d.sign(refreshHeader, "{\"jti\":\"challenge\",\"a\":\"\xff\"}")},
		{"cut off", d.sign(refreshHeader, `{"jti":"challenge"`)},
		{"DER signature", part[0] + "." + part[1] + "." + b64(der)},
		{"DER signature cut to 64", part[0] + "." + part[1] + "." + b64(der[:64])[:85]},
		{"signature of 63 bytes", part[0] + "." + part[1] + "." + b64(make([]byte, 63))},
		{"signature of 65 bytes", part[0] + "." + part[1] + "." + b64(make([]byte, 65))},
		{"padding", good + "=="},
		{"spare bits", good[:len(good)-1] + "_"},
		{"line break", part[0] + "." + part[1] + "." + part[2][:84] + "\n" + part[2][84:]},
		{"other base64", strings.ReplaceAll(part[0]+"+", "-", "+") + "." + part[1] + "." + part[2]},
		{"overlong", d.sign(refreshHeader, `{"jti":"`+strings.Repeat("c", 2048)+`"}`)},
		{"jwk of RSA", register(jwk("RSA", "P-256", x, y))},
		{"jwk of another curve", register(jwk("EC", "P-384", x, y))},
		{"jwk with a short x", register(jwk("EC", "P-256", b64(d.key[:31]), y))},
		{"jwk with a long y", register(jwk("EC", "P-256", x, b64(d.key[31:])))},
		{"jwk without y", register(`{"kty":"EC","crv":"P-256","x":"` + x + `"}`)},
		{"jwk with x twice", register(`{"kty":"EC","crv":"P-256","x":"` + x + `","y":"` + y + `","x":"` + x + `"}`)},
		{"jwk with the private key", register(`{"kty":"EC","crv":"P-256","x":"` + x + `","y":"` + y + `","d":"AA"}`)},
		{"jwk a string", register(`"` + x + `"`)},
		{"jwk null", register(`null`)},
	} {
		if p, err := devicebound.ParseProof(tt.value); err == nil {
			t.Errorf("%s: got no error, by the key: %v", tt.name, p.By(d.key))
		} else if err != devicebound.ErrProof {
			t.Errorf("%s: got an error that tells something: %v", tt.name, err)
		}
	}
}

// What parses may still be by nobody: points off the curve, and signatures that
// mathematics makes for any key where r and s are not checked.
func TestProofByNobody(t *testing.T) {
	d := newDevice(t)
	part := strings.Split(d.registration(), ".")
	order := elliptic.P256().Params().N
	raw := func(r, s *big.Int) string {
		return part[0] + "." + part[1] + "." + b64(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
	}
	off := d.key
	off[63] ^= 1
	for _, tt := range []struct {
		name, value string
		key         devicebound.Key
	}{
		{"r and s zero", raw(new(big.Int), new(big.Int)), d.key},
		{"r zero", raw(new(big.Int), big.NewInt(1)), d.key},
		{"s the order", raw(big.NewInt(1), order), d.key},
		{"another header", d.sign(refreshHeader, claims)[:len(refreshHeader)*4/3] + "." + part[1] + "." + part[2], d.key},
		{"another signature", part[0] + "." + part[1] + "." + strings.Split(d.registration(), ".")[2], newDevice(t).key},
		{"a point off the curve", d.registration(), off},
		{"the point at infinity", d.registration(), devicebound.Key{}},
	} {
		p, err := devicebound.ParseProof(tt.value)
		if err == nil && p.By(tt.key) {
			t.Errorf("%s: got it verified", tt.name)
		}
	}
}

func TestKeyText(t *testing.T) {
	d := newDevice(t)
	if k, ok := devicebound.ParseKey(d.key.String()); !ok || k != d.key {
		t.Error("got another key back")
	}
	for _, bad := range []string{"", "A", d.key.String() + "A", d.key.String()[:85] + "_", strings.Repeat("=", 86)} {
		if _, ok := devicebound.ParseKey(bad); ok {
			t.Errorf("got a key from %d characters", len(bad))
		}
	}
}
