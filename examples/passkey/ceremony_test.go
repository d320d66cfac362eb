package main_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	webauthnlib "github.com/go-webauthn/webauthn/webauthn"
	"github.com/jackc/pgx/v5"
	"github.com/pgsession/session"
	main "github.com/pgsession/session/examples/passkey"
	"github.com/pgsession/session/internal/exampletest"
)

// loggedOutWithPasskey is a device whose authenticator has ada's passkey without a
// counter, so that nothing but the challenge makes an answer good once.
func loggedOutWithPasskey(t *testing.T, s *site) *device {
	t.Helper()
	ada := newDevice(t, s, syncable)
	ada.signUp("ada")
	ada.uncounted()
	ada.press("Log out", "Log in")
	return ada
}

func TestChromiumReplay(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ada := loggedOutWithPasskey(t, s)
	assertion := ada.sign(ada.begin("/login/begin"))
	ada.wantStatus("an answer", "/login/finish", assertion, 200)
	ada.wantStatus("the same answer again", "/login/finish", assertion, 403)
	ada.visit("/account")
	ada.press("Log out", "Log in")
	ada.wantStatus("the same answer after a logout", "/login/finish", assertion, 403)
	ada.begin("/login/begin")
	ada.wantStatus("the same answer to another challenge", "/login/finish", assertion, 403)
	ada.wantLoggedOut()

	// The challenge is gone before the answer is looked at: nobody gets a second try.
	assertion = ada.sign(ada.begin("/login/begin"))
	wrong := forged(t, assertion)
	ada.wantStatus("a wrong signature", "/login/finish", wrong, 403)
	ada.wantStatus("the right one after that", "/login/finish", assertion, 403)
	ada.wantLoggedOut()
	s.WantNotInLog(challengeOf(t, ada.begin("/login/begin")))
}

// forged is an answer with another signature.
func forged(t *testing.T, assertion string) string {
	t.Helper()
	var a map[string]any
	must(t, json.Unmarshal([]byte(assertion), &a))
	response := a["response"].(map[string]any)
	signature := []byte(response["signature"].(string))
	if signature[8] != 'A' {
		signature[8] = 'A'
	} else {
		signature[8] = 'B'
	}
	response["signature"] = string(signature)
	b, err := json.Marshal(a)
	must(t, err)
	return string(b)
}

// go-webauthn gives ceremonies no end unless it is to enforce one: they stay side by side,
// and not more than so many.
func TestCeremoniesWithoutAnEnd(t *testing.T) {
	t.Parallel()
	sessions, err := session.New(session.NewMemoryStore(), session.Config{Secret: exampletest.Secret, DisablePrune: true})
	must(t, err)
	t.Cleanup(func() { must(t, sessions.Close()) })
	h := sessions.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		for i := range 10 {
			challenge := strconv.Itoa(i)
			main.Begin(s, main.Ceremony{Data: webauthnlib.SessionData{Challenge: challenge}})
			kept, _ := main.Pending.Get(s)
			if want := min(i+1, 8); len(kept) != want || kept[challenge].Data.Challenge != challenge {
				t.Errorf("begun: got %d, want %d and the last among them", len(kept), want)
			}
		}
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil))
}

// One that is over goes when another begins, and one that is not stays.
func TestCeremoniesThatAreOver(t *testing.T) {
	t.Parallel()
	sessions, err := session.New(session.NewMemoryStore(), session.Config{Secret: exampletest.Secret, DisablePrune: true})
	must(t, err)
	t.Cleanup(func() { must(t, sessions.Close()) })
	h := sessions.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		for challenge, end := range map[string]time.Time{"over": time.Now().Add(-time.Second), "not over": time.Now().Add(time.Minute)} {
			main.Begin(s, main.Ceremony{Data: webauthnlib.SessionData{Challenge: challenge, Expires: end}})
		}
		main.Begin(s, main.Ceremony{Data: webauthnlib.SessionData{Challenge: "last", Expires: time.Now().Add(time.Minute)}})
		kept, _ := main.Pending.Get(s)
		if got, want := slices.Sorted(maps.Keys(kept)), []string{"last", "not over"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil))
}

