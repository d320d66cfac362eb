package session_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgsession/session"
)

const (
	nameKey = session.Key[string]("name")
	cityKey = session.Key[string]("city")
	badKey  = session.Key[func()]("bad") // does not encode
)

// headerPaths are the ways in which the final header leaves.
var headerPaths = []struct {
	name string
	body string
	send func(w http.ResponseWriter) error
}{
	{"WriteHeader", "", func(w http.ResponseWriter) error { w.WriteHeader(http.StatusOK); return nil }},
	{"Write", "page", func(w http.ResponseWriter) error { _, err := w.Write([]byte("page")); return err }},
	{"WriteString", "page", func(w http.ResponseWriter) error { _, err := io.WriteString(w, "page"); return err }},
	{"ReadFrom", "page", func(w http.ResponseWriter) error {
		_, err := io.Copy(w, struct{ io.Reader }{strings.NewReader("page")})
		return err
	}},
	{"Flusher", "", func(w http.ResponseWriter) error { w.(http.Flusher).Flush(); return nil }},
	{"ResponseController", "", func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() }},
	{"WriteHeader after 103", "page", func(w http.ResponseWriter) error {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.WriteHeader(http.StatusOK)
		_, err := w.Write([]byte("page"))
		return err
	}},
	{"return", "", func(http.ResponseWriter) error { return nil }},
}

func TestWriterCommitsBeforeTheHeader(t *testing.T) {
	for _, proto := range protocols {
		for _, path := range headerPaths {
			t.Run(proto+"/"+path.name, func(t *testing.T) {
				site := newSite(t)
				srv := startServer(t, proto, site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					nameKey.Set(session.From(r.Context()), "ada")
					if err := path.send(w); err != nil {
						t.Errorf("send: got %v, want no error", err)
					}
					if got := site.store.count("Create"); path.name != "return" && got != 1 {
						t.Errorf("records created when the header had left: got %d, want 1", got)
					}
				})))
				reply := srv.do(t, "POST", "")
				reply.want(t, http.StatusOK, path.body)
				site.wantStored(t, reply.cookie(t), nameKey, "ada")
				if got := reply.header["Vary"]; !slices.Equal(got, []string{"Cookie"}) {
					t.Errorf("Vary: got %q, want Cookie", got)
				}
				if got := reply.header["Cache-Control"]; !slices.Equal(got, []string{"no-store"}) {
					t.Errorf("Cache-Control: got %q, want no-store", got)
				}
				if got := site.store.count(""); got != 1 {
					t.Errorf("store calls: got %d, want 1", got)
				}
			})
		}
	}
}

func TestWriterCommitsWithoutBody(t *testing.T) {
	for _, proto := range protocols {
		for _, tt := range []struct {
			method string
			code   int
			body   string
		}{
			{"HEAD", http.StatusOK, "page"},
			{"POST", http.StatusNoContent, ""},
			{"POST", http.StatusNotModified, ""},
			{"POST", http.StatusSeeOther, ""},
		} {
			t.Run(fmt.Sprint(proto, "/", tt.method, tt.code), func(t *testing.T) {
				site := newSite(t)
				srv := startServer(t, proto, outside(site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					nameKey.Set(session.From(r.Context()), "ada")
					w.WriteHeader(tt.code)
					_, _ = io.WriteString(w, tt.body)
				}))))
				reply := srv.do(t, tt.method, "")
				reply.want(t, tt.code, "")
				site.wantStored(t, reply.cookie(t), nameKey, "ada")

				site.store.fail("Create")
				reply = srv.do(t, tt.method, "")
				if tt.method == "HEAD" {
					reply.want(t, http.StatusServiceUnavailable, "")
					if reply.header.Get("Retry-After") == "" || len(reply.header["Set-Cookie"]) > 0 {
						t.Error("HEAD in an outage: got no Retry-After or a cookie, want the error handler's header")
					}
					return
				}
				reply.wantRefused(t, http.StatusServiceUnavailable)
			})
		}
	}
}

