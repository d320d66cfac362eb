package exampletest

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// Browser keeps cookies and follows redirects. Cookies do not know about ports, so
// it takes one program's to another, as a real one does on one machine. Its
// methods are safe for concurrent use; those that end the test are for the test's
// own goroutine.
type Browser struct {
	T      *testing.T
	Client *http.Client
	cookie string // the name of the session's
}

// Response is an answer, read to its end.
type Response struct {
	Code   int
	Header http.Header
	Body   string
}

// host is that of every program's address.
var host = &url.URL{Scheme: "http", Host: "127.0.0.1", Path: "/"}

// NewBrowser is a browser without cookies; cookie is the name of the session's.
func NewBrowser(t *testing.T, cookie string) *Browser {
	jar, err := cookiejar.New(nil)
	Must(t, err)
	return &Browser{t, &http.Client{Jar: jar, Timeout: Deadline}, cookie}
}

// Get visits a page.
func (b *Browser) Get(address string) Response {
	b.T.Helper()
	res, err := b.Client.Get(address)
	Must(b.T, err)
	return Read(b.T, res)
}

// Post sends a form, and gives the page that it leads to.
func (b *Browser) Post(address string, form url.Values) Response {
	b.T.Helper()
	res, err := b.Client.PostForm(address, form)
	Must(b.T, err)
	return Read(b.T, res)
}

// PostOnly sends a form and does not follow the redirect. An error does not end
// the test, so other goroutines may call it.
func (b *Browser) PostOnly(address string, form url.Values) {
	b.T.Helper()
	client := *b.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.PostForm(address, form)
	if err != nil {
		b.T.Error(err)
		return
	}
	res.Body.Close()
	if res.StatusCode != http.StatusSeeOther {
		b.T.Errorf("%s: got %d, want 303", res.Request.URL.Path, res.StatusCode)
	}
}

// Cookie is the value of the session's cookie, "" without one.
func (b *Browser) Cookie() string {
	for _, c := range b.Client.Jar.Cookies(host) {
		if c.Name == b.cookie {
			return c.Value
		}
	}
	return ""
}

// SetCookie puts a cookie of another browser into this one.
func (b *Browser) SetCookie(value string) {
	b.Client.Jar.SetCookies(host, []*http.Cookie{{Name: b.cookie, Value: value, Path: "/"}})
}

// CookieNames are the names of all cookies, sorted.
func (b *Browser) CookieNames() []string {
	var names []string
	for _, c := range b.Client.Jar.Cookies(host) {
		names = append(names, c.Name)
	}
	return slices.Sorted(slices.Values(names))
}

// Read reads an answer to its end.
func Read(t *testing.T, res *http.Response) Response {
	t.Helper()
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	Must(t, err)
	return Response{res.StatusCode, res.Header, string(body)}
}

// Want checks the status and looks for texts in the page.
func (r Response) Want(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.Code != code {
		t.Errorf("got %d, want %d", r.Code, code)
	}
	for _, text := range texts {
		if !strings.Contains(r.Body, text) {
			t.Errorf("the page has no %q", text)
		}
	}
}
