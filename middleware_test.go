package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// startBackend is what a reverse proxy has behind it.
func startBackend(t *testing.T, size int) *url.URL {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/html")
		h.Set("Etag", `"page"`)
		h.Set("Cache-Control", "public, max-age=60")
		h.Set("Set-Cookie", "backend=1")
		h.Set("Trailer", "X-Declared")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, strings.Repeat("x", size))
		h.Set("X-Declared", "late")
		h.Set(http.TrailerPrefix+"X-Late", "late")
	}))
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// A reverse proxy aborts when its writes are refused; the browser must see the
// error handler's answer all the same.
func TestHandlerAroundReverseProxy(t *testing.T) {
	for _, proto := range protocols {
		for _, size := range []int{0, 10, 1 << 20} {
			for _, flush := range []time.Duration{0, -1} {
				t.Run(fmt.Sprint(proto, "/", size, "/", flush), func(t *testing.T) {
					site := newSite(t)
					proxy := httputil.NewSingleHostReverseProxy(startBackend(t, size))
					proxy.FlushInterval = flush
					proxy.ErrorLog = log.New(io.Discard, "", 0)
					aborted := make(chan bool, 1)
					srv := startServer(t, proto, outside(site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						nameKey.Set(session.From(r.Context()), "ada")
						returned := false
						defer func() { aborted <- !returned }()
						proxy.ServeHTTP(w, r)
						returned = true
					}))))
					reply := srv.do(t, "POST", "")
					reply.want(t, http.StatusCreated, strings.Repeat("x", size))
					if got := reply.header["Set-Cookie"]; len(got) != 2 {
						t.Errorf("Set-Cookie: got %d of them, want the backend's and the session's", len(got))
					}
					if got := reply.header.Get("Cache-Control"); got != "no-store" {
						t.Errorf("Cache-Control: got %q, want no-store", got)
					}
					if got := reply.trailer.Get("X-Declared"); got != "late" {
						t.Errorf("trailer: got %q, want the backend's", got)
					}
					<-aborted

					site.store.fail("Create")
					srv.do(t, "POST", "").wantRefusal(t, 503, true) // it flushes where there are trailers
					if got := <-aborted; size > 0 && !got {
						t.Error("reverse proxy: got a plain return, want the panic that this test is about")
					}
				})
			}
		}
	}
}

func TestHandlerWithTimeoutHandler(t *testing.T) {
	for _, proto := range protocols {
		for _, side := range []string{"outside", "inside"} {
			around := func(site *testSite, d time.Duration, h http.HandlerFunc) http.Handler {
				if side == "outside" {
					return outside(http.TimeoutHandler(site.m.Handler(h), d, "timeout"))
				}
				return outside(site.m.Handler(http.TimeoutHandler(h, d, "timeout")))
			}
			t.Run(proto+"/"+side, func(t *testing.T) {
				site := newSite(t)
				srv := startServer(t, proto, around(site, time.Minute, func(w http.ResponseWriter, r *http.Request) {
					spoil(w.Header())
					// What TimeoutHandler outside copies only adds to its map.
					w.Header().Del("Access-Control-Allow-Origin")
					nameKey.Set(session.From(r.Context()), "ada")
					_, _ = io.WriteString(w, "secret page")
				}))
				reply := srv.do(t, "POST", "")
				reply.want(t, 200, "secret page")
				if got := reply.header["Set-Cookie"]; len(got) != 2 {
					t.Errorf("Set-Cookie: got %d of them, want the handler's and the session's", len(got))
				}
				site.store.fail("Create")
				srv.do(t, "POST", "").wantRefused(t, 503)
			})
			t.Run(proto+"/"+side+"/late failure", func(t *testing.T) {
				if side == "inside" {
					return // there all comes before the first byte
				}
				site := newSite(t)
				cookie := site.login(t)
				site.store.fail("Update")
				srv := startServer(t, proto, around(site, time.Minute, func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.WriteString(w, "page")
					nameKey.Set(session.From(r.Context()), "eve")
				}))
				if reply := srv.do(t, "POST", cookie); reply.err == nil {
					t.Errorf("reply: got %d %q, want a broken one", reply.status, reply.body)
				}
			})
		}
		// The handler outlives its response, and does so in order: it goes on
		// when the browser has the answer.
		t.Run(proto+"/outside/timeout", func(t *testing.T) {
			site := newSite(t)
			cookie := site.login(t)
			answered, saved := make(chan struct{}), make(chan error)
			srv := startServer(t, proto, http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					<-answered
					nameKey.Set(session.From(r.Context()), "eve")
				})).ServeHTTP(w, r)
				saved <- nil
			}), time.Millisecond, "timeout"))
			srv.do(t, "POST", cookie).want(t, 503, "timeout")
			close(answered)
			<-saved
			site.wantStored(t, cookie, nameKey, "eve")
		})
		t.Run(proto+"/inside/timeout", func(t *testing.T) {
			site := newSite(t)
			cookie := site.login(t)
			finished, after := make(chan struct{}), make(chan error)
			h := site.m.Handler(http.TimeoutHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				nameKey.Get(s)
				<-finished
				nameKey.Set(s, "eve")
				after <- s.Err()
			}), time.Millisecond, "timeout"))
			srv := startServer(t, proto, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h.ServeHTTP(w, r)
				close(finished)
			}))
			srv.do(t, "POST", cookie).want(t, 503, "timeout")
			if got := <-after; !errors.Is(got, session.ErrFinished) {
				t.Errorf("Err of a change after the timeout: got %v, want ErrFinished", got)
			}
			site.wantStored(t, cookie, nameKey, "ada")
		})
	}
}

