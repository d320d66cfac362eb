package main_test

import (
	"fmt"
	"html"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/session/internal/exampletest"
	"github.com/pgsession/session/internal/pgtest"
)

// longAgo makes all sessions as if the password had been given 11 minutes ago.
func longAgo(t *testing.T, dsn string) {
	t.Helper()
	ms := time.Now().Add(-11 * time.Minute).UnixMilli()
	execute(t, dsn, fmt.Sprintf(`UPDATE schema_system.session SET sess = regexp_replace(regexp_replace(sess::text,
		'"__renewed":\d+', '"__renewed":%[1]d'), '"__created":\d+', '"__created":%[1]d')::json`, ms))
}

func TestPasswordIsAskedForAgain(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn)
	ada := newVisitor(t, p)
	ada.signUp("ada")
	ada.get("/password").Want(t, 200, "New password")
	ada.get("/delete").Want(t, 200, "Delete my account")
	longAgo(t, dsn)
	for _, path := range []string{"/password", "/delete"} {
		ada.get(path).Want(t, 200, "Is it you?")
		ada.post(path, "password", "another long password").Want(t, 200, "Is it you?")
	}
	ada.get("/account").Want(t, 200, "Hello, ada")
	before := ada.Cookie()
	ada.post("/confirm", "next", "/delete", "password", "another long password").Want(t, 422, "The password is wrong.")
	ada.get("/password").Want(t, 200, "Is it you?")
	ada.post("/confirm", "next", "/delete", "password", password).Want(t, 200, "Delete my account")
	ada.get("/password").Want(t, 200, "New password")
	if after := ada.Cookie(); after == before || after == "" {
		t.Error("the session has no new ID")
	}
	newVisitor(t, p).logIn("ada").Want(t, 200) // nothing was changed meanwhile

	// No other site is where the form leads.
	for _, next := range []string{"https://evil.example", "//evil.example", "/\\evil.example", "", "/logout"} {
		ada.post("/confirm", "next", next, "password", password).Want(t, 200, "Hello, ada")
	}
	for range 10 {
		ada.post("/confirm", "password", "another long password").Want(t, 422)
	}
	ada.post("/confirm", "password", password).Want(t, 429)
}

func TestPasswordChange(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn)
	ada, phone, bob := newVisitor(t, p), newVisitor(t, p), newVisitor(t, p)
	ada.signUp("ada")
	phone.logIn("ada", "remember", "yes")
	bob.signUp("bob")
	before := ada.Cookie()

	ada.post("/password", "password", "too short").Want(t, 422, "at least 15")
	phone.get("/account").Want(t, 200, "Hello, ada")
	ada.post("/password", "password", "another long password").Want(t, 200, "Your password is changed", "This is the only one")
	phone.wantLoggedOut()
	bob.get("/account").Want(t, 200, "Hello, bob")
	stolen := newVisitor(t, p)
	stolen.SetCookie(before)
	stolen.wantLoggedOut()
	if n := exampletest.Rows(t, dsn); n != 2 {
		t.Errorf("got %d sessions, want ada's and bob's", n)
	}
	newVisitor(t, p).logIn("ada").Want(t, 422)
	newVisitor(t, p).logIn("ada", "password", "another long password").Want(t, 200)

	// A login that had checked the old password, and saved its session only after
	// the others were revoked, comes with the old version.
	execute(t, dsn, "UPDATE login_example.users SET version = version + 1 WHERE name = 'ada'")
	ada.wantLoggedOut()
	ada.get("/").Want(t, 200, "Log in")
}

var handles = regexp.MustCompile(`name="handle" value="([^"]+)"`)

// shown are the handles of the devices page, in its order.
func (v *visitor) shown() (all []string) {
	v.T.Helper()
	for _, m := range handles.FindAllStringSubmatch(v.get("/devices").Body, -1) {
		all = append(all, html.UnescapeString(m[1]))
	}
	return all
}

