package main_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pgsession/session/internal/pgtest"
)

const (
	testSecret = "a secret of the tests, forty bytes long!"
	deadline   = 2 * time.Minute // npm ci without a cache, on a busy machine
)

var (
	// binary is the program under test, built once.
	binary string
	// clone is a directory like a clone's, where the first program to start
	// installs the packages.
	clone string
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "express-test-")
	if err == nil {
		binary = filepath.Join(dir, "express.exe") // Windows wants the ending, nobody else minds
		clone = filepath.Join(dir, "clone")
		var out []byte
		if out, err = exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
			err = errors.New(string(out))
		}
		err = errors.Join(err, copyAppTo(clone))
	}
	if err != nil {
		panic(err)
	}
	pgtest.Main(cleaning{m, dir})
}

// cleaning removes what TestMain has made when the tests have run.
type cleaning struct {
	m   *testing.M
	dir string
}

func (c cleaning) Run() int {
	defer os.RemoveAll(c.dir)
	return c.m.Run()
}

// copyApp makes a directory like a clone's, without the packages.
func copyApp(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must(t, copyAppTo(dir))
	return dir
}

func copyAppTo(dir string) error {
	to := filepath.Join(dir, "examples", "express", "app")
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	files, err := os.ReadDir("app")
	for _, f := range files {
		if f.Type().IsRegular() {
			b, e := os.ReadFile(filepath.Join("app", f.Name()))
			err = errors.Join(err, e, os.WriteFile(filepath.Join(to, f.Name()), b, 0o644))
		}
	}
	return err
}

// program is the running example.
type program struct {
	t               *testing.T
	cmd             *exec.Cmd
	log             *syncBuffer
	url             string // the proxy
	golang, express string
	node            int // process ID
	exit            chan error
	expectsToFail   bool
}

var (
	listening = regexp.MustCompile(`msg=listening url=http://localhost:(\d+)`)
	goUp      = regexp.MustCompile(`program=Go url=(\S+)`)
	expressUp = regexp.MustCompile(`program=Express url=(\S+) pid=(\d+)`)
)

// start runs the example on a database; of more, those with a = and no - in front
// are environment variables, the others arguments.
func start(t *testing.T, dsn string, more ...string) *program {
	t.Helper()
	env := []string{"DATABASE_URL=" + dsn, "SESSION_SECRET=" + testSecret}
	var args []string
	for _, s := range more {
		if strings.Contains(s, "=") && !strings.HasPrefix(s, "-") {
			env = append(env, s)
		} else {
			args = append(args, s)
		}
	}
	return startIn(t, clone, env, args...)
}

func startIn(t *testing.T, dir string, env []string, args ...string) *program {
	t.Helper()
	cmd, log := command(t, dir, env, args)
	return launch(t, cmd, log)
}

func command(t *testing.T, dir string, env, args []string) (*exec.Cmd, *syncBuffer) {
	t.Helper()
	for _, name := range []string{"node", "npm"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%s is not in PATH: this test runs a real Express application; install Node.js and npm (apt-get install nodejs npm)", name)
		}
	}
	cmd := exec.Command(binary, args...)
	cmd.Dir = dir
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "DB_") && !strings.HasPrefix(name, "SESSION_") && name != "DATABASE_URL" && name != "GO_ROUTES" {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(append(cmd.Env, "PORT=0"), env...)
	log := &syncBuffer{grown: make(chan struct{}, 1)}
	cmd.Stderr = log
	return cmd, log
}

func launch(t *testing.T, cmd *exec.Cmd, log *syncBuffer) *program {
	t.Helper()
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
		if !p.expectsToFail && cmd.ProcessState != nil && cmd.ProcessState.ExitCode() != 0 {
			t.Errorf("the program ended with %v, want 0\n%s", cmd.ProcessState, log)
		}
	})
	p.waitLog("msg=listening")
	said := log.String()
	p.url = "http://127.0.0.1:" + listening.FindStringSubmatch(said)[1]
	p.golang = goUp.FindStringSubmatch(said)[1]
	m := expressUp.FindStringSubmatch(said)
	p.express = m[1]
	var err error
	p.node, err = strconv.Atoi(m[2])
	must(t, err)
	return p
}

