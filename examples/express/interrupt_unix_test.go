//go:build !windows

package main_test

import (
	"syscall"
	"testing"

	"github.com/pgsession/session/internal/exampletest"
	"github.com/pgsession/session/internal/pgtest"
)

// Ctrl-C in a terminal goes to the whole process group. The program ends when it
// has seen to Node, which does not hear of it.
func TestCtrlC(t *testing.T) {
	cmd := command(t, clone, "DATABASE_URL="+pgtest.URL(t))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p := launch(t, cmd)
	must(t, syscall.Kill(-p.Process.Pid, syscall.SIGINT))
	if err := p.Wait(); err != nil {
		t.Errorf("the program ended with %v, want 0\n%s", err, p.Log())
	}
	p.WantLog("shutting down", "the Express application has ended")
	exampletest.Gone(t, p.node)
}
