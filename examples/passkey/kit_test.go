package main_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/jackc/pgx/v5"
	"github.com/pgsession/session/internal/exampletest"
	"github.com/pgsession/session/internal/pgtest"
)

func TestMain(m *testing.M) { exampletest.Main(closing{m}) }

// closing ends the browser when the tests have run.
type closing struct{ m *testing.M }

func (c closing) Run() int {
	code := c.m.Run()
	chromium.close()
	return code
}

var must = exampletest.Must

// deadline bounds what a browser does in one test, on a busy machine.
const deadline = 5 * exampletest.Deadline

// chromium is one program for all tests; every device is a browser context of its own,
// with its own cookies and authenticators.
var chromium browser

type browser struct {
	once   sync.Once
	ctx    context.Context
	err    error
	cancel context.CancelFunc
	dir    string
}

func (b *browser) start(t *testing.T) context.Context {
	t.Helper()
	b.once.Do(func() {
		path := ""
		for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
			if path, b.err = exec.LookPath(name); b.err == nil {
				break
			}
		}
		if b.err != nil {
			return
		}
		if b.dir, b.err = os.MkdirTemp("", "passkey-chromium-"); b.err != nil {
			return
		}
		options := []chromedp.ExecAllocatorOption{
			chromedp.ExecPath(path), chromedp.UserDataDir(filepath.Join(b.dir, "profile")), chromedp.WSURLReadTimeout(exampletest.Deadline),
			chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.Flag("lang", "en"),
		}
		for _, name := range []string{"disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage", "no-default-browser-check"} {
			options = append(options, chromedp.Flag(name, true))
		}
		ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
		b.ctx, _ = chromedp.NewContext(ctx)
		b.cancel = func() { _ = chromedp.Cancel(b.ctx); cancel() }
		b.err = chromedp.Do(b.ctx)
	})
	if b.err != nil {
		t.Fatalf("no browser, install chromium (Debian, Ubuntu: sudo apt-get install chromium): %v", b.err)
	}
	return b.ctx
}

func (b *browser) close() {
	if b.cancel != nil {
		b.cancel()
	}
	if b.dir != "" {
		_ = os.RemoveAll(b.dir)
	}
}

// site is the program, as a browser reaches it, and its database.
type site struct {
	*exampletest.Program
	dsn, origin string
}

func newSite(t *testing.T) *site {
	t.Helper()
	dsn := pgtest.URL(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn)
	return &site{p, dsn, strings.Replace(p.URL, "127.0.0.1", "localhost", 1)}
}

// execute changes rows, one at least.
func (s *site) execute(t *testing.T, sql string, args ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.dsn)
	must(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	tag, err := conn.Exec(t.Context(), sql, args...)
	must(t, err)
	if tag.RowsAffected() == 0 {
		t.Error("the statement has changed no row")
	}
}

// begin begins a transaction with a statement; one that is not committed is rolled back.
func (s *site) begin(t *testing.T, sql string) pgx.Tx {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.dsn)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	tx, err := conn.Begin(t.Context())
	must(t, err)
	_, err = tx.Exec(t.Context(), sql)
	must(t, err)
	return tx
}

// waiting waits until the program waits for a lock.
func (s *site) waiting(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(exampletest.Deadline); time.Now().Before(end); {
		if s.row(t, "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database()") > 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the program waits for no lock")
}

// row is the one number that a query gives.
func (s *site) row(t *testing.T, sql string) (n int64) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.dsn)
	must(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	must(t, conn.QueryRow(t.Context(), sql).Scan(&n))
	return n
}

// device is a real browser with a virtual authenticator.
type device struct {
	t    *testing.T
	site *site
	ctx  context.Context
	key  webauthn.AuthenticatorID
}

// withAuthenticator is what a new device's authenticator is like.
type withAuthenticator func(*webauthn.VirtualAuthenticatorOptions)

// syncable makes passkeys that can be synced.
func syncable(o *webauthn.VirtualAuthenticatorOptions) { o.DefaultBackupEligibility = true }

