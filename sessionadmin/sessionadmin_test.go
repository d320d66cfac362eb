package sessionadmin_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/hostile"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/sessionadmin"
)

func TestNewRefuses(t *testing.T) {
	_, err := sessionadmin.New(sessionadmin.Options{Keys: []string{"a", ""}, Timeout: -1})
	for _, name := range []string{"Manager", "Pool", "Keys", "Timeout"} {
		if err == nil || !strings.Contains(err.Error(), "Options."+name) {
			t.Errorf("got %v, want an error that names Options.%s", err, name)
		}
	}
}

func TestCloseTwice(t *testing.T) {
	r := newRig(t, session.Config{}, sessionadmin.Options{})
	for range 2 {
		r.must(r.pages.Close())
	}
	r.get("/").want(t, 200)
}

func TestMethodsAndAddresses(t *testing.T) {
	r := newRig(t, session.Config{}, sessionadmin.Options{})
	for _, c := range []struct {
		method, address string
		code            int
		allow           string
	}{
		{"GET", "/", 200, ""},
		{"HEAD", "/", 200, ""},
		{"GET", "/?span=24h", 200, ""},
		{"GET", "/?span=nonsense", 200, ""},
		{"GET", "/search", 200, ""},
		{"GET", "/search?key=userId&value=", 200, ""},
		{"GET", "/search?key=nope&value=1", 400, ""},
		{"GET", "/search?key=userId&value=" + strings.Repeat("x", 201), 400, ""},
		{"GET", "/search?key=&value=none", 200, ""},
		{"GET", "/style.css", 200, ""},
		{"GET", "/none", 404, ""},
		{"POST", "/none", 404, ""},
		{"GET", "/search/", 404, ""},
		{"GET", "/web/style.css", 404, ""},
		{"GET", "/../style.css", 404, ""},
		{"POST", "/", 405, "GET, HEAD"},
		{"DELETE", "/search", 405, "GET, HEAD"},
		{"GET", "/revoke", 405, "POST"},
		{"HEAD", "/revoke", 405, "POST"},
		{"OPTIONS", "/revoke", 405, "POST"},
	} {
		a := r.do(httptest.NewRequest(c.method, c.address, nil))
		if a.code != c.code || a.header.Get("Allow") != c.allow {
			t.Errorf("%s %s: got %d, Allow %q, want %d, %q", c.method, c.address, a.code, a.header.Get("Allow"), c.code, c.allow)
		}
		if !strings.HasPrefix(a.header.Get("Content-Type"), "text/") || a.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s %s: got Content-Type %q, want one, and nosniff", c.method, c.address, a.header.Get("Content-Type"))
		}
	}
}

// Wherever the pages are mounted, every link of theirs leads to one of them.
func TestMounted(t *testing.T) {
	links := regexp.MustCompile(`(?:href|action)="([^"#]+)"`)
	for _, c := range []struct {
		name, first string
		mount       func(pages http.Handler) http.Handler
	}{
		{"at the root", "/", func(h http.Handler) http.Handler { return h }},
		{"under a prefix", "/a/b/", func(h http.Handler) http.Handler { return http.StripPrefix("/a/b", h) }},
		{"the prefix with its slash", "/a/b/", func(h http.Handler) http.Handler { return http.StripPrefix("/a/b/", h) }},
		{"without a slash at the end", "/a/b", func(h http.Handler) http.Handler { return http.StripPrefix("/a/b", h) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, session.Config{}, sessionadmin.Options{})
			handle, live := r.login(42)
			server := httptest.NewServer(c.mount(r.pages))
			defer server.Close()
			open := func(address string, want int) (*url.URL, string) {
				t.Helper()
				res, err := http.Get(address)
				r.must(err)
				defer res.Body.Close()
				body, err := io.ReadAll(res.Body)
				r.must(err)
				if res.StatusCode != want {
					t.Errorf("%s: got %d, want %d", res.Request.URL.Path, res.StatusCode, want)
				}
				return res.Request.URL, string(body)
			}
			at, body := open(server.URL+c.first, 200)
			found := links.FindAllStringSubmatch(body, -1)
			if len(found) < 5 {
				t.Errorf("got %d links, want the style, the search and the lengths of time", len(found))
			}
			for _, m := range found {
				link, err := at.Parse(strings.ReplaceAll(m[1], "&amp;", "&"))
				r.must(err)
				open(link.String(), 200)
			}
			search, err := at.Parse("search?key=userId&value=42")
			r.must(err)
			open(search.String(), 200)
			revoke, err := search.Parse("revoke")
			r.must(err)
			res, err := http.PostForm(revoke.String(), url.Values{"key": {"userId"}, "value": {"42"}, "handle": {handle}})
			r.must(err)
			defer res.Body.Close()
			if res.StatusCode != 200 || res.Request.URL.Path != search.Path || live() {
				t.Errorf("ending it: got %d at %s, still logged in: %t, want 200 at %s and false", res.StatusCode, res.Request.URL.Path, live(), search.Path)
			}
		})
	}
}