func TestHandlerPanicPassesOn(t *testing.T) {
	value := &struct{ s string }{"value"}
	for _, tt := range []struct {
		name   string
		value  any
		fails  string
		use    func(w http.ResponseWriter, s *session.Session)
		stored string
		want   any // nil: absorbed
	}{
		{"before the first byte", value, "", func(http.ResponseWriter, *session.Session) {}, "ada", value},
		{"after the first byte", value, "", func(w http.ResponseWriter, s *session.Session) {
			_, _ = io.WriteString(w, "page")
			nameKey.Set(s, "bob")
		}, "eve", value},
		{"after Save", value, "", func(_ http.ResponseWriter, s *session.Session) {
			if err := s.Save(context.Background()); err != nil {
				t.Errorf("Save: got %v, want no error", err)
			}
			nameKey.Set(s, "bob")
		}, "eve", value},
		{"uncomparable", []int{1}, "", func(http.ResponseWriter, *session.Session) {}, "ada", "[1]"},
		{"abort before the first byte", http.ErrAbortHandler, "", func(http.ResponseWriter, *session.Session) {}, "ada", http.ErrAbortHandler},
		{"abort in an outage, before the commit", http.ErrAbortHandler, "Update", func(http.ResponseWriter, *session.Session) {}, "ada", http.ErrAbortHandler},
		{"abort after a refusal", http.ErrAbortHandler, "Update", func(w http.ResponseWriter, _ *session.Session) {
			w.WriteHeader(200)
			spoil(w.Header())
			w.Header().Set(http.TrailerPrefix+"X-Late", "late")
		}, "ada", nil},
		{"other after a refusal", value, "Update", func(w http.ResponseWriter, _ *session.Session) { w.WriteHeader(200) }, "ada", value},
		{"uncomparable after a refusal", []int{1}, "Update", func(w http.ResponseWriter, _ *session.Session) { w.WriteHeader(200) }, "ada", "[1]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			site := newSite(t)
			cookie := site.login(t)
			site.store.fail(tt.fails)
			h := site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				nameKey.Set(s, "eve")
				tt.use(w, s)
				panic(tt.value)
			}))
			var got any
			func() {
				defer func() { got = recover() }()
				post(h, cookie)
			}()
			if _, ok := got.([]int); ok {
				got = fmt.Sprint(got)
			}
			if got != tt.want {
				t.Errorf("panic value: got %v, want %v", got, tt.want)
			}
			site.wantStored(t, cookie, nameKey, tt.stored)
		})
		for _, proto := range protocols {
			t.Run(tt.name+"/"+proto, func(t *testing.T) {
				site := newSite(t)
				cookie := site.login(t)
				site.store.fail(tt.fails)
				reply := startServer(t, proto, outside(site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					s := session.From(r.Context())
					nameKey.Set(s, "eve")
					tt.use(w, s)
					panic(tt.value)
				})))).do(t, "POST", cookie)
				if tt.want == nil {
					reply.wantRefused(t, 503)
				} else if reply.err == nil {
					t.Errorf("reply: got a complete one, %d %q, want a broken one", reply.status, reply.body)
				}
			})
		}
	}
}

