package session_test

import (
	"sync"
	"testing"
	"testing/synctest"

	"github.com/pgsession/session"
)

// A bound session goes on over a change of the secret in a running program: what
// the old one made for it still holds while that is given as old, and what comes
// after is made by the new one. Afterwards it holds no more; the bound cookie heals.
func TestDeviceBoundSetSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, encrypt := range []bool{false, true} {
			sealed := func(c *session.Config) { c.Encrypt = encrypt }
			b := newBoundSite(t, oldSecret, sealed)
			u, offered, late := b.boundUnit(), b.unit(), b.unit()
			offered.send("POST", "/login")
			late.send("POST", "/login")
			challenge, bound := u.challenge(), u.jar["session-bound"]

			if err := b.m.SetSecrets(testSecret, testSecretOld); err != nil {
				t.Fatal(err)
			}
			want(t, "the old one's bound cookie", u.get("/"), 200, "ada true")
			want(t, "an answer to its challenge", u.prove(u.id, u.jws(proofHeader, claim(challenge))), 200, "")
			want(t, "an answer to its registration", offered.register(), 200, "refresh_url")
			want(t, "the one that is registered", offered.get("/"), 200, "ada true")
			want(t, "one that is still to register", late.send("POST", "/cart"), 200, "ada false")
			want(t, "a save, which seals anew", u.send("POST", "/cart"), 200, "ada true")
			onlyNew := newBoundSiteOver(t, b.store, sealed)
			want(t, "another program, which has the new secret alone", u.at(onlyNew).get("/"), 200, "ada true")
			want(t, "a challenge of the new one, there", u.at(onlyNew).prove(u.id, u.jws(proofHeader, claim(u.challenge()))), 200, "")

			if err := b.m.SetSecrets("short"); err == nil {
				t.Error("a faulty secret: got no error")
			}
			old := u.copied()
			old.jar["session-bound"] = bound
			want(t, "after a faulty one: the old one's bound cookie", old.get("/"), 200, "ada true")

			if err := b.m.SetSecrets(testSecret); err != nil {
				t.Fatal(err)
			}
			want(t, "dropped: an answer to its registration", late.register(), 403, "")
			want(t, "dropped: the one that did not register", late.get("/"), 200, "ada false")
			u.jar["session-bound"] = bound
			want(t, "dropped: an answer to its challenge", u.prove(u.id, u.jws(proofHeader, claim(challenge))), 403, "")
			want(t, "dropped: its bound cookie", u.get("/"), 307, "")
			want(t, "dropped: refresh", u.refresh(), 200, "")
			want(t, "dropped: page", u.get("/"), 200, "ada true")
		}
	})
}

// Pages and refreshes go on while the secret is changed back and forth: nobody is
// asked for a proof again.
func TestDeviceBoundSetSecretsBesideRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t, protocolSecrets)
		const browsers, rounds = 2, 100
		var units [browsers]*unit
		for i := range units {
			units[i] = b.boundUnit()
		}
		stop := make(chan struct{})
		var changing sync.WaitGroup
		changing.Go(func() {
			secrets := []string{testSecret, testSecretOld}
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := b.m.SetSecrets(secrets[n%2], secrets[(n+1)%2]); err != nil {
					t.Errorf("SetSecrets: got %v, want no error", err)
				}
			}
		})
		together(browsers, func(i int) {
			for range rounds {
				want(t, "refresh", units[i].forget().refresh(), 200, "")
				want(t, "page", units[i].get("/"), 200, "ada true")
			}
		})
		close(stop)
		changing.Wait()
		if n := b.m.Stats().Unproven; n != 0 {
			t.Errorf("Stats.Unproven: got %d, want 0", n)
		}
	})
}
