package main_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/exampletest"
	"github.com/pgsession/session/internal/pgtest"
)

func TestMain(m *testing.M) { exampletest.Main(m) }

var must = exampletest.Must

// What somebody sees who has nothing but a clone: the program brings its own
// database and its own secret, and both outlive it.
func TestFirstRun(t *testing.T) {
	t.Parallel()
	cache := exampletest.CacheDir(t)
	ada := newBrowser(t)
	p := exampletest.Start(t, "SESSION_SECRET=", "XDG_CACHE_HOME="+cache, "HOME="+cache)
	ada.login(p, "ada", false)
	ada.Get(p.URL + "/")
	ada.wantMe(p, "ada", 2)
	p.WantLog("kept server of our own", "SESSION_SECRET is not set", "schema_system.session", "psql -h 127.0.0.1")

	// The server that the program keeps is found in the same place.
	server, err := pgtest.Find(t.Context(), pgtest.Options{
		DataDir: filepath.Join(cache, "pgsession", "quickstart", "postgresql"), OwnOnly: true,
	})
	must(t, err)
	pid := server.PID()
	if rows := sessions(t, server.URL()); len(rows) != 1 || !rows[0].live {
		t.Errorf("got rows %d, want one live one", len(rows))
	}
	secret := filepath.Join(cache, "pgsession", "quickstart", "session-secret")
	info, err := os.Stat(secret)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the secret: got %v, want 0600", info.Mode().Perm())
	}
	b, err := os.ReadFile(secret)
	must(t, err)
	p.WantNotInLog(string(b))
	must(t, server.Close())

	p.Interrupt(os.Interrupt)
	exampletest.Gone(t, pid)

	p = exampletest.Start(t, "SESSION_SECRET=", "XDG_CACHE_HOME="+cache, "HOME="+cache)
	ada.wantMe(p, "ada", 2)
	p.Interrupt(syscall.SIGTERM)
}

func TestALoginIsARowAndOutlivesTheProgram(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	ada := newBrowser(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn)
	ada.login(p, "ada", false)
	rows := sessions(t, dsn)
	if len(rows) != 1 || !rows[0].live {
		t.Fatalf("got %d rows, want one live one", len(rows))
	}
	p.WantNotInLog(rows[0].sid, ada.Cookie(), exampletest.Secret, exampletest.Password(t, dsn))
	p.Interrupt(os.Interrupt)

	p = exampletest.Start(t, "DATABASE_URL="+dsn)
	ada.wantMe(p, "ada", 1)
}

func TestALoginOutlivesTheDatabase(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgtest.Options{})
	ada := newBrowser(t)
	p := exampletest.Start(t, "DATABASE_URL="+server.URL())
	ada.login(p, "ada", false)
	for _, mode := range []string{"fast", "immediate"} {
		must(t, server.Restart(t.Context(), mode))
		ada.wantMe(p, "ada", 1)
	}
}

// An outage is an error page, not a logout.
func TestAnOutageIsNoLogout(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgtest.Options{})
	ada := newBrowser(t)
	p := exampletest.Start(t, "DATABASE_URL="+server.URL())
	ada.login(p, "ada", false)
	must(t, server.Stop(t.Context(), "fast"))
	if res := ada.Get(p.URL + "/"); res.Code != http.StatusServiceUnavailable || res.Header.Get("Set-Cookie") != "" {
		t.Errorf("/: got %d, with Set-Cookie: %t, want 503 and no cookie", res.Code, res.Header.Get("Set-Cookie") != "")
	}
	if res := ada.Get(p.URL + "/public"); res.Code != http.StatusOK {
		t.Errorf("/public: got %d, want 200", res.Code)
	}
	must(t, server.Start(t.Context()))
	ada.wantMeWhenBack(p, "ada", 1)
}