// A 1xx header leaves before the commit, without the cookie, and another way
// round does not count as the first byte.
func TestWriterInformationalDoesNotCommit(t *testing.T) {
	for _, proto := range protocols {
		t.Run(proto, func(t *testing.T) {
			site := newSite(t)
			cookie := site.login(t)
			srv := startServer(t, proto, site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				nameKey.Set(s, "eve")
				w.WriteHeader(http.StatusEarlyHints)
				if got := site.store.count("Update"); got != 0 {
					t.Errorf("updates at 103: got %d, want 0", got)
				}
				s.Renew() // still possible
				w.WriteHeader(http.StatusOK)
			})))
			var early int
			req, err := http.NewRequestWithContext(traceInformational(t, func(code int, h http.Header) {
				early = code
				if len(h["Set-Cookie"]) > 0 {
					t.Error("103: got a cookie, want none before the final header")
				}
			}), "POST", srv.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			reply := srv.send(t, req, cookie)
			reply.want(t, http.StatusOK, "")
			if early != http.StatusEarlyHints {
				t.Errorf("informational: got %d, want 103", early)
			}
			renewed := reply.cookie(t)
			if renewed == cookie {
				t.Error("cookie after Renew: got the old one, want another")
			}
			site.wantStored(t, renewed, nameKey, "eve")
		})
	}
}

// storeUses are the uses of a session that need the store, and what must fail to
// fail them.
var storeUses = []struct {
	name  string
	fails string
	known bool // with a session's cookie
	code  int
	use   func(s *session.Session)
}{
	{"load", "Load", true, 503, func(s *session.Session) { nameKey.Get(s) }},
	{"create", "Create", false, 503, func(s *session.Session) { nameKey.Set(s, "eve") }},
	{"save", "Update", true, 503, func(s *session.Session) { nameKey.Set(s, "eve") }},
	{"renew", "Update", true, 503, func(s *session.Session) { s.Renew() }},
	{"destroy", "Delete", true, 503, func(s *session.Session) { s.Destroy() }},
	{"bad value", "", true, 500, func(s *session.Session) { nameKey.Set(s, "eve"); badKey.Set(s, func() {}) }},
	{"reserved key", "", false, 500, func(s *session.Session) { session.Key[int]("cookie").Set(s, 1) }},
	{"ended meanwhile", "gone", true, 409, func(s *session.Session) { nameKey.Set(s, "eve") }},
}

// spoil writes into the response header what must not reach an error answer,
// and takes away what must stay.
func spoil(h http.Header) {
	h.Set("Content-Type", "text/html")
	h.Set("Content-Length", "11")
	h.Set("Content-Encoding", "br")
	h.Set("Content-Disposition", "attachment")
	h.Set("Etag", `"page"`)
	h.Set("Location", "/login")
	h.Set("Cache-Control", "public, max-age=60")
	h.Set("CDN-Cache-Control", "max-age=60")
	h.Set("Access-Control-Allow-Origin", "https://evil.example")
	h.Del("Strict-Transport-Security")
	h.Add("Vary", "Origin")
	h.Add("Set-Cookie", "handler=1")
	h.Set("Trailer", "X-Declared")
}

func TestWriterFailsClosed(t *testing.T) {
	for _, proto := range protocols {
		for _, path := range headerPaths {
			for _, use := range storeUses {
				t.Run(proto+"/"+path.name+"/"+use.name, func(t *testing.T) {
					site := newSite(t)
					cookie := ""
					if use.known {
						cookie = site.login(t)
					}
					site.store.fail(use.fails)
					if use.fails == "gone" {
						site.store.on("Update", fails(session.ErrNotFound))
					}
					srv := startServer(t, proto, outside(site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						spoil(w.Header())
						s := session.From(r.Context())
						use.use(s)
						err := path.send(w)
						if path.name == "return" {
							w.Header().Set("X-Declared", "late")
							w.Header().Set(http.TrailerPrefix+"X-Late", "late")
							return
						}
						if path.body != "" && err == nil {
							t.Error("send: got no error, want one")
						}
						w.WriteHeader(http.StatusTeapot)
						n, err := w.Write([]byte("secret page"))
						if n != 0 || err == nil || err != s.Err() {
							t.Errorf("Write: got %d, %v, want 0 and Session.Err, %v", n, err, s.Err())
						}
						if _, err := io.WriteString(w, "secret page"); err != s.Err() {
							t.Errorf("WriteString: got %v, want Session.Err", err)
						}
						if _, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("secret page")); err != s.Err() {
							t.Errorf("ReadFrom: got %v, want Session.Err", err)
						}
						if err := http.NewResponseController(w).Flush(); err != s.Err() {
							t.Errorf("Flush: got %v, want Session.Err", err)
						}
						w.Header().Set("X-Declared", "late")
						w.Header().Set(http.TrailerPrefix+"X-Late", "late")
					}))))
					reply := srv.do(t, "POST", cookie)
					reply.wantRefusal(t, use.code, path.name != "return")
					if cookie != "" {
						site.wantStored(t, cookie, nameKey, "ada")
					}
					level := slog.LevelError
					if use.code == 409 {
						level = slog.LevelInfo
					}
					if got := site.log.from(level); len(got) != 1 {
						t.Errorf("logged: got %q, want one record", got)
					}
				})
			}
		}
	}
}

