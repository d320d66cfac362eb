package main_test

import (
	"strings"
	"testing"
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
