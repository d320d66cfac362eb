package session_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/pgsession/session"
)

// fromElsewhere is a form that another site lets the browser post.
func fromElsewhere(body string) *http.Request {
	r := httptest.NewRequest("POST", "/callback?in=the-url", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", "https://provider.example")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Dest", "document")
	return r
}

var (
	againInput  = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
	againScript = regexp.MustCompile(`<script>([^<]*)</script>`)
	againTags   = regexp.MustCompile(`<[^>]*>`)
)

// postedAgain is what a browser posts that reads the page. It makes one line feed of
// every end of a line first (HTML, section 13.2.3.5).
func postedAgain(page string) url.Values {
	page = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(page)
	form := url.Values{}
	for _, m := range againInput.FindAllStringSubmatch(page, -1) {
		form.Add(html.UnescapeString(m[1]), html.UnescapeString(m[2]))
	}
	return form
}

func TestPostAgain(t *testing.T) {
	called := 0
	h := session.PostAgain(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called++ }))
	for name, form := range map[string]url.Values{
		"a code":        {"state": {"af0ifjsldkj"}, "code": {"SplxlOBeZQQYbYS6WxSbIA"}},
		"nothing":       {},
		"twice":         {"scope": {"openid", "email", "openid"}},
		"empty":         {"": {""}, "user": {""}},
		"an assertion":  {"SAMLResponse": {strings.Repeat("PHNhbWw\r\n", 30000)}, "RelayState": {"/cart?a=1&b=2"}},
		"ends of lines": {"x": {"a\r\nb", "\r\n", "\n", "\r", " a "}},
		"other tongues": {"имя": {"Ада ☕ 𝔊"}, "user": {`{"name":{"firstName":"Zoë"}}`}},
		"markup": {
			`"><script>alert(1)</script>`: {`"><script>alert(1)</script>`, `' onfocus=alert(1) autofocus='`, "</form><form action=https://evil.example>", "&quot;><b>&#34;", "{{.}}"},
		},
		"names of the form's own": {"submit": {"1"}, "action": {"https://evil.example"}, "method": {"get"}, "elements": {""}, "forms": {""}},
		"controls":                {"x": {"\x01\x1f\u0085\ufeff\u2028"}},
	} {
		w := httptest.NewRecorder()
		w.Header().Set("Content-Security-Policy", "default-src 'self'") // a middleware's
		h.ServeHTTP(w, fromElsewhere(form.Encode()))
		page := w.Body.String()
		if w.Code != 200 || called != 0 {
			t.Fatalf("%s: got %d, next called %d times, want 200 and never", name, w.Code, called)
		}
		if got := postedAgain(page); !reflect.DeepEqual(got, form) {
			t.Errorf("%s: posted again: got %q, want %q", name, got, form)
		}
		// Nothing of the request but the fields is in the page, and no field is a tag.
		fields := len(againInput.FindAllString(page, -1))
		if got, want := len(againTags.FindAllString(page, -1)), 12+fields; got != want || strings.Contains(page, "the-url") || strings.Contains(page, "example.com") {
			t.Errorf("%s: got %d tags, want %d, and nothing of the URL:\n%s", name, got, want, page)
		}
		script := sha256.Sum256([]byte(againScript.FindStringSubmatch(page)[1]))
		if want := "script-src 'sha256-" + base64.StdEncoding.EncodeToString(script[:]) + "'"; !strings.Contains(w.Header().Get("Content-Security-Policy"), want) {
			t.Errorf("%s: got the policy %q, want it to let the page's script run", name, w.Header().Get("Content-Security-Policy"))
		}
		if got := w.Header().Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s: Cache-Control: got %q, want no-store", name, got)
		}
	}
}

func TestPostAgainRefuses(t *testing.T) {
	h := session.PostAgain(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("next was called") }))
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	same := func(*http.Request) {}
	for _, c := range []struct {
		name, body string
		change     func(*http.Request)
		want       int
	}{
		{"the most bytes", "a=" + strings.Repeat("x", 512<<10-2), same, 200},
		{"more", "a=" + strings.Repeat("x", 512<<10-1), same, 413},
		{"the most fields", strings.Repeat("a&", 100), same, 200},
		{"more", strings.Repeat("a&", 101), same, 400},
		{"a script's", "a=1", set("Sec-Fetch-Mode", "no-cors"), 403},
		{"a script's, with CORS", "a=1", set("Sec-Fetch-Mode", "cors"), 403},
		{"no mode", "a=1", func(r *http.Request) { r.Header.Del("Sec-Fetch-Mode") }, 403},
		{"with files", "a=1", set("Content-Type", "multipart/form-data; boundary=x"), 415},
		{"JSON", "{}", set("Content-Type", "application/json"), 415},
		{"text", "a=1", set("Content-Type", "text/plain"), 415},
		{"no type", "a=1", func(r *http.Request) { r.Header.Del("Content-Type") }, 415},
		{"with a charset", "a=1", set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8"), 200},
		{"not UTF-8", "a=%ff", same, 400},
		{"a name that is not UTF-8", "%ff=a", same, 400},
		{"NUL", "a=%00", same, 400},
		{"badly escaped", "a=%zz", same, 400},
	} {
		r := fromElsewhere(c.body)
		c.change(r)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.want || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got %d, Cache-Control %q, want %d, no-store", c.name, w.Code, w.Header().Get("Cache-Control"), c.want)
		}
		if c.want != 200 && strings.Contains(w.Body.String(), "<form") {
			t.Errorf("%s: got the form, want none", c.name)
		}
	}
}