func challengeOf(t *testing.T, options string) string {
	t.Helper()
	var o struct{ PublicKey struct{ Challenge string } }
	must(t, json.Unmarshal([]byte(options), &o))
	return o.PublicKey.Challenge
}

// Of two requests that bring the same answer at the same moment one gets in. The second
// comes when the first has taken the challenge and waits for a table: the test holds it.
func TestChromiumReplayAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ada := loggedOutWithPasskey(t, s)
	assertion := ada.sign(ada.begin("/login/begin"))
	conn, err := pgx.Connect(t.Context(), s.dsn)
	must(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	tx, err := conn.Begin(t.Context())
	must(t, err)
	_, err = tx.Exec(t.Context(), "LOCK TABLE passkey_example.users IN ACCESS EXCLUSIVE MODE")
	must(t, err)
	codes := make(chan int, 2)
	for range 2 {
		v := newVisitor(t, s)
		v.SetCookie(ada.cookie())
		go func() {
			code, _ := v.send("/login/finish", assertion)
			codes <- code
		}()
	}
	if first := <-codes; first != http.StatusForbidden {
		t.Errorf("the second request, while the first waits: got %d, want 403", first)
	}
	must(t, tx.Rollback(t.Context()))
	if second := <-codes; second != http.StatusOK {
		t.Errorf("the first request: got %d, want 200", second)
	}
}

// A challenge counts in the session that has asked for it and in no other, which keeps
// an attacker from logging a victim in as himself, too.
func TestChromiumChallengeOfAnotherSession(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ada, mallory := loggedOutWithPasskey(t, s), newVisitor(t, s)
	code, options := mallory.send("/login/begin", "{}")
	if code != 200 {
		t.Fatalf("got %d, want 200", code)
	}
	assertion := ada.sign(options)
	ada.begin("/login/begin") // it has a session with a challenge, and not this one
	ada.wantStatus("a challenge of another session", "/login/finish", assertion, 403)
	nobody := newVisitor(t, s)
	if code, _ := nobody.send("/login/finish", assertion); code != 403 || nobody.Cookie() != "" {
		t.Errorf("without a session: got %d, want 403 and no cookie", code)
	}
	ada.wantLoggedOut()
	if code, _ := mallory.send("/login/finish", assertion); code != 200 {
		t.Errorf("the session that has asked: got %d, want 200, or the test shows nothing", code)
	}
}

// A page of another port, or of a host below ours, may ask an authenticator for passkeys of
// our host: it is the origin in the answer that says so.
func TestChromiumOtherOrigin(t *testing.T) {
	t.Parallel()
	s, evil := newSite(t), newSite(t)
	ada := loggedOutWithPasskey(t, s)
	visit := func(origin string) { must(t, chromedp.Do(ada.ctx, chromedp.Navigate(origin+"/signup"))) }
	v := newVisitor(t, s)
	for _, tt := range []struct {
		path   string
		answer func(options string) string
	}{{"/login", ada.sign}, {"/signup", ada.create}} {
		for _, at := range []struct {
			origin string
			want   int
		}{{evil.origin, 403}, {s.origin, 200}} {
			visit(at.origin)
			_, options := v.send(tt.path+"/begin", `{"name": "bob"}`)
			if code, _ := v.send(tt.path+"/finish", tt.answer(options)); code != at.want {
				t.Errorf("%s, answered at %s: got %d, want %d", tt.path, at.origin, code, at.want)
			}
		}
	}
	s.WaitLog("passkey refused")
}

// The authenticator does not sign whose passkey it is, so the answer may name another.
func TestChromiumUserHandle(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ada, bob := loggedOutWithPasskey(t, s), newDevice(t, s)
	bob.signUp("bob")
	of := func(d *device) string { return base64.RawURLEncoding.EncodeToString(d.passkey().UserHandle) }
	for name, handle := range map[string]any{"another user's": of(bob), "nobody's": "bm9ib2R5", "empty": "", "none": nil} {
		v, assertion := ada.challenged()
		code, answer := v.send("/login/finish", answerWith(t, assertion, "userHandle", handle))
		if want := `{"problem":"This passkey was not accepted. Please try again."}`; code != 403 || strings.TrimSpace(answer) != want {
			t.Errorf("%s: got %d %s, want 403 and the same words for all", name, code, answer)
		}
	}
	v, assertion := ada.challenged()
	if code, _ := v.send("/login/finish", answerWith(t, assertion, "userHandle", of(ada))); code != 200 {
		t.Errorf("ada's: got %d, want 200, or the test shows nothing", code)
	}
}

