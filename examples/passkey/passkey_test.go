package main_test

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/webauthn"
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

// An ID that somebody knew before is worth nothing after a login or a sign-up.
func TestChromiumFixation(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ada := newDevice(t, s)
	for _, tt := range []struct {
		name string
		in   func()
	}{
		{"sign-up", func() { ada.signUp("ada") }},
		{"login", func() { ada.logIn("Hello, ada") }},
	} {
		mallory := newVisitor(t, s)
		if code, _ := mallory.send("/login/begin", "{}"); code != 200 || mallory.Cookie() == "" {
			t.Fatalf("got %d, want a session that is nobody's", code)
		}
		planted := mallory.Cookie()
		ada.visit("/login")
		ada.setCookie(planted)
		before := ada.sessionID()
		tt.in()
		if ada.sessionID() == before {
			t.Errorf("%s: the planted ID is still the session's", tt.name)
		}
		mallory.SetCookie(planted)
		mallory.Get(s.URL+"/account").Want(t, 200, "Log in with a passkey")
		ada.press("Log out", "Log in")
	}

	// Whose session it was ends, too, and gives nothing to the next.
	bob := newDevice(t, s)
	bob.signUp("bob")
	planted := bob.cookie()
	ada.visit("/signup") // a page that asks nobody who he is
	ada.setCookie(planted)
	before := ada.sessionID()
	assertion := ada.sign(ada.begin("/login/begin"))
	ada.wantStatus("a login in a session of another user", "/login/finish", assertion, 200)
	ada.visit("/account")
	ada.see("Hello, ada")
	if ada.sessionID() == before {
		t.Error("the planted ID is still the session's")
	}
	bob.wantLoggedOut()
}

// Without a finger, a face or a PIN nobody gets in: the browser refuses it, and where
// that is made to agree, or the authenticator lies, the server does.
func TestChromiumUserVerification(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ada := newDevice(t, s)
	known := func(yes bool) {
		call(ada, webauthn.SetUserVerified, webauthn.SetUserVerifiedParams{AuthenticatorID: ada.key, IsUserVerified: yes})
	}
	known(false)
	ada.visit("/signup")
	ada.fill("name", "ada")
	ada.press("Create account", "No passkey was used")
	if got := s.row(t, "SELECT count(*) FROM passkey_example.users"); got != 0 {
		t.Errorf("users: got %d, want none", got)
	}
	known(true)
	ada.signUp("ada")
	ada.press("Log out", "Log in")

	known(false)
	ada.logIn("No passkey was used")
	agreeable := strings.Replace(ada.begin("/login/begin"), `"userVerification":"required"`, `"userVerification":"discouraged"`, 1)
	if !strings.Contains(agreeable, "discouraged") {
		t.Fatal("the options ask for no user verification")
	}
	ada.wantStatus("a script that asks for no user verification", "/login/finish", ada.sign(agreeable), 403)
	known(true)

	yes := true
	for _, tt := range []struct {
		name string
		bits webauthn.SetResponseOverrideBitsParams
	}{
		{"no user verified", webauthn.SetResponseOverrideBitsParams{IsBadUV: &yes}},
		{"no user present", webauthn.SetResponseOverrideBitsParams{IsBadUP: &yes}},
		{"a bogus signature", webauthn.SetResponseOverrideBitsParams{IsBogusSignature: &yes}},
	} {
		tt.bits.AuthenticatorID = ada.key
		call(ada, webauthn.SetResponseOverrideBits, tt.bits)
		ada.wantStatus(tt.name, "/login/finish", ada.sign(ada.begin("/login/begin")), 403)
	}
	call(ada, webauthn.SetResponseOverrideBits, webauthn.SetResponseOverrideBitsParams{AuthenticatorID: ada.key})
	ada.wantLoggedOut()
	ada.logIn("Hello, ada")
}

// longAgo makes all sessions as if the passkey had been used six minutes ago.
func longAgo(t *testing.T, s *site) {
	t.Helper()
	verified(t, s, "-6 minutes")
}

// verified makes all sessions as if the passkey had been used in so long.
func verified(t *testing.T, s *site, in string) {
	t.Helper()
	s.execute(t, `UPDATE schema_system.session SET sess = regexp_replace(sess::text, '"verifiedAt":"[^"]*"', '"verifiedAt":"'
		|| to_char(now() AT TIME ZONE 'UTC' + $1::interval, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') || '"')::json
		WHERE sess::text LIKE '%"verifiedAt"%'`, in)
}

