package admintest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/chromedp"
)

const (
	find    = `//form[@role="search"]//button`
	endOne  = `(//td//button[normalize-space()="End"])[1]`
	endAll  = `//summary[normalize-space()="End all…"]`
	confirm = `//details//form//button`
)

// search types a value into the form at the top and sends it.
func (b *browser) search(value string) {
	b.t.Helper()
	b.do(chromedp.Clear(chromedp.CSS("#value")), chromedp.SendKeys(chromedp.CSS("#value"), value))
	if code := b.press(find); code != 200 {
		b.t.Fatalf("the search: got %d, want 200", code)
	}
}

// wantText looks for texts in what the page shows.
func (b *browser) wantText(texts ...string) {
	b.t.Helper()
	page := b.text("body")
	for _, text := range texts {
		if !strings.Contains(page, text) {
			b.t.Errorf("the page does not show %q", text)
		}
	}
}

// An operator ends one session of a user, then all of them, with the mouse.
func TestRevoking(t *testing.T) {
	s := newSite(t)
	var users []func() string
	for range 3 {
		users = append(users, s.login("lovelace"))
	}
	bob := s.login("bob")
	who := func() (who []string) {
		for _, u := range users {
			if name := u(); name != "" {
				who = append(who, name)
			}
		}
		return who
	}
	b := newBrowser(t)
	b.visit(s.url + "/login/admin")
	b.visit(s.url + "/admin/sessions/")
	b.search("lovelace")
	b.wantText("3 sessions", "userId is lovelace")
	if code := b.press(endOne); code != 200 {
		t.Errorf("ending one: got %d, want the list again", code)
	}
	b.wantText("1 session was ended.", "2 sessions")
	if got := who(); len(got) != 2 {
		t.Errorf("logged in after one was ended: got %d, want 2", len(got))
	}
	b.do(chromedp.Click(chromedp.Search(endAll)), chromedp.WaitVisible(chromedp.Search(confirm)))
	b.wantText("This ends all 2 sessions below", "End 2 sessions")
	if got := who(); len(got) != 2 {
		t.Errorf("logged in before it was confirmed: got %d, want 2", len(got))
	}
	b.press(confirm)
	b.wantText("2 sessions were ended.", "No live session")
	if got := who(); len(got) != 0 {
		t.Errorf("logged in after all were ended: got %d, want none", len(got))
	}
	if bob() != "bob" {
		t.Error("another user was logged out")
	}
	if log := s.log.String(); strings.Count(log, "sessionadmin: sessions ended") != 2 || strings.Contains(log, "lovelace") {
		t.Error("the log has not the two endings, or has the value")
	}
}

// Over plain HTTP a browser says no more of where a form comes from than its
// Origin, and with the wrong Referrer-Policy not even that.
func TestRevokingOverPlainHTTP(t *testing.T) {
	s := newSite(t)
	ada := s.login("ada")
	b := newBrowser(t, chromedp.Flag("host-resolver-rules", "MAP plain.test 127.0.0.1"))
	plain := strings.Replace(s.url, "localhost", "plain.test", 1)
	b.visit(plain + "/login/admin")
	b.visit(plain + "/admin/sessions/search?key=userId&value=ada")
	if code := b.press(endOne); code != 200 {
		t.Errorf("got %d, want the list again", code)
	}
	b.wantText("1 session was ended.")
	if ada() != "" {
		t.Error("the session was not ended")
	}
}

// A page on another port is of the same site: it gets the administrator's cookie
// sent, and nothing done.
func TestRevokingFromAnotherOrigin(t *testing.T) {
	s := newSite(t)
	ada := s.login("ada")
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `<!DOCTYPE html><form action="%s/admin/sessions/revoke" method="post"><input name="key" value="userId"><input name="value" value="ada"><button>Win</button></form>`, s.url)
	}))
	defer other.Close()
	b := newBrowser(t)
	b.visit(s.url + "/login/admin")
	b.visit(strings.Replace(other.URL, "127.0.0.1", "localhost", 1))
	if code := b.press(`//button`); code != http.StatusForbidden {
		t.Errorf("got %d, want 403", code)
	}
	b.wantText("Not from here", "nothing was done")
	if ada() != "ada" {
		t.Error("the session was ended")
	}
}

// Who is no administrator gets nothing of it, by any address.
func TestNotForOthers(t *testing.T) {
	s := newSite(t)
	b := newBrowser(t)
	b.visit(s.url + "/login/bob")
	for _, path := range []string{"", "search?key=userId&value=bob", "style.css", "revoke"} {
		if code := b.visit(s.url + "/admin/sessions/" + path); code != http.StatusForbidden {
			t.Errorf("%q: got %d, want 403", path, code)
		}
	}
}

