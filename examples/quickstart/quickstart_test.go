package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

const (
	testSecret = "a secret of the tests, forty bytes long!"
	deadline   = 60 * time.Second
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "quickstart-test-")
	if err == nil {
		binary = filepath.Join(dir, "quickstart.exe") // Windows wants the ending, nobody else minds
		var out []byte
		if out, err = exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
			err = errors.New(string(out))
		}
	}
	if err != nil {
		panic(err)
	}
	pgtest.Main(cleaning{m, dir})
}

// cleaning removes the binary when the tests have run.
type cleaning struct {
	m   *testing.M
	dir string
}

func (c cleaning) Run() int {
	defer os.RemoveAll(c.dir)
	return c.m.Run()
}

// What somebody sees who has nothing but a clone: the program brings its own
// database and its own secret, and both outlive it.
func TestFirstRun(t *testing.T) {
	t.Parallel()
	cache := cacheDir(t)
	ada := newBrowser(t)
	p := start(t, "XDG_CACHE_HOME="+cache, "HOME="+cache)
	ada.login(p, "ada", false)
	ada.get(p, "/")
	ada.wantMe(p, "ada", 2)
	p.wantLog("kept server of our own", "SESSION_SECRET is not set", "schema_system.session", "psql -h 127.0.0.1")

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
	p.wantNotInLog(string(b))
	must(t, server.Close())

	p.interrupt(os.Interrupt)
	gone(t, pid)

	p = start(t, "XDG_CACHE_HOME="+cache, "HOME="+cache)
	ada.wantMe(p, "ada", 2)
	p.interrupt(syscall.SIGTERM)
}

func TestALoginIsARowAndOutlivesTheProgram(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	ada := newBrowser(t)
	p := start(t, "DATABASE_URL="+dsn)
	ada.login(p, "ada", false)
	rows := sessions(t, dsn)
	if len(rows) != 1 || !rows[0].live {
		t.Fatalf("got %d rows, want one live one", len(rows))
	}
	p.wantNotInLog(rows[0].sid, ada.cookie(p), testSecret, password(t, dsn))
	p.interrupt(os.Interrupt)

	p = start(t, "DATABASE_URL="+dsn)
	ada.wantMe(p, "ada", 1)
}

func TestALoginOutlivesTheDatabase(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgtest.Options{})
	ada := newBrowser(t)
	p := start(t, "DATABASE_URL="+server.URL())
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
	p := start(t, "DATABASE_URL="+server.URL())
	ada.login(p, "ada", false)
	must(t, server.Stop(t.Context(), "fast"))
	if res := ada.get(p, "/"); res.code != http.StatusServiceUnavailable || res.header.Get("Set-Cookie") != "" {
		t.Errorf("/: got %d, with Set-Cookie: %t, want 503 and no cookie", res.code, res.header.Get("Set-Cookie") != "")
	}
	if res := ada.get(p, "/public"); res.code != http.StatusOK {
		t.Errorf("/public: got %d, want 200", res.code)
	}
	must(t, server.Start(t.Context()))
	ada.wantMe(p, "ada", 1)
}

