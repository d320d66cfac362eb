package cookie_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgsession/session/internal/cookie"
)

const (
	secret    = "a secret of the tests, thirty-two bytes and more"
	secretOld = "an old secret of the tests, as long as the other"
)

func codec(tb testing.TB, express bool, secrets ...string) cookie.Codec {
	tb.Helper()
	c, err := cookie.NewCodec(secrets, express)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// expressSigned is express-session's value before encoding, made without the
// library.
func expressSigned(secret, sid string) string {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(sid))
	return "s:" + sid + "." + strings.TrimRight(base64.StdEncoding.EncodeToString(h.Sum(nil)), "=")
}

// readVectors reads the cookies that express-session really produced.
func readVectors(t *testing.T, into any) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "testdata", "express", "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatal(err)
	}
}

func TestExpressSignVectors(t *testing.T) {
	var vectors struct {
		Sign []struct {
			Val, Secret, Signed string
			SetCookiePair       string `json:"set_cookie_pair"`
		}
	}
	readVectors(t, &vectors)
	if len(vectors.Sign) == 0 {
		t.Fatal("got no vectors")
	}
	for i, v := range vectors.Sign {
		got, err := codec(t, true, v.Secret).Sign("connect.sid", v.Val)
		if err != nil || "connect.sid="+got != v.SetCookiePair {
			t.Errorf("vector %d: got another value than express-session, error %v", i, err)
		}
		if expressSigned(v.Secret, v.Val) != "s:"+v.Signed {
			t.Errorf("vector %d: the test's own signature differs from cookie-signature's", i)
		}
	}
}

// An ID comes back from what was signed, under the current secret or an old one,
// and from nothing else.
func TestCodecRoundTrip(t *testing.T) {
	id := strings.Repeat("i", cookie.IDLen)
	for _, express := range []bool{false, true} {
		current, old := codec(t, express, secret, secretOld), codec(t, express, secretOld)
		other := codec(t, !express, secret, secretOld)
		signed, err := current.Sign("s", id)
		if err != nil || len(signed) > cookie.MaxSignedBytes {
			t.Fatalf("express %t: Sign: got %d bytes, %v", express, len(signed), err)
		}
		earlier, err := old.Sign("s", id)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name  string
			codec cookie.Codec
			value string
			found bool
			old   bool
			bad   int
		}{
			{"current secret", current, signed, true, false, 0},
			{"old secret", current, earlier, true, true, 0},
			{"a secret that is not there", old, signed, false, false, 1},
			{"a bit changed", current, "x" + signed, false, false, 1},
			{"the other format", other, signed, false, false, 1},
		} {
			got, isOld, bad := first(c.codec, []string{"a=b; s=" + c.value})
			if (got == id) != c.found || !c.found && got != "" || isOld != c.old || bad != c.bad {
				t.Errorf("express %t, %s: got found %t, old %t, bad %d, want %t, %t, %d", express, c.name, got == id, isOld, bad, c.found, c.old, c.bad)
			}
		}
	}
}

// first returns what verifies first.
func first(c cookie.Codec, lines []string) (id string, old bool, bad int) {
	found, bad := c.Find(lines, "s", nil)
	if len(found) == 0 {
		return "", false, bad
	}
	return found[0].ID, found[0].Old, bad
}

// Every cookie that verifies is found, each once, in the order in which the
// browser sent them; in Express's format the first alone.
func TestCodecFindsAllThatVerify(t *testing.T) {
	for _, c := range []struct {
		express bool
		want    string
	}{{false, "ab"}, {true, "a"}} {
		cc := codec(t, c.express, secret)
		var lines []string
		for _, id := range []string{"a", "b", "a"} {
			signed, err := cc.Sign("s", strings.Repeat(id, cookie.IDLen))
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, "s="+signed+"; s=bad")
		}
		found, _ := cc.Find(lines, "s", nil)
		got := ""
		for _, f := range found {
			got += f.ID[:1]
		}
		if got != c.want {
			t.Errorf("express %t: got %q, want %q", c.express, got, c.want)
		}
	}
}

// Of several cookies of the name securecookie's format takes the first that
// verifies, of eight; Express's takes the first, whatever it is.
func TestCodecCandidates(t *testing.T) {
	id := strings.Repeat("i", cookie.IDLen)
	for _, c := range []struct {
		express bool
		before  int
		found   bool
		bad     int
	}{
		{false, 0, true, 0},
		{false, 7, true, 7},
		{false, 8, false, 8},
		{true, 0, true, 0},
		{true, 1, false, 1},
	} {
		cc := codec(t, c.express, secret)
		signed, err := cc.Sign("s", id)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for i := range c.before {
			lines = append(lines, fmt.Sprintf("s=bad%d", i))
		}
		got, _, bad := first(cc, append(lines, "s="+signed))
		if (got == id) != c.found || bad != c.bad {
			t.Errorf("express %t, %d before: got found %t, bad %d, want %t, %d", c.express, c.before, got == id, bad, c.found, c.bad)
		}
	}
}

// FuzzCookieHeader holds that no Cookie header makes either format panic, and
// that none gives an ID without a signature over it.
func FuzzCookieHeader(f *testing.F) {
	codecs := []cookie.Codec{codec(f, false, secret, secretOld), codec(f, true, secret, secretOld)}
	id := strings.Repeat("i", 32)
	secure, err := codecs[0].Sign("s", id)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("s="+secure, "")
	f.Add("a=b; s=bad; s=\""+secure+"\"", "s")
	f.Add("s="+url.PathEscape(expressSigned(secret, id)), "x=%")
	f.Add("s = "+expressSigned(secretOld, "\xe9")+" ;s=%ff", "s=s:.")
	f.Fuzz(func(t *testing.T, one, two string) {
		for i, c := range codecs {
			id, _, bad := first(c, []string{one, two})
			if bad > 8 || i == 1 && bad > 1 {
				t.Fatalf("format %d: got %d bad cookies verified, want at most 8", i, bad)
			}
			if more, _, _ := first(c, []string{"a=b;" + one, "; ;" + two}); more != id {
				t.Fatalf("format %d: an unrelated cookie before changed the result", i)
			}
			if id == "" {
				continue
			}
			if strings.IndexByte(id, 0) >= 0 || i == 0 && len(id) != 32 {
				t.Fatalf("format %d: got an ID that no store takes", i)
			}
			if i == 0 {
				if value, _ := c.Sign("s", id); len(value) == 0 || !strings.Contains(one+two, "s") {
					t.Fatal("got an ID from nowhere")
				}
				continue
			}
			// Whatever the escapes, the signature's letters stand there.
			plain, header := expressSigned(secret, id), one+";"+two
			old := expressSigned(secretOld, id)
			if !containsSigned(header, plain) && !containsSigned(header, old) {
				t.Fatal("got an ID without a signature over it")
			}
		}
	})
}

// containsSigned looks for a signed value in a header, raw or in any spelling
// of percent-encoding.
func containsSigned(header, signed string) bool {
	mac := signed[strings.LastIndexByte(signed, '.')+1:]
	for _, pair := range strings.Split(header, ";") {
		_, value, _ := strings.Cut(pair, "=")
		decoded, err := url.PathUnescape(strings.Trim(value, " \t\""))
		if err == nil && strings.HasSuffix(decoded, mac) || strings.HasSuffix(strings.Trim(value, " \t\""), mac) {
			return true
		}
	}
	return false
}
