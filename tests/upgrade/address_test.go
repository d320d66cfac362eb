package upgrade_test

import (
	"bytes"
	"net"
	"sync"
	"testing"
)

// address is where the programs find their database: a TCP proxy that can be
// turned to another server.
type address struct {
	listener net.Listener
	all      sync.WaitGroup

	mu     sync.Mutex
	target string
	ended  bool
	open   map[net.Conn]bool

	// cut, if not nil, is told of the first COMMIT, which is carried out and whose
	// answer nobody gets; the address leads to cutTo from then on.
	cut   chan struct{}
	cutTo string
}

func newAddress(t *testing.T, target string) *address {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &address{listener: ln, target: target, open: map[net.Conn]bool{}}
	a.all.Go(a.accept)
	t.Cleanup(func() {
		ln.Close()
		a.mu.Lock()
		a.ended = true
		a.mu.Unlock()
		a.turn("")
		a.all.Wait()
	})
	return a
}

func (a *address) String() string { return a.listener.Addr().String() }

// turn leads the address to another server and cuts what is open to the old one.
func (a *address) turn(target string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.target = target
	for c := range a.open {
		c.Close()
		delete(a.open, c)
	}
}

func (a *address) cutCommit(to string) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cut, a.cutTo = make(chan struct{}), to
	return a.cut
}

func (a *address) accept() {
	for {
		client, err := a.listener.Accept()
		if err != nil {
			return
		}
		a.all.Go(func() { a.serve(client) })
	}
}

func (a *address) serve(client net.Conn) {
	defer client.Close()
	a.mu.Lock()
	target := a.target
	a.mu.Unlock()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	a.mu.Lock()
	if a.ended || a.target != target { // it was turned meanwhile
		a.mu.Unlock()
		return
	}
	a.open[client], a.open[server] = true, true
	a.mu.Unlock()
	doomed := make(chan struct{})
	var both sync.WaitGroup
	both.Go(func() { a.requests(client, server, doomed) })
	both.Go(func() { a.replies(client, server, doomed) })
	both.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, client)
	delete(a.open, server)
}

func (a *address) requests(client, server net.Conn, doomed chan struct{}) {
	defer server.Close()
	b := make([]byte, 1<<16)
	for {
		n, err := client.Read(b)
		if err != nil {
			return
		}
		if bytes.Contains(b[:n], []byte("commit\x00")) && a.chosen() {
			close(doomed)
		}
		if _, err := server.Write(b[:n]); err != nil {
			return
		}
	}
}

// chosen reports whether this COMMIT is the one whose answer is lost.
func (a *address) chosen() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cut == nil {
		return false
	}
	close(a.cut)
	a.cut = nil
	return true
}

func (a *address) replies(client, server net.Conn, doomed chan struct{}) {
	defer client.Close()
	b := make([]byte, 1<<16)
	for {
		n, err := server.Read(b)
		if err != nil {
			return
		}
		select {
		case <-doomed: // what it says comes after the commit
			a.mu.Lock()
			to := a.cutTo
			a.mu.Unlock()
			a.turn(to)
			return
		default:
		}
		if _, err := client.Write(b[:n]); err != nil {
			return
		}
	}
}
