package session_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
)

// A whole life, each step with the operations of the store that it costs.
func TestDeviceBoundLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t)
		u := b.unit()
		login := u.send("POST", "/login")
		want(t, "login", login, 200, "ada false")
		wantCalls(t, "login", b.store, "Create")
		wantSet(t, "login", login, "session")
		if got := login.header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("login: got Cache-Control %q, want no-store", got)
		}
		want(t, "page before the registration", u.get("/"), 200, "ada false")
		b.store.took()

		reg := u.register()
		wantCalls(t, "registration", b.store, "Load Update")
		wantSet(t, "registration", reg, "session-bound")
		if got, attrs := reg.setCookie(), "; Path=/; Expires="; !strings.Contains(got, attrs) || !strings.HasSuffix(got, "; Max-Age=600; HttpOnly; Secure; SameSite=Lax") {
			t.Errorf("registration: got cookie attributes %q", reg.attributes())
		}
		if got := login.setCookie(); !strings.HasSuffix(got, "; HttpOnly; Secure; SameSite=Lax") {
			t.Errorf("login: got cookie attributes %q, want those of the bound cookie", login.attributes())
		}
		want(t, "registration", reg, 200, `{"session_identifier":"`+u.id+`","refresh_url":"/session/bind","scope":{"include_site":false},`+
			`"credentials":[{"type":"cookie","name":"session-bound","attributes":"Path=/; HttpOnly; Secure; SameSite=Lax"}]}`)

		want(t, "first proven request", u.get("/"), 200, "ada true")
		wantCalls(t, "first proven request", b.store, "Load Update")
		want(t, "later request", u.get("/"), 200, "ada true")
		wantCalls(t, "later request", b.store, "Load")
		want(t, "page without the session", u.get("/public"), 200, "public")
		wantCalls(t, "page without the session", b.store, "")

		pass(boundRefresh)
		u.forget()
		challenge := u.challenge()
		wantCalls(t, "challenge", b.store, "")
		want(t, "refresh", u.prove(u.id, u.jws(proofHeader, claim(challenge))), 200, "")
		wantCalls(t, "refresh", b.store, "Load")
		want(t, "refreshed request", u.get("/"), 200, "ada true")

		b.store.took()
		renew := u.send("POST", "/renew")
		want(t, "renewal", renew, 200, "ada true")
		wantCalls(t, "renewal", b.store, "Load Update")
		wantSet(t, "renewal", renew, "session")
		if renew.header.Get("Secure-Session-Registration") != "" {
			t.Error("renewal: got a registration offered, which a thief could answer")
		}
		want(t, "renewed request", u.get("/"), 200, "ada true")
		want(t, "refresh of a renewed session", u.refresh(), 200, "")

		logout := u.send("POST", "/logout")
		wantSet(t, "logout", logout, "-session-bound -session")
		want(t, "refresh after logout", u.prove(u.id, ""), 200, `{"session_identifier":"`+u.id+`","continue":false}`)
		b.store.wantRecords(t, 0)
		if got := b.m.Stats(); got.Bound != 1 || got.Refreshed != 2 || got.Unproven != 0 {
			t.Errorf("Stats: got %d bound, %d refreshed, %d unproven, want 1, 2, 0", got.Bound, got.Refreshed, got.Unproven)
		}
	})
}

// A copy of all cookies works until the bound cookie ends, and a minute more; the
// browser goes on.
func TestDeviceBoundCopyEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t)
		u := b.boundUnit()
		thief := u.copied()
		want(t, "thief at once", thief.get("/"), 200, "ada true")
		pass(boundRefresh + 30*time.Second)
		want(t, "thief within the slack", thief.get("/"), 200, "ada true")
		pass(30 * time.Second)
		again := thief.get("/")
		want(t, "thief", again, 307, "")
		wantSet(t, "thief", again, "-session-bound session-bound-again")
		want(t, "thief, come again", thief.get("/"), 200, "nobody false")
		want(t, "thief's own proof", thief.refresh(), 403, "")
		want(t, "thief's change", thief.send("POST", "/cart"), 200, "nobody false") // a session of his own
		u.forget()
		want(t, "the browser's refresh", u.refresh(), 200, "")
		want(t, "the browser", u.get("/"), 200, "ada true")
		if n := b.m.Stats().Unproven; n == 0 {
			t.Error("Stats.Unproven: got 0, want the thief counted")
		}
	})
}