// fails runs the example and wants it to end with exit code 1; more is as in
// start. It gives what was logged.
func fails(t *testing.T, more ...string) string {
	t.Helper()
	env, args := []string{"SESSION_SECRET=" + testSecret}, more
	if strings.Contains(more[0], "=") {
		env, args = append(env, more...), nil
	}
	cmd, log := command(t, clone, env, args)
	err := cmd.Run()
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("got %v, want exit code 1", err)
	}
	return log.String()
}

// only makes a directory for PATH that has these programs and no others.
func only(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatalf("%s is not in PATH: install Node.js and npm (apt-get install nodejs npm)", name)
		}
		must(t, os.Symlink(path, filepath.Join(dir, name)))
	}
	return dir
}

// interrupt ends the program with a signal and wants exit code 0.
func (p *program) interrupt(sig os.Signal) {
	p.t.Helper()
	must(p.t, p.cmd.Process.Signal(sig))
	if err := p.wait(); err != nil {
		p.t.Errorf("the program ended with %v, want 0\n%s", err, p.log)
	}
	p.wantLog("the Express application has ended")
}

func (p *program) wait() error {
	p.t.Helper()
	select {
	case err := <-p.exit:
		return err
	case <-time.After(deadline):
		p.t.Fatalf("the program does not end\n%s", p.log)
		return nil
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
// it takes one program's to the other.
type browser struct {
	t      *testing.T
	client *http.Client
}

type response struct {
	code   int
	header http.Header
	body   string
}

// host is that of every program's address.
var host = &url.URL{Scheme: "http", Host: "127.0.0.1", Path: "/"}

func newBrowser(t *testing.T) *browser {
	jar, err := cookiejar.New(nil)
	must(t, err)
	return &browser{t, &http.Client{Jar: jar, Timeout: deadline}}
}

func (b *browser) get(at, path string) response {
	b.t.Helper()
	res, err := b.client.Get(at + path)
	must(b.t, err)
	return read(b.t, res)
}

func (b *browser) post(at, path string, form url.Values) response {
	b.t.Helper()
	res, err := b.client.PostForm(at+path, form)
	must(b.t, err)
	return read(b.t, res)
}

// postOnly does not follow the redirect. Unlike the others it may be called by
// several goroutines.
func (b *browser) postOnly(at, path string, form url.Values) {
	b.t.Helper()
	client := *b.client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.PostForm(at+path, form)
	if err != nil {
		b.t.Error(err)
		return
	}
	res.Body.Close()
	if res.StatusCode != http.StatusSeeOther {
		b.t.Errorf("%s: got %d, want 303", path, res.StatusCode)
	}
}

func (b *browser) login(at, user string) {
	b.t.Helper()
	b.post(at, "/login", url.Values{"user": {user}}).want(b.t, 200, "You are logged in.", "Log out")
}

func (b *browser) cookie() string {
	for _, c := range b.client.Jar.Cookies(host) {
		if c.Name == "connect.sid" {
			return c.Value
		}
	}
	return ""
}

func (b *browser) cookieNames() []string {
	var names []string
	for _, c := range b.client.Jar.Cookies(host) {
		names = append(names, c.Name)
	}
	return slices.Sorted(slices.Values(names))
}

func (b *browser) setCookie(value string) {
	b.client.Jar.SetCookies(host, []*http.Cookie{{Name: "connect.sid", Value: value, Path: "/"}})
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

func countRows(t *testing.T, dsn string) (n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	must(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	must(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM schema_system.session").Scan(&n))
	return n
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
	dir, err := os.MkdirTemp(base, "express-cache-")
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
