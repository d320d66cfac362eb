package session_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/pgsession/session"
)

func withDomain(c *session.Config) { c.Cookie.Domain = "example.com" }

// jar is a browser that keeps a cookie for each domain it was set for, and sends
// them all, that of the host alone first: it is the older one.
type jar struct {
	t     *testing.T
	pairs map[string]string // by Domain
}

// header returns what the browser sends.
func (j *jar) header() string {
	var pairs []string
	for _, domain := range []string{"", "example.com"} {
		if pair := j.pairs[domain]; pair != "" {
			pairs = append(pairs, pair)
		}
	}
	return strings.Join(pairs, "; ")
}

func (j *jar) visit(m *session.Manager, use func(*session.Session)) *response {
	r := httptest.NewRequest("GET", "http://app.example.com/", nil)
	if header := j.header(); header != "" {
		r.Header.Set("Cookie", header)
	}
	resp := ask(m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { use(session.From(r.Context())) })), r)
	for _, line := range resp.setCookies() {
		c, err := http.ParseSetCookie(line)
		if err != nil {
			j.t.Fatal("got a Set-Cookie header that does not parse")
		}
		j.pairs[c.Domain] = c.Name + "=" + c.Value
		if c.MaxAge < 0 {
			delete(j.pairs, c.Domain)
		}
	}
	return resp
}

func (j *jar) wantUser(m *session.Manager, want string) {
	j.t.Helper()
	var got string
	j.visit(m, func(s *session.Session) { got, _ = userKey.Get(s) })
	if got != want {
		j.t.Errorf("the browser's user: got %q, want %q", got, want)
	}
}

// Cookie.Domain is set while browsers have a cookie without it: a logout and every
// login after it work, and so does a login without the logout.
func TestProtocolCookieDomainIsSet(t *testing.T) {
	eachProtocolStore(t, func(t *testing.T, _ *hookedStore, open func(...func(*session.Config)) *session.Manager) {
		before, now := open(), open(withDomain)
		for _, logout := range []bool{true, false} {
			t.Run(fmt.Sprint("logout first ", logout), func(t *testing.T) {
				j := &jar{t, map[string]string{}}
				j.visit(before, logIn("ada"))
				j.wantUser(now, "ada")
				for range 3 {
					if logout {
						j.visit(now, destroy)
						j.wantUser(now, "")
					}
					j.visit(now, logIn("eve"))
					j.wantUser(now, "eve")
				}
			})
		}
	})
}

// severalCookies are the cookies of one request, each a kind of session.
var severalCookies = []struct {
	kinds string
	user  string
}{
	{"dead live", "live1"},
	{"renewed live", "live1"},
	{"forged live", "live1"},
	{"dead renewed forged live", "live3"},
	{"live dead", "live0"},
	{"live live", "live0"},
	{"dead live live", "live1"},
	{"live renewed", "live0"},
	{"old live", "old0"},
	{"dead old", "old1"},
	{"dead dead", ""},
	{"dead renewed", ""},
	{"renewed renewed", ""},
	{"forged dead", ""},
	{"forged forged", ""},
}

// cookiesOf makes a cookie of each kind and returns them with browsers that have
// the live and the renewed sessions.
func cookiesOf(t *testing.T, kinds string, now, before *session.Manager) (pairs []string, live []*browser) {
	for i, kind := range strings.Fields(kinds) {
		b := &browser{m: now}
		if kind == "old" {
			b.m = before
		}
		if kind == "forged" {
			pairs = append(pairs, "session=forged")
			continue
		}
		b.visit(func(s *session.Session) { userKey.Set(s, fmt.Sprint(kind, i)) })
		b.m = now
		pairs = append(pairs, b.cookie)
		switch kind {
		case "dead":
			b.with(now).visit(destroy)
			continue
		case "renewed":
			b.visit(renew)
		}
		live = append(live, b)
	}
	return pairs, live
}

// The first live session among a request's cookies is its session, wherever it
// stands; what dead ones there are stays dead.
func TestProtocolFirstLiveCookieWins(t *testing.T) {
	eachProtocolStore(t, func(t *testing.T, store *hookedStore, open func(...func(*session.Config)) *session.Manager) {
		now, before := open(protocolSecrets), open(oldSecret)
		for _, tt := range severalCookies {
			t.Run(tt.kinds, func(t *testing.T) {
				pairs, live := cookiesOf(t, tt.kinds, now, before)
				for _, several := range []bool{false, true} {
					r := request("GET", strings.Join(pairs, "; "))
					if several { // HTTP/2 may send a line for each
						r.Header["Cookie"] = pairs
					}
					var user string
					resp := ask(now.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
						user, _ = userKey.Get(session.From(r.Context()))
					})), r)
					sent := "nothing"
					if strings.HasPrefix(tt.user, "old") {
						sent = "set"
					}
					wantResponse(t, "a read", resp, 200, sent)
					if user != tt.user {
						t.Errorf("user: got %q, want %q", user, tt.user)
					}
				}
				for _, b := range live {
					if b.user() == "" {
						t.Error("a live session has ended, want it left alone")
					}
				}
			})
		}
	})
}