func TestDevices(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn)
	ada, phone, bob := newVisitor(t, p), newVisitor(t, p), newVisitor(t, p)
	ada.signUp("ada")
	old := ada.shown()
	phone.logIn("ada")
	bob.signUp("bob")
	page := ada.get("/devices")
	page.Want(t, 200, "This device", "Last seen", "Log out everywhere else")
	if n := strings.Count(page.Body, "This device<"); n != 1 {
		t.Errorf("got %d devices that are this one, want 1", n)
	}
	if strings.Contains(page.Body, sessionID(t, ada)) || strings.Contains(page.Body, sessionID(t, phone)) {
		t.Error("the page shows a session ID")
	}
	both := ada.shown()
	if len(both) != 2 || !slices.Contains(both, old[0]) {
		t.Fatalf("got %d devices, want this one and the phone", len(both))
	}
	other := both[0]
	if other == old[0] {
		other = both[1]
	}

	// The form is one's own to write: it reaches no other user's session.
	bob.post("/devices/revoke", "handle", other).Want(t, 200, "logged out already")
	bob.post("/devices/revoke").Want(t, 400)
	phone.get("/account").Want(t, 200, "Hello, ada")

	ada.post("/devices/revoke", "handle", other).Want(t, 200, "The device is logged out.")
	phone.wantLoggedOut()
	ada.post("/devices/revoke", "handle", other).Want(t, 200, "logged out already")

	phone.logIn("ada")
	newVisitor(t, p).logIn("ada")
	ada.post("/devices/revoke-others").Want(t, 200, "everywhere else: 2.")
	phone.wantLoggedOut()
	bob.get("/account").Want(t, 200, "Hello, bob")

	ada.post("/devices/revoke", "handle", ada.shown()[0]).Want(t, 200, "Log in")
	if ada.Cookie() != "" {
		t.Error("this device is logged out, and its cookie still there")
	}
}

func TestSixthLoginEndsTheOldest(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn)
	oldest := newVisitor(t, p)
	oldest.signUp("ada")
	longAgo(t, dsn)
	var others []*visitor
	for range 4 {
		b := newVisitor(t, p)
		b.logIn("ada")
		others = append(others, b)
	}
	oldest.get("/account").Want(t, 200, "5 are logged in")
	sixth := newVisitor(t, p)
	sixth.logIn("ada").Want(t, 200, "5 are logged in")
	oldest.wantLoggedOut()
	for _, b := range others {
		b.get("/account").Want(t, 200, "Hello, ada")
	}
}

func TestDeleteAccount(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn)
	ada, phone, bob := newVisitor(t, p), newVisitor(t, p), newVisitor(t, p)
	ada.signUp("ada")
	phone.logIn("ada")
	bob.signUp("bob")
	ada.post("/delete").Want(t, 200, "Log in", "Your account is deleted.")
	if n := exampletest.Rows(t, dsn); n != 2 {
		t.Errorf("got %d sessions, want bob's and the one of the message", n)
	}
	if page := ada.get("/login"); strings.Contains(page.Body, "deleted") {
		t.Error("the flash message was shown twice")
	}
	ada.wantLoggedOut()
	phone.wantLoggedOut()
	bob.get("/account").Want(t, 200, "Hello, bob")
	newVisitor(t, p).logIn("ada").Want(t, 422)
	if n := row(t, dsn, "SELECT count(*) FROM login_example.users"); n != 1 {
		t.Errorf("got %d users, want bob alone", n)
	}

	// A session without a user, as a login at the same moment could leave it.
	execute(t, dsn, "DELETE FROM login_example.users WHERE name = 'bob'")
	bob.wantLoggedOut()

	anonymous := ada.Cookie() // the message's session is renewed by the next login
	ada.signUp("ada").Want(t, 200, "Hello, ada")
	if anonymous == "" || ada.Cookie() == anonymous {
		t.Error("the session has no new ID after the login")
	}
}

// What one user leaves in a browser is not the next one's.
func TestAnotherUserLogsInOverTheFirst(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn)
	b, thief := newVisitor(t, p), newVisitor(t, p)
	b.signUp("ada")
	thief.SetCookie(b.Cookie())
	longAgo(t, dsn)
	b.signUp("bob").Want(t, 200, "Hello, bob", "just now") // not since ada came
	thief.wantLoggedOut()
	if n := exampletest.Rows(t, dsn); n != 1 {
		t.Errorf("got %d sessions, want 1", n)
	}
	thief.SetCookie(b.Cookie())
	b.logIn("bob").Want(t, 200, "Hello, bob")
	thief.wantLoggedOut()
}

func TestRememberMe(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn)
	ada := newVisitor(t, p)
	ada.signUp("ada")
	for _, tt := range []struct {
		remember string
		want     time.Duration
	}{
		{"", 24 * time.Hour},
		{"yes", 30 * 24 * time.Hour},
		{"", 24 * time.Hour},
	} {
		ada.logIn("ada", "remember", tt.remember)
		left := time.Duration(row(t, dsn, `SELECT extract(epoch FROM expire - now())::bigint FROM schema_system.session
			WHERE left(sess::text, 3) <> '"0e'`)) * time.Second
		if left > tt.want || left < tt.want-time.Hour {
			t.Errorf("remember %q: got %v left, want about %v", tt.remember, left, tt.want)
		}
	}
}
