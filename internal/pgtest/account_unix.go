//go:build !windows

package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// account is the user that runs PostgreSQL's programs in root's place, because
// they refuse to run as root. Nil means the user we are.
type account struct {
	name     string
	uid, gid uint32
}

// serverAccount gives the account to use, nil unless we are root.
func serverAccount() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "_postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		// macOS writes nobody's IDs as -2.
		uid, errUID := strconv.ParseInt(u.Uid, 10, 64)
		gid, errGID := strconv.ParseInt(u.Gid, 10, 64)
		if errUID == nil && errGID == nil {
			return &account{name: name, uid: uint32(uid), gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("pgtest: PostgreSQL does not run as root, and there is neither a user postgres nor a user nobody to run it")
}

// run lets cmd run as the account, and in a session of its own: Ctrl-C in the
// terminal must reach the program, which stops its server when it has finished.
func (a *account) run(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if a != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
}

// own gives a file or directory to the account.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Lchown(path, int(a.uid), int(a.gid))
}

// serverDir makes a directory for a server that is temporary.
func (a *account) serverDir(prefix string) (string, error) {
	if base := memoryDir(); base != "" && a.reaches(base) {
		return a.makeDir(base, prefix)
	}
	return a.tempDir(prefix)
}

// tempDir makes a directory that only the account can use.
func (a *account) tempDir(prefix string) (string, error) {
	base, err := a.tempBase()
	if err != nil {
		return "", err
	}
	return a.makeDir(base, prefix)
}

func (a *account) makeDir(base, prefix string) (string, error) {
	dir, err := os.MkdirTemp(base, prefix)
	if err != nil {
		return "", err
	}
	return dir, a.own(dir)
}

// tempFile makes a file that only the account can read.
func (a *account) tempFile(text string) (string, error) {
	base, err := a.tempBase()
	if err != nil {
		return "", err
	}
	f, err := os.CreateTemp(base, "pgtest-")
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(text)
	return f.Name(), errors.Join(err, f.Close(), a.own(f.Name()))
}

func (a *account) tempBase() (string, error) {
	for _, base := range []string{os.TempDir(), "/var/tmp", "/tmp"} {
		if info, err := os.Stat(base); err == nil && info.IsDir() && a.reaches(base) {
			return base, nil
		}
	}
	return "", fmt.Errorf("no directory for temporary files that user %s can reach", a.name)
}

// reaches reports whether the account may pass through path and every directory above it.
func (a *account) reaches(path string) bool {
	if a == nil {
		return true
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return false
	}
	for {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist): // will be made, by keepDir
		case err != nil:
			return false
		default:
			st := info.Sys().(*syscall.Stat_t)
			if info.Mode()&0o001 == 0 && (st.Uid != a.uid || info.Mode()&0o100 == 0) {
				return false
			}
		}
		if path == filepath.Dir(path) {
			return true
		}
		path = filepath.Dir(path)
	}
}

// keepDir makes dir, private to us, and passable for the account where there is
// one: what it may read is the data directory alone. A directory that belongs to
// someone else, or that someone else can write to, is refused: whoever owns it
// could swap the data, the password or a program for another.
func (a *account) keepDir(dir string) error {
	perm := fs.FileMode(0o700)
	if a != nil {
		perm = 0o711
	}
	if err := makeAll(dir, perm); err != nil {
		return err
	}
	if err := onlyOurs(dir); err != nil {
		return err
	}
	// With a strict umask, a directory that another program is making opens a
	// moment after it is there.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for !a.reaches(dir) && wait(ctx) == nil {
	}
	if !a.reaches(dir) {
		return fmt.Errorf("user %s, which runs PostgreSQL in root's place, cannot reach %s: choose a directory outside root's own", a.name, dir)
	}
	return nil
}

// onlyOurs refuses a directory that someone else owns or may write to, and one
// that somebody else could replace because a directory above it is theirs.
func onlyOurs(dir string) error {
	us := uint32(os.Geteuid())
	for path := dir; ; path = filepath.Dir(path) {
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		owner, mode := info.Sys().(*syscall.Stat_t).Uid, info.Mode()
		if path == dir && (!info.IsDir() || owner != us || mode&0o022 != 0) {
			return fmt.Errorf("%s is not a directory of ours alone: it belongs to user %d, mode %s", path, owner, mode)
		}
		if (owner != us && owner != 0) || (mode&0o002 != 0 && mode&(fs.ModeSticky|fs.ModeSymlink) == 0) {
			return fmt.Errorf("%s is not safe: others can replace %s, which belongs to user %d, mode %s", dir, path, owner, mode)
		}
		if path == filepath.Dir(path) {
			return nil
		}
	}
}

// makeAll makes the directories that are missing, with perm whatever the umask.
func makeAll(dir string, perm fs.FileMode) error {
	if _, err := os.Lstat(dir); err == nil {
		return nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := makeAll(parent, perm); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, perm); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil // another program was first
		}
		return err
	}
	return os.Chmod(dir, perm)
}

// Running reports whether there is a process pid. One that has ended is gone even
// while nobody has asked for its exit status; the init of some containers takes its
// time.
func Running(pid int) bool {
	if err := syscall.Kill(pid, 0); err != nil && !errors.Is(err, syscall.EPERM) {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || !bytes.Contains(stat, []byte(") Z "))
}
