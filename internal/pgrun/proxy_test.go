package pgrun_test

import (
	"bytes"
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
	linger  atomic.Bool   // cancel requests never seem to be over
	mute    atomic.Bool   // nothing that the server says gets any further, not even its end
	deaf    atomic.Bool   // nothing that clients say gets any further, new connections too
	foreign atomic.Bool   // new connections are told another process ID than the server's, as by a pooler
	passed  chan struct{} // gets one for each cancel request that the server has answered

	held atomic.Int64 // connections whose server has gone while mute was set
	lost sync.Map     // by process ID: of which the server has said something meanwhile

	cancels, now, most atomic.Int64 // all, under way, and the most at once
	logins             atomic.Int64

	conns sync.Map // client connections (net.Conn) that have logged in
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
	p.conns.Store(client, nil)
	defer p.conns.Delete(client)
	gone := make(chan struct{}) // the client
	go func() {
		defer close(gone)
		defer server.Close()
		p.pass(server, client, &p.deaf, nil, nil)
	}()
	var change func([]byte)
	if p.foreign.Load() {
		change = otherPID
	}
	p.pass(client, server, &p.mute, change, p.noteLost())
	if binary.BigEndian.Uint32(first[4:]) == cancelCode && p.linger.Load() {
		<-gone
	}
	if p.mute.Load() {
		p.held.Add(1)
		<-gone
	}
}

// noteLost returns what notes for one connection that something of it was lost.
func (p *proxy) noteLost() func(b []byte, lost bool) {
	var pid uint32
	return func(b []byte, lost bool) {
		if at := bytes.Index(b, key); at >= 0 && len(b) >= at+9 {
			pid = binary.BigEndian.Uint32(b[at+5:])
		}
		if lost {
			p.lost.Store(pid, true)
		}
	}
}

// pass copies until one side ends, and loses everything while lose is set.
func (p *proxy) pass(to, from net.Conn, lose *atomic.Bool, change func([]byte), note func([]byte, bool)) {
	b := make([]byte, 1<<16)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		lost := lose.Load()
		if note != nil {
			note(b[:n], lost)
		}
		if change != nil {
			change(b[:n])
		}
		if lost {
			continue
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

// key begins the message that holds a connection's key: the process ID comes first.
var key = []byte("K\x00\x00\x00\x0c")

// otherPID changes the process ID in the message that holds a connection's key.
func otherPID(b []byte) {
	if at := bytes.Index(b, key); at >= 0 && len(b) >= at+9 {
		b[at+8] ^= 1
	}
}

// cut breaks the clients' connections without a word; the server hears of it.
func (p *proxy) cut() {
	p.conns.Range(func(c, _ any) bool {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.(*net.TCPConn).Close()
		return true
	})
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