// answerHijacked answers over a hijacked connection.
func answerHijacked(conn net.Conn, rw *bufio.ReadWriter) error {
	defer conn.Close()
	_, err := rw.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nhijacked")
	if err != nil {
		return err
	}
	return rw.Flush()
}

func TestWriterHijack(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fails string
		known bool
		code  int
		use   func(s *session.Session)
		want  string // stored name of the request's session
		calls int    // of the store
	}{
		{"unused", "", true, 200, func(*session.Session) {}, "ada", 0},
		{"read", "", true, 200, func(s *session.Session) { nameKey.Get(s) }, "ada", 1},
		{"new and unchanged", "", false, 200, func(s *session.Session) { nameKey.Get(s) }, "", 0},
		{"changed", "", true, 200, func(s *session.Session) { nameKey.Set(s, "eve") }, "eve", 2},
		{"destroyed", "", true, 200, func(s *session.Session) { s.Destroy() }, "", 1},
		{"new", "", false, 500, func(s *session.Session) { nameKey.Set(s, "eve") }, "", 0},
		{"renewed", "", true, 500, func(s *session.Session) { s.Renew() }, "ada", 1},
		{"renewed and changed", "", true, 500, func(s *session.Session) { nameKey.Set(s, "eve"); s.Renew() }, "ada", 1},
		{"load fails", "Load", true, 503, func(s *session.Session) { nameKey.Get(s) }, "ada", 1},
		{"save fails", "Update", true, 503, func(s *session.Session) { nameKey.Set(s, "eve") }, "ada", 2},
		{"destroy fails", "Delete", true, 503, func(s *session.Session) { s.Destroy() }, "ada", 1},
	} {
		for _, way := range []string{"Hijacker", "ResponseController"} {
			t.Run(tt.name+"/"+way, func(t *testing.T) {
				site := newSite(t)
				cookie := ""
				if tt.known {
					cookie = site.login(t)
				}
				site.store.fail(tt.fails)
				srv := startServer(t, "HTTP/1.1", outside(site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					spoil(w.Header())
					s := session.From(r.Context())
					tt.use(s)
					hijack := http.NewResponseController(w).Hijack
					if way == "Hijacker" {
						hijack = w.(http.Hijacker).Hijack
					}
					conn, rw, err := hijack()
					if tt.code != 200 {
						if err == nil || err != s.Err() {
							t.Errorf("Hijack: got %v, want Session.Err, %v", err, s.Err())
						}
						if err == nil {
							conn.Close()
						}
						http.Error(w, "upgrade failed", http.StatusInternalServerError) // as libraries do
						return
					}
					if err != nil {
						t.Errorf("Hijack: got %v, want no error", err)
						return
					}
					if _, err := w.Write([]byte("x")); !errors.Is(err, http.ErrHijacked) {
						t.Errorf("Write after Hijack: got %v, want ErrHijacked", err)
					}
					w.WriteHeader(http.StatusTeapot)
					if err := answerHijacked(conn, rw); err != nil {
						t.Errorf("answer: got %v, want no error", err)
					}
				}))))
				reply := srv.do(t, "POST", cookie)
				if tt.code == 200 {
					reply.want(t, 200, "hijacked")
				} else {
					reply.wantRefused(t, tt.code)
				}
				site.wantStored(t, cookie, nameKey, tt.want)
				if got := site.store.count(""); got != tt.calls {
					t.Errorf("store calls: got %d, want %d", got, tt.calls)
				}
			})
		}
	}
}

// What changes after the upgrade is saved when the handler returns.
func TestWriterHijackSavesLaterChanges(t *testing.T) {
	site := newSite(t)
	cookie := site.login(t)
	returned := make(chan struct{})
	srv := startServer(t, "HTTP/1.1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(returned)
		site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			nameKey.Get(s)
			conn, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Errorf("Hijack: got %v, want no error", err)
				return
			}
			nameKey.Set(s, "eve")
			s.Renew() // too late; and the change before it is not saved either
			if !errors.Is(s.Err(), session.ErrHeaderSent) {
				t.Errorf("Err after a late Renew: got %v, want ErrHeaderSent", s.Err())
			}
			_ = answerHijacked(conn, rw)
		})).ServeHTTP(w, r)
	}))
	srv.do(t, "POST", cookie).want(t, 200, "hijacked")
	<-returned
	site.wantStored(t, cookie, nameKey, "ada")

	returned = make(chan struct{})
	srv = startServer(t, "HTTP/1.1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(returned)
		site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Errorf("Hijack: got %v, want no error", err)
				return
			}
			nameKey.Set(session.From(r.Context()), "eve")
			_ = answerHijacked(conn, rw)
		})).ServeHTTP(w, r)
	}))
	srv.do(t, "POST", cookie).want(t, 200, "hijacked")
	<-returned
	site.wantStored(t, cookie, nameKey, "eve")
}

