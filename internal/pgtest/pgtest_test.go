package pgtest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pgsession/session/internal/pgtest"
)

func TestMain(m *testing.M) {
	if dir, ok := os.LookupEnv("PGTEST_TEST_PROGRAM"); ok {
		program(dir)
		return
	}
	pgtest.Main(m)
}

// running is what program says about its server.
type running struct {
	URL, Source string
	PID         int
}

// program is another program with a server: it says what it has, and closes it when
// its standard input is closed.
func program(dataDir string) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	server, err := pgtest.Find(context.Background(), pgtest.Options{DataDir: dataDir, OwnOnly: true, Logger: log})
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(running{server.URL(), server.Source(), server.PID()})
		_, _ = io.Copy(io.Discard, os.Stdin)
		err = errors.Join(err, server.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type child struct {
	running
	cmd   *exec.Cmd
	stdin io.Closer
}

func startProgram(t *testing.T, dataDir string) *child {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	c := &child{cmd: exec.Command(self)}
	c.cmd.Env = append(os.Environ(), "PGTEST_TEST_PROGRAM="+dataDir)
	var log strings.Builder
	c.cmd.Stderr = &log
	c.stdin, err = c.cmd.StdinPipe()
	must(t, err)
	stdout, err := c.cmd.StdoutPipe()
	must(t, err)
	must(t, c.cmd.Start())
	t.Cleanup(func() {
		c.stdin.Close()
		_ = c.cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		t.Fatalf("the program did not start: %v\n%s", c.cmd.Wait(), log.String())
	}
	must(t, json.Unmarshal(line, &c.running))
	return c
}

// close lets the program close its server, and waits for its end.
func (c *child) close(t *testing.T) {
	t.Helper()
	c.stdin.Close()
	must(t, c.cmd.Wait())
}

func (c *child) kill(t *testing.T) {
	t.Helper()
	must(t, c.cmd.Process.Kill())
	_ = c.cmd.Wait()
}

func TestFindTakesTheFirstSource(t *testing.T) {
	dsn := pgtest.URL(t)
	u, err := url.Parse(dsn)
	must(t, err)
	password, _ := u.User.Password()
	parts := map[string]string{
		"DB_HOST": u.Hostname(), "DB_PORT": u.Port(), "DB_USER": u.User.Username(),
		"DB_PASSWORD": password, "DB_NAME": strings.TrimPrefix(u.Path, "/"),
	}
	wrong := map[string]string{"DB_HOST": "127.0.0.1", "DB_PORT": "1"}
	for _, tt := range []struct {
		name    string
		env     map[string]string
		url     string
		source  string
		options pgtest.Options
		wantOwn bool
	}{
		{"DATABASE_URL goes before DB_*", with(wrong, "DATABASE_URL", dsn), dsn, "DATABASE_URL", pgtest.Options{}, false},
		{"DB_* go before a server of our own", parts, "", "DB_HOST, DB_PORT, DB_USER, DB_PASSWORD, DB_NAME", pgtest.Options{}, false},
		{"OwnOnly passes both over", with(wrong, "DATABASE_URL", "postgres://127.0.0.1:1/none"), "", "own", pgtest.Options{OwnOnly: true}, true},
		{"nothing is named", nil, "", "own", pgtest.Options{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			clearEnv(t)
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			server, err := pgtest.Find(t.Context(), tt.options)
			must(t, err)
			defer server.Close()
			if tt.url != "" && server.URL() != tt.url {
				t.Error("got another URL than DATABASE_URL")
			}
			if !strings.Contains(server.Source(), tt.source) || strings.Contains(server.Source(), password) {
				t.Errorf("got source %q, want it to name %q and no password", server.Source(), tt.source)
			}
			if own := server.PID() != 0; own != tt.wantOwn {
				t.Errorf("got own server %v, want %v", own, tt.wantOwn)
			}
			if got := query[int](t, server.URL(), "SELECT 1"); got != 1 {
				t.Errorf("got %d, want 1", got)
			}
			if err := server.Stop(t.Context(), "fast"); (err == nil) != tt.wantOwn {
				t.Errorf("Stop: got %v, want an error only where the server is not our own", err)
			}
		})
	}
}

func TestAFailedConnectionNamesEverythingButThePassword(t *testing.T) {
	dsn, err := url.Parse(pgtest.URL(t))
	must(t, err)
	for _, tt := range []struct {
		name string
		env  map[string]string
		want []string
	}{
		{
			"wrong password",
			map[string]string{"DATABASE_URL": "postgres://ada:hush-hush@" + dsn.Host + "/shop"},
			[]string{"DATABASE_URL", "host " + dsn.Hostname(), "port " + dsn.Port(), "database shop", "user ada"},
		},
		{
			"nobody listens",
			map[string]string{"DB_HOST": "127.0.0.1", "DB_PORT": "1", "DB_USER": "ada", "DB_PASSWORD": "hush-hush", "DB_NAME": "shop"},
			[]string{"DB_HOST", "host 127.0.0.1", "port 1,", "database shop", "user ada"},
		},
		{
			"the usual values fill in",
			map[string]string{"DB_PORT": "1", "DB_PASSWORD": "hush-hush"},
			[]string{"DB_PORT", "host localhost", "port 1,", "database postgres", "user postgres"},
		},
		{
			"not a URL",
			map[string]string{"DATABASE_URL": "hush-hush@somewhere"},
			[]string{"DATABASE_URL", "postgres://user:password@host:5432/database?connect_timeout=2"},
		},
		{
			"a malformed URL",
			map[string]string{"DATABASE_URL": "postgres://ada:hush-hush%@/shop?port=x"},
			[]string{"DATABASE_URL", "postgres://user:password@host:5432/database?connect_timeout=2"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			clearEnv(t)
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			_, err := pgtest.Find(t.Context(), pgtest.Options{})
			if err == nil {
				t.Fatal("got a server, want an error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want it to contain %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "hush") {
				t.Error("the error has the password in it")
			}
		})
	}
}

func TestAnOwnServerIsStoppedStartedAndKilled(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgtest.Options{Settings: map[string]string{"application_name": "it's ours"}})
	exec1(t, server.URL(), "CREATE TABLE kept (n int)")
	if got := query[string](t, server.URL(), "SHOW fsync"); got != "off" {
		t.Errorf("fsync of a temporary server: got %s, want off", got)
	}
	if got := query[string](t, server.URL(), "SELECT reset_val FROM pg_settings WHERE name = 'application_name'"); got != "it's ours" {
		t.Errorf("setting: got %q, want it's ours", got)
	}
	for _, tt := range []struct {
		name string
		end  func() error
	}{
		{"smart", func() error { return server.Stop(t.Context(), "smart") }},
		{"fast", func() error { return server.Stop(t.Context(), "fast") }},
		{"immediate", func() error { return server.Stop(t.Context(), "immediate") }},
		{"killed", server.Kill},
		{"killed, then stopped", func() error {
			return errors.Join(server.Kill(), server.Stop(t.Context(), "fast"))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pid := server.PID()
			exec1(t, server.URL(), "INSERT INTO kept VALUES (1)")
			before := query[int](t, server.URL(), "SELECT count(*) FROM kept")
			must(t, tt.end())
			gone(t, pid)
			if _, err := pgx.Connect(t.Context(), server.URL()); err == nil {
				t.Error("a stopped server answers")
			}
			must(t, server.Start(t.Context()))
			if server.PID() == pid || server.PID() == 0 {
				t.Errorf("got process %d after %d, want another", server.PID(), pid)
			}
			if got := query[int](t, server.URL(), "SELECT count(*) FROM kept"); got != before {
				t.Errorf("got %d rows, want %d", got, before)
			}
		})
	}
	must(t, server.Restart(t.Context(), "fast"))
	must(t, server.Start(t.Context())) // runs already
	pid := server.PID()
	must(t, server.Close())
	gone(t, pid)
	must(t, server.Close())
}

func TestKeptDataSurvive(t *testing.T) {
	t.Parallel()
	dir := keptDir(t)
	first := pgtest.Own(t, pgtest.Options{DataDir: dir})
	exec1(t, first.URL(), "CREATE TABLE kept AS SELECT 42 AS n")
	if got := query[string](t, first.URL(), "SHOW fsync"); got != "on" {
		t.Errorf("fsync of a kept server: got %s, want on", got)
	}
	pid := first.PID()
	must(t, first.Close())
	gone(t, pid)

	second := pgtest.Own(t, pgtest.Options{DataDir: dir})
	if got := query[int](t, second.URL(), "SELECT n FROM kept"); got != 42 {
		t.Errorf("got %d, want 42", got)
	}
}

// The first program to close must not take the database from under the second.
func TestTwoProgramsShareAKeptServer(t *testing.T) {
	t.Parallel()
	dir := keptDir(t)
	first, second := startProgram(t, dir), startProgram(t, dir)
	if first.URL != second.URL || first.PID != second.PID {
		t.Fatalf("got processes %d and %d, want one server", first.PID, second.PID)
	}
	exec1(t, first.URL, "CREATE TABLE kept AS SELECT 42 AS n")
	first.close(t)
	if got := query[int](t, second.URL, "SELECT n FROM kept"); got != 42 {
		t.Errorf("got %d, want 42", got)
	}
	second.close(t)
	gone(t, first.PID)
}

func TestManyProgramsStartOneKeptServer(t *testing.T) {
	t.Parallel()
	dir := keptDir(t)
	servers := make(chan *pgtest.Server)
	for range 8 { // each with locks of its own, as separate programs have
		go func() {
			server, err := pgtest.Find(t.Context(), pgtest.Options{DataDir: dir, OwnOnly: true})
			if err != nil {
				t.Error(err)
			}
			servers <- server
		}()
	}
	pids := map[int]bool{}
	var all []*pgtest.Server
	for range 8 {
		if server := <-servers; server != nil {
			pids[server.PID()] = true
			all = append(all, server)
		}
	}
	if len(pids) != 1 {
		t.Errorf("got processes %v, want one", pids)
	}
	for _, server := range all {
		must(t, server.Close())
	}
	for pid := range pids {
		gone(t, pid)
	}
}

func TestAKilledProgramLeavesNoTemporaryServer(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("no watchdog on Windows")
	}
	c := startProgram(t, "")
	dir := query[string](t, c.URL, "SHOW data_directory")
	c.kill(t)
	gone(t, c.PID)
	eventually(t, "the directory is removed", func() bool {
		_, err := os.Stat(filepath.Dir(dir))
		return errors.Is(err, os.ErrNotExist)
	})
}

// A kept server outlives a killed program; the next one finds it, and ends it.
func TestAKilledProgramLeavesItsKeptServerToTheNext(t *testing.T) {
	t.Parallel()
	dir := keptDir(t)
	first := startProgram(t, dir)
	first.kill(t)
	second := startProgram(t, dir)
	if second.PID != first.PID {
		t.Errorf("got process %d, want the first program's %d", second.PID, first.PID)
	}
	second.close(t)
	gone(t, first.PID)
}

func TestAStalePostmasterPIDDoesNotMatter(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		pid  int // now of another program; of nobody
	}{
		{"its process ID is another program's", os.Getpid()},
		{"its process ID is nobody's", 1 << 30},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := pgtest.Own(t, pgtest.Options{})
			data := query[string](t, server.URL(), "SHOW data_directory")
			file := filepath.Join(data, "postmaster.pid")
			was, err := os.ReadFile(file)
			must(t, err)
			must(t, server.Stop(t.Context(), "fast"))
			lines := strings.SplitN(string(was), "\n", 2)
			must(t, os.WriteFile(file, []byte(strconv.Itoa(tt.pid)+"\n"+lines[1]), 0o600))
			must(t, pgtest.GiveToAccount(file))
			must(t, server.Start(t.Context()))
			query[int](t, server.URL(), "SELECT 1")
		})
	}
}

