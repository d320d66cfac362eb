package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Redis is a Redis of the benchmark's own.
type Redis struct {
	proc    *process
	dir     string
	Addr    string
	Version string
}

// StartRedis installs Redis if it is missing and starts one with temporary data below
// a directory (empty: the usual one). With an appendfsync, "always" or "everysec", it
// keeps an append-only file; without, it has its default settings: snapshots now and
// then, so that a crash loses up to minutes of writes.
func StartRedis(ctx context.Context, below, appendfsync string) (*Redis, error) {
	if err := Install(ctx, PackageRedis); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(below, "bench-redis-")
	if err != nil {
		return nil, err
	}
	r := &Redis{dir: dir}
	if out, err := exec.CommandContext(ctx, "redis-server", "--version").Output(); err == nil {
		for _, f := range strings.Fields(string(out)) {
			if v, ok := strings.CutPrefix(f, "v="); ok {
				r.Version = v
			}
		}
	}
	r.proc, r.Addr, err = startOnPort(ctx, func(port int) *exec.Cmd {
		args := []string{"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", dir}
		if appendfsync != "" {
			args = append(args, "--appendonly", "yes", "--appendfsync", appendfsync)
		}
		return exec.Command("redis-server", args...)
	}, pong)
	if err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("redis-server: %w", err)
	}
	return r, nil
}

func pong(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	b := make([]byte, 64)
	n, err := c.Read(b)
	if err == nil && !bytes.HasPrefix(b[:n], []byte("+PONG")) {
		err = errors.New("no PONG")
	}
	return err
}

// CPU returns the server's CPU time so far, that of its snapshots included.
func (r *Redis) CPU() (time.Duration, error) { return FamilyCPU(r.proc.cmd.Process.Pid) }

// Close stops the server and removes its data.
func (r *Redis) Close() {
	r.proc.stop()
	os.RemoveAll(r.dir)
}