// Where nothing below can hijack or flush, the writer does not pretend to.
func TestWriterHasWhatTheChainHas(t *testing.T) {
	site := newSite(t)
	h := func(f func(w http.ResponseWriter)) http.Handler {
		return site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { f(w) }))
	}
	startServer(t, "HTTP/2.0", h(func(w http.ResponseWriter) {
		if _, ok := w.(http.Hijacker); ok {
			t.Error("HTTP/2: got a Hijacker, want none")
		}
		if _, _, err := http.NewResponseController(w).Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("HTTP/2: Hijack: got %v, want ErrNotSupported", err)
		}
	})).do(t, "POST", "").want(t, 200, "")

	// http.TimeoutHandler's writer can do neither.
	startServer(t, "HTTP/1.1", http.TimeoutHandler(h(func(w http.ResponseWriter) {
		if _, ok := w.(http.Hijacker); ok {
			t.Error("under TimeoutHandler: got a Hijacker, want none")
		}
		if err := http.NewResponseController(w).Flush(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("under TimeoutHandler: Flush: got %v, want ErrNotSupported", err)
		}
	}), time.Minute, "")).do(t, "POST", "").want(t, 200, "")
}

// A Flush that goes nowhere is not the first byte.
func TestWriterUnsupportedFlushDoesNotCommit(t *testing.T) {
	site := newSite(t)
	cookie := site.login(t)
	srv := startServer(t, "HTTP/1.1", http.TimeoutHandler(site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		w.(http.Flusher).Flush()
		s.Renew()
		nameKey.Set(s, "eve")
	})), time.Minute, ""))
	reply := srv.do(t, "POST", cookie)
	reply.want(t, 200, "")
	site.wantStored(t, reply.cookie(t), nameKey, "eve")
}

// unwrapOnly wraps a writer as a logging middleware does.
type unwrapOnly struct{ w http.ResponseWriter }

func (u unwrapOnly) Header() http.Header         { return u.w.Header() }
func (u unwrapOnly) Write(b []byte) (int, error) { return u.w.Write(b) }
func (u unwrapOnly) WriteHeader(code int)        { u.w.WriteHeader(code) }
func (u unwrapOnly) Unwrap() http.ResponseWriter { return u.w }

func wrapped(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(unwrapOnly{w}, r) })
}

// Neither a middleware outside nor one inside that only unwraps lets a flush or
// a hijacking past the commit.
func TestWriterBetweenWritersThatOnlyUnwrap(t *testing.T) {
	for _, side := range []string{"outside", "inside"} {
		around := func(site *testSite, h http.HandlerFunc) http.Handler {
			if side == "outside" {
				return outside(wrapped(site.m.Handler(h)))
			}
			return outside(site.m.Handler(wrapped(h)))
		}
		for _, proto := range protocols {
			t.Run(side+"/"+proto, func(t *testing.T) {
				site := newSite(t)
				arrived := make(chan struct{})
				srv := startServer(t, proto, around(site, func(w http.ResponseWriter, r *http.Request) {
					nameKey.Set(session.From(r.Context()), "ada")
					if f, ok := w.(http.Flusher); ok {
						f.Flush()
					} else if err := http.NewResponseController(w).Flush(); err != nil {
						t.Errorf("Flush: got %v, want no error", err)
					}
					<-arrived // the header has left while the handler still runs
				}))
				req, err := http.NewRequestWithContext(t.Context(), "POST", srv.url, nil)
				if err != nil {
					t.Fatal(err)
				}
				res, err := srv.client.Do(req)
				close(arrived)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if _, err := io.ReadAll(res.Body); err != nil { // a Flush whose stream is closed meanwhile fails
					t.Fatal(err)
				}
				site.wantStored(t, (&response{header: res.Header}).cookie(t), nameKey, "ada")

				site.store.fail("Create")
				srv = startServer(t, proto, around(site, func(w http.ResponseWriter, r *http.Request) {
					spoil(w.Header())
					s := session.From(r.Context())
					nameKey.Set(s, "ada")
					if err := http.NewResponseController(w).Flush(); err == nil || err != s.Err() {
						t.Errorf("Flush in an outage: got %v, want Session.Err", err)
					}
					_, _ = w.Write([]byte("secret page"))
				}))
				srv.do(t, "POST", "").wantRefusal(t, 503, true)
			})
		}
		t.Run(side+"/Hijack", func(t *testing.T) {
			site := newSite(t)
			cookie := site.login(t)
			srv := startServer(t, "HTTP/1.1", around(site, func(w http.ResponseWriter, r *http.Request) {
				nameKey.Set(session.From(r.Context()), "eve")
				conn, rw, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Errorf("Hijack: got %v, want no error", err)
					return
				}
				if got := site.store.count("Update"); got != 1 {
					t.Errorf("updates at Hijack: got %d, want 1", got)
				}
				_ = answerHijacked(conn, rw)
			}))
			srv.do(t, "POST", cookie).want(t, 200, "hijacked")
			site.wantStored(t, cookie, nameKey, "eve")
		})
	}
}

