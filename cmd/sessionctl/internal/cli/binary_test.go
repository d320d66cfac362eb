package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/creack/pty"

	"github.com/pgsession/session"
	"github.com/pgsession/session/cmd/sessionctl/internal/cli"
)

// builtIn is where built has put the program.
var builtIn string

// built is the program, built once.
var built = sync.OnceValues(func() (path string, err error) {
	if builtIn, err = os.MkdirTemp("", "sessionctl-"); err != nil {
		return "", err
	}
	path = filepath.Join(builtIn, "sessionctl")
	out, err := exec.Command("go", "build", "-o", path, "../..").CombinedOutput()
	if err != nil {
		err = errors.New(string(out))
	}
	return path, err
})

// command is a call of the real program.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return exec.CommandContext(ctx, path, args...)
}

// onTerminal runs it on a terminal, and returns what that shows.
func (r *rig) onTerminal(env []string, args ...string) (shown string, code int) {
	r.t.Helper()
	return r.onTerminalOf(200, env, args...)
}

// onTerminalOf does so on one of so many columns.
func (r *rig) onTerminalOf(columns uint16, env []string, args ...string) (shown string, code int) {
	r.t.Helper()
	ids := r.ids()
	cmd := command(r.t, args...)
	cmd.Env = append(os.Environ(), env...)
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 40, Cols: columns})
	if err != nil {
		r.t.Fatal(err)
	}
	defer tty.Close()
	var out bytes.Buffer
	_, _ = io.Copy(&out, tty) // a terminal whose program has ended is an error on Linux
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	r.discreet(out.String(), append(ids, r.ids()...))
	return out.String(), cmd.ProcessState.ExitCode()
}

func TestOnATerminal(t *testing.T) {
	r := newRig(t)
	r.manager(session.Config{Secret: secret}, session.PostgresOptions{})
	const green = "\x1b[32mok\x1b[39m"
	shown, code := r.onTerminal([]string{"TERM=xterm", "NO_COLOR="}, "doctor")
	if code != cli.ExitOK || !strings.Contains(shown, green) {
		t.Errorf("doctor: got exit code %d, colours %t, want 0 and colours", code, strings.Contains(shown, green))
	}
	for _, env := range [][]string{{"TERM=xterm", "NO_COLOR=1"}, {"TERM=dumb"}} {
		if shown, _ := r.onTerminal(env, "doctor"); strings.Contains(shown, "\x1b") || !strings.Contains(shown, "0 errors") {
			t.Errorf("doctor with %v: got colours, want none", env)
		}
	}
	column := -1
	for line := range strings.Lines(shown) {
		if before, _, ok := strings.Cut(line, "PostgreSQL 1"); ok && strings.Contains(line, "version") {
			column = len(before)
		}
		if before, _, ok := strings.Cut(line, "takes writes"); ok && len(before) != column {
			t.Errorf("columns begin at %d and %d, want them aligned", column, len(before))
		}
	}
	r.exec(insertExpired, 5000)
	shown, code = r.onTerminal([]string{"TERM=xterm"}, "prune", "--fast")
	if code != cli.ExitOK || !strings.Contains(shown, "100%") || !strings.Contains(shown, "(5000/5000") || !strings.Contains(shown, "5,000 expired rows deleted, 0 left") {
		t.Errorf("prune: got exit code %d and\n%q\nwant 0 and a bar that ends at 5000/5000", code, shown)
	}
	shown, code = r.onTerminal([]string{"TERM=xterm"}, "list", "--json")
	if code != cli.ExitOK || strings.TrimSpace(shown) != "[]" {
		t.Errorf("list --json: got exit code %d and %q, want 0 and []", code, shown)
	}
}

func TestCtrlC(t *testing.T) {
	r := newRig(t)
	r.manager(session.Config{Secret: secret}, session.PostgresOptions{})
	r.exec(insertExpired, 20_000)
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		before := r.rows()
		cmd := command(t, "prune")
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(stderr)
		said := ""
		for lines.Scan() {
			if said == "" { // the first line of progress
				if err := cmd.Process.Signal(signal); err != nil {
					t.Fatal(err)
				}
			}
			said += lines.Text() + "\n"
		}
		_ = cmd.Wait() // with an exit code, looked at below
		after := r.rows()
		if code := cmd.ProcessState.ExitCode(); code != cli.ExitInterrupted || !strings.Contains(said, "run it again to go on") {
			t.Errorf("%v: got exit code %d and %q, want 130 and a word on going on", signal, code, said)
		}
		if after == 0 || after == before || after%50 != 0 {
			t.Errorf("%v: got %d of %d rows left, want whole batches deleted and some left", signal, after, before)
		}
	}
}

// The program as a whole, without the help of a test: its exit codes, and what it
// says to a script.
func TestTheProgram(t *testing.T) {
	r := newRig(t)
	run := func(code int, args ...string) string {
		t.Helper()
		cmd := command(t, args...)
		var out, said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &said
		_ = cmd.Run() // with an exit code, looked at below
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Errorf("%v: got exit code %d, want %d\n%s", args, got, code, said.String())
		}
		r.discreet(out.String()+said.String(), r.ids())
		return out.String()
	}
	run(cli.ExitErrors, "doctor")
	run(cli.ExitOK, "schema", "--apply")
	run(cli.ExitOK, "doctor")
	m := r.manager(session.Config{Secret: oldSecret, Encrypt: true}, session.PostgresOptions{})
	ada := r.login(m, 42)
	if list := run(cli.ExitOK, "list"); !strings.Contains(list, ada.handle()) {
		t.Errorf("list: got %q, want the session's handle", list)
	}
	run(cli.ExitFailed, "rotate", "--dry-run")
	run(cli.ExitOK, "rotate")
	run(cli.ExitOK, "rotate", "--dry-run")
	ada.m = r.manager(session.Config{Secret: secret, OldSecrets: []string{oldSecret}, Encrypt: true}, session.PostgresOptions{})
	if got := ada.user(); got != 42 {
		t.Errorf("after rotate: got user %d, want 42", got)
	}
	run(cli.ExitOK, "destroy", ada.handle())
	if got := ada.user(); got != 0 {
		t.Errorf("after destroy: got user %d, want none", got)
	}
	run(cli.ExitUsage, "destroy")
	run(cli.ExitUnconnected, "stats", "--database-url", "postgres://127.0.0.1:1/nowhere")
}
