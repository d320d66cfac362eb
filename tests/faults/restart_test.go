package faults_test

import (
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/tests/faults"
)

// A restart is no error for anybody if it is over within StoreTimeout, and every
// read after it succeeds although all pooled connections are dead.
func TestFaultRestartFast(t *testing.T)      { restarted(t, "fast") }
func TestFaultRestartImmediate(t *testing.T) { restarted(t, "immediate") }

func restarted(t *testing.T, mode string) {
	server := newServer(t)
	r := newRig(t, server.URL(), rigOptions{timeout: ample})
	if err := server.Restart(t.Context(), mode); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	r.wait(recovery)
	res := r.finish("restart -m " + mode)
	res.recovered(t, back)
	res.unharmed(t)
	res.reconnected(t, 2)
}

// Two programs count in the same sessions all the time when the server is
// killed: each finds a number there that may be its own or the other's.
func TestFaultRestartWhileCounting(t *testing.T) {
	server := newServer(t)
	r := newRig(t, server.URL(), rigOptions{timeout: ample, load: faults.Load{
		Users: 2, Sessions: 1, Workers: 16, Pace: time.Millisecond, Mix: map[faults.Kind]int{faults.Add: 1},
	}})
	const times = 4
	for range times {
		if err := server.Restart(t.Context(), "immediate"); err != nil {
			t.Fatal(err)
		}
		r.wait(recovery)
	}
	res := r.finish("restart -m immediate, four times while counting")
	res.unharmed(t)
	res.reconnected(t, 2*times)
}

func TestFaultBackendKilled(t *testing.T) {
	server := newServer(t)
	r := newRig(t, server.URL(), rigOptions{timeout: ample})
	pid := get[int](t, admin(t, server.URL()), "SELECT pid FROM pg_stat_activity WHERE application_name = $1 LIMIT 1", applicationName)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.wait(recovery)
	res := r.finish("kill -9 of a backend")
	res.unharmed(t)
	res.reconnected(t, 2) // the postmaster ends all others as well
}

func TestFaultBackendsTerminated(t *testing.T) {
	server := newServer(t)
	r := newRig(t, server.URL(), rigOptions{timeout: ample})
	a := admin(t, server.URL())
	for range 3 {
		execute(t, a, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", applicationName)
		r.wait(recovery / 3)
	}
	res := r.finish("pg_terminate_backend of all, three times")
	res.unharmed(t)
	res.reconnected(t, 6)
}

// While the database is down pages that need a session are a 503, in time, the
// others work, and nobody is logged out. The first wait, and are refused only
// when it has not answered for as long as they may take; then all are at once.
func TestFaultStopped(t *testing.T) {
	server := newServer(t)
	r := newRig(t, server.URL(), rigOptions{timeout: brief})
	if err := server.Stop(t.Context(), "fast"); err != nil {
		t.Fatal(err)
	}
	r.waitRefused()
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.waitOpen()
	back := time.Now()
	r.wait(recovery)
	res := r.finish("stop, then start")
	res.refused(t)
	res.recovered(t, back)
}

// A server that hangs does not answer, and does not break connections either.
func TestFaultFrozen(t *testing.T) {
	server := newServer(t)
	r := newRig(t, server.URL(), rigOptions{timeout: brief})
	a := admin(t, server.URL())
	rows, _ := a.Query(t.Context(), "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'")
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		t.Fatal(err)
	}
	pids = append(pids, server.PID())
	thaw := sync.OnceFunc(func() { signal(t, pids, syscall.SIGCONT) })
	t.Cleanup(thaw) // before the server is closed
	signal(t, pids, syscall.SIGSTOP)
	r.waitRefused()
	thaw()
	r.wait(recovery)
	res := r.finish("SIGSTOP of postmaster and backends")
	res.refused(t)
}

func signal(t *testing.T, pids []int, sig syscall.Signal) {
	for _, pid := range pids {
		p, err := os.FindProcess(pid)
		if err == nil {
			err = p.Signal(sig)
		}
		if err != nil && sig == syscall.SIGSTOP {
			t.Errorf("signal: %v", err)
		}
	}
}