func TestTwoProgramsShareTheLogin(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	one, two := start(t, "DATABASE_URL="+dsn), start(t, "DATABASE_URL="+dsn)
	ada := newBrowser(t)
	ada.login(one, "ada", false)
	ada.get(two, "/")
	ada.wantMe(one, "ada", 2)
	ada.wantMe(two, "ada", 2)

	kept := ada.cookie(one) // a logout is more than a cookie taken away
	ada.post(two, "/logout", nil)
	ada.wantLoggedOut(one)
	ada.setCookie(one, kept)
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
	p := start(t, "DATABASE_URL="+dsn)
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
	m, err := session.New(store, session.Config{Secret: testSecret, DisablePrune: true, Logger: slog.New(slog.DiscardHandler)})
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
	p := start(t, "DATABASE_URL="+dsn)
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
	p := start(t, "DATABASE_URL="+pgtest.URL(t))
	ada := newBrowser(t)

	res := ada.get(p, "/")
	res.want(t, 200, `name="user"`, `name="remember"`, `method="post"`, "Log in")
	if res.header.Get("Set-Cookie") != "" {
		t.Error("a visitor who has not logged in got a cookie")
	}

	ada.login(p, `<b>ada</b>`, false).want(t, 200, "&lt;b&gt;ada&lt;/b&gt;", "You are logged in.", "<strong>1</strong>", "Log out")
	again := ada.get(p, "/")
	again.want(t, 200, "<strong>2</strong>")
	if strings.Contains(again.body, "You are logged in.") {
		t.Error("the flash message was shown twice")
	}
	if strings.Contains(again.body, "<script") || strings.Contains(again.body, "<b>ada") {
		t.Error("the page has markup that is not ours")
	}
	ada.post(p, "/logout", nil).want(t, 200, `name="user"`)

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
			newBrowser(t).post(p, "/login", url.Values{"user": {tt.user}}).want(t, tt.code, tt.want)
		})
	}
}

// The session of one who logs in is renewed, and is not the next user's.
func TestALoginRenews(t *testing.T) {
	t.Parallel()
	p := start(t, "DATABASE_URL="+pgtest.URL(t))
	ada := newBrowser(t)
	ada.login(p, "ada", false)
	ada.get(p, "/")
	before := ada.cookie(p)
	ada.login(p, "ada", false)
	ada.wantMe(p, "ada", 3)
	ada.login(p, "bob", false)
	ada.wantMe(p, "bob", 1)

	thief := newBrowser(t)
	thief.setCookie(p, before)
	thief.wantLoggedOut(p)
}

func TestWithoutACookie(t *testing.T) {
	t.Parallel()
	p := start(t, "DATABASE_URL="+pgtest.URL(t))
	curl := func(method, path string, header ...string) response {
		req, err := http.NewRequestWithContext(t.Context(), method, p.url+path, strings.NewReader("user=ada"))
		must(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		res, err := http.DefaultTransport.RoundTrip(req)
		must(t, err)
		return read(t, res)
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
			if res.code != tt.code {
				t.Errorf("got %d, want %d", res.code, tt.code)
			}
			if got := res.header.Get("Set-Cookie") != ""; got != tt.cookie {
				t.Errorf("Set-Cookie: got %v, want %v", got, tt.cookie)
			}
			if got := res.header.Get("Vary") != ""; got != tt.vary {
				t.Errorf("Vary: got %v, want %v", got, tt.vary)
			}
		})
	}
}

func TestTheLogSaysWhatIsInUse(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := start(t, "DATABASE_URL="+dsn, "SESSION_TIMEOUT=1800000")
	newBrowser(t).login(p, "ada", false)
	p.wantLog("postgres", "schema_system.session", "database answered", "secure=auto", "sameSite=lax", "1800000", "trustProxy=false", "level=INFO")
	p.wantNotInLog(testSecret, password(t, dsn), sessions(t, dsn)[0].sid)
}

func TestNoPostgreSQLIsAWarning(t *testing.T) {
	t.Parallel()
	empty, cache := t.TempDir(), cacheDir(t)
	p := start(t, "PATH="+empty, "PGTEST_BINDIR="+empty, "DOCKER_HOST=unix://"+empty+"/none",
		"XDG_CACHE_HOME="+cache, "HOME="+cache)
	p.wantLog("level=WARN", "sessions are kept in memory", "DATABASE_URL=postgres://", "memory store")
	ada := newBrowser(t)
	ada.login(p, "ada", true).want(t, 200, "memory")
	ada.wantMe(p, "ada", 1)
	ada.post(p, "/logout", nil)
	ada.wantLoggedOut(p)
	p.interrupt(os.Interrupt)
}