// answerWith is an answer with another value in what the authenticator has answered.
func answerWith(t *testing.T, assertion, name string, value any) string {
	t.Helper()
	var a map[string]any
	must(t, json.Unmarshal([]byte(assertion), &a))
	a["response"].(map[string]any)[name] = value
	b, err := json.Marshal(a)
	must(t, err)
	return string(b)
}

// Two tabs are one session with two challenges, and neither takes the other's.
func TestChromiumTwoTabs(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ada := loggedOutWithPasskey(t, s)
	one, two := ada.begin("/login/begin"), ada.begin("/login/begin")
	other := ada.sign(two)
	ada.wantStatus("the second tab", "/login/finish", other, 200)
	first := ada.sessionID()
	ada.wantStatus("the first tab", "/login/finish", ada.sign(one), 200)
	if ada.sessionID() == first {
		t.Error("the second login has no new ID")
	}
	ada.wantStatus("the second tab again", "/login/finish", other, 403)

	// A session holds eight at most; the oldest goes.
	oldest := ada.begin("/login/begin")
	next := ada.begin("/login/begin")
	for range 7 {
		ada.begin("/login/begin")
	}
	ada.wantStatus("the oldest of nine", "/login/finish", ada.sign(oldest), 403)
	ada.wantStatus("the one after", "/login/finish", ada.sign(next), 200)
}

func TestChromiumChallengeExpires(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ada := loggedOutWithPasskey(t, s)
	options := ada.begin("/login/begin")
	assertion := ada.sign(options)
	ends := `(sess #>> '{ceremonies,` + challengeOf(t, options) + `,data,expires}')::timestamptz`
	if s.row(t, "SELECT count(*) FROM schema_system.session WHERE "+ends+" BETWEEN now() AND now() + interval '5 minutes'") != 1 {
		t.Error("the challenge has no end")
	}
	s.execute(t, `UPDATE schema_system.session SET sess = jsonb_set(sess::jsonb, ARRAY['ceremonies', $1, 'data', 'expires'],
		'"2020-01-01T00:00:00Z"', false)::json WHERE sess->'ceremonies'->$1 IS NOT NULL`, challengeOf(t, options))
	ada.wantStatus("an answer that is late", "/login/finish", assertion, 403)
	ada.wantStatus("one that is not", "/login/finish", ada.sign(ada.begin("/login/begin")), 200)
}

// A counter that has not grown says that there are two of the passkey: it lets nobody in
// from then on, and whom it has let in is logged out.
func TestChromiumCopiedPasskey(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ada, thief := newDevice(t, s), newDevice(t, s)
	ada.signUp("ada")
	ada.press("Log out", "Log in")
	thief.put(ada.passkey())
	thief.logIn("Hello, ada") // nobody can tell: it counts on from where the other one is
	ada.logIn("There may be a copy of this passkey")
	s.WaitLog("passkey locked")
	if got := s.row(t, `SELECT count(*) FROM schema_system.session WHERE sess::text LIKE '%"passkey":%'`); got != 0 {
		t.Errorf("sessions that the passkey has let in: got %d, want none", got)
	}
	thief.wantLoggedOut()
	ahead := 1000.0
	ada.set(webauthn.SetCredentialPropertiesParams{SignCount: &ahead})
	ada.logIn("This passkey was not accepted")
	thief.logIn("This passkey was not accepted")
	if got := s.row(t, "SELECT count(*) FROM passkey_example.passkeys WHERE locked_at IS NOT NULL"); got != 1 {
		t.Errorf("locked passkeys: got %d, want 1", got)
	}
}