// The mark that a renewal leaves is no session, neither counted nor listed.
func TestOverviewBesideMarks(t *testing.T) {
	r := newRig(t, session.Config{}, sessionadmin.Options{})
	r.login(1)
	r.exec(`INSERT INTO schema_system.session SELECT 'mark' || n, '"0e066"', now() + n * interval '1 min' FROM generate_series(-1, 4) n`)
	r.get("/").want(t, 200, `<p class="big">1</p><p class="quiet">in all processes`, `<p class="big">0</p><p class="quiet">nothing to prune`,
		"1 of the live sessions began in the last 24 hours", "1 record, 6 marks of renewed IDs")
}

// Pruning counts the marks of renewed IDs, of which a login leaves one: nothing that
// counts them calls them sessions.
func TestOverviewOfPrunedMarks(t *testing.T) {
	r := newRig(t, session.Config{}, sessionadmin.Options{})
	r.exec(`INSERT INTO schema_system.session SELECT 'mark' || n, '"0e066"', now() - interval '1 h' FROM generate_series(1, 3) n`)
	_, err := r.sessions.Prune(t.Context())
	r.must(err)
	a := r.get("/")
	a.want(t, 200, "0 ended, 3 expired records and marks pruned", "ended 0, and pruned 3 expired records and marks of renewed IDs.",
		": 3 expired records and marks, pruned</title>", `<th scope="col" class="n">expired records and marks, pruned</th>`,
		`<li class="pruned">expired records and marks of renewed IDs, pruned</li>`, "expired records and marks of renewed IDs that this process has deleted",
		"expired records and marks of renewed IDs, deleted", "sessions created, sessions ended, and rows pruned, per minute, by UTC")
	for _, untrue := range []string{"3 expired and pruned", "3 pruned", "expired records deleted", `class="n">Records</th>`} {
		if strings.Contains(a.body, untrue) {
			t.Errorf("the page has %q, want that marks are named beside records", untrue)
		}
	}
}

func TestOverview(t *testing.T) {
	r := newRig(t, session.Config{}, sessionadmin.Options{})
	for i := range 3 {
		r.login(i)
	}
	r.exec("INSERT INTO schema_system.session SELECT 'dead' || n, '{}', now() - n * interval '1 h' FROM generate_series(1, 2) n")
	a := r.get("/")
	a.want(t, 200, `<p class="big">3</p><p class="quiet">in all processes`, `<p class="big">2</p><p class="quiet">the oldest 2 h ago`,
		`<p class="big">3</p><p class="quiet">by this process; 0 ended, 0 expired records and marks pruned`, "created 3 sessions, ended 0", "3 of the live sessions began in the last 24 hours", "6–24 h", "schema_system.session", "5 records")
	if strings.Contains(a.body, "<script") || strings.Contains(a.body, "style=") {
		t.Error("the page has a script or inline style, which its policy forbids")
	}
	if !strings.Contains(a.body, `href="style.css?`) {
		t.Error("the page has no style sheet")
	}
	style := r.get("/style.css")
	if !strings.Contains(style.header.Get("Cache-Control"), "immutable") || !strings.Contains(style.body, "prefers-color-scheme: dark") {
		t.Errorf("the style sheet: got Cache-Control %q, want it to be kept", style.header.Get("Cache-Control"))
	}
}

// What the program did shows at once, however long a measurement serves.
func TestOverviewAfterRevoking(t *testing.T) {
	r := newRig(t, session.Config{}, sessionadmin.Options{})
	r.login(1)
	r.login(2)
	r.get("/").want(t, 200, `<p class="big">2</p><p class="quiet">in all processes`)
	r.post(url.Values{"key": {"userId"}, "value": {"1"}}).want(t, 303)
	r.get("/").want(t, 200, `<p class="big">1</p><p class="quiet">in all processes`, "by this process; 1 ended, 0 expired records and marks pruned")
}