// Without the proof of a key that counts: each case, in its order, and none
// repeats.
func TestDeviceBoundUnproven(t *testing.T) {
	skipped := func(u *unit) []string {
		return []string{"Secure-Session-Skipped", `unreachable;session_identifier="` + u.id + `"`}
	}
	link := []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Site", "cross-site"}
	for _, tt := range []struct {
		name           string
		bad            bool
		method         string
		skipped        bool
		header         []string
		status         int
		body, location string
	}{
		{"nothing", false, "GET", false, nil, 200, "nobody false", ""},
		{"nothing, POST", false, "POST", false, nil, 200, "nobody false", ""},
		{"bad cookie", true, "GET", false, nil, 307, "", "./page?a=b&c"},
		{"bad cookie, POST", true, "POST", false, nil, 307, "", "./page?a=b&c"},
		{"bad cookie before all else", true, "GET", true, link, 307, "", "./page?a=b&c"},
		{"link on another site", false, "GET", false, link, 403, `http-equiv="refresh"`, ""},
		{"link on a sibling", false, "GET", false, []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Site", "same-site"}, 403, `http-equiv="refresh"`, ""},
		{"link before skipped", false, "GET", true, link, 403, `http-equiv="refresh"`, ""},
		{"form on another site", false, "POST", false, link, 200, "nobody false", ""},
		{"picture on another site", false, "GET", false, []string{"Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Site", "cross-site"}, 200, "nobody false", ""},
		{"the page that has loaded itself again", false, "GET", false, []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Site", "same-origin"}, 200, "nobody false", ""},
		{"skipped", false, "GET", true, nil, 503, "Service Unavailable", ""},
		{"skipped, POST", false, "POST", true, nil, 503, "Service Unavailable", ""},
		{"skipped by another session", false, "GET", false, []string{"Secure-Session-Skipped", `unreachable;session_identifier="other"`}, 200, "nobody false", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := new(logRecorder)
				b := newBoundSite(t, func(c *session.Config) { c.Logger = log.logger() })
				u := b.boundUnit()
				log.reset()
				u.forget()
				if tt.bad {
					u.jar["session-bound"] = "AAAA"
				}
				header := tt.header
				if tt.skipped {
					header = append(header, skipped(u)...)
				}
				resp := u.send(tt.method, "/page?a=b&c", header...)
				want(t, "response", resp, tt.status, tt.body)
				if got := resp.header.Get("Location"); got != tt.location {
					t.Errorf("got Location %q, want %q", got, tt.location)
				}
				if got := resp.header.Get("Cache-Control"); tt.status != 200 && got != "no-store" {
					t.Errorf("got Cache-Control %q, want no-store", got)
				}
				wantCalls(t, "enforcement", b.store, "Load")
				if n := b.m.Stats().Unproven; n != 1 {
					t.Errorf("Stats.Unproven: got %d, want 1", n)
				}
				if lines := log.from(slog.LevelWarn); len(lines) != 0 { // anybody can cause it
					t.Errorf("got the log lines %q, want none of trouble", lines)
				}
				cookies := map[bool]string{true: "-session-bound session-bound-again"}
				wantSet(t, "response", resp, cookies[tt.bad])
				// The session lives, and its cookie was left alone.
				want(t, "refresh", u.refresh(), 200, "")
				want(t, "proven", u.get("/"), 200, "ada true")
			})
		})
	}
}

