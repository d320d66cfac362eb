package pgtable_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// cancelCode is what a cancel request begins with, after its length.
const cancelCode = 80877102

// signalAgain lets the server cancel more than once for one request, until it closes the
// request's connection. PostgreSQL before 18 signals the process and then its group, and
// a busy machine does other things between the two.
func signalAgain(cfg *pgxpool.Config, times int) {
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &signals{Conn: c, times: times, dial: func() (net.Conn, error) { return dial(context.Background(), network, address) }}, nil
	}
}

type signals struct {
	net.Conn
	times int
	dial  func() (net.Conn, error)

	mu      sync.Mutex
	request []byte
	over    chan struct{} // the last signal was sent
	late    chan struct{} // the client waits no longer
}

func (s *signals) Write(b []byte) (int, error) {
	if len(b) >= 8 && binary.BigEndian.Uint32(b[4:]) == cancelCode {
		s.mu.Lock()
		s.request, s.over, s.late = b, make(chan struct{}), make(chan struct{})
		s.mu.Unlock()
		go s.signal()
	}
	return s.Conn.Write(b)
}

func (s *signals) signal() {
	defer close(s.over)
	_, _ = io.Copy(io.Discard, s.Conn) // the first was sent
	for range s.times {
		c, err := s.dial()
		if err != nil {
			return
		}
		_, _ = c.Write(s.request)
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	}
}

func (s *signals) Read(b []byte) (int, error) {
	s.mu.Lock()
	over, late := s.over, s.late
	s.mu.Unlock()
	if over == nil {
		return s.Conn.Read(b)
	}
	select {
	case <-over:
		return 0, io.EOF
	case <-late:
		return 0, os.ErrDeadlineExceeded
	}
}

func (s *signals) SetDeadline(d time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.late == nil {
		return s.Conn.SetDeadline(d)
	}
	if !d.IsZero() && d.Before(time.Now()) {
		select {
		case <-s.late:
		default:
			close(s.late)
		}
	}
	return nil
}

// Close leaves a request's connection to what is sent by it.
func (s *signals) Close() error {
	s.mu.Lock()
	over := s.over
	s.mu.Unlock()
	if over != nil {
		go func() { <-over; _ = s.Conn.Close() }()
		return nil
	}
	return s.Conn.Close()
}
