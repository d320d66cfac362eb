package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/pgsession/session/internal/exampletest"
	"github.com/pgsession/session/internal/pgtest"
)

// sides are the two programs, each asked at its own address.
var sides = []struct{ here, there string }{{"Express", "Go"}, {"Go", "Express"}}

// What somebody sees who has nothing but a clone: the program brings packages,
// database and secret, and a login outlives it and a route's move.
func TestFirstRun(t *testing.T) {
	dir, cache := copyApp(t), exampletest.CacheDir(t)
	env := []string{"XDG_CACHE_HOME=" + cache, "SESSION_SECRET="}
	ada := newBrowser(t)
	p := launch(t, command(t, dir, env...))
	p.WantLog("npm ci; this happens once", "npm | ", "kept server of our own", "SESSION_SECRET is not set",
		"session: table made", "format=express", "cookie=connect.sid", "express | listening on")
	ada.login(p.URL, "ada")
	ada.Post(p.URL+"/cart/add", url.Values{"item": {"tea"}})
	ada.wantMe(p.URL, "ada", "tea Go")
	secret, err := os.ReadFile(filepath.Join(cache, "pgsession", "express", "session-secret"))
	must(t, err)
	p.WantNotInLog(string(secret), ada.Cookie())

	// The server that the program keeps is found in the same place.
	server, err := pgtest.Find(t.Context(), pgtest.Options{
		DataDir: filepath.Join(cache, "pgsession", "express", "postgresql"), OwnOnly: true,
	})
	must(t, err)
	postgres := server.PID()
	must(t, server.Close())
	p.Interrupt(os.Interrupt)
	exampletest.Gone(t, p.node)
	exampletest.Gone(t, postgres)

	p = launch(t, command(t, dir, append(env, "-go", "all")...))
	ada.wantMe(p.URL, "ada", "tea Go")
	p.Interrupt(syscall.SIGTERM)
	exampletest.Gone(t, p.node)
	if strings.Contains(p.Log(), "npm") {
		t.Error("npm ci ran again")
	}
}