// A bad bound cookie that cannot be dropped, because another host of the site has
// set it, is no redirect without end.
func TestDeviceBoundDoesNotLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t)
		u := b.boundUnit().forget()
		redirects := 0
		for range 10 {
			u.jar["session-bound"] = "tossed"
			if u.get("/").status == 307 {
				redirects++
			}
		}
		if redirects != 1 {
			t.Errorf("got %d redirects, want 1", redirects)
		}
		// With the browser's own cookie beside it all is well.
		delete(u.jar, "session-bound")
		refresh := u.refresh()
		want(t, "refresh", refresh, 200, "")
		wantSet(t, "refresh", refresh, "session-bound -session-bound-again") // the next one heals as well
		r := u.request("GET", "/")
		r.Header.Set("Cookie", "session-bound=tossed; "+r.Header.Get("Cookie"))
		want(t, "two bound cookies", ask(b.h, r), 200, "ada true")
	})
}

// The 307 names the URL as the browser knows it, and never another host.
func TestDeviceBoundComesAgainAtTheSameURL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t)
		u := b.boundUnit()
		for _, tt := range []struct{ uri, want string }{
			{"/", "./"},
			{"/a/b", "./b"},
			{"/a/b/", "./"},
			{"/a/b?", "./b?"},
			{"/a?x=/y/../z", "./a?x=/y/../z"},
			{"//evil.example/a", "./a"},
			{"/\\evil.example", "./\\evil.example"},
			{"/a:b", "./a:b"},
			{"/a%2fb", "./a%2fb"},
		} {
			r := u.request("GET", "/")
			r.RequestURI = tt.uri
			r.Header.Set("Cookie", r.Header.Get("Cookie")+"x") // whichever comes last
			r.Header.Set("Cookie", "session="+u.jar["session"]+"; session-bound=bad")
			resp := ask(b.h, r)
			if got := resp.header.Get("Location"); resp.status != 307 || got != tt.want {
				t.Errorf("%s: got %d to %q, want 307 to %q", tt.uri, resp.status, got, tt.want)
			}
		}
	})
}

// What began before the key counted, or left the browser before it had the bound
// cookie, is let in: else the pictures of the page after a login would be
// somebody's who is not logged in.
func TestDeviceBoundRaceAfterRegistration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t)
		u := b.unit()
		u.send("POST", "/login")
		slow := u.copied() // requests of the same browser, without the bound cookie
		u.register()
		want(t, "without the cookie, unconfirmed", slow.get("/"), 200, "ada false")
		want(t, "first proven request", u.get("/"), 200, "ada true")
		want(t, "without the cookie, just confirmed", slow.get("/"), 200, "ada true")
		pass(boundGrace)
		want(t, "without the cookie, later", slow.get("/"), 200, "nobody false")
		want(t, "with it", u.get("/"), 200, "ada true")
	})
}

// The reply to a registration is lost: the browser knows no session, and the key
// never counts.
func TestDeviceBoundLostReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t)
		u := b.unit()
		u.send("POST", "/login")
		lost := u.register()
		u.forget()
		pass(time.Hour)
		want(t, "an hour later", u.get("/"), 200, "ada false")
		pass(time.Hour)
		// The next login binds.
		u.send("POST", "/login")
		if u.register().status != 200 || lost.status != 200 {
			t.Error("got no registration")
		}
		want(t, "bound by the next login", u.get("/"), 200, "ada true")
	})
}

// Bind drops the old key at once, and the new one counts once it is proven.
func TestDeviceBoundBindAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t)
		u := b.boundUnit()
		old, oldCookie := u.id, u.jar["session-bound"]
		want(t, "Bind", u.send("POST", "/bind"), 200, "ada false")
		want(t, "refresh under the old key", u.refresh(), 200, `{"session_identifier":"`+old+`","continue":false}`)
		if u.jar["session"] == "" {
			t.Fatal("got the session's cookie dropped")
		}
		want(t, "registration", u.register(), 200, "refresh_url")
		if u.id == old {
			t.Error("got the same identifier for another key")
		}
		want(t, "proven", u.get("/"), 200, "ada true")
		pass(boundGrace)
		u.jar["session-bound"] = oldCookie
		want(t, "the old bound cookie", u.get("/"), 307, "")
	})
}