func TestChromiumStepUp(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ada := newDevice(t, s)
	ada.signUp("ada")
	ada.visit("/email") // the passkey was used a moment ago
	ada.wantPath("/email")
	ada.fill("email", "ada@one.example")
	ada.press("Change e-mail address", "ada@one.example")
	s.WaitLog(`msg="e-mail address changed"`)
	s.WantNotInLog("ada@one.example")

	ada.visit("/email")
	ada.fill("email", "mallory@evil.example")
	longAgo(t, s)
	ada.press("Change e-mail address", "Is it you?") // the form that is open already counts no more
	ada.visit("/devices")                            // what matters less goes on
	ada.fill("label", "Mallory's")
	ada.press("Add a passkey", "Is it you?")
	ada.visit("/devices")
	ada.press("Remove the passkey Chrome on Linux", "Is it you?")
	for _, path := range []string{"/passkeys/begin", "/passkeys/finish"} {
		if got := ada.begin(path); !strings.Contains(got, "/confirm?next=") {
			t.Errorf("%s: got another answer, want the way to the step-up", path)
		}
	}
	if got := s.row(t, "SELECT count(*) FROM passkey_example.passkeys"); got != 1 {
		t.Errorf("passkeys: got %d, want 1", got)
	}

	ada.visit("/email")
	ada.see("Is it you?")
	// What answers another question is no answer to this one.
	ada.wantStatus("an assertion that was made to log in", "/confirm/finish", ada.sign(ada.begin("/login/begin")), 403)
	s.WaitLog("no such ceremony")
	ada.visit("/email")
	ada.see("Is it you?")
	before := ada.sessionID()
	ada.press("Use my passkey", "E-mail address")
	ada.wantPath("/email")
	if ada.sessionID() == before {
		t.Error("the session has no new ID after the step-up")
	}
	if got := eval[string](ada, `document.querySelector("input[name=email]").value`); got != "ada@one.example" {
		t.Errorf("the address: got %q, want that of before", got)
	}
	ada.fill("email", "ada@two.example")
	ada.press("Change e-mail address", "ada@two.example")

	verified(t, s, "1 hour") // by another server, whose clock was wrong
	ada.visit("/email")
	ada.see("Is it you?")
	for _, next := range []string{"https://evil.example", "//evil.example", "/logout", ""} {
		ada.visit("/confirm?next=" + next)
		ada.press("Use my passkey", "Hello, ada") // no other site is where it leads
	}
}

// Somebody else's passkey confirms nothing, though the challenge is answered.
func TestChromiumStepUpOfAnother(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ada, bob := newDevice(t, s), newDevice(t, s)
	ada.signUp("ada")
	bob.signUp("bob")
	ada.newKey()
	ada.put(bob.passkey())
	ada.visit("/confirm")
	ada.press("Use my passkey", "No passkey was used") // the browser was told whose it must be
	longAgo(t, s)
	options := ada.begin("/confirm/begin")
	assertion := eval[string](ada, `(() => {
		const o = PublicKeyCredential.parseRequestOptionsFromJSON((`+options+`).publicKey);
		delete o.allowCredentials;
		return navigator.credentials.get({publicKey: o}).then(JSON.stringify) })()`)
	ada.wantStatus("bob's passkey", "/confirm/finish", assertion, 403)
	ada.visit("/email")
	ada.see("Is it you?")
}