func TestHandlerGoexit(t *testing.T) {
	site := newSite(t)
	cookie := site.login(t)
	for _, fails := range []string{"", "Update"} {
		site.store.fail(fails)
		h := site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			nameKey.Set(session.From(r.Context()), "eve")
			if fails != "" {
				w.WriteHeader(http.StatusOK)
			}
			runtime.Goexit()
		}))
		exited := make(chan bool)
		go func() {
			returned := false
			defer func() { exited <- !returned && recover() == nil }()
			post(h, cookie)
			returned = true
		}()
		if !<-exited {
			t.Error("Goexit: got a return or a panic, want the goroutine's end")
		}
		site.wantStored(t, cookie, nameKey, "ada")
	}
	for _, proto := range protocols {
		site.store.fail()
		reply := startServer(t, proto, site.m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			nameKey.Set(session.From(r.Context()), "eve")
			runtime.Goexit()
		}))).do(t, "POST", cookie)
		if reply.err == nil {
			t.Errorf("%s: reply: got a complete one, %d, want a broken one", proto, reply.status)
		}
		site.wantStored(t, cookie, nameKey, "ada")
	}
}

// A request that does not use the session gets what the bare handler gives.
func TestHandlerUnusedLeavesNoTrace(t *testing.T) {
	for _, proto := range protocols {
		t.Run(proto, func(t *testing.T) {
			site := newSite(t)
			bare := outside(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "public, max-age=60")
				_, _ = io.WriteString(w, "page")
			}))
			found := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_ = session.From(r.Context()).Err() // no use
				bare.ServeHTTP(w, r)
			})
			want := startServer(t, proto, bare).do(t, "POST", "")
			for _, cookie := range []string{"", site.login(t)} {
				site.store.fail("Load", "Create", "Update", "Touch", "Delete")
				reply := startServer(t, proto, site.m.Handler(found)).do(t, "POST", cookie)
				reply.want(t, 200, want.body)
				reply.header.Del("Date")
				want.header.Del("Date")
				if got := fmt.Sprint(reply.header); got != fmt.Sprint(want.header) {
					t.Errorf("header: got %s, want %v", got, want.header)
				}
				if got := site.store.count(""); got != 0 {
					t.Errorf("store calls: got %d, want 0", got)
				}
			}
		})
	}
}

