package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	portAttempts = 10
	patience     = 30 * time.Second // for a server to start
	grace        = 10 * time.Second // for one to end
)

// freePort chooses below the range from which Linux serves outgoing connections.
func freePort() int {
	for range 100 {
		port := 12000 + rand.IntN(8000)
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		ln.Close()
		return port
	}
	return 12000 + rand.IntN(8000)
}

// process is a program that runs beside this one and ends with it.
type process struct {
	cmd   *exec.Cmd
	said  tail
	ended chan struct{}
	err   error // to be read after ended is closed
}

func start(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.said, &p.said
	endWithUs(cmd)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// startOnPort starts a program on a port that is free, another one if somebody takes
// it meanwhile, and waits until it answers at that address.
func startOnPort(ctx context.Context, command func(port int) *exec.Cmd, answers func(addr string) error) (p *process, addr string, err error) {
	for range portAttempts {
		port := freePort()
		addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if p, err = start(command(port)); err != nil {
			return nil, "", err
		}
		if err = p.wait(ctx, func() error { return answers(addr) }); err == nil {
			return p, addr, nil
		}
		p.stop()
		if !strings.Contains(strings.ToLower(p.said.String()), "address already in use") {
			break
		}
	}
	return nil, "", err
}

// wait waits until ready says that the program answers.
func (p *process) wait(ctx context.Context, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("it ended at once: %w\n%s", errors.Join(p.err), p.said.String())
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w\n%s", err, p.said.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// stop ends the program, by SIGTERM as long as it listens to that.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(grace):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// tail keeps the last of what a program prints.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

const tailBytes = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b.Write(p)
	if over := t.b.Len() - tailBytes; over > 0 {
		t.b.Next(over)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}