func TestWriterAfterTheFirstByte(t *testing.T) {
	set := func(s *session.Session) { nameKey.Set(s, "eve") }
	for _, tt := range []struct {
		name     string
		anon     bool // without a cookie
		late     func(s *session.Session)
		fails    string
		gone     bool // the record, at the save
		complete bool
		err      error
		stored   string
		logged   int // errors
	}{
		{name: "change", late: set, complete: true, stored: "eve"},
		{name: "destroy", late: (*session.Session).Destroy, complete: true},
		{name: "idle timeout", late: func(s *session.Session) { s.SetIdleTimeout(time.Hour) }, complete: true, stored: "ada"},
		{name: "renew", late: (*session.Session).Renew, err: session.ErrHeaderSent, stored: "ada", logged: 1},
		{name: "change and renew", late: func(s *session.Session) { set(s); s.Renew() }, err: session.ErrHeaderSent, stored: "ada", logged: 1},
		{name: "renew and destroy", late: func(s *session.Session) { s.Renew(); s.Destroy() }, err: session.ErrHeaderSent, logged: 1},
		{name: "new session", anon: true, late: set, err: session.ErrHeaderSent, logged: 1},
		{name: "new session after destroy", late: func(s *session.Session) { s.Destroy(); set(s) }, err: session.ErrHeaderSent, logged: 1},
		{name: "detached", late: func(s *session.Session) { set(s); s.Detach() }, fails: "Load", complete: true, err: errStoreDown, stored: "ada"},
		{name: "load fails", late: func(s *session.Session) { nameKey.Get(s) }, fails: "Load", err: errStoreDown, stored: "ada", logged: 1},
		{name: "save fails", late: set, fails: "Update", stored: "ada", logged: 1},
		{name: "destroy fails", late: (*session.Session).Destroy, fails: "Delete", stored: "ada", logged: 1},
		{name: "destroy fails after renew", late: func(s *session.Session) { s.Renew(); s.Destroy() }, fails: "Delete", err: session.ErrHeaderSent, stored: "ada", logged: 2},
		{name: "bad value", late: func(s *session.Session) { badKey.Set(s, func() {}) }, err: session.ErrInvalid, stored: "ada", logged: 1},
		{name: "ended meanwhile", late: set, gone: true, stored: "ada", logged: 1},
		{name: "late Save fails", late: func(s *session.Session) { set(s); _ = s.Save(context.Background()) }, fails: "Update", err: errStoreDown, stored: "ada", logged: 1},
	} {
		for _, proto := range protocols {
			for _, flush := range []string{"flushed", "buffered"} {
				t.Run(tt.name+"/"+proto+"/"+flush, func(t *testing.T) {
					site := newSite(t)
					cookie := site.login(t)
					site.store.fail(tt.fails)
					if tt.gone {
						site.store.on("Update", fails(session.ErrNotFound))
					}
					sent := cookie
					if tt.anon {
						sent = ""
					}
					srv := startServer(t, proto, site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						s := session.From(r.Context())
						_, _ = io.WriteString(w, "first ")
						if flush == "flushed" {
							w.(http.Flusher).Flush()
						}
						tt.late(s)
						_, _ = io.WriteString(w, "last")
						if got := s.Err(); !errors.Is(got, tt.err) {
							t.Errorf("Err: got %v, want %v", got, tt.err)
						}
					})))
					reply := srv.do(t, "POST", sent)
					if tt.complete {
						reply.want(t, 200, "first last")
					} else if reply.err == nil {
						t.Errorf("reply: got a complete one, %d %q, want a truncated one", reply.status, reply.body)
					}
					if len(reply.header["Set-Cookie"]) > 0 {
						t.Error("Set-Cookie: got one, want none")
					}
					if !tt.anon {
						site.wantStored(t, cookie, nameKey, tt.stored)
					}
					if got := site.log.from(slog.LevelError); len(got) != tt.logged {
						t.Errorf("errors logged: got %q, want %d", got, tt.logged)
					}
					if errors.Is(tt.err, session.ErrHeaderSent) && site.store.count("Create")+site.store.count("Update") > 0 {
						t.Error("a refused renewal or creation: got a write, want none")
					}
				})
			}
		}
	}
}