func TestHandlerStatements(t *testing.T) {
	var statements atomic.Int64
	pool := pgtest.Pool(t, (&tracer{start: func(string) { statements.Add(1) }}).use)
	store := newStore(t, pool)
	cfg := session.Config{Secret: "for tests only: 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A", DisablePrune: true}
	m := newManager(t, store, cfg)
	use := func(f func(s *session.Session)) http.Handler {
		return m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			f(session.From(r.Context()))
			_, _ = io.WriteString(w, "page")
		}))
	}
	login := post(use(func(s *session.Session) { nameKey.Set(s, "ada") }), "")
	known := login.cookie(t)

	cfg.Secret = "not the secret: 4Ft8Qs2Zr6Lm9Xv1Kc5Bn7Wd3Hj0Pg"
	forger := newManager(t, session.NewMemoryStore(), cfg)
	forged := post(forger.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		nameKey.Set(session.From(r.Context()), "ada")
	})), "").cookie(t)

	everything := func(s *session.Session) {
		nameKey.Get(s)
		nameKey.Take(s)
		nameKey.Delete(s)
		s.ID()
		s.IsNew()
		s.Keys()
		s.SetIdleTimeout(time.Hour)
		s.Renew()
		s.Destroy()
		_ = s.Save(t.Context())
		_ = s.Reload(t.Context())
	}
	for _, tt := range []struct {
		name    string
		cookie  string
		use     func(s *session.Session)
		want    int64
		vary    bool
		cookies int
	}{
		{"unused, no cookie", "", func(*session.Session) {}, 0, false, 0},
		{"unused, a session's cookie", known, func(*session.Session) {}, 0, false, 0},
		{"unused, forged cookie", forged, func(*session.Session) {}, 0, false, 0},
		{"read, no cookie", "", everything, 0, true, 0},
		{"read, forged cookie", forged, everything, 0, true, 0},
		{"read, broken cookie", "session=x", everything, 0, true, 0},
		{"set and deleted, no cookie", "", func(s *session.Session) { nameKey.Set(s, "eve"); nameKey.Delete(s) }, 0, true, 0},
		{"one read", known, func(s *session.Session) { nameKey.Get(s) }, 1, true, 0},
		{"many reads", known, func(s *session.Session) { nameKey.Get(s); cityKey.Get(s); s.Keys(); s.ID() }, 1, true, 0},
		{"the same value set", known, func(s *session.Session) { nameKey.Set(s, "ada") }, 2, true, 0},
		{"one change", known, func(s *session.Session) { nameKey.Set(s, "eve") }, 2, true, 0},
		{"destroy", known, (*session.Session).Destroy, 1, true, 1},
		{"create", "", func(s *session.Session) { nameKey.Set(s, "eve") }, 1, true, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := statements.Load()
			reply := post(use(tt.use), tt.cookie)
			if got := statements.Load() - before; got != tt.want {
				t.Errorf("statements: got %d, want %d", got, tt.want)
			}
			reply.want(t, 200, "page")
			if got := len(reply.header["Set-Cookie"]); got != tt.cookies {
				t.Errorf("cookies: got %d, want %d", got, tt.cookies)
			}
			if got := reply.header.Get("Vary") != ""; got != tt.vary {
				t.Errorf("Vary: got %v, want %v", got, tt.vary)
			}
		})
	}
	var rows int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM schema_system.session").Scan(&rows); err != nil {
		t.Fatal(err)
	}
	if rows != 1 { // the last line's
		t.Errorf("rows: got %d, want 1", rows)
	}
}

func TestHandlerVary(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  []string
		want []string
	}{
		{"none", nil, []string{"Cookie"}},
		{"another", []string{"Accept-Encoding"}, []string{"Accept-Encoding", "Cookie"}},
		{"the same", []string{"Cookie"}, []string{"Cookie"}},
		{"among others, in lower case", []string{"Accept-Encoding, cookie", "Origin"}, []string{"Accept-Encoding, cookie", "Origin"}},
		{"everything", []string{"*"}, []string{"*"}},
		{"one that only looks like it", []string{"Cookies, X-Cookie"}, []string{"Cookies, X-Cookie", "Cookie"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			site := newSite(t)
			reply := post(site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				nameKey.Get(session.From(r.Context()))
				for _, v := range tt.set {
					w.Header().Add("Vary", v)
				}
			})), "")
			if got := reply.header["Vary"]; !slices.Equal(got, tt.want) {
				t.Errorf("Vary: got %q, want %q", got, tt.want)
			}
		})
	}
}

