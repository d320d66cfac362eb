package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const startTimeout = 30 * time.Second

// node runs the Express application in dir.
type node struct {
	node, npm string
	dir       string
}

// findNode looks for Node.js, npm and the application.
func findNode() (*node, error) {
	nodePath, errNode := exec.LookPath("node")
	npmPath, errNPM := exec.LookPath("npm")
	if errNode != nil || errNPM != nil {
		return nil, errors.New(`this example runs a real Express application, so it needs Node.js 18.18 or later and npm, which are not in PATH. Install them:
  Debian, Ubuntu:         sudo apt-get install nodejs npm
  Fedora, Red Hat, Rocky: sudo dnf install nodejs npm
  macOS:                  brew install node
  elsewhere:              https://nodejs.org`)
	}
	dirs := []string{filepath.Join("examples", "express", "app"), "app"}
	if _, file, _, ok := runtime.Caller(0); ok {
		dirs = append(dirs, filepath.Join(filepath.Dir(file), "app"))
	}
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "server.js")); err == nil {
			return &node{nodePath, npmPath, dir}, nil
		}
	}
	return nil, errors.New("the Express application is not here: run this in a clone of the repository, as go run ./examples/express")
}

// install installs what package-lock.json says, unless that has been done.
func (n *node) install(ctx context.Context) error {
	// npm writes this file when it has finished.
	installed, err := os.Stat(filepath.Join(n.dir, "node_modules", ".package-lock.json"))
	if err == nil {
		wanted, err := os.Stat(filepath.Join(n.dir, "package-lock.json"))
		if err != nil || !wanted.ModTime().After(installed.ModTime()) {
			return err
		}
	}
	slog.Info("installing the Express application's packages with npm ci; this happens once", "dir", n.dir)
	out := &lines{prefix: "npm"}
	cmd := exec.CommandContext(ctx, n.npm, "ci", "--no-audit", "--no-fund")
	cmd.Dir, cmd.Stdout, cmd.Stderr = n.dir, out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = shutdownTimeout
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("npm ci: %w; what it said is above. It needs the npm registry once", err)
	}
	return nil
}

// process is the running Express application.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	url   string
	ended chan struct{} // closed when it has ended, with err
	err   error
}

var listeningOn = regexp.MustCompile(`^listening on (http://\S+)$`)

// start runs the application until it listens.
func (n *node) start(ctx context.Context, databaseURL string, idleTimeout time.Duration, routes table) (*process, error) {
	shown, err := json.Marshal(routes)
	if err != nil {
		return nil, err
	}
	up := make(chan string, 1)
	out := &lines{prefix: "express", each: func(line []byte) {
		if m := listeningOn.FindSubmatch(line); m != nil {
			select {
			case up <- string(m[1]):
			default:
			}
		}
	}}
	p := &process{cmd: exec.Command(n.node, "--require", "./lifeline.js", "server.js"), ended: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = n.dir, out, out
	p.cmd.Env = append(os.Environ(), // SESSION_SECRET and SESSION_SECRET_OLD are in there
		"NODE_ENV=production",
		"PORT=0",
		"DATABASE_URL="+databaseURL,
		"ROUTES="+string(shown),
	)
	if idleTimeout > 0 { // in milliseconds, however SESSION_TIMEOUT was written
		p.cmd.Env = append(p.cmd.Env, "SESSION_TIMEOUT="+strconv.FormatInt(idleTimeout.Milliseconds(), 10))
	}
	// Ctrl-C in the terminal must not reach it: it is needed until the requests
	// under way are answered.
	p.cmd.SysProcAttr = apart()
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start Node.js: %w", err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	timeout := time.After(startTimeout)
	select {
	case p.url = <-up:
		slog.Info("the Express application is up", "program", programExpress, "url", p.url, "pid", p.cmd.Process.Pid)
		return p, nil
	case <-p.ended:
		return nil, errors.New("the Express application does not start; what it said is above")
	case <-timeout:
		err = fmt.Errorf("the Express application does not listen after %v", startTimeout)
	case <-ctx.Done():
		err = ctx.Err()
	}
	return nil, errors.Join(err, p.stop())
}

// stop asks the application to end and waits until it has.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.stdin.Close() // Windows has no such signal; this says the same
	}
	select {
	case <-p.ended:
	case <-time.After(shutdownTimeout):
		slog.Warn("the Express application does not end, and is killed")
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	if p.err != nil {
		return fmt.Errorf("the Express application: %w", p.err)
	}
	slog.Info("the Express application has ended")
	return nil
}

// lines passes what a child writes to our standard error, each line with its name
// in front. It is safe for concurrent use.
type lines struct {
	prefix string
	each   func(line []byte)

	mu   sync.Mutex
	rest []byte // of a line that has not ended yet
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, b...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		line = bytes.TrimRight(line, "\r")
		fmt.Fprintf(os.Stderr, "%s | %s\n", l.prefix, line)
		if l.each != nil {
			l.each(line)
		}
		l.rest = rest
	}
}