// Two programs, one set of sessions: what one does the other knows.
func TestOneSetOfSessions(t *testing.T) {
	dsn := pgtest.URL(t)
	p := start(t, dsn)
	at := map[string]string{"Express": p.express, "Go": p.golang}
	each := func(name string, f func(t *testing.T, here, there string)) {
		for _, side := range sides {
			t.Run(name+", "+side.here+" first", func(t *testing.T) { f(t, side.here, side.there) })
		}
	}

	each("login", func(t *testing.T, here, there string) {
		ada := newBrowser(t)
		ada.wantMe(at[here], "")
		ada.login(at[here], "ada")
		ada.wantMe(at[there], "ada")
		ada.wantMe(at[here], "ada")
		ada.Get(at[there]+"/").Want(t, 200, "Hello, ada", "Log out ada")
	})

	each("cookie", func(t *testing.T, here, there string) {
		ada := newBrowser(t)
		ada.login(at[here], "ada")
		if got := ada.CookieNames(); !slices.Equal(got, []string{"connect.sid"}) {
			t.Errorf("got cookies %q, want connect.sid alone", got)
		}
		other := newBrowser(t)
		other.SetCookie(ada.Cookie())
		other.wantMe(at[there], "ada")
	})

	each("cart", func(t *testing.T, here, there string) {
		ada := newBrowser(t)
		ada.login(at[here], "ada")
		var want []string
		for i, item := range []string{"tea", "mug", "lamp", "notebook", "tea", "mug"} {
			by := []string{here, there}[i%2]
			ada.Post(at[by]+"/cart/add", url.Values{"item": {item}}).Want(t, 200, "is in your cart.")
			want = append(want, item+" "+by)
			ada.wantMe(at[here], "ada", want...)
			ada.wantMe(at[there], "ada", want...)
		}
		// Of two of a kind the last is taken out, by either side.
		ada.Post(at[there]+"/cart/remove", url.Values{"item": {"tea"}}).Want(t, 200, "One item less.")
		ada.Post(at[here]+"/cart/remove", url.Values{"item": {"mug"}})
		ada.wantMe(at[there], "ada", want[:4]...)
		ada.Get(at[there]+"/cart").Want(t, 200, "ada’s cart", "€ 68.60")
		for _, item := range []string{"tea", "mug", "lamp", "notebook", "notebook"} {
			ada.Post(at[here]+"/cart/remove", url.Values{"item": {item}})
		}
		ada.wantMe(at[there], "ada")
		ada.Post(at[there]+"/cart/add", url.Values{"item": {"lamp"}})
		ada.wantMe(at[here], "ada", "lamp "+there)
	})

	each("cart that is full", func(t *testing.T, here, there string) {
		ada := newBrowser(t)
		for i := range 22 {
			want := "is in your cart."
			if i >= 20 {
				want = "Your cart is full."
			}
			by := []string{here, there}[i%2]
			ada.Post(at[by]+"/cart/add", url.Values{"item": {"tea"}}).Want(t, 200, want)
		}
		ada.Get(at[there]+"/").Want(t, 200, `<span class="count">20</span>`)
	})

	each("flash message", func(t *testing.T, here, there string) {
		ada := newBrowser(t)
		ada.PostOnly(at[here]+"/cart/add", url.Values{"item": {"tea"}})
		ada.Get(at[there]+"/").Want(t, 200, "Assam tea is in your cart.", "said "+here)
		for _, side := range []string{there, here} {
			if res := ada.Get(at[side] + "/"); strings.Contains(res.Body, "is in your cart.") {
				t.Errorf("%s showed the message again", side)
			}
		}
		ada.PostOnly(at[here]+"/login", url.Values{"user": {"ada"}})
		ada.Get(at[there]+"/cart").Want(t, 200, "Hello, ada. You are logged in.", "said "+here)
	})

	each("logout", func(t *testing.T, here, there string) {
		for _, where := range []string{here, there} {
			ada := newBrowser(t)
			ada.login(at[here], "ada")
			kept := ada.Cookie() // a logout is more than a cookie taken away
			ada.Post(at[where]+"/logout", nil).Want(t, 200, "Log in")
			if ada.Cookie() != "" {
				t.Errorf("%s: the browser keeps its cookie", where)
			}
			ada.SetCookie(kept)
			ada.wantMe(at[here], "")
			ada.wantMe(at[there], "")
		}
	})

	each("login gives a new session ID", func(t *testing.T, here, there string) {
		ada := newBrowser(t)
		ada.Post(at[there]+"/cart/add", url.Values{"item": {"tea"}})
		planted := ada.Cookie()
		ada.login(at[here], "ada")
		ada.wantMe(at[there], "ada", "tea "+there) // the cart stays
		thief := newBrowser(t)
		thief.SetCookie(planted)
		thief.wantMe(at[here], "")
		thief.wantMe(at[there], "")
	})

	each("login of another user", func(t *testing.T, here, there string) {
		ada := newBrowser(t)
		ada.login(at[there], "ada")
		ada.Post(at[there]+"/cart/add", url.Values{"item": {"tea"}})
		ada.login(at[here], "ada")
		ada.wantMe(at[there], "ada", "tea "+there)
		ada.login(at[here], "bob")
		ada.wantMe(at[there], "bob")
	})

	each("page", func(t *testing.T, here, there string) {
		ada := newBrowser(t)
		ada.login(at[here], "<b>&'\"ada")
		ada.Post(at[here]+"/cart/add", url.Values{"item": {"tea"}})
		for _, path := range []string{"/", "/cart", "/login"} {
			one, two := ada.Get(at[here]+path), ada.Get(at[there]+path)
			one.Want(t, 200, "served by", `href="/shop.css"`, "&lt;b&gt;&amp;")
			if got, want := sameWords(two.Body), sameWords(one.Body); got != want {
				t.Errorf("%s: %s has\n%s\nand %s\n%s", path, there, got, here, want)
			}
			if strings.Contains(one.Body, "<script") || strings.Contains(one.Body, "<b>") {
				t.Errorf("%s: %s's page has markup that is not ours", path, here)
			}
			for _, h := range []string{"Content-Security-Policy", "Cache-Control", "Content-Type", "Referrer-Policy"} {
				if got, want := two.Header.Get(h), one.Header.Get(h); got != want || got == "" {
					t.Errorf("%s: %s: got %q and %q, want the same", path, h, got, want)
				}
			}
		}
	})

	each("form", func(t *testing.T, here, _ string) {
		for _, tt := range []struct {
			name, path string
			form       url.Values
			code       int
			want       string
		}{
			{"no name", "/login", url.Values{"user": {" \t "}}, 422, "Please tell us your name."},
			{"long name", "/login", url.Values{"user": {strings.Repeat("é", 41)}}, 422, "Up to 40 characters"},
			{"as long as can be", "/login", url.Values{"user": {strings.Repeat("é", 40)}}, 200, strings.Repeat("é", 40)},
			{"no such item", "/cart/add", url.Values{"item": {"yacht"}}, 400, "no such item"},
			{"no item", "/cart/add", nil, 400, "no such item"},
			{"nothing to remove", "/cart/remove", url.Values{"item": {"tea"}}, 200, "There is nothing in it yet."},
		} {
			t.Run(tt.name, func(t *testing.T) { newBrowser(t).Post(at[here]+tt.path, tt.form).Want(t, tt.code, tt.want) })
		}
	})

	t.Run("visitors without a session store nothing", func(t *testing.T) {
		before := exampletest.Rows(t, dsn)
		for _, side := range sides {
			for _, path := range []string{"/", "/cart", "/login", "/me"} {
				if res := newBrowser(t).Get(at[side.here] + path); res.Header.Get("Set-Cookie") != "" {
					t.Errorf("%s %s: a visitor got a cookie", side.here, path)
				}
			}
		}
		if got := exampletest.Rows(t, dsn); got != before {
			t.Errorf("got %d rows, want %d", got, before)
		}
	})

	// All begin at once, from the same cookie; none waits for another.
	t.Run("overlapping additions in Go are all kept", func(t *testing.T) {
		ada := newBrowser(t)
		ada.login(at["Express"], "ada")
		begin := make(chan struct{})
		var wg sync.WaitGroup
		for range 12 {
			wg.Go(func() {
				<-begin
				ada.PostOnly(at["Go"]+"/cart/add", url.Values{"item": {"tea"}})
			})
		}
		close(begin)
		wg.Wait()
		ada.wantMe(at["Express"], "ada", slices.Repeat([]string{"tea Go"}, 12)...)
	})

	t.Run("forms of other sites are refused for both", func(t *testing.T) {
		for _, path := range []string{"/login", "/cart/add"} { // Express, Go
			req, err := http.NewRequestWithContext(t.Context(), "POST", p.URL+path, strings.NewReader("user=ada&item=tea"))
			must(t, err)
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Sec-Fetch-Site", "cross-site")
			res, err := http.DefaultTransport.RoundTrip(req)
			must(t, err)
			if got := exampletest.Read(t, res).Code; got != http.StatusForbidden {
				t.Errorf("%s: got %d, want 403", path, got)
			}
		}
	})

	t.Run("nothing secret is logged", func(t *testing.T) {
		ada := newBrowser(t)
		ada.login(p.URL, "ada")
		value, err := url.PathUnescape(ada.Cookie())
		must(t, err)
		sid, _, _ := strings.Cut(strings.TrimPrefix(value, "s:"), ".")
		p.WantNotInLog(exampletest.Secret, ada.Cookie(), value, sid, exampletest.Password(t, dsn))
	})
}