// Whatever the handler says, no shared cache may keep a session cookie.
func TestHandlerCacheControlWithCookie(t *testing.T) {
	for _, tt := range []struct {
		set  []string
		want []string
	}{
		{nil, []string{"no-store"}},
		{[]string{"public, max-age=60"}, []string{"no-store"}},
		{[]string{"max-age=60"}, []string{"no-store"}},
		{[]string{"no-cache"}, []string{"no-store"}},
		{[]string{"s-maxage=60"}, []string{"no-store"}},
		{[]string{"private, max-age=60"}, []string{"private, max-age=60"}},
		{[]string{"max-age=60,PRIVATE"}, []string{"max-age=60,PRIVATE"}},
		{[]string{"max-age=60", "private"}, []string{"max-age=60", "private"}},
		{[]string{"no-store, max-age=0"}, []string{"no-store, max-age=0"}},
		{[]string{`private="X"`}, []string{"no-store"}},
		{[]string{`private="X, private, Y"`}, []string{"no-store"}},
		{[]string{`no-cache="X, no-store", max-age=60`}, []string{"no-store"}},
		{[]string{`no-cache="X, Y", private`}, []string{`no-cache="X, Y", private`}},
		{[]string{"x-private, not-no-store"}, []string{"no-store"}},
	} {
		t.Run(strings.Join(tt.set, "|"), func(t *testing.T) {
			site := newSite(t)
			reply := post(site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				nameKey.Set(session.From(r.Context()), "ada")
				for _, v := range tt.set {
					w.Header().Add("Cache-Control", v)
				}
				w.Header().Set("CDN-Cache-Control", "max-age=60")
				w.Header().Set("Example-CDN-Cache-Control", "max-age=60")
				w.Header().Set("Surrogate-Control", "max-age=60")
				w.Header().Set("X-Accel-Expires", "60")
			})), "")
			reply.cookie(t)
			if got := reply.header["Cache-Control"]; !slices.Equal(got, tt.want) {
				t.Errorf("Cache-Control: got %q, want %q", got, tt.want)
			}
			for _, name := range []string{"Cdn-Cache-Control", "Example-Cdn-Cache-Control", "Surrogate-Control", "X-Accel-Expires"} {
				if got := reply.header[name]; got != nil {
					t.Errorf("%s: got %q, want none beside a cookie", name, got)
				}
			}
		})
	}
}

// Without a cookie of ours the handler's headers are its own.
func TestHandlerCacheControlWithoutCookie(t *testing.T) {
	site := newSite(t)
	reply := post(site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		nameKey.Get(session.From(r.Context()))
		w.Header().Set("Cache-Control", "public, max-age=60")
		w.Header().Set("CDN-Cache-Control", "max-age=60")
	})), site.login(t))
	if got := reply.header.Get("Cache-Control") + "|" + reply.header.Get("CDN-Cache-Control"); got != "public, max-age=60|max-age=60" {
		t.Errorf("Cache-Control and CDN-Cache-Control: got %q, want the handler's", got)
	}
	if got := reply.header.Get("Vary"); got != "Cookie" {
		t.Errorf("Vary: got %q, want Cookie", got)
	}
}

// A cookie for a touch alone does not spoil a page that caches may keep; the
// touch itself happens.
func TestHandlerTouchOnlyCookie(t *testing.T) {
	get := func(s *session.Session) { nameKey.Get(s) }
	for _, tt := range []struct {
		name   string
		set    string
		use    func(s *session.Session)
		cookie bool
		want   string
	}{
		{"plain", "", get, true, "no-store"},
		{"private", "private", get, true, "private"},
		{"max-age", "max-age=60", get, true, "no-store"},
		{"public", "public, max-age=60", get, false, "public, max-age=60"},
		{"s-maxage", "S-MaxAge=60", get, false, "S-MaxAge=60"},
		{"public only in quotes", `x="a, public"`, get, true, "no-store"},
		{"public, renewed", "public, max-age=60", (*session.Session).Renew, true, "no-store"},
		{"public, destroyed", "public, max-age=60", (*session.Session).Destroy, true, "no-store"},
		{"public, remembered", "public, max-age=60", func(s *session.Session) { s.SetIdleTimeout(48 * time.Hour) }, true, "no-store"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				site := newSite(t)
				cookie := site.login(t)
				<-time.After(time.Hour) // the bubble's clock: a touch is due
				reply := post(site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					tt.use(session.From(r.Context()))
					if tt.set != "" {
						w.Header().Set("Cache-Control", tt.set)
					}
				})), cookie)
				if got := len(reply.header["Set-Cookie"]) == 1; got != tt.cookie {
					t.Errorf("cookie: got %v, want %v", got, tt.cookie)
				}
				if got := reply.header.Get("Cache-Control"); got != tt.want {
					t.Errorf("Cache-Control: got %q, want %q", got, tt.want)
				}
				if got := site.store.count(""); tt.name == "public" && (got != 2 || site.store.count("Touch") != 1) {
					t.Errorf("store calls: got %d, want a load and a touch", got)
				}
			})
		})
	}
}

