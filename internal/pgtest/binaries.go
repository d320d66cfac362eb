package pgtest

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// binaries are the server programs of one installation.
type binaries struct {
	dir     string
	version string // "15.18"
	major   int    // 15
	minor   int    // 18
}

// places are where packages put the server programs outside PATH.
var places = []string{
	"/usr/lib/postgresql/*/bin",   // Debian, Ubuntu
	"/usr/lib/postgresql*/bin",    // SUSE
	"/usr/lib64/postgresql-*/bin", // Gentoo
	"/usr/libexec/postgresql*",    // Alpine
	"/usr/pgsql-*/bin",            // Red Hat, from postgresql.org
	"/usr/local/pgsql*/bin",       // built from source
	"/opt/homebrew/opt/postgresql*/bin",
	"/usr/local/opt/postgresql*/bin",
	"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
	`C:\Program Files\PostgreSQL\*\bin`,
}

// binDirs are the directories to search.
func (o Options) binDirs() []string {
	if only := cmp.Or(o.BinDir, os.Getenv("PGTEST_BINDIR")); only != "" {
		return []string{only}
	}
	dirs := filepath.SplitList(os.Getenv("PATH"))
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, pattern := range places {
		found, _ := filepath.Glob(pattern)
		dirs = append(dirs, found...)
	}
	return dirs
}

// searched says where binDirs looks, for an error.
func (o Options) searched() string {
	if only := cmp.Or(o.BinDir, os.Getenv("PGTEST_BINDIR")); only != "" {
		return only
	}
	return "PATH and the usual places"
}

// findBinaries gives the installations among dirs, newest first.
func findBinaries(ctx context.Context, dirs []string, as *account) []binaries {
	var all []binaries
	seen := map[string]bool{}
	for _, dir := range dirs {
		// A link in /usr/local/bin leads to the real folder, where the
		// programs find each other and their share folder.
		path, err := filepath.EvalSymlinks(filepath.Join(dir, exe("postgres")))
		if err != nil {
			continue
		}
		dir, err := filepath.Abs(filepath.Dir(path))
		if err != nil || seen[dir] {
			continue
		}
		seen[dir] = true
		if b, ok := readBinaries(ctx, dir, as); ok {
			all = append(all, b)
		}
	}
	slices.SortStableFunc(all, func(a, b binaries) int {
		return cmp.Or(cmp.Compare(b.major, a.major), cmp.Compare(b.minor, a.minor))
	})
	return all
}

// version finds 15.18 in "postgres (PostgreSQL) 15.18 (Debian 15.18-0)", and 18 in "18beta1".
var version = regexp.MustCompile(`\(PostgreSQL\) ((\d+)(?:\.(\d+))?\S*)`)

// readBinaries reports whether dir has a complete and working set.
func readBinaries(ctx context.Context, dir string, as *account) (binaries, bool) {
	for _, name := range []string{"initdb", "pg_ctl"} {
		if _, err := os.Stat(filepath.Join(dir, exe(name))); err != nil {
			return binaries{}, false
		}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(dir, exe("postgres")), "--version")
	cmd.Dir = "/"
	if runtime.GOOS == "windows" {
		cmd.Dir = dir
	}
	as.run(cmd)
	out, err := cmd.Output()
	if err != nil {
		return binaries{}, false
	}
	m := version.FindStringSubmatch(string(out))
	if m == nil {
		return binaries{}, false
	}
	major, _ := strconv.Atoi(m[2])
	minor, _ := strconv.Atoi(m[3])
	return binaries{dir: dir, version: m[1], major: major, minor: minor}, true
}

// exe is the file name of a program.
func exe(name string) string {
	if runtime.GOOS == "windows" {
		return name + ".exe"
	}
	return name
}