// Of two requests that bind at once the last one's key is asked for, and no other.
func TestDeviceBoundBindTwiceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t)
		u := b.unit()
		u.send("POST", "/login")
		first := u.offer
		h := b.m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			s.Bind()
			if err := s.Save(r.Context()); err != nil {
				t.Error(err)
			}
			u.send("POST", "/bind")
			keyA.Set(s, "tea") // which finds the other's binding
		}))
		if resp := ask(h, u.request("POST", "/")); resp.status != 200 || resp.header.Get("Secure-Session-Registration") != "" {
			t.Errorf("got %d, and a key asked for that no longer counts", resp.status)
		}
		if u.offer == first {
			t.Error("got no key asked for by the last")
		}
		want(t, "registration", u.register(), 200, "refresh_url")
		want(t, "page", u.get("/"), 200, "ada true")
	})
}

func TestDeviceBoundBindTooLate(t *testing.T) {
	b := newBoundSite(t)
	u := b.unit()
	u.send("POST", "/login")
	h := b.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("x"))
		s := session.From(r.Context())
		s.Bind()
		if s.Err() == nil {
			t.Error("got no error")
		}
	}))
	if resp := askBroken(h, u.request("GET", "/")); resp.err == nil || resp.header.Get("Secure-Session-Registration") != "" {
		t.Error("got a complete response, or a registration offered")
	}
}

// While the commit is under way that sends the header, it is too late as well: no
// response could ask for the key any more, and the old one would have ended.
func TestDeviceBoundBindBesideTheCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t)
		u := b.boundUnit()
		h := b.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			keyA.Set(s, "tea")
			b.store.during("Update", s.Bind)
			_, _ = w.Write([]byte("page"))
		}))
		if resp := askBroken(h, u.request("POST", "/")); resp.err == nil {
			t.Errorf("got a complete response %d", resp.status)
		}
		want(t, "the binding", u.forget().refresh(), 200, "")
		want(t, "page", u.get("/"), 200, "ada true")
	})
}

// Who hijacks writes the header himself, and nobody asks for the key: an error, as
// that of a renewal, and the old binding stays.
func TestDeviceBoundBindThenHijack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t)
		u := b.boundUnit()
		h := b.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			session.From(r.Context()).Bind()
			if _, _, err := http.NewResponseController(w).Hijack(); !errors.Is(err, session.ErrHeaderSent) {
				t.Errorf("got %v, want ErrHeaderSent", err)
			}
		}))
		w := &hijackableRecorder{httptest.NewRecorder()}
		h.ServeHTTP(w, u.request("GET", "/"))
		if w.Code != 500 {
			t.Errorf("got %d, want 500", w.Code)
		}
		want(t, "refresh", u.forget().refresh(), 200, "")
		want(t, "page", u.get("/"), 200, "ada true")
	})
}

// Where DeviceBound is off Bind does nothing, and a session that is bound already
// is used as any other: that is how to switch it off.
func TestDeviceBoundOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t)
		u := b.boundUnit().forget()
		off := newBoundSiteOver(t, b.store, func(c *session.Config) { c.DeviceBound = session.DeviceBoundConfig{} })
		want(t, "bound session, switched off", u.at(off).get("/"), 200, "ada false")
		v := off.unit()
		if resp := v.send("POST", "/login"); resp.header.Get("Secure-Session-Registration") != "" {
			t.Error("got a registration offered")
		}
		want(t, "the endpoint's path", v.send("POST", "/session/bind"), 200, "ada false")
		want(t, "switched on again", u.get("/"), 200, "nobody false")
		want(t, "refresh", u.refresh(), 200, "")
		want(t, "proven", u.get("/"), 200, "ada true")
	})
}

