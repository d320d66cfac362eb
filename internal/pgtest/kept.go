package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// keep runs, or joins, the server of a data directory that outlives this process.
//
// Each program that uses the server holds users.lock, shared, for as long as it
// does. The last to close is the one that gets it exclusively, and stops the
// server. The system frees the locks of a killed program; the server then runs on
// until the next program that uses it closes. start.lock lets one program at a
// time make or start the server.
func keep(ctx context.Context, o Options, all []binaries, as *account) (*Server, error) {
	root, err := filepath.Abs(o.DataDir)
	if err != nil {
		return nil, fmt.Errorf("pgtest: %w", err)
	}
	bin := chooseFor(root, all)
	l := &local{bin: bin, dir: filepath.Join(root, strconv.Itoa(bin.major)), settings: o.Settings, as: as, log: o.Logger}
	l.data = filepath.Join(l.dir, "data")
	if err := as.keepDir(l.dir); err != nil {
		return nil, fmt.Errorf("pgtest: %w", err)
	}
	users, err := lock(ctx, filepath.Join(l.dir, "users.lock"), false)
	if err != nil {
		return nil, fmt.Errorf("pgtest: %w", err)
	}
	end := func() error {
		if err := users.unlock(); err != nil {
			return fmt.Errorf("pgtest: %w", err)
		}
		return l.leave()
	}
	if err := l.join(ctx); err != nil {
		return nil, errors.Join(err, end())
	}
	s := l.server("kept", end)
	if password := filepath.Join(l.dir, "password"); !strings.Contains(password, "'") {
		s.psql = fmt.Sprintf(`PGPASSWORD=$(cat '%s') psql -h 127.0.0.1 -p %d -U postgres`, password, l.port)
	}
	return s, nil
}

// chooseFor prefers the version whose data are there, so that a newer PostgreSQL
// on the machine does not hide them; else it takes the newest.
func chooseFor(root string, all []binaries) binaries {
	for _, b := range all {
		if _, err := os.Stat(filepath.Join(root, strconv.Itoa(b.major), "data", "PG_VERSION")); err == nil {
			return b
		}
	}
	return all[0]
}

// join makes and starts the server unless another program has.
func (l *local) join(ctx context.Context) error {
	start, err := lock(ctx, filepath.Join(l.dir, "start.lock"), true)
	if err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	defer start.unlock()
	if l.password, err = keptPassword(filepath.Join(l.dir, "password")); err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	made, err := os.ReadFile(filepath.Join(l.data, "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		err = l.initdb(ctx)
		made = []byte(strconv.Itoa(l.bin.major))
	}
	if err != nil {
		return err
	}
	if v := strings.TrimSpace(string(made)); v != strconv.Itoa(l.bin.major) {
		return fmt.Errorf("pgtest: the data in %s were made by PostgreSQL %s, and the binaries in %s are PostgreSQL %d: use another directory for each major version",
			l.data, v, l.bin.dir, l.bin.major)
	}
	return l.start(ctx)
}

// leave stops the server when nobody uses it any more.
func (l *local) leave() error {
	users, err := tryLock(filepath.Join(l.dir, "users.lock"), true)
	if errors.Is(err, errLocked) {
		l.log.Info("PostgreSQL stays up for the other programs that use it", "port", l.port)
		return nil
	}
	if err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	defer users.unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return l.stop(ctx, "fast")
}

// keptPassword reads the password, and makes one the first time.
func keptPassword(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil && len(b) > 0 {
		return string(b), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	password := rand.Text()
	return password, os.WriteFile(path, []byte(password), 0o600)
}

// CacheDir makes a directory for what app keeps, which no other user can write to
// and which the account that runs the server can reach: in the user's cache
// directory, or in /var/cache or /var/tmp where root's own is closed to it. A
// directory of that name that belongs to someone else is an error.
func CacheDir(app string) (string, error) {
	as, err := serverAccount()
	if err != nil {
		return "", err
	}
	var bases []string
	if base, err := os.UserCacheDir(); err == nil && as.reaches(base) {
		bases = append(bases, base)
	}
	var faults []error
	for _, base := range append(bases, "/var/cache", "/var/tmp") {
		dir := filepath.Join(base, "pgsession", app)
		if err := as.keepDir(dir); err != nil {
			faults = append(faults, err)
			continue
		}
		return dir, nil
	}
	return "", fmt.Errorf("pgtest: no directory to keep anything in: %w", errors.Join(faults...))
}
