package session_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
)

// protocolTooLate are changes that a response which has begun cannot carry out.
var protocolTooLate = []struct {
	name  string
	known bool // there is a session
	use   func(*session.Session)
}{
	{"Set, then Renew", true, func(s *session.Session) { keyA.Set(s, "1"); s.Renew() }},
	{"Renew, then Set", true, func(s *session.Session) { s.Renew(); keyA.Set(s, "1") }},
	{"Renew", true, renew},
	{"Delete, then Renew", true, func(s *session.Session) { userKey.Delete(s); s.Renew() }},
	{"SetIdleTimeout, then Renew", true, func(s *session.Session) { s.SetIdleTimeout(time.Hour); s.Renew() }},
	{"Set and Renew, with a Save whose error nobody sees", true, func(s *session.Session) { keyA.Set(s, "1"); s.Renew(); _ = s.Save(context.Background()) }},
	{"a login", false, logIn("eve")},
	{"a new session", false, func(s *session.Session) { keyA.Set(s, "1") }},
	{"a new session by Update", false, func(s *session.Session) { increment(s) }},
	{"a new session after a logout", true, func(s *session.Session) { s.Destroy(); keyA.Set(s, "1") }},
}

// protocolFirstByte are the ways to begin a response.
var protocolFirstByte = []struct {
	name  string
	write func(http.ResponseWriter)
}{
	{"WriteString", func(w http.ResponseWriter) { _, _ = io.WriteString(w, "<html>") }},
	{"WriteHeader", func(w http.ResponseWriter) { w.WriteHeader(http.StatusOK) }},
	{"Flush", func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }},
	{"ReadFrom", func(w http.ResponseWriter) { _, _ = io.Copy(w, strings.NewReader("<html>")) }},
}

// What comes too late to be stored aborts the response: it is never complete.
func TestProtocolTooLateAborts(t *testing.T) {
	eachProtocolStore(t, func(t *testing.T, store *hookedStore, open func(...func(*session.Config)) *session.Manager) {
		m := open()
		for _, tt := range protocolTooLate {
			for _, first := range protocolFirstByte {
				t.Run(tt.name+" after "+first.name, func(t *testing.T) {
					store.forget()
					b := &browser{m: m}
					if tt.known {
						b = login(t, m)
					}
					p := b.begin()
					p.serve(func(w http.ResponseWriter, r *http.Request) {
						first.write(w)
						tt.use(session.From(r.Context()))
					})
					if resp := p.end(); resp.err != http.ErrAbortHandler || resp.sent() != "nothing" {
						t.Errorf("response: got error %v, cookie %s, want ErrAbortHandler, nothing", resp.err, resp.sent())
					}
					b.visit(func(s *session.Session) {
						if v, ok := keyA.Get(s); ok {
							t.Errorf("got %q stored, want nothing", v)
						}
					})
				})
			}
		}
	})
}

// A client sees that: its response breaks off.
func TestProtocolTooLateBreaksTheConnection(t *testing.T) {
	for _, proto := range protocols {
		for _, tt := range protocolTooLate {
			t.Run(proto+"/"+tt.name, func(t *testing.T) {
				site := newSite(t)
				cookie := ""
				if tt.known {
					cookie = site.login(t)
				}
				srv := startServer(t, proto, site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.WriteString(w, "welcome")
					tt.use(session.From(r.Context()))
				})))
				if reply := srv.do(t, "POST", cookie); reply.err == nil {
					t.Errorf("reply: got a complete %d %q, want a broken one", reply.status, reply.body)
				}
				if got := site.log.from(slog.LevelWarn); len(got) == 0 {
					t.Error("logged: got nothing, want why")
				}
			})
		}
	}
}

