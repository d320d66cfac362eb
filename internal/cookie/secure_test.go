package cookie_test

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/gorilla/securecookie"

	"github.com/pgsession/session/internal/cookie"
)

// secureKey is derived without the library.
func secureKey(tb testing.TB) []byte {
	tb.Helper()
	key, err := hkdf.Key(sha256.New, []byte(secret), nil, "pgsession cookie securecookie hmac-sha256 v1", 32)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// signed is the value of the cookie "s" that holds a text, whatever it is, with a
// signature that verifies.
func signed(key []byte, text string) string {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("s|" + text))
	return base64.URLEncoding.EncodeToString([]byte(text + "|" + string(h.Sum(nil))))
}

// A cookie verifies if securecookie itself says so and it holds an ID.
func TestVerifiesLikeSecurecookie(t *testing.T) {
	key := secureKey(t)
	c, id := codec(t, false, secret), strings.Repeat("i", cookie.IDLen)
	by64 := base64.URLEncoding.EncodeToString
	whole := signed(key, "1700000000|"+by64([]byte(id)))
	for _, v := range []struct {
		name, value string
		want        bool
	}{
		{"as securecookie signs it", whole, true},
		{"without a date", signed(key, "|"+by64([]byte(id))), false},
		{"a date that is none", signed(key, "yesterday|"+by64([]byte(id))), false},
		{"a date with a sign", signed(key, "+17|"+by64([]byte(id))), true},
		{"a date of twenty digits", signed(key, "17000000000000000000|"+by64([]byte(id))), false},
		{"nothing but a date", signed(key, "1700000000"), false},
		{"an empty value", signed(key, "1700000000|"), false},
		{"a value that is no base64", signed(key, "1700000000|"+id+"!"), false},
		{"a line feed in the value", signed(key, "1700000000|"+by64([]byte(id))[:10]+"\n"+by64([]byte(id))[10:]), true},
		{"a line feed in the cookie", whole[:10] + "\n" + whole[10:], true},
		{"a signature that is too short", by64([]byte("1700000000|" + by64([]byte(id)) + "|short")), false},
		{"no signature", by64([]byte("1700000000|" + by64([]byte(id)) + "|")), false},
		{"one byte less", whole[:len(whole)-4], false},
		{"one byte more", whole + "AAAA", false},
		{"the last letter's idle bits", whole[:len(whole)-1] + "B", false},
		{"empty", "", false},
		{"too long", strings.Repeat("A", 4096), false},
	} {
		got, _, _ := first(c, []string{"s=" + v.value})
		if (got == id) != v.want || got != "" && !v.want {
			t.Errorf("%s: got verified %t, want %t", v.name, got != "", v.want)
		}
		if theirs := decoded(key, v.value) == id; theirs != v.want {
			t.Errorf("%s: securecookie has verified it: %t, want %t", v.name, theirs, v.want)
		}
	}
}

// decoded returns what securecookie finds in a cookie "s", empty without anything.
func decoded(key []byte, value string) string {
	var b []byte
	if securecookie.New(key, nil).MaxAge(0).SetSerializer(securecookie.NopEncoder{}).Decode("s", value, &b) != nil {
		return ""
	}
	return string(b)
}

// FuzzSecureCookie holds that whatever is signed, and whatever is done to it
// afterwards, verifies exactly if securecookie says so.
func FuzzSecureCookie(f *testing.F) {
	key := secureKey(f)
	id := strings.Repeat("i", cookie.IDLen)
	f.Add("1700000000|"+base64.URLEncoding.EncodeToString([]byte(id)), uint8(0), byte(0))
	f.Add("1||", uint8(3), byte('='))
	f.Fuzz(func(t *testing.T, text string, at uint8, to byte) {
		value := []byte(signed(key, text))
		if int(at) < len(value) && to != 0 {
			value[at] = to
		}
		if strings.ContainsAny(string(value), "; \t\"") { // ends a cookie, or is dropped
			return
		}
		want := decoded(key, string(value))
		if len(want) != cookie.IDLen || strings.Trim(want, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			want = ""
		}
		if got, _, _ := first(codec(t, false, secret), []string{"s=" + string(value)}); got != want {
			t.Fatalf("got verified %t, want %t", got != "", want != "")
		}
	})
}

// BenchmarkFind is what every request with a cookie pays for it.
func BenchmarkFind(b *testing.B) {
	for name, express := range map[string]bool{"securecookie": false, "express": true} {
		b.Run(name, func(b *testing.B) {
			c := codec(b, express, secret)
			value, err := c.Sign("s", strings.Repeat("i", cookie.IDLen))
			if err != nil {
				b.Fatal(err)
			}
			lines, room := []string{"s=" + value}, make([]cookie.Signed, 1)
			b.ReportAllocs()
			for b.Loop() {
				c.Find(lines, "s", room[:0])
			}
		})
	}
}
