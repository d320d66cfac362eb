package main_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"
	"github.com/pgsession/session/internal/exampletest"
)

// deadline bounds what a browser does in one test, on a busy machine.
const deadline = 5 * exampletest.Deadline

// profile is a real browser: a Chromium with a user data directory, and one tab.
type profile struct {
	t    *testing.T
	ctx  context.Context
	quit func()
	dir  string
	url  string // of the program
	pin  string // of the one certificate that is trusted; "": all are
}

// newProfile starts a browser without cookies. preferences are its settings, as
// the file of that name has them; "" for the defaults.
func newProfile(t *testing.T, p *exampletest.Program, preferences string) *profile {
	t.Helper()
	b := &profile{t: t, dir: t.TempDir(), url: strings.Replace(p.URL, "127.0.0.1", "localhost", 1)}
	if preferences != "" {
		must(t, os.Mkdir(filepath.Join(b.dir, "Default"), 0o700))
		must(t, os.WriteFile(filepath.Join(b.dir, "Default", "Preferences"), []byte(preferences), 0o600))
	}
	b.open()
	return b
}

// chromium is the program's path. A test that cannot run fails.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("no browser found: install chromium (Debian, Ubuntu: sudo apt-get install chromium)")
	return ""
}

// open starts the browser; quit ends it, as a user does who closes the window.
func (b *profile) open() {
	b.t.Helper()
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(chromium(b.t)), chromedp.UserDataDir(b.dir), chromedp.WSURLReadTimeout(deadline),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
	}
	if b.pin == "" {
		options = append(options, chromedp.IgnoreCertErrors)
	} else { // browsers bind sessions only where they trust the certificate
		options = append(options, chromedp.Flag("ignore-certificate-errors-spki-list", b.pin),
			chromedp.Flag("enable-features", "DeviceBoundSessions,EnableBoundSessionCredentialsSoftwareKeysForManualTesting"))
	}
	for _, name := range []string{
		"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage", "no-default-browser-check",
	} {
		options = append(options, chromedp.Flag(name, true))
	}
	options = append(options, chromedp.Flag("password-store", "basic"), chromedp.Flag("lang", "en"))

	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	ctx, cancelAllocator := chromedp.NewExecAllocator(ctx, options...)
	ctx, _ = chromedp.NewContext(ctx)
	closed := false
	b.ctx, b.quit = ctx, func() {
		if closed {
			return
		}
		closed = true
		if err := chromedp.Cancel(ctx); err != nil {
			b.t.Errorf("close the browser: %v", err)
		}
		cancelAllocator()
		cancel()
	}
	b.t.Cleanup(func() { b.quit() })
	b.do(chromedp.Navigate("about:blank"))
}

type step = chromedp.Action[chromedp.Void]

func (b *profile) do(steps ...step) {
	b.t.Helper()
	must(b.t, chromedp.Do(b.ctx, steps...))
}

// call is a command of the DevTools protocol.
func call[P, R any](b *profile, cmd cdp.Command[P, R], params P) R {
	b.t.Helper()
	r, err := chromedp.Call(b.ctx, cmd, params)
	must(b.t, err)
	return r
}

// eval runs a script in the page; the page's policy does not bind it.
func eval[T any](b *profile, script string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](script))
	must(b.t, err)
	return v
}

// leads takes steps that lead to another page, waits for that and gives its status, 0
// for one that the browser had fetched ahead.
func (b *profile) leads(steps ...step) int {
	b.t.Helper()
	res, err := chromedp.RunResponse(b.ctx, steps...)
	must(b.t, err)
	if res == nil {
		return 0
	}
	return int(res.Status)
}

// visit opens a page of the program, or one elsewhere.
func (b *profile) visit(address string) int {
	b.t.Helper()
	if strings.HasPrefix(address, "/") {
		address = b.url + address
	}
	res, err := chromedp.Run(b.ctx, chromedp.NavigateResponse(address))
	must(b.t, err)
	return int(res.Status)
}

// press presses a button, or follows a link.
func (b *profile) press(label string) int {
	b.t.Helper()
	return b.leads(chromedp.Click(chromedp.Search(`//*[self::button or self::a][normalize-space()="` + label + `"]`)))
}

// back presses the browser's back button and waits for the page, which comes out
// of memory, with no load event, or from the server.
func (b *profile) back() {
	b.t.Helper()
	_, err := chromedp.Run(b.ctx, chromedp.WaitEvent(page.FrameNavigated, nil, chromedp.Evaluate[chromedp.Void]("history.back()")))
	must(b.t, err)
	const loaded = `new Promise(done => document.readyState == "complete" ? done(true) : addEventListener("load", () => done(true)))`
	_, err = chromedp.Run(b.ctx, chromedp.Evaluate[bool](loaded, chromedp.EvalAwaitPromise))
	must(b.t, err)
}

// fill types into the fields of the page: names and values.
func (b *profile) fill(fields ...string) {
	b.t.Helper()
	for i := 0; i < len(fields); i += 2 {
		field := chromedp.CSS(`input[name="` + fields[i] + `"]:not([hidden])`)
		b.do(chromedp.Clear(field), chromedp.SendKeys(field, fields[i+1]))
	}
}

func (b *profile) signUp(name string) {
	b.t.Helper()
	b.visit("/signup")
	b.fill("name", name, "password", password)
	b.press("Create account")
	b.wantText("Hello, " + name)
}

// logIn logs in, and gives the answer's status.
func (b *profile) logIn(name string, remember bool) int {
	b.t.Helper()
	b.visit("/login")
	b.fill("name", name, "password", password)
	if remember {
		b.do(chromedp.Click(chromedp.CSS("label[for=remember]")))
	}
	return b.press("Log in")
}

// text is what a user can read.
func (b *profile) text() string {
	b.t.Helper()
	return eval[string](b, "document.body.innerText")
}

func (b *profile) wantText(want string) {
	b.t.Helper()
	if got := b.text(); !strings.Contains(got, want) {
		b.t.Errorf("got the page %q, want %q in it", got, want)
	}
}

func (b *profile) wantPath(want string) {
	b.t.Helper()
	if got := eval[string](b, "location.pathname"); got != want {
		b.t.Errorf("got the page %s, want %s", got, want)
	}
}

// cookie is the session's, nil if there is none.
func (b *profile) cookie() *network.Cookie {
	b.t.Helper()
	for _, c := range call(b, storage.GetCookies, storage.GetCookiesParams{}).Cookies {
		if c.Name == "session" {
			return c
		}
	}
	return nil
}

// secure starts the program with a certificate that it has signed itself.
func secure(t *testing.T, more ...string) *exampletest.Program {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	keyBytes, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	must(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyBytes}), 0o600))

	p := exampletest.Command(t, append(more, "TLS_CERT="+certFile, "TLS_KEY="+keyFile)...)
	p.Begin()
	p.WaitLog("msg=listening")
	p.URL = regexp.MustCompile(`https://localhost:\d+`).FindString(p.Log())
	return p
}
