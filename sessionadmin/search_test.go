package sessionadmin_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"html"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/sessionadmin"
)

// pgtestRole is a pool as a role that has no rights but what grant says of it.
func pgtestRole(t *testing.T, pool *pgxpool.Pool, grant string) *pgxpool.Pool {
	t.Helper()
	role := "admin_" + strings.ToLower(rand.Text())
	exec := func(sql string) {
		t.Helper()
		if _, err := pool.Exec(context.Background(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE ROLE " + role + "; " + fmt.Sprintf(grant, role))
	cfg := pool.Config()
	cfg.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, "SET ROLE "+role)
		return err
	}
	limited, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		limited.Close()
		exec("DROP OWNED BY " + role + "; DROP ROLE " + role)
	})
	return limited
}

func address(key, value string) string {
	return "/search?" + url.Values{"key": {key}, "value": {value}}.Encode()
}

func TestSearch(t *testing.T) {
	r := newRig(t, session.Config{}, sessionadmin.Options{})
	number, _ := r.login(42)
	text, _ := r.login("42")
	other, _ := r.login(43)
	a := r.get(address("userId", " 42 ")) // as it was pasted
	a.want(t, 200, "<h1>2 sessions</h1>", number, text, `value="42"`, "End 2 sessions", "all 2 sessions below")
	if strings.Contains(a.body, other) {
		t.Error("the list has another user's session")
	}
	r.get(address("userId", "43")).want(t, 200, "<h1>1 session</h1>", other, "End 1 session", "the session below")
	r.get(address("userId", "44")).want(t, 200, "No live session")
	r.get(address("", other)).want(t, 200, "<h1>1 session</h1>", other)
	r.get(address("", "44")).want(t, 200, "No live session")
}

// receipt is what an ending's redirect says in its address, which is otherwise want.
func (a answer) receipt(t *testing.T, want string) string {
	t.Helper()
	u, err := url.Parse(a.header.Get("Location"))
	if err != nil || a.code != 303 {
		t.Fatalf("got %d, %v, want 303 to an address", a.code, err)
	}
	form := u.Query()
	receipt := form.Get("ended")
	form.Del("ended")
	if got := u.Path + "?" + form.Encode(); got != want || receipt == "" {
		t.Errorf("got %q with the receipt %q, want %q with one", got, receipt, want)
	}
	return receipt
}

// Only what an ending here has just led to says that sessions were ended, not a link
// that somebody has made.
func TestEndedIsNotBelieved(t *testing.T) {
	r := newRig(t, session.Config{}, sessionadmin.Options{Keys: []string{"userId", "user"}})
	_, live := r.login(43)
	now := time.Now()
	mine := func(key, value string, n int64, at time.Time) string {
		u, err := url.Parse(r.pages.Receipt(key, value, n, at))
		r.must(err)
		return u.Query().Get("ended")
	}
	other := newRig(t, session.Config{}, sessionadmin.Options{})
	strange, err := url.Parse(other.pages.Receipt("userId", "43", 3, now))
	r.must(err)
	whole := mine("userId", "43", 3, now)
	_, mac, _ := strings.Cut(whole, ".")
	for name, receipt := range map[string]string{
		"a number": "3", "none": "0", "markup": "<script>", "empty": "", "dots": "..", "without a MAC": "3." + fmt.Sprint(now.Unix()) + ".",
		"another number": "4." + mac, "a sign": "+" + whole, "cut": whole[:len(whole)-1], "longer": whole + "A",
		"of another value": mine("userId", "42", 3, now), "of another key": mine("user", "43", 3, now), "of other pages": strange.Query().Get("ended"),
		"of two minutes ago": mine("userId", "43", 3, now.Add(-2*time.Minute)),
	} {
		a := r.get(address("userId", "43") + "&ended=" + url.QueryEscape(receipt))
		a.want(t, 200, "<h1>1 session</h1>")
		if strings.Contains(a.body, "ended.") || strings.Contains(a.body, "left to end") {
			t.Errorf("%s: the page says that sessions were ended, and %t, one is live", name, live())
		}
	}
	r.get(address("userId", "43")+"&ended="+whole).want(t, 200, "3 sessions were ended.")
	r.get("/"+r.pages.Receipt("userId", "43", 0, now)).want(t, 200, "there was nothing left to end")
}

