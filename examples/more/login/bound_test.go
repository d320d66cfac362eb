package main_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/storage"
	"github.com/pgsession/session/internal/exampletest"
	"github.com/pgsession/session/internal/pgtest"
)

// With -tls a browser that trusts the certificate is bound to its device by the
// login, and says so on "your devices"; it stays so when the bound cookie has ended.
func TestChromiumDeviceBound(t *testing.T) {
	t.Parallel()
	p := exampletest.Command(t, "-tls", "DATABASE_URL="+pgtest.URL(t))
	p.Begin()
	p.WaitLog("msg=listening")
	p.URL = regexp.MustCompile(`https://localhost:\d+`).FindString(p.Log())
	b := &profile{t: t, dir: t.TempDir(), url: p.URL}
	b.pin = regexp.MustCompile(`spki-list=(\S+)`).FindStringSubmatch(p.Log())[1]
	b.open()
	b.signUp("ada")
	bound := func() bool {
		b.visit("/devices")
		return strings.Contains(b.text(), "this device is bound")
	}
	// The browser registers its key beside the pages.
	late := time.After(deadline / 2)
	for !bound() {
		select {
		case <-late:
			t.Fatalf("got the page %q, want it to say that the device is bound", b.text())
		case <-time.After(100 * time.Millisecond):
		}
	}
	call(b, network.DeleteCookies, network.DeleteCookiesParams{Name: "session-bound", URL: b.url})
	if !bound() {
		t.Errorf("without the bound cookie: got the page %q", b.text())
	}
	b.press("Log out")
	if left := call(b, storage.GetCookies, storage.GetCookiesParams{}).Cookies; len(left) > 0 {
		t.Errorf("after the logout: got %d cookies left", len(left))
	}
	b.wantPath("/login")
}
