package session_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
)

// What somebody sends to the endpoint who has every cookie, and has seen every
// header, but has not the key. Each is refused without a bound cookie, and the
// browser goes on.
func TestDeviceBoundAttacksOnRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t)
		u, other := b.boundUnit(), b.boundUnit()
		thief := u.copied()
		used := u.challenge()
		usedProof := u.jws(proofHeader, claim(used))
		want(t, "a refresh that was seen", u.prove(u.id, usedProof), 200, "")
		pass(2 * time.Minute) // its challenge has ended
		fresh := u.challenge()
		good := u.jws(proofHeader, claim(fresh))
		part := strings.Split(good, ".")
		mac := func(header string) string {
			signed := b64url([]byte(header)) + "." + b64url([]byte(claim(fresh)))
			h := hmac.New(sha256.New, []byte(u.jwk()))
			h.Write([]byte(signed))
			return signed + "." + b64url(h.Sum(nil))
		}
		raw, _ := base64.RawURLEncoding.DecodeString(part[2])
		der, err := asn1.Marshal([]*big.Int{new(big.Int).SetBytes(raw[:32]), new(big.Int).SetBytes(raw[32:])})
		if err != nil {
			t.Fatal(err)
		}
		longer := func() string { // the expiry moved an hour on, under the old signature
			raw, _ := base64.RawURLEncoding.DecodeString(used)
			raw[6] += 14
			return b64url(raw)
		}
		for _, tt := range []struct{ name, proof string }{
			{"no proof", ""},
			{"nonsense", "a.b.c"},
			{"another key", thief.jws(proofHeader, claim(fresh))},
			{"another key, brought along", thief.registration(fresh)},
			{"the right key, brought along", u.registration(fresh)},
			{"another key that says it is this", thief.jws(`{"alg":"ES256","typ":"dbsc+jwt","jwk":`+u.jwk()+`}`, claim(fresh))},
			{"no algorithm", b64url([]byte(`{"alg":"none","typ":"dbsc+jwt"}`)) + "." + part[1] + "."},
			{"no algorithm, signed", u.jws(`{"alg":"none","typ":"dbsc+jwt"}`, claim(fresh))},
			{"HS256", mac(`{"alg":"HS256","typ":"dbsc+jwt"}`)},
			{"HMAC called ES256", mac(proofHeader)},
			{"another type", u.jws(`{"alg":"ES256","typ":"JWT"}`, claim(fresh))},
			{"crit", u.jws(`{"alg":"ES256","typ":"dbsc+jwt","crit":["b64"],"b64":false}`, claim(fresh))},
			{"DER signature", part[0] + "." + part[1] + "." + b64url(der)},
			{"signature of another proof", part[0] + "." + part[1] + "." + strings.Split(usedProof, ".")[2]},
			{"signature of zeros", part[0] + "." + part[1] + "." + b64url(make([]byte, 64))},
			{"a member twice", u.jws(proofHeader, `{"jti":"`+fresh+`","jti":"`+fresh+`"}`)},
			{"overlong", u.jws(proofHeader, `{"jti":"`+fresh+`","a":"`+strings.Repeat("a", 4096)+`"}`)},
			{"replayed, its challenge has ended", usedProof},
			{"a challenge that has ended", u.jws(proofHeader, claim(used))},
			{"a challenge with another expiry", u.jws(proofHeader, claim(longer()))},
			{"a challenge nobody made", u.jws(proofHeader, claim(b64url(make([]byte, 40))))},
			{"another session's challenge", u.jws(proofHeader, claim(other.challenge()))},
			{"the registration's challenge", u.jws(proofHeader, claim(u.offer))},
			{"the bound cookie for a challenge", u.jws(proofHeader, claim(u.jar["session-bound"]))},
			{"empty challenge", u.jws(proofHeader, claim(""))},
		} {
			b.store.took()
			resp := thief.prove(u.id, tt.proof)
			if resp.status != 403 || resp.header.Get("Secure-Session-Challenge") == "" || len(resp.cookies()) > 0 || resp.body != "" {
				t.Errorf("%s: got %d, %d cookies, %d bytes, want 403 with a challenge and nothing else", tt.name, resp.status, len(resp.cookies()), len(resp.body))
			}
			if calls := b.store.took(); calls != "" && calls != "Load" {
				t.Errorf("%s: got calls %q", tt.name, calls)
			}
		}
		two := u.request("POST", "/session/bind", "Sec-Secure-Session-Id", u.id, "Secure-Session-Response", good, "Secure-Session-Response", good)
		if resp := ask(b.h, two); resp.status != 403 {
			t.Errorf("two proofs: got %d, want 403", resp.status)
		}
		want(t, "the browser's own", u.prove(u.id, good), 200, "")
		want(t, "the browser", u.get("/"), 200, "ada true")
	})
}

