package main_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	main "github.com/pgsession/session/examples/more/login"
	"github.com/pgsession/session/internal/exampletest"
	"github.com/pgsession/session/internal/pgtest"
)

var auditKinds = regexp.MustCompile(`session\.kind=\w+`)

func TestSignUpLogInLogOut(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn)
	ada := newVisitor(t, p)
	ada.get("/").Want(t, 200, "Log in")
	if ada.Cookie() != "" || exampletest.Rows(t, dsn) != 0 {
		t.Error("a visitor who has not logged in has a session")
	}
	ada.signUp("ada").Want(t, 200, "Hello, ada", "Welcome, ada.")
	page := ada.get("/account")
	page.Want(t, 200, "Hello, ada")
	if strings.Contains(page.Body, "Welcome, ada.") {
		t.Error("the flash message was shown twice")
	}
	ada.get("/login").Want(t, 200, "Hello, ada")

	kept := ada.Cookie()
	ada.post("/logout").Want(t, 200, "Log in")
	if ada.Cookie() != "" || exampletest.Rows(t, dsn) != 0 {
		t.Error("a session is left after the logout")
	}
	ada.SetCookie(kept) // a logout is more than a cookie taken away
	ada.wantLoggedOut()

	ada.logIn(" Ada ", "name", "ADA").Want(t, 200, "Hello, ada")
	p.WantNotInLog(kept, ada.Cookie(), exampletest.Secret, exampletest.Password(t, dsn), password)
	p.WaitLogTimes("msg=audit", 3)
	if kinds := auditKinds.FindAllString(p.Log(), -1); strings.Join(kinds, " ") != "session.kind=created session.kind=destroyed session.kind=created" {
		t.Errorf("audit: got %q, want created, destroyed, created", kinds)
	}
	if row(t, dsn, "SELECT count(*) FROM schema_system.session WHERE sid = '"+sessionID(t, ada)+"'") != 0 {
		t.Error("the table holds the ID itself, want its hash")
	}
	p.Interrupt(os.Interrupt)
}

// Who signs up in a browser that somebody else has left logged in is greeted, and
// finds nothing of the other's.
func TestSignUpOverAnotherUser(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	ada := newVisitor(t, p)
	ada.signUp("ada").Want(t, 200, "Hello, ada", "Welcome, ada.")
	ada.signUp("bob").Want(t, 200, "Hello, bob", "Welcome, bob.")
}

func TestForms(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	newVisitor(t, p).signUp("ada")
	for _, tt := range []struct {
		name, path, user, password string
		code                       int
		want                       string
	}{
		{"sign up", "/signup", "bob.2", password, 200, "Hello, bob.2"},
		{"name taken", "/signup", "Ada", password, 422, "taken"},
		{"name with markup", "/signup", "<b>bob", password, 422, "&lt;b&gt;bob"},
		{"short name", "/signup", "b", password, 422, "2 to 30 letters"},
		{"long name", "/signup", strings.Repeat("b", 31), password, 422, "2 to 30 letters"},
		{"short password", "/signup", "eve", "fourteen chars", 422, "at least 15"},
		{"characters, not bytes", "/signup", "eve", strings.Repeat("é", 14), 422, "at least 15"},
		{"combined characters are one", "/signup", "eve", strings.Repeat("e\u0301", 14), 422, "at least 15"},
		{"password that is not UTF-8", "/signup", "eve", strings.Repeat("\xff", 20), 422, "cannot read"},
		{"long password", "/signup", "eve", strings.Repeat("long ", 1000), 200, "Hello, eve"},
		{"huge form", "/signup", "eva", strings.Repeat("x", 1<<20), 422, "2 to 30 letters"},
		{"wrong password", "/login", "ada", "another long password", 422, "User name or password is wrong."},
		{"no password", "/login", "ada", "", 422, "User name or password is wrong."},
		{"unknown user", "/login", "nobody", password, 422, "User name or password is wrong."},
		{"no name", "/login", "", password, 422, "User name or password is wrong."},
		{"odd name", "/login", "' OR 1=1 --\x00", password, 422, "User name or password is wrong."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newVisitor(t, p)
			b.post(tt.path, "name", tt.user, "password", tt.password).Want(t, tt.code, tt.want)
			if got, want := b.Cookie() != "", tt.code == 200; got != want {
				t.Errorf("session cookie: got %v, want %v", got, want)
			}
		})
	}
}

