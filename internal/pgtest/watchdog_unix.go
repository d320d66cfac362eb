//go:build !windows

package pgtest

import (
	"io"
	"os/exec"
)

// watchScript reads until the other end of its standard input is closed, which
// happens at Close and, however it ends, at the end of our process. It then kills
// the server, and removes the directory, if they are still there.
const watchScript = `
while read -r line; do :; done
[ -d "$1" ] || exit 0
if read -r pid 2>/dev/null <"$1/data/postmaster.pid"; then
	kill -QUIT "$pid" 2>/dev/null
	tries=0
	while kill -0 "$pid" 2>/dev/null && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
	kill -KILL "$pid" 2>/dev/null
fi
cd / && rm -rf "$1"
`

// watchdog ends a temporary server whose program was killed. A parent-death signal
// would do for Linux alone, and hangs on the thread that started the child.
type watchdog struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

func watchOver(dir string, as *account) (*watchdog, error) { return watchBy(watchScript, dir, as) }

func (w *watchdog) end() error {
	w.stdin.Close()
	return w.cmd.Wait()
}