// Who has a bound session of his own brings its cookie or its key for another's
// binding: he is told that it has ended, with no cookie, and it has not.
func TestDeviceBoundAnotherSessionsIdentifier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t)
		u, other := b.boundUnit(), b.boundUnit()
		both := other.copied() // his key, and the cookies of u
		both.device, both.jar = other.device, u.copied().jar
		for _, tt := range []struct {
			name  string
			by    *unit
			id    string
			proof string
		}{
			{"his cookies, his key, this binding", other, u.id, other.jws(proofHeader, claim(other.challengeFor(u.id)))},
			{"his cookies, this binding, a proof that was seen", other, u.id, u.jws(proofHeader, claim(u.challenge()))},
			{"these cookies, his key, his binding", both, other.id, other.jws(proofHeader, claim(other.challenge()))},
		} {
			resp := tt.by.prove(tt.id, tt.proof)
			want(t, tt.name, resp, 200, `{"session_identifier":"`+tt.id+`","continue":false}`)
			wantSet(t, tt.name, resp, "")
		}
		resp := both.prove(u.id, other.jws(proofHeader, claim(other.challengeFor(u.id))))
		want(t, "these cookies, his key, this binding", resp, 403, "")
		wantSet(t, "these cookies, his key, this binding", resp, "")
		for _, browser := range []*unit{u, other} {
			want(t, "refresh", browser.forget().refresh(), 200, "")
			want(t, "page", browser.get("/"), 200, "ada true")
		}
	})
}

// Within a challenge's minute a browser sends one proof again and again, as
// Chromium does; after it that proof is worth nothing.
func TestDeviceBoundReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t)
		u := b.boundUnit()
		proof := u.jws(proofHeader, claim(u.challenge()))
		for range 3 {
			pass(19 * time.Second)
			want(t, "within the minute", u.prove(u.id, proof), 200, "")
		}
		pass(3 * time.Second)
		want(t, "after it", u.prove(u.id, proof), 403, "")
		want(t, "without the session's cookie", (&unit{site: b, jar: map[string]string{}}).prove(u.id, proof), 200, `"continue":false`)
	})
}