func TestHandlerNested(t *testing.T) {
	// managers returns two of them with cookies of their own.
	managers := func(t *testing.T) (outer, inner *testSite) {
		outer = newSite(t, func(c *session.Config) { c.Cookie.Name = "outer" })
		return outer, newSite(t)
	}
	names := func(r *response) string {
		var out []string
		for _, c := range r.header["Set-Cookie"] {
			name, _, _ := strings.Cut(c, "=")
			out = append(out, name)
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	for _, proto := range protocols {
		t.Run(proto, func(t *testing.T) {
			outer, inner := managers(t)
			srv := startServer(t, proto, outside(outer.m.Handler(inner.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				ctx, cancel := context.WithCancel(r.Context()) // found through contexts of others, too
				defer cancel()
				if session.From(ctx) != inner.m.From(ctx) || session.From(ctx) == outer.m.From(ctx) {
					t.Error("From: got the outer manager's session, want the innermost's")
				}
				nameKey.Set(outer.m.From(ctx), "outer")
				nameKey.Set(inner.m.From(ctx), "inner")
				_, _ = io.WriteString(w, "page")
			})))))
			reply := srv.do(t, "POST", "")
			reply.want(t, 200, "page")
			if got := names(reply); got != "outer session" {
				t.Errorf("cookies: got %q, want both", got)
			}
			if got := reply.header["Vary"]; !slices.Equal(got, []string{"Cookie"}) {
				t.Errorf("Vary: got %q, want it once", got)
			}
			for _, c := range reply.header["Set-Cookie"] {
				pair, _, _ := strings.Cut(c, ";")
				if strings.HasPrefix(pair, "outer=") {
					outer.wantStored(t, pair, nameKey, "outer")
				} else {
					inner.wantStored(t, pair, nameKey, "inner")
				}
			}

			// The inner answers; the outer's session is none of its business.
			inner.store.fail("Create")
			reply = srv.do(t, "POST", "")
			reply.want(t, 503, "Service Unavailable\n")
			if got := names(reply); got != "outer" {
				t.Errorf("cookies when the inner fails: got %q, want the outer's", got)
			}

			// The outer answers, and nothing of the inner's gets out.
			inner.store.fail()
			outer.store.fail("Create")
			srv.do(t, "POST", "").wantRefused(t, 503)

			// Both fail: one answer.
			inner.store.fail("Create")
			srv.do(t, "POST", "").wantRefused(t, 503)
		})
	}
	t.Run("same manager", func(t *testing.T) {
		site := newSite(t)
		var around *session.Session
		inner := site.m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if session.From(r.Context()) != around {
				t.Error("From: got another session inside, want the same")
			}
		}))
		reply := post(site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			around = session.From(r.Context())
			nameKey.Set(around, "ada")
			inner.ServeHTTP(w, r)
		})), "")
		site.wantStored(t, reply.cookie(t), nameKey, "ada")
		if got := site.store.count(""); got != 1 {
			t.Errorf("store calls: got %d, want 1", got)
		}
	})
	t.Run("same manager around another", func(t *testing.T) {
		outer, inner := managers(t)
		post(outer.m.Handler(inner.m.Handler(outer.m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if session.From(r.Context()) != inner.m.From(r.Context()) {
				t.Error("From: got the outer manager's session, want the innermost's")
			}
		})))), "")
	})
}

