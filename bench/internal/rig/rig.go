// Package rig is what the benchmark's programs have in common: databases, server
// processes, a load generator, and tables and charts of what came out.
//
// It needs Linux: the CPU time of processes comes from /proc, and the load
// generator is built on epoll so that it takes as little of the machine as it can.
package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Log prints a line about what is being done, to standard error.
func Log(format string, args ...any) { fmt.Fprintf(progress, format+"\n", args...) }

// ModuleDir returns the directory of the benchmark's module.
func ModuleDir(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	path := strings.TrimSpace(string(out))
	if path == "" || path == os.DevNull {
		return "", errors.New("run this inside the module bench")
	}
	return filepath.Dir(path), nil
}

// Build compiles these packages of the module ("./server", "./peers/...") into a
// temporary directory, which remove deletes.
func Build(ctx context.Context, module string, packages ...string) (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp("", "bench-bin-")
	if err != nil {
		return "", nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-o", dir + string(filepath.Separator)}, packages...)...)
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		remove()
		return "", nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return dir, remove, nil
}

// Closers are called in reverse order.
type Closers []func()

// Add adds one.
func (c *Closers) Add(f func()) { *c = append(*c, f) }

// Close calls them.
func (c *Closers) Close() {
	for i := len(*c) - 1; i >= 0; i-- {
		(*c)[i]()
	}
	*c = nil
}
