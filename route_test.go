package session_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
)

const secretPath = "/reset/8f2e61c0token"

// routed puts a handler behind the pattern that secretPath matches.
func routed(h http.HandlerFunc) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/reset/{token}", h)
	return mux
}

func askRoute(h http.Handler, cookie string) {
	r := httptest.NewRequest("POST", secretPath, nil)
	r.Header.Set("Cookie", cookie)
	askBroken(h, r)
}

// What is said of a request says which route it was of, and the key, and never the
// path.
func TestLogsNameTheRoute(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fail  string // of the store
		words string
		use   func(w http.ResponseWriter, s *session.Session)
		after func(s *session.Session)
	}{
		{"a load that fails", "Load", "request refused", func(_ http.ResponseWriter, s *session.Session) { readUser(s) }, nil},
		{"a value that cannot be stored", "", `request refused error=session: Key("a")`, func(_ http.ResponseWriter, s *session.Session) { session.Key[chan int]("a").Set(s, nil) }, nil},
		{"a value of another type", "", "another type than its key, treated as absent key=user", func(_ http.ResponseWriter, s *session.Session) { session.Key[int]("user").Get(s) }, nil},
		{"a touch that fails", "Touch", "expiry not moved", func(_ http.ResponseWriter, s *session.Session) { readUser(s) }, nil},
		{"a renewal after the first byte", "", "not saved error=", func(w http.ResponseWriter, s *session.Session) { w.WriteHeader(200); s.Renew() }, nil},
		{"a save after the first byte", "Update", "not saved after the first byte", func(w http.ResponseWriter, s *session.Session) { w.WriteHeader(200); keyA.Set(s, "1") }, nil},
		{"a change after the handler", "", "change dropped call=Set key=a", func(_ http.ResponseWriter, s *session.Session) { readUser(s) }, func(s *session.Session) { keyA.Set(s, "1") }},
		{"a logout after the handler", "", "change dropped call=Destroy", func(_ http.ResponseWriter, s *session.Session) { readUser(s) }, destroy},
		{"a first use after the handler", "", "nothing was loaded call=Get key=user", func(http.ResponseWriter, *session.Session) {}, readUser},
		{"a first question after the handler", "", "nothing was loaded call=ID", func(http.ResponseWriter, *session.Session) {}, func(s *session.Session) { s.ID() }},
	} {
		for _, where := range []string{"below", "around", "none"} {
			t.Run(tt.name+", a mux "+where, func(t *testing.T) {
				store, log := newHookedStore(), &logRecorder{}
				m := newManager(t, store, session.Config{Logger: log.logger(), TouchInterval: 1, DisablePrune: true})
				b := login(t, m)
				log.reset()
				if tt.fail != "" {
					store.fail(tt.fail)
				}
				var s *session.Session
				page := func(w http.ResponseWriter, r *http.Request) {
					s = session.From(r.Context())
					tt.use(w, s)
				}
				var h http.Handler
				switch where {
				case "below":
					h = m.Handler(routed(page))
				case "around":
					h = routed(m.Handler(http.HandlerFunc(page)).ServeHTTP)
				default:
					h = m.Handler(http.HandlerFunc(page))
				}
				askRoute(h, b.cookie)
				if tt.after != nil {
					tt.after(s)
				}
				got := strings.Join(log.from(slog.LevelWarn), "\n")
				if !strings.Contains(got, tt.words) {
					t.Errorf("logged: got %q, want %q", got, tt.words)
				}
				if has := strings.Contains(got, "route=/reset/{token}"); has != (where != "none") || strings.Count(got, "route=") != strings.Count(got, "\n")+1 && has {
					t.Errorf("logged: got %q, want the route in each, %t", got, where != "none")
				}
				if strings.Contains(log.String(), "8f2e61c0") {
					t.Error("logged: got the path")
				}
			})
		}
	}
}

// A goroutine that was started before a ServeMux below has written the pattern does
// not look at it: the race detector would see that. The middleware lets it begin, and
// the handler waits for it.
func TestRouteIsReadByWhoServes(t *testing.T) {
	log := &logRecorder{}
	m := newManager(t, session.NewMemoryStore(), session.Config{Logger: log.logger()})
	b := login(t, m)
	log.reset()
	var done sync.WaitGroup
	mux := routed(func(http.ResponseWriter, *http.Request) { done.Wait() })
	askRoute(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		done.Go(func() { session.Key[int]("user").Get(s) })
		mux.ServeHTTP(w, r)
	})), b.cookie)
	if got := log.from(slog.LevelWarn); len(got) != 1 || strings.Contains(got[0], "route=") {
		t.Errorf("logged: got %q, want one without a route", got)
	}
}

