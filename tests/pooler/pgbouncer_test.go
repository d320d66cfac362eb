package pooler_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// patience bounds every wait.
const patience = time.Minute

// servers is how many connections PgBouncer has with the server, clients how many
// each pool has with PgBouncer.
const servers, clients = 4, 12

// bouncer is a running PgBouncer before an empty database.
type bouncer struct {
	url    string // through it
	direct string // past it
}

// start runs a PgBouncer in the mode session, transaction or statement, with more
// lines of configuration, until the test ends.
func start(t *testing.T, mode string, more ...string) bouncer {
	t.Helper()
	b := bouncer{direct: pgtest.URL(t)}
	db, err := pgx.ParseConfig(b.direct)
	if err != nil {
		t.Fatal("the URL of the database cannot be parsed")
	}
	dir := t.TempDir()
	var faults []error
	for range 5 { // another program may take the port
		port := freePort(t)
		config := filepath.Join(dir, "pgbouncer.ini")
		lines := append([]string{
			"[databases]",
			fmt.Sprintf("* = host=%s port=%d user=%s password='%s'", db.Host, db.Port, db.User, db.Password),
			"[pgbouncer]", "listen_addr = 127.0.0.1", fmt.Sprintf("listen_port = %d", port), "unix_socket_dir =",
			"auth_type = any", "pool_mode = " + mode, fmt.Sprintf("default_pool_size = %d", servers), "max_client_conn = 200",
		}, more...)
		if err := os.WriteFile(config, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := run(t, config); err != nil {
			faults = append(faults, err)
			continue
		}
		u := url.URL{Scheme: "postgres", User: url.User("client"), Path: "/" + db.Database, RawQuery: "sslmode=disable"}
		u.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		b.url = u.String()
		return b
	}
	t.Fatal(errors.Join(faults...))
	return b
}

// run starts PgBouncer and returns when it listens.
func run(t *testing.T, config string) error {
	t.Helper()
	args := []string{program(t), config}
	if os.Geteuid() == 0 { // it refuses to run as root
		name := "nobody"
		if u, err := user.Lookup("postgres"); err == nil {
			name = u.Username
		}
		args = append(args, "-u", name)
	}
	// It must not outlive these tests, however they end: then the pipe closes.
	cmd := exec.Command("sh", append([]string{"-c", `"$@" & pid=$!; (read -r _; kill $pid) <&3 >/dev/null 2>&1 & wait $pid`, "sh"}, args...)...)
	alive, ours, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{alive}
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	alive.Close()
	var said strings.Builder
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		fmt.Fprintln(&said, lines.Text())
		if strings.Contains(lines.Text(), "process up") {
			go func() { _, _ = io.Copy(io.Discard, log) }()
			t.Cleanup(func() {
				ours.Close()
				_ = cmd.Wait() // how it ends is of no interest
			})
			return nil
		}
	}
	ours.Close()
	return fmt.Errorf("pgbouncer does not start: %w\n%s", cmd.Wait(), said.String())
}

// program finds PgBouncer.
func program(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("install pgbouncer: apt-get install pgbouncer, brew install pgbouncer, dnf install pgbouncer")
	return ""
}

var versionNumber = regexp.MustCompile(`PgBouncer (\d+)\.(\d+)`)

// keepsStatements reports whether this PgBouncer can keep prepared statements
// itself, as those from 1.21 on.
func keepsStatements(t *testing.T) bool {
	t.Helper()
	out, err := exec.Command(program(t), "--version").Output()
	m := versionNumber.FindStringSubmatch(string(out))
	if err != nil || m == nil {
		t.Fatalf("pgbouncer --version: got %q, %v", out, err)
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	return major > 1 || minor >= 21
}

func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// open returns a pool that is closed when the test ends.
func open(t *testing.T, url string, mode pgx.QueryExecMode, opts ...func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	cfg.MaxConns, cfg.ConnConfig.DefaultQueryExecMode = clients, mode
	for _, opt := range opts {
		opt(cfg)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// get returns the one value of a query.
func get[T any](t *testing.T, pool *pgxpool.Pool, sql string, args ...any) (v T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := pool.QueryRow(ctx, sql, args...).Scan(&v); err != nil {
		t.Fatalf("%v in %s", err, sql)
	}
	return v
}
