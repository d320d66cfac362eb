package faults_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/tests/faults"
)

// pgBouncer is a PgBouncer before a server, in transaction mode.
type pgBouncer struct {
	t    *testing.T
	dir  string // of its configuration, in which it runs
	user *syscall.Credential
	port string
	url  string
	cmd  *exec.Cmd
}

func newPgBouncer(t *testing.T, server *pgtest.Server) *pgBouncer {
	t.Helper()
	u, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	password, _ := u.User.Password()
	data := get[string](t, admin(t, server.URL()), "SHOW data_directory")
	b := &pgBouncer{t: t, port: freePort(t), dir: filepath.Dir(data)} // which the server's account can reach
	if os.Geteuid() == 0 {                                            // PgBouncer refuses to run as root
		info, err := os.Stat(data)
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		b.user = &syscall.Credential{Uid: st.Uid, Gid: st.Gid}
	}
	config := fmt.Sprintf(`[databases]
* = host=127.0.0.1 port=%s user=postgres password=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 5
max_client_conn = 200
server_login_retry = 1
`, u.Port(), password, b.port)
	if err := os.WriteFile(filepath.Join(b.dir, "pgbouncer.ini"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ownBy(t, filepath.Join(b.dir, "pgbouncer.ini"), data)
	u.Host = net.JoinHostPort("127.0.0.1", b.port)
	b.url = u.String()
	t.Cleanup(b.stop)
	b.start()
	return b
}

// freePort chooses below the range of outgoing connections: a client that dials
// a port where nobody listens could otherwise be connected to itself.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000)))
		if err == nil {
			defer ln.Close()
			return strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
		}
	}
	t.Fatal("no free port")
	return ""
}

// start returns when PgBouncer leads to the server.
func (b *pgBouncer) start() {
	b.t.Helper()
	path, err := exec.LookPath("pgbouncer")
	if err != nil {
		if path = "/usr/sbin/pgbouncer"; !exists(path) {
			b.t.Fatal("no pgbouncer on this machine: apt-get install pgbouncer")
		}
	}
	b.cmd = exec.Command(path, "--quiet", "pgbouncer.ini")
	b.cmd.Dir = b.dir
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: b.user, Pdeathsig: syscall.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	until(b.t, "PgBouncer leads to the server", func() bool {
		conn, err := pgx.Connect(b.t.Context(), b.url)
		if err == nil {
			_ = conn.Close(b.t.Context())
		}
		return err == nil
	})
}

func (b *pgBouncer) stop() {
	if b.cmd != nil {
		_ = b.cmd.Process.Kill()
		_ = b.cmd.Wait()
		b.cmd = nil
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// In transaction mode each statement may run on another connection of the
// server. PgBouncer itself is killed and started again, then PostgreSQL behind
// it restarted.
func TestFaultPgBouncer(t *testing.T) {
	server := newServer(t)
	bouncer := newPgBouncer(t, server)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		t.Run(strings.ReplaceAll(mode.String(), " ", "_"), func(t *testing.T) {
			execute(t, admin(t, server.URL()), "DROP SCHEMA IF EXISTS schema_system CASCADE")
			r := newRig(t, bouncer.url, rigOptions{timeout: ample, pool: func(cfg *pgxpool.Config) {
				cfg.ConnConfig.DefaultQueryExecMode = mode
			}})
			bouncer.stop()
			bouncer.start()
			back := time.Now()
			r.wait(recovery)
			if err := server.Restart(t.Context(), "fast"); err != nil {
				t.Fatal(err)
			}
			r.wait(recovery)
			res := r.finish("PgBouncer, " + mode.String() + ": restarts of it and of PostgreSQL")
			res.recovered(t, back)
			res.unharmed(t)
			res.reconnected(t, 2*2)
		})
	}
}

// In pgx's default mode prepared statements are mixed up. The error says what to
// set.
func TestFaultPgBouncerDefaultMode(t *testing.T) {
	server := newServer(t)
	bouncer := newPgBouncer(t, server)
	const remedy = "pgx.QueryExecModeCacheDescribe"
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for ctx.Err() == nil {
		p, err := faults.StartProgram(ctx, bouncer.url, faults.ProgramOptions{})
		if err == nil {
			p.Close() // in luck: its statements had names that nobody had taken
			continue
		}
		if !strings.Contains(err.Error(), remedy) {
			t.Errorf("got %v, want that it names %s", err, remedy)
		}
		return
	}
	t.Errorf("got no error in a minute, want one")
}
