package rig_test

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/session/bench/internal/rig"
)

// Redis keeps what it is told as its variant's name says, where it is told to.
func TestRedisKeeps(t *testing.T) {
	for _, tt := range []struct{ appendfsync, appendonly, fsync string }{
		{"", "no", "everysec"}, // the setting without a file to which it applies
		{"everysec", "yes", "everysec"},
		{"always", "yes", "always"},
	} {
		dir := t.TempDir()
		r, err := rig.StartRedis(t.Context(), dir, tt.appendfsync)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if got := redisSays(t, r, "CONFIG GET appendonly"); !strings.HasSuffix(got, "\r\n"+tt.appendonly+"\r\n") {
			t.Errorf("%q: got appendonly %q, want %s", tt.appendfsync, got, tt.appendonly)
		}
		if got := redisSays(t, r, "CONFIG GET appendfsync"); !strings.HasSuffix(got, "\r\n"+tt.fsync+"\r\n") {
			t.Errorf("%q: got appendfsync %q, want %s", tt.appendfsync, got, tt.fsync)
		}
		redisSays(t, r, "SET a b")
		files, err := filepath.Glob(filepath.Join(dir, "*", "*", "*.incr.aof"))
		if err != nil || (len(files) == 1) != (tt.appendonly == "yes") {
			t.Errorf("%q: got append-only files %q, error %v, want one: %s", tt.appendfsync, files, err, tt.appendonly)
		}
		r.Close()
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%q: got %v left behind, error %v, want nothing", tt.appendfsync, left, err)
		}
	}
}

// redisSays sends one command and hangs up.
func redisSays(t *testing.T, r *rig.Redis, command string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", r.Addr, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, command+"\r\nQUIT\r\n"); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(b), "+OK\r\n")
}
