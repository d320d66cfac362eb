package main

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"time"
)

// drainTimeout is what requests under way get before their process is told to end.
const drainTimeout = 10 * time.Second

var errBusy = errors.New("it is being restarted already")

// cluster is the processes of the application and the balancer before them. Its
// methods are safe for concurrent use.
type cluster struct {
	databaseURL string
	databases   *databases // nil: one, that somebody else looks after
	balancer    *balancer
	members     []*member
	rolling     sync.Mutex // held during a rolling restart

	ctx  context.Context // ends with close
	stop context.CancelFunc
	work sync.WaitGroup // what goes on until then
}

// member is the place of one process, which other processes take in turn.
type member struct {
	*backend
	changing sync.Mutex // held by whoever starts, stops or restarts the process

	mu      sync.Mutex
	state   string
	process *process // nil: there is none
	starts  int
}

func newCluster(databaseURL string) *cluster {
	c := &cluster{databaseURL: databaseURL, balancer: newBalancer()}
	c.ctx, c.stop = context.WithCancel(context.Background())
	for i := range processes {
		c.members = append(c.members, &member{backend: c.balancer.add(strconv.Itoa(i + 1)), state: "down"})
	}
	return c
}

// start starts all processes at once: they make the table together.
func (c *cluster) start(ctx context.Context) error {
	c.work.Go(func() { c.balancer.watch(c.ctx) })
	if c.databases != nil {
		c.work.Go(func() { c.databases.watch(c.ctx) })
	}
	errs := make([]error, len(c.members))
	var wg sync.WaitGroup
	for i, m := range c.members {
		wg.Go(func() {
			m.changing.Lock()
			defer m.changing.Unlock()
			errs[i] = c.launch(ctx, m)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// launch starts a process and gives it requests; m.changing is held.
func (c *cluster) launch(ctx context.Context, m *member) error {
	m.set("starting", nil)
	p, err := startProcess(ctx, m.name, c.databaseURL)
	if err != nil {
		m.set("down", nil)
		return err
	}
	m.set("up", p)
	c.balancer.open(m.backend, p.host)
	slog.Info("a process is up", "process", m.name, "pid", p.cmd.Process.Pid)
	c.work.Go(func() {
		defer close(p.noticed)
		<-p.ended
		c.balancer.close(m.backend)
		m.ended()
		slog.Info("a process has ended", "process", m.name, "pid", p.cmd.Process.Pid, "state", p.cmd.ProcessState)
	})
	return nil
}

// set notes a new state; p is a process that has just come up, else nil.
func (m *member) set(state string, p *process) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = state
	if p != nil {
		m.process = p
		m.starts++
	}
}

func (m *member) ended() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.process = nil
	if m.state == "up" {
		m.state = "down"
	}
}

func (m *member) running() *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.process
}

// restart replaces a process without losing a request: first it gets no new ones,
// then it finishes those it has, then it ends and another takes its place. A
// process that is down is started.
func (c *cluster) restart(ctx context.Context, m *member) error {
	if !m.changing.TryLock() {
		return errBusy
	}
	defer m.changing.Unlock()
	if p := m.running(); p != nil {
		m.set("draining", nil)
		draining, cancel := context.WithTimeout(ctx, drainTimeout)
		defer cancel()
		if err := c.balancer.drain(draining, m.backend); err != nil {
			slog.Warn("requests are still under way", "process", m.name)
		}
		m.set("stopping", nil)
		p.stop()
		<-p.noticed
	}
	return c.launch(ctx, m)
}

// kill is kill -9: whatever the process was doing, it does no more.
func (c *cluster) kill(m *member) {
	if p := m.running(); p != nil {
		slog.Info("killing a process", "process", m.name, "pid", p.cmd.Process.Pid)
		p.kill()
	}
}

// roll restarts one process after the other. It stops at the first that does not
// come up, with the rest untouched: a new version that cannot start must not take
// the old one's place everywhere.
func (c *cluster) roll(ctx context.Context) error {
	if !c.rolling.TryLock() {
		return errBusy
	}
	defer c.rolling.Unlock()
	for _, m := range c.members {
		if err := c.restart(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// background carries out what a button asks for, until close.
func (c *cluster) background(name string, f func(ctx context.Context) error) {
	c.work.Go(func() {
		switch err := f(c.ctx); {
		case err == nil:
			slog.Info(name + ": done")
		case c.ctx.Err() == nil: // else the program ends
			slog.Error(name, "error", err)
		}
	})
}

// close stops all processes and what goes on between them.
func (c *cluster) close() {
	c.stop()
	var wg sync.WaitGroup
	for _, m := range c.members {
		wg.Go(func() {
			m.changing.Lock()
			defer m.changing.Unlock()
			if p := m.running(); p != nil {
				p.stop()
			}
		})
	}
	wg.Wait()
	c.work.Wait()
}
