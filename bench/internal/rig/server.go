package rig

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Server is a running server process.
type Server struct {
	Variant *Variant
	Addr    string
	proc    *process
}

// Launch is where and how servers are started.
type Launch struct {
	Module   string // the benchmark's directory
	Binaries string // as Build returned
	Pool     int    // connections of each server to its store
	Secret   string // of every session
}

// Start starts a server on one core and waits until it answers. store is where the
// variant's store is: the URL of a database, the address of a Redis, or empty.
func (l *Launch) Start(ctx context.Context, v *Variant, store string) (*Server, error) {
	s := &Server{Variant: v}
	var err error
	s.proc, s.Addr, err = startOnPort(ctx, func(port int) *exec.Cmd { return l.command(v, store, port) }, func(addr string) error {
		s.Addr = addr
		return s.answers()
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", v.Name, err)
	}
	return s, nil
}

func (l *Launch) command(v *Variant, store string, port int) *exec.Cmd {
	var cmd *exec.Cmd
	if v.Program == ExpressServer {
		cmd = exec.Command("node", "server.js")
		cmd.Dir = l.expressDir()
	} else {
		cmd = exec.Command(filepath.Join(l.Binaries, v.Program))
	}
	cmd.Env = append(os.Environ(),
		"PORT="+strconv.Itoa(port), "PGPOOL_MAX="+strconv.Itoa(l.Pool), "SESSION_SECRET="+l.Secret,
		"GOMAXPROCS=1", "NODE_ENV=production")
	switch v.Store {
	case InPostgres:
		cmd.Env = append(cmd.Env, "DATABASE_URL="+store)
	case InRedis:
		cmd.Env = append(cmd.Env, "REDIS_ADDR="+store)
	}
	cmd.Env = append(cmd.Env, v.Env...)
	return cmd
}

func (s *Server) answers() error {
	status, body, _, err := s.get(http.DefaultClient, Public, "")
	if err == nil && (status != http.StatusOK || body != "public") {
		err = fmt.Errorf("%s: got %d %q, want 200 %q", Public, status, body, "public")
	}
	return err
}

// CPU returns the server's CPU time so far.
func (s *Server) CPU() (time.Duration, error) { return ProcessCPU(s.proc.cmd.Process.Pid) }

// Stop ends the server by SIGTERM.
func (s *Server) Stop() { s.proc.stop() }

// End sends SIGTERM and returns how the server ended, nil for exit status 0.
func (s *Server) End() error {
	s.proc.stop()
	return s.proc.err
}

func (l *Launch) expressDir() string { return filepath.Join(l.Module, "peers", "express") }

// InstallExpress installs Node and the pinned packages of the Express server where
// they are missing.
func (l *Launch) InstallExpress(ctx context.Context) error {
	return InstallNodeModules(ctx, l.expressDir())
}

// InstallNodeModules installs Node and the packages that a directory has pinned, where
// they are missing or older than the lock file.
func InstallNodeModules(ctx context.Context, dir string) error {
	if err := Install(ctx, PackageNode, PackageNPM); err != nil {
		return err
	}
	lock, err := os.Stat(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return err
	}
	done, err := os.Stat(filepath.Join(dir, "node_modules", ".package-lock.json")) // npm writes it last
	if err == nil && !done.ModTime().Before(lock.ModTime()) {
		return nil
	}
	Log("npm ci in %s", dir)
	cmd := exec.CommandContext(ctx, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	return nil
}

// get makes one request. cookies are Set-Cookie lines' names and values.
func (s *Server) get(c *http.Client, path, cookie string) (status int, body string, h http.Header, err error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+s.Addr+path, nil)
	if err != nil {
		return 0, "", nil, err
	}
	if cookie != "" {
		req.Header.Set("Cookie", cookie)
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), resp.Header, err
}

// Login logs a user in and returns the Cookie header of their browser.
func (s *Server) Login(c *http.Client, uid string) (string, error) {
	status, body, h, err := s.get(c, "/login?u="+uid, "")
	if err != nil {
		return "", err
	}
	cookies := (&http.Response{Header: h}).Cookies()
	if status != http.StatusOK || body != "ok" || len(cookies) == 0 {
		return "", fmt.Errorf("/login: got %d %q with %d cookies, want 200 \"ok\" with one", status, body, len(cookies))
	}
	var pairs []string
	for _, k := range cookies {
		pairs = append(pairs, k.Name+"="+k.Value)
	}
	return strings.Join(pairs, "; "), nil
}

// CheckContract checks each route once: status, body, headers, cookies.
func (s *Server) CheckContract() error {
	cookie, err := s.Login(http.DefaultClient, "contract")
	if err != nil {
		return err
	}
	for _, want := range []struct {
		path, cookie, body string
		status             int
		noCookie           bool
	}{
		{Public, "", "public", 200, true},
		{Public, cookie, "public", 200, s.Variant.Name != "scs-pgx-idle"},
		{New, "", "anon", 200, true},
		{Read, cookie, "contract", 200, false},
		{Write, cookie, "1", 200, false},
		{Write, cookie, "2", 200, false},
		{Read, cookie, "contract", 200, false},
		{Read, "", "unauthorized", 401, true},
		{Write, "", "unauthorized", 401, true},
	} {
		status, body, h, err := s.get(http.DefaultClient, want.path, want.cookie)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%s (logged in: %t)", want.path, want.cookie != "")
		if status != want.status || body != want.body {
			return fmt.Errorf("%s: got %d %q, want %d %q", name, status, body, want.status, want.body)
		}
		if n := h.Get("Content-Length"); n != strconv.Itoa(len(want.body)) {
			return fmt.Errorf("%s: got Content-Length %q, want %d", name, n, len(want.body))
		}
		if t := h.Get("Content-Type"); !slices.Contains([]string{"text/plain", "text/plain; charset=utf-8"}, strings.ToLower(t)) {
			return fmt.Errorf("%s: got Content-Type %q, want text/plain", name, t)
		}
		if want.noCookie && h.Get("Set-Cookie") != "" {
			return fmt.Errorf("%s: got a Set-Cookie, want none", name)
		}
	}
	return nil
}