// What somebody sends who wants his own key registered.
func TestDeviceBoundAttacksOnRegistration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t)
		old := b.unit()
		old.send("POST", "/login")
		pass(2 * time.Minute) // its challenge has ended
		u, other := b.unit(), b.unit()
		u.send("POST", "/login")
		other.send("POST", "/login")
		thief := u.copied()
		id, token, _ := strings.Cut(u.offer, ".")
		otherID, otherToken, _ := strings.Cut(other.offer, ".")
		off := strings.Replace(thief.jwk(), `"y":"`, `"y":"AAAA`, 1)
		off = off[:len(off)-6] + `"}`
		stranger := b.unit()
		part := strings.Split(thief.registration(u.offer), ".")
		for _, tt := range []struct{ name, proof string }{
			{"a challenge that has ended", old.registration(old.offer)},
			{"a challenge nobody made", thief.registration(id + "." + b64url(make([]byte, 40)))},
			{"another session's token", thief.registration(id + "." + otherToken)},
			{"this session's token for another", thief.registration(otherID + "." + token)},
			{"a refresh's challenge", thief.registration(id + "." + thief.challengeFor(id))},
			{"token alone", thief.registration(token)},
			{"without a key", thief.jws(proofHeader, claim(u.offer))},
			{"signed by another", thief.jws(`{"alg":"ES256","typ":"dbsc+jwt","jwk":`+stranger.jwk()+`}`, claim(u.offer))},
			{"a point off the curve", thief.jws(`{"alg":"ES256","typ":"dbsc+jwt","jwk":`+off+`}`, claim(u.offer))},
			{"no algorithm", b64url([]byte(`{"alg":"none","typ":"dbsc+jwt","jwk":`+thief.jwk()+`}`)) + "." + part[1] + "."},
			{"another type", thief.jws(`{"alg":"ES256","typ":"jwt","jwk":`+thief.jwk()+`}`, claim(u.offer))},
			{"the key twice", thief.jws(`{"alg":"ES256","typ":"dbsc+jwt","jwk":`+thief.jwk()+`,"jwk":`+u.jwk()+`}`, claim(u.offer))},
		} {
			b.store.took()
			resp := thief.prove("", tt.proof)
			if resp.status != 403 || len(resp.cookies()) > 0 || resp.body != "" {
				t.Errorf("%s: got %d, %d cookies, %d bytes, want 403 and nothing else", tt.name, resp.status, len(resp.cookies()), len(resp.body))
			}
			wantCalls(t, tt.name, b.store, "")
		}
		// With another session's cookie, and with none.
		wrong := other.copied()
		want(t, "another session's cookie", wrong.prove("", thief.registration(u.offer)), 200, `{"session_identifier":"`+id+`","continue":false}`)
		wantSet(t, "another session's cookie", wrong.prove("", thief.registration(u.offer)), "")
		delete(wrong.jar, "session")
		b.store.took()
		none := wrong.prove("", thief.registration(u.offer))
		want(t, "no cookie", none, 200, `"continue":false`)
		wantSet(t, "no cookie", none, "")
		wantCalls(t, "no cookie", b.store, "")
		want(t, "the browser's own", u.register(), 200, "refresh_url")
		want(t, "the browser's own again", u.register(), 200, "refresh_url")
		want(t, "the browser", u.get("/"), 200, "ada true")
	})
}

// challengeFor asks for the challenge of any binding.
func (u *unit) challengeFor(id string) string {
	v := *u
	v.id = id
	return v.challenge()
}

// A second, different key for one session is somebody else's, before or after the
// browser's own: the session ends, for both.
func TestDeviceBoundSecondKey(t *testing.T) {
	for _, confirmed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			log := new(logRecorder)
			b := newBoundSite(t, func(c *session.Config) { c.Logger = log.logger() })
			u := b.unit()
			u.send("POST", "/login")
			thief := u.copied()
			want(t, "first key", thief.register(), 200, "refresh_url")
			if confirmed {
				want(t, "thief", thief.get("/"), 200, "ada true")
			}
			second := u.register()
			want(t, "second key", second, 200, `"continue":false`)
			wantSet(t, "second key", second, "-session-bound")
			want(t, "thief", thief.get("/"), 200, "nobody false")
			b.store.wantRecords(t, 0)
			if !strings.Contains(log.String(), "a second key was registered") {
				t.Error("got no warning")
			}
		})
	}
}

// Two registrations that meet inside the store: one key is stored, the other ends
// the session.
func TestDeviceBoundSecondKeyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t)
		u := b.unit()
		u.send("POST", "/login")
		thief := u.copied()
		elsewhere := thief.at(newBoundSiteOver(t, b.store))
		b.beforeUpdate(func() { want(t, "the other's", elsewhere.register(), 200, "refresh_url") })
		want(t, "the one that comes second", u.register(), 200, `"continue":false`)
		b.store.wantRecords(t, 0)
	})
}

