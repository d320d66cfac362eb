package pgrun_test

import (
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// cancelCode begins a cancel request, after its length.
const cancelCode = 80877102

// proxy stands before PostgreSQL and makes what costs it a fork cost more:
// connections and cancel requests are let through one after the other.
type proxy struct {
	url    string
	target string

	turn sync.Mutex
	cost atomic.Int64 // of each, in nanoseconds

	swallow atomic.Bool   // cancel requests get no further
	passed  chan struct{} // gets one for each cancel request that the server has answered

	cancels, now, most atomic.Int64 // all, under way, and the most at once
	logins             atomic.Int64
}

func newProxy(t *testing.T, dbURL string) *proxy {
	t.Helper()
	u, err := url.Parse(dbURL)
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{target: u.Host, passed: make(chan struct{}, 1000)}
	u.Host = l.Addr().String()
	p.url = u.String()
	var served sync.WaitGroup
	ended := make(chan struct{})
	t.Cleanup(func() {
		close(ended)
		l.Close()
		served.Wait()
	})
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer c.Close()
				p.serve(c, ended)
			})
		}
	})
	return p
}

// serve looks at a connection's first message and passes everything on.
func (p *proxy) serve(client net.Conn, ended <-chan struct{}) {
	first := make([]byte, 8)
	if _, err := io.ReadFull(client, first); err != nil {
		return
	}
	if binary.BigEndian.Uint32(first[4:]) == cancelCode {
		p.cancels.Add(1)
		now := p.now.Add(1)
		defer p.now.Add(-1)
		for most := p.most.Load(); now > most && !p.most.CompareAndSwap(most, now); {
			most = p.most.Load()
		}
		if p.swallow.Load() {
			_, _ = io.Copy(io.Discard, client)
			return
		}
		defer func() { p.passed <- struct{}{} }()
	} else {
		p.logins.Add(1)
	}
	if !p.wait(ended) {
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	if _, err := server.Write(first); err != nil {
		return
	}
	go func() {
		defer server.Close()
		_, _ = io.Copy(server, client)
	}()
	_, _ = io.Copy(client, server)
}

// wait is the fault itself: it takes its time, and others wait for that.
func (p *proxy) wait(ended <-chan struct{}) bool {
	p.turn.Lock()
	defer p.turn.Unlock()
	t := time.NewTimer(time.Duration(p.cost.Load()))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ended:
		return false
	}
}
