package upgrade_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/tests/faults"
)

// newest is the major version to move to.
const newest = "18"

func TestMain(m *testing.M) { pgtest.Main(withServers{m}) }

type withServers struct{ *testing.M }

func (w withServers) Run() int {
	code := w.M.Run()
	for _, s := range []*pgtest.Server{shared.old, shared.new} {
		if s == nil {
			continue
		}
		if err := s.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if shared.dir != "" {
		_ = os.RemoveAll(shared.dir)
	}
	return code
}

// shared are the two servers of all tests: each has a database of its own there.
var shared struct {
	once     sync.Once
	dir      string // of the programs of the new one
	old, new *pgtest.Server
	err      error
}

func startServers(ctx context.Context) error {
	bin, err := newBinaries()
	if err != nil {
		return err
	}
	s := &shared
	// The old one's time zone is not the new one's, and that must be mended.
	if s.old, err = pgtest.Find(ctx, pgtest.Options{OwnOnly: true, Settings: map[string]string{"wal_level": "logical", "timezone": "America/New_York"}}); err != nil {
		return err
	}
	if s.new, err = pgtest.Find(ctx, pgtest.Options{OwnOnly: true, BinDir: bin, Settings: map[string]string{"timezone": "UTC"}}); err != nil {
		return err
	}
	var versions [2]int
	for i, server := range []*pgtest.Server{s.old, s.new} {
		c, err := pgx.Connect(ctx, server.URL())
		if err != nil {
			return err
		}
		defer c.Close(ctx)
		if err := c.QueryRow(ctx, "SELECT current_setting('server_version_num')::int / 10000").Scan(&versions[i]); err != nil {
			return err
		}
	}
	fmt.Printf("from PostgreSQL %d to %d\n", versions[0], versions[1])
	if versions[0] >= versions[1] {
		fmt.Println("THE NEW SERVER IS NOT NEWER, so this is a move, and no upgrade.")
	}
	return nil
}

// newBinaries returns the directory of the programs to move to: UPGRADE_BINDIR, or
// those that npm has. Without npm it is "", those of this machine, and that is said.
func newBinaries() (string, error) {
	if dir := os.Getenv("UPGRADE_BINDIR"); dir != "" {
		return dir, nil
	}
	var err error
	if shared.dir, err = os.MkdirTemp("", "upgrade-"); err != nil {
		return "", err
	}
	if err := os.Chmod(shared.dir, 0o755); err != nil { // servers may run under another account
		return "", err
	}
	cmd := exec.Command("../../internal/versions/run", "-unpack", shared.dir, newest)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return strings.TrimSpace(string(out)), nil
	case errors.As(err, &exit) && exit.ExitCode() == 3: // it cannot be had
		fmt.Printf("NO POSTGRESQL %s CAN BE HAD HERE, so both servers are of this machine's version.\n%s", newest, said.String())
		return "", nil
	}
	return "", fmt.Errorf("%w: %s", err, said.String())
}

// server is one of the two.
type server struct {
	t        *testing.T
	adminURL string // of a superuser in the database app
	appURL   string // of the programs' role
	host     string // with port
	port     string
}

// appPassword is the same on both, as pg_dumpall brings it.
const appPassword = "for-tests-only"

// fresh makes the database, and removes that of the test before.
func fresh(t *testing.T, own *pgtest.Server, create string) *server {
	t.Helper()
	u, err := url.Parse(own.URL())
	if err != nil {
		t.Fatal("a URL cannot be parsed")
	}
	c := connect(t, own.URL())
	defer c.Close(t.Context())
	u.Path = "/app"
	s := &server{t: t, adminURL: u.String(), host: u.Host, port: u.Port()}
	if get[int](t, c, "SELECT count(*) FROM pg_subscription") > 0 { // left by a test that forgets it
		s.do("ALTER SUBSCRIPTION session_upgrade DISABLE")
		s.do("ALTER SUBSCRIPTION session_upgrade SET (slot_name = NONE)")
		s.do("DROP SUBSCRIPTION session_upgrade")
	}
	until(t, "no slot is in use", func() bool {
		return get[int](t, c, "SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots WHERE active") == 0
	})
	for _, sql := range []string{
		"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots",
		"DROP DATABASE IF EXISTS app WITH (FORCE)",
		"DROP ROLE IF EXISTS session_upgrade",
		"DROP ROLE IF EXISTS app",
		"CREATE ROLE app LOGIN PASSWORD '" + appPassword + "'",
		create,
	} {
		execute(t, c, sql)
	}
	u.User = url.UserPassword("app", appPassword)
	s.appURL = u.String() + "&connect_timeout=2"
	return s
}

// do runs a statement as a superuser, on a connection of its own.
func (s *server) do(sql string) {
	s.t.Helper()
	c := connect(s.t, s.adminURL)
	defer c.Close(s.t.Context())
	execute(s.t, c, sql)
}