// beforeUpdate runs f, at another instance, when this one is about to write:
// within one instance the writes of a session queue.
func (b *boundSite) beforeUpdate(f func()) {
	b.store.on("Update", func(_ context.Context, _ *storeCall, do func() error) error {
		b.store.on("Update", nil)
		f()
		return do()
	})
}

// The bound cookie with another expiry, of another session, made for something
// else, or of a dropped secret.
func TestDeviceBoundCookieAttacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t)
		u, other := b.boundUnit(), b.boundUnit()
		kept := u.jar["session-bound"]
		raw, err := base64.RawURLEncoding.DecodeString(kept)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 8 { // each byte of the expiry
			altered := append([]byte(nil), raw...)
			altered[i] ^= 0x40
			u.jar["session-bound"] = b64url(altered)
			want(t, fmt.Sprintf("byte %d of the expiry", i), u.get("/"), 307, "")
			delete(u.jar, "session-bound-again")
		}
		for name, value := range map[string]string{
			"another session's":  other.jar["session-bound"],
			"a challenge":        u.challenge(),
			"the registration's": u.offer,
			"the session's":      u.jar["session"],
			"empty":              "",
			"overlong":           strings.Repeat("A", 3000),
		} {
			u.jar["session-bound"] = value
			want(t, name, u.get("/"), 307, "")
			delete(u.jar, "session-bound-again")
		}
		u.jar["session-bound"] = kept
		want(t, "as it was", u.get("/"), 200, "ada true")
	})
}

// With the secret that signed it kept, a bound cookie and a challenge hold; with
// that dropped, the bound cookie heals where the session's is still good.
func TestDeviceBoundRotatedSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t, oldSecret)
		u := b.boundUnit()
		proof := u.jws(proofHeader, claim(u.challenge()))
		both := newBoundSiteOver(t, b.store, protocolSecrets)
		want(t, "kept: refresh", u.at(both).prove(u.id, proof), 200, "")
		oldBound := u.jar["session-bound"]
		want(t, "kept: page", u.at(both).get("/"), 200, "ada true")
		dropped := newBoundSiteOver(t, b.store)
		v := u.at(dropped)
		v.jar["session-bound"] = oldBound
		v.forget()
		want(t, "kept, refreshed", u.at(both).refresh(), 200, "")
		newBound := u.jar["session-bound"]
		want(t, "the session's cookie is signed anew", v.get("/"), 200, "ada true")
		v.jar["session-bound"] = b64url(make([]byte, 40))
		want(t, "dropped: wrong bound cookie", v.get("/"), 307, "")
		want(t, "dropped: refresh", v.refresh(), 200, "")
		want(t, "dropped: page", v.get("/"), 200, "ada true")
		v.jar["session-bound"] = newBound
		want(t, "the new secret's", v.get("/"), 200, "ada true")
		want(t, "a proof of a dropped secret's challenge", v.prove(u.id, proof), 403, "")
	})
}

// A confirmed session is never used as an unbound one, whatever is left out: no
// cookie, no headers, a browser that knows nothing of DBSC.
func TestDeviceBoundNoDowngrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t)
		u := b.boundUnit()
		thief := u.copied().forget()
		for name, header := range map[string][]string{
			"plain":           nil,
			"skipped, forged": {"Secure-Session-Skipped", `unreachable;session_identifier="` + u.id + `"`},
			"old name":        {"Sec-Session-Id", u.id},
			"own identifier":  {"Sec-Secure-Session-Id", u.id},
			"navigation":      {"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Site", "cross-site"},
			"pretends it is same-origin": {
				"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Site", "same-origin", "Origin", "https://example.com",
			},
		} {
			for _, path := range []string{"/", "/renew", "/bind", "/cart"} {
				if resp := thief.copied().send("POST", path, header...); strings.Contains(resp.body, "ada") {
					t.Errorf("%s, %s: got let in", name, path)
				}
			}
		}
		want(t, "the browser", u.get("/"), 200, "ada true")
		if keep := u.send("POST", "/renew"); keep.newCookie() == "" {
			t.Error("got no renewal: the thief may have renewed it")
		}
	})
}

