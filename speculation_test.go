package session_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
)

// speculate lets a browser fetch a page that its user has not asked for yet.
func (b *browser) speculate(h http.HandlerFunc) *response {
	r := request("GET", b.cookie)
	r.Header.Set("Sec-Purpose", "prefetch;prerender")
	return askBroken(b.m.Handler(h), r)
}

// onSpeculation is a handler that works on the session and then writes its page.
func onSpeculation(f func(*session.Session)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Page", "yes")
		f(session.From(r.Context()))
		_, _ = io.WriteString(w, "page")
	}
}

// Whatever would change the session declines the response, and nothing else happens:
// the browser asks again when its user comes.
func TestSpeculationDeclined(t *testing.T) {
	for _, c := range []struct {
		name    string
		visitor bool // who has no session
		do      func(*session.Session)
	}{
		{"Set", false, func(s *session.Session) { keyA.Set(s, "1") }},
		{"Set to what is there", false, func(s *session.Session) { userKey.Set(s, "ada") }},
		{"Set in a new session", true, func(s *session.Session) { keyA.Set(s, "1") }},
		{"Update", false, increment},
		{"Take", false, func(s *session.Session) { userKey.Take(s) }},
		{"Delete", false, func(s *session.Session) { userKey.Delete(s) }},
		{"Renew", false, renew},
		{"a login", true, logIn("bob")},
		{"Destroy", false, destroy},
		{"Destroy, a visitor's", true, destroy},
		{"SetIdleTimeout", false, func(s *session.Session) { s.SetIdleTimeout(time.Hour) }},
		{"Bind", false, (*session.Session).Bind},
		{"Save", false, func(s *session.Session) {
			if err := s.Save(context.Background()); err == nil || errors.Is(err, session.ErrInvalid) || errors.Is(err, session.ErrDestroyed) {
				t.Errorf("Save: got %v, want an error of its own", err)
			}
		}},
		{"Save after a change", false, func(s *session.Session) { keyA.Set(s, "1"); _ = s.Save(t.Context()) }},
		{"a read, then a change", false, func(s *session.Session) { readUser(s); increment(s); readUser(s) }},
		{"left to the handler", false, func(s *session.Session) { s.Destroy(); s.Detach() }},
		{"left to the handler before", false, func(s *session.Session) { s.Detach(); s.Destroy() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			log, store := &logRecorder{}, newHookedStore()
			cfg := session.Config{
				Logger: log.logger(),
				ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
					t.Errorf("the error handler got %v, want nothing", err)
					w.WriteHeader(http.StatusTeapot)
				},
			}
			withBinding(&cfg)
			m := newManager(t, store, cfg)
			b := login(t, m)
			before := store.live(t)
			if c.visitor {
				b = &browser{m: m}
			}
			log.reset()
			store.took()
			resp := b.speculate(onSpeculation(c.do))
			wantResponse(t, "declined", resp, 503, "nothing")
			if resp.err != nil || resp.header.Get("X-Page") != "" || strings.Contains(resp.body, "page") {
				t.Errorf("got %v, header %v, body %q: something of the page's is in it", resp.err, resp.header, resp.body)
			}
			if got := resp.header.Get("Cache-Control"); got != "no-store" {
				t.Errorf("Cache-Control: got %q, want no-store", got)
			}
			if calls := store.took(); calls != "Load" && calls != "" {
				t.Errorf("store: got %s, want a Load at most", calls)
			}
			after := store.live(t)
			for id, row := range before {
				if len(after) != 1 || after[id] != row {
					t.Error("the record is another")
				}
			}
			if lines := log.from(slog.LevelInfo); len(lines) > 0 {
				t.Errorf("log: got %q, want nothing from Info on", lines)
			}
		})
	}
}

// When the user comes it all happens, once: a message that is shown once was not eaten.
func TestSpeculationThenTheUser(t *testing.T) {
	const flash = session.Key[string]("flash")
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{}))
	b.visit(func(s *session.Session) { flash.Set(s, "saved") })
	show := func(w http.ResponseWriter, r *http.Request) {
		text, _ := flash.Take(session.From(r.Context()))
		_, _ = io.WriteString(w, "message: "+text)
	}
	if resp := b.speculate(show); resp.status != 503 || strings.Contains(resp.body, "saved") {
		t.Errorf("on speculation: got %d %q, want 503 without the message", resp.status, resp.body)
	}
	if resp := b.serve(show); resp.body != "message: saved" {
		t.Errorf("the user's visit: got %q, want the message", resp.body)
	}
	// Without a message there is nothing to be eaten, and pages that look for one can
	// be fetched ahead.
	if resp := b.speculate(show); resp.status != 200 || resp.body != "message: " {
		t.Errorf("no message left: got %d %q, want the page", resp.status, resp.body)
	}
}