func newDevice(t *testing.T, s *site, with ...withAuthenticator) *device {
	t.Helper()
	ctx, cancel := context.WithTimeout(chromium.start(t), deadline)
	t.Cleanup(cancel)
	ctx, _ = chromedp.NewContext(ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(func() { must(t, chromedp.Cancel(ctx)) })
	d := &device{t: t, site: s, ctx: ctx}
	call(d, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	call(d, webauthn.Enable, webauthn.EnableParams{})
	d.newKey(with...)
	return d
}

// newKey puts a new authenticator in the place of the one before.
func (d *device) newKey(with ...withAuthenticator) {
	d.t.Helper()
	if d.key != "" {
		call(d, webauthn.RemoveVirtualAuthenticator, webauthn.RemoveVirtualAuthenticatorParams{AuthenticatorID: d.key})
	}
	o := &webauthn.VirtualAuthenticatorOptions{
		Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal,
		HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
	}
	for _, f := range with {
		f(o)
	}
	d.key = call(d, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: o}).AuthenticatorID
}

// passkey is the one in the authenticator, with its private key.
func (d *device) passkey() *webauthn.Credential {
	d.t.Helper()
	all := call(d, webauthn.GetCredentials, webauthn.GetCredentialsParams{AuthenticatorID: d.key}).Credentials
	if len(all) != 1 {
		d.t.Fatalf("passkeys in the authenticator: got %d, want 1", len(all))
	}
	return all[0]
}

// put puts a passkey of another device into this one's authenticator, as syncing does.
func (d *device) put(c *webauthn.Credential) {
	d.t.Helper()
	// Not by webauthn.Credential, whose members for another extension are sent, too,
	// and refused.
	call(d, cdp.Command[map[string]any, cdp.Empty]{Method: webauthn.CommandAddCredential}, map[string]any{
		"authenticatorId": d.key,
		"credential": map[string]any{
			"credentialId": c.CredentialID, "isResidentCredential": true, "rpId": c.RpID, "privateKey": c.PrivateKey, "userHandle": c.UserHandle,
			"signCount": c.SignCount, "backupEligibility": c.BackupEligibility, "backupState": c.BackupState,
		},
	})
}

// set changes the passkey in the authenticator.
func (d *device) set(p webauthn.SetCredentialPropertiesParams) {
	d.t.Helper()
	p.AuthenticatorID, p.CredentialID = d.key, d.passkey().CredentialID
	call(d, webauthn.SetCredentialProperties, p)
}

// uncounted takes the signature counter away, as where passkeys are synced: nothing but
// the challenge makes one answer different from another then.
func (d *device) uncounted() {
	d.t.Helper()
	never := -1.0
	d.set(webauthn.SetCredentialPropertiesParams{SignCount: &never})
	d.site.execute(d.t, "UPDATE passkey_example.passkeys SET sign_count = 0")
}

// call is a command of the DevTools protocol.
func call[P, R any](d *device, cmd cdp.Command[P, R], params P) R {
	d.t.Helper()
	r, err := chromedp.Call(d.ctx, cmd, params)
	must(d.t, err)
	return r
}

// eval runs a script in the page, and waits for its promise.
func eval[T any](d *device, script string) T {
	d.t.Helper()
	v, err := chromedp.Run(d.ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	must(d.t, err)
	return v
}

// visit opens a page of the program's.
func (d *device) visit(path string) {
	d.t.Helper()
	must(d.t, chromedp.Do(d.ctx, chromedp.Navigate(d.site.origin+path)))
}

// see waits for a text on the page.
func (d *device) see(want string) {
	d.t.Helper()
	d.wait(want, chromedp.WaitVisible(chromedp.Search(`//main[contains(., "`+want+`")]`)))
}

// press presses a button, by its text or its label, and waits for a text.
func (d *device) press(label, want string) {
	d.t.Helper()
	d.wait(label, chromedp.Click(chromedp.Search(`//button[normalize-space()="`+label+`" or @aria-label="`+label+`"]`)))
	d.see(want)
}

// wait takes a step that waits for something on the page.
func (d *device) wait(what string, step chromedp.Action[chromedp.Void]) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.ctx, exampletest.Deadline)
	defer cancel()
	if err := chromedp.Do(ctx, step); err != nil {
		d.t.Fatalf("got the page %q, want %q there: %v", eval[string](d, "document.body.innerText"), what, err)
	}
}

// fill puts a value into a field.
func (d *device) fill(name, value string) {
	d.t.Helper()
	d.wait(name, chromedp.SetValue(chromedp.CSS(`input[name="`+name+`"]`), value))
}

func (d *device) signUp(name string) {
	d.t.Helper()
	d.visit("/signup")
	d.fill("name", name)
	d.press("Create account", "Hello, "+name)
}

func (d *device) logIn(want string) {
	d.t.Helper()
	d.visit("/login")
	d.press("Log in with a passkey", want)
}

func (d *device) wantPath(want string) {
	d.t.Helper()
	if got := eval[string](d, "location.pathname"); got != want {
		d.t.Errorf("got the page %s, want %s", got, want)
	}
}