// Two instances, neither of which has seen what the other answered.
func TestDeviceBoundInstances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newBoundSite(t)
		b := newBoundSiteOver(t, a.store)
		u := a.unit()
		u.send("POST", "/login")
		at := func(site *boundSite) *unit { u.site = site; return u }
		want(t, "registration", at(b).register(), 200, "refresh_url")
		want(t, "proven", at(a).get("/"), 200, "ada true")
		want(t, "proven elsewhere", at(b).get("/"), 200, "ada true")
		for range 3 {
			u.forget()
			challenge := at(a).challenge()
			want(t, "refresh", at(b).prove(u.id, u.jws(proofHeader, claim(challenge))), 200, "")
			want(t, "page", at(a).get("/"), 200, "ada true")
		}
	})
}

// Require ends what was not proven in time, and nothing else.
func TestDeviceBoundRequire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t, func(c *session.Config) { c.DeviceBound.Require = 5 * time.Minute })
		u, unable, before := b.unit(), b.unit(), b.unit()
		u.send("POST", "/login")
		unable.send("POST", "/login")
		before.send("POST", "/cart") // nobody has called Bind
		u.register()
		pass(5*time.Minute - time.Second)
		want(t, "unproven, in time", unable.get("/"), 200, "ada false")
		pass(time.Second)
		want(t, "unproven, late", unable.get("/"), 200, "nobody false")
		want(t, "unproven, late: the login page", unable.send("POST", "/login"), 200, "ada false")
		want(t, "never asked", before.get("/"), 200, "nobody false")
		want(t, "proven late", u.get("/"), 200, "ada true") // it has the cookie
		if before.id != "" || before.send("POST", "/cart").header.Get("Set-Cookie") != "" {
			t.Error("never asked: got another session")
		}
	})
}

// The store is down at each step: no step ends the session, and none is a 2xx.
func TestDeviceBoundStoreDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, op := range []string{"Load", "Update"} {
			b := newBoundSite(t)
			u := b.unit()
			u.send("POST", "/login")
			b.store.fail(op)
			reg := u.register()
			want(t, op+" down, registration", reg, 503, "")
			wantSet(t, op+" down, registration", reg, "")
			if reg.header.Get("Retry-After") == "" {
				t.Error("registration: got no Retry-After")
			}
			b.store.fail()
			want(t, op+" up again, registration", u.register(), 200, "refresh_url")
			b.store.fail("Update")
			want(t, "Update down, first proven request", u.get("/"), 200, "ada true")
			want(t, "Update down, unproven", u.copied().forget().get("/"), 200, "ada false")
			b.store.fail()
			want(t, "up again", u.get("/"), 200, "ada true")
			pass(boundGrace)
			u.forget()
			b.store.fail("Load")
			challenge := u.challenge()
			resp := u.prove(u.id, u.jws(proofHeader, claim(challenge)))
			want(t, "Load down, refresh", resp, 503, "")
			wantSet(t, "Load down, refresh", resp, "")
			want(t, "Load down, page", u.get("/"), 503, "")
			b.store.fail()
			want(t, "up again, refresh", u.refresh(), 200, "")
			want(t, "up again, page", u.get("/"), 200, "ada true")
			b.store.fail("Delete")
			want(t, "Delete down, second key", u.copied().register(), 503, "")
			want(t, "Delete down, logout", u.send("POST", "/logout"), 503, "")
		}
	})
}

// Sealed with the application's keys, under an ID that renewals change.
func TestDeviceBoundEncrypted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t, func(c *session.Config) { c.Encrypt = true })
		u := b.boundUnit()
		u.send("POST", "/renew")
		want(t, "refresh", u.forget().refresh(), 200, "")
		want(t, "page", u.get("/"), 200, "ada true")
		for _, data := range b.store.live(t) {
			if strings.Contains(data, "__bound") || strings.Contains(data, u.id) {
				t.Error("got the binding in the clear")
			}
		}
	})
}

