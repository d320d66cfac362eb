package pgtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// patience bounds the wait for the remains of a crashed server to go, and for
	// one that another program is starting.
	patience = 60 * time.Second

	pollInterval = 50 * time.Millisecond

	portAttempts = 20
)

// local is a server that we run with binaries of this machine.
type local struct {
	bin      binaries
	dir      string // everything of this server
	data     string // its data directory, in dir
	password string
	port     int
	settings map[string]string
	as       *account
	log      *slog.Logger
}

// startLocal runs a server of our own, temporary or kept.
func startLocal(ctx context.Context, o Options, all []binaries, as *account) (*Server, error) {
	if len(all) == 0 {
		return nil, errors.New("pgtest: the downloaded PostgreSQL does not run on this machine")
	}
	if o.DataDir != "" {
		return keep(ctx, o, all, as)
	}
	dir, err := as.serverDir("pgtest-")
	if err != nil {
		return nil, fmt.Errorf("pgtest: %w", err)
	}
	// From here on dir, and a server in it, end with this process.
	watch, err := watchOver(dir, as)
	if err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("pgtest: %w", err)
	}
	l := &local{
		bin: all[0], dir: dir, data: filepath.Join(dir, "data"), password: rand.Text(),
		settings: temporarySettings(o.Settings), as: as, log: o.Logger,
	}
	end := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return errors.Join(l.stop(ctx, "immediate"), os.RemoveAll(dir), watch.end())
	}
	if err := l.initdb(ctx, "--no-sync"); err != nil {
		return nil, errors.Join(err, end())
	}
	if err := l.start(ctx); err != nil {
		return nil, errors.Join(err, end())
	}
	return l.server("temporary", end), nil
}

// temporarySettings give up what only matters when the machine itself crashes.
// synchronous_commit stays on: a commit then survives a killed server, which
// tests rely on, and without fsync it costs nothing. Each database made is 7 MB of log,
// which is not to fill the memory.
func temporarySettings(more map[string]string) map[string]string {
	settings := map[string]string{"fsync": "off", "full_page_writes": "off", "max_connections": "200", "max_wal_size": "256MB"}
	maps.Copy(settings, more)
	return settings
}

func (l *local) server(kind string, end func() error) *Server {
	return &Server{
		url:    l.url(),
		source: fmt.Sprintf("%s server of our own, PostgreSQL %s, port %d, binaries in %s, data in %s", kind, l.bin.version, l.port, l.bin.dir, l.data),
		own:    l,
		close:  end,
	}
}

func (l *local) url() string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword("postgres", l.password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(l.port)), Path: "/postgres", RawQuery: "sslmode=disable",
	}
	return u.String()
}

// initdb makes the data directory: aside, and moved into place when it is whole,
// so that an interrupted run leaves nothing that looks like one.
func (l *local) initdb(ctx context.Context, more ...string) error {
	l.log.Info("making a data directory", "postgresql", l.bin.version, "dir", l.data)
	fresh := l.data + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	if err := l.as.own(fresh); err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	secret, err := l.as.tempFile(l.password)
	if err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	defer os.Remove(secret)
	args := []string{
		"--pgdata=" + fresh, "--username=postgres", "--pwfile=" + secret,
		"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C",
	}
	if out, err := l.run(ctx, "initdb", append(args, more...)...); err != nil {
		return fmt.Errorf("pgtest: initdb: %w\n%s", err, out)
	}
	conf, err := os.OpenFile(filepath.Join(fresh, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	_, err = conf.WriteString("\ninclude 'pgtest.conf'\n")
	if err := errors.Join(err, conf.Close(), os.Rename(fresh, l.data)); err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	return nil
}

// start starts the server and returns when it answers. The first start chooses
// the port; later ones keep it, so that pools find the server again.
func (l *local) start(ctx context.Context) error {
	if running, err := l.adopt(ctx); running || err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	chosen := l.port != 0
	for attempt := 1; ; attempt++ {
		if !chosen {
			l.port = freePort()
		}
		err := l.startOnce(ctx)
		switch {
		case err == nil:
			l.log.Info("PostgreSQL started", "postgresql", l.bin.version, "port", l.port, "data", l.data)
			return answers(ctx, l.url())
		case ctx.Err() != nil:
			return err
		case errors.Is(err, errPort) && !chosen && attempt < portAttempts:
		case errors.Is(err, errPort) || errors.Is(err, errRemains):
			if wait(ctx) != nil {
				return err
			}
		default:
			return err
		}
	}
}

var (
	errPort    = errors.New("the port is taken")
	errRemains = errors.New("processes of an earlier server are still there")
)

func (l *local) startOnce(ctx context.Context) error {
	if err := l.configure(); err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	log := filepath.Join(l.data, "server.log")
	_ = os.Remove(log)
	// With a log file the server inherits none of our descriptors.
	out, err := l.run(ctx, "pg_ctl", "start", "--wait", "--timeout=60", "--pgdata="+l.data, "--log="+log)
	if err == nil {
		return nil
	}
	said, _ := os.ReadFile(log)
	switch {
	case bytes.Contains(said, []byte("could not create any TCP/IP sockets")):
		err = errPort
	case bytes.Contains(said, []byte("pre-existing shared memory block")),
		bytes.Contains(said, []byte(`lock file "postmaster.pid" already exists`)):
		err = errRemains
	}
	return fmt.Errorf("pgtest: PostgreSQL does not start: %w\n%s%s", err, out, lastLines(said, 10))
}

// configure writes our part of the configuration.
func (l *local) configure() error {
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(l.port),
		"unix_socket_directories": "", // the usual directory is not always writable, and the path has a length limit
		"logging_collector":       "off",
	}
	maps.Copy(settings, l.settings)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	path := filepath.Join(l.data, "pgtest.conf")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return err
	}
	return l.as.own(path)
}