// A measurement that was under way when sessions were ended serves nobody after
// that. It is held up between its counts and the ages, which take a connection each.
func TestOverviewMeasuredWhileRevoking(t *testing.T) {
	counted, revoked := make(chan struct{}), make(chan struct{})
	var acquired atomic.Int64
	pool := pgtest.Pool(t)
	cfg := pool.Config()
	cfg.PrepareConn = func(context.Context, *pgx.Conn) (bool, error) {
		if acquired.Add(1) == 2 {
			close(counted)
			<-revoked
		}
		return true, nil
	}
	slow, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(slow.Close)
	r := newRigOn(t, pool, session.Config{}, sessionadmin.Options{Timeout: time.Minute})
	r.login(1)
	r.login(2)
	pages, err := sessionadmin.New(sessionadmin.Options{Manager: r.sessions, Pool: slow, Keys: []string{"userId"}, Timeout: time.Minute, Logger: slog.New(slog.DiscardHandler)})
	r.must(err)
	defer pages.Close()
	r.pages, pages = pages, r.pages
	defer func() { r.pages, pages = pages, r.pages }()
	first := make(chan string)
	go func() {
		w := httptest.NewRecorder()
		r.pages.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		first <- w.Body.String()
	}()
	<-counted
	r.post(url.Values{"key": {"userId"}, "value": {"1"}}).want(t, 303)
	close(revoked)
	if want := `<p class="big">2</p><p class="quiet">in all processes`; !strings.Contains(<-first, want) {
		t.Errorf("the page that came first has no %q", want)
	}
	r.get("/").want(t, 200, `<p class="big">1</p><p class="quiet">in all processes`)
}

// Rows that nobody can read hide no others.
func TestOddRows(t *testing.T) {
	r := newRig(t, session.Config{}, sessionadmin.Options{})
	handle, _ := r.login(42)
	for i, data := range []string{`{"a":"\u0000","userId":42}`, `{"userId":42,"a":"\ud800"}`, `"text"`, `[]`, `null`, `{"cookie":7,"__created":"x","userId":42}`, `{"userId":{"a":42}}`} {
		r.exec("INSERT INTO schema_system.session VALUES ($1, $2, now() + interval '1 h')", fmt.Sprint("odd", i), data)
	}
	r.exec("INSERT INTO schema_system.session VALUES ('endless', '{}', 'infinity'), ('never', '{}', '-infinity')")
	r.get("/").want(t, 200, `<p class="big">9</p><p class="quiet">in all processes`)
	r.get("/search?key=userId&value=42").want(t, 200, "4 sessions", handle, "unknown")
	a := r.post(url.Values{"key": {"userId"}, "value": {"42"}})
	a.want(t, 303)
	r.get("/"+a.header.Get("Location")).want(t, 200, "4 sessions were ended.", "No live session")
}

// One measurement serves all who wait for it, if it fails too.
func TestOverviewTogether(t *testing.T) {
	for code, timeout := range map[int]time.Duration{200: time.Minute, 503: 2 * time.Second} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			r := newRig(t, session.Config{}, sessionadmin.Options{Timeout: timeout})
			tx, err := r.pool.Begin(t.Context())
			r.must(err)
			defer func() { _ = tx.Rollback(context.Background()) }()
			_, err = tx.Exec(t.Context(), "LOCK TABLE schema_system.session")
			r.must(err)
			before := r.pool.Stat().AcquireCount()
			codes := make(chan int)
			for range 20 {
				go func() {
					w := httptest.NewRecorder()
					r.pages.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
					codes <- w.Code
				}()
			}
			for r.pool.Stat().AcquireCount() == before { // the first waits for the lock
				runtime.Gosched()
			}
			if code == 200 {
				r.must(tx.Rollback(t.Context()))
			}
			for range 20 {
				if got := <-codes; got != code {
					t.Errorf("got %d, want %d", got, code)
				}
			}
			// A measurement takes two transactions, or one that fails. Whoever came
			// later than the others may have caused a second.
			if got := r.pool.Stat().AcquireCount() - before; got > 4 {
				t.Errorf("connections taken: got %d for 20 pages, want those of two measurements at most", got)
			}
		})
	}
}

func TestNoTable(t *testing.T) {
	r := newRig(t, session.Config{}, sessionadmin.Options{Table: "none"})
	r.get("/").want(t, 503, "There is no table schema_system.none", "Counts")
}