func TestWriterErrorHandler(t *testing.T) {
	type handler func(t *testing.T, w http.ResponseWriter, r *http.Request, err error)
	const unavailable = "Service Unavailable\n"
	for _, tt := range []struct {
		name    string
		handler handler
		code    int
		body    string
		header  http.Header // among others
		broken  bool
	}{
		{
			name: "custom answer", code: 418, body: "sorry", header: http.Header{"X-Sorry": {"yes"}},
			handler: func(_ *testing.T, w http.ResponseWriter, _ *http.Request, _ error) {
				w.Header().Set("X-Sorry", "yes")
				w.WriteHeader(418)
				_, _ = io.WriteString(w, "sorry")
			},
		},
		{
			name: "its headers come back whole", code: 303, body: "", header: http.Header{"Location": {"/sorry"}, "Set-Cookie": {"sorry=1"}},
			handler: func(_ *testing.T, w http.ResponseWriter, _ *http.Request, _ error) {
				w.Header().Set("Location", "/sorry")
				w.Header().Set("Set-Cookie", "sorry=1")
				w.WriteHeader(303)
			},
		},
		{
			name: "body without a status", code: 503, body: "sorry",
			handler: func(_ *testing.T, w http.ResponseWriter, _ *http.Request, _ error) { _, _ = io.WriteString(w, "sorry") },
		},
		{
			name: "copied body without a status", code: 503, body: "sorry",
			handler: func(_ *testing.T, w http.ResponseWriter, _ *http.Request, _ error) {
				_, _ = io.Copy(w, struct{ io.Reader }{strings.NewReader("sorry")})
			},
		},
		{
			name: "nothing", code: 503, body: unavailable, header: http.Header{"Retry-After": {"5"}},
			handler: func(*testing.T, http.ResponseWriter, *http.Request, error) {},
		},
		{
			name: "only 103", code: 503, body: unavailable, header: http.Header{"Retry-After": {"5"}},
			handler: func(_ *testing.T, w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(103) },
		},
		{
			name: "caching", code: 500, body: "sorry",
			handler: func(_ *testing.T, w http.ResponseWriter, _ *http.Request, _ error) {
				w.Header().Set("Cache-Control", "public, max-age=3600")
				w.Header().Set("CDN-Cache-Control", "max-age=3600")
				w.Header().Set("Cloudflare-CDN-Cache-Control", "max-age=3600")
				w.Header().Set("Surrogate-Control", "max-age=3600")
				w.WriteHeader(500)
				_, _ = io.WriteString(w, "sorry")
			},
		},
		{
			name: "caching by flushing first", code: 503, body: "sorry",
			handler: func(t *testing.T, w http.ResponseWriter, _ *http.Request, _ error) {
				w.Header().Set("Cache-Control", "public, max-age=3600")
				if err := http.NewResponseController(w).Flush(); err != nil {
					t.Errorf("Flush: got %v, want no error", err)
				}
				_, _ = io.WriteString(w, "sorry")
			},
		},
		{
			name: "its own trailer", code: 503, body: "sorry", header: http.Header{},
			handler: func(_ *testing.T, w http.ResponseWriter, _ *http.Request, _ error) {
				_, _ = io.WriteString(w, "sorry")
				w.Header().Set(http.TrailerPrefix+"X-Sorry", "yes")
			},
		},
		{
			name: "uses the session", code: 503, body: unavailable,
			handler: func(t *testing.T, w http.ResponseWriter, r *http.Request, err error) {
				s := session.From(r.Context())
				if s.Err() != err {
					t.Errorf("Err: got %v, want what the error handler was given", s.Err())
				}
				nameKey.Get(s)
				cityKey.Get(s)
				cityKey.Set(s, "London")
				nameKey.Update(s, strings.ToUpper)
				nameKey.Take(s)
				nameKey.Delete(s)
				s.SetIdleTimeout(time.Hour)
				s.Renew()
				s.ID()
				s.IsNew()
				s.Keys()
				s.Destroy()
				for _, f := range []func(context.Context) error{s.Save, s.Reload} {
					if f(r.Context()) != err || f(context.Background()) != err {
						t.Error("Save and Reload: got another error, want what the error handler was given")
					}
				}
			},
		},
		{
			name: "panics", broken: true,
			handler: func(*testing.T, http.ResponseWriter, *http.Request, error) { panic("sorry") },
		},
		{
			name: "aborts", broken: true,
			handler: func(*testing.T, http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		},
		{
			name: "aborts in its body", broken: true,
			handler: func(_ *testing.T, w http.ResponseWriter, _ *http.Request, _ error) {
				_, _ = io.WriteString(w, "half")
				panic(http.ErrAbortHandler)
			},
		},
	} {
		for _, proto := range protocols {
			for _, at := range []string{"Write", "return"} {
				t.Run(tt.name+"/"+proto+"/"+at, func(t *testing.T) {
					var calls atomic.Int32
					var site *testSite
					site = newSite(t, func(c *session.Config) {
						c.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
							calls.Add(1)
							if !errors.Is(err, errStoreDown) {
								t.Errorf("error: got %v, want the store's", err)
							}
							before := site.store.count("")
							defer func() {
								if got := site.store.count("") - before; got != 0 {
									t.Errorf("store calls of the error handler: got %d, want 0", got)
								}
							}()
							tt.handler(t, w, r, err)
						}
					})
					cookie := site.login(t)
					site.store.fail("Update")
					srv := startServer(t, proto, outside(site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						spoil(w.Header())
						nameKey.Set(session.From(r.Context()), "eve")
						if at == "Write" {
							_, _ = w.Write([]byte("secret page"))
							_, _ = w.Write([]byte("secret page"))
						}
					}))))
					reply := srv.do(t, "POST", cookie)
					if got := calls.Load(); got != 1 {
						t.Errorf("calls of the error handler: got %d, want 1", got)
					}
					site.wantStored(t, cookie, nameKey, "ada")
					if tt.broken {
						if reply.err == nil {
							t.Errorf("reply: got a complete one, %d %q, want a broken one", reply.status, reply.body)
						}
						return
					}
					reply.want(t, tt.code, tt.body)
					for name, want := range tt.header {
						if got := reply.header[name]; !slices.Equal(got, want) {
							t.Errorf("header %s: got %q, want %q", name, got, want)
						}
					}
					if got := reply.header["Cache-Control"]; !slices.Equal(got, []string{"no-store"}) {
						t.Errorf("Cache-Control: got %q, want no-store", got)
					}
					for _, name := range []string{"X-Handler", "Etag", "Content-Encoding", "Cdn-Cache-Control", "Cloudflare-Cdn-Cache-Control", "Surrogate-Control"} {
						if got := reply.header[name]; got != nil {
							t.Errorf("header %s: got %q, want none", name, got)
						}
					}
					if got := reply.header.Get("Access-Control-Allow-Origin"); got != "https://example.com" {
						t.Errorf("header set outside: got %q, want it back", got)
					}
				})
			}
		}
	}
}

