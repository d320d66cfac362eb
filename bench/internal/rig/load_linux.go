package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// stall is how long a load may go without an answer.
const stall = 30 * time.Second

// endWithUs lets the kernel end cmd when this program is killed.
func endWithUs(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// peer is one connection of a load.
type peer struct {
	fd     int
	tag    int
	busy   bool
	sentAt time.Time
	buf    []byte
	n      int
}

// loop is a running load: one thread, one epoll, two system calls a request.
type loop struct {
	Load
	epoll    int
	peers    []peer
	byFD     map[int32]int
	busy     int
	start    time.Time
	deadline time.Time // zero: none
	result   Result
}

func (l Load) run(ctx context.Context) (_ *Result, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r := &loop{Load: l, peers: make([]peer, l.Conns), byFD: make(map[int32]int)}
	if r.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	defer syscall.Close(r.epoll)
	defer r.hangUp()
	for i := range r.peers {
		if err := r.connect(i); err != nil {
			return nil, err
		}
	}
	r.start = time.Now()
	if l.Duration > 0 {
		r.deadline = r.start.Add(l.Duration)
	}
	for i := range r.peers {
		if err := r.send(i); err != nil {
			return nil, err
		}
	}
	if err := r.answers(ctx); err != nil {
		return nil, err
	}
	r.result.Elapsed = r.deadline.Sub(r.start)
	if l.Duration == 0 {
		r.result.Elapsed = time.Since(r.start)
	}
	return &r.result, nil
}

func (r *loop) connect(i int) error {
	addr, err := net.ResolveTCPAddr("tcp4", r.Addrs[i%len(r.Addrs)])
	if err != nil {
		return err
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	p := &r.peers[i]
	p.fd, p.buf = fd, make([]byte, 4<<10)
	to := &syscall.SockaddrInet4{Port: addr.Port}
	copy(to.Addr[:], addr.IP.To4())
	if err := syscall.Connect(fd, to); err != nil {
		return fmt.Errorf("connect to %v: %w", addr, err)
	}
	if err := errors.Join(
		syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1),
		syscall.SetNonblock(fd, true),
		syscall.EpollCtl(r.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}),
	); err != nil {
		return fmt.Errorf("connection to %v: %w", addr, err)
	}
	r.byFD[int32(fd)] = i
	return nil
}

func (r *loop) hangUp() {
	for i := range r.peers {
		if r.peers[i].fd > 0 {
			_ = syscall.Close(r.peers[i].fd)
		}
	}
}

// send sends the next request of a connection, if there is one.
func (r *loop) send(i int) error {
	p := &r.peers[i]
	tag, request := r.Script.Next(i)
	if request == nil {
		return nil
	}
	p.tag, p.n, p.busy, p.sentAt = tag, 0, true, time.Now()
	r.busy++
	// A request of some hundred bytes always fits into the socket's buffer.
	n, err := syscall.Write(p.fd, request)
	if err != nil || n != len(request) {
		return fmt.Errorf("send: %d of %d bytes: %w", n, len(request), errors.Join(err))
	}
	return nil
}

// answers takes answers until none is outstanding.
func (r *loop) answers(ctx context.Context) error {
	events := make([]syscall.EpollEvent, 128)
	last := time.Now()
	for r.busy > 0 {
		n, err := syscall.EpollWait(r.epoll, events, 100)
		if err != nil && err != syscall.EINTR {
			return fmt.Errorf("epoll: %w", err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if n <= 0 {
			if time.Since(last) > stall {
				return fmt.Errorf("no answer for %v", stall)
			}
			continue
		}
		last = time.Now()
		for _, e := range events[:n] {
			if err := r.receive(r.byFD[e.Fd]); err != nil {
				return err
			}
		}
	}
	return nil
}

// receive takes what has come on a connection, and sends the next request when
// that was an answer.
func (r *loop) receive(i int) error {
	p := &r.peers[i]
	if p.n == len(p.buf) {
		p.buf = append(p.buf, make([]byte, len(p.buf))...)
	}
	n, err := syscall.Read(p.fd, p.buf[p.n:])
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
		return nil
	case err != nil:
		return fmt.Errorf("receive: %w", err)
	case n == 0:
		return errors.New("receive: the server has closed the connection")
	case !p.busy:
		return errors.New("receive: an answer that nobody asked for")
	}
	p.n += n
	a, size, err := parse(p.buf[:p.n])
	if err != nil || size == 0 {
		return err
	}
	if size != p.n {
		return fmt.Errorf("receive: %d bytes after the answer", p.n-size)
	}
	now := time.Now()
	a.Latency = now.Sub(p.sentAt)
	a.Late = !r.deadline.IsZero() && now.After(r.deadline)
	over := a.Late
	// A time without an answer would have no rate, and nothing to compare with.
	if over && r.result.InTime == 0 {
		a.Late, r.deadline = false, now
	}
	p.busy = false
	r.busy--
	r.result.Total++
	r.result.Latency.Add(a.Latency)
	if err := r.Script.Done(i, p.tag, a); err != nil {
		return err
	}
	if a.Late {
		return nil
	}
	r.result.InTime++
	if over {
		return nil
	}
	return r.send(i)
}
