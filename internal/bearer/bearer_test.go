package bearer_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/pgsession/session/internal/bearer"
)

const (
	secret    = "a secret of the tests, thirty-two bytes and more"
	secretOld = "an old secret of the tests, as long as the other"
	prefix    = "shop_"
)

// id is one as the library makes them.
var id = base64.RawURLEncoding.EncodeToString([]byte("24 bytes that name a row"))

func codec(tb testing.TB, prefix string, secrets ...string) *bearer.Codec {
	tb.Helper()
	c, err := bearer.NewCodec(secrets, prefix)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func made(tb testing.TB, c *bearer.Codec) string {
	tb.Helper()
	token, err := c.Make(id)
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

func TestValidPrefix(t *testing.T) {
	for _, tt := range []struct {
		prefix string
		want   bool
	}{
		{"shop_", true},
		{"S1_", true},
		{strings.Repeat("x", bearer.MaxPrefixBytes-1) + "_", true},
		{strings.Repeat("x", bearer.MaxPrefixBytes) + "_", false},
		{"", false},
		{"_", false},
		{"shop", false},
		{"shop_admin_", false}, // would begin with shop_
		{"shop-_", false},
		{"shop _", false},
		{"shöp_", false},
		{"shop_\n", false},
	} {
		if got := bearer.ValidPrefix(tt.prefix); got != tt.want {
			t.Errorf("%q: got %t, want %t", tt.prefix, got, tt.want)
		}
	}
}

// An ID comes back from the token that was made of it, under the current secret or an
// old one, and under no other prefix.
func TestRoundTrip(t *testing.T) {
	current, old := codec(t, prefix, secret, secretOld), codec(t, prefix, secretOld)
	for _, tt := range []struct {
		name          string
		c             *bearer.Codec
		token         string
		found, wasOld bool
	}{
		{"current secret", current, made(t, current), true, false},
		{"old secret", current, made(t, old), true, true},
		{"a secret that is not there", old, made(t, current), false, false},
		{"another prefix", codec(t, "admin_", secret), made(t, current), false, false},
		{"moved under another prefix", codec(t, "admin_", secret), "admin_" + strings.TrimPrefix(made(t, current), prefix), false, false},
	} {
		got, isOld, ok := tt.c.Open(tt.token)
		if ok != tt.found || isOld != tt.wasOld || ok && got != id || !ok && got != "" {
			t.Errorf("%s: got found %t, old %t, want %t, %t", tt.name, ok, isOld, tt.found, tt.wasOld)
		}
	}
}

// What is in a token nobody can read off it, and two of one ID differ.
func TestTokenHidesTheID(t *testing.T) {
	c := codec(t, prefix, secret)
	one, two := made(t, c), made(t, c)
	if one == two {
		t.Error("got the same token twice, want another nonce each time")
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(one, prefix))
	if err != nil || strings.Contains(string(raw), "24 bytes that name a row") {
		t.Errorf("got the ID in a token, error %v", err)
	}
	// RFC 6750: b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"
	if rest := strings.Trim(one, alphabet); rest != "" {
		t.Errorf("got characters %q in a token, want those of b64token", rest)
	}
	if _, err := c.Make("an ID of somebody else"); err == nil || strings.Contains(err.Error(), "somebody") {
		t.Errorf("an ID that is not ours: got %v, want an error that does not show it", err)
	}
}

// A token that is changed in any place, or written otherwise, is none.
func TestForgedTokens(t *testing.T) {
	c := codec(t, prefix, secret)
	token := made(t, c)
	for i := range len(token) {
		for _, b := range []byte{'A', 'B', '_', '=', '\n', 0, 0xff} {
			forged := token[:i] + string([]byte{b}) + token[i+1:]
			if _, _, ok := c.Open(forged); ok && forged != token {
				t.Errorf("byte %d changed: got it opened", i)
			}
		}
	}
	for _, forged := range []string{
		"", prefix, token[:len(token)-1], token + "A", token + "=", token + "==", token + "\n", token + " ", " " + token,
		token[:20] + "\n" + token[20:], token + "," + token, strings.ToUpper(token), strings.Repeat(token, 1000),
		prefix + strings.Repeat("A", len(token)-len(prefix)),
	} {
		if _, _, ok := c.Open(forged); ok {
			t.Errorf("a forged token of %d bytes: got it opened", len(forged))
		}
	}
}

// What is ours in an Authorization header, and what is the application's.
func TestFind(t *testing.T) {
	c := codec(t, prefix, secret)
	token := made(t, c)
	for _, tt := range []struct {
		name                string
		lines               []string
		ours, several, good bool
	}{
		{"none", nil, false, false, false},
		{"empty", []string{""}, false, false, false},
		{"ours", []string{"Bearer " + token}, true, false, true},
		{"any case of the scheme", []string{"bEARER " + token}, true, false, true},
		{"more spaces", []string{"Bearer    " + token}, true, false, true},
		{"white space around", []string{" \tBearer " + token + " \t"}, true, false, true},
		{"a tab", []string{"Bearer\t" + token}, true, false, false},
		{"a space and a tab", []string{"Bearer \t" + token}, true, false, false},
		{"no space", []string{"Bearer" + token}, false, false, false},
		{"no scheme", []string{token}, false, false, false},
		{"the scheme alone", []string{"Bearer"}, false, false, false},
		{"the scheme and a space", []string{"Bearer "}, false, false, false},
		{"another scheme", []string{"Basic " + token}, false, false, false},
		{"a longer scheme", []string{"Bearers " + token}, false, false, false},
		{"a JWT", []string{"Bearer eyJhbGciOiJFUzI1NiJ9.e30.c2ln"}, false, false, false},
		{"another prefix", []string{"Bearer admin_" + strings.TrimPrefix(token, prefix)}, false, false, false},
		{"the prefix in another case", []string{"Bearer SHOP_" + strings.TrimPrefix(token, prefix)}, false, false, false},
		{"forged", []string{"Bearer " + prefix + "x"}, true, false, false},
		{"two in one line", []string{"Bearer " + token + ", Bearer " + token}, true, false, false},
		{"huge", []string{"Bearer " + token + strings.Repeat("A", 1<<20)}, true, false, false},
		{"NUL", []string{"Bearer " + token + "\x00"}, true, false, false},
		{"two lines", []string{"Bearer " + token, "Bearer " + token}, true, true, true},
		{"a JWT before", []string{"Bearer eyJ.e30.c2ln", "Bearer " + token}, true, true, true},
		{"a JWT after", []string{"Bearer " + token, "Bearer eyJ.e30.c2ln"}, true, true, true},
		{"two of others", []string{"Bearer eyJ.e30.c2ln", "Basic YTpi"}, false, false, false},
	} {
		got, ours, several := c.Find(tt.lines)
		_, _, good := c.Open(got)
		if ours != tt.ours || several != tt.several || ours && good != tt.good {
			t.Errorf("%s: got ours %t, several %t, good %t, want %t, %t, %t", tt.name, ours, several, good, tt.ours, tt.several, tt.good)
		}
	}
}

// FuzzAuthorization holds that no header makes the codec panic, and that what opens is
// what was made.
func FuzzAuthorization(f *testing.F) {
	c := codec(f, prefix, secret, secretOld)
	token := made(f, c)
	f.Add("Bearer "+token, "")
	f.Add("bearer  "+token+" ", "Basic YTpi")
	f.Add("Bearer "+prefix, "Bearer\t"+prefix+"\xff")
	f.Fuzz(func(t *testing.T, one, two string) {
		got, ours, several := c.Find([]string{one, two})
		if several != ours {
			t.Fatalf("of two lines: got ours %t, several %t, want both or neither", ours, several)
		}
		// Each process that fuzzes has made another token, all of one ID.
		if opened, _, ok := c.Open(got); ok && opened != id {
			t.Fatal("got a token opened that nobody has made")
		}
	})
}
