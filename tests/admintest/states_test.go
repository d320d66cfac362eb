package admintest_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// searchFor is the address of a search.
func (s *site) searchFor(key, value string) string {
	return s.bare + "/search?" + url.Values{"key": {key}, "value": {value}}.Encode()
}

// lacks looks for texts that the page must not show.
func (b *browser) lacks(texts ...string) {
	b.t.Helper()
	page := b.text("body")
	for _, text := range texts {
		if strings.Contains(page, text) {
			b.t.Errorf("the page shows %q", text)
		}
	}
}

func TestEmpty(t *testing.T) {
	s := newSite(t)
	b := newBrowser(t)
	b.inspect("empty", s.bare+"/", 200)
	b.wantText("There is no live session.", "0 records", "none yet", "not known: these pages count since", "no updates counted", "None noted yet")
	b.lacks("0 of 0", "has expired", "have expired", "For each record")
	b.inspect("find", s.bare+"/search", 200)
	b.wantText("Find sessions", "Search by", "Value", "By a key", "By handle")
	if n := eval[int](b, "document.querySelectorAll('form').length"); n != 1 {
		t.Errorf("the page that is the form has %d, want one", n)
	}
	b.search("nobody")
	b.wantText("No live session", "userId is nobody")
	b.inspect("blank", s.searchFor("", "  "), 200)
	b.wantText("there was nothing", "By handle")
	b.inspect("no handle", s.searchFor("", "sess:42"), 200)
	b.wantText("handles have 32 digits from 0 to f")
	b.inspect("handle gone", s.searchFor("", strings.Repeat("0", 32)), 200)
	b.wantText("it has ended, or it has another one")
	b.inspect("no such page", s.bare+"/none", 404, 360)
	b.inspect("no such key", s.searchFor("nope", "1"), 400, 360)
	b.inspect("not like this", s.bare+"/revoke", 405, 360)
}

func TestOne(t *testing.T) {
	s := newSite(t)
	s.login("ada")
	b := newBrowser(t)
	b.inspect("one", s.bare+"/", 200)
	b.wantText("1 record", "The one live session expires later than in an hour.", "by this process; 0 ended, 0 expired records and marks pruned")
	b.lacks("1 records", "0 of 0")
	b.inspect("one found", s.searchFor("userId", "ada"), 200)
	b.wantText("1 session", "Client holds", "a cookie")
	res, err := http.PostForm(s.bare+"/revoke", url.Values{"key": {"userId"}, "value": {"ada"}, "handle": {strings.Repeat("0", 32)}})
	must(t, err)
	must(t, res.Body.Close())
	b.inspect("ended", res.Request.URL.String(), 200)
	b.wantText("there was nothing left to end")
}

// What the client holds decides what somebody has to do who lost it.
func TestTokensAndDevices(t *testing.T) {
	s := newSite(t)
	res, err := http.Get(s.url + "/login/ada?token")
	must(t, err)
	must(t, res.Body.Close())
	s.login("ada")
	s.exec(`INSERT INTO schema_system.session VALUES ('bound', '{"cookie":{"originalMaxAge":86400000},"userId":"ada","__bound":{"id":"x","key":"{}","at":1,"confirmed":1}}', now() + interval '1 h'),
		('sealed', '{"cookie":{"originalMaxAge":86400000},"userId":"ada","__sealed":"AAAA"}', now() + interval '30 min')`)
	b := newBrowser(t)
	b.inspect("tokens", s.searchFor("userId", "ada"), 200)
	b.wantText("a token", "a cookie", "a cookie, bound to its device", "unknown")
}

func TestMany(t *testing.T) {
	s := newSite(t)
	s.fill(4200)
	s.use()
	s.exec(`INSERT INTO schema_system.session SELECT 'many' || n, '{"cookie":{},"userId":9}', now() + interval '1 h' FROM generate_series(1, 1100) n`)
	at, stats := busyDay(time.Now())
	last := &stats[len(stats)-1]
	for i := range stats {
		stats[i].Creates *= 9999
		stats[i].StoreErrors = stats[i].Loads / 100
		stats[i].Refused = stats[i].Loads / 300
	}
	last.Pruned += 5
	remember(t, s.admin, at, stats)
	b := newBrowser(t)
	for _, span := range []string{"1h", "6h", "24h"} {
		b.inspect("many "+span, s.bare+"/?span="+span, 200)
		// The tile says what the picture's words say.
		said := eval[[]string](b, `[...document.querySelector(".tiles").textContent.matchAll(/; ([\d,]+) ended, ([\d,]+) expired records and marks pruned/g)].flatMap(m => [m[1], m[2]])`)
		if len(said) != 2 {
			t.Fatalf("%s: the tile says %q, want two numbers", span, said)
		}
		b.wantText("ended " + said[0] + ", and pruned " + said[1] + " expired records and marks of renewed IDs.")
	}
	b.inspect("five", s.searchFor("userId", "1077"), 200)
	b.inspect("1000", s.searchFor("userId", "9"), 200, 360)
	b.wantText("1,000 sessions or more", "the 1,000 that expire last")
}