// A renewal while a refresh is under way, before and after its load: the binding
// goes on under the new ID.
func TestDeviceBoundRenewRacesRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t)
		u := b.boundUnit()
		proof := u.jws(proofHeader, claim(u.challenge()))
		before := u.copied()
		want(t, "renewal", u.send("POST", "/renew"), 200, "ada true")
		before.device = u.device
		late := before.prove(u.id, proof) // sent with the old session cookie
		want(t, "the old ID", late, 503, "")
		wantSet(t, "the old ID", late, "")
		want(t, "the new ID", u.forget().prove(u.id, proof), 200, "")
		want(t, "page", u.get("/"), 200, "ada true")

		held := u.copied()
		held.device = u.device
		reached, release := b.store.gate("Load")
		done := make(chan *response)
		go func() { done <- held.prove(u.id, proof) }()
		<-reached
		b.store.fail()
		want(t, "renewal meanwhile", u.send("POST", "/renew"), 200, "ada true")
		close(release)
		want(t, "the refresh that loads after it", <-done, 503, "")
		want(t, "page", u.get("/"), 200, "ada true")
	})
}

// A registration that meets a renewal or a logout.
func TestDeviceBoundRegistrationRaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			path, body string
			status     int
			page       string
		}{
			{"/renew", "", 503, "ada false"},
			{"/logout", `"continue":false`, 200, "nobody false"},
			{"/bind", `"continue":false`, 200, "ada false"},
			{"/cart", "refresh_url", 200, "ada true"},
		} {
			b := newBoundSite(t)
			u := b.unit()
			u.send("POST", "/login")
			v := u.copied()
			v.device = u.device
			elsewhere := u.at(newBoundSiteOver(t, b.store))
			b.beforeUpdate(func() { elsewhere.send("POST", tt.path) })
			resp := v.register()
			want(t, tt.path+" meanwhile", resp, tt.status, tt.body)
			if bound := v.jar["session-bound"]; bound != "" {
				u.jar["session-bound"] = bound
			}
			want(t, tt.path+" meanwhile: page", u.get("/"), 200, tt.page)
		}
	})
}

// A refresh that comes after a logout revives nothing, before and after its load.
func TestDeviceBoundLateRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t)
		u := b.boundUnit()
		proof := u.jws(proofHeader, claim(u.challenge()))
		late := u.copied()
		want(t, "logout", u.send("POST", "/logout"), 200, "nobody false")
		resp := late.prove(u.id, proof)
		want(t, "refresh after it", resp, 200, `{"session_identifier":"`+u.id+`","continue":false}`)
		wantSet(t, "refresh after it", resp, "-session-bound")
		b.store.wantRecords(t, 0)

		v := b.boundUnit()
		proof = v.jws(proofHeader, claim(v.challenge()))
		late = v.copied()
		b.store.during("Load", func() { v.send("POST", "/logout") }) // which needs no load
		resp = late.prove(v.id, proof)
		b.store.fail()
		want(t, "a refresh that loads after it", resp, 200, `"continue":false`)
		b.store.on("Load", nil)
		b.store.wantRecords(t, 0)
		want(t, "the cookie of before", late.get("/"), 200, "nobody false")
	})
}