// The application sees no member of ours, and cannot write it.
func TestDeviceBoundMemberIsHidden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t)
		u := b.boundUnit()
		const member = session.Key[json.RawMessage]("__bound")
		useSession(b.m, "session="+u.jar["session"]+"; session-bound="+u.jar["session-bound"], func(s *session.Session) {
			if _, ok := member.Get(s); ok || len(s.Keys()) != 1 {
				t.Errorf("got it read, or %d keys, want 1", len(s.Keys()))
			}
			if member.Delete(s); s.Err() == nil {
				t.Error("got it deleted")
			}
		})
		want(t, "page", u.get("/"), 200, "ada true")
	})
}

// "Your devices" tells which are bound.
func TestDeviceBoundInfo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		var cfg session.Config
		withBinding(&cfg)
		b := &boundSite{t: t, store: store, m: newManager(t, store.whole(), cfg)}
		b.h = b.m.Handler(http.HandlerFunc(boundPages))
		b.boundUnit()
		b.unit().send("POST", "/login")
		infos, err := b.m.Sessions(t.Context(), userKey.Is("ada"))
		if err != nil || len(infos) != 2 {
			t.Fatalf("got %d sessions, %v, want 2", len(infos), err)
		}
		bound := 0
		for _, i := range infos {
			if i.Bound {
				bound++
			}
			if _, ok := session.Key[json.RawMessage]("__bound").Of(i); ok {
				t.Error("got the member read")
			}
		}
		if bound != 1 {
			t.Errorf("got %d bound, want 1", bound)
		}
	})
}

// Destroy deletes a session that its browser may not use, too.
func TestDeviceBoundDestroyUnproven(t *testing.T) {
	for _, header := range [][]string{nil, {"Secure-Session-Skipped", ""}} {
		synctest.Test(t, func(t *testing.T) {
			b := newBoundSite(t)
			u := b.boundUnit().forget()
			if header != nil {
				header[1] = `server_error;session_identifier="` + u.id + `"`
			}
			h := b.m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				userKey.Get(s) // the application has looked first
				s.Destroy()
			}))
			resp := askBroken(h, u.request("POST", "/logout", header...))
			if header == nil {
				want(t, "logout", resp, 200, "")
				wantSet(t, "logout", resp, "-session-bound -session")
			}
			b.store.wantRecords(t, 0)
		})
	}
}

