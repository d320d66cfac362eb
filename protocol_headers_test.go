package session_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/pgsession/session"
)

// protocolCaching are header fields that tell a shared cache to keep a response,
// in spellings that http.Header.Set would not give them.
var protocolCaching = []string{
	"CDN-Cache-Control", "cdn-cache-control", "Cdn-Cache-Control", "CDN-CACHE-CONTROL", "cDn-cAcHe-cOnTrOl",
	"cloudflare-cdn-cache-control", "Netlify-CDN-Cache-Control", "x-litespeed-cache-control",
	"Surrogate-Control", "surrogate-control", "SURROGATE-CONTROL",
	"X-Accel-Expires", "x-accel-expires", "X-ACCEL-EXPIRES",
	"cache-control", "CACHE-CONTROL", "cache-Control",
}

// wantUncached checks that nothing in a response with the session's cookie, or with
// an error, lets a shared cache keep it.
func wantUncached(t *testing.T, resp *response) {
	t.Helper()
	control := ""
	for name, values := range resp.header {
		lower := strings.ToLower(name)
		switch {
		case lower == "cache-control":
			control += strings.ToLower(strings.Join(values, ", "))
		case strings.HasSuffix(lower, "-cache-control"), lower == "surrogate-control", lower == "x-accel-expires":
			t.Errorf("header: got %s: %q, want it gone", name, values)
		}
	}
	if strings.Contains(control, "public") || strings.Contains(control, "max-age") || !strings.Contains(control, "no-store") && !strings.Contains(control, "private") {
		t.Errorf("Cache-Control, in whatever spelling: got %q, want no-store or private", control)
	}
}

// No spelling of a field that caches obey survives beside a session cookie.
func TestProtocolNoCachingBesideACookie(t *testing.T) {
	for _, name := range protocolCaching {
		for _, value := range []string{"public, max-age=60", "max-age=60"} {
			for _, way := range []string{"a new session", "a renewal", "a logout"} {
				t.Run(name+" "+value+", "+way, func(t *testing.T) {
					m := newManager(t, session.NewMemoryStore(), session.Config{})
					b := login(t, m)
					resp := b.serve(func(w http.ResponseWriter, r *http.Request) {
						w.Header()[name] = []string{value}
						switch s := session.From(r.Context()); way {
						case "a new session":
							s.Destroy()
							keyA.Set(s, "1")
						case "a renewal":
							s.Renew()
						default:
							s.Destroy()
						}
						_, _ = io.WriteString(w, "page")
					})
					if resp.sent() == "nothing" {
						t.Error("cookie: got none, want one")
					}
					wantUncached(t, resp)
				})
			}
		}
	}
}

// A page that says that it is private stays so, in whatever spelling; one that does
// not is not stored.
func TestProtocolPrivateBesideACookie(t *testing.T) {
	for _, name := range []string{"Cache-Control", "cache-control", "CACHE-CONTROL"} {
		for _, value := range []string{"private", "no-store", "PRIVATE", `private="x"`, "no-cache"} {
			t.Run(name+" "+value, func(t *testing.T) {
				m := newManager(t, session.NewMemoryStore(), session.Config{})
				resp := (&browser{m: m}).serve(func(w http.ResponseWriter, r *http.Request) {
					w.Header()[name] = []string{value}
					keyA.Set(session.From(r.Context()), "1")
				})
				wantResponse(t, "response", resp, 200, "set")
				wantUncached(t, resp)
			})
		}
	}
}

// A touch does not spoil a page that is public, in whatever spelling that is said.
func TestProtocolPublicPageInAnySpelling(t *testing.T) {
	for _, name := range []string{"Cache-Control", "cache-control", "CACHE-CONTROL"} {
		for _, value := range []string{"public", "PUBLIC, max-age=60", "s-maxage=60", "max-age=1, S-MaxAge=5"} {
			t.Run(name+" "+value, func(t *testing.T) {
				store := newHookedStore()
				b := login(t, newManager(t, store, session.Config{}))
				store.age(t, 5*session.DefaultTouchInterval)
				resp := b.serve(func(w http.ResponseWriter, r *http.Request) {
					w.Header()[name] = []string{value}
					readUser(session.From(r.Context()))
				})
				wantResponse(t, "response", resp, 200, "nothing")
				if got := resp.header[name]; len(got) != 1 || got[0] != value {
					t.Errorf("%s: got %q, want %q as it was", name, got, value)
				}
			})
		}
	}
}

// An error answer is kept by no cache, whatever spelling the error handler, or the
// handler outside, has used.
func TestProtocolNoCachingOfAnError(t *testing.T) {
	answers := map[string]func(http.ResponseWriter){
		"WriteHeader": func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) },
		"Write":       func(w http.ResponseWriter) { _, _ = io.WriteString(w, "sorry") },
		"Flush":       func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() },
		"nothing":     func(http.ResponseWriter) {},
	}
	for _, name := range protocolCaching {
		for way, answer := range answers {
			for _, outside := range []bool{false, true} {
				set := func(w http.ResponseWriter) { w.Header()[name] = []string{"public, max-age=60"} }
				store := failingStore("Load")
				m := newManager(t, store, session.Config{ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
					if !outside {
						set(w)
					}
					answer(w)
				}})
				h := m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { readUser(session.From(r.Context())) }))
				value, err := m.SignCookie(strings.Repeat("a", 32))
				if err != nil {
					t.Fatal(err)
				}
				t.Run(name+", "+way, func(t *testing.T) {
					wantUncached(t, ask(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if outside {
							set(w)
						}
						h.ServeHTTP(w, r)
					}), request("GET", "session="+value)))
				})
			}
		}
	}
}

// Vary names the cookie once, in whatever spelling the handler has said it.
func TestProtocolVaryOnce(t *testing.T) {
	for _, name := range []string{"Vary", "vary", "VARY"} {
		for _, value := range []string{"Cookie", "cookie", "Accept, COOKIE", "*"} {
			b := login(t, newManager(t, session.NewMemoryStore(), session.Config{}))
			resp := b.serve(func(w http.ResponseWriter, r *http.Request) {
				w.Header()[name] = []string{value}
				readUser(session.From(r.Context()))
			})
			var all []string
			for n, values := range resp.header {
				if strings.EqualFold(n, "Vary") {
					all = append(all, values...)
				}
			}
			if len(all) != 1 || all[0] != value {
				t.Errorf("%s: %s: got %q, want it as it was", name, value, all)
			}
		}
	}
}