// The endpoint's answer that a session is gone comes after the same browser's next
// login: it takes nothing of that away. What it drops, the bound cookie, is proven anew.
func TestDeviceBoundLateEndKeepsLogin(t *testing.T) {
	for _, tt := range []struct {
		name  string
		start func(*boundSite) *unit
		end   func(gone *unit) *response // what is late
	}{
		{"a refresh of a session that was ended", (*boundSite).boundUnit, func(gone *unit) *response {
			proof := gone.jws(proofHeader, claim(gone.challenge()))
			gone.copied().send("POST", "/logout")
			return gone.prove(gone.id, proof)
		}},
		{"a second key", func(b *boundSite) *unit {
			u := b.unit()
			u.send("POST", "/login")
			u.copied().register()
			return u
		}, (*unit).register},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBoundSite(t)
				u := tt.start(b)
				gone := u.copied()
				gone.device = u.device
				late := tt.end(gone)
				want(t, "the end", late, 200, `"continue":false`)
				wantSet(t, "the end", late, "-session-bound")
				want(t, "the browser, meanwhile", u.get("/"), 200, "nobody false")
				u.send("POST", "/login")
				want(t, "registration", u.register(), 200, "refresh_url")
				want(t, "page", u.get("/"), 200, "ada true")
				pass(boundGrace)
				u.take(late)
				want(t, "refresh", u.refresh(), 200, "")
				want(t, "still logged in", u.get("/"), 200, "ada true")
			})
		})
	}
}

// A login while a refresh of the old session is under way: the bound cookie of
// the old one, which comes last, heals, and so does the new one's.
func TestDeviceBoundLoginRacesOldRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t)
		u := b.boundUnit()
		old := u.copied()
		old.device, old.id = u.device, u.id
		oldProof := u.jws(proofHeader, claim(u.challenge()))
		// Unproven, so absent, so the login begins a session of its own.
		u.forget()
		u.send("POST", "/login")
		want(t, "registration", u.register(), 200, "refresh_url")
		want(t, "page", u.get("/"), 200, "ada true")
		pass(boundGrace)
		refresh := old.prove(old.id, oldProof)
		want(t, "the old session's refresh", refresh, 200, "")
		u.take(refresh) // its bound cookie is the last one
		want(t, "wrong bound cookie", u.get("/"), 307, "")
		want(t, "refresh", u.refresh(), 200, "")
		want(t, "page", u.get("/"), 200, "ada true")
		// The old binding ends at its next refresh, and nothing of the new one.
		end := u.prove(old.id, old.jws(proofHeader, claim(u.challengeFor(old.id))))
		want(t, "the old binding", end, 200, `"continue":false`)
		wantSet(t, "the old binding", end, "")
		want(t, "page", u.get("/"), 200, "ada true")
	})
}

// Revoked and expired sessions end the binding too.
func TestDeviceBoundEndsWithTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t, func(c *session.Config) { c.IdleTimeout = time.Hour })
		u := b.boundUnit()
		pass(2 * time.Hour)
		resp := u.refresh()
		want(t, "expired", resp, 200, `"continue":false`)
		wantSet(t, "expired", resp, "-session-bound")
	})
}

// An identifier that is none of ours, in any form.
func TestDeviceBoundForeignIdentifier(t *testing.T) {
	b := newBoundSite(t)
	u := b.unit()
	u.send("POST", "/login")
	b.store.took()
	for _, tt := range []struct {
		id     string
		status int
		body   string
	}{
		{"other", 200, `{"session_identifier":"other","continue":false}`},
		{`"quoted"`, 200, `{"session_identifier":"quoted","continue":false}`},
		{`"</script>"`, 200, `{"session_identifier":"\u003c/script\u003e","continue":false}`},
		{"a b", 403, ""},
		{"", 403, ""},
		{strings.Repeat("a", 5000), 403, ""},
	} {
		resp := ask(b.h, u.request("POST", "/session/bind", "Sec-Secure-Session-Id", tt.id))
		want(t, tt.id, resp, tt.status, tt.body)
		if len(resp.cookies()) > 0 {
			t.Errorf("%.20s: got cookies", tt.id)
		}
	}
	wantCalls(t, "foreign identifiers", b.store, "")
}