// By the last use, not by the expiry: whoever is remembered for a month expires
// last, however long ago that was.
func TestSearchOrder(t *testing.T) {
	r := newRig(t, session.Config{}, sessionadmin.Options{})
	for i, c := range [][2]string{{"2592000000", "20 days"}, {"86400000", "21 h"}} {
		r.exec(`INSERT INTO schema_system.session VALUES ($1, '{"cookie":{"originalMaxAge":`+c[0]+`},"userId":1}', now() + '`+c[1]+`')`, fmt.Sprint("seen", i))
	}
	a := r.get(address("userId", "1"))
	a.want(t, 200, "2 sessions")
	if today, earlier := strings.Index(a.body, ">3 h ago"), strings.Index(a.body, ">10 days ago"); today < 0 || earlier < today {
		t.Errorf("the one seen today is at %d, the other at %d, want it first", today, earlier)
	}
}

func TestRevokeOne(t *testing.T) {
	r := newRig(t, session.Config{}, sessionadmin.Options{})
	first, firstLive := r.login(4217093355182)
	_, secondLive := r.login(4217093355182)
	stranger, strangerLive := r.login(7)

	// The handle of somebody else's session ends nothing.
	a := r.post(url.Values{"key": {"userId"}, "value": {"4217093355182"}, "handle": {stranger}})
	if got := a.receipt(t, "search?key=userId&value=4217093355182"); !strings.HasPrefix(got, "0.") || !strangerLive() {
		t.Errorf("another's handle: got %q, %t, want none ended, true", got, strangerLive())
	}
	a = r.post(url.Values{"key": {"userId"}, "value": {"4217093355182"}, "handle": {first}})
	if got := a.receipt(t, "search?key=userId&value=4217093355182"); !strings.HasPrefix(got, "1.") {
		t.Errorf("got the receipt %q, want that of one", got)
	}
	if firstLive() || !secondLive() || !strangerLive() {
		t.Errorf("live: got %t, %t, %t, want false, true, true", firstLive(), secondLive(), strangerLive())
	}
	log := r.log.String()
	if want := `msg="sessionadmin: sessions ended" key=userId sessions=1 handle=` + first; !strings.Contains(log, want) {
		t.Errorf("the log has no %q", want)
	}
	if strings.Contains(log, "4217093355182") {
		t.Error("the log has the value")
	}

	// By the handle alone, as it stands in a log.
	r.post(url.Values{"key": {""}, "value": {stranger}}).want(t, 303)
	if strangerLive() || !secondLive() {
		t.Errorf("by handle: live got %t and the other %t, want false and true", strangerLive(), secondLive())
	}
}

func TestRevokeAll(t *testing.T) {
	r := newRig(t, session.Config{}, sessionadmin.Options{})
	var lives []func() bool
	for range 3 {
		_, live := r.login(4217093355182)
		lives = append(lives, live)
	}
	_, other := r.login(7)
	a := r.post(url.Values{"key": {"userId"}, "value": {"4217093355182"}})
	if got := a.receipt(t, "search?key=userId&value=4217093355182"); !strings.HasPrefix(got, "3.") {
		t.Errorf("got the receipt %q, want that of three", got)
	}
	for i, live := range lives {
		if live() {
			t.Errorf("session %d is still logged in", i)
		}
	}
	if !other() {
		t.Error("another user was logged out")
	}
	if log := r.log.String(); !strings.Contains(log, `msg="sessionadmin: sessions ended" key=userId sessions=3`) || strings.Contains(log, "4217093355182") {
		t.Error("the log has not the count, or has the value")
	}
}

