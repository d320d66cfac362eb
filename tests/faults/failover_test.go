package faults_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/tests/faults"
)

// A primary that turns read-only, as when its disk is nearly full: reads go on,
// and a connection that was told so is replaced, for the primary may be
// somewhere else now.
func TestFaultReadOnly(t *testing.T) {
	server := newServer(t)
	r := newRig(t, server.URL(), rigOptions{timeout: brief})
	a := admin(t, server.URL())
	readOnly := func(value string) {
		execute(t, a, "ALTER SYSTEM SET default_transaction_read_only = "+value)
		execute(t, a, "SELECT pg_reload_conf()")
	}
	longest := bystander(t, server.URL())
	readOnly("on")
	r.waitRefused()
	readOnly("off")
	r.wait(recovery)
	took := longest()
	res := r.finish("read-only primary")
	res.refused(t)
	// Each write costs a connection. Where none can be made for long, because the machine
	// stands still, there is none left for the reads either.
	if took < time.Second {
		res.persisted(t, brief)
		res.recovered(t, time.Time{}) // no read has failed at all
	}
	res.reconnected(t, 2)
}

// pair is a primary and a standby that has everything which was committed.
func pair(t *testing.T) (primary, standby *pgtest.Server) {
	t.Helper()
	primary = pgtest.Own(t, pgtest.Options{Settings: map[string]string{
		"synchronous_standby_names": "*", "synchronous_commit": "remote_apply",
	}})
	standby, err := primary.Standby(t.Context(), map[string]string{"synchronous_standby_names": ""})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Close(); err != nil {
			t.Error(err)
		}
	})
	return primary, standby
}

// The primary dies, and the programs know the addresses of both.
func TestFaultFailoverTwoHosts(t *testing.T) {
	primary, standby := pair(t)
	one, errOne := url.Parse(primary.URL())
	two, errTwo := url.Parse(standby.URL())
	if errOne != nil || errTwo != nil {
		t.Fatal("a URL cannot be parsed")
	}
	one.Host += "," + two.Host
	one.RawQuery += "&target_session_attrs=read-write"
	r := newRig(t, one.String(), rigOptions{timeout: ample})
	if err := primary.Stop(t.Context(), "immediate"); err != nil {
		t.Fatal(err)
	}
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	r.wait(recovery)
	res := r.finish("failover, two hosts in the connection string")
	res.recovered(t, back)
	res.unharmed(t)
	res.reconnected(t, 2)
}

// The address leads to the standby before it is promoted: it answers reads, and
// refuses what changes anything.
func TestFaultFailoverSameAddress(t *testing.T) {
	primary, standby := pair(t)
	n := newNetwork(t, primary.URL())
	r := newRig(t, n.url, rigOptions{timeout: ample, load: faults.Load{Workers: 24}})
	if err := primary.Stop(t.Context(), "fast"); err != nil {
		t.Fatal(err)
	}
	before := r.connections()
	n.turn(standby.URL())
	until(t, "each connection was refused, and replaced", func() bool { return r.connections() >= before+3*2*conns })
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	r.wait(recovery)
	res := r.finish("failover, address led to the standby before its promotion")
	res.recovered(t, back)
	res.unharmed(t)
}
