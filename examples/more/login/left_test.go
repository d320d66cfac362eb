package main_test

import (
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/pgsession/session/internal/exampletest"
	"github.com/pgsession/session/internal/pgtest"
)

// A page that is left open asks how long its user is still logged in, says so two
// minutes before the end, and goes to the login when it has come; asking keeps nobody
// logged in, the button does.
func TestChromiumLoggedOutInTwoMinutes(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn, "SESSION_TIMEOUT=30m")
	b := newProfile(t, p, "")
	b.signUp("ada")
	if !eval[bool](b, `document.getElementById("leaving").hidden`) {
		t.Error("just logged in: got the warning, want none")
	}
	end := func(in string) {
		t.Helper()
		row(t, dsn, "UPDATE schema_system.session SET expire = now() + interval '"+in+"' RETURNING 1")
	}
	left := func() int64 {
		t.Helper()
		return row(t, dsn, "SELECT ceil(extract(epoch FROM expire - now()))::bigint FROM schema_system.session")
	}
	// ask lets the page ask now, as when its tab is shown again, and waits until the
	// warning is there or is not.
	ask := func(how, hidden string) string {
		t.Helper()
		text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`new Promise(done => {
			const note = document.getElementById("leaving"), look = () => note.hidden == `+hidden+` && done(note.innerText);
			new MutationObserver(look).observe(note, {attributes: true});
			`+how+`})`, chromedp.EvalAwaitPromise))
		must(t, err)
		return text
	}
	const shown = `document.dispatchEvent(new Event("visibilitychange"))`

	end("119 seconds")
	ask(shown, "false")
	b.wantText("You will be logged out in two minutes.")
	if got := left(); got > 119 {
		t.Errorf("the page has asked: got %d s left, want no more than before", got)
	}
	ask(`note.querySelector("button").click()`, "true")
	if got := left(); got < 1700 {
		t.Errorf("the button: got %d s left, want 30 minutes", got)
	}

	end("-1 second")
	b.leads(chromedp.Evaluate[chromedp.Void](shown))
	b.wantPath("/login")
}