// The same mistake in every request is said once a minute for each route.
func TestLateUseFillsNoLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logRecorder{}
		m := newManager(t, session.NewMemoryStore(), session.Config{Logger: log.logger(), DisablePrune: true})
		b := login(t, m)
		log.reset()
		var s *session.Session
		page := func(_ http.ResponseWriter, r *http.Request) { s = session.From(r.Context()) }
		mux := routed(page)
		mux.HandleFunc("GET /other", page)
		h := m.Handler(mux)
		late := func(method, path string) {
			r := httptest.NewRequest(method, path, nil)
			r.Header.Set("Cookie", b.cookie)
			askBroken(h, r)
			if _, ok := userKey.Get(s); ok || !errors.Is(s.Err(), session.ErrFinished) {
				t.Errorf("got a value %t, %v, want ErrFinished each time", ok, s.Err())
			}
		}
		for range 100 {
			late("POST", secretPath)
		}
		late("GET", "/other")
		if got := log.from(slog.LevelError); len(got) != 2 || !strings.Contains(got[1], "route=GET /other") {
			t.Fatalf("logged: got %q, want one for each of two routes", got)
		}
		log.reset()
		time.Sleep(time.Minute)
		late("POST", secretPath)
		if got := log.from(slog.LevelError); len(got) != 1 || !strings.Contains(got[0], "notLogged=99") {
			t.Errorf("logged after a minute: got %q, want one with those that were left out", got)
		}
	})
}

// Whoever saves after a handler that has panicked is not told that it is done.
func TestSaveAfterAPanic(t *testing.T) {
	for _, change := range []func(*session.Session){func(s *session.Session) { keyA.Set(s, "1") }, destroy, renew} {
		for _, ctx := range []context.Context{context.Background(), t.Context()} {
			store, log := newHookedStore(), &logRecorder{}
			m := newManager(t, store, session.Config{Logger: log.logger(), DisablePrune: true})
			b := login(t, m)
			log.reset()
			store.took()
			var s *session.Session
			survive(m.Handler(routed(func(_ http.ResponseWriter, r *http.Request) {
				s = session.From(r.Context())
				change(s)
				panic("of the handler")
			})), func() *http.Request {
				r := httptest.NewRequest("POST", secretPath, nil)
				r.Header.Set("Cookie", b.cookie)
				return r
			}())
			if err := s.Save(ctx); !errors.Is(err, session.ErrFinished) || !errors.Is(s.Err(), session.ErrFinished) {
				t.Errorf("Save: got %v, Err %v, want ErrFinished", err, s.Err())
			}
			if got := log.from(slog.LevelError); len(got) != 1 || !strings.Contains(got[0], "nothing was saved call=Save route=/reset/{token}") {
				t.Errorf("logged: got %q, want that once", got)
			}
		}
	}
}

// SecureAlways where nothing says HTTPS: browsers drop the cookie, and it is said once.
func TestSecureAlwaysOverHTTP(t *testing.T) {
	for _, tt := range []struct {
		name   string
		mode   session.SecureMode
		header string // with its value
		tls    bool
		warns  bool
	}{
		{"plain HTTP", session.SecureAlways, "", false, true},
		{"a proxy that got HTTP", session.SecureAlways, "X-Forwarded-Proto=http", false, true},
		{"a proxy that got HTTPS", session.SecureAlways, "X-Forwarded-Proto=https", false, false},
		{"several proxies", session.SecureAlways, "X-Forwarded-Proto=HTTPS , http", false, false},
		{"a browser that trusts the origin", session.SecureAlways, "Sec-Fetch-Site=none", false, false},
		{"TLS", session.SecureAlways, "", true, false},
		{"SecureAuto", session.SecureAuto, "", false, false},
		{"SecureNever", session.SecureNever, "", false, false},
	} {
		log := &logRecorder{}
		m := newManager(t, session.NewMemoryStore(), session.Config{Logger: log.logger(), DisablePrune: true, Cookie: session.CookieConfig{Secure: tt.mode}})
		log.reset()
		target := "http://shop.example" + secretPath
		if tt.tls {
			target = "https://shop.example" + secretPath
		}
		h := m.Handler(routed(func(_ http.ResponseWriter, r *http.Request) { keyA.Set(session.From(r.Context()), "1") }))
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				r := httptest.NewRequest("POST", target, nil)
				if name, value, ok := strings.Cut(tt.header, "="); ok {
					r.Header.Set(name, value)
				}
				askBroken(h, r)
			})
		}
		all.Wait()
		got := log.from(slog.LevelWarn)
		if warns := len(got) == 1 && strings.Contains(got[0], "SecureAlways") && strings.Contains(got[0], "route=/reset/{token}"); warns != tt.warns || !warns && len(got) > 0 {
			t.Errorf("%s: logged %q, want one warning: %t", tt.name, got, tt.warns)
		}
	}
}