func TestChromiumPasskeys(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ada, phone := newDevice(t, s), newDevice(t, s)
	ada.signUp("ada")
	first := ada.passkey()
	ada.visit("/devices")
	ada.press("Remove the passkey Chrome on Linux", "your only passkey")
	ada.fill("label", "Once more")
	ada.press("Add a passkey", "has a passkey of yours already")

	ada.newKey()
	ada.fill("label", "Security key")
	ada.press("Add a passkey", "The passkey is added.")
	ada.see("Security key")
	ada.visit("/confirm")
	ada.press("Use my passkey", "Hello, ada") // from now on it is what this session goes by

	phone.put(first)
	phone.logIn("Hello, ada")
	ada.visit("/devices")
	ada.press("Remove the passkey Chrome on Linux", "The passkey is removed.")
	if got := s.row(t, "SELECT count(*) FROM passkey_example.passkeys"); got != 1 {
		t.Errorf("passkeys: got %d, want 1", got)
	}
	phone.wantLoggedOut() // it came in with the one that is gone
	if got := exampletest.Rows(t, s.dsn); got != 1 {
		t.Errorf("sessions: got %d, want ada's", got)
	}
	phone.logIn("This passkey was not accepted")
	ada.press("Log out", "Log in")
	ada.logIn("Hello, ada") // with the security key

	// Whose session goes by the passkey that is removed logs in again.
	ada.newKey()
	ada.visit("/devices")
	ada.fill("label", "Another")
	ada.press("Add a passkey", "The passkey is added.")
	ada.press("Remove the passkey Security key", "Please log in with another one.")
	ada.wantLoggedOut()
	ada.logIn("Hello, ada")
	s.WaitLog(`msg="passkey added"`)
	s.WaitLog(`msg="passkey removed"`)
	bob := newDevice(t, s)
	bob.signUp("bob")
	bob.visit("/devices")
	eval[bool](bob, `document.querySelector("#passkeys input[name=passkey]").value = `+fmt.Sprint(s.row(t, "SELECT min(id) FROM passkey_example.passkeys"))+`, true`)
	bob.press("Remove the passkey Chrome on Linux", "removed already") // it is ada's: not to be found
	ada.visit("/account")
	ada.see("Hello, ada")
}

// A login under way, whose passkey is removed or locked before its session is stored, gets
// nowhere: no session was there to be ended.
func TestChromiumPasskeyRemovedMeanwhile(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ada := newDevice(t, s)
	ada.signUp("ada")
	s.execute(t, "UPDATE passkey_example.passkeys SET locked_at = now()")
	ada.wantLoggedOut()
	s.execute(t, "UPDATE passkey_example.passkeys SET locked_at = NULL")
	ada.logIn("Hello, ada")
	s.execute(t, "DELETE FROM passkey_example.passkeys")
	ada.wantLoggedOut()
	if got := exampletest.Rows(t, s.dsn); got != 0 {
		t.Errorf("sessions: got %d, want none", got)
	}
}

// Whose session ends while a request is under way learns why nothing came of it.
func TestChromiumEndedMeanwhile(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	v := loggedOutWithPasskey(t, s).entered("Firefox on Windows")
	tx := s.begin(t, "LOCK TABLE passkey_example.users IN ACCESS EXCLUSIVE MODE")
	page := make(chan exampletest.Response)
	go func() { page <- v.form("/devices/revoke-others", nil) }()
	s.waiting(t)
	s.execute(t, "DELETE FROM schema_system.session")
	must(t, tx.Rollback(t.Context()))
	(<-page).Want(t, 409, "You were logged out, or in, by another page meanwhile.")
}

// A passkey that is locked while a login with it is under way lets nobody in.
func TestChromiumPasskeyLockedMeanwhile(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	v, assertion := loggedOutWithPasskey(t, s).challenged()
	tx := s.begin(t, "SELECT FROM passkey_example.passkeys FOR UPDATE") // it is read, and its use not noted
	code := make(chan int)
	go func() {
		c, _ := v.send("/login/finish", assertion)
		code <- c
	}()
	s.waiting(t)
	_, err := tx.Exec(t.Context(), "UPDATE passkey_example.passkeys SET locked_at = now()")
	must(t, err)
	must(t, tx.Commit(t.Context()))
	if got := <-code; got != 403 {
		t.Errorf("got %d, want 403", got)
	}
	v.Get(s.URL+"/account").Want(t, 200, "Log in with a passkey")
}

// One passkey is left that lets its user in, whoever removes the others at the same
// moment; one that is locked is none.
func TestChromiumLastPasskey(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	v := loggedOutWithPasskey(t, s).entered("Firefox on Windows")
	another := func() (id int64) {
		return s.row(t, `INSERT INTO passkey_example.passkeys (user_id, label, credential_id, public_key, sign_count, backup_eligible, backed_up, transports, aaguid)
			SELECT user_id, 'Another', decode(md5(random()::text), 'hex'), public_key, 0, false, false, '{}', aaguid FROM passkey_example.passkeys LIMIT 1 RETURNING id`)
	}
	remove := func(id int64) exampletest.Response {
		return v.form("/passkeys/remove", url.Values{"passkey": {fmt.Sprint(id)}})
	}
	first := s.row(t, "SELECT id FROM passkey_example.passkeys")
	locked := another()
	s.execute(t, "UPDATE passkey_example.passkeys SET locked_at = now() WHERE id = $1", locked)
	remove(first).Want(t, 200, "your only passkey")
	remove(locked).Want(t, 200, "The passkey is removed.")

	// Another removal is under way, and has done all but commit.
	second := another()
	tx := s.begin(t, "SELECT FROM passkey_example.users FOR UPDATE")
	_, err := tx.Exec(t.Context(), "DELETE FROM passkey_example.passkeys WHERE id = $1", second)
	must(t, err)
	page := make(chan exampletest.Response)
	go func() { page <- remove(first) }()
	s.waiting(t)
	must(t, tx.Commit(t.Context()))
	(<-page).Want(t, 200, "your only passkey")
	if got := s.row(t, "SELECT count(*) FROM passkey_example.passkeys"); got != 1 {
		t.Errorf("passkeys: got %d, want 1", got)
	}
}