func TestAnotherMajorVersionsDataAreRefused(t *testing.T) {
	t.Parallel()
	dir := keptDir(t)
	server := pgtest.Own(t, pgtest.Options{DataDir: dir})
	data := query[string](t, server.URL(), "SHOW data_directory")
	must(t, server.Close())
	must(t, os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte("9.6\n"), 0o600))
	_, err := pgtest.Find(t.Context(), pgtest.Options{DataDir: dir, OwnOnly: true})
	if err == nil || !strings.Contains(err.Error(), "use another directory for each major version") {
		t.Errorf("got %v, want words about the version", err)
	}
}

func TestADirectoryThatOthersCanWriteToIsRefused(t *testing.T) {
	t.Parallel()
	dir := keptDir(t)
	server := pgtest.Own(t, pgtest.Options{DataDir: dir})
	must(t, server.Close())
	majors, err := os.ReadDir(dir)
	must(t, err)
	must(t, os.Chmod(filepath.Join(dir, majors[0].Name()), 0o777))
	_, err = pgtest.Find(t.Context(), pgtest.Options{DataDir: dir, OwnOnly: true})
	if err == nil || !strings.Contains(err.Error(), "not a directory of ours alone") {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestNoPostgreSQLIsAnErrorInPlainWords(t *testing.T) {
	noPostgreSQL(t)
	_, err := pgtest.Find(t.Context(), pgtest.Options{})
	if !errors.Is(err, pgtest.ErrNone) {
		t.Fatalf("got %v, want ErrNone", err)
	}
	for _, want := range []string{"no server binaries", "no container", "no download", "DATABASE_URL=postgres://"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want it to contain %q", err, want)
		}
	}
	for goos, want := range map[string]string{
		"linux": "apt-get install postgresql", "freebsd": "dnf install postgresql-server",
		"darwin": "brew install postgresql", "windows": "winget install PostgreSQL",
	} {
		if got := pgtest.Install(goos); !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want it to contain %q", goos, got, want)
		}
	}
}