// A cookie or token of another secret is said once, however many come at once.
func TestUnverifiedIsSaidOnce(t *testing.T) {
	shop := func(c *session.Config) { c.TokenPrefix = "shop_" }
	express := func(c *session.Config) { c.Cookie.Format = session.FormatExpress }
	for _, tt := range []struct {
		name   string
		opt    func(*session.Config)
		header string
		values func(id string) (strange, malformed string)
	}{
		{"a cookie", shop, "Cookie", func(id string) (string, string) {
			c := cookieOf(t, testSecretOld, session.FormatSecureCookie, id)
			return c, c[:len(c)-8]
		}},
		{"a cookie of Express's", express, "Cookie", func(id string) (string, string) {
			c := cookieOf(t, testSecretOld, session.FormatExpress, id)
			return c, c[:len(c)-8]
		}},
		{"a token", shop, "Authorization", func(id string) (string, string) {
			c := tokenOf(t, testSecretOld, "shop_", id)
			return "Bearer " + c, "Bearer " + c[:len(c)-8]
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := &logRecorder{}
			cfg := session.Config{Secret: testSecret, Logger: log.logger(), DisablePrune: true}
			tt.opt(&cfg)
			m := newManager(t, session.NewMemoryStore(), cfg)
			log.reset()
			id := strings.Repeat("q", 31) + "A"
			strange, malformed := tt.values(id)
			h := m.Handler(routed(func(_ http.ResponseWriter, r *http.Request) { readUser(session.From(r.Context())) }))
			ask := func(value string, times int) []string {
				t.Helper()
				log.reset()
				before := m.Stats().BadCookies
				var all sync.WaitGroup
				for range times {
					all.Go(func() {
						r := httptest.NewRequest("POST", secretPath, nil)
						r.Header.Set(tt.header, value)
						askBroken(h, r)
					})
				}
				all.Wait()
				if got := m.Stats().BadCookies - before; got != uint64(times) {
					t.Errorf("Stats.BadCookies: got %d more, want %d", got, times)
				}
				return log.from(slog.LevelDebug)
			}
			if got := ask(malformed, 10); len(got) != 0 {
				t.Errorf("what nobody has signed: logged %q, want nothing", got)
			}
			got := ask(strange, 50)
			want := fmt.Sprintf("secretFingerprint=%s oldFingerprints=[] route=/reset/{token}", fingerprint(testSecret))
			if len(got) != 1 || !strings.Contains(got[0], "does not verify") || !strings.HasSuffix(got[0], want) {
				t.Errorf("logged %q, want one that ends in %q", got, want)
			}
			if all := strings.Join(got, ""); strings.Contains(all, strange[len(strange)-20:]) || strings.Contains(all, id) {
				t.Error("the log holds the cookie, the token or the ID")
			}
			if got := ask(strange, 10); len(got) != 0 {
				t.Errorf("again: logged %q, want nothing", got)
			}
			if err := m.SetSecrets(testSecretOther, testSecret); err != nil {
				t.Fatal(err)
			}
			want = fmt.Sprintf("secretFingerprint=%s oldFingerprints=[%s]", fingerprint(testSecretOther), fingerprint(testSecret))
			if got := ask(strange, 10); len(got) != 1 || !strings.Contains(got[0], want) {
				t.Errorf("after a change of the secret: logged %q, want one with %q", got, want)
			}
		})
	}
}

// A cookie of another program beside one that verifies is nobody's loss.
func TestUnverifiedBesideAnother(t *testing.T) {
	log := &logRecorder{}
	m := newManager(t, session.NewMemoryStore(), session.Config{Logger: log.logger()})
	b := login(t, m)
	log.reset()
	b.cookie = cookieOf(t, testSecretOld, session.FormatSecureCookie, strings.Repeat("q", 31)+"A") + "; " + b.cookie
	if got := b.user(); got != "ada" || len(log.from(slog.LevelWarn)) != 0 {
		t.Errorf("got user %q, logged %q, want ada, nothing", got, log.from(slog.LevelWarn))
	}
}
