// Command delay passes TCP connections on and holds up what they carry, half of the
// time in each direction: a store that is farther away.
//
//	delay -listen 127.0.0.1:12345 -to 127.0.0.1:5432 -by 1ms
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"log"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/pgsession/session/bench/internal/rig"
)

func main() {
	listen := flag.String("listen", "", "address to take connections at")
	to := flag.String("to", "", "address to pass them on to")
	by := flag.Duration("by", 0, "how much longer the way there and back takes")
	flag.Parse()
	// Those that wait hold a processor each, as Go sees it, until its monitor comes by.
	runtime.GOMAXPROCS(256)
	rig.Main(func(ctx context.Context) error {
		ln, err := net.Listen("tcp", *listen)
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { ln.Close() })
		for {
			c, err := ln.Accept()
			if err != nil && ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
			go pass(c, *to, *by/2)
		}
	})
}

// pass connects c with an address until both sides have ended.
func pass(c net.Conn, to string, by time.Duration) {
	defer c.Close()
	s, err := net.Dial("tcp", to)
	if err != nil {
		log.Print(err)
		return
	}
	defer s.Close()
	var wg sync.WaitGroup
	wg.Go(func() { hold(s, c, by) })
	wg.Go(func() { hold(c, s, by) })
	wg.Wait()
}

// piece is what came at once, and when it may go on.
type piece struct {
	b   []byte
	due time.Time
}

// hold copies until src ends and then ends dst; each byte goes on so much later than
// it came, however many come meanwhile.
func hold(dst io.WriteCloser, src io.ReadCloser, by time.Duration) {
	pieces := make(chan piece, 1024)
	go func() {
		defer close(pieces)
		for {
			b := make([]byte, 16<<10)
			n, err := src.Read(b)
			if n > 0 {
				pieces <- piece{b[:n], time.Now().Add(by)}
			}
			if err != nil {
				return
			}
		}
	}()
	var err error
	for p := range pieces {
		if err != nil {
			continue // until the reader has ended
		}
		sleepUntil(p.due)
		if _, err = dst.Write(p.b); err != nil {
			err = errors.Join(err, src.Close())
		}
	}
	end(dst)
}

// end lets the other side know that there is no more, and hear what still comes.
func end(dst io.WriteCloser) {
	if tcp, ok := dst.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
		return
	}
	_ = dst.Close()
}
