package faults_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/tests/faults"
)

// Two programs share sessions, and one has a clock that is decades late. The
// database's decides what lives.
func TestFaultWrongClock(t *testing.T) {
	dbURL := pgtest.URL(t)
	a := admin(t, dbURL)
	options := faults.ProgramOptions{Config: func(cfg *session.Config) { cfg.TouchInterval = time.Millisecond }}
	right, err := faults.StartProgram(t.Context(), dbURL, options)
	if err != nil {
		t.Fatal(err)
	}
	defer right.Close()
	ledger := faults.NewLedger()
	var rep faults.Report
	var opened int64
	synctest.Test(t, func(t *testing.T) { // whose clock begins in the year 2000
		wrong, err := faults.StartProgram(t.Context(), dbURL, options)
		if err != nil {
			t.Fatal(err)
		}
		defer wrong.Close()
		if off := get[float64](t, a, "SELECT extract(epoch FROM now() - to_timestamp($1))::float8", time.Now().Unix()); off < 1e8 {
			t.Fatalf("the wrong clock is %.0f s late, want years", off)
		}
		one, other := ledger.NewBrowser("one", "", nil), ledger.NewBrowser("other", "", nil)
		defer one.Close()
		defer other.Close()
		do := func(b *faults.Browser, p *faults.Program, kinds ...faults.Kind) {
			for _, kind := range kinds {
				answer := b.Do(kind, p.URL)
				rep.Requests++
				if !answer.OK() {
					t.Errorf("%s: got status %d, want 200", kind, answer.Status)
					continue
				}
				rep.OK++
			}
		}
		do(one, wrong, faults.Login)
		do(other, right, faults.Login)
		for _, b := range []*faults.Browser{one, other} {
			for range 5 {
				for _, p := range []*faults.Program{right, wrong} {
					do(b, p, faults.Read, faults.Write, faults.Add, faults.Renew, faults.Replay, faults.Read)
					if n, err := p.Manager.Prune(t.Context()); n != 0 || err != nil {
						t.Errorf("pruning: got %d, %v, want none", n, err)
					}
				}
			}
		}
		if n := get[int](t, a, "SELECT count(*) FROM schema_system.session WHERE expire BETWEEN now() + '23.9 hours' AND now() + '24.1 hours'"); n != 2 {
			t.Errorf("sessions that expire in 24 hours: got %d, want 2", n)
		}
		rows, err := faults.ReadRows(t.Context(), right.Pool)
		if err != nil {
			t.Fatal(err)
		}
		ledger.Audit(rows)
		found, notes := ledger.Findings()
		if found != (faults.Findings{}) {
			t.Errorf("the ledger: got %+v, want none: %q", found, notes)
		}
		opened = right.Pool.Stat().NewConnsCount() + wrong.Pool.Stat().NewConnsCount() - 2
		table.add("a program's clock is decades late", &rep, found, opened)

		execute(t, a, "UPDATE schema_system.session SET expire = now() - interval '1 second'")
		do(one, wrong, faults.Read)
		do(other, right, faults.Read)
		if found, _ := ledger.Findings(); found.LoggedOut != 2 {
			t.Errorf("expired sessions that are refused: got %d, want 2", found.LoggedOut)
		}
	})
}

// The column has no time zone: its values are in the zone of the connections,
// which the role or the programs' environment sets.
func TestFaultTimeZones(t *testing.T) {
	for _, tt := range []struct {
		name, role, environment string
	}{
		{"time zone of the role", "America/St_Johns", ""},
		{"time zone of the programs (PGTZ)", "America/St_Johns", "Asia/Kathmandu"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newServer(t)
			execute(t, admin(t, server.URL()), "ALTER ROLE postgres SET timezone = '"+tt.role+"'")
			if tt.environment != "" {
				t.Setenv("PGTZ", tt.environment)
			}
			r := newRig(t, server.URL(), rigOptions{timeout: ample})
			a := admin(t, server.URL()) // in the programs' zone
			const expired = 70
			execute(t, a, `INSERT INTO schema_system.session SELECT 'expired ' || n, '{}', now() - interval '1 second' FROM generate_series(1, $1) n`, expired)
			var pruned int64
			for _, p := range r.programs {
				r.wait(recovery / 2)
				n, err := p.Manager.Prune(t.Context())
				if err != nil {
					t.Error(err)
				}
				pruned += n
			}
			if pruned != expired {
				t.Errorf("pruned: got %d, want the %d that have expired", pruned, expired)
			}
			res := r.finish(tt.name)
			res.unharmed(t)
			res.kept(t)
		})
	}
}
