//go:build !windows

package main_test

import (
	"syscall"
	"testing"

	"github.com/pgsession/session/internal/pgtest"
)

// Ctrl-C in a terminal goes to the whole process group. The program ends when it
// has seen to Node, which does not hear of it.
func TestCtrlC(t *testing.T) {
	cmd, log := command(t, clone, []string{"DATABASE_URL=" + pgtest.URL(t), "SESSION_SECRET=" + testSecret}, nil)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p := launch(t, cmd, log)
	must(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGINT))
	if err := p.wait(); err != nil {
		t.Errorf("the program ended with %v, want 0\n%s", err, log)
	}
	p.wantLog("shutting down", "the Express application has ended")
	gone(t, p.node)
}