// stop stops the server; one that is not running is no error.
func (l *local) stop(ctx context.Context, mode string) error {
	if l.postmaster().pid == 0 {
		return nil
	}
	out, err := l.run(ctx, "pg_ctl", "stop", "--wait", "--timeout=60", "--pgdata="+l.data, "--mode="+mode)
	if err != nil && !Running(l.postmaster().pid) {
		return nil // it had crashed, and left its file behind
	}
	if err != nil {
		return fmt.Errorf("pgtest: PostgreSQL does not stop: %w\n%s", err, out)
	}
	l.log.Info("PostgreSQL stopped", "mode", mode, "port", l.port)
	return nil
}

// adopt finds out whether a server already runs on the data directory, waits until
// it answers, and takes over its port.
func (l *local) adopt(ctx context.Context) (running bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		pm := l.postmaster()
		if pm.pid == 0 || !Running(pm.pid) {
			return false, nil // PostgreSQL sees for itself that a file left behind is stale
		}
		if !l.mayBePostmaster(pm.pid) {
			// Another program got the process ID of a server that was killed.
			// PostgreSQL would take it for a server and refuse to start.
			l.log.Info("removing a stale postmaster.pid", "data", l.data)
			if err := os.Remove(filepath.Join(l.data, "postmaster.pid")); err != nil {
				return false, fmt.Errorf("pgtest: %w", err)
			}
			return false, nil
		}
		err := errors.New("it has no port yet")
		if pm.port != 0 {
			l.port = pm.port
			if err = l.ours(ctx); err == nil {
				l.log.Info("using the PostgreSQL that already runs", "port", l.port, "data", l.data)
				return true, nil
			}
			if pg := new(pgconn.PgError); errors.As(err, &pg) && pg.Code == "28P01" {
				return false, fmt.Errorf("pgtest: the password beside %s is not that of its server; delete %s to begin afresh", l.data, l.dir)
			}
		}
		if wait(ctx) != nil {
			return false, fmt.Errorf("pgtest: process %d, named in %s, does not answer as a PostgreSQL: %w",
				pm.pid, filepath.Join(l.data, "postmaster.pid"), err)
		}
	}
}

// ours connects and checks that the server works on our data directory.
func (l *local) ours(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, l.url())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var dir string
	if err := conn.QueryRow(ctx, "SHOW data_directory").Scan(&dir); err != nil {
		return err
	}
	a, errA := os.Stat(dir)
	b, errB := os.Stat(l.data)
	if err := errors.Join(errA, errB); err != nil {
		return err
	}
	if !os.SameFile(a, b) {
		return fmt.Errorf("port %d belongs to a server with other data", l.port)
	}
	return nil
}

// answers polls until the server at url accepts a connection.
func answers(ctx context.Context, url string) error {
	for {
		err := ping(ctx, url)
		if err == nil {
			return nil
		}
		if wait(ctx) != nil {
			return fmt.Errorf("pgtest: %w", err)
		}
	}
}

// postmaster is what postmaster.pid says: line 1 is the process ID, line 4 the port.
type postmaster struct{ pid, port int }

func (l *local) postmaster() postmaster {
	b, err := os.ReadFile(filepath.Join(l.data, "postmaster.pid"))
	if err != nil {
		return postmaster{}
	}
	lines := strings.Split(string(b), "\n")
	var pm postmaster
	pm.pid, _ = strconv.Atoi(strings.TrimSpace(lines[0]))
	if len(lines) > 3 {
		pm.port, _ = strconv.Atoi(strings.TrimSpace(lines[3]))
	}
	return pm
}

// mayBePostmaster reports whether the command line of process pid names our data
// directory, and true where command lines cannot be read.
func (l *local) mayBePostmaster(pid int) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if errors.Is(err, fs.ErrNotExist) {
		line, err = exec.Command("ps", "-o", "args=", "-p", strconv.Itoa(pid)).Output()
	}
	return err != nil || bytes.Contains(line, []byte(l.data))
}

// run runs one of PostgreSQL's programs to its end. Its output goes through a file:
// a server that it leaves behind would hold a pipe open.
func (l *local) run(ctx context.Context, name string, args ...string) (string, error) {
	out, err := os.CreateTemp("", "pgtest-output-")
	if err != nil {
		return "", err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd := exec.CommandContext(ctx, filepath.Join(l.bin.dir, exe(name)), args...)
	cmd.Dir = l.data
	if _, err := os.Stat(l.data); err != nil {
		cmd.Dir = l.dir
	}
	cmd.Env = serverEnv()
	cmd.Stdout, cmd.Stderr = out, out
	l.as.run(cmd)
	err = cmd.Run()
	said, _ := os.ReadFile(out.Name())
	return string(said), err
}

// serverEnv is our environment without what would change a server's: the PG
// variables, and the language of the messages that startOnce reads.
func serverEnv() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "PG") || strings.HasPrefix(v, "LC_") || strings.HasPrefix(v, "LANG")
	})
	return append(env, "LC_ALL=C")
}

// freePort chooses below the range from which Linux, macOS and Windows serve
// outgoing connections: a client that dials a stopped server's port could
// otherwise be connected to itself.
func freePort() int {
	for range 100 {
		port := 20000 + mathrand.IntN(12000)
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		ln.Close()
		return port
	}
	return 20000 + mathrand.IntN(12000)
}

// wait passes a poll interval, and gives ctx's error when it ends first.
func wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pollInterval):
		return nil
	}
}

func lastLines(b []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