// One program after the other, on the same database, each with more routes moved;
// the browser stays logged in and its cart grows.
func TestARouteMoves(t *testing.T) {
	dsn := pgtest.URL(t)
	ada := newBrowser(t)
	var cart []string
	for _, tt := range []struct {
		name string
		env  []string
		args []string
		byGo []string // of the paths below
	}{
		{"none", nil, []string{"-go", "none"}, nil},
		{"as it comes", nil, nil, []string{"/cart", "/cart/add", "/cart/remove", "/me"}},
		{"by flag", nil, []string{"-go", "/cart/add, /login"}, []string{"/cart/add", "/login"}},
		{"by environment", []string{"GO_ROUTES=/,/me"}, nil, []string{"/", "/cartoon", "/me"}},
		{"flag before environment", []string{"GO_ROUTES=/,/me"}, []string{"-go", "/logout"}, []string{"/logout"}},
		{"all", nil, []string{"-go=all"}, []string{"/", "/login", "/logout", "/cart", "/cart/add", "/cart/remove", "/me", "/cartoon"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := start(t, dsn, append(tt.env, tt.args...)...)
			ada.T = t
			if len(cart) == 0 {
				ada.login(p.URL, "ada")
			}
			for _, path := range []string{"/", "/login", "/logout", "/cart", "/cart/add", "/cart/remove", "/me", "/cartoon"} {
				want := "Express"
				if slices.Contains(tt.byGo, path) {
					want = "Go"
				}
				res := ada.Get(p.URL + path)
				if got := res.Header.Get("X-Served-By"); got != want {
					t.Errorf("%s: got %q, want %q", path, got, want)
				}
				if path == "/" || path == "/login" || path == "/cart" {
					res.Want(t, 200, fmt.Sprintf(`served by <span class="badge %s">%s</span>`, strings.ToLower(want), want), "Log out ada")
				}
				if path != "/cartoon" {
					p.WantLog(fmt.Sprintf("msg=route path=%s program=%s\n", path, want))
				}
			}
			by := "Express"
			if slices.Contains(tt.byGo, "/cart/add") {
				by = "Go"
			}
			cart = append(cart, "mug "+by)
			ada.Post(p.URL+"/cart/add", url.Values{"item": {"mug"}}).Want(t, 200, "said "+by)
			ada.wantMe(p.URL, "ada", cart...)
			ada.Get(p.URL+"/shop.css").Want(t, 200, "prefers-color-scheme: dark")
			p.Interrupt(os.Interrupt)
			exampletest.Gone(t, p.node)
		})
	}
}