func TestFromWithoutHandler(t *testing.T) {
	site, other := newSite(t), newSite(t)
	for name, f := range map[string]func(ctx context.Context){
		"From":                       func(context.Context) { session.From(context.Background()) },
		"Manager.From":               func(context.Context) { site.m.From(context.Background()) },
		"Manager.From under another": func(ctx context.Context) { other.m.From(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			post(site.m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				defer func() {
					if got, _ := recover().(string); !strings.Contains(got, "wrap the handler") {
						t.Errorf("panic: got %q, want one that says what to do", got)
					}
				}()
				f(r.Context())
			})), "")
		})
	}
}

// The context that carries a session may end up in somebody's log.
func TestContextShowsNoSession(t *testing.T) {
	site := newSite(t)
	post(site.m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		nameKey.Set(s, "nobody may see this name")
		derived, cancel := context.WithCancel(r.Context())
		defer cancel()
		type key struct{}
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
			for _, v := range []any{r.Context(), derived, context.WithValue(r.Context(), key{}, 1), s} {
				out := fmt.Sprintf(format, v)
				if strings.Contains(out, s.ID()) || strings.Contains(out, "nobody may") {
					t.Errorf("Sprintf(%q, a %T): got a session ID or data, want neither", format, v)
				}
			}
		}
	})), site.login(t))
}

// nullWriter is a ResponseWriter that costs nothing itself.
type nullWriter struct{ h http.Header }

func (w nullWriter) Header() http.Header         { return w.h }
func (w nullWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w nullWriter) WriteHeader(int)             {}

var pageBytes = []byte(strings.Repeat("page ", 200))

func bareHandler(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(pageBytes)
}

func TestHandlerUnusedAllocates(t *testing.T) {
	site := newSite(t)
	bare := http.Handler(http.HandlerFunc(bareHandler))
	var w http.ResponseWriter = nullWriter{http.Header{}}
	for _, cookie := range []string{"", site.login(t)} {
		r := httptest.NewRequest("GET", "/", nil)
		if cookie != "" {
			r.Header.Set("Cookie", cookie)
		}
		measure := func(h http.Handler) float64 {
			return testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) })
		}
		if without, with := measure(bare), measure(site.m.Handler(bare)); with-without > 3 {
			t.Errorf("allocations: got %v more than the bare handler's %v, want at most 3", with-without, without)
		}
	}
}

func BenchmarkUnused(b *testing.B) {
	site := newSite(b)
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Cookie", site.login(b))
	var w http.ResponseWriter = nullWriter{http.Header{}}
	bare := http.Handler(http.HandlerFunc(bareHandler))
	for _, bm := range []struct {
		name string
		h    http.Handler
	}{{"bare", bare}, {"wrapped", site.m.Handler(bare)}} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bm.h.ServeHTTP(w, r)
			}
		})
	}
}

// BenchmarkUnusedLoopback makes each request of three servers in turns, so that
// what else the machine does slows all of them: a bare one, a wrapped one, and
// another bare one that says how much of the difference is noise. The ratios
// are those of the median times of a request.
func BenchmarkUnusedLoopback(b *testing.B) {
	site := newSite(b)
	cookie := site.login(b)
	bare := http.Handler(http.HandlerFunc(bareHandler))
	var took [3][]float64
	var servers [3]*testServer
	for i, h := range []http.Handler{bare, site.m.Handler(bare), bare} {
		servers[i] = startServer(b, "HTTP/1.1", h)
	}
	for i := 0; b.Loop(); i++ {
		for j := range servers {
			n := (i + j) % len(servers)
			start := time.Now()
			reply := servers[n].do(b, "GET", cookie)
			took[n] = append(took[n], float64(time.Since(start)))
			if reply.status != http.StatusOK || len(reply.body) != len(pageBytes) {
				b.Fatalf("reply: got %d and %d bytes, want 200 and %d", reply.status, len(reply.body), len(pageBytes))
			}
		}
	}
	var median [3]float64
	for n := range took {
		slices.Sort(took[n])
		median[n] = took[n][len(took[n])/2]
	}
	b.ReportMetric(median[0], "bare-ns")
	b.ReportMetric(median[1], "wrapped-ns")
	b.ReportMetric(median[1]/median[0], "wrapped/bare")
	b.ReportMetric(median[2]/median[0], "bare/bare")
}
