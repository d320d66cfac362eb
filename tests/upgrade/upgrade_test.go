package upgrade_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/tests/faults"
)

const (
	sqlRows = `SELECT concat_ws(' ', count(*), md5(string_agg(concat_ws(' ', sid, sess::text, expire::text), ' ' ORDER BY sid COLLATE "C"))) FROM schema_system.session`

	sqlMarks     = `SELECT count(*) FROM schema_system.session WHERE left(sess::text, 3) = '"0e'`
	sqlExpired   = "SELECT count(*) FROM schema_system.session WHERE sid LIKE 'expired %'"
	sqlAddExpire = `INSERT INTO schema_system.session SELECT 'expired ' || i, '{"cookie":{}}', LOCALTIMESTAMP - interval '1 hour' FROM generate_series(1, 300) i`
)

// All steps under load: nobody sees anything of it.
func TestUpgrade(t *testing.T) {
	m := newMove(t)
	m.load()
	witness := m.ledger.NewBrowser("witness", "", nil)
	defer witness.Close()
	if a := witness.Do(faults.Login, m.target()); !a.OK() {
		t.Fatalf("login: got status %d, want 2xx", a.Status)
	}
	m.old.do(sqlAddExpire)
	m.run(1)
	m.run(2)
	m.schema(m.new, session.PostgresOptions{})
	m.run(4)
	m.publishOrders()
	m.run(5)
	m.run(6)
	if n := ask[int](m.new, sqlExpired); n != 300 {
		t.Errorf("expired rows on the new server: got %d, want all 300 that the copy found", n)
	}
	if _, err := m.programs[0].Manager.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.wait(many)

	began := time.Now()
	m.run(7)
	written := make(chan faults.Answer, 1)
	go func() { written <- witness.Do(faults.Write, m.programs[0].URL) }()
	m.run(8)
	arrived := time.Since(began)
	older, newer := ask[string](m.old, sqlRows), ask[string](m.new, sqlRows)
	if older != newer {
		t.Errorf("the number of rows and what they hold: got %s on the new server, want %s", newer, older)
	}
	m.run(9)
	m.address.turn(m.new.host)
	if a := <-written; !a.OK() {
		t.Errorf("a write that waited: got status %d, want 2xx", a.Status)
	}
	gap := time.Since(began)
	if m.terminated < 2 {
		t.Errorf("connections that were ended: got %d, want those of both programs", m.terminated)
	}
	if n := ask[int](m.new, sqlExpired); n != 0 {
		t.Errorf("expired rows on the new server after pruning: got %d, want none", n)
	}
	if ask[int](m.new, sqlMarks) == 0 {
		t.Error("marks on the new server: got none, want those of the renewals")
	}
	m.wait(many)
	rep, found, notes := m.settle(m.programs[0].Pool)
	if found != (faults.Findings{}) {
		t.Errorf("the ledger: got %+v, want none: %q", found, notes)
	}
	for fault, n := range rep.Faults {
		t.Errorf("%s: got %d, want none", fault, n)
	}
	cut := 0
	for _, a := range rep.Failed {
		if a.Kind == faults.Order && a.Status == 503 { // a transaction in the middle of step 7
			cut++
			continue
		}
		t.Errorf("a %s: got status %d after %v, want 2xx", a.Kind, a.Status, a.Took)
	}
	if n := ask[int](m.new, faults.SQLOrdersAmiss); n != 0 {
		t.Errorf("sessions that do not agree with their orders: got %d, want none", n)
	}
	fmt.Printf("%d requests: %d of 2xx, %d of 409, %d transactions cut off (503); %d connections ended; %+v\n"+
		"writes stood still for %v (%v until all had arrived), the longest time without any answer of 2xx was %v\n",
		rep.Requests, rep.OK, rep.Ended, cut, m.terminated, found,
		gap.Round(time.Millisecond), arrived.Round(time.Millisecond), rep.LongestGap.Round(time.Millisecond))
}

// Somebody changes his mind before the address is turned: nobody sees that either.
func TestUpgradeTakenBack(t *testing.T) {
	m := newMove(t)
	m.load()
	m.run(2)
	m.schema(m.new, session.PostgresOptions{})
	for _, step := range []int{4, 5, 6, 7, 8} {
		m.run(step)
	}
	m.runUndo()
	m.wait(many)
	rep, found, notes := m.settle(m.programs[0].Pool)
	if found != (faults.Findings{}) {
		t.Errorf("the ledger: got %+v, want none: %q", found, notes)
	}
	for _, a := range rep.Failed {
		if a.Kind != faults.Order {
			t.Errorf("a %s: got status %d after %v, want 2xx", a.Kind, a.Status, a.Took)
		}
	}
	m.new.do("DROP SUBSCRIPTION session_upgrade")
}

// What the ledger finds where a step is forgotten: it would find the same if a
// step did not do what it is for.
func TestUpgradeForgotten(t *testing.T) {
	for _, tt := range []struct {
		name string
		zone bool // step 2 is done
		turn func(*move)
		want func(faults.Findings) int
		what string
	}{
		{"stop the writes", true, func(m *move) { // step 8 never says t then
			m.run(9)
			m.wait(few) // which go to the old server
			m.address.turn(m.new.host)
		}, func(f faults.Findings) int { return f.Lost + f.LoggedOut + f.Resurrected }, "lost, logged out or resurrected"},
		{"wait until all has arrived", true, func(m *move) {
			m.new.do("ALTER SUBSCRIPTION session_upgrade DISABLE") // it is behind
			m.wait(few)
			m.run(7)
			m.address.turn(m.new.host)
		}, func(f faults.Findings) int { return f.Lost + f.LoggedOut + f.Resurrected }, "lost, logged out or resurrected"},
		{"the time zone", false, func(m *move) {
			m.run(7)
			m.run(8)
			m.run(9)
			m.address.turn(m.new.host)
		}, func(f faults.Findings) int { return f.LoggedOut }, "logged out"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMove(t)
			m.load()
			if tt.zone {
				m.run(2)
			}
			m.schema(m.new, session.PostgresOptions{})
			m.run(4)
			m.publishOrders()
			m.run(5)
			m.run(6)
			m.wait(few)
			tt.turn(m)
			m.wait(few)
			_, found, _ := m.settle(m.programs[0].Pool)
			fmt.Printf("forgotten: %s: %+v\n", tt.name, found)
			if tt.want(found) == 0 {
				t.Errorf("got %+v, want some %s", found, tt.what)
			}
		})
	}
}
