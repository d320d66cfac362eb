package faults_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgsession/session/tests/faults"
)

// The disk of the table is full: what needs room fails, what needs none goes on.
func TestFaultDiskFull(t *testing.T) {
	dir := smallDisk(t)
	server := newServer(t)
	a := admin(t, server.URL())
	ownBy(t, dir, get[string](t, a, "SHOW data_directory"))
	execute(t, a, "CREATE TABLESPACE small LOCATION '"+dir+"'")
	// Sessions so large that a page has no room for a second version of one.
	r := newRig(t, server.URL(), rigOptions{timeout: brief, load: faults.Load{Pad: strings.Repeat("text ", 900)}})
	execute(t, a, "ALTER TABLE schema_system.session ALTER COLUMN sess SET STORAGE PLAIN")
	execute(t, a, "VACUUM FULL schema_system.session")
	execute(t, a, "ALTER TABLE schema_system.session SET TABLESPACE small")
	execute(t, a, "INSERT INTO schema_system.session SELECT 'expired ' || n, '{}', now() - interval '1 day' FROM generate_series(1, 70) n")
	execute(t, a, "CREATE TABLE filler (t text) TABLESPACE small")
	for _, rows := range []int{500, 20, 1} { // to the last page
		for {
			_, err := a.Exec(t.Context(), "INSERT INTO filler SELECT repeat('x', 1900) FROM generate_series(1, $1)", rows)
			if err != nil && strings.Contains(err.Error(), "53100") { // disk_full
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	touched := r.storeErrors()
	r.waitRefused()
	if n, err := r.programs[0].Manager.Prune(t.Context()); n != 70 || err != nil {
		t.Errorf("pruning: got %d, %v, want 70", n, err)
	}
	execute(t, a, "DROP TABLE filler")
	execute(t, a, "CHECKPOINT") // which frees its file
	back := time.Now()
	r.wait(recovery)
	res := r.finish("disk of the table full")
	res.refused(t)
	res.recovered(t, time.Time{}) // no read has failed at all
	res.kept(t)
	for _, kind := range []faults.Kind{faults.Logout, faults.Replay} {
		if n := res.Since(time.Time{}, kind); n != 0 {
			t.Errorf("%s: got %d failures, want none", kind, n)
		}
	}
	if n := res.Since(back, ""); n != 0 {
		t.Errorf("once there was room: got %d failures, want none", n)
	}
	// A touch that fails is counted, and its page passes.
	if got, saves := r.storeErrors()-touched, uint64(res.Unavailable); got <= saves {
		t.Errorf("Stats.StoreErrors: got %d, want more than the %d saves", got, saves)
	}
}

// smallDisk mounts a file system of eight megabytes.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "faults-disk-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	if out, err := asRoot("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", dir); err != nil {
		t.Fatalf("mount a small disk: %v: %s; this test needs root, or sudo without a password", err, out)
	}
	t.Cleanup(func() { // after the server, which was made later
		if out, err := asRoot("umount", dir); err != nil {
			t.Errorf("unmount the small disk: %v: %s", err, out)
		}
	})
	return dir
}

func asRoot(name string, args ...string) ([]byte, error) {
	if os.Geteuid() != 0 {
		name, args = "sudo", append([]string{"-n", name}, args...)
	}
	return exec.Command(name, args...).CombinedOutput()
}

// ownBy gives dir to whoever owns like: the account that runs the server.
func ownBy(t *testing.T, dir, like string) {
	t.Helper()
	info, err := os.Stat(like)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	if err := os.Chown(filepath.Clean(dir), int(st.Uid), int(st.Gid)); err != nil {
		t.Fatal(err)
	}
}
