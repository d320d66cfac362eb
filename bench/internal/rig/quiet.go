package rig

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
)

// progress is where Log writes, results where Print does.
var progress, results io.Writer = os.Stderr, os.Stdout

// Print writes what a program has found to standard output.
func Print(text string) { fmt.Fprint(results, text) }

// RunTests runs the tests of a program (m is a *testing.M) and exits. What the program
// says meanwhile is shown only if one of them has failed.
func RunTests(m interface{ Run() int }) {
	var said buffer
	progress, results = &said, &said
	code := m.Run()
	if code != 0 {
		said.mu.Lock() // for good: a goroutine may still be writing
		fmt.Fprintf(os.Stderr, "what the program said:\n%s", said.b.Bytes())
	}
	os.Exit(code)
}

// buffer is written by several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}
