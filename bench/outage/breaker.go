package main

import (
	"context"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/pgtest"
)

// breaker makes the database go away and come back.
type breaker struct {
	server  *pgtest.Server
	url     string // for the program
	swallow *swallower
}

func newBreaker(s *pgtest.Server, fault string) (*breaker, error) {
	b := &breaker{server: s, url: s.ProgramURL()}
	if fault != "swallowed" {
		return b, nil
	}
	u, err := url.Parse(b.url)
	if err != nil {
		return nil, err
	}
	if b.swallow, err = newSwallower(u.Host); err != nil {
		return nil, err
	}
	u.Host = b.swallow.listener.Addr().String()
	b.url = u.String()
	return b, nil
}

func (b *breaker) close() {
	if b.swallow != nil {
		b.swallow.close()
	}
}

// begin makes the database go away.
func (b *breaker) begin(ctx context.Context) error {
	if b.swallow != nil {
		b.swallow.on.Store(true)
		return nil
	}
	return b.server.Stop(ctx, "fast")
}

// end brings the database back, and returns when it answered first.
func (b *breaker) end(ctx context.Context) (time.Time, error) {
	if b.swallow != nil {
		b.swallow.on.Store(false)
		return time.Now(), nil
	}
	back := make(chan time.Time, 1)
	go func() {
		for ctx.Err() == nil {
			c, err := pgx.Connect(ctx, b.server.ProgramURL())
			if err == nil {
				back <- time.Now()
				c.Close(ctx)
				return
			}
			sleep(ctx, 5*time.Millisecond)
		}
		back <- time.Now()
	}()
	err := b.server.Start(ctx)
	return <-back, err
}

// swallower is a proxy that swallows all bytes while it is on. What a connection
// has lost it never gets back: such a connection is dead, and nobody says so.
type swallower struct {
	listener net.Listener
	target   string
	on       atomic.Bool

	mu    sync.Mutex
	conns []net.Conn
}

func newSwallower(target string) (*swallower, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &swallower{listener: l, target: target}
	go s.accept()
	return s, nil
}

func (s *swallower) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns = append(s.conns, c)
		s.mu.Unlock()
		go s.serve(c)
	}
}

func (s *swallower) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", s.target)
	if err != nil {
		return
	}
	defer server.Close()
	var dead atomic.Bool
	pipe := func(to io.Writer, from net.Conn) {
		b := make([]byte, 1<<15)
		for {
			n, err := from.Read(b)
			if err != nil {
				return
			}
			if s.on.Load() {
				dead.Store(true)
			}
			if dead.Load() {
				continue
			}
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
	}
	go pipe(client, server)
	pipe(server, client)
}

func (s *swallower) close() {
	s.listener.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
}