// A program that has run for a part of the hour: what is not known is said beside
// the picture, not across it.
func TestBegunLately(t *testing.T) {
	s := newSite(t)
	b := newBrowser(t)
	at, stats := busyDay(time.Now())
	for _, minutes := range []int{2, 20, 34, 55} {
		remember(t, s.admin, at[len(at)-minutes:], stats[len(at)-minutes:])
		b.inspect("begun lately", s.bare+"/", 200, 360)
		b.wantText("not known: these pages count since " + at[len(at)-minutes].UTC().Format("15:04"))
	}
}

// Values as somebody may have typed them: all that is in them shows.
func TestValues(t *testing.T) {
	s := newSite(t)
	b := newBrowser(t)
	for _, c := range []struct{ name, value, shown string }{
		{"spaces", " ada  ", "␣ada␣␣"},
		{"double space", "ada  lovelace", "ada  lovelace"},
		{"controls", "a\x1b[31mb\nc\td\u200be\u00a0f", "aU+001B[31mbU+000AcU+0009dU+200BeU+00A0f"},
		{"right to left", "שלום \u202e abc 12", "שלום U+202E abc 12"},
		{"only marks", "\u202e\u2067", "U+202EU+2067"},
		{"one word", strings.Repeat("W", 200), strings.Repeat("W", 200)},
		{"address", "https://example.com/" + strings.Repeat("a/b-c_d.", 20), "https://example.com/a/b-c_d."},
		{"markup", "<b>&amp;</b>\"'", "<b>&amp;</b>\"'"},
	} {
		s.exec(`INSERT INTO schema_system.session VALUES ($1, json_build_object('cookie', json_build_object('originalMaxAge', 3600000), 'userId', $2::text), now() + interval '1 h')`, c.name, c.value)
		b.inspect(c.name, s.searchFor("userId", c.value), 200, 360)
		b.wantText("1 session", "userId is")
		if got := b.text("main code.value"); !strings.HasPrefix(got, c.shown) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.shown)
		}
		// Ending them goes by the value as it is, not as a field would have it.
		b.do(chromedp.Click(chromedp.Search(endAll)), chromedp.WaitVisible(chromedp.Search(confirm)))
		b.press(confirm)
		b.wantText("1 session was ended.", "No live session")
	}
	s.login("bob")
	b.inspect("pasted", s.searchFor("userId", " bob "), 200, 360)
	b.wantText("1 session", "The spaces around what was typed were left out")
	b.inspect("60 KB", s.searchFor("userId", strings.Repeat("x", 60<<10)), 400, 360)
	b.wantText("The value has 61,440 bytes", "200 bytes at most")
	b.inspect("60 KB handle", s.searchFor("", strings.Repeat("x", 60<<10)), 200, 360)
	b.wantText("61,440 bytes")
	b.inspect("NUL", s.searchFor("userId", "a\x00b"), 400, 360)
	b.wantText("NUL")
	b.lacks("encrypted")
}

// Names as long as PostgreSQL has them, and a table with a key of that kind.
func TestLongNames(t *testing.T) {
	pool := pgtest.Pool(t)
	s := newSiteOn(t, pool, session.PostgresOptions{Schema: strings.Repeat("s", 63), Table: strings.Repeat("W", 63)}, strings.Repeat("K", 120), "userId")
	b := newBrowser(t)
	b.inspect("long names", s.bare+"/", 200)
	b.inspect("long names found", s.searchFor(strings.Repeat("K", 120), strings.Repeat("x", 100)), 200)
	b.inspect("long names find", s.bare+"/search", 200)
}

// A server that counts nothing: zeros would be untrue.
func TestStatisticsOff(t *testing.T) {
	pool := pgtest.Pool(t, func(cfg *pgxpool.Config) { cfg.ConnConfig.RuntimeParams["track_counts"] = "off" })
	s := newSiteOn(t, pool, session.PostgresOptions{}, "userId")
	s.login("ada")
	b := newBrowser(t)
	b.inspect("statistics off", s.bare+"/", 200)
	b.wantText("track_counts is off", "Table")
	if table := b.text("main dl"); strings.Contains(table, "Dead rows") || strings.Contains(table, "never") {
		t.Errorf("the table's card tells what nobody counts: %q", table)
	}
}

func TestOutage(t *testing.T) {
	server := pgtest.Own(t, pgtest.Options{})
	pool, err := pgxpool.New(t.Context(), server.URL())
	must(t, err)
	t.Cleanup(pool.Close)
	s := newSiteOn(t, pool, session.PostgresOptions{}, "userId")
	s.login("ada")
	b := newBrowser(t)
	b.visit(s.searchFor("userId", "ada"))
	must(t, server.Stop(context.WithoutCancel(t.Context()), "immediate"))
	if code := b.press(endOne); code != http.StatusServiceUnavailable {
		t.Errorf("ending one: got %d, want 503", code)
	}
	b.wantText("Look again", "Overview")
	b.inspect("outage", s.bare+"/", 503)
	b.wantText("The database does not answer", "Store errors", "Counts")
	b.lacks("Live sessions", "On disk")
	b.inspect("outage search", s.searchFor("userId", "ada"), 503)
	b.wantText("could not be listed", "Look again")
	must(t, server.Start(t.Context()))
	if code := b.press(`//a[normalize-space()="Look again"]`); code != 200 {
		t.Errorf("looking again: got %d, want 200", code)
	}
	b.wantText("1 session")
}