func TestTwoProgramsShareTheLogin(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	one, two := exampletest.Start(t, "DATABASE_URL="+dsn), exampletest.Start(t, "DATABASE_URL="+dsn)
	ada := newBrowser(t)
	ada.login(one, "ada", false)
	ada.Get(two.URL + "/")
	ada.wantMe(one, "ada", 2)
	ada.wantMe(two, "ada", 2)

	kept := ada.Cookie() // a logout is more than a cookie taken away
	ada.Post(two.URL+"/logout", nil)
	ada.wantLoggedOut(one)
	ada.SetCookie(kept)
	ada.wantLoggedOut(one)
	ada.wantLoggedOut(two)
	if rows := sessions(t, dsn); len(rows) != 0 {
		t.Errorf("got %d rows after logout, want none", len(rows))
	}
}

func TestAnExpiredRowIsRefusedAndThenPruned(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	ada := newBrowser(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn)
	ada.login(p, "ada", false)

	pool, err := pgxpool.New(t.Context(), dsn)
	must(t, err)
	defer pool.Close()
	_, err = pool.Exec(t.Context(), "UPDATE schema_system.session SET expire = now() - interval '1 second'")
	must(t, err)
	ada.wantLoggedOut(p)
	if rows := sessions(t, dsn); len(rows) != 1 || rows[0].live {
		t.Errorf("got %d rows, want one, expired", len(rows))
	}

	store, err := session.NewPostgresStore(t.Context(), pool, session.PostgresOptions{Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	m, err := session.New(store, session.Config{Secret: exampletest.Secret, DisablePrune: true, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	defer m.Close()
	if n, err := m.Prune(t.Context()); n != 1 || err != nil {
		t.Errorf("Prune: got %d, %v, want 1", n, err)
	}
	if rows := sessions(t, dsn); len(rows) != 0 {
		t.Errorf("got %d rows, want none", len(rows))
	}
}

func TestRememberMeIsALongerIdleTimeout(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn)
	ada := newBrowser(t)
	for _, tt := range []struct {
		remember bool
		want     time.Duration
	}{
		{false, 24 * time.Hour},
		{true, 30 * 24 * time.Hour},
		{false, 24 * time.Hour},
	} {
		ada.login(p, "ada", tt.remember)
		rows := sessions(t, dsn)
		if len(rows) != 1 {
			t.Fatalf("got %d rows, want 1", len(rows))
		}
		if left := rows[0].left; left > tt.want || left < tt.want-time.Hour {
			t.Errorf("remember %v: got %v left, want about %v", tt.remember, left, tt.want)
		}
	}
}

func TestThePage(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	ada := newBrowser(t)

	res := ada.Get(p.URL + "/")
	res.Want(t, 200, `name="user"`, `name="remember"`, `method="post"`, "Log in")
	if res.Header.Get("Set-Cookie") != "" {
		t.Error("a visitor who has not logged in got a cookie")
	}

	ada.login(p, `<b>ada</b>`, false).Want(t, 200, "&lt;b&gt;ada&lt;/b&gt;", "You are logged in.", "<strong>1</strong>", "Log out")
	again := ada.Get(p.URL + "/")
	again.Want(t, 200, "<strong>2</strong>")
	if strings.Contains(again.Body, "You are logged in.") {
		t.Error("the flash message was shown twice")
	}
	if strings.Contains(again.Body, "<script") || strings.Contains(again.Body, "<b>ada") {
		t.Error("the page has markup that is not ours")
	}
	ada.Post(p.URL+"/logout", nil).Want(t, 200, `name="user"`)

	for _, tt := range []struct {
		name, user string
		code       int
		want       string
	}{
		{"nothing", "", 422, "Please tell us your name."},
		{"blanks", " \t ", 422, "Please tell us your name."},
		{"long", strings.Repeat("é", 41), 422, "Up to 40 characters"},
		{"as long as can be", strings.Repeat("é", 40), 200, "Hello, " + strings.Repeat("é", 40)},
		{"not UTF-8", "\xff\xfe", 422, "cannot read"},
		{"huge", strings.Repeat("x", 1<<20), 400, "could not be read"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			newBrowser(t).Post(p.URL+"/login", url.Values{"user": {tt.user}}).Want(t, tt.code, tt.want)
		})
	}
}

// The session of one who logs in is renewed, and is not the next user's.
func TestALoginRenews(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	ada := newBrowser(t)
	ada.login(p, "ada", false)
	ada.Get(p.URL + "/")
	before := ada.Cookie()
	ada.login(p, "ada", false)
	ada.wantMe(p, "ada", 3)
	ada.login(p, "bob", false)
	ada.wantMe(p, "bob", 1)

	thief := newBrowser(t)
	thief.SetCookie(before)
	thief.wantLoggedOut(p)
}

func TestWithoutACookie(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	curl := func(method, path string, header ...string) exampletest.Response {
		req, err := http.NewRequestWithContext(t.Context(), method, p.URL+path, strings.NewReader("user=ada"))
		must(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		res, err := http.DefaultTransport.RoundTrip(req)
		must(t, err)
		return exampletest.Read(t, res)
	}
	for _, tt := range []struct {
		name, method, path string
		header             []string
		code               int
		cookie, vary       bool
	}{
		{"not logged in", "GET", "/me", nil, 401, false, true},
		{"login as curl sends it", "POST", "/login", nil, 303, true, true},
		{"login from this site", "POST", "/login", []string{"Sec-Fetch-Site", "same-origin"}, 303, true, true},
		{"login from another site", "POST", "/login", []string{"Sec-Fetch-Site", "cross-site"}, 403, false, false},
		{"logout from another origin", "POST", "/logout", []string{"Origin", "https://evil.example"}, 403, false, false},
		{"public", "GET", "/public", nil, 200, false, false},
		{"public with a forged cookie", "GET", "/public", []string{"Cookie", "session=forged"}, 200, false, false},
		{"login by GET", "GET", "/login", nil, 405, false, false},
		{"elsewhere", "GET", "/nowhere", nil, 404, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := curl(tt.method, tt.path, tt.header...)
			if res.Code != tt.code {
				t.Errorf("got %d, want %d", res.Code, tt.code)
			}
			if got := res.Header.Get("Set-Cookie") != ""; got != tt.cookie {
				t.Errorf("Set-Cookie: got %v, want %v", got, tt.cookie)
			}
			if got := res.Header.Get("Vary") != ""; got != tt.vary {
				t.Errorf("Vary: got %v, want %v", got, tt.vary)
			}
		})
	}
}

func TestTheLogSaysWhatIsInUse(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn, "SESSION_TIMEOUT=1800000")
	newBrowser(t).login(p, "ada", false)
	p.WantLog("postgres", "schema_system.session", "database answered", "secure=auto", "sameSite=lax", "1800000", "trustProxy=false", "level=INFO")
	p.WantNotInLog(exampletest.Secret, exampletest.Password(t, dsn), sessions(t, dsn)[0].sid)
}

func TestNoPostgreSQLIsAWarning(t *testing.T) {
	t.Parallel()
	empty, cache := t.TempDir(), exampletest.CacheDir(t)
	p := exampletest.Start(t, "PATH="+empty, "PGTEST_BINDIR="+empty, "DOCKER_HOST=unix://"+empty+"/none",
		"SESSION_SECRET=", "XDG_CACHE_HOME="+cache, "HOME="+cache)
	p.WantLog("level=WARN", "sessions are kept in memory", "DATABASE_URL=postgres://", "memory store")
	ada := newBrowser(t)
	ada.login(p, "ada", true).Want(t, 200, "memory")
	ada.wantMe(p, "ada", 1)
	ada.Post(p.URL+"/logout", nil)
	ada.wantLoggedOut(p)
	p.Interrupt(os.Interrupt)
}

func TestADatabaseThatDoesNotAnswerIsAnErrorWithoutThePassword(t *testing.T) {
	t.Parallel()
	p := exampletest.Command(t, "DATABASE_URL=postgres://ada:hush-hush@127.0.0.1:1/shop")
	p.WantFailure("host 127.0.0.1", "port 1", "database shop", "user ada")
	p.WantNotInLog("hush")
}

// Requests that are under way when the program is told to end get their answer.
func TestShutdownIsGraceful(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	body, send := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), "POST", p.URL+"/login", body)
	must(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Expect", "100-continue")
	arrived := make(chan struct{})
	transport := &http.Transport{ExpectContinueTimeout: exampletest.Deadline}
	done := make(chan error, 1)
	go func() {
		res, err := transport.RoundTrip(req)
		if err == nil {
			res.Body.Close()
			if res.StatusCode != http.StatusSeeOther {
				err = errors.New("got " + res.Status)
			}
		}
		done <- err
	}()
	go func() { // the handler has asked for the body once a byte of it is taken
		_, _ = send.Write([]byte("user="))
		close(arrived)
	}()
	<-arrived
	must(t, p.Process.Signal(os.Interrupt))
	p.WaitLog("shutting down")
	_, err = send.Write([]byte("ada"))
	must(t, errors.Join(err, send.Close()))
	must(t, <-done)
	must(t, p.Wait())
}