// pages are all there are, for tests that look at each.
func pages(s *site) []string {
	var all []string
	for _, path := range []string{
		"", "?span=6h", "?span=24h", "search", "search?key=userId&value=1077", "search?key=userId&value=none", "search?key=userId&value=1077&ended=2", "search?key=nope&value=1", "none",
		"search?key=userId&value=" + url.QueryEscape(`"><script>window.ran = 1</script>`), "search?key=" + url.QueryEscape(nasty) + "&value=1",
	} {
		all = append(all, s.url+"/admin/sessions/"+path)
	}
	return all
}

// nasty is a key that would run if it were not escaped.
const nasty = `<img src=x onerror="window.ran = 1">`

// The policy breaks nothing of ours, and keeps out whatever somebody got into a
// page; no page shows an ID or data.
func TestPolicy(t *testing.T) {
	s := newSite(t, nasty)
	s.fill(500)
	var ids []string
	rows, err := s.pool.Query(t.Context(), "SELECT sid FROM schema_system.session")
	must(t, err)
	for rows.Next() {
		var id string
		must(t, rows.Scan(&id))
		ids = append(ids, id)
	}
	must(t, rows.Err())
	if len(ids) < 500 {
		t.Fatalf("got %d sessions, want 500", len(ids))
	}
	b := newBrowser(t)
	b.visit(s.url + "/login/admin")
	complaints := chromedp.Events(b.ctx, log.EntryAdded)
	call(b, log.Enable, cdp.Empty{})
	for _, address := range pages(s) {
		b.visit(address)
		source := eval[string](b, "document.documentElement.outerHTML")
		for _, id := range ids {
			if strings.Contains(source, id) {
				t.Fatalf("%s shows a session ID", address[len(s.url):])
			}
		}
		if strings.Contains(source, "confidential") || strings.Contains(s.log.String(), "confidential") {
			t.Errorf("%s, or the log, shows stored data", address[len(s.url):])
		}
		if eval[bool](b, "!!window.ran") {
			t.Errorf("%s ran what somebody typed", address[len(s.url):])
		}
		if n := eval[int](b, "performance.getEntriesByType('resource').filter(e => !e.name.startsWith(location.origin)).length"); n != 0 {
			t.Errorf("%s asked %d other servers", address[len(s.url):], n)
		}
	}
	ran := eval[bool](b, `(() => {
		const s = document.createElement("script");
		s.textContent = "window.ran = true";
		document.body.append(s);
		return !!window.ran })()`)
	if ran {
		t.Error("a script that got into a page ran")
	}
	for e, err := range complaints { // the first one about the policy: none before the script's
		must(t, err)
		if strings.Contains(e.Entry.Text, "status of 4") {
			continue // the pages that are not there
		}
		if !strings.Contains(e.Entry.Text, "inline script") {
			t.Errorf("got the complaint %q, want only the one about the script", e.Entry.Text)
		}
		break
	}
}

// On a telephone nothing is wider than it, in light or dark; every picture and
// every field has a name for those who do not see it.
func TestPhoneAndNames(t *testing.T) {
	s := newSite(t, nasty)
	s.fill(1500)
	b := newBrowser(t)
	b.visit(s.url + "/login/admin")
	for i, address := range pages(s) {
		b.look([]string{"light", "dark"}[i%2], 400, 800, 1)
		b.visit(address)
		path := address[len(s.url):]
		if width := eval[int](b, "document.documentElement.scrollWidth"); width > 400 {
			t.Errorf("%s is %d pixels wide, want 400", path, width)
		}
		nameless := eval[[]string](b, `[...document.querySelectorAll('svg:not([aria-hidden]), input:not([type=hidden]), select')].filter(e =>
			!(e.getAttribute('aria-labelledby') || '').split(' ').some(id => document.getElementById(id)?.textContent.trim()) && !e.labels?.length).map(e => e.outerHTML.slice(0, 60))`)
		if len(nameless) > 0 {
			t.Errorf("%s has pictures or fields without a name: %q", path, nameless)
		}
		if twice := eval[int](b, `(ids => ids.length - new Set(ids).size)([...document.querySelectorAll('[id]')].map(e => e.id))`); twice != 0 {
			t.Errorf("%s has %d IDs twice", path, twice)
		}
		back := eval[string](b, "getComputedStyle(document.body).backgroundColor")
		if want := []string{"rgb(243, 245, 249)", "rgb(16, 20, 28)"}[i%2]; back != want {
			t.Errorf("%s has the background %s, want %s", path, back, want)
		}
	}
}
