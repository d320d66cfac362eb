//go:build !windows

package pgtest

import (
	"path/filepath"
	"syscall"
	"testing"
)

// A child that another goroutine is starting has copies of our descriptors until it
// runs its program; here the copy stays for good.
func TestUnlockFreesTheLockWhateverChildrenHold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	shared, err := tryLock(path, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tryLock(path, true); err != errLocked {
		t.Errorf("got %v, want errLocked", err)
	}
	child, err := syscall.Dup(int(shared.f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(child)
	if err := shared.unlock(); err != nil {
		t.Fatal(err)
	}
	exclusive, err := tryLock(path, true)
	if err != nil {
		t.Fatalf("got %v, want the lock", err)
	}
	if err := exclusive.unlock(); err != nil {
		t.Error(err)
	}
}
