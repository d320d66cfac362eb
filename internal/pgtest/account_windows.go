package pgtest

import (
	"os"
	"os/exec"
	"syscall"
)

// account is unused on Windows: pg_ctl itself gives up an administrator's rights.
type account struct{ name string }

func serverAccount() (*account, error) { return nil, nil }

// run keeps Ctrl-C in the console from the program that cmd starts: the server is
// stopped when our own program has finished.
func (a *account) run(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

func (a *account) own(string) error { return nil }

func (a *account) serverDir(prefix string) (string, error) { return a.tempDir(prefix) }

func (a *account) tempDir(prefix string) (string, error) { return os.MkdirTemp("", prefix) }

func (a *account) tempFile(text string) (string, error) {
	f, err := os.CreateTemp("", "pgtest-")
	if err != nil {
		return "", err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return f.Name(), err
}

func (a *account) reaches(string) bool { return true }

// keepDir makes dir; a user's cache directory is private by its access list.
func (a *account) keepDir(dir string) error { return os.MkdirAll(dir, 0o700) }

// Running reports whether there is a process pid.
func Running(pid int) bool {
	p, err := os.FindProcess(pid) // fails when there is no such process
	if err != nil {
		return false
	}
	return p.Release() == nil
}
