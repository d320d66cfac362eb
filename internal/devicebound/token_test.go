package devicebound_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/session/internal/devicebound"
)

const (
	secret    = "a secret of the tests, thirty-two bytes and more"
	secretOld = "an old secret of the tests, as long as the other"
)

var (
	now   = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	id    = strings.Repeat("i", devicebound.IdentifierLen)
	other = strings.Repeat("o", devicebound.IdentifierLen)
)

func tokens(tb testing.TB, secrets ...string) *devicebound.Tokens {
	tb.Helper()
	k, err := devicebound.NewTokens(secrets)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// A token is good for one purpose, one identifier, until its end, under a secret
// that is still there.
func TestTokens(t *testing.T) {
	k, old := tokens(t, secret, secretOld), tokens(t, secretOld)
	token := k.Make(devicebound.Refresh, id, now.Add(time.Minute))
	flip := func(i int) string {
		b, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil {
			t.Fatal(err)
		}
		b[i] ^= 1
		return base64.RawURLEncoding.EncodeToString(b)
	}
	for _, tt := range []struct {
		name    string
		keys    *devicebound.Tokens
		purpose devicebound.Purpose
		id      string
		token   string
		after   time.Duration
		want    bool
	}{
		{"as made", k, devicebound.Refresh, id, token, 0, true},
		{"just before its end", k, devicebound.Refresh, id, token, time.Minute - 1, true},
		{"at its end", k, devicebound.Refresh, id, token, time.Minute, false},
		{"made under an old secret", k, devicebound.Refresh, id, old.Make(devicebound.Refresh, id, now.Add(time.Minute)), 0, true},
		{"made under a dropped secret", old, devicebound.Refresh, id, token, 0, false},
		{"for a cookie", k, devicebound.Cookie, id, token, 0, false},
		{"for a registration", k, devicebound.Registration, id, token, 0, false},
		{"of another identifier", k, devicebound.Refresh, other, token, 0, false},
		{"of no identifier", k, devicebound.Refresh, "", token, 0, false},
		{"longer life", k, devicebound.Refresh, id, flip(6), 0, false},
		{"another signature", k, devicebound.Refresh, id, flip(39), 0, false},
		{"empty", k, devicebound.Refresh, id, "", 0, false},
		{"longer", k, devicebound.Refresh, id, token + "A", 0, false},
		{"with its expiry alone", k, devicebound.Refresh, id, token[:11], 0, false},
		{"written otherwise", k, devicebound.Refresh, id, token[:len(token)-1] + "_", 0, false},
	} {
		if got := tt.keys.Check(tt.purpose, tt.id, tt.token, now.Add(tt.after)); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// A token never ends before its time, nor more than a second after it.
func TestTokenIsRoundedUp(t *testing.T) {
	k := tokens(t, secret)
	end := now.Add(time.Second / 2)
	token := k.Make(devicebound.Cookie, id, end)
	if !k.Check(devicebound.Cookie, id, token, end.Add(-1)) || k.Check(devicebound.Cookie, id, token, end.Add(time.Second)) {
		t.Error("got another end")
	}
	if k.Check(devicebound.Cookie, id, k.Make(devicebound.Cookie, id, time.Unix(-5, 0)), now) {
		t.Error("got a token of before 1970 accepted")
	}
}

func TestRegistrationToken(t *testing.T) {
	k := tokens(t, secret)
	challenge := k.MakeRegistration(id, now.Add(time.Minute))
	if got, ok := k.CheckRegistration(challenge, now); !ok || got != id {
		t.Errorf("got %q, %v", got, ok)
	}
	_, token, _ := strings.Cut(challenge, ".")
	for name, bad := range map[string]string{
		"another identifier": other + "." + token,
		"no identifier":      token,
		"empty identifier":   "." + token,
		"a refresh's":        id + "." + k.Make(devicebound.Refresh, id, now.Add(time.Minute)),
		"a cookie":           id + "." + k.Make(devicebound.Cookie, id, now.Add(time.Minute)),
		"two":                challenge + "." + token,
	} {
		if _, ok := k.CheckRegistration(bad, now); ok {
			t.Errorf("%s: got it accepted", name)
		}
	}
	if _, ok := k.CheckRegistration(challenge, now.Add(time.Minute)); ok {
		t.Error("expired: got it accepted")
	}
}
