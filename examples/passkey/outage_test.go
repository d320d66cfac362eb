package main_test

import (
	"context"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/exampletest"
)

// schema changes the database until mend is called.
func schema(t *testing.T, s *site, change, back string) (mend func()) {
	t.Helper()
	run := func(sql string) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), s.dsn)
		must(t, err)
		defer conn.Close(context.WithoutCancel(t.Context()))
		_, err = conn.Exec(t.Context(), sql)
		must(t, err)
	}
	run(change)
	return func() { t.Helper(); run(back) }
}

// gone takes the table of users away.
func gone(t *testing.T, s *site) (mend func()) {
	t.Helper()
	return schema(t, s, "ALTER TABLE passkey_example.users RENAME TO gone", "ALTER TABLE passkey_example.gone RENAME TO users")
}

// broken makes it an error to change the rows of which when is true.
func broken(t *testing.T, s *site, table, when string) (mend func()) {
	t.Helper()
	return schema(t, s, `CREATE OR REPLACE FUNCTION passkey_example.broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'it is the disk'; END $$;
		CREATE TRIGGER broken BEFORE UPDATE OR DELETE ON `+table+` FOR EACH ROW WHEN (`+when+`) EXECUTE FUNCTION passkey_example.broken()`,
		`DROP TRIGGER broken ON `+table)
}

// wantOutage wants an answer that says on whose side the problem is, and nothing of it.
func wantOutage(t *testing.T, what string, code int, answer string) {
	t.Helper()
	if code != http.StatusServiceUnavailable || !strings.Contains(answer, "We have a problem on our side") {
		t.Errorf("%s: got %d, want 503 and whose problem it is", what, code)
	}
	for _, detail := range []string{"SQLSTATE", "passkey_example", "disk", "users"} {
		if strings.Contains(answer, detail) {
			t.Errorf("%s: the answer says %q", what, detail)
		}
	}
}

// What a database did not do is answered neither as done nor as the user's fault.
func TestChromiumOutages(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ada := loggedOutWithPasskey(t, s)
	for _, tt := range []struct {
		name string
		down func() (mend func())
	}{
		{"no users", func() func() { return gone(t, s) }},
		{"a challenge that cannot be taken", func() func() { return broken(t, s, "schema_system.session", "true") }},
		{"a counter that cannot be stored", func() func() { return broken(t, s, "passkey_example.passkeys", "true") }},
	} {
		v, assertion := ada.challenged()
		mend := tt.down()
		code, answer := v.send("/login/finish", assertion)
		mend()
		wantOutage(t, tt.name, code, answer)
		v.Get(s.URL+"/account").Want(t, 200, "Log in with a passkey")
	}
	s.WaitLog("SQLSTATE")

	v, phone := ada.entered("Firefox on Windows"), ada.entered("Safari on iPhone")
	post := func(path, name, value string) (code int, answer string) {
		r := v.Post(s.URL+path, url.Values{name: {value}})
		return r.Code, r.Body
	}
	mend := gone(t, s)
	code, answer := v.send("/signup/begin", `{"name": "bob"}`)
	wantOutage(t, "a sign-up", code, answer)
	r := v.Get(s.URL + "/account")
	wantOutage(t, "the account", r.Code, r.Body)
	mend()
	mend = broken(t, s, "passkey_example.users", "true")
	code, answer = post("/email", "email", "ada@one.example")
	wantOutage(t, "an address that cannot be stored", code, answer)
	mend()
	handle := regexp.MustCompile(`value="([^"]*)">\s*<button class="second" aria-label="Log out Safari on iPhone"`).
		FindStringSubmatch(v.Get(s.URL + "/devices").Body)
	if handle == nil {
		t.Fatal("the phone is not among the devices")
	}
	mend = broken(t, s, "schema_system.session", "OLD.sess::text LIKE '%iPhone%'")
	code, answer = post("/devices/revoke", "handle", handle[1])
	wantOutage(t, "a device that cannot be logged out", code, answer)
	code, answer = post("/devices/revoke-others", "", "")
	wantOutage(t, "others that cannot be", code, answer)
	mend()
	phone.Get(s.URL+"/account").Want(t, 200, "Hello, ada", "none yet")

	// A database that does not answer is not waited for without an end.
	conn, err := pgx.Connect(t.Context(), s.dsn)
	must(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	tx, err := conn.Begin(t.Context())
	must(t, err)
	_, err = tx.Exec(t.Context(), "LOCK TABLE passkey_example.users IN ACCESS EXCLUSIVE MODE")
	must(t, err)
	v.Client.Timeout = exampletest.Deadline // much longer than the program waits
	r = v.Get(s.URL + "/account")
	wantOutage(t, "a database that hangs", r.Code, r.Body)
	must(t, tx.Rollback(t.Context()))
	v.Get(s.URL+"/account").Want(t, 200, "Hello, ada")
}