// halfway is a store that ends what it is asked to, and says that it has failed.
type halfway struct {
	*session.PostgresStore
	err error
}

func (s halfway) DeleteFound(ctx context.Context, q session.Query) (int64, error) {
	n, err := s.PostgresStore.DeleteFound(ctx, q)
	if err == nil && n > 0 {
		err = s.err
	}
	return n, err
}

// What was ended before an error is said, written down, and gone from the overview.
func TestRevokePartly(t *testing.T) {
	for _, c := range []struct {
		name, title string
		err         error
	}{
		{"others were not", "2 sessions were ended, others were not", errors.New("a row is locked")},
		{"of others it is not known", "2 sessions were ended, and it is not known whether others were", session.ErrUncertain},
	} {
		t.Run(c.name, func(t *testing.T) {
			over := func(s *session.PostgresStore) session.Store { return halfway{s, c.err} }
			r := newRigOver(t, pgtest.Pool(t), over, session.Config{}, sessionadmin.Options{})
			r.login(4217093355182)
			r.login(4217093355182)
			r.get("/").want(t, 200, `<p class="big">2</p><p class="quiet">in all processes`)
			r.post(url.Values{"key": {"userId"}, "value": {"4217093355182"}}).want(t, 503, c.title, "The log has the error")
			r.get("/").want(t, 200, `<p class="big">0</p><p class="quiet">in all processes`)
			if want := `msg="sessionadmin: sessions ended" key=userId sessions=2`; !strings.Contains(r.log.String(), want) {
				t.Errorf("the log has no %q", want)
			}
		})
	}
}

// A row that somebody holds: the others are ended within StoreTimeout, which bounds
// an ending by a key whatever Timeout is.
func TestRevokeBesideALockedRow(t *testing.T) {
	r := newRig(t, session.Config{StoreTimeout: 4 * time.Second}, sessionadmin.Options{Timeout: time.Nanosecond})
	_, first := r.login(42)
	r.exec("UPDATE schema_system.session SET expire = expire + interval '1 minute'") // the one to be locked
	_, second := r.login(42)
	tx, err := r.pool.Begin(t.Context())
	r.must(err)
	_, err = tx.Exec(t.Context(), "SELECT FROM schema_system.session ORDER BY expire DESC LIMIT 1 FOR UPDATE")
	r.must(err)
	r.post(url.Values{"key": {"userId"}, "value": {"42"}}).want(t, 503, "1 session was ended, others were not")
	r.must(tx.Rollback(t.Context()))
	if !first() || second() {
		t.Errorf("live: got %t and %t, want true, for it was locked, and false", first(), second())
	}
}

// Nothing that is missing or wrong in a form may end everything.
func TestRevokeRefuses(t *testing.T) {
	r := newRig(t, session.Config{}, sessionadmin.Options{})
	_, live := r.login(42)
	for _, c := range []struct {
		name string
		form url.Values
		code int
	}{
		{"nothing", nil, 400},
		{"no key", url.Values{"value": {"42"}}, 303}, // a handle that there is not
		{"no value", url.Values{"key": {"userId"}}, 303},
		{"an empty handle", url.Values{"key": {""}, "value": {""}}, 400},
		{"blanks for a handle", url.Values{"key": {""}, "value": {"  "}}, 400},
		{"a key that is not offered", url.Values{"key": {"note"}, "value": {"x"}}, 400},
		{"a reserved key", url.Values{"key": {"__created"}, "value": {"1"}}, 400},
		{"a long value", url.Values{"key": {"userId"}, "value": {strings.Repeat("4", 201)}}, 400},
		{"a huge form", url.Values{"key": {"userId"}, "value": {"42"}, "x": {strings.Repeat("x", 1<<17)}}, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			if a := r.post(c.form); a.code != c.code {
				t.Errorf("got %d, want %d", a.code, c.code)
			}
			if !live() {
				t.Fatal("the session was ended")
			}
		})
	}
	if strings.Contains(r.log.String(), "handle=") {
		t.Error("the log has as a handle what is none")
	}
}