// A change goes to the session that was read, and begins one where all are dead.
func TestProtocolChangeAmongSeveralCookies(t *testing.T) {
	eachProtocolStore(t, func(t *testing.T, store *hookedStore, open func(...func(*session.Config)) *session.Manager) {
		now, before := open(protocolSecrets), open(oldSecret)
		for _, tt := range []struct{ kinds, sent string }{
			{"dead live", "nothing"}, {"renewed live", "nothing"}, {"forged live", "nothing"}, {"dead old", "set"}, {"dead dead", "set"},
		} {
			t.Run(tt.kinds, func(t *testing.T) {
				pairs, live := cookiesOf(t, tt.kinds, now, before)
				b := &browser{m: now, cookie: strings.Join(pairs, "; ")}
				wantResponse(t, "a change", b.visit(func(s *session.Session) { keyA.Set(s, "1") }), 200, tt.sent)
				if tt.sent == "nothing" || strings.Contains(tt.kinds, "old") {
					b = live[len(live)-1]
				}
				b.visit(func(s *session.Session) {
					if v, _ := keyA.Get(s); v != "1" {
						t.Errorf("a: got %q, want 1", v)
					}
				})
			})
		}
		t.Run("renewed and dead", func(t *testing.T) { // it is not known to be a stranger's
			pairs, _ := cookiesOf(t, "dead renewed", now, before)
			resp := useSession(now, strings.Join(pairs, "; "), func(s *session.Session) { keyA.Set(s, "1") })
			wantResponse(t, "a change", resp, 409, "nothing")
		})
	})
}

// Destroy ends all of them, whether it has loaded them or not, and expires each
// that it can name.
func TestProtocolDestroyEndsAllCookies(t *testing.T) {
	eachProtocolStore(t, func(t *testing.T, store *hookedStore, open func(...func(*session.Config)) *session.Manager) {
		for _, domain := range []bool{false, true} {
			opts, expired := []func(*session.Config){protocolSecrets}, []string{""}
			if domain {
				opts, expired = append(opts, withDomain), []string{"", "example.com"}
			}
			now, before := open(opts...), open(oldSecret)
			for _, kinds := range []string{"live live", "dead live", "live dead", "renewed live", "live renewed", "renewed renewed", "old live", "forged live", "live live live"} {
				for _, loaded := range []bool{false, true} {
					t.Run(fmt.Sprint(kinds, ", a domain ", domain, ", loaded ", loaded), func(t *testing.T) {
						store.forget()
						pairs, _ := cookiesOf(t, kinds, now, before)
						resp := useSession(now, strings.Join(pairs, "; "), func(s *session.Session) {
							if loaded {
								readUser(s)
							}
							s.Destroy()
						})
						store.wantRecords(t, 0)
						var got []string
						for _, line := range resp.setCookies() {
							c, err := http.ParseSetCookie(line)
							if err != nil || c.Value != "" || c.MaxAge >= 0 {
								t.Errorf("Set-Cookie: got one that expires nothing")
								continue
							}
							got = append(got, c.Domain)
						}
						slices.Sort(got)
						want := expired
						if kinds == "forged live" { // one session
							want = expired[len(expired)-1:]
						}
						if !slices.Equal(got, want) {
							t.Errorf("domains of expired cookies: got %q, want %q", got, want)
						}
					})
				}
			}
		}
	})
}

// A cookie that cannot be looked up is not taken for a dead one: it may be the
// session.
func TestProtocolSeveralCookiesInAnOutage(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	pairs, _ := cookiesOf(t, "dead live", m, m)
	var down string
	useSession(m, pairs[1], func(s *session.Session) { down = s.ID() })
	store.on("Load", func(_ context.Context, c *storeCall, do func() error) error {
		if c.id == down {
			return errStoreDown
		}
		return do()
	})
	wantResponse(t, "a read", useSession(m, strings.Join(pairs, "; "), readUser), 503, "nothing")
}

// The same cookie twice is one session, looked up once; of very many cookies the
// first few are looked at.
func TestProtocolRepeatedCookies(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	b := login(t, m)
	store.took()
	wantResponse(t, "twice", useSession(m, b.cookie+"; "+b.cookie, readUser), 200, "nothing")
	wantCalls(t, "twice", store, "Load")
	useSession(m, strings.Repeat("session=forged; ", 1000)+b.cookie, readUser)
	wantCalls(t, "after a thousand", store, "")
}