func TestADatabaseThatDoesNotAnswerIsAnErrorWithoutThePassword(t *testing.T) {
	t.Parallel()
	cmd, log := command(t, "DATABASE_URL=postgres://ada:hush-hush@127.0.0.1:1/shop")
	err := cmd.Run()
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("got %v, want exit code 1", err)
	}
	for _, want := range []string{"host 127.0.0.1", "port 1", "database shop", "user ada"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("got %q, want it to contain %q", log, want)
		}
	}
	if strings.Contains(log.String(), "hush") {
		t.Error("the log has the password in it")
	}
}

// Requests that are under way when the program is told to end get their answer.
func TestShutdownIsGraceful(t *testing.T) {
	t.Parallel()
	p := start(t, "DATABASE_URL="+pgtest.URL(t))
	body, send := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), "POST", p.url+"/login", body)
	must(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Expect", "100-continue")
	arrived := make(chan struct{})
	transport := &http.Transport{ExpectContinueTimeout: deadline}
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
	must(t, p.cmd.Process.Signal(os.Interrupt))
	p.waitLog("shutting down")
	_, err = send.Write([]byte("ada"))
	must(t, errors.Join(err, send.Close()))
	must(t, <-done)
	p.wantExit()
}

// program is a running quickstart.
type program struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  *syncBuffer
	url  string
	exit chan error
}

var listening = regexp.MustCompile(`msg=listening url=(\S+)`)

// command is a quickstart with none of our own environment's sessions and databases.
func command(t *testing.T, env ...string) (*exec.Cmd, *syncBuffer) {
	t.Helper()
	cmd := exec.Command(binary)
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "DB_") && !strings.HasPrefix(name, "SESSION_") && name != "DATABASE_URL" {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "PORT=0")
	if strings.HasPrefix(env[0], "DATABASE_URL=") {
		cmd.Env = append(cmd.Env, "SESSION_SECRET="+testSecret)
	}
	cmd.Env = append(cmd.Env, env...)
	log := &syncBuffer{grown: make(chan struct{}, 1)}
	cmd.Stderr = log
	return cmd, log
}

func start(t *testing.T, env ...string) *program {
	t.Helper()
	cmd, log := command(t, env...)
	p := &program{t: t, cmd: cmd, log: log, exit: make(chan error, 1)}
	must(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		p.exit <- cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(deadline):
			_ = cmd.Process.Kill()
			t.Error("the program does not end")
		}
	})
	p.waitLog("msg=listening")
	p.url = listening.FindStringSubmatch(log.String())[1]
	return p
}

// interrupt ends the program with a signal and wants exit code 0.
func (p *program) interrupt(sig os.Signal) {
	p.t.Helper()
	must(p.t, p.cmd.Process.Signal(sig))
	p.wantExit()
}

func (p *program) wantExit() {
	p.t.Helper()
	select {
	case err := <-p.exit:
		if err != nil {
			p.t.Errorf("the program ended with %v, want 0\n%s", err, p.log)
		}
	case <-time.After(deadline):
		p.t.Fatalf("the program does not end\n%s", p.log)
	}
}

// waitLog waits until the log has text in it.
func (p *program) waitLog(text string) {
	p.t.Helper()
	timeout := time.After(deadline)
	for !strings.Contains(p.log.String(), text) {
		select {
		case <-p.log.grown:
		case err := <-p.exit:
			p.t.Fatalf("the program ended: %v\n%s", err, p.log)
		case <-timeout:
			p.t.Fatalf("the log has no %q\n%s", text, p.log)
		}
	}
}

func (p *program) wantLog(texts ...string) {
	p.t.Helper()
	for _, text := range texts {
		if !strings.Contains(p.log.String(), text) {
			p.t.Errorf("the log has no %q\n%s", text, p.log)
		}
	}
}

// wantNotInLog does not show what it looks for, nor the log.
func (p *program) wantNotInLog(texts ...string) {
	p.t.Helper()
	for i, text := range texts {
		if text == "" || strings.Contains(p.log.String(), text) {
			p.t.Errorf("text %d of %d must be known, and not in the log", i+1, len(texts))
		}
	}
}