func TestRevokeFromElsewhere(t *testing.T) {
	r := newRig(t, session.Config{}, sessionadmin.Options{})
	_, live := r.login(42)
	form := url.Values{"key": {"userId"}, "value": {"42"}}
	for _, c := range []struct {
		name   string
		header []string
	}{
		{"another site", []string{"Sec-Fetch-Site", "cross-site"}},
		{"another host of the site", []string{"Sec-Fetch-Site", "same-site"}},
		{"an old browser", []string{"Sec-Fetch-Site", "", "Origin", "https://evil.example"}},
		{"a page without an origin", []string{"Sec-Fetch-Site", "", "Origin", "null"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.post(form, c.header...).want(t, 403, "Not from here")
			if !live() {
				t.Fatal("the session was ended")
			}
		})
	}
	r.post(form, "Sec-Fetch-Site", "", "Origin", "http://example.com").want(t, 303) // the host of httptest
	if live() {
		t.Error("from our own page of an old browser: the session was not ended")
	}
}

// Names and values are text, whatever they look like.
func TestMarkupIsText(t *testing.T) {
	nasty := []string{`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onfocus='alert(1)`, `{{.}}`, `</textarea><svg/onload=alert(1)>`, "\u2028\x00"}
	r := newRig(t, session.Config{}, sessionadmin.Options{Keys: append([]string{"userId"}, nasty...)})
	for _, text := range nasty {
		for _, a := range []answer{r.get(address(text, "1")), r.get(address("userId", text)), r.get(address("", text)), r.get("/?span=" + url.QueryEscape(text)), r.get(address("userId", "1") + "&ended=" + url.QueryEscape(text))} {
			for _, bad := range []string{"<script", "<img", "onerror=alert(1)>", " onfocus='", "<svg/"} {
				if strings.Contains(a.body, bad) {
					t.Errorf("%q: the page has %s", text, bad)
				}
			}
		}
	}
	r.login(nasty[1])
	a := r.get(address("userId", nasty[1]))
	a.want(t, 200, "<h1>1 session</h1>", html.EscapeString(nasty[1]))
	a = r.post(url.Values{"key": {"userId"}, "value": {nasty[1]}})
	if strings.ContainsAny(a.header.Get("Location"), "<>\" ") {
		t.Errorf("got Location %q, want it escaped", a.header.Get("Location"))
	}
	r.get("/"+a.header.Get("Location")).want(t, 200, "1 session was ended.")
}

// A user with more sessions than a list has.
func TestMany(t *testing.T) {
	r := newRig(t, session.Config{}, sessionadmin.Options{})
	r.exec(`INSERT INTO schema_system.session SELECT 'many' || n, '{"cookie":{},"userId":9}', now() + interval '1 h' FROM generate_series(1, 1100) n`)
	r.get(address("userId", "9")).want(t, 200, "<h1>1,000 sessions or more</h1>", "the 1,000 that expire last", "End all of them", "those that are not listed too")
	a := r.post(url.Values{"key": {"userId"}, "value": {"9"}})
	r.get("/"+a.header.Get("Location")).want(t, 200, "1,100 sessions were ended.", "No live session")
}

func TestEncrypted(t *testing.T) {
	r := newRig(t, session.Config{Encrypt: true, UserKey: "userId"}, sessionadmin.Options{Keys: []string{"userId", "role"}})
	handle, live := r.login("ada")
	r.get("/").want(t, 200)
	r.get(address("userId", "ada")).want(t, 200, "<h1>1 session</h1>", handle)
	r.get(address("role", "x")).want(t, 400, "Config.UserKey")
	r.post(url.Values{"key": {"userId"}, "value": {"ada"}}).want(t, 303)
	if live() {
		t.Error("the session was not ended")
	}
}
