package faults_test

import (
	"bytes"
	"net"
	"sync"
	"sync/atomic"
)

// statements are the texts by which the cutter knows what a message asks for.
// A renewal inserts as well: the first that fits counts.
var statements = []string{"SELECT s.ctid", "SET sid", "INSERT INTO", "SET sess", "SET expire", "DELETE FROM"}

// cutEvery is how many statements of a kind pass before one is cut off.
const cutEvery = 8

// cutter is a TCP proxy before PostgreSQL that breaks a connection at every
// eighth statement of each kind: the request is lost, or, with forward, the
// reply.
type cutter struct {
	listener net.Listener
	target   string
	forward  bool
	texts    []string // of the statements that it looks for

	all   sync.WaitGroup
	mu    sync.Mutex
	on    bool
	ended bool
	seen  map[string]int
	open  map[net.Conn]bool
}

func (c *cutter) address() string { return c.listener.Addr().String() }

func (c *cutter) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on, c.seen = true, map[string]int{}
}

func (c *cutter) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on = false
}

// cut reports whether each kind was cut off n times or more.
func (c *cutter) cut(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.texts {
		if c.seen[s]/cutEvery < n {
			return false
		}
	}
	return true
}

// close ends the proxy and every connection through it.
func (c *cutter) close() {
	c.listener.Close()
	c.mu.Lock()
	c.ended = true
	for conn := range c.open {
		conn.Close()
	}
	c.mu.Unlock()
	c.all.Wait()
}

func (c *cutter) accept() {
	for {
		client, err := c.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", c.target)
		if err != nil {
			client.Close()
			continue
		}
		if !c.track(client, server) {
			return
		}
		var doomed atomic.Bool
		c.all.Go(func() { c.replies(client, server, &doomed) })
		c.all.Go(func() { c.requests(client, server, &doomed) })
	}
}

func (c *cutter) track(both ...net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[net.Conn]bool{}
	}
	for _, conn := range both {
		c.open[conn] = true
		if c.ended {
			conn.Close()
		}
	}
	return !c.ended
}

func (c *cutter) drop(both ...net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range both {
		conn.Close()
		delete(c.open, conn)
	}
}

// replies copies what the server says until its connection is doomed: that
// answer comes after the commit.
func (c *cutter) replies(client, server net.Conn, doomed *atomic.Bool) {
	defer c.drop(client, server)
	b := make([]byte, 1<<16)
	for {
		n, err := server.Read(b)
		if err != nil || doomed.Load() {
			return
		}
		if _, err := client.Write(b[:n]); err != nil {
			return
		}
	}
}

func (c *cutter) requests(client, server net.Conn, doomed *atomic.Bool) {
	b := make([]byte, 1<<16)
	for {
		n, err := client.Read(b)
		if err != nil {
			c.drop(client, server)
			return
		}
		if c.chosen(b[:n]) {
			doomed.Store(true)
			if !c.forward {
				c.drop(client, server)
				return
			}
		}
		if _, err := server.Write(b[:n]); err != nil {
			c.drop(client, server)
			return
		}
	}
}

// chosen counts the statement in a message, and reports whether it is to be cut
// off.
func (c *cutter) chosen(message []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.on {
		return false
	}
	for _, s := range c.texts {
		if bytes.Contains(message, []byte(s)) {
			c.seen[s]++
			return c.seen[s]%cutEvery == 0
		}
	}
	return false
}