// What reads only is answered, extends nothing and sends no cookie; the user's visit
// does both.
func TestSpeculationReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		old := newManager(t, store, session.Config{Secret: testSecretOld, IdleTimeout: time.Hour})
		b := login(t, old).with(newManager(t, store, session.Config{OldSecrets: []string{testSecretOld}, IdleTimeout: time.Hour, AbsoluteTimeout: 10 * time.Hour}))
		pass(30 * time.Minute)
		store.took()
		var user string
		var left time.Duration
		resp := b.speculate(onSpeculation(func(s *session.Session) {
			user, _ = userKey.Get(s)
			left = s.ExpiresIn()
		}))
		wantResponse(t, "on speculation", resp, 200, "nothing")
		if user != "ada" || resp.body != "page" || left != 30*time.Minute || store.ttl(t) != left {
			t.Errorf("got user %q, %q, ExpiresIn %v, %v left, want ada, page, 30m, 30m", user, resp.body, left, store.ttl(t))
		}
		wantCalls(t, "on speculation", store, "Load")
		wantResponse(t, "the user's visit", b.visit(readUser), 200, "set")
		wantCalls(t, "the user's visit", store, "Load Touch")
	})
}

// Nothing is written, not even what the page does not depend on.
func TestSpeculationWritesNothing(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{AbsoluteTimeout: 10 * time.Hour})
	b := seededRow(t, store, m, `{"cookie":{"originalMaxAge":60000},"user":"ada"}`, time.Hour) // no creation time, too long
	wantResponse(t, "a read", b.speculate(onSpeculation(readUser)), 200, "nothing")
	wantCalls(t, "a read", store, "Load")
}

// After the first byte the response is cut off, which the browser drops as well.
func TestSpeculationAfterTheFirstByte(t *testing.T) {
	for name, do := range map[string]func(*session.Session){
		"Set": func(s *session.Session) { keyA.Set(s, "1") }, "Destroy": destroy, "Renew": renew,
		"Destroy, left to the handler": func(s *session.Session) { s.Detach(); s.Destroy() },
		"Save":                         func(s *session.Session) { _ = s.Save(t.Context()) },
	} {
		log, store := &logRecorder{}, newHookedStore()
		b := login(t, newManager(t, store, session.Config{Logger: log.logger()}))
		log.reset()
		before := store.live(t)
		resp := b.speculate(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "page")
			do(session.From(r.Context()))
		})
		if resp.err == nil {
			t.Errorf("%s: got a complete response, want one cut off", name)
		}
		for id, row := range before {
			if after := store.live(t); len(after) != 1 || after[id] != row {
				t.Errorf("%s: the record is another", name)
			}
		}
		if lines := log.from(slog.LevelInfo); len(lines) > 0 {
			t.Errorf("%s: log: got %q, want nothing from Info on", name, lines)
		}
	}
}

// An outage is one on speculation, too; and a page that says "logged out" is not sent
// where nobody was.
func TestSpeculationInAnOutage(t *testing.T) {
	store := newHookedStore()
	refused := 0
	m := newManager(t, store, session.Config{ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
		refused++
		w.WriteHeader(http.StatusServiceUnavailable)
	}})
	b := login(t, m)
	store.fail("Load")
	wantResponse(t, "a read", b.speculate(onSpeculation(readUser)), 503, "nothing")
	if refused != 1 {
		t.Errorf("the error handler was called %d times, want once", refused)
	}
	resp := b.speculate(onSpeculation(func(s *session.Session) { readUser(s); s.Detach(); s.Destroy() }))
	wantResponse(t, "a logout left to the handler", resp, 503, "nothing")
}

