package main_test

import (
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/chromedp"
	"github.com/pgsession/session/internal/exampletest"
)

func TestChromiumSignUpLogOutLogIn(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ada := newDevice(t, s)
	complaints := chromedp.Events(ada.ctx, log.EntryAdded)
	call(ada, log.Enable, cdp.Empty{})
	ada.visit("/")
	ada.wantPath("/login")
	if ada.cookie() != "" || exampletest.Rows(t, s.dsn) != 0 {
		t.Error("a visitor who has begun nothing has a session")
	}
	ada.signUp("ada")
	first := ada.cookie()
	ada.press("Log out", "Log in")
	if ada.cookie() != "" || exampletest.Rows(t, s.dsn) != 0 {
		t.Error("a session is left after the logout")
	}
	ada.setCookie(first) // a logout is more than a cookie taken away
	ada.wantLoggedOut()
	ada.logIn("Hello, ada")
	if got := exampletest.Rows(t, s.dsn); got != 1 {
		t.Errorf("sessions: got %d, want ada's", got)
	}
	if got := s.row(t, "SELECT sign_count FROM passkey_example.passkeys"); got < 1 {
		t.Errorf("the counter of the passkey: got %d, want the authenticator's", got)
	}
	s.WantNotInLog(first, ada.cookie(), exampletest.Secret, exampletest.Password(t, s.dsn))

	// The policy breaks nothing of ours, and runs no script that somebody got into a page.
	ran := eval[bool](ada, `(() => {
		const s = document.createElement("script");
		s.textContent = "window.ran = true";
		document.body.append(s);
		return !!window.ran })()`)
	if ran {
		t.Error("a script in the page ran")
	}
	for e, err := range complaints { // the first: nothing before the script broke the policy
		must(t, err)
		if !strings.Contains(e.Entry.Text, "inline script") {
			t.Errorf("got the complaint %q, want only the one about the script", e.Entry.Text)
		}
		break
	}
}
