package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

// Script says what the connections of a load send and checks what comes back. It
// is called by one goroutine.
type Script interface {
	// Next returns the next request on a connection, whole, and a number by which
	// Done knows it again; nil ends the connection.
	Next(conn int) (tag int, request []byte)
	// Done takes the answer to it. Its error ends the load.
	Done(conn, tag int, a Answer) error
}

// Answer is what a server said. Body and Cookie are only valid during the call.
type Answer struct {
	Status    int
	Body      []byte
	SetCookie bool
	Cookie    []byte // of the last Set-Cookie: NAME=VALUE, as a Cookie header has it
	Latency   time.Duration
	Late      bool // came after Load.Duration
}

// Load is a closed loop: each connection sends its next request when the last has
// been answered.
type Load struct {
	Addrs    []string // connection i goes to Addrs[i % len]
	Conns    int
	Duration time.Duration // after it no new request is sent, nor after the first answer if that comes later; 0: until the script ends
	Script   Script
}

// Result is what a load came to.
type Result struct {
	InTime  int           // answers within Duration; one at least
	Total   int           // all answers
	Elapsed time.Duration // Load.Duration, or until the first answer
	Latency Hist
}

// PerSecond returns answers per second.
func (r *Result) PerSecond() float64 { return float64(r.InTime) / max(r.Elapsed.Seconds(), 1e-9) }

// Run drives the load until all requests are answered. Every connection is new.
func (l Load) Run(ctx context.Context) (*Result, error) {
	if l.Conns < 1 || len(l.Addrs) == 0 {
		return nil, errors.New("rig: Load: no connections")
	}
	return l.run(ctx)
}

var (
	headerEnd     = []byte("\r\n\r\n")
	lineEnd       = []byte("\r\n")
	contentLength = []byte("content-length:")
	setCookie     = []byte("set-cookie:")
)

// parse reads an answer from the beginning of b. size is its length in bytes, 0 if
// it is not complete yet.
func parse(b []byte) (a Answer, size int, err error) {
	end := bytes.Index(b, headerEnd)
	if end < 0 {
		if len(b) > 64<<10 {
			return a, 0, errors.New("a header of over 64 KiB")
		}
		return a, 0, nil
	}
	if len(b) < 12 || string(b[:7]) != "HTTP/1." {
		return a, 0, fmt.Errorf("no HTTP/1 answer: %.20q", b)
	}
	for _, c := range b[9:12] {
		if c < '0' || c > '9' {
			return a, 0, fmt.Errorf("no status: %.20q", b)
		}
		a.Status = a.Status*10 + int(c-'0')
	}
	length := -1
	for rest := b[:end]; ; {
		at := bytes.Index(rest, lineEnd)
		if at < 0 {
			break
		}
		rest = rest[at+2:]
		switch {
		case hasPrefixFold(rest, contentLength):
			length = number(rest[len(contentLength):])
		case hasPrefixFold(rest, setCookie):
			a.SetCookie, a.Cookie = true, pair(rest[len(setCookie):])
		}
	}
	if length < 0 {
		return a, 0, errors.New("an answer without Content-Length")
	}
	body := end + len(headerEnd)
	if len(b) < body+length {
		return a, 0, nil
	}
	a.Body = b[body : body+length]
	return a, body + length, nil
}

// pair returns the name and value that a Set-Cookie header's value begins with.
func pair(b []byte) []byte {
	if end := bytes.IndexAny(b, ";\r"); end >= 0 {
		b = b[:end]
	}
	return bytes.TrimSpace(b)
}

// hasPrefixFold compares with a lower-case prefix of letters and signs that have
// the bit 0x20 set.
func hasPrefixFold(b, prefix []byte) bool {
	if len(b) < len(prefix) {
		return false
	}
	for i, c := range prefix {
		if b[i]|0x20 != c {
			return false
		}
	}
	return true
}

// number reads a number after spaces, -1 if there is none.
func number(b []byte) int {
	b = bytes.TrimLeft(b, " \t")
	n, any := 0, false
	for _, c := range b {
		if c < '0' || c > '9' {
			break
		}
		n, any = n*10+int(c-'0'), true
	}
	if !any {
		return -1
	}
	return n
}
