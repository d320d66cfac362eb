package rig

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Ground is what the stores stand on: how long their disk takes to commit, and how
// far they are from the servers. The same for all stores, so that what differs is
// theirs.
type Ground struct {
	Name    string
	Data    string        // directory of their data; empty: the usual temporary one
	NoFsync bool          // PostgreSQL without fsync
	Latency time.Duration // there and back, added between servers and stores
}

// Names of grounds; beside them every duration is one.
const (
	OnDisk   = "disk"
	InRAM    = "memory"
	OnNoSync = "nofsync"
)

const memoryDir = "/dev/shm"

// GroundUsage says what a flag for grounds takes.
const GroundUsage = "what the stores stand on: " + OnDisk + "; " + InRAM + " (" + memoryDir + ", where a commit costs nothing); " +
	OnNoSync + " (PostgreSQL with fsync off); or a time such as 1ms that the way from the servers and back takes longer"

// ParseGround reads the name of a ground.
func ParseGround(name string) (Ground, error) {
	switch name {
	case OnDisk:
		return Ground{Name: name}, nil
	case InRAM:
		return Ground{Name: name, Data: memoryDir}, nil
	case OnNoSync:
		return Ground{Name: name, NoFsync: true}, nil
	}
	d, err := time.ParseDuration(name)
	if err != nil || d <= 0 {
		return Ground{}, fmt.Errorf("%q is none of %s, %s, %s and no time over 0", name, OnDisk, InRAM, OnNoSync)
	}
	return Ground{Name: name, Latency: d}, nil
}

// SplitGrounds reads grounds separated by commas, none twice.
func SplitGrounds(s string) (all []Ground, err error) {
	for name := range strings.SplitSeq(s, ",") {
		g, err := ParseGround(name)
		if err != nil {
			return nil, err
		}
		if slices.Contains(all, g) {
			return nil, fmt.Errorf("%q stands there twice", name)
		}
		all = append(all, g)
	}
	return all, nil
}

func joinGrounds(all []Ground) string {
	var names []string
	for _, g := range all {
		names = append(names, g.Name)
	}
	return strings.Join(names, ",")
}

// String says it in a few words.
func (g Ground) String() string {
	switch {
	case g.Data != "":
		return "data in memory"
	case g.NoFsync:
		return "PostgreSQL without fsync"
	case g.Latency > 0:
		return "the way to the store and back takes " + g.Latency.String() + " longer"
	}
	return "data on the disk"
}

// FileSystem names the kind and the device of the one that the data is on, empty if
// that cannot be found.
func (p *Postgres) FileSystem() string {
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return ""
	}
	return fileSystem(string(mounts), p.dir)
}

// fileSystem finds a directory in what /proc/mounts says: the last of the longest
// mount points above it.
func fileSystem(mounts, dir string) (found string) {
	longest := 0
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		above := strings.TrimSuffix(f[1], "/") + "/"
		if len(above) >= longest && strings.HasPrefix(dir+"/", above) {
			longest, found = len(above), f[2]+" on "+f[0]
		}
	}
	return found
}

// below makes dir the place of temporary files while f runs.
func below(dir string, f func() error) error {
	if dir == "" {
		return f()
	}
	before, set := os.LookupEnv("TMPDIR")
	if err := os.Setenv("TMPDIR", dir); err != nil {
		return err
	}
	defer func() {
		if set {
			_ = os.Setenv("TMPDIR", before)
		} else {
			_ = os.Unsetenv("TMPDIR")
		}
	}()
	return f()
}

// detour is a program that passes connections on to a store and holds them up.
type detour struct {
	*process
	addr string
}

// farther returns an address at which a store of this address seems as far away as
// the ground has it.
func (s *Stage) farther(ctx context.Context, addr string) (string, error) {
	if s.ground.Latency == 0 {
		return addr, nil
	}
	if d := s.detours[addr]; d != nil {
		return d.addr, nil
	}
	d := new(detour)
	var err error
	d.process, d.addr, err = startOnPort(ctx, func(port int) *exec.Cmd {
		listen := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		return exec.Command(filepath.Join(s.Binaries, "delay"), "-listen", listen, "-to", addr, "-by", s.ground.Latency.String())
	}, listens)
	if err != nil {
		return "", fmt.Errorf("delay: %w", err)
	}
	s.detours[addr] = d
	s.closers.Add(d.stop)
	return d.addr, nil
}

func listens(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}
