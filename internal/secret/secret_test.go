package secret_test

import (
	"encoding/base64"
	"encoding/hex"
	"flag"
	mathrand "math/rand/v2"
	"strings"
	"testing"

	"github.com/pgsession/session/internal/secret"
)

func TestJudge(t *testing.T) {
	for _, tt := range []struct {
		name, secret string
		want         secret.Verdict
		words        string
	}{
		{"Express's tutorial", "keyboard cat", secret.Public, "tutorials"},
		{"its long form", "Keyboard Cat, keyboard cat and the other cats", secret.Public, "tutorials"},
		{"jwt.io's", "your-256-bit-secret", secret.Public, "tutorials"},
		{"a placeholder", "please-CHANGE_ME-in-production-7d1f9a3c5e", secret.Public, "tutorials"},
		{"one word of it", "changeme", secret.Public, "tutorials"},
		{"a word", "Secret!", secret.Public, "tutorials"},
		{"one letter", strings.Repeat("a", 64), secret.Public, "piece of 1 bytes"},
		{"digits twice", "0123456789abcdef0123456789abcdef", secret.Public, "piece of 16 bytes"},
		{"a piece again and again", strings.Repeat("x7Kp2mQ9", 6), secret.Public, "piece of 8 bytes"},
		{"the alphabet", "abcdefghijklmnopqrstuvwxyz0123456789", secret.Public, "a run of characters"},
		{"backwards", "zyxwvutsrqponmlkjihgfedcba9876543210", secret.Public, "a run of characters"},
		{"short", "x7Kp2mQ9vL4w", secret.Short, "12 bytes"},
		{"a kind word", "a kitten on the keys", secret.Short, "20 bytes"},
		{"a sentence", "the quick brown fox jumps over the lazy dog", secret.Doubtful, "bits"},
		{"jwt.io's of today", "a-string-secret-at-least-256-bits-long", secret.Public, "tutorials"},
		{"a cookie library's", "averylogphrasebiggerthanthirtytwochars", secret.Public, "tutorials"},
		{"a framework's tutorial, as random as it is", "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7", secret.Public, "tutorials"},
		{"of many samples", "the-key-has-to-be-32-bytes-long!", secret.Public, "tutorials"},
		{"one that says its length", "a secret with minimum length of 32 characters", secret.Public, "tutorials"},
		{"another", "complex_password_at_least_32_characters_long", secret.Public, "tutorials"},
		{"in words", "secret-thirty-2-character-string", secret.Public, "tutorials"},
		{"rows of a keyboard", "qwertyuiopasdfghjklzxcvbnm1234567890", secret.Public, "tutorials"},
		{"words in capitals", "MyCompanyProductionSessionSecretKey", secret.Doubtful, "bits"},
		{"words without spaces", "thisisthesecretofourproductionserver", secret.Doubtful, "bits"},
		{"and with a year", "ThisIsTheSessionKeyOfTheShop2024Prod", secret.Doubtful, "bits"},
		{"a good one twice", strings.Repeat("pJ0c1zY8m3uTq5Xw7vN2bR4sK6dF9hGa", 2), secret.Good, ""},
		{"words drawn by dice, between which stands changeme", "orbit change medal tunnel saddle fiscal vivid quantum pigeon dwarf ribbon oxygen", secret.Good, ""},
		{"and todoset", "pesto dose tapping wolf glacier mango cactus banjo helmet violin turtle anchor pepper", secret.Good, ""},
		{"random, without a digit and with dashes", "rhyqzMmENhfy-btGpnwbszgs_wthNtFk", secret.Good, ""},
		{"random, with few capitals inside", "_-sQnqnj_GK_u--Y5Jswcspypflt_Plt", secret.Good, ""},
		{"random, with many and by chance English", "btShhUxEaLhlwaOqVArAssEAY_iNeEqh", secret.Good, ""},
		{"random bytes, of which three are letters", "\xaeC\x9c\x9f\\A\v\xc8{\x00\x15*(@\x15\xaa\xfa\xdf\xfd\x81\xf0\xa1\xb4\x01\xbd\uf728\xe4\x90t,", secret.Good, ""},
		{"a word with stars around", "**** t * e * s * t ****", secret.Public, "tutorials"},
		{"a sentence in capitals", "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG", secret.Doubtful, "bits"},
		{"one in another language", "watashi no namae wa tanaka desu yo", secret.Doubtful, "bits"},
		{"one in other letters", "жили-были старик со старухой", secret.Doubtful, "bits"},
		{"a UUID", "3f2b8c1e-9d47-4a6f-8e05-7b1c2d94f6a3", secret.Good, ""},
	} {
		got, why := secret.Judge(tt.secret)
		if got != tt.want || !strings.Contains(why, tt.words) {
			t.Errorf("%s: got %d, %q, want %d with %q", tt.name, got, why, tt.want, tt.words)
		}
		for i := range max(len(tt.secret)-7, 0) {
			if strings.Contains(why, tt.secret[i:i+8]) {
				t.Errorf("%s: a piece of the secret is in what is said of it", tt.name)
			}
		}
	}
}