// A table that is locked: an answer in time, with what the process knows.
func TestLockedTable(t *testing.T) {
	r := newRig(t, session.Config{StoreTimeout: 4 * time.Second}, sessionadmin.Options{Timeout: 4 * time.Second})
	_, live := r.login(42)
	tx, err := r.pool.Begin(t.Context())
	r.must(err)
	_, err = tx.Exec(t.Context(), "LOCK TABLE schema_system.session")
	r.must(err)
	a := r.get("/")
	a.want(t, 503, "The database does not answer", "Store errors", "created 1 session")
	if a.header.Get("Retry-After") == "" {
		t.Error("got no Retry-After")
	}
	r.get("/search?key=userId&value=42").want(t, 503, "could not be listed")
	r.post(url.Values{"key": {"userId"}, "value": {"42"}}).want(t, 503, "not known whether the sessions were ended")
	r.must(tx.Rollback(t.Context()))
	// What was late goes on: the session ends after all.
	for deadline := time.Now().Add(30 * time.Second); live(); {
		if time.Now().After(deadline) {
			t.Fatal("the session lives on, want that the late statement has ended it")
		}
	}
	r.get("/").want(t, 200, `<p class="big">0</p><p class="quiet">in all processes`)
}

// Sizes without counts, for a role that may not read the rows.
func TestNoPrivilege(t *testing.T) {
	r := newRig(t, session.Config{}, sessionadmin.Options{})
	limited := pgtestRole(t, r.pool, "GRANT USAGE ON SCHEMA schema_system TO %s")
	pages, err := sessionadmin.New(sessionadmin.Options{Manager: r.sessions, Pool: limited})
	r.must(err)
	defer pages.Close()
	r.pages, pages = pages, r.pages
	defer func() { r.pages, pages = pages, r.pages }()
	a := r.get("/")
	a.want(t, 200, "The rows could not be counted", "Heap-only updates", "Counts")
	if strings.Contains(a.body, "in all processes") || strings.Contains(a.body, "records by the time") {
		t.Error("the page counts what could not be counted")
	}
}

// A database that is gone: a page that says so, and the counts of this process,
// which are what one looks for then.
func TestDatabaseDown(t *testing.T) {
	server := pgtest.Own(t, pgtest.Options{})
	pool, err := pgxpool.New(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	r := newRigOn(t, pool, session.Config{StoreTimeout: 4 * time.Second}, sessionadmin.Options{})
	_, live := r.login(42) // no page yet: it would keep its measurement for a while
	r.must(server.Stop(t.Context(), "immediate"))
	if live() {
		t.Fatal("a session without a database")
	}
	r.post(url.Values{"key": {"userId"}, "value": {"42"}}).want(t, 503, "could not be ended")
	for _, span := range []string{"1h", "24h"} {
		a := r.get("/?span=" + span)
		a.want(t, 503, `role="alert"`, "The database does not answer", `class="tile bad"`, "Store errors")
		if strings.Contains(a.body, server.URL()) || strings.Contains(a.body, "127.0.0.1") || strings.Contains(a.body, "dial") {
			t.Error("the page has the error's detail")
		}
	}
	r.get("/search?key=userId&value=42").want(t, 503, "The log has the error")
	r.must(server.Start(t.Context()))
	r.get("/").want(t, 200, `<p class="big">1</p><p class="quiet">in all processes`)
	r.get("/search?key=userId&value=42").want(t, 200, "1 session")
}

// Pages in a database where somebody has made, on the search path, a twin of all
// that a statement can name: none is called, and no page misses a session.
func TestHostileSchema(t *testing.T) {
	db := hostile.New(t)
	programs := newRigOn(t, db.Pool(t, "pg_catalog"), session.Config{}, sessionadmin.Options{})
	for _, path := range hostile.Paths {
		t.Run(path, func(t *testing.T) {
			r := newRigOn(t, db.Pool(t, path), session.Config{}, sessionadmin.Options{})
			handle, live := programs.login(42)
			r.get("/").want(t, 200, `<p class="big">1</p><p class="quiet">in all processes`, "1 of the live sessions began in the last 24 hours")
			r.get(address("userId", "42")).want(t, 200, "<h1>1 session</h1>", handle)
			r.get(address("", handle)).want(t, 200, "<h1>1 session</h1>")
			r.post(url.Values{"key": {"userId"}, "value": {"42"}}).want(t, 303)
			if live() {
				t.Error("the session has not ended")
			}
			other, live := programs.login(42)
			r.post(url.Values{"key": {""}, "value": {other}}).want(t, 303)
			if live() {
				t.Error("by handle: the session has not ended")
			}
		})
	}
}
