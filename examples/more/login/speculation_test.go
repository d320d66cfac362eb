package main_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/target"
	"github.com/pgsession/session"
)

const (
	aheadUser  = session.Key[int]("user")
	aheadFlash = session.Key[string]("flash")
)

// ahead is a site whose first page lets the browser fetch another one ahead, waits
// until the test says so, and goes there. Nothing of it is driven by DevTools: with
// them attached to a tab Chromium prerenders nothing.
type ahead struct {
	url   string
	asked chan visit    // requests of the other page, and of the logout
	ready chan string   // Sec-Purpose of what a prerendered page asks for
	goOn  chan struct{} // lets the first page go on
	shown chan string   // what a user sees of the other page
}

// visit is a request and its answer.
type visit struct {
	purpose string // Sec-Purpose
	code    int
	dropped string // Clear-Site-Data of the answer
}

// startPage lets the browser fetch a page ahead, logs out if it is to, and goes there.
const startPage = `<!DOCTYPE html><title>start</title><main>start</main>
<script type="speculationrules">{"%[1]s": [{"urls": ["/%[2]s"], "eagerness": "immediate"}]}</script>
<script type="module">
	await fetch("/step");
	if (%[3]v) await fetch("/logout", {method: "POST"});
	location.href = "/%[2]s";
</script>`

// aheadPage tells the site what its user sees, once there is one.
const aheadPage = `<!DOCTYPE html><title>%[1]s</title><main>%[1]s</main><script>
	const tell = () => fetch("/shown", {method: "POST", body: document.querySelector("main").innerText});
	if (document.prerendering) {
		document.addEventListener("prerenderingchange", tell);
		fetch("/ready");
	} else tell();
</script>`

// newAhead starts the site; with control it does not tell the browser to drop anything.
func newAhead(t *testing.T, control bool) *ahead {
	t.Helper()
	sessions, err := session.New(session.NewMemoryStore(), session.Config{
		Secret: "of a test, no other use: 7Kq2mVx9Lr4TzPw8Hn3Jc6", Logger: slog.New(slog.DiscardHandler), DisablePrune: true,
		Cookie: session.CookieConfig{Secure: session.SecureAlways}, // http://localhost is a secure context
	})
	must(t, err)
	t.Cleanup(func() { must(t, sessions.Close()) })
	a := &ahead{asked: make(chan visit, 16), ready: make(chan string, 16), goOn: make(chan struct{}), shown: make(chan string, 16)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /start/{how}/{page}", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		aheadUser.Set(s, 1)
		aheadFlash.Set(s, "saved")
		fmt.Fprintf(w, startPage, r.PathValue("how"), r.PathValue("page"), r.PathValue("page") == "private")
	})
	mux.HandleFunc("GET /step", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-a.goOn:
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("GET /ready", func(_ http.ResponseWriter, r *http.Request) { a.ready <- r.Header.Get("Sec-Purpose") })
	mux.HandleFunc("GET /message", func(w http.ResponseWriter, r *http.Request) {
		text, _ := aheadFlash.Take(session.From(r.Context()))
		fmt.Fprintf(w, aheadPage, "message: "+text)
	})
	mux.HandleFunc("GET /private", func(w http.ResponseWriter, r *http.Request) {
		text := "please log in"
		if _, ok := aheadUser.Get(session.From(r.Context())); ok {
			text = "private"
		}
		w.Header().Set("Cache-Control", "no-store")
		fmt.Fprintf(w, aheadPage, text)
	})
	mux.HandleFunc("POST /logout", func(_ http.ResponseWriter, r *http.Request) { session.From(r.Context()).Destroy() })
	mux.HandleFunc("POST /shown", func(_ http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		a.shown <- string(text)
	})
	app := sessions.Handler(mux)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		res := httptest.NewRecorder()
		app.ServeHTTP(res, r)
		dropped := strings.Join(res.Header().Values("Clear-Site-Data"), ", ")
		if control {
			res.Header().Del("Clear-Site-Data")
		}
		for name, lines := range res.Header() {
			w.Header()[name] = lines
		}
		w.WriteHeader(res.Code)
		_, _ = w.Write(res.Body.Bytes())
		switch r.URL.Path {
		case "/message", "/private", "/logout":
			a.asked <- visit{r.Header.Get("Sec-Purpose"), res.Code, dropped}
		}
	}))
	t.Cleanup(server.Close)
	a.url = strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	return a
}

// next waits for something of the site.
func next[T any](b *profile, what string, c <-chan T) (v T) {
	b.t.Helper()
	select {
	case v = <-c:
	case <-b.ctx.Done():
		b.t.Fatalf("got no %s", what)
	}
	return v
}

// openTab opens an address in a tab that no DevTools look into.
func (b *profile) openTab(address string) {
	b.t.Helper()
	call(b, target.CreateTarget, target.CreateTargetParams{URL: address})
}

// A message that is shown once is not eaten by a page that nobody has opened yet.
func TestChromiumSpeculationKeepsTheMessage(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"prefetch", "prerender"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			a := newAhead(t, false)
			b := &profile{t: t, dir: t.TempDir()}
			b.open()
			b.openTab(a.url + "/start/" + how + "/message")
			if got := next(b, "request on speculation", a.asked); !strings.HasPrefix(got.purpose, "prefetch") || got.code != http.StatusServiceUnavailable {
				t.Errorf("on speculation: got %+v, want 503", got)
			}
			a.goOn <- struct{}{}
			if got := next(b, "visit", a.asked); got.purpose != "" || got.code != http.StatusOK {
				t.Errorf("the visit: got %+v, want 200", got)
			}
			if got := next(b, "page", a.shown); got != "message: saved" {
				t.Errorf("the user sees %q, want the message", got)
			}
		})
	}
}

// A page that was fetched ahead is not shown after a logout, although the browser keeps
// what is marked no-store, too: the control shows that it does.
func TestChromiumSpeculationEndsWithTheLogout(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"prefetch", "prerender"} {
		for _, control := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, control %v", how, control), func(t *testing.T) {
				t.Parallel()
				a := newAhead(t, control)
				b := &profile{t: t, dir: t.TempDir()}
				b.open()
				b.openTab(a.url + "/start/" + how + "/private")
				if got := next(b, "request on speculation", a.asked); !strings.HasPrefix(got.purpose, "prefetch") || got.code != http.StatusOK {
					t.Fatalf("on speculation: got %+v, want the page", got)
				}
				if how == "prerender" {
					if got := next(b, "prerendered page", a.ready); got != "prefetch;prerender" {
						t.Errorf("what a script of the page asks for: got Sec-Purpose %q, want prefetch;prerender", got)
					}
				}
				a.goOn <- struct{}{}
				if got := next(b, "logout", a.asked); !strings.Contains(got.dropped, "prerenderCache") {
					t.Errorf("the logout: got Clear-Site-Data %q, want the caches of speculations", got.dropped)
				}
				want := "please log in"
				if control {
					want = "private"
				}
				if got := next(b, "page", a.shown); got != want {
					t.Errorf("after the logout the user sees %q, want %q", got, want)
				}
			})
		}
	}
}