// A visitor's session ends soon, a user's does not, and none lives for ever.
func TestChromiumLifetimes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ada := loggedOutWithPasskey(t, s)
	ends := func(within string) int64 {
		t.Helper()
		return s.row(t, "SELECT count(*) FROM schema_system.session WHERE left(sess::text, 3) <> '\"0e' AND expire < now() + interval '"+within+"'")
	}
	v, assertion := ada.challenged()
	if ends("10 minutes") != 1 {
		t.Error("a visitor's session is kept for longer than ten minutes")
	}
	if code, _ := v.send("/login/finish", assertion); code != 200 {
		t.Fatalf("got %d, want 200", code)
	}
	if ends("20 hours") != 0 || ends("25 hours") != 1 {
		t.Error("a user's session does not have the idle timeout of all")
	}
	for _, tt := range []struct {
		days int
		want string
	}{{89, "Hello, ada"}, {91, "Log in with a passkey"}} {
		s.execute(t, fmt.Sprintf(`UPDATE schema_system.session SET sess = jsonb_set(sess::jsonb, '{__created}',
			to_jsonb((extract(epoch FROM now() - interval '%d days') * 1000)::bigint))::json WHERE json_typeof(sess) = 'object'`, tt.days))
		v.Get(s.URL+"/account").Want(t, 200, tt.want)
	}
}

// A user has so many sessions and no more; the table tells no ID.
func TestChromiumManySessions(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ada := loggedOutWithPasskey(t, s)
	first := ada.entered("Firefox on Windows")
	var last *visitor
	for range 10 {
		last = ada.entered("Firefox on Windows")
	}
	first.Get(s.URL+"/account").Want(t, 200, "Log in with a passkey")
	last.Get(s.URL+"/account").Want(t, 200, "Hello, ada")
	ada.setCookie(last.Cookie())
	id, err := base64.StdEncoding.DecodeString(ada.sessionID())
	must(t, err)
	if s.row(t, "SELECT count(*) FROM schema_system.session s WHERE s::text LIKE '%"+string(id)+"%'") != 0 {
		t.Error("the ID of a session is in the table")
	}
}

func TestChromiumLogOutElsewhere(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ada, phone, bob := newDevice(t, s, syncable), newDevice(t, s), newDevice(t, s)
	ada.signUp("ada")
	ada.uncounted()
	phone.put(ada.passkey())
	phone.logIn("Hello, ada")
	bob.signUp("bob")

	ada.visit("/devices")
	if got := eval[int](ada, `document.querySelectorAll("#sessions li").length`); got != 2 {
		t.Errorf("sessions on the page: got %d, want ada's and the phone's", got)
	}
	other := eval[string](ada, `[...document.querySelectorAll("#sessions li")].find(e => !e.querySelector(".badge")).querySelector("input").value`)
	bob.visit("/devices")
	eval[bool](bob, `document.querySelector("#sessions input[name=handle]").value = "`+other+`", true`)
	bob.press("Log out Chrome on Linux, this device", "logged out already") // it is ada's: not to be found
	phone.visit("/account")
	phone.see("Hello, ada")

	ada.press("Log out Chrome on Linux", "The device is logged out.")
	phone.wantLoggedOut()
	phone.logIn("Hello, ada")
	ada.visit("/devices")
	ada.press("Log out everywhere else", "everywhere else: 1.")
	phone.wantLoggedOut()
	ada.visit("/account")
	ada.see("Hello, ada")
	bob.visit("/account")
	bob.see("Hello, bob")
}