func TestTheProxySaysHowTheBrowserCame(t *testing.T) {
	p := start(t, pgtest.URL(t))
	for _, path := range []string{"/login", "/cart/add"} { // Express, Go
		req, err := http.NewRequestWithContext(t.Context(), "POST", p.URL+path, strings.NewReader("user=ada&item=tea"))
		must(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("X-Forwarded-Proto", "https") // by a browser that lies
		res, err := http.DefaultTransport.RoundTrip(req)
		must(t, err)
		cookie := exampletest.Read(t, res).Header.Get("Set-Cookie")
		if res.StatusCode != http.StatusSeeOther || !strings.HasPrefix(cookie, "connect.sid=") || strings.Contains(cookie, "Secure") {
			t.Errorf("%s: got %d, and a cookie that is missing or Secure; want 303 and one that is not", path, res.StatusCode)
		}
	}
}

func TestWhatIsMissingIsSaidInPlainWords(t *testing.T) {
	empty := t.TempDir()
	for _, tt := range []struct {
		name string
		env  []string
		want []string
	}{
		{"node", []string{"PATH=" + empty}, []string{"needs Node.js", "and npm", "sudo apt-get install nodejs npm"}},
		{"npm", []string{"PATH=" + only(t, "node")}, []string{"needs Node.js", "and npm"}},
		{
			"PostgreSQL",
			[]string{"PATH=" + only(t, "node", "npm"), "PGTEST_BINDIR=" + empty, "DOCKER_HOST=unix://" + empty + "/none", "DATABASE_URL="},
			[]string{"no PostgreSQL found", "Install one of:"},
		},
		{"database", []string{"DATABASE_URL=postgres://ada:hush-hush@127.0.0.1:1/shop"}, []string{"host 127.0.0.1", "port 1", "database shop", "user ada"}},
		{"route", []string{"-go", "/crat"}, []string{`no route \"/crat\"`, "/cart/add", "all or none"}},
		{"timeout", []string{"DATABASE_URL=" + pgtest.URL(t), "SESSION_TIMEOUT=soon"}, []string{"SESSION_TIMEOUT"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := command(t, clone, tt.env...)
			p.WantFailure(tt.want...)
			p.WantNotInLog("hush")
		})
	}
}

// Whoever ends first, nothing is left behind.
func TestNodeDiesWithTheProgram(t *testing.T) {
	p := start(t, pgtest.URL(t))
	p.MayFail = true
	must(t, p.Process.Kill())
	exampletest.Gone(t, p.node)
}

func TestTheProgramSaysThatNodeDied(t *testing.T) {
	p := start(t, pgtest.URL(t))
	p.MayFail = true
	node, err := os.FindProcess(p.node)
	must(t, err)
	must(t, node.Kill())
	if err := p.Wait(); err == nil {
		t.Error("got exit code 0, want 1")
	}
	p.WantLog("the Express application has ended; what it said is above")
}

// wantMe asks who is logged in ("" for nobody) and what is in the cart, each as
// the item and who added it.
func (b browser) wantMe(at, user string, cart ...string) {
	b.T.Helper()
	res := b.Get(at + "/me")
	var me struct {
		User *string
		Cart []struct{ Item, AddedBy string }
	}
	err := json.Unmarshal([]byte(res.Body), &me)
	var items []string
	for _, it := range me.Cart {
		items = append(items, it.Item+" "+it.AddedBy)
	}
	name := ""
	if me.User != nil {
		name = *me.User
	}
	if err != nil || res.Code != 200 || name != user || !slices.Equal(items, cart) {
		b.T.Errorf("/me by %s: got %d, %q with %q, want %q with %q", res.Header.Get("X-Served-By"), res.Code, name, items, user, cart)
	}
}

// sameWords is a page without the name of the program that serves it, and without
// white space between its elements.
func sameWords(page string) string {
	for _, program := range []string{"Express", "Go"} {
		badge := fmt.Sprintf(`served by <span class="badge %s">%s</span>`, strings.ToLower(program), program)
		page = strings.Replace(page, badge, "served by", 1)
	}
	// One flash message at most, and only on the first of the two.
	if before, rest, ok := strings.Cut(page, `<p class="note good"`); ok {
		_, after, _ := strings.Cut(rest, "</p>")
		page = before + after
	}
	page = strings.Join(strings.Fields(page), " ")
	return strings.NewReplacer("> <", "><", " <", "<", "> ", ">", "&#39;", "'", "&#34;", `"`).Replace(page)
}
