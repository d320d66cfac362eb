//go:build !windows

package main_test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/pgsession/session/internal/exampletest"
	"github.com/pgsession/session/internal/pgtest"
)

// A process that hangs takes requests and does not answer; the health check keeps
// others away from it.
func TestAProcessHangs(t *testing.T) {
	t.Parallel()
	p := start(t, pgtest.URL(t))
	ada := login(t, p, "ada")
	hangs := p.pid("2")
	must(t, syscall.Kill(hangs, syscall.SIGSTOP))
	p.WaitLog(`msg="a process does not answer" process=2`)
	ada.Get(p.URL+"/cluster").Want(t, 200, "2 of 3 processes up", "not answering")
	for range 6 {
		if by := ada.wantMe(p, "ada", 0).Header.Get("X-Served-By"); by == "2" {
			t.Error("got an answer by the process that hangs")
		}
	}
	must(t, syscall.Kill(hangs, syscall.SIGCONT))
	p.WaitLog(`msg="a process answers again" process=2`)
	ada.Get(p.URL+"/cluster").Want(t, 200, "3 of 3 processes up")
}

// Ctrl-C in a terminal goes to the whole process group. The processes do not hear
// of it: they are told to end when the last request is answered.
func TestCtrlC(t *testing.T) {
	t.Parallel()
	p := program{exampletest.Command(t, "DATABASE_URL="+pgtest.URL(t))}
	p.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.Launch()
	finish := slowLogin(t, p)
	must(t, syscall.Kill(-p.Process.Pid, syscall.SIGINT))
	p.WaitLog("shutting down")
	if strings.Contains(p.Log(), "finishing the requests under way") {
		t.Error("the processes were interrupted")
	}
	finish()
	if err := p.Wait(); err != nil {
		t.Errorf("the program ended with %v, want 0\n%s", err, p.Log())
	}
	for _, name := range names {
		exampletest.Gone(t, p.pid(name))
	}
}
