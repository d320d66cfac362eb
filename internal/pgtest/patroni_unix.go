//go:build !windows

package pgtest

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"
)

// signalsWork reports whether processes can be frozen here.
func signalsWork() error { return nil }

func freeze(pid int) error { return signal(pid, syscall.SIGSTOP) }
func thaw(pid int) error   { return signal(pid, syscall.SIGCONT) }
func kill(pid int) error   { return signal(pid, syscall.SIGKILL) }

// signal sends a signal; a process that has ended meanwhile is no error.
func signal(pid int, s syscall.Signal) error {
	if pid == 0 { // our own process group
		return errors.New("pgtest: there is no server to send a signal to")
	}
	if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("pgtest: %v to process %d: %w", s, pid, err)
	}
	return nil
}

// watchAllScript does what watchScript does for a whole cluster: first whoever
// looks after the servers, then these. A process ID may belong to somebody else by
// now, so the command line must name the directory.
const watchAllScript = `
while read -r line; do :; done
[ -d "$1" ] || exit 0
ours() { ps -o args= -p "$1" 2>/dev/null | grep -qF "$2"; }
end() { if ours "$1" "$2"; then kill -KILL "$1" 2>/dev/null; fi; }
while read -r pid; do end "$pid" "$1"; done <"$1/pids"
for data in "$1"/*/data; do
	if read -r pid 2>/dev/null <"$data/postmaster.pid"; then end "$pid" "$data"; fi
done
cd / && rm -rf "$1"
`

// watchOverAll ends a cluster whose program was killed.
func watchOverAll(dir string, as *account) (*watchdog, error) {
	return watchBy(watchAllScript, dir, as)
}

// watchBy runs a script that waits for the end of its standard input.
func watchBy(script, dir string, as *account) (*watchdog, error) {
	cmd := exec.Command("/bin/sh", "-c", script, "pgtest-watchdog", dir)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	as.run(cmd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a watchdog for the temporary server: %w", err)
	}
	return &watchdog{cmd, stdin}, nil
}