// An error handler that panics under a middleware that recovers must not end in
// the empty 200 that net/http sends for a handler that has written nothing.
func TestWriterErrorHandlerPanicRecovered(t *testing.T) {
	for _, proto := range protocols {
		t.Run(proto, func(t *testing.T) {
			site := newSite(t, func(c *session.Config) {
				c.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic("sorry") }
			})
			site.store.fail("Create")
			srv := startServer(t, proto, outside(site.m.Handler(recovering(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				nameKey.Set(session.From(r.Context()), "eve")
				_, _ = w.Write([]byte("secret page"))
			})))))
			srv.do(t, "POST", "").wantRefused(t, 503)
		})
	}
}

// recovering is what many applications have around their handlers.
func recovering(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if recover() != nil {
				http.Error(w, "recovered", http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// A store that panics is a store that fails: nothing passes as saved, later
// users of the session are not stuck, the program lives on.
func TestWriterStorePanics(t *testing.T) {
	for _, use := range storeUses {
		if use.code != 503 {
			continue
		}
		for _, proto := range protocols {
			t.Run(use.name+"/"+proto, func(t *testing.T) {
				site := newSite(t)
				cookie := ""
				if use.known {
					cookie = site.login(t)
				}
				site.store.on(use.fails, func(context.Context, *storeCall, func() error) error { panic("store") })
				handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					use.use(session.From(r.Context()))
					_, _ = w.Write([]byte("secret page"))
				})
				// Nobody recovers: net/http breaks the connection.
				if reply := startServer(t, proto, site.m.Handler(handler)).do(t, "POST", cookie); reply.err == nil {
					t.Errorf("reply: got %d %q, want a broken one", reply.status, reply.body)
				}
				refused := func(h http.HandlerFunc) {
					t.Helper()
					reply := startServer(t, proto, outside(site.m.Handler(h))).do(t, "POST", cookie)
					if use.name != "destroy" {
						reply.wantRefused(t, 503)
					} else if reply.err == nil { // every commit tries, and panics, again
						t.Errorf("reply: got %d %q, want a broken one", reply.status, reply.body)
					}
				}
				// A middleware inside recovers and answers.
				refused(func(w http.ResponseWriter, r *http.Request) {
					s := session.From(r.Context())
					recovering(handler).ServeHTTP(w, r)
					if s.Err() == nil {
						t.Error("Err: got nil, want an error")
					}
					nameKey.Get(s)
					_, _ = w.Write([]byte("secret page"))
				})
				// Save runs the store in a goroutine of its own.
				refused(func(_ http.ResponseWriter, r *http.Request) {
					defer func() { _ = recover() }()
					s := session.From(r.Context())
					use.use(s)
					_ = s.Save(r.Context())
				})
				if cookie != "" {
					site.wantStored(t, cookie, nameKey, "ada")
				}
			})
		}
	}
}

func TestWriterWriteHeaderTwice(t *testing.T) {
	for _, proto := range protocols {
		t.Run(proto, func(t *testing.T) {
			site := newSite(t)
			srv := startServer(t, proto, site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				nameKey.Set(session.From(r.Context()), "ada")
				w.WriteHeader(http.StatusCreated)
				w.WriteHeader(http.StatusInternalServerError)
				w.WriteHeader(http.StatusEarlyHints)
				_, _ = io.WriteString(w, "page")
				w.WriteHeader(http.StatusInternalServerError)
			})))
			reply := srv.do(t, "POST", "")
			reply.want(t, http.StatusCreated, "page")
			site.wantStored(t, reply.cookie(t), nameKey, "ada")
			if got := site.store.count("Create"); got != 1 {
				t.Errorf("records created: got %d, want 1", got)
			}
		})
	}
}