// New refuses what browsers refuse and what would promise more than it holds.
func TestDeviceBoundConfigIsChecked(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(*session.Config)
		want string // "": no fault
	}{
		{"as it should be", func(*session.Config) {}, ""},
		{"five minutes", func(c *session.Config) { c.DeviceBound.Refresh = 5 * time.Minute }, ""},
		{"a path of its own", func(c *session.Config) { c.DeviceBound.Path = "/a/b-c_d~e.f" }, ""},
		{"below Cookie.Path", func(c *session.Config) { c.Cookie.Path, c.DeviceBound.Path = "/app", "/app/bind" }, ""},
		{"__Host-", func(c *session.Config) { c.Cookie.Name = "__Host-s" }, ""},
		{"too short", func(c *session.Config) { c.DeviceBound.Refresh = 5*time.Minute - 1 }, "DeviceBound.Refresh"},
		{"negative", func(c *session.Config) { c.DeviceBound.Refresh = -1 }, "DeviceBound.Refresh"},
		{"too long", func(c *session.Config) { c.DeviceBound.Refresh = 25 * time.Hour }, "DeviceBound.Refresh"},
		{"Path without Refresh", func(c *session.Config) { c.DeviceBound = session.DeviceBoundConfig{Path: "/p"} }, "DeviceBound.Refresh"},
		{"Require without Refresh", func(c *session.Config) { c.DeviceBound = session.DeviceBoundConfig{Require: time.Hour} }, "DeviceBound.Refresh"},
		{"Require too short", func(c *session.Config) { c.DeviceBound.Require = time.Second }, "DeviceBound.Require"},
		{"Require negative", func(c *session.Config) { c.DeviceBound.Require = -1 }, "DeviceBound.Require"},
		{"relative path", func(c *session.Config) { c.DeviceBound.Path = "bind" }, "DeviceBound.Path"},
		{"the root", func(c *session.Config) { c.DeviceBound.Path = "/" }, "DeviceBound.Path"},
		{"unclean path", func(c *session.Config) { c.DeviceBound.Path = "/a/../b" }, "DeviceBound.Path"},
		{"slash at the end", func(c *session.Config) { c.DeviceBound.Path = "/a/" }, "DeviceBound.Path"},
		{"quote in the path", func(c *session.Config) { c.DeviceBound.Path = `/a"` }, "DeviceBound.Path"},
		{"query in the path", func(c *session.Config) { c.DeviceBound.Path = "/a?b" }, "DeviceBound.Path"},
		{"outside of Cookie.Path", func(c *session.Config) { c.Cookie.Path, c.DeviceBound.Path = "/app", "/application/bind" }, "DeviceBound.Path"},
		{"Express", func(c *session.Config) { c.Cookie.Format = session.FormatExpress }, "FormatSecureCookie"},
		{"SecureAuto", func(c *session.Config) { c.Cookie.Secure = session.SecureAuto }, "SecureAlways"},
		{"SecureNever", func(c *session.Config) { c.Cookie.Secure = session.SecureNever }, "SecureAlways"},
		{"Partitioned", func(c *session.Config) { c.Cookie.Partitioned = true }, "Partitioned"},
		{"Domain", func(c *session.Config) { c.Cookie.Domain = "example.com" }, "Domain"},
	} {
		cfg := session.Config{Secret: testSecret, DisablePrune: true, Logger: new(logRecorder).logger()}
		cfg.Cookie.Secure = session.SecureAlways
		cfg.DeviceBound.Refresh = boundRefresh
		tt.set(&cfg)
		_, err := session.New(session.NewMemoryStore(), cfg)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want a fault with %q", tt.name, err, tt.want)
		}
	}
}

// The endpoint is where it is said to be, below a cookie's path too, with the
// cookie's own attributes.
func TestDeviceBoundPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundSite(t, func(c *session.Config) {
			c.Cookie.Path, c.Cookie.SameSite, c.Cookie.Name = "/app", http.SameSiteStrictMode, "__Secure-s"
		})
		b.h = http.StripPrefix("/app", http.HandlerFunc(boundPages))
		b.h = b.m.Handler(b.h)
		u := b.unit()
		login := u.send("POST", "/app/login")
		want(t, "login", login, 200, "ada false")
		if got := login.header.Get("Secure-Session-Registration"); !strings.HasPrefix(got, `(ES256);path="/app/session/bind";`) {
			t.Error("got another path offered")
		}
		reg := u.send("POST", "/app/session/bind", "Secure-Session-Response", u.registration(u.offer))
		want(t, "registration", reg, 200, `"name":"__Secure-s-bound","attributes":"Path=/app; HttpOnly; Secure; SameSite=Strict"`)
		wantSet(t, "registration", reg, "__Secure-s-bound")
		want(t, "GET", u.get("/app/session/bind"), 405, "")
	})
}

// A response that caches may keep offers no registration to whoever gets it next.
func TestDeviceBoundOfferIsNotCached(t *testing.T) {
	b := newBoundSite(t)
	h := b.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=60")
		w.Header().Set("CDN-Cache-Control", "max-age=60")
		s := session.From(r.Context())
		userKey.Set(s, "ada")
		s.Bind()
	}))
	u := b.unit()
	resp := ask(h, u.request("GET", "/"))
	u.take(resp)
	again := ask(h, u.request("GET", "/"))
	for _, r := range []*response{resp, again} {
		if r.header.Get("Secure-Session-Registration") == "" || r.header.Get("Cache-Control") != "no-store" || r.header.Get("CDN-Cache-Control") != "" {
			t.Errorf("got Cache-Control %q, want no-store and an offer", r.header.Get("Cache-Control"))
		}
	}
}