// wantLoggedOut opens the account, and wants the login in its place.
func (d *device) wantLoggedOut() {
	d.t.Helper()
	d.visit("/account")
	d.wantPath("/login")
}

// cookie is the session's, "" if there is none.
func (d *device) cookie() string {
	d.t.Helper()
	for _, c := range call(d, network.GetCookies, network.GetCookiesParams{URLs: []string{d.site.origin}}).Cookies {
		if c.Name == "session" {
			return c.Value
		}
	}
	return ""
}

// sessionID is in the cookie, which is signed but not secret to a test. (The cookie is
// another one whenever it is sent again, for the time is in it.)
func (d *device) sessionID() string {
	d.t.Helper()
	b, err := base64.URLEncoding.DecodeString(d.cookie())
	must(d.t, err)
	parts := strings.SplitN(string(b), "|", 3)
	if len(parts) != 3 {
		d.t.Fatal("the cookie has another form")
	}
	return parts[1]
}

func (d *device) setCookie(value string) {
	d.t.Helper()
	call(d, network.SetCookie, network.SetCookieParams{Name: "session", Value: value, URL: d.site.origin})
	if d.cookie() != value {
		d.t.Fatal("the cookie is not there")
	}
}

// begin asks for a challenge in this browser's session.
func (d *device) begin(path string) (options string) {
	d.t.Helper()
	return eval[string](d, `fetch("`+path+`", {method: "POST", headers: {"Content-Type": "application/json"}, body: "{}"}).then(r => r.text())`)
}

// sign lets the authenticator answer a challenge.
func (d *device) sign(options string) (assertion string) {
	d.t.Helper()
	return eval[string](d, `navigator.credentials.get({publicKey: PublicKeyCredential.parseRequestOptionsFromJSON((`+options+`).publicKey)}).then(JSON.stringify)`)
}

// create lets the authenticator make a passkey.
func (d *device) create(options string) (created string) {
	d.t.Helper()
	return eval[string](d, `navigator.credentials.create({publicKey: PublicKeyCredential.parseCreationOptionsFromJSON((`+options+`).publicKey)}).then(JSON.stringify)`)
}

// finish brings an answer, and gives the status.
func (d *device) finish(path, assertion string) int {
	d.t.Helper()
	return eval[int](d, `fetch("`+path+`", {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(`+assertion+`)}).then(r => r.status)`)
}

// wantStatus finishes a ceremony and compares the status.
func (d *device) wantStatus(what, path, assertion string, want int) {
	d.t.Helper()
	if got := d.finish(path, assertion); got != want {
		d.t.Errorf("%s: got %d, want %d", what, got, want)
	}
}

// challenged is a client with a session of its own, and the device's answer to its challenge.
func (d *device) challenged() (v *visitor, assertion string) {
	d.t.Helper()
	call(d, network.ClearBrowserCookies, cdp.Empty{})
	d.visit("/login")
	assertion = d.sign(d.begin("/login/begin"))
	v = newVisitor(d.t, d.site)
	v.SetCookie(d.cookie())
	return v, assertion
}

// entered is a client that is logged in with the device's passkey.
func (d *device) entered(agent string) *visitor {
	d.t.Helper()
	v, assertion := d.challenged()
	if code, _ := v.send("/login/finish", assertion, "User-Agent", agent); code != http.StatusOK {
		d.t.Fatalf("login: got %d, want 200", code)
	}
	return v
}

// visitor has cookies, no scripts and no authenticator: what a client can send that is
// no browser.
type visitor struct {
	*exampletest.Browser
	site *site
}

func newVisitor(t *testing.T, s *site) *visitor {
	return &visitor{exampletest.NewBrowser(t, "session"), s}
}

// send posts JSON; headers are names and values. An error does not end the test.
func (v *visitor) send(path, body string, headers ...string) (code int, answer string) {
	req, err := http.NewRequest(http.MethodPost, v.site.URL+path, bytes.NewBufferString(body))
	if err != nil {
		v.T.Error(err)
		return 0, ""
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := v.Client.Do(req)
	if err != nil {
		v.T.Error(err)
		return 0, ""
	}
	defer res.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(res.Body); err != nil {
		v.T.Error(err)
	}
	return res.StatusCode, b.String()
}

// form posts a form, and gives the page that it leads to. An error does not end the test.
func (v *visitor) form(path string, form url.Values) exampletest.Response {
	code, body := v.send(path, form.Encode(), "Content-Type", "application/x-www-form-urlencoded")
	return exampletest.Response{Code: code, Body: body}
}
