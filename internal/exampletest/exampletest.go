// Package exampletest runs an example as the program that it is, and visits it as
// a browser does. It is for the examples' tests.
package exampletest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pgsession/session/internal/pgtest"
)

const (
	// Secret is the SESSION_SECRET of programs that are given no other.
	Secret = "for tests: 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1"

	// Deadline bounds every wait: npm ci without a cache, on a busy machine.
	Deadline = 2 * time.Minute
)

// binary is the program under test.
var binary string

// Main builds the program whose directory the tests run in, once, then runs the
// tests (m is a *testing.M) as [pgtest.Main] does. What setup puts into dir is
// gone afterwards, as is the program.
func Main(m interface{ Run() int }, setup ...func(dir string) error) {
	dir, err := os.MkdirTemp("", "example-test-")
	if err == nil {
		binary = filepath.Join(dir, "example.exe") // Windows wants the ending, nobody else minds
		if out, e := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); e != nil {
			err = fmt.Errorf("%w: %s", e, out)
		}
	}
	for _, f := range setup {
		err = errors.Join(err, f(dir))
	}
	if err != nil {
		panic(err)
	}
	pgtest.Main(cleaning{m, dir})
}

// cleaning removes what Main has made when the tests have run, and shows what the
// example's code has logged in this process if one of them failed.
type cleaning struct {
	m   interface{ Run() int }
	dir string
}

func (c cleaning) Run() int {
	defer os.RemoveAll(c.dir)
	said := &log{}
	slog.SetDefault(slog.New(slog.NewTextHandler(said, nil)))
	code := c.m.Run()
	if code != 0 {
		fmt.Fprintf(os.Stderr, "what was logged in this process:\n%s", said.text())
	}
	return code
}

// CacheDir is a directory of the test's own that the account which runs servers in
// root's place can reach.
func CacheDir(t *testing.T) string {
	t.Helper()
	base := ""
	if os.Geteuid() == 0 {
		base = "/var/tmp"
	}
	dir, err := os.MkdirTemp(base, "example-cache-")
	Must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	if os.Geteuid() == 0 {
		Must(t, os.Chmod(dir, 0o711))
	}
	return dir
}

// Gone waits until there is no process pid.
func Gone(t *testing.T, pid int) {
	t.Helper()
	timeout := time.After(Deadline)
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

// Password is the password in a connection string.
func Password(t *testing.T, dsn string) string {
	t.Helper()
	cfg, err := pgx.ParseConfig(dsn)
	Must(t, err)
	return cfg.Password
}

// Rows counts the sessions in the table: its rows, but for the marks that renewals
// leave under old IDs.
func Rows(t *testing.T, dsn string) (n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	Must(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	Must(t, conn.QueryRow(t.Context(), `SELECT count(*) FROM schema_system.session WHERE left(sess::text, 3) <> '"0e'`).Scan(&n))
	return n
}

// Must ends the test when there is an error.
func Must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
