package rig

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU times in /proc: Linux shows programs 100 a second,
// whatever the kernel's own.
const tick = 10 * time.Millisecond

// stat is what /proc/PID/stat says.
type stat struct {
	parent        int
	own, children time.Duration // CPU time; children: of those that have ended
}

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	// The second field is the program's name, which may have spaces.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 15 {
		return stat{}, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(f))
	}
	n := func(i int) time.Duration {
		v, _ := strconv.ParseInt(f[i], 10, 64)
		return time.Duration(v) * tick
	}
	parent, _ := strconv.Atoi(f[1])
	return stat{parent: parent, own: n(11) + n(12), children: n(13) + n(14)}, nil
}

// ProcessCPU returns the CPU time of a process so far, user and system.
func ProcessCPU(pid int) (time.Duration, error) {
	s, err := readStat(pid)
	return s.own, err
}

// FamilyCPU returns the CPU time so far of a process, of its children, and of
// those children that have ended.
func FamilyCPU(pid int) (time.Duration, error) {
	s, err := readStat(pid)
	if err != nil {
		return 0, err
	}
	total := s.own + s.children
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if c, err := readStat(child); err == nil && c.parent == pid {
			total += c.own
		}
	}
	return total, nil
}

// MachineTime is what the machine's processors have spent so far, by /proc/stat.
type MachineTime struct {
	Busy   time.Duration // in programs, in the kernel and in interrupts
	Stolen time.Duration // waiting for the hypervisor to let them run
}

// ReadMachineTime reads it.
func ReadMachineTime() (MachineTime, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return MachineTime{}, err
	}
	return machineTime(string(b))
}

func machineTime(stat string) (t MachineTime, err error) {
	line, _, _ := strings.Cut(stat, "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return t, fmt.Errorf("/proc/stat begins with %.40q", line)
	}
	// user nice system idle iowait irq softirq steal
	for i, text := range f[1:9] {
		v, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return t, fmt.Errorf("/proc/stat: %w", err)
		}
		switch i {
		case 3, 4:
		case 7:
			t.Stolen += time.Duration(v) * tick
		default:
			t.Busy += time.Duration(v) * tick
		}
	}
	return t, nil
}

// Machine says what the figures were measured on.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Guest  bool   `json:"guest"` // a virtual machine
	Memory string `json:"memory"`
	Kernel string `json:"kernel"`
	Load   string `json:"loadBefore"` // the load averages when the run began
}

// ThisMachine reads /proc.
func ThisMachine() Machine {
	m := Machine{CPU: "unknown"}
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		k, v, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(k) {
		case "processor":
			m.Cores++
		case "model name":
			m.CPU = strings.TrimSpace(v)
		case "flags":
			m.Guest = slices.Contains(strings.Fields(v), "hypervisor")
		}
	}
	mem, _ := os.ReadFile("/proc/meminfo")
	if f := strings.Fields(string(mem)); len(f) > 1 {
		kib, _ := strconv.ParseFloat(f[1], 64)
		m.Memory = fmt.Sprintf("%.0f GiB", kib/(1<<20))
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	m.Kernel = strings.TrimSpace(string(kernel))
	load, _ := os.ReadFile("/proc/loadavg")
	m.Load = strings.Join(strings.Fields(string(load))[:min(3, len(strings.Fields(string(load))))], " ")
	return m
}