// What comes from this site, or is no POST, reaches the handler as it is.
func TestPostAgainLeavesTheRest(t *testing.T) {
	var got string
	h := session.PostAgain(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = r.Method + " " + string(body)
	}))
	for _, c := range []struct{ name, method, site string }{
		{"this origin", "POST", "same-origin"},
		{"this site", "POST", "same-site"},
		{"the user's own doing", "POST", "none"},
		{"an old browser, or no secure context", "POST", ""},
		{"a link", "GET", "cross-site"},
		{"HEAD", "HEAD", "cross-site"},
		{"PUT", "PUT", "cross-site"},
	} {
		got = ""
		r := fromElsewhere("a=1")
		r.Method = c.method
		r.Header.Set("Sec-Fetch-Site", c.site)
		h.ServeHTTP(httptest.NewRecorder(), r)
		if want := c.method + " a=1"; got != want {
			t.Errorf("%s: got %q, want %q", c.name, got, want)
		}
	}
}

// The login that the session has begun survives the way over the other site, and so
// do the user's session and cart: the POST without cookies begins no session.
func TestPostAgainKeepsTheSession(t *testing.T) {
	const cart, state = session.Key[int]("cart"), session.Key[string]("loginState")
	store := newHookedStore()
	m := newManager(t, store, session.Config{UserKey: "user"})
	b := &browser{m: m}
	b.visit(func(s *session.Session) { cart.Set(s, 3); state.Set(s, "af0ifjsldkj") })
	h := m.Handler(session.PostAgain(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if want, ok := state.Take(s); !ok || r.PostFormValue("state") != want {
			http.Error(w, "This login was not begun here.", http.StatusForbidden)
			return
		}
		s.Renew()
		userKey.Set(s, "ada")
	})))
	store.took()

	first := ask(h, fromElsewhere("state=af0ifjsldkj&code=1")) // SameSite=Lax: no cookie
	wantResponse(t, "from the other site", first, 200, "nothing")
	if vary := first.header.Values("Vary"); len(vary) > 0 {
		t.Errorf("Vary: got %q, want none: no session was used", vary)
	}
	wantCalls(t, "from the other site", store, "")

	again := fromElsewhere(postedAgain(first.body).Encode())
	again.Header.Set("Sec-Fetch-Site", "same-origin")
	again.Header.Set("Cookie", b.cookie)
	second := ask(h, again)
	wantResponse(t, "again", second, 200, "set")
	b.cookie = second.newCookie()
	b.wantUser(t, "ada")
	b.visit(func(s *session.Session) {
		if n, _ := cart.Get(s); n != 3 {
			t.Errorf("cart: got %d, want 3", n)
		}
	})
	store.wantRecords(t, 1)

	// A login that somebody else has begun is not this browser's: what protects the
	// handler is the state, and nothing but that.
	forged := fromElsewhere(postedAgain(ask(h, fromElsewhere("state=mallorys&code=2")).body).Encode())
	forged.Header.Set("Sec-Fetch-Site", "same-origin")
	forged.Header.Set("Cookie", b.cookie)
	if got := ask(h, forged); got.status != http.StatusForbidden {
		t.Errorf("a forged login: got %d, want 403", got.status)
	}
	b.wantUser(t, "ada")
}

func FuzzPostAgain(f *testing.F) {
	f.Add("state", "af0ifjsldkj", "code", `"><script>`)
	f.Add("a", "\r\n", "a", "&#13;&quot;")
	h := session.PostAgain(http.NotFoundHandler())
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		form := url.Values{}
		form.Add(name1, value1)
		form.Add(name2, value2)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, fromElsewhere(form.Encode()))
		if w.Code == 400 {
			return
		}
		page := w.Body.String()
		if got := postedAgain(page); !reflect.DeepEqual(got, form) || len(againTags.FindAllString(page, -1)) != 14 {
			t.Errorf("got %q, want %q, in\n%s", got, form, page)
		}
	})
}

// A provider that answers with a form, and the callback that it posts to.
func ExamplePostAgain() {
	const loginState = session.Key[string]("loginState")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /login", func(_ http.ResponseWriter, r *http.Request) {
		loginState.Set(session.From(r.Context()), "random, for one login") // crypto/rand.Text()
		// and http.Redirect to the provider, with that state and response_mode=form_post
	})
	callback := func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		state, ok := loginState.Take(s)
		if !ok || r.PostFormValue("state") != state { // not optional: see PostAgain
			http.Error(w, "This login was not begun here.", http.StatusForbidden)
			return
		}
		s.Renew()
		fmt.Fprint(w, "hello ", r.PostFormValue("code")) // which the provider gives the user for
	}
	mux.Handle("POST /login/callback", session.PostAgain(http.HandlerFunc(callback)))
	sessions := newExampleManager(session.Config{})
	h := sessions.Handler(mux)

	login := httptest.NewRecorder()
	h.ServeHTTP(login, httptest.NewRequest("GET", "/login", nil))
	for _, site := range []string{"cross-site", "same-origin"} {
		r := httptest.NewRequest("POST", "/login/callback", strings.NewReader("code=ada&state=random,+for+one+login"))
		r.Header = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Sec-Fetch-Site": {site}, "Sec-Fetch-Mode": {"navigate"}}
		if site == "same-origin" { // SameSite=Lax
			r.AddCookie(login.Result().Cookies()[0])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(site, w.Code, strings.Contains(w.Body.String(), `<form method="post">`), strings.HasPrefix(w.Body.String(), "hello ada"))
	}
	// Output:
	// cross-site 200 true false
	// same-origin 200 false true
}
