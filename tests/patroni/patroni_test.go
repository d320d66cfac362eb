package patroni_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/tests/faults"
)

var every = flag.Bool("every", false, "also run an asynchronous cluster, clients that know all hosts, and a Patroni that is stopped alone: ten to twenty minutes, so give -timeout 40m")

const (
	programs = 2
	conns    = 6               // of a program's pool
	timeout  = 5 * time.Second // StoreTimeout: a failover outlasts it, a switchover does not

	warmUp   = 150 // requests before a fault
	recovery = 250 // and after it

	// patience is for one fault, until the cluster is whole again.
	patience = 4 * time.Minute
)

// fault is something that happens to the leader. It returns when another node
// leads; mend brings back what it has broken.
type fault struct {
	name string
	do   func(context.Context, *pgtest.Patroni, *pgtest.Node) error
	mend func(*pgtest.Node) error
}

func faultsOf() []fault {
	nothing := func(*pgtest.Node) error { return nil }
	another := func(do func(*pgtest.Node) error) func(context.Context, *pgtest.Patroni, *pgtest.Node) error {
		return func(ctx context.Context, c *pgtest.Patroni, leader *pgtest.Node) error {
			if err := do(leader); err != nil {
				return err
			}
			_, err := c.WaitLeader(ctx, leader)
			return err
		}
	}
	all := []fault{
		{"switchover", func(ctx context.Context, c *pgtest.Patroni, _ *pgtest.Node) error { return c.Switchover(ctx) }, nothing},
		{"SIGKILL of the leader's node", another((*pgtest.Node).Kill), (*pgtest.Node).Start},
		{"SIGSTOP of the leader's node", another((*pgtest.Node).Freeze), (*pgtest.Node).Thaw},
	}
	if *every {
		all = append(all, fault{"SIGSTOP of the leader's Patroni alone", another((*pgtest.Node).FreezePatroni), (*pgtest.Node).Thaw})
	}
	return all
}

func TestPatroni(t *testing.T) {
	fronts := []string{"proxy"}
	modes := []bool{true}
	if *every {
		fronts, modes = []string{"proxy", "hosts"}, []bool{true, false}
	}
	for _, synchronous := range modes {
		mode := map[bool]string{true: "synchronous", false: "asynchronous"}[synchronous]
		t.Run(mode, func(t *testing.T) {
			cluster := start(t, synchronous)
			for _, front := range fronts {
				for _, f := range faultsOf() {
					t.Run(front+"/"+f.name, func(t *testing.T) {
						endure(t, cluster, front, f, synchronous && front == "proxy")
					})
				}
			}
		})
	}
	fmt.Println(table())
}

func start(t *testing.T, synchronous bool) *pgtest.Patroni {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	cluster, err := pgtest.StartPatroni(t.Context(), pgtest.PatroniOptions{Synchronous: synchronous, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	fmt.Println(cluster.Versions())
	return cluster
}

// endure lets a fault happen to programs under load, and settles accounts when the
// cluster is whole again. Where nothing may be lost, a finding is an error.
func endure(t *testing.T, cluster *pgtest.Patroni, front string, f fault, strict bool) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	dbURL := map[string]string{"proxy": cluster.URL(), "hosts": cluster.HostsURL()}[front]
	ledger := faults.NewLedger()
	var all []*faults.Program
	for range programs {
		all = append(all, program(t, dbURL))
	}
	empty(ctx, t, all[0].Pool)
	run := faults.Load{Ledger: ledger, Target: func() string { return all[rand.IntN(len(all))].URL }}.Start()
	defer run.Close()
	steps := func() error {
		if err := run.Wait(warmUp); err != nil {
			return err
		}
		leader := cluster.Leader()
		if leader == nil {
			return fmt.Errorf("nobody leads before the fault")
		}
		if err := f.do(ctx, cluster, leader); err != nil {
			return err
		}
		if err := run.Wait(recovery); err != nil {
			return err
		}
		if err := f.mend(leader); err != nil {
			return err
		}
		if err := cluster.WaitWhole(ctx); err != nil { // an old leader is back, and follows
			return err
		}
		return run.Wait(recovery)
	}
	err := steps()
	report := run.Stop()
	if err != nil {
		t.Fatalf("%v\n%s", err, cluster.Logs())
	}
	settle(ctx, t, run, all, ledger)
	found, notes := ledger.Findings()
	for fault, n := range report.Faults {
		t.Errorf("%s: got %d, want none", fault, n)
	}
	if report.Other != 0 {
		t.Errorf("broken answers: got %d, want none", report.Other)
	}
	switch {
	case found != (faults.Findings{}) && strict:
		t.Errorf("the ledger: got %+v, want none: %q", found, notes)
	case found != (faults.Findings{}):
		t.Logf("lost, as it may be here: %q", notes)
	}
	rows = append(rows, fmt.Sprintf("| %s | %.1f s | %d | %d | %d / %d / %d |", t.Name(),
		report.LongestGap.Seconds(), report.Requests, report.Unavailable, found.Lost, found.Resurrected, found.LoggedOut))
}

func program(t *testing.T, dbURL string) *faults.Program {
	t.Helper()
	p, err := faults.StartProgram(t.Context(), dbURL, faults.ProgramOptions{
		Pool: func(cfg *pgxpool.Config) { cfg.MaxConns = conns },
		Config: func(cfg *session.Config) {
			cfg.StoreTimeout = timeout
			cfg.IdleTimeout = time.Hour
			cfg.TouchInterval = 200 * time.Millisecond // every few reads move the expiry
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// empty removes the sessions of the fault before: this one's ledger does not know them.
func empty(ctx context.Context, t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	if _, err := pool.Exec(ctx, "DELETE FROM schema_system.session"); err != nil {
		t.Fatal(err)
	}
}

// settle asks for every session once more in every program, again where that was not
// answered in time, and compares the table with the ledger.
func settle(ctx context.Context, t *testing.T, run *faults.Run, all []*faults.Program, ledger *faults.Ledger) {
	t.Helper()
	for _, b := range run.Browsers() {
		for _, p := range all {
			for b.LoggedIn() {
				a := b.Do(faults.Read, p.URL)
				if a.OK() || a.Status == 409 {
					break
				}
				if a.Status != 503 || ctx.Err() != nil {
					t.Errorf("a read after it: got status %d, want 200", a.Status)
					break
				}
			}
		}
	}
	stored, err := faults.ReadRows(ctx, all[0].Pool)
	if err != nil {
		t.Fatal(err)
	}
	ledger.Audit(stored)
}

// rows are the results so far.
var rows []string

func table() string {
	return strings.Join(append([]string{
		"| cluster, way to it, fault | longest gap | requests | 503 | lost / resurrected / wrongly logged out |",
		"|---|---|---|---|---|",
	}, rows...), "\n")
}
