package pgtable_test

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// cancelCode is what a cancel request begins with, after its length.
const cancelCode = 80877102

// slowSignals is a server that is not done with a cancel request before some time has
// gone by. PostgreSQL before 18 signals the process and then its group, and a busy machine
// does other things between the two.
type slowSignals struct {
	time     time.Duration
	underWay atomic.Int64
	requests atomic.Int64
	early    atomic.Int64 // what was sent meanwhile, and might be hit
}

func (s *slowSignals) use(cfg *pgxpool.Config) {
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		return &signalled{Conn: c, of: s, late: make(chan struct{})}, err
	}
}

type signalled struct {
	net.Conn
	of   *slowSignals
	done atomic.Pointer[chan struct{}] // of a cancel request
	late chan struct{}                 // closed when the client waits no longer
	once sync.Once
}

func (c *signalled) Write(b []byte) (int, error) {
	if len(b) < 8 || binary.BigEndian.Uint32(b[4:]) != cancelCode {
		c.of.early.Add(c.of.underWay.Load())
		return c.Conn.Write(b)
	}
	done := make(chan struct{})
	c.of.requests.Add(1)
	c.of.underWay.Add(1)
	time.AfterFunc(c.of.time, func() { c.of.underWay.Add(-1); close(done) })
	c.done.Store(&done)
	return c.Conn.Write(b)
}

// Read sees the server's end of a cancel request late; whoever waits no longer is let go.
func (c *signalled) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if done := c.done.Load(); done != nil {
		select {
		case <-*done:
		case <-c.late:
		}
	}
	return n, err
}

func (c *signalled) SetDeadline(t time.Time) error {
	if !t.IsZero() && t.Before(time.Now()) {
		c.once.Do(func() { close(c.late) })
	}
	return c.Conn.SetDeadline(t)
}
