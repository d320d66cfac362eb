package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pgsession/session"
)

const (
	// roleArg, and a name, make this program one process of the application.
	roleArg = "process"

	startTimeout = 30 * time.Second
)

// runProcess is the application, as it would run on any machine of a cluster. All
// that makes it one of several is in its environment: the same database and the
// same SESSION_SECRET.
func runProcess(ctx context.Context, name string) error {
	// Our standard input is a pipe that nobody writes to. It ends when the program
	// at its other end does, however that happens; then nobody needs us.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()

	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()
	store, err := session.NewPostgresStore(ctx, pool, session.PostgresOptions{})
	if err != nil {
		return err
	}
	cfg, err := session.ConfigFromEnv()
	if err != nil {
		return err
	}
	cfg.TrustProxy = true // the balancer says whether the browser came by HTTPS
	sessions, err := session.New(store, cfg)
	if err != nil {
		return err
	}
	defer sessions.Close()

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := newServer(http.MaxBytesHandler(sessions.Handler(newApp(name)), maxFormBytes))
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(ln) }()
	fmt.Println(ln.Addr()) // for the program that has started us

	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		slog.Info("finishing the requests under way")
		return shutdown(server)
	}
}

// process is a process of the application, seen from outside.
type process struct {
	cmd     *exec.Cmd
	stdin   io.Closer
	host    string        // where it listens
	ended   chan struct{} // closed when it has ended
	noticed chan struct{} // closed when the balancer knows it, too
}

// startProcess runs this program as one of the application's processes, until it
// listens.
func startProcess(ctx context.Context, name, databaseURL string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(self, roleArg, name), ended: make(chan struct{}), noticed: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "DATABASE_URL="+databaseURL) // SESSION_SECRET is in there
	p.cmd.Stderr = os.Stderr
	// Ctrl-C in the terminal must not reach it: it is needed until the requests
	// under way are answered.
	p.cmd.SysProcAttr = apart()
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start process %s: %w", name, err)
	}
	p.stdin = stdin
	up := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		if lines.Scan() {
			up <- lines.Text()
		}
		_, _ = io.Copy(io.Discard, stdout)
		_ = p.cmd.Wait() // its state says how it ended
		close(p.ended)
	}()
	select {
	case p.host = <-up:
		return p, nil
	case <-p.ended:
		return nil, fmt.Errorf("process %s does not start: %v; what it said is above", name, p.cmd.ProcessState)
	case <-time.After(startTimeout):
		err = fmt.Errorf("process %s does not listen after %v", name, startTimeout)
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.stop()
	return nil, err
}

// stop asks the process to end, waits until it has answered what is under way and
// ended, and kills it if that takes too long.
func (p *process) stop() {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.stdin.Close() // Windows has no such signal; this says the same
	}
	select {
	case <-p.ended:
	case <-time.After(shutdownTimeout + time.Second):
		slog.Warn("a process does not end, and is killed", "pid", p.cmd.Process.Pid)
		p.kill()
		<-p.ended
	}
}

// kill ends the process at once, without a chance to do anything about it.
func (p *process) kill() { _ = p.cmd.Process.Kill() }
