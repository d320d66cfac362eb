package pgtest

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A provider is a program of the nested module: provider/docker or
// provider/download. It writes one line of JSON when it is ready and lives until
// its standard input is closed, so that it never outlives this process.
type provider struct {
	cmd   *exec.Cmd
	stdin io.Closer
	dir   string // holds the program; "": keep
}

// offer is the line that a provider writes.
type offer struct {
	URL    string `json:"url"`    // docker: the server in the container
	BinDir string `json:"binDir"` // download: server binaries
}

// startProvider builds a provider and runs it until it is ready. setup changes the
// command before it starts.
func startProvider(ctx context.Context, name string, as *account, setup func(*exec.Cmd)) (*provider, offer, error) {
	program, err := buildProvider(ctx, name, as)
	if err != nil {
		return nil, offer{}, err
	}
	p := &provider{cmd: exec.Command(program), dir: filepath.Dir(program)}
	var stderr strings.Builder
	p.cmd.Dir, p.cmd.Stderr = p.dir, &stderr
	setup(p.cmd)
	stdin, errIn := p.cmd.StdinPipe()
	stdout, errOut := p.cmd.StdoutPipe()
	if err := errors.Join(errIn, errOut, p.cmd.Start()); err != nil {
		os.RemoveAll(p.dir)
		return nil, offer{}, err
	}
	p.stdin = stdin
	stop := context.AfterFunc(ctx, func() { p.cmd.Process.Kill() })
	defer stop()
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		err = errors.Join(p.end(), ctx.Err())
		return nil, offer{}, fmt.Errorf("%s: %w\n%s", name, err, lastLines([]byte(stderr.String()), 10))
	}
	var got offer
	if err := json.Unmarshal(line, &got); err != nil {
		return nil, offer{}, errors.Join(fmt.Errorf("%s: %w", name, err), p.end())
	}
	return p, got, nil
}

// end closes the provider's standard input and waits until it has cleaned up.
func (p *provider) end() error {
	p.stdin.Close()
	err := p.cmd.Wait()
	return errors.Join(err, os.RemoveAll(p.dir))
}

// buildProvider builds the program into a temporary directory. The go command runs
// it as itself: the account that runs servers cannot read root's module cache.
func buildProvider(ctx context.Context, name string, as *account) (string, error) {
	goCommand, err := exec.LookPath("go")
	if err != nil {
		return "", errors.New("it needs the go command in PATH")
	}
	source, err := providerSource()
	if err != nil {
		return "", err
	}
	dir, err := as.tempDir("pgtest-provider-")
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, exe(name))
	cmd := exec.CommandContext(ctx, goCommand, "build", "-o", program, "./"+name)
	cmd.Dir = source
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "GOFLAGS=") || strings.HasPrefix(v, "GOWORK=")
	}), "GOFLAGS=-mod=readonly", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("building %s: %w\n%s", source, err, lastLines(out, 10))
	}
	return program, nil
}

// providerSource finds the nested module: beside this file, where the program was
// built on this machine, else below the working directory's module.
func providerSource() (string, error) {
	var dirs []string
	if _, file, _, ok := runtime.Caller(0); ok {
		dirs = append(dirs, filepath.Join(filepath.Dir(file), "provider"))
	}
	if wd, err := os.Getwd(); err == nil {
		for dir := wd; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
			dirs = append(dirs, filepath.Join(dir, "internal", "pgtest", "provider"))
		}
	}
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("it needs the source of this module (run it in a clone)")
}

