package devicebound_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/session/internal/devicebound"
)

// FuzzProof holds that any bytes may come in, that what is accepted says ES256
// and dbsc+jwt to an independent reader too, and that nothing verifies under a key
// that did not sign it.
func FuzzProof(f *testing.F) {
	d, stranger := newDevice(f), newDevice(f)
	f.Add(d.registration())
	f.Add(`"` + d.sign(refreshHeader, claims) + `"`)
	f.Add(d.sign(`{"alg":"none","typ":"dbsc+jwt","crit":[]}`, `{"jti":"a","jti":"b"}`))
	f.Fuzz(func(t *testing.T, value string) {
		p, err := devicebound.ParseProof(value)
		if err != nil {
			if err != devicebound.ErrProof {
				t.Fatalf("got an error that tells something: %v", err)
			}
			return
		}
		part := strings.Split(strings.Trim(value, `"`), ".")
		if len(part) != 3 {
			t.Fatalf("got %d parts accepted", len(part))
		}
		var header struct{ Alg, Typ string }
		var claims struct{ Jti string }
		for i, into := range []any{&header, &claims} {
			raw, err := base64.RawURLEncoding.DecodeString(part[i])
			if err != nil {
				t.Fatal(err)
			}
			var exact map[string]json.RawMessage // struct fields match in any case
			if err := json.Unmarshal(raw, &exact); err != nil {
				t.Fatal(err)
			}
			for name := range exact {
				if lower := strings.ToLower(name); lower != name {
					return
				}
			}
			if err := json.Unmarshal(raw, into); err != nil {
				t.Fatal(err)
			}
		}
		if header.Alg != "ES256" || header.Typ != "dbsc+jwt" || claims.Jti != p.Challenge {
			t.Fatalf("got %q, %q and another challenge accepted", header.Alg, header.Typ)
		}
		if p.By(stranger.key) {
			t.Fatal("got a proof by a key that signed nothing")
		}
		if p.HasKey {
			_ = p.By(p.Key)
		}
	})
}

// FuzzToken holds that no token verifies but those that were made.
func FuzzToken(f *testing.F) {
	k := tokens(f, secret, secretOld)
	good := k.Make(devicebound.Refresh, id, now.Add(time.Minute))
	f.Add(good, id)
	f.Add(k.MakeRegistration(id, now.Add(time.Minute)), id)
	f.Fuzz(func(t *testing.T, token, identifier string) {
		if k.Check(devicebound.Refresh, identifier, token, now) != (token == good && identifier == id) {
			t.Fatal("got a token accepted that nobody made, or a good one refused")
		}
		if k.Check(devicebound.Cookie, identifier, token, now) {
			t.Fatal("got a cookie accepted that nobody made")
		}
		_, _ = k.CheckRegistration(token, now)
	})
}

// FuzzSkipped holds that the header never names a session that is not in it.
func FuzzSkipped(f *testing.F) {
	f.Add(`unreachable;session_identifier="i", server_error;session_identifier=x;a="\"\\"`)
	f.Fuzz(func(t *testing.T, value string) {
		if devicebound.Skipped([]string{value}, id) && !strings.Contains(value, id) {
			t.Fatal("got a session named that is not in it")
		}
		if s, ok := devicebound.ParseString(value); ok && s == "" {
			t.Fatal("got an empty string accepted")
		}
	})
}
