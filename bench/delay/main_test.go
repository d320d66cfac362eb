package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"
)

// relayed returns a connection through pass to an echo that hangs up when it is told
// that there is no more.
func relayed(t *testing.T, by time.Duration) *net.TCPConn {
	t.Helper()
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		echo.Close()
		front.Close()
	})
	go func() {
		if c, err := echo.Accept(); err == nil {
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	go func() {
		if c, err := front.Accept(); err == nil {
			pass(c, echo.Addr().String(), by)
		}
	}()
	c, err := net.Dial("tcp", front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// Everything comes, in its order, in both directions, and the end as well.
func TestPassesEverythingOn(t *testing.T) {
	c := relayed(t, 50*time.Microsecond)
	sent := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(sent)
	go func() {
		for b := range slices.Chunk(sent, 9999) {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
		_ = c.CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("got %d bytes, error %v, want the %d that were sent", len(got), err, len(sent))
	}
}

// Nothing comes back sooner than it was told to: there and back, half of it each.
func TestHoldsUp(t *testing.T) {
	const by = 5 * time.Millisecond
	c := relayed(t, by)
	for range 3 {
		start := time.Now()
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 2*by {
			t.Errorf("there and back: got %v, want at least %v", took, 2*by)
		}
	}
}

// A connection whose target is not there ends.
func TestNobodyThere(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	near, far := net.Pipe()
	go pass(far, ln.Addr().String(), 0)
	if _, err := near.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("got %v, want %v", err, io.EOF)
	}
}