func TestSpeculationIsKnownByItsHeader(t *testing.T) {
	b := login(t, newManager(t, newHookedStore(), session.Config{}))
	for _, c := range []struct {
		name   string
		header http.Header
		want   int
	}{
		{"none", http.Header{}, 200},
		{"prefetch", http.Header{"Sec-Purpose": {"prefetch"}}, 503},
		{"prerender", http.Header{"Sec-Purpose": {"prefetch;prerender"}}, 503},
		{"spaces", http.Header{"Sec-Purpose": {" prefetch ; prerender"}}, 503},
		{"through a proxy of the browser's", http.Header{"Sec-Purpose": {"prefetch;anonymous-client-ip"}}, 503},
		{"several purposes", http.Header{"Sec-Purpose": {"something, prefetch"}}, 503},
		{"several lines", http.Header{"Sec-Purpose": {"something", "Prefetch"}}, 503},
		{"another purpose", http.Header{"Sec-Purpose": {"prefetcher"}}, 200},
		{"a parameter of another", http.Header{"Sec-Purpose": {"something;prefetch"}}, 200},
		{"empty", http.Header{"Sec-Purpose": {""}}, 200},
		// Scripts may set these; and Sec-Purpose is what the standard has.
		{"what it was called once", http.Header{"Purpose": {"prefetch"}, "X-Moz": {"prefetch"}}, 200},
	} {
		r := request("GET", b.cookie)
		for name, lines := range c.header {
			r.Header[name] = lines
		}
		if got := ask(b.m.Handler(onSpeculation(func(s *session.Session) { increment(s) })), r); got.status != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got.status, c.want)
		}
	}
}

// A logout tells the browser to drop the pages that it holds in reserve, where the
// context is secure, and leaves what the application says beside it.
func TestLogoutDropsSpeculations(t *testing.T) {
	const header = "Clear-Site-Data"
	both := []string{`"prefetchCache"`, `"prerenderCache"`}
	always := session.CookieConfig{Secure: session.SecureAlways}
	for _, c := range []struct {
		name string
		cfg  session.Config
		do   func(http.Header, *session.Session)
		want []string
	}{
		{"Destroy", session.Config{Cookie: always}, func(_ http.Header, s *session.Session) { s.Destroy() }, both},
		{"and a new session", session.Config{Cookie: always}, func(_ http.Header, s *session.Session) { s.Destroy(); keyA.Set(s, "1") }, both},
		{"saved early", session.Config{Cookie: always}, func(_ http.Header, s *session.Session) { s.Destroy(); _ = s.Save(t.Context()) }, both},
		{"left to the handler", session.Config{Cookie: always}, func(_ http.Header, s *session.Session) { s.Destroy(); s.Detach() }, both},
		{"beside the application's", session.Config{Cookie: always}, func(h http.Header, s *session.Session) {
			h.Set(header, `"cookies", "storage"`)
			s.Destroy()
		}, slices.Concat([]string{`"cookies", "storage"`}, both)},
		{"the application's has one", session.Config{Cookie: always}, func(h http.Header, s *session.Session) {
			h.Set(header, `"cache","prefetchCache"`)
			s.Destroy()
		}, []string{`"cache","prefetchCache"`, `"prerenderCache"`}},
		{"Renew", session.Config{Cookie: always}, func(_ http.Header, s *session.Session) { s.Renew() }, nil},
		{"a read", session.Config{Cookie: always}, func(_ http.Header, s *session.Session) { readUser(s) }, nil},
		{"not over HTTPS", session.Config{}, func(_ http.Header, s *session.Session) { s.Destroy() }, nil},
	} {
		b := login(t, newManager(t, newHookedStore(), c.cfg))
		resp := b.serve(func(w http.ResponseWriter, r *http.Request) { c.do(w.Header(), session.From(r.Context())) })
		if got := resp.header.Values(header); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{Cookie: always}))
	store.fail("Delete")
	if resp := b.visit(destroy); resp.status != 503 || resp.header.Get(header) != "" {
		t.Errorf("a logout that failed: got %d, %q, want 503 and nothing dropped", resp.status, resp.header.Get(header))
	}
}

func TestSpeculationAllocations(t *testing.T) {
	site := newSite(t)
	var w http.ResponseWriter = nullWriter{http.Header{}}
	h := site.m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { nameKey.Get(session.From(r.Context())) }))
	measure := func(header http.Header) float64 {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header = header
		return fewestAllocs(func() { h.ServeHTTP(w, r) })
	}
	cookie := site.login(t)
	read := measure(http.Header{"Cookie": {cookie}})
	if got := measure(http.Header{"Cookie": {cookie}, "Sec-Purpose": {"prefetch;prerender"}}); got > read {
		t.Errorf("got %v allocations, want the %v of a read", got, read)
	}
}