// fromDocker runs a container. With a DataDir the data are in a volume of the
// directory's name; a second program uses the first one's container, which ends
// with the first.
func fromDocker(ctx context.Context, o Options) (*Server, error) {
	if err := dockerAnswers(ctx); err != nil {
		return nil, err
	}
	o.Logger.Info("starting PostgreSQL in a container; the first time this builds a program and pulls an image")
	env := os.Environ()
	release := func() error { return nil }
	keepURL := func(string) error { return nil }
	if o.DataDir != "" {
		var as *account // the Docker engine needs no account of ours
		dir := filepath.Join(o.DataDir, "docker")
		if err := as.keepDir(dir); err != nil {
			return nil, err
		}
		urlFile := filepath.Join(dir, "url")
		l, err := tryLock(filepath.Join(dir, "container.lock"), true)
		if errors.Is(err, errLocked) {
			return joinContainer(ctx, urlFile)
		}
		if err != nil {
			return nil, err
		}
		release = l.unlock
		keepURL = func(url string) error { return os.WriteFile(urlFile, []byte(url), 0o600) }
		_ = os.Remove(urlFile)
		password, err := keptPassword(filepath.Join(dir, "password"))
		if err != nil {
			return nil, errors.Join(err, release())
		}
		env = append(env, "PGTEST_PASSWORD="+password, "PGTEST_VOLUME=pgsession-"+filepath.Base(o.DataDir))
	}
	p, got, err := startProvider(ctx, "docker", nil, func(cmd *exec.Cmd) {
		cmd.Env = env
		(*account)(nil).run(cmd)
	})
	if err != nil {
		return nil, errors.Join(err, release())
	}
	end := func() error { return errors.Join(p.end(), release()) }
	// A container's port answers before its server does.
	if err := errors.Join(answers(ctx, got.URL), keepURL(got.URL)); err != nil {
		return nil, errors.Join(err, end())
	}
	return &Server{url: got.URL, source: "PostgreSQL in a container, " + describe(got.URL), close: end}, nil
}

// joinContainer waits for the container that another program starts.
func joinContainer(ctx context.Context, urlFile string) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		url, err := os.ReadFile(urlFile)
		if err == nil && ping(ctx, string(url)) == nil {
			return &Server{
				url: string(url), source: "PostgreSQL in another program's container, " + describe(string(url)),
				close: func() error { return nil },
			}, nil
		}
		if wait(ctx) != nil {
			return nil, errors.New("another program holds the container and it does not answer")
		}
	}
}

// dockerAnswers asks before a program is built in vain.
func dockerAnswers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if docker, err := exec.LookPath("docker"); err == nil { // knows about contexts
		cmd := exec.CommandContext(ctx, docker, "version", "--format", "{{.Server.Version}}")
		cmd.WaitDelay = time.Second
		if cmd.Run() == nil {
			return nil
		}
		return errors.New("no Docker engine answers")
	}
	home, _ := os.UserHomeDir()
	for _, at := range []string{
		os.Getenv("DOCKER_HOST"),
		"unix:///var/run/docker.sock",
		"unix://" + filepath.Join(home, ".docker", "run", "docker.sock"),
		"unix://" + filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "docker.sock"),
	} {
		network, address, _ := strings.Cut(at, "://")
		if conn, err := new(net.Dialer).DialContext(ctx, network, address); err == nil {
			return conn.Close()
		}
	}
	return errors.New("no Docker engine answers")
}

// download gives a directory of server binaries that it has downloaded, now or before.
func download(ctx context.Context, o Options, as *account) (binDir string, err error) {
	root, err := CacheDir("postgresql")
	if err != nil {
		return "", err
	}
	// One folder for each repository: what one gave is not taken for another's.
	repository := cmp.Or(os.Getenv("PGTEST_BINARY_REPOSITORY"), "default")
	dir := filepath.Join(root, strings.Map(func(r rune) rune {
		if strings.ContainsRune(`/\:?*"<>|`, r) {
			return '_'
		}
		return r
	}, repository))
	if err := as.keepDir(dir); err != nil {
		return "", err
	}
	l, err := lock(ctx, filepath.Join(dir, "download.lock"), true)
	if err != nil {
		return "", err
	}
	defer l.unlock()
	done := filepath.Join(dir, "bin-dir")
	if b, err := os.ReadFile(done); err == nil {
		return string(b), nil
	}
	o.Logger.Info("downloading PostgreSQL; this happens once", "repository", repository, "dir", dir)
	work := filepath.Join(dir, "files") // the account's: embedded-postgres runs as it
	if err := os.Mkdir(work, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	if err := as.own(work); err != nil {
		return "", err
	}
	p, got, err := startProvider(ctx, "download", as, func(cmd *exec.Cmd) {
		cmd.Env = append(os.Environ(), "HOME="+work, "PGTEST_DOWNLOAD_DIR="+work)
		as.run(cmd)
	})
	if err != nil {
		return "", err
	}
	if err := p.end(); err != nil {
		return "", err
	}
	return got.BinDir, os.WriteFile(done, []byte(got.BinDir), 0o600)
}
