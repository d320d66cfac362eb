package citus

import (
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgsession/session/internal/citustest"
	"github.com/pgsession/session/tests/faults"
)

// killEnv names the variable with a shell command that kills a worker and has
// it back when it ends; killsEnv says how often it is run, 6 times by default.
const (
	killEnv  = "SESSION_TEST_CITUS_KILL"
	killsEnv = "SESSION_TEST_CITUS_KILLS"
)

// Workers are killed while browsers work with two programs: nothing that was
// acknowledged is lost, nothing that ended comes back, nobody is logged out, and no
// renewal waits for Citus to find out what has become of it.
func TestWorkersKilled(t *testing.T) {
	command := os.Getenv(killEnv)
	if !citustest.Real() || command == "" {
		t.Skipf("NOT RUN: %s and %s name no coordinator and no command that kills a worker", citustest.Env, killEnv)
	}
	kills, err := strconv.Atoi(os.Getenv(killsEnv))
	if err != nil {
		kills = 6
	}
	pool := citustest.Pool(t)
	var taken bool
	if err := pool.QueryRow(t.Context(), "SELECT to_regnamespace('schema_system') IS NOT NULL").Scan(&taken); err != nil || taken {
		t.Fatalf("the database must have no schema schema_system: it is made and dropped here (%v)", err)
	}
	citustest.Table(t, pool, "schema_system", columns)
	var programs []*faults.Program
	for range 2 {
		p, err := faults.StartProgram(t.Context(), os.Getenv(citustest.Env), faults.ProgramOptions{Pool: maxConns(16)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		programs = append(programs, p)
	}
	ledger := faults.NewLedger()
	var turn atomic.Int64
	run := faults.Load{
		Ledger: ledger, Pace: 50 * time.Millisecond, Pad: "pad",
		Mix:    map[faults.Kind]int{faults.Read: 30, faults.Write: 22, faults.Add: 16, faults.Renew: 22, faults.Logout: 3, faults.Replay: 7},
		Target: func() string { return programs[turn.Add(1)%2].URL },
	}.Start()
	prepared := 0
	for n := range kills {
		if err := run.Wait(200); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		var left int
		err := pool.QueryRow(t.Context(), "SELECT sum(result::int) FROM run_command_on_workers('SELECT count(*) FROM pg_prepared_xacts')").Scan(&left)
		if prepared += left; err != nil {
			t.Errorf("kill %d: %v", n, err)
		}
	}
	if err := run.Wait(200); err != nil {
		t.Fatal(err)
	}
	report := run.Stop()
	rows, err := faults.ReadRows(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	ledger.Audit(rows)
	found, notes := ledger.Findings()
	t.Logf("%d kills, %d requests: %d answered, %d 503, %d 409, %d other; longest gap %v; prepared transactions left behind %d; lost %d, resurrected %d, logged out %d, foreign %d",
		kills, report.Requests, report.OK, report.Unavailable, report.Ended, report.Other, report.LongestGap.Round(time.Millisecond), prepared,
		found.Lost, found.Resurrected, found.LoggedOut, found.Foreign)
	if found != (faults.Findings{}) {
		t.Errorf("got %+v, want nothing\n%s", found, notes)
	}
	for what, n := range report.Faults {
		t.Errorf("%s: %d times", what, n)
	}
	if prepared > 0 {
		t.Errorf("prepared transactions: got %d, want none", prepared)
	}
}