// Of a copy that is found out by a step-up the session ends that it is asked in.
func TestChromiumCopiedPasskeyAtStepUp(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ada := newDevice(t, s)
	ada.signUp("ada")
	first := ada.passkey()
	ada.newKey()
	ada.visit("/devices")
	ada.fill("label", "Security key")
	ada.press("Add a passkey", "The passkey is added.")
	second := ada.passkey()
	phone := newDevice(t, s)
	phone.put(second)
	phone.logIn("Hello, ada")

	s.execute(t, "UPDATE passkey_example.passkeys SET sign_count = 1000 WHERE label <> 'Security key'")
	ada.newKey()
	ada.put(first)
	ada.visit("/confirm")
	ada.press("Use my passkey", "There may be a copy of this passkey")
	ada.wantLoggedOut()
	phone.visit("/devices") // it came in with the other one
	phone.see("Locked: there may be a copy of it")
	phone.press("Remove the passkey Chrome on Linux", "The passkey is removed.")
}

// Whether a passkey is synced is kept as of its last use; that it can be never changes.
func TestChromiumBackupFlags(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ada := newDevice(t, s, syncable)
	ada.signUp("ada")
	synced := func() bool {
		ada.visit("/devices")
		return strings.Contains(eval[string](ada, `document.querySelector("#passkeys").innerText`), "Synced")
	}
	if synced() {
		t.Error("the passkey is shown as synced before it is")
	}
	yes, no := true, false
	ada.set(webauthn.SetCredentialPropertiesParams{BackupState: &yes})
	ada.press("Log out", "Log in")
	ada.logIn("Hello, ada")
	if !synced() {
		t.Error("the passkey is not shown as synced after it was")
	}
	ada.press("Log out", "Log in")
	ada.set(webauthn.SetCredentialPropertiesParams{BackupEligibility: &no, BackupState: &no})
	ada.logIn("This passkey was not accepted")
	ada.wantLoggedOut()
}

// Whoever wanted the same name at the same time gets another.
func TestChromiumNameTakenMeanwhile(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ada := newDevice(t, s)
	ada.visit("/signup")
	options := eval[string](ada, `fetch("/signup/begin", {method: "POST", headers: {"Content-Type": "application/json"}, body: '{"name": "Ada"}'}).then(r => r.text())`)
	created := ada.create(options)
	s.execute(t, "INSERT INTO passkey_example.users (handle, name) VALUES ('another', 'ada')")
	ada.wantStatus("a name that is taken by now", "/signup/finish", created, 422)
	ada.wantLoggedOut()
	ada.visit("/signup")
	ada.fill("name", "ada")
	ada.press("Create account", "This user name is taken")
	ada.fill("name", "no name")
	ada.press("Create account", "Please choose a user name")
	if got := s.row(t, "SELECT count(*) FROM passkey_example.passkeys"); got != 0 {
		t.Errorf("passkeys: got %d, want none", got)
	}
}

// What other sites can make a browser send is refused before anything is done: the
// origin is known, or the body is no JSON.
func TestOtherSites(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	paths := []string{
		"/signup/begin", "/signup/finish", "/login/begin", "/login/finish",
		"/confirm/begin", "/confirm/finish", "/passkeys/begin", "/passkeys/finish",
	}
	for _, path := range paths {
		v := newVisitor(t, s)
		for _, tt := range []struct {
			name    string
			headers []string
			want    int
		}{
			{"another site", []string{"Sec-Fetch-Site", "cross-site"}, 403},
			{"another origin", []string{"Sec-Fetch-Site", "same-site"}, 403},
			{"another origin, an old browser", []string{"Origin", "https://evil.example"}, 403},
			{"a form", []string{"Content-Type", "text/plain"}, 415},
			{"no type", []string{"Content-Type", ""}, 415},
		} {
			if code, _ := v.send(path, `{"name": "ada"}`, tt.headers...); code != tt.want || v.Cookie() != "" {
				t.Errorf("%s, %s: got %d, want %d and no session", path, tt.name, code, tt.want)
			}
		}
	}
	for _, path := range []string{"/logout", "/email", "/devices/revoke", "/devices/revoke-others", "/passkeys/remove"} {
		v := newVisitor(t, s)
		if code, _ := v.send(path, "", "Sec-Fetch-Site", "cross-site", "Content-Type", "application/x-www-form-urlencoded"); code != 403 {
			t.Errorf("%s, another site: got %d, want 403", path, code)
		}
	}
	if code, _ := newVisitor(t, s).send("/login/begin", "{}", "Sec-Fetch-Site", "same-origin"); code != 200 {
		t.Errorf("our own page: got %d, want 200", code)
	}
}
