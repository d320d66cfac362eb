package main_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/session/internal/pgtest"
	soak "github.com/pgsession/session/tests/faults/soak"
)

var (
	duration = flag.Duration("soak", 0, "how long TestSoak runs; default 20s, a minute where the environment has CI=true")
	seed     = flag.Uint64("seed", rand.Uint64(), "of TestSoak's random choices")
)

// itself, in the environment, makes the test binary the command.
const itself = "SOAK_ITSELF"

func TestMain(m *testing.M) {
	switch {
	case soak.IsProcess():
		os.Exit(soak.RunProcess(breakStore))
	case os.Getenv(itself) != "":
		fmt.Fprintln(os.Stderr, soak.Command(context.Background(), []string{"-for", "10m", "-v"}))
		os.Exit(1)
	}
	pgtest.Main(m)
}

// Nothing is lost, resurrected, shown to others or logged out, and nothing grows.
// -soak says for how long.
func TestSoak(t *testing.T) {
	d := *duration
	if d == 0 {
		d = 20 * time.Second
		if on, _ := strconv.ParseBool(os.Getenv("CI")); on {
			d = time.Minute
		}
	}
	if err := soak.Soak(t.Context(), os.Stdout, d, *seed); err != nil {
		t.Error(err)
	}
}

// No process outlives the command, even if that is killed.
func TestProcessesEndWithTheCommand(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), itself+"=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := sync.OnceFunc(func() { _ = cmd.Process.Kill() })
	defer kill()
	const want = 2 * 2 // the others are killed now and then
	var pids []int
	pid := regexp.MustCompile(`msg=started process=[12] pid=(\d+)`)
	for lines := bufio.NewScanner(stderr); len(pids) < want && lines.Scan(); {
		if m := pid.FindSubmatch(lines.Bytes()); m != nil {
			n, _ := strconv.Atoi(string(m[1]))
			pids = append(pids, n)
		}
	}
	if len(pids) < want {
		t.Fatalf("processes started: got %d, want %d", len(pids), want)
	}
	for _, pid := range pids {
		if !pgtest.Running(pid) {
			t.Errorf("process %d: is not running", pid)
		}
	}
	kill()
	_ = cmd.Wait() // says that it was killed
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for _, pid := range pids {
		for pgtest.Running(pid) {
			select {
			case <-tick.C:
			case <-deadline.C:
				t.Fatalf("process %d runs a minute after the command was killed", pid)
			}
		}
	}
}
