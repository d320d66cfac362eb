package main_test

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/pgsession/session/internal/exampletest"
	"github.com/pgsession/session/internal/pgtest"
)

var screenshots = flag.String("screenshots", "", "the directory to write pictures of the pages to")

const (
	maxPictureBytes = 150 << 10
	leastContrast   = 4.5 // WCAG 2.2, 1.4.3
)

// faultsScript lists what keeps people from using a page.
const faultsScript = `(() => {
	const faults = [], seen = e => e.getClientRects().length > 0;
	for (const [what, n] of [["h1", 1], ["main", 1], ["header", 1]])
		if (document.querySelectorAll(what).length != n) faults.push("not one " + what);
	if (!document.documentElement.lang || !document.title) faults.push("no language or title");
	for (const e of document.querySelectorAll("input"))
		if (seen(e) && !e.labels.length) faults.push("no label: " + e.name);
	if (document.documentElement.scrollWidth > innerWidth) faults.push("wider than the window");
	const light = c => { const [r, g, b] = c.match(/[\d.]+/g).map(x => (x /= 255) <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b };
	const back = e => { const c = getComputedStyle(e).backgroundColor; return c.endsWith(", 0)") && e.parentElement ? back(e.parentElement) : c };
	for (const e of document.querySelectorAll("body *")) {
		if (!seen(e) || ![...e.childNodes].some(n => n.nodeType == 3 && n.data.trim())) continue;
		const [a, b] = [light(getComputedStyle(e).color), light(back(e))].sort((x, y) => y - x);
		if ((a + .05) / (b + .05) < %v) faults.push("little contrast: " + e.innerText);
	}
	return faults })()`

// Every page, light and dark, wide and narrow, can be read and used; -screenshots
// also writes the pictures of the README.
func TestChromiumPages(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn)
	b := newProfile(t, p, "")
	call(b, emulation.SetUserAgentOverride, emulation.SetUserAgentOverrideParams{UserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"})
	for _, path := range []string{"/login", "/signup", "/login/done", "/nowhere"} {
		b.check(path)
	}
	b.visit("/login")
	b.fill("name", "ada", "password", "another long password")
	b.press("Log in")
	b.check("")
	b.signUp("ada")
	moreDevices(t, p, dsn)
	for _, path := range []string{"/account", "/devices", "/password", "/delete", "/confirm"} {
		b.check(path)
	}
}

// check looks at a page, "" for the one that is shown.
func (b *profile) check(path string) {
	b.t.Helper()
	if path != "" {
		b.visit(path)
	}
	for _, scheme := range []string{"light", "dark"} {
		call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		for _, width := range []int64{320, 1200} {
			b.do(chromedp.EmulateViewport(width, 800))
			for _, fault := range eval[[]string](b, fmt.Sprintf(faultsScript, leastContrast)) {
				b.t.Errorf("%s, %s, %d wide: %s", path, scheme, width, fault)
			}
		}
		switch path {
		case "/login", "/account", "/devices":
			picture, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
			must(b.t, err)
			if len(picture) > maxPictureBytes || len(picture) == 0 {
				b.t.Errorf("%s, %s: got a picture of %d bytes, want at most %d", path, scheme, len(picture), maxPictureBytes)
			}
			if *screenshots != "" {
				name := strings.TrimPrefix(path, "/") + "-" + scheme + ".png"
				must(b.t, os.WriteFile(filepath.Join(*screenshots, name), picture, 0o644))
			}
		}
	}
}

// moreDevices logs in from others, as if that had been some time ago.
func moreDevices(t *testing.T, p *exampletest.Program, dsn string) {
	t.Helper()
	for _, d := range []struct {
		userAgent, device string
		created, seen     time.Duration
	}{
		{"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1", "Safari on iPhone", 72 * time.Hour, 25 * time.Minute},
		{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0", "Edge on Windows", 8 * 24 * time.Hour, 4 * time.Hour},
	} {
		req, err := http.NewRequestWithContext(t.Context(), "POST", p.URL+"/login", strings.NewReader(form([]string{"name", "ada", "password", password, "remember", "yes"}).Encode()))
		must(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("User-Agent", d.userAgent)
		res, err := http.DefaultTransport.RoundTrip(req)
		must(t, err)
		res.Body.Close()
		execute(t, dsn, fmt.Sprintf(`UPDATE schema_system.session SET expire = expire - interval '%d seconds',
			sess = regexp_replace(sess::text, '"__created":\d+', '"__created":%d')::json WHERE sess->>'device' = '%s'`,
			int(d.seen.Seconds()), time.Now().Add(-d.created).UnixMilli(), d.device))
	}
}