// Nobody learns from the time it takes whether a name has an account, nor from the
// page: the work of the hash is counted, for no two measured times can be compared
// on a machine that does something else as well.
func TestUnknownUserTakesAsLong(t *testing.T) {
	t.Setenv("SESSION_SECRET", exampletest.Secret)
	pool, err := pgxpool.New(t.Context(), pgtest.URL(t))
	must(t, err)
	t.Cleanup(pool.Close)
	app, end, err := main.Serve(t.Context(), pool)
	must(t, err)
	defer func() { must(t, end()) }()
	post := func(path, name, password string, status int) (page string, work int64) {
		t.Helper()
		r := httptest.NewRequest("POST", path, strings.NewReader(form([]string{"name", name, "password", password}).Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w, before := httptest.NewRecorder(), main.Hashed()
		app.ServeHTTP(w, r)
		if w.Code != status {
			t.Errorf("%s as %q: got status %d, want %d", path, name, w.Code, status)
		}
		return w.Body.String(), main.Hashed() - before
	}
	if _, work := post("/signup", "ada", password, 303); work == 0 {
		t.Error("an account was made without a hash")
	}
	known, cost := post("/login", "ada", "another long password", 422)
	if cost == 0 {
		t.Error("a password was compared without a hash")
	}
	for _, name := range []string{"bob", "", "Not A Name", strings.Repeat("x", 1000)} {
		page, work := post("/login", name, "another long password", 422)
		if work != cost {
			t.Errorf("%q: got %d KiB hashed, want %d as for a known name", name, work, cost)
		}
		// An empty field has the cursor.
		if want := strings.ReplaceAll(known, `value="ada"`, `value="`+strings.ToLower(name)+`"`); page != want && name != "" {
			t.Errorf("%q: got another page than for a known name:\n%s\nwant\n%s", name, page, want)
		}
	}
}

func TestTooManyAttempts(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn)
	ada := newVisitor(t, p)
	ada.signUp("ada")
	newVisitor(t, p).signUp("bob")
	wrong := func() exampletest.Response {
		return newVisitor(t, p).logIn("ada", "password", "another long password")
	}
	for range 10 {
		wrong().Want(t, 422)
	}
	res := wrong()
	res.Want(t, 429, "Please wait half a minute")
	if res.Header.Get("Retry-After") != "30" {
		t.Errorf("Retry-After: got %q, want 30", res.Header.Get("Retry-After"))
	}
	newVisitor(t, p).logIn("ada").Want(t, 429) // the right one is not found by guessing on
	ada.get("/account").Want(t, 200, "Hello, ada")
	newVisitor(t, p).logIn("bob").Want(t, 200, "Hello, bob")

	execute(t, dsn, "UPDATE login_example.attempts SET free_at = free_at - interval '30 seconds' WHERE key = 'name ada'")
	wrong().Want(t, 422)
	wrong().Want(t, 429)
	execute(t, dsn, "UPDATE login_example.attempts SET free_at = free_at - interval '30 seconds' WHERE key = 'name ada'")
	newVisitor(t, p).logIn("ada").Want(t, 200)
	wrong().Want(t, 422) // a login forgets what was before

	// One address may try thirty times, whatever the names.
	execute(t, dsn, "UPDATE login_example.attempts SET free_at = now() + interval '150 seconds' WHERE key LIKE 'client %'")
	newVisitor(t, p).logIn("bob").Want(t, 429)
	newVisitor(t, p).signUp("carol").Want(t, 429)
	if n := row(t, dsn, "SELECT count(*) FROM login_example.users WHERE name = 'carol'"); n != 0 {
		t.Error("the thirty-first attempt has made an account")
	}
}

// Behind a proxy the address is the one that the proxy has seen, not the ones that
// the browser may have written before it.
func TestAttemptsBehindAProxy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, trust, want string }{
		{"trusted", "true", "client 203.0.113.9"},
		{"not trusted", "", "client 127.0.0.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dsn := pgtest.URL(t)
			p := exampletest.Start(t, "DATABASE_URL="+dsn, "TRUST_PROXY="+tt.trust)
			res := request(t, p, "POST", "/login", "X-Forwarded-For", "198.51.100.1, 203.0.113.9", "X-Forwarded-Proto", "https")
			res.Want(t, 422)
			if n := row(t, dsn, "SELECT count(*) FROM login_example.attempts WHERE key = '"+tt.want+"'"); n != 1 {
				t.Errorf("got %d rows for %q, want 1", n, tt.want)
			}
			if got, want := res.Header.Get("Strict-Transport-Security") != "", tt.trust != ""; got != want {
				t.Errorf("Strict-Transport-Security: got %v, want %v", got, want)
			}
		})
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	for _, tt := range []struct {
		name, method, path string
		header             []string
		code               int
		vary               bool
	}{
		{"not logged in", "GET", "/account", nil, 303, true},
		{"login page", "GET", "/login", nil, 200, true},
		{"head", "HEAD", "/login", nil, 200, true},
		{"login from this site", "POST", "/login", []string{"Sec-Fetch-Site", "same-origin"}, 422, true},
		{"login from another site", "POST", "/login", []string{"Sec-Fetch-Site", "cross-site"}, 403, false},
		{"logout from another origin", "POST", "/logout", []string{"Origin", "https://evil.example"}, 403, false},
		{"logout by GET", "GET", "/logout", nil, 405, false},
		{"elsewhere", "GET", "/nowhere", nil, 404, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := request(t, p, tt.method, tt.path, tt.header...)
			if res.Code != tt.code {
				t.Errorf("got %d, want %d", res.Code, tt.code)
			}
			for name, want := range map[string]string{
				"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Set-Cookie": "",
				"Strict-Transport-Security": "", // not over HTTP, where browsers must ignore it
			} {
				if got := res.Header.Get(name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
			policy := res.Header.Get("Content-Security-Policy")
			if !strings.Contains(policy, "frame-ancestors 'none'") || !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
				t.Errorf("Content-Security-Policy: got %q", policy)
			}
			if got := res.Header.Get("Vary") != ""; got != tt.vary {
				t.Errorf("Vary: got %v, want %v", got, tt.vary)
			}
		})
	}
	res := request(t, p, "GET", "/style.css", "Cookie", "session=forged")
	if res.Code != 200 || !strings.Contains(res.Header.Get("Cache-Control"), "immutable") || res.Header.Get("Vary") != "" {
		t.Errorf("style.css: got %d, %q, Vary %q, want 200, immutable and no Vary", res.Code, res.Header.Get("Cache-Control"), res.Header.Get("Vary"))
	}
}

