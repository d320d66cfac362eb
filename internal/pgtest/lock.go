package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// errLocked reports that another program holds the lock.
var errLocked = errors.New("the file is locked by another program")

// fileLock is a lock on a file, which the system frees when the process ends.
type fileLock struct{ f *os.File }

// lock waits for a lock, shared or exclusive, until ctx ends.
func lock(ctx context.Context, path string, exclusive bool) (*fileLock, error) {
	for {
		l, err := tryLock(path, exclusive)
		if !errors.Is(err, errLocked) {
			return l, err
		}
		if wait(ctx) != nil {
			return nil, fmt.Errorf("%w: %s", err, path)
		}
	}
}

func tryLock(path string, exclusive bool) (*fileLock, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f, exclusive); err != nil {
		f.Close()
		return nil, err
	}
	return &fileLock{f}, nil
}

// unlock frees the lock. Closing the file is not enough: a child that another
// goroutine is starting has a copy of the descriptor until it runs its program, and
// would hold the lock that long. The file stays: removing it would let two programs
// hold locks on two files of one name.
func (l *fileLock) unlock() error { return errors.Join(funlock(l.f), l.f.Close()) }
