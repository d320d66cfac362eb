package pgtest

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

const (
	inMemory = "/dev/shm"

	// memoryRoom is what must be free, there and of the machine's memory: a server
	// takes 60 to 500 MB of it, and packages have one each.
	memoryRoom = 4 << 30

	tmpfsMagic = 0x01021994
)

// memoryDir is where files are kept in memory, if there is room for servers, or "". Making
// and dropping a database costs five times as much on a disk, most of it in the kernel.
// Who names a directory by TMPDIR gets that.
func memoryDir() string {
	var fs syscall.Statfs_t
	if os.Getenv("TMPDIR") != "" || syscall.Statfs(inMemory, &fs) != nil || fs.Type != tmpfsMagic {
		return ""
	}
	if room := fs.Bavail * uint64(fs.Bsize); room < memoryRoom || freeMemory() < memoryRoom {
		return ""
	}
	return inMemory
}

// freeMemory returns what the machine, and the control group that we are in, leave us.
func freeMemory() uint64 {
	text, _ := os.ReadFile("/proc/meminfo")
	_, after, _ := strings.Cut(string(text), "MemAvailable:")
	line, _, _ := strings.Cut(after, " kB")
	free, _ := strconv.ParseUint(strings.TrimSpace(line), 10, 64)
	free <<= 10
	limit, limited := readUint("/sys/fs/cgroup/memory.max") // "max" is none
	if used, ok := readUint("/sys/fs/cgroup/memory.current"); limited && ok {
		free = min(free, limit-min(used, limit))
	}
	return free
}

func readUint(path string) (uint64, bool) {
	text, err := os.ReadFile(path)
	n, errParse := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil && errParse == nil
}
