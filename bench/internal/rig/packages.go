package rig

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Package is a Debian package and how to see that what it brings is there.
type Package struct {
	Name  string
	There func() bool
}

// The packages that the benchmark may need.
var (
	PackagePostgres = Package{"postgresql", func() bool {
		found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
		return len(found) > 0 || inPath("initdb")
	}}
	PackageRedis = Package{"redis-server", func() bool { return inPath("redis-server") }}
	PackageNode  = Package{"nodejs", func() bool { return inPath("node") }}
	PackageNPM   = Package{"npm", func() bool { return inPath("npm") }}
	PackageWrk   = Package{"wrk", func() bool { return inPath("wrk") }}
)

func inPath(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}

// Install installs those of the packages that are missing, with apt-get, by sudo
// unless we are root, and says so.
func Install(ctx context.Context, packages ...Package) error {
	var missing []string
	for _, p := range packages {
		if !p.There() {
			missing = append(missing, p.Name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	Log("installing Debian packages: %s", strings.Join(missing, " "))
	for _, args := range [][]string{
		{"apt-get", "update", "-qq"},
		append([]string{"env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq", "--no-install-recommends"}, missing...),
	} {
		if os.Geteuid() != 0 {
			args = append([]string{"sudo"}, args...)
		}
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s\ninstall %s by hand and start again", strings.Join(args, " "), err, out, strings.Join(missing, ", "))
		}
	}
	return nil
}
