package pgtest

import (
	"errors"
	"os"
	"syscall"
	"unsafe"
)

var lockFileEx = syscall.NewLazyDLL("kernel32.dll").NewProc("LockFileEx")

const (
	lockfileFailImmediately = 0x1
	lockfileExclusiveLock   = 0x2
	errorLockViolation      = syscall.Errno(33)
)

func flock(f *os.File, exclusive bool) error {
	flags := uintptr(lockfileFailImmediately)
	if exclusive {
		flags |= lockfileExclusiveLock
	}
	var region syscall.Overlapped
	ok, _, err := lockFileEx.Call(f.Fd(), flags, 0, 1, 0, uintptr(unsafe.Pointer(&region)))
	switch {
	case ok != 0:
		return nil
	case errors.Is(err, errorLockViolation):
		return errLocked
	default:
		return err
	}
}

// funlock leaves it to closing the file, whose handle no child inherits.
func funlock(*os.File) error { return nil }
