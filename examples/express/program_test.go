package main_test

import (
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/pgsession/session/internal/exampletest"
)

// clone is a directory like a clone's, where the first program to start installs
// the packages.
var clone string

func TestMain(m *testing.M) {
	exampletest.Main(m, func(dir string) error {
		clone = filepath.Join(dir, "clone")
		return copyAppTo(clone)
	})
}

var must = exampletest.Must

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

// program is the running example; its URL is the proxy's.
type program struct {
	*exampletest.Program
	t               *testing.T
	golang, express string
	node            int // process ID
}

var (
	goUp      = regexp.MustCompile(`program=Go url=(\S+)`)
	expressUp = regexp.MustCompile(`program=Express url=(\S+) pid=(\d+)`)
)

// command is the example, to be run in a directory like a clone's.
func command(t *testing.T, dir string, more ...string) *exampletest.Program {
	t.Helper()
	for _, name := range []string{"node", "npm"} {
		path(t, name)
	}
	p := exampletest.Command(t, append([]string{"GO_ROUTES="}, more...)...)
	p.Dir = dir
	return p
}

// start runs the example on a database.
func start(t *testing.T, dsn string, more ...string) *program {
	t.Helper()
	return launch(t, command(t, clone, append(more, "DATABASE_URL="+dsn)...))
}

func launch(t *testing.T, cmd *exampletest.Program) *program {
	t.Helper()
	cmd.Launch()
	said := cmd.Log()
	express := expressUp.FindStringSubmatch(said)
	node, err := strconv.Atoi(express[2])
	must(t, err)
	return &program{cmd, t, goUp.FindStringSubmatch(said)[1], express[1], node}
}

// Interrupt ends the program with a signal, and wants Express to have ended first.
func (p *program) Interrupt(sig os.Signal) {
	p.t.Helper()
	p.Program.Interrupt(sig)
	p.WantLog("the Express application has ended")
}

// only makes a directory for PATH that has these programs and no others.
func only(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		must(t, os.Symlink(path(t, name), filepath.Join(dir, name)))
	}
	return dir
}

func path(t *testing.T, name string) string {
	t.Helper()
	found, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not in PATH: this test runs a real Express application; install Node.js and npm (apt-get install nodejs npm)", name)
	}
	return found
}

// browser knows the pages of the shop, on either side.
type browser struct{ *exampletest.Browser }

func newBrowser(t *testing.T) browser { return browser{exampletest.NewBrowser(t, "connect.sid")} }

func (b browser) login(at, user string) {
	b.T.Helper()
	b.Post(at+"/login", url.Values{"user": {user}}).Want(b.T, 200, "You are logged in.", "Log out")
}