// net/http panics at a status code that is none, and nothing is saved then.
func TestWriterInvalidStatus(t *testing.T) {
	for _, proto := range protocols {
		for _, code := range []int{-1, 0, 99, 1000} {
			t.Run(fmt.Sprint(proto, "/", code), func(t *testing.T) {
				site := newSite(t)
				srv := startServer(t, proto, site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					nameKey.Set(session.From(r.Context()), "ada")
					w.WriteHeader(code)
				})))
				if reply := srv.do(t, "POST", ""); reply.err == nil {
					t.Errorf("reply: got %d, want a broken one", reply.status)
				}
				if got := site.store.count(""); got != 0 {
					t.Errorf("store calls: got %d, want 0", got)
				}
			})
		}
	}
}

// Informational headers after a refusal carry nothing of the handler's out.
func TestWriterInformationalAfterRefusal(t *testing.T) {
	for _, proto := range protocols {
		t.Run(proto, func(t *testing.T) {
			site := newSite(t)
			site.store.fail("Create")
			srv := startServer(t, proto, outside(site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				nameKey.Set(session.From(r.Context()), "ada")
				w.WriteHeader(http.StatusOK)
				w.Header().Set("Link", "</secret>")
				w.WriteHeader(http.StatusEarlyHints)
				w.WriteHeader(http.StatusSwitchingProtocols)
				w.WriteHeader(0)
			}))))
			req, err := http.NewRequestWithContext(traceInformational(t, func(code int, _ http.Header) {
				t.Errorf("informational: got %d, want none", code)
			}), "POST", srv.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			srv.send(t, req, "").wantRefused(t, 503)
		})
	}
	// Nor does a writer outside hear of it, however it would take it.
	site := newSite(t)
	site.store.fail("Create")
	codes := codeRecorder{nullWriter: nullWriter{http.Header{}}}
	site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		nameKey.Set(session.From(r.Context()), "ada")
		for _, code := range []int{200, 103, 101, 200, 0} {
			w.WriteHeader(code)
		}
	})).ServeHTTP(&codes, httptest.NewRequest("POST", "/", nil))
	if !slices.Equal(codes.got, []int{503}) {
		t.Errorf("headers: got %v, want [503]", codes.got)
	}
}

// codeRecorder is a ResponseWriter that notes the headers written to it.
type codeRecorder struct {
	nullWriter
	got []int
}

func (w *codeRecorder) WriteHeader(code int) { w.got = append(w.got, code) }

// traceInformational returns a context that reports informational responses.
func traceInformational(t *testing.T, got func(code int, h http.Header)) context.Context {
	return httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error { got(code, http.Header(h)); return nil },
	})
}
