package pgtest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

// EnsureSecret gives SESSION_SECRET, where neither it nor SESSION_SECRET_FILE is set, a value that app keeps
// on this machine, so that an example's logins survive a restart. A real program
// gets it from its environment.
func EnsureSecret(app string) error {
	if os.Getenv("SESSION_SECRET") != "" || os.Getenv("SESSION_SECRET_FILE") != "" {
		return nil
	}
	dir, err := CacheDir(app)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "session-secret")
	secret, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		secret, err = makeSecret(path)
	}
	if err != nil {
		return fmt.Errorf("SESSION_SECRET is not set, and the one of this machine cannot be used: %w", err)
	}
	slog.Info("SESSION_SECRET is not set: using one made for this machine", "file", path)
	return os.Setenv("SESSION_SECRET", string(secret))
}

// makeSecret writes aside and links into place: of two programs that start at once
// both use the first one's, and none reads half of it.
func makeSecret(path string) ([]byte, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "secret-*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(rand.Text() + rand.Text())
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return os.ReadFile(path)
}