// What can be stored without a cookie is stored, and the response completes.
func TestProtocolLateChangeIsStored(t *testing.T) {
	eachProtocolStore(t, func(t *testing.T, store *hookedStore, open func(...func(*session.Config)) *session.Manager) {
		m := open()
		for _, tt := range []struct {
			name string
			use  func(*session.Session)
			want func(*session.Session) bool
		}{
			{"Set", func(s *session.Session) { keyA.Set(s, "1") }, func(s *session.Session) bool { v, _ := keyA.Get(s); return v == "1" }},
			{"Delete", func(s *session.Session) { userKey.Delete(s) }, func(s *session.Session) bool { _, ok := userKey.Get(s); return !ok && !s.IsNew() }},
			{"Update", increment, func(s *session.Session) bool { n, _ := countKey.Get(s); return n == 1 }},
			{"Destroy", destroy, func(s *session.Session) bool { return s.IsNew() }},
		} {
			t.Run(tt.name, func(t *testing.T) {
				store.forget()
				b := login(t, m)
				p := b.begin()
				p.serve(func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.WriteString(w, "<html>")
					tt.use(session.From(r.Context()))
				})
				if resp := p.end(); resp.err != nil || resp.status != 200 {
					t.Errorf("response: got status %d, %v, want 200, complete", resp.status, resp.err)
				}
				b.visit(func(s *session.Session) {
					if !tt.want(s) {
						t.Error("got the session as before, want it changed")
					}
				})
			})
		}
	})
}

// A session whose every use comes after the first byte is extended all the same.
func TestProtocolLateUseExtends(t *testing.T) {
	for _, first := range protocolFirstByte {
		for _, use := range protocolFirstUses[:7] { // those that only read
			if use.name == "Take" {
				continue
			}
			t.Run(use.name+" after "+first.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := login(t, newManager(t, session.NewMemoryStore(), session.Config{}))
					for range 10 {
						pass(20 * time.Hour)
						p := b.begin()
						p.serve(func(w http.ResponseWriter, r *http.Request) {
							first.write(w)
							use.use(session.From(r.Context()))
						})
						if resp := p.end(); resp.err != nil {
							t.Fatalf("response: got %v, want a complete one", resp.err)
						}
					}
					b.wantUser(t, "ada")
				})
			})
		}
	}
}

// protocolCookieless are pages that extend the record and whose response carries no cookie
// for that.
var protocolCookieless = []struct {
	name string
	page http.HandlerFunc
}{
	{"a public page", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=60")
		readUser(session.From(r.Context()))
	}},
	{"a page for shared caches", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "s-maxage=60")
		readUser(session.From(r.Context()))
	}},
	{"first used after the first byte", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "<html>")
		readUser(session.From(r.Context()))
	}},
	{"changed after the first byte", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "<html>")
		increment(session.From(r.Context()))
	}},
	{"hijacked", func(w http.ResponseWriter, r *http.Request) {
		readUser(session.From(r.Context()))
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	}},
	{"hijacked and changed", func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = conn.Close()
		}
		increment(session.From(r.Context()))
	}},
	{"public and saved early", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public")
		s := session.From(r.Context())
		readUser(s)
		_ = s.Save(context.Background())
	}},
	{"saved early and left to the handler", func(_ http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		readUser(s)
		_ = s.Save(context.Background())
		s.Detach()
	}},
}

// The browser's cookie lives as long as the record: what a page without one has
// moved, the next that can carry one catches up with, however soon it comes.
func TestProtocolCookieCatchesUp(t *testing.T) {
	for _, page := range protocolCookieless {
		t.Run(page.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newHookedStore()
				m := newManager(t, store, session.Config{})
				b := login(t, m)
				var ends time.Time // of the browser's cookie
				visit := func(h http.HandlerFunc) {
					w := &hijackableRecorder{ResponseRecorder: httptest.NewRecorder()}
					m.Handler(h).ServeHTTP(w, request("GET", b.cookie))
					resp := &response{header: w.Result().Header}
					if age := resp.maxAge(t); age >= 0 {
						ends = time.Now().Add(time.Duration(age) * time.Second)
					}
				}
				for range 12 {
					pass(8 * time.Hour)
					visit(page.page)
					pass(30 * time.Second) // half a touch interval
					visit(func(_ http.ResponseWriter, r *http.Request) { readUser(session.From(r.Context())) })
					if got, want := time.Until(ends), store.ttl(t); got < want || got < session.DefaultIdleTimeout {
						t.Fatalf("the browser's cookie: got %v left, want %v, the record's", got, want)
					}
				}
			})
		})
	}
}

// hijackableRecorder gives its connection away, to nowhere.
type hijackableRecorder struct{ *httptest.ResponseRecorder }

func (*hijackableRecorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, other := net.Pipe()
	_ = other.Close()
	return conn, bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn)), nil
}
