package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// aliveTimeout bounds everything that must succeed again once a trouble is
	// over, on a busy machine.
	aliveTimeout = time.Minute
	// again is the pause between two tries.
	again = 100 * time.Millisecond
)

// process is one process of the application, through all its lives.
type process struct {
	s        *soak
	settings settings
	steady   bool // never killed: its memory is watched
	life     atomic.Pointer[life]
}

// life is a process of the operating system.
type life struct {
	url   string
	cmd   *exec.Cmd
	stdin io.Closer // closed when the soak ends, even if that is killed
	ended chan struct{}
	said  bytes.Buffer // on standard error; read it when ended is closed
	over  atomic.Bool  // it was told to end
}

// start starts the process; while the database is down it tries again.
func (p *process) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, aliveTimeout)
	defer cancel()
	for {
		l, err := p.launch(ctx)
		if err == nil {
			p.life.Store(l)
			p.s.o.logger.Debug("started", "process", p.settings.Name, "pid", l.cmd.Process.Pid)
			return nil
		}
		if !pause(ctx, again) {
			return fmt.Errorf("process %s does not start: %w", p.settings.Name, err)
		}
	}
}

func (p *process) launch(ctx context.Context) (*life, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	set, err := json.Marshal(p.settings)
	if err != nil {
		return nil, err
	}
	l := &life{cmd: exec.Command(self), ended: make(chan struct{})}
	l.cmd.Env = append(os.Environ(), processVariable+"="+string(set))
	l.cmd.Stderr = &l.said
	if l.stdin, err = l.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := l.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := l.cmd.Start(); err != nil {
		return nil, err
	}
	first := make(chan started, 1)
	go p.attend(l, stdout, first)
	select {
	case s := <-first:
		if l.url = s.URL; s.URL == "" {
			l.end(syscall.SIGKILL)
			return nil, errors.New(s.Error)
		}
		return l, nil
	case <-ctx.Done():
		l.end(syscall.SIGKILL)
		return nil, context.Cause(ctx)
	}
}

// attend stays with a life to its end.
func (p *process) attend(l *life, stdout io.Reader, first chan<- started) {
	defer close(l.ended)
	s := started{Error: "it ended at once"}
	r := bufio.NewReader(stdout)
	if line, err := r.ReadBytes('\n'); err == nil {
		_ = json.Unmarshal(line, &s)
	}
	if s.URL == "" {
		l.over.Store(true) // by itself
	}
	first <- s
	_, _ = io.Copy(io.Discard, r)
	_ = l.cmd.Wait() // its state says how it ended
	if !l.over.Load() {
		p.s.problem("process %s ended by itself: %v", p.settings.Name, l.cmd.ProcessState)
		p.s.crashed.Store(true)
	}
	if said := l.said.Bytes(); len(said) > 0 {
		p.s.problem("process %s said: %s", p.settings.Name, said[:min(len(said), 4000)])
	}
}

// end ends a life and returns when it is over.
func (l *life) end(sig syscall.Signal) {
	l.over.Store(true)
	_ = l.cmd.Process.Signal(sig) // else it has ended already
	timer := time.NewTimer(shutdownTimeout + aliveTimeout)
	defer timer.Stop()
	select {
	case <-l.ended:
	case <-timer.C:
		_ = l.cmd.Process.Kill()
		<-l.ended
	}
}

// kill ends the process without a chance to do anything about it.
func (p *process) kill() {
	if l := p.life.Swap(nil); l != nil {
		l.end(syscall.SIGKILL)
	}
}

// stop ends the process in order.
func (p *process) stop() {
	l := p.life.Swap(nil)
	if l == nil {
		return
	}
	l.end(syscall.SIGTERM)
	if code := l.cmd.ProcessState.ExitCode(); code != 0 {
		p.s.problem("process %s, asked to end: got %v, want exit status 0", p.settings.Name, l.cmd.ProcessState)
	}
}

// vitals asks a life how it is.
func (l *life) vitals(ctx context.Context, client *http.Client) (vitals, error) {
	var v vitals
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url+"/soak/vitals", nil)
	if err != nil {
		return v, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	err = json.NewDecoder(resp.Body).Decode(&v)
	return v, err
}

// problems are what must never happen and no ledger knows, and how often each did.
type problems struct {
	mu     sync.Mutex
	counts map[string]int
}

func (p *problems) problem(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.counts == nil {
		p.counts = map[string]int{}
	}
	p.counts[fmt.Sprintf(format, args...)]++
}

func (p *problems) list() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for what, n := range p.counts {
		all = append(all, fmt.Sprintf("%s (%d times)", what, n))
	}
	return all
}

// pause waits, and reports false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