// ask does likewise, and returns the answer.
func ask[T any](s *server, sql string) T {
	s.t.Helper()
	c := connect(s.t, s.adminURL)
	defer c.Close(s.t.Context())
	return get[T](s.t, c, sql)
}

// move is one from an old server to a new one.
type move struct {
	t          *testing.T
	blocks     []block
	undo       []string
	old, new   *server
	outbox     bool
	terminated int // connections, in step 7
	address    *address
	ledger     *faults.Ledger
	programs   []*faults.Program
	running    *faults.Run
}

// newMove makes the database on both servers. Their collations differ, which must not matter.
func newMove(t *testing.T) *move {
	t.Helper()
	shared.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		shared.err = startServers(ctx)
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	m := &move{t: t, ledger: faults.NewLedger()}
	m.blocks, m.undo = readBlocks(t)
	m.new = fresh(t, shared.new, "CREATE DATABASE app OWNER app TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'")
	m.old = fresh(t, shared.old, "CREATE DATABASE app OWNER app")
	m.address = newAddress(t, m.old.host)
	return m
}

// programURL is what the programs know.
func (m *move) programURL() string {
	return strings.Replace(m.old.appURL, m.old.host, m.address.String(), 1)
}

// schema is step 3: it makes the tables on a server, as sessionctl schema prints them.
func (m *move) schema(s *server, o session.PostgresOptions) {
	m.t.Helper()
	c := connect(m.t, s.appURL)
	for i, sql := range strings.Split(session.SchemaSQL(o), "\nCREATE INDEX CONCURRENTLY") {
		if i > 0 { // which is a statement of its own
			sql = "CREATE INDEX CONCURRENTLY" + sql
		}
		execute(m.t, c, sql)
	}
}

const (
	conns = 6 // of a program's pool

	// ample is a StoreTimeout that even a busy machine does not outlast; a browser waits
	// for a minute.
	ample = 50 * time.Second

	few, many = 100, 250 // requests
)

// load starts two programs and their browsers.
func (m *move) load() {
	m.t.Helper()
	for range 2 {
		p, err := faults.StartProgram(m.t.Context(), m.programURL(), faults.ProgramOptions{
			Pool: func(cfg *pgxpool.Config) { cfg.MaxConns = conns },
			Config: func(cfg *session.Config) {
				cfg.StoreTimeout = ample
				cfg.IdleTimeout = time.Hour // less than the time zones differ
				cfg.TouchInterval = 200 * time.Millisecond
			},
		})
		if err != nil {
			m.t.Fatal(err)
		}
		m.t.Cleanup(p.Close)
		m.programs = append(m.programs, p)
	}
	for _, s := range []*server{m.old, m.new} { // the application's own
		execute(m.t, connect(m.t, s.appURL), faults.SQLOrders)
	}
	m.running = faults.Load{
		Ledger: m.ledger,
		Target: m.target,
		Pad:    pad(),
		Mix:    map[faults.Kind]int{faults.Read: 40, faults.Write: 20, faults.Add: 14, faults.Order: 8, faults.Renew: 6, faults.Logout: 5, faults.Replay: 7},
	}.Start()
	m.t.Cleanup(m.running.Close)
	m.t.Cleanup(func() {
		if m.running != nil {
			m.running.Stop()
		}
	})
	m.wait(many)
}

func (m *move) target() string { return m.programs[rand.IntN(len(m.programs))].URL }

// pad is text that no compression makes short: it is stored beside its row, and a
// touch does not send it again.
func pad() string {
	var b strings.Builder
	for b.Len() < 6000 {
		fmt.Fprintf(&b, "%x", rand.Uint64())
	}
	return b.String()
}

func (m *move) wait(n int) {
	m.t.Helper()
	if err := m.running.Wait(n); err != nil {
		m.t.Fatal(err)
	}
}

// publishOrders is what an operator adds for the application's tables.
func (m *move) publishOrders() {
	m.t.Helper()
	m.old.do("GRANT SELECT ON orders TO session_upgrade")
	m.old.do("ALTER PUBLICATION session_upgrade ADD TABLE orders")
}

// settle ends the load and returns what does not agree with what the browsers were told.
func (m *move) settle(pool *pgxpool.Pool) (faults.Report, faults.Findings, []string) {
	m.t.Helper()
	rep := m.running.Stop()
	for _, b := range m.running.Browsers() {
		for _, p := range m.programs {
			if b.LoggedIn() {
				b.Do(faults.Read, p.URL)
			}
		}
	}
	m.running = nil
	rows, err := faults.ReadRows(m.t.Context(), pool)
	if err != nil {
		m.t.Fatal(err)
	}
	m.ledger.Audit(rows)
	found, notes := m.ledger.Findings()
	return rep, found, notes
}