func TestURLGivesADatabaseOfItsOwn(t *testing.T) {
	t.Parallel()
	var first string
	t.Run("a test", func(t *testing.T) {
		first = pgtest.URL(t)
		if second := pgtest.URL(t); first == second {
			t.Error("two databases have one URL")
		}
		conn, err := pgx.Connect(t.Context(), first) // left open: dropping must not wait for it
		must(t, err)
		_, err = conn.Exec(t.Context(), "CREATE TABLE x ()")
		must(t, err)
	})
	if _, err := pgx.Connect(t.Context(), first); err == nil {
		t.Error("the database outlived its test")
	}
	if got := query[int](t, pgtest.Pool(t).Config().ConnString(), "SELECT 1"); got != 1 {
		t.Errorf("got %d, want 1", got)
	}
}

// keptDir is a directory that root's stand-in can reach: t.TempDir is closed to it.
func keptDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(shortTemp(), "pgtest-kept-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	if os.Geteuid() == 0 {
		must(t, os.Chmod(dir, 0o711))
	}
	return filepath.Join(dir, "data")
}

func shortTemp() string {
	if os.Geteuid() == 0 {
		return "/var/tmp"
	}
	return ""
}

// noPostgreSQL takes away every source.
func noPostgreSQL(t *testing.T) {
	t.Helper()
	clearEnv(t)
	empty := t.TempDir()
	cache := filepath.Dir(keptDir(t))
	t.Setenv("HOME", cache)
	t.Setenv("XDG_CACHE_HOME", cache)
	t.Setenv("LocalAppData", cache)
	t.Setenv("PATH", empty)
	t.Setenv("PGTEST_BINDIR", empty)
	t.Setenv("DOCKER_HOST", "unix://"+filepath.Join(empty, "none.sock"))
}

func clearEnv(t *testing.T) {
	t.Helper()
	for _, name := range []string{"DATABASE_URL", "DB_HOST", "DB_PORT", "DB_USER", "DB_PASSWORD", "DB_NAME"} {
		t.Setenv(name, "")
	}
}

func with(env map[string]string, name, value string) map[string]string {
	out := map[string]string{name: value}
	for n, v := range env {
		out[n] = v
	}
	return out
}

func exec1(t *testing.T, dsn, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	must(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), sql)
	must(t, err)
}

func query[T any](t *testing.T, dsn, sql string) T {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	must(t, err)
	defer conn.Close(t.Context())
	var v T
	must(t, conn.QueryRow(t.Context(), sql).Scan(&v))
	return v
}

// gone waits until there is no process pid.
func gone(t *testing.T, pid int) {
	t.Helper()
	eventually(t, fmt.Sprintf("process %d ends", pid), func() bool { return !pgtest.Running(pid) })
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("a minute passed, and not yet: %s", what)
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