func TestHTTPS(t *testing.T) {
	t.Parallel()
	p := secure(t, "DATABASE_URL="+pgtest.URL(t))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	t.Cleanup(client.CloseIdleConnections)
	res, err := client.Get(p.URL + "/login")
	must(t, err)
	defer res.Body.Close()
	if got := res.Header.Get("Strict-Transport-Security"); got != "max-age=31536000" {
		t.Errorf("Strict-Transport-Security: got %q, want a year", got)
	}
}

// Ten programs that start at once on an empty database make one set of tables.
func TestProgramsStartAtOnce(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	var all []*exampletest.Program
	for range 10 {
		p := exampletest.Command(t, "DATABASE_URL="+dsn)
		p.Begin()
		all = append(all, p)
	}
	for _, p := range all {
		p.WaitLog("msg=listening")
	}
	if n := row(t, dsn, "SELECT count(*) FROM pg_indexes WHERE schemaname = 'schema_system' AND indexdef LIKE '%userId%'"); n != 1 {
		t.Errorf("got %d indexes on userId, want 1", n)
	}
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
	transport := &http.Transport{ExpectContinueTimeout: exampletest.Deadline}
	done := make(chan error, 1)
	go func() {
		res, err := transport.RoundTrip(req)
		if err == nil {
			res.Body.Close()
			if res.StatusCode != http.StatusUnprocessableEntity {
				err = fmt.Errorf("got %s, want 422", res.Status)
			}
		}
		done <- err
	}()
	_, err = send.Write([]byte("name=")) // returns when the handler has asked for the body
	must(t, err)
	must(t, p.Process.Signal(os.Interrupt))
	p.WaitLog("shutting down")
	must(t, send.Close())
	must(t, <-done)
	must(t, p.Wait())
}

// An outage is an error page, not a logout.
func TestOutageIsNoLogout(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgtest.Options{})
	p := exampletest.Start(t, "DATABASE_URL="+server.URL())
	ada := newVisitor(t, p)
	ada.signUp("ada")
	kept := ada.Cookie()
	must(t, server.Stop(t.Context(), "fast"))
	for _, path := range []string{"/account", "/devices", "/password"} {
		res := ada.get(path)
		res.Want(t, 503, "problem on our side")
		if res.Header.Get("Set-Cookie") != "" || res.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: the error page sets a cookie, or has lost the security headers", path)
		}
	}
	ada.get("/style.css").Want(t, 200)
	must(t, server.Start(t.Context()))
	ada.get("/account").Want(t, 200, "Hello, ada")
	if ada.Cookie() != kept {
		t.Error("the outage has changed the cookie")
	}
}

// request asks without cookies and does not follow redirects.
func request(t *testing.T, p *exampletest.Program, method, path string, header ...string) exampletest.Response {
	t.Helper()
	form := url.Values{"name": {"ada"}, "password": {"wrong"}}
	req, err := http.NewRequestWithContext(t.Context(), method, p.URL+path, strings.NewReader(form.Encode()))
	must(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	must(t, err)
	return exampletest.Read(t, res)
}
