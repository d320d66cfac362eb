package doctor_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/cmd/sessionctl/internal/doctor"
)

func TestPooler(t *testing.T) {
	for _, tt := range []struct {
		mode, size, query string
		level             doctor.Level
		words             string
	}{
		{"session", "5", "", doctor.OK, "session mode"},
		{"transaction", "5", "", doctor.Error, "default_query_exec_mode=cache_describe"},
		{"transaction", "5", "cache_describe", doctor.OK, "transaction mode"},
		{"transaction", "1", "exec", doctor.OK, "transaction mode"},
		{"statement", "5", "cache_describe", doctor.Hint, "statement mode"},
	} {
		t.Run(tt.mode+" "+tt.size+" "+tt.query, func(t *testing.T) {
			p := healthy(t)
			p.pool.Close() // PgBouncer has few connections
			p.url = bounce(t, p.Program.ConnConfig, "pool_mode = "+tt.mode, "default_pool_size = "+tt.size, "max_prepared_statements = 0")
			p.with("application_name", "x")
			if tt.query != "" {
				p.with("default_query_exec_mode", tt.query)
			}
			p.pool = p.open(p.url)
			p.Pool = p.pool
			want(t, p.examine(), "pooler", tt.level, tt.words)
		})
	}
}

// bounce runs a PgBouncer before a server until the test ends, and returns the
// URL of the database through it.
func bounce(t *testing.T, db *pgx.ConnConfig, settings ...string) string {
	t.Helper()
	path := ""
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
		}
	}
	if path == "" {
		t.Fatal("install pgbouncer: apt-get install pgbouncer, brew install pgbouncer, dnf install pgbouncer")
	}
	if out, _ := exec.Command(path, "--version").Output(); strings.Contains(string(out), "PgBouncer 1.18") {
		settings = settings[:len(settings)-1] // it does not know max_prepared_statements
	}
	for range 5 { // another program may take the port
		if port := listen(t, path, db, settings); port != 0 {
			u := url.URL{Scheme: "postgres", User: url.User("client"), Host: fmt.Sprintf("127.0.0.1:%d", port), Path: "/" + db.Database, RawQuery: "sslmode=disable"}
			return u.String()
		}
	}
	t.Fatal("pgbouncer does not start")
	return ""
}

// listen runs PgBouncer at a port that was free a moment ago, and returns that; 0 where
// it has ended at once.
func listen(t *testing.T, path string, db *pgx.ConnConfig, settings []string) (port int) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port = ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	config := filepath.Join(t.TempDir(), "pgbouncer.ini")
	lines := append([]string{
		"[databases]", fmt.Sprintf("* = host=%s port=%d user=%s password='%s'", db.Host, db.Port, db.User, db.Password),
		"[pgbouncer]", "listen_addr = 127.0.0.1", fmt.Sprintf("listen_port = %d", port), "unix_socket_dir =", "auth_type = any",
	}, settings...)
	if err := os.WriteFile(config, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{config}
	if os.Geteuid() == 0 { // it refuses to run as root
		name := "nobody"
		if u, err := user.Lookup("postgres"); err == nil {
			name = u.Username
		}
		args = append(args, "-u", name)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for said := bufio.NewScanner(log); said.Scan(); {
		if strings.Contains(said.Text(), "process up") {
			go func() { _, _ = io.Copy(io.Discard, log) }()
			return port
		}
	}
	return 0
}