var random = flag.Int("random", 2000, "how many random secrets of each kind are judged: of millions, one may be warned of by mistake")

// What programs make that are asked for 192 bits is not refused, nor warned of: the
// same secrets in each run.
func TestJudgeRandom(t *testing.T) {
	doubted, source := 0, mathrand.NewChaCha8([32]byte{1})
	for range *random {
		b := make([]byte, 48)
		_, _ = source.Read(b)
		for _, s := range []string{base64.StdEncoding.EncodeToString(b), base64.RawURLEncoding.EncodeToString(b[:24]), hex.EncodeToString(b[:32])} {
			if v, why := secret.Judge(s); v != secret.Good {
				t.Errorf("a random one of %d bytes: got %d, %q, want Good", len(s), v, why)
			}
		}
		if v, why := secret.Judge(string(b[:32])); v != secret.Good {
			t.Errorf("32 random bytes: got %d, %q, want Good", v, why)
		}
		// Of the shortest it may be said that it does not look it, once in thousands.
		for _, s := range []string{hex.EncodeToString(b[:16]), strings.ToUpper(hex.EncodeToString(b[:16])), lower(b)} {
			switch v, _ := secret.Judge(s); v {
			case secret.Good:
			case secret.Doubtful:
				doubted++
			default:
				t.Errorf("a random one of %d bytes: got %d, want no refusal", len(s), v)
			}
		}
	}
	if doubted > *random/150 {
		t.Errorf("doubted: got %d of %d, want a few", doubted, 3**random)
	}
}

// lower returns letters drawn by these bytes, nearly at random.
func lower(b []byte) string {
	var s strings.Builder
	for _, c := range b[:40] {
		s.WriteByte('a' + c%26)
	}
	return s.String()
}

func TestFingerprint(t *testing.T) {
	const good = "pJ0c1zY8m3uTq5Xw7vN2bR4sK6dF9hGaLeQiOxUtMnVyBcZrEwSjDkHlPfAgI+/7"
	// The values are fixed: two versions of a program must say the same.
	for s, want := range map[string]string{good: "1618", "keyboard cat": "0c40"} {
		if got := secret.Fingerprint(s); got != want {
			t.Errorf("of %d bytes: got %s, want %s", len(s), got, want)
		}
	}
	if secret.Fingerprint(good) == secret.Fingerprint(strings.ToLower(good)) {
		t.Error("two secrets: got one fingerprint")
	}
	if got := secret.Fingerprints([]string{"keyboard cat", good}); got[0] != secret.Fingerprint("keyboard cat") || got[1] != secret.Fingerprint(good) {
		t.Errorf("several: got %v, want them in their order", got)
	}
}
