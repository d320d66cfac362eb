package exampletest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// Program is the example as a process of its own. It listens on a free port.
type Program struct {
	*exec.Cmd

	URL     string // once it listens
	MayFail bool   // its exit code need not be 0
	t       *testing.T
	log     log
	ended   chan struct{} // closed when the process has ended, with err
	err     error
}

// Command is the example, not started yet, without this environment's databases
// and secrets. Of more, what has a = and no - in front is an environment variable,
// the rest are arguments.
func Command(t *testing.T, more ...string) *Program {
	t.Helper()
	p := &Program{Cmd: exec.Command(binary), t: t, log: log{grown: make(chan struct{}, 1)}, ended: make(chan struct{})}
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "DB_") && !strings.HasPrefix(name, "SESSION_") && name != "DATABASE_URL" {
			p.Env = append(p.Env, v)
		}
	}
	p.Env = append(p.Env, "PORT=0", "SESSION_SECRET="+Secret)
	for _, s := range more {
		if strings.Contains(s, "=") && !strings.HasPrefix(s, "-") {
			p.Env = append(p.Env, s)
		} else {
			p.Args = append(p.Args, s)
		}
	}
	p.Stderr = &p.log
	return p
}

// Start runs the example until it listens; more is as in [Command].
func Start(t *testing.T, more ...string) *Program {
	t.Helper()
	p := Command(t, more...)
	p.Launch()
	return p
}

var listening = regexp.MustCompile(`msg=listening url=http://localhost(:\d+)`)

// Launch starts the process, waits until it listens, and ends it with the test.
func (p *Program) Launch() {
	p.t.Helper()
	p.Begin()
	p.WaitLog("msg=listening")
	p.URL = "http://127.0.0.1" + listening.FindStringSubmatch(p.Log())[1]
}

// Begin starts the process and ends it with the test.
func (p *Program) Begin() {
	p.t.Helper()
	Must(p.t, p.Cmd.Start())
	go func() {
		p.err = p.Cmd.Wait()
		close(p.ended)
	}()
	p.t.Cleanup(func() {
		_ = p.Process.Signal(os.Interrupt)
		select {
		case <-p.ended:
		case <-time.After(Deadline):
			_ = p.Process.Kill()
			p.t.Error("the program does not end")
			return
		}
		if p.err != nil && !p.MayFail {
			p.t.Errorf("the program ended with %v, want 0\n%s", p.err, p.Log())
		}
	})
}

// Wait waits until the process has ended, and says how.
func (p *Program) Wait() error {
	p.t.Helper()
	select {
	case <-p.ended:
		return p.err
	case <-time.After(Deadline):
		p.t.Fatalf("the program does not end\n%s", p.Log())
		return nil
	}
}

// Interrupt ends the process with a signal; an exit code other than 0 is a fault
// of the test, as it is at its end.
func (p *Program) Interrupt(sig os.Signal) {
	p.t.Helper()
	Must(p.t, p.Process.Signal(sig))
	if err := p.Wait(); err != nil {
		p.t.Fatalf("the program ended with %v, want 0\n%s", err, p.Log())
	}
}

// WantFailure runs the example to its end and wants exit code 1 and these words in
// the log, which it returns.
func (p *Program) WantFailure(texts ...string) string {
	p.t.Helper()
	err := p.Run()
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		p.t.Errorf("got %v, want exit code 1", err)
	}
	p.WantLog(texts...)
	return p.Log()
}

// Log is what the program has said so far.
func (p *Program) Log() string { return p.log.text() }

// WaitLog waits until the log has text in it.
func (p *Program) WaitLog(text string) {
	p.t.Helper()
	p.WaitLogTimes(text, 1)
}

// WaitLogTimes waits until the log has text in it that often.
func (p *Program) WaitLogTimes(text string, times int) {
	p.t.Helper()
	timeout := time.After(Deadline)
	for strings.Count(p.Log(), text) < times {
		select {
		case <-p.log.grown:
		case <-p.ended:
			if strings.Count(p.Log(), text) < times {
				p.t.Fatalf("the program ended: %v\n%s", p.err, p.Log())
			}
		case <-timeout:
			p.t.Fatalf("the log has not %d times %q\n%s", times, text, p.Log())
		}
	}
}

// WantLog waits for each of the texts: what a program has written before it answered
// may still be in the pipe.
func (p *Program) WantLog(texts ...string) {
	p.t.Helper()
	for _, text := range texts {
		p.WaitLog(text)
	}
}

// WantNotInLog shows neither what it looks for nor the log.
func (p *Program) WantNotInLog(secrets ...string) {
	p.t.Helper()
	for i, text := range secrets {
		if text == "" || strings.Contains(p.Log(), text) {
			p.t.Errorf("text %d of %d must be known, and not in the log", i+1, len(secrets))
		}
	}
}

// log takes what a program says and tells when it has grown.
type log struct {
	mu    sync.Mutex
	b     bytes.Buffer
	grown chan struct{}
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.grown <- struct{}{}:
	default:
	}
	return l.b.Write(b)
}

func (l *log) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