// syncBuffer takes a program's log and tells when it has grown.
type syncBuffer struct {
	mu    sync.Mutex
	b     bytes.Buffer
	grown chan struct{}
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case b.grown <- struct{}{}:
	default:
	}
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// browser keeps cookies and follows redirects. Cookies do not know about ports, so
// it takes one program's to another, as a real one does on localhost.
type browser struct {
	t      *testing.T
	client *http.Client
}

type response struct {
	code   int
	header http.Header
	body   string
}

func newBrowser(t *testing.T) *browser {
	jar, err := cookiejar.New(nil)
	must(t, err)
	return &browser{t, &http.Client{Jar: jar, Timeout: deadline}}
}

func (b *browser) get(p *program, path string) response {
	b.t.Helper()
	res, err := b.client.Get(p.url + path)
	must(b.t, err)
	return read(b.t, res)
}

func (b *browser) post(p *program, path string, form url.Values) response {
	b.t.Helper()
	res, err := b.client.PostForm(p.url+path, form)
	must(b.t, err)
	return read(b.t, res)
}

// login logs in and gives the page that follows.
func (b *browser) login(p *program, user string, remember bool) response {
	b.t.Helper()
	form := url.Values{"user": {user}}
	if remember {
		form.Set("remember", "yes")
	}
	res := b.post(p, "/login", form)
	res.want(b.t, 200, "Log out")
	return res
}

func (b *browser) wantMe(p *program, user string, visits int) {
	b.t.Helper()
	res := b.get(p, "/me")
	var me struct {
		User   string
		Visits int
	}
	if err := json.Unmarshal([]byte(res.body), &me); err != nil || res.code != 200 || me.User != user || me.Visits != visits {
		b.t.Errorf("/me: got %d %s, want %s with %d visits", res.code, res.body, user, visits)
	}
}

func (b *browser) wantLoggedOut(p *program) {
	b.t.Helper()
	if res := b.get(p, "/me"); res.code != http.StatusUnauthorized {
		b.t.Errorf("/me: got %d, want 401", res.code)
	}
}

func (b *browser) cookie(p *program) string {
	u, err := url.Parse(p.url)
	must(b.t, err)
	for _, c := range b.client.Jar.Cookies(u) {
		if c.Name == "session" {
			return c.Value
		}
	}
	return ""
}

func (b *browser) setCookie(p *program, value string) {
	u, err := url.Parse(p.url)
	must(b.t, err)
	b.client.Jar.SetCookies(u, []*http.Cookie{{Name: "session", Value: value, Path: "/"}})
}

func read(t *testing.T, res *http.Response) response {
	t.Helper()
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	must(t, err)
	return response{res.StatusCode, res.Header, string(body)}
}

func (r response) want(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("got %d, want %d", r.code, code)
	}
	for _, text := range texts {
		if !strings.Contains(r.body, text) {
			t.Errorf("the page has no %q", text)
		}
	}
}

type row struct {
	sid  string
	live bool
	left time.Duration
}

// sessions is what an operator sees in the table.
func sessions(t *testing.T, dsn string) []row {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	must(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	rows, err := conn.Query(t.Context(), "SELECT sid, expire >= now(), extract(epoch FROM expire - now())::float8 FROM schema_system.session")
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

func password(t *testing.T, dsn string) string {
	t.Helper()
	cfg, err := pgx.ParseConfig(dsn)
	must(t, err)
	return cfg.Password
}

// cacheDir is one that the account that runs servers in root's place can reach.
func cacheDir(t *testing.T) string {
	t.Helper()
	base := ""
	if os.Geteuid() == 0 {
		base = "/var/tmp"
	}
	dir, err := os.MkdirTemp(base, "quickstart-cache-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	if os.Geteuid() == 0 {
		must(t, os.Chmod(dir, 0o711))
	}
	return dir
}

// gone waits until there is no process pid.
func gone(t *testing.T, pid int) {
	t.Helper()
	timeout := time.After(deadline)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for pgtest.Running(pid) {
		select {
		case <-timeout:
			t.Fatalf("process %d is still there", pid)
		case <-tick.C:
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
