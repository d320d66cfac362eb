package sessiontest_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/sessiontest"
)

const who = session.Key[string]("who")

// boundApp binds at login, says who is there, and answers 503 at the endpoint
// while down says so.
func boundApp(t *testing.T, down *bool) http.Handler {
	t.Helper()
	cfg := session.Config{Secret: "for tests only: 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A", Logger: slog.New(slog.DiscardHandler), DisablePrune: true}
	cfg.Cookie.Secure = session.SecureAlways
	cfg.DeviceBound.Refresh = 10 * time.Minute
	m, err := session.New(session.NewMemoryStore(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		switch r.URL.Path {
		case "/login":
			s.Renew()
			s.Bind()
			who.Set(s, "ada")
		case "/logout":
			s.Destroy()
		}
		body, _ := io.ReadAll(r.Body)
		name, _ := who.Get(s)
		fmt.Fprintf(w, "%s %v %s", name, s.Bound(), body)
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if *down && r.URL.Path == "/session/bind" {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func wantPage(t *testing.T, what string, resp *http.Response, status int, body string) {
	t.Helper()
	got, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status || !strings.HasPrefix(string(got), body) {
		t.Errorf("%s: got %d %q, %v, want %d %q", what, resp.StatusCode, got, err, status, body)
	}
}

// A device goes on where a copy of its cookies stops.
func TestDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := false
		d := sessiontest.NewDevice(t, boundApp(t, &down))
		wantPage(t, "visitor", d.Get("/"), 200, " false")
		if d.Bound() {
			t.Error("visitor: got bound")
		}
		wantPage(t, "login", d.Get("/login"), 200, "ada false")
		if !d.Bound() {
			t.Fatal("login: got not bound")
		}
		wantPage(t, "page", d.Get("/"), 200, "ada true")
		thief := d.Copy()
		wantPage(t, "thief", thief.Get("/"), 200, "ada true")
		for range 5 {
			<-time.After(12 * time.Minute)
			wantPage(t, "page, refreshed", d.Get("/"), 200, "ada true")
		}
		wantPage(t, "thief, an hour later", thief.Get("/"), 200, " false")
		if thief.Bound() {
			t.Error("thief: got a binding kept that it cannot prove")
		}

		d.Expire()
		down = true
		wantPage(t, "endpoint down", d.Get("/"), 503, "Service Unavailable")
		down = false
		wantPage(t, "endpoint up", d.Get("/"), 200, "ada true")

		d.Expire()
		link := httptest.NewRequest("GET", "https://example.com/", nil)
		link.Header.Set("Sec-Fetch-Site", "cross-site")
		link.Header.Set("Sec-Fetch-Mode", "navigate")
		wantPage(t, "link on another site", d.Do(link), 403, "<!doctype html>")
		wantPage(t, "the page that loads itself", d.Get("/"), 200, "ada true")

		wrong := httptest.NewRequest("POST", "https://example.com/", strings.NewReader("form"))
		d.Expire()
		wrong.AddCookie(&http.Cookie{Name: "session-bound", Value: "wrong"})
		wantPage(t, "wrong bound cookie beside the right one", d.Do(wrong), 200, "ada true form")

		wantPage(t, "logout", d.Get("/logout"), 200, " false")
		wantPage(t, "after it", d.Get("/"), 200, " false")
		if d.Bound() {
			t.Error("logout: got a binding left")
		}
	})
}