// browser knows the pages of this application.
type browser struct{ *exampletest.Browser }

func newBrowser(t *testing.T) browser { return browser{exampletest.NewBrowser(t, "session")} }

// login logs in and gives the page that follows.
func (b browser) login(p *exampletest.Program, user string, remember bool) exampletest.Response {
	b.T.Helper()
	form := url.Values{"user": {user}}
	if remember {
		form.Set("remember", "yes")
	}
	res := b.Post(p.URL+"/login", form)
	res.Want(b.T, 200, "Log out")
	return res
}

func (b browser) wantMe(p *exampletest.Program, user string, visits int) {
	b.T.Helper()
	res := b.Get(p.URL + "/me")
	var me struct {
		User   string
		Visits int
	}
	if err := json.Unmarshal([]byte(res.Body), &me); err != nil || res.Code != 200 || me.User != user || me.Visits != visits {
		b.T.Errorf("/me: got %d %s, want %s with %d visits", res.Code, res.Body, user, visits)
	}
}

// wantMeWhenBack asks again while the program does not know that the database is back,
// which is for a second or so.
func (b browser) wantMeWhenBack(p *exampletest.Program, user string, visits int) {
	b.T.Helper()
	end := time.Now().Add(15 * time.Second) // on a busy machine
	for b.Get(p.URL+"/me").Code == http.StatusServiceUnavailable && time.Now().Before(end) {
		<-time.After(50 * time.Millisecond)
	}
	b.wantMe(p, user, visits)
}

func (b browser) wantLoggedOut(p *exampletest.Program) {
	b.T.Helper()
	if res := b.Get(p.URL + "/me"); res.Code != http.StatusUnauthorized {
		b.T.Errorf("/me: got %d, want 401", res.Code)
	}
}

type row struct {
	sid  string
	live bool
	left time.Duration
}

// sessions is what an operator sees in the table, but for the marks that renewals
// leave under old IDs.
func sessions(t *testing.T, dsn string) []row {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	must(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	rows, err := conn.Query(t.Context(), `SELECT sid, expire >= now(), extract(epoch FROM expire - now())::float8 FROM schema_system.session
		WHERE left(sess::text, 3) <> '"0e'`)
	must(t, err)
	all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (row, error) {
		var v row
		var seconds float64
		err := r.Scan(&v.sid, &v.live, &seconds)
		v.left = time.Duration(seconds * float64(time.Second))
		return v, err
	})
	must(t, err)
	return all
}
