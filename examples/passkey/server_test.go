package main_test

import (
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/pgsession/session/internal/exampletest"
	"github.com/pgsession/session/internal/pgtest"
)

// What browsers are told to keep and to allow; over HTTP nothing of HTTPS.
func TestHeaders(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	v := newVisitor(t, s)
	for _, path := range []string{"/login", "/no-such-page"} {
		h := v.Get(s.URL + path).Header
		for name, want := range map[string]string{
			"Cache-Control":             "no-store",
			"X-Content-Type-Options":    "nosniff",
			"Referrer-Policy":           "same-origin",
			"Strict-Transport-Security": "",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("%s, %s: got %q, want %q", path, name, got, want)
			}
		}
		for _, want := range []string{"default-src 'none'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"} {
			if got := h.Get("Content-Security-Policy"); !strings.Contains(got, want) {
				t.Errorf("%s: got the policy %q, want %q in it", path, got, want)
			}
		}
	}
}

// More than a form of ours can have is not read.
func TestLargeBody(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	v := newVisitor(t, s)
	for size, want := range map[int]int{60 << 10: 200, 70 << 10: 400} {
		if code, _ := v.send("/signup/begin", `{"name": "ada", "more": "`+strings.Repeat("x", size)+`"}`); code != want {
			t.Errorf("%d bytes: got %d, want %d", size, code, want)
		}
	}
}

// What is no form of ours is refused before an authenticator is asked, or anything stored.
func TestChromiumForms(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	v := loggedOutWithPasskey(t, s).entered("Firefox on Windows")
	for _, tt := range []struct {
		name, path, body string
		want             int
	}{
		{"no JSON", "/signup/begin", "name=bob", 400},
		{"a name that looks like another", "/signup/begin", `{"name": "аda"}`, 422}, // Cyrillic
		{"a name that is taken", "/signup/begin", `{"name": "Ada"}`, 422},
		{"a name of 31 letters", "/signup/begin", `{"name": "` + strings.Repeat("a", 31) + `"}`, 422},
		{"no JSON", "/passkeys/begin", "label=Key", 400},
		{"no label", "/passkeys/begin", `{"label": " "}`, 422},
		{"a label of 61 letters", "/passkeys/begin", `{"label": "` + strings.Repeat("é", 61) + `"}`, 422},
		{"a label of 60 letters", "/passkeys/begin", `{"label": "` + strings.Repeat("é", 60) + `"}`, 200},
		{"a label that PostgreSQL cannot store", "/passkeys/begin", `{"label": "Key\u0000"}`, 422},
		{"a label of two lines", "/passkeys/begin", `{"label": "Key\nAnother"}`, 422},
	} {
		if code, _ := v.send(tt.path, tt.body); code != tt.want {
			t.Errorf("%s, %s: got %d, want %d", tt.path, tt.name, code, tt.want)
		}
	}
	long := strings.Repeat("a", 250)
	for _, address := range []string{"", "ada", "ada@one.example, bob@one.example", "ada@one.example\nBcc: bob@one.example", "\"a\x00\"@one.example", long + "@one.example"} {
		v.Post(s.URL+"/email", url.Values{"email": {address}}).Want(t, 422, "This is no e-mail address.")
	}
	v.Get(s.URL+"/account").Want(t, 200, "none yet")
}

// Behind a proxy that does HTTPS no cookie goes without it, and none can be set by another
// host.
func TestHTTPS(t *testing.T) {
	t.Parallel()
	for _, origin := range []string{"https://login.example.com", "HTTPS://Login.Example.com/"} {
		p := exampletest.Command(t, "DATABASE_URL="+pgtest.URL(t), "ORIGIN="+origin)
		p.Begin()
		p.WaitLog("msg=listening")
		v := newVisitor(t, &site{Program: p})
		p.URL = "http://" + regexp.MustCompile(`address=(\S+)`).FindStringSubmatch(p.Log())[1]
		req, err := http.NewRequest(http.MethodPost, p.URL+"/login/begin", strings.NewReader("{}"))
		must(t, err)
		req.Header.Set("Content-Type", "application/json")
		res, err := v.Client.Do(req)
		must(t, err)
		exampletest.Read(t, res).Want(t, 200, `"rpId":"login.example.com"`)
		cookies := res.Cookies()
		if len(cookies) != 1 || !cookies[0].Secure || !cookies[0].HttpOnly || cookies[0].Name != "__Host-session" {
			t.Errorf("%s: got %d cookies, want __Host-session, for HTTPS only", origin, len(cookies))
		}
		if res.Header.Get("Strict-Transport-Security") == "" {
			t.Errorf("%s: browsers are not told to use HTTPS only", origin)
		}
		p.Interrupt(os.Interrupt)
	}
}

// An address that no passkey works at ends the program at its start.
func TestOriginFaults(t *testing.T) {
	t.Parallel()
	for _, origin := range []string{
		"login.example.com", "login.example.com:8080", "localhost:8080", "https://", "ftp://localhost", "http://login.example.com",
		"https://login.example.com/app", "https://127.0.0.1", "https://%",
	} {
		exampletest.Command(t, "ORIGIN="+origin, "DATABASE_URL=postgres://nobody@127.0.0.1:1/nothing").WantFailure("ORIGIN: ")
	}
}
