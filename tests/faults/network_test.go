package faults_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/url"
	"testing"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/tests/faults"
)

// network is a TCP proxy before a server, which can be made to misbehave.
type network struct {
	t     *testing.T
	proxy *toxiproxy.Proxy
	url   string
}

func newNetwork(t *testing.T, dbURL string) *network {
	t.Helper()
	u, err := url.Parse(dbURL)
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := toxiproxy.NewProxy(api, "postgres", "127.0.0.1:0", u.Host)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	u.Host = p.Listen
	return &network{t, p, u.String()}
}

// add makes the network misbehave in both directions.
func (n *network) add(kind string, attributes map[string]int) {
	n.t.Helper()
	for _, stream := range []string{"upstream", "downstream"} {
		toxic, err := json.Marshal(map[string]any{"name": stream, "type": kind, "stream": stream, "attributes": attributes})
		if err != nil {
			n.t.Fatal(err)
		}
		if _, err := n.proxy.Toxics.AddToxicJson(bytes.NewReader(toxic)); err != nil {
			n.t.Fatal(err)
		}
	}
}

// heal ends that.
func (n *network) heal() { n.proxy.Toxics.ResetToxics(context.Background()) }

// turn leads the address to another server; connections break.
func (n *network) turn(dbURL string) {
	n.t.Helper()
	u, err := url.Parse(dbURL)
	if err != nil {
		n.t.Fatal("the URL cannot be parsed")
	}
	to := &toxiproxy.Proxy{Listen: n.proxy.Listen, Upstream: u.Host, Enabled: true}
	if err := n.proxy.Update(to); err != nil {
		n.t.Fatal(err)
	}
}

// A far database is slow, and nothing else.
func TestFaultLatency(t *testing.T) {
	n := newNetwork(t, pgtest.URL(t))
	r := newRig(t, n.url, rigOptions{timeout: ample})
	n.add("latency", map[string]int{"latency": 100, "jitter": 30}) // each way
	r.wait(60)
	n.heal()
	r.wait(recovery)
	res := r.finish("latency 200 ms, jitter 60 ms")
	res.unharmed(t)
	res.kept(t)
}

// Packets disappear, and no connection breaks: as behind a firewall that has
// forgotten them.
func TestFaultHalfOpen(t *testing.T) {
	n := newNetwork(t, pgtest.URL(t))
	r := newRig(t, n.url, rigOptions{timeout: brief})
	n.add("timeout", map[string]int{"timeout": 0})
	r.waitRefused()
	n.heal()
	r.wait(recovery)
	res := r.finish("half-open connections")
	res.refused(t)
	res.reconnected(t, 2)
}

// Connections are reset while statements are under way.
func TestFaultReset(t *testing.T) {
	n := newNetwork(t, pgtest.URL(t))
	r := newRig(t, n.url, rigOptions{timeout: ample})
	const times, enough = 3, 18 // what both pools hold, and half as many that were made anew
	for range times {
		n.add("reset_peer", map[string]int{"timeout": 0})
		before := r.connections()
		until(t, "connections were reset", func() bool { return r.connections() >= before+enough })
		n.heal()
		r.wait(recovery / 3)
	}
	res := r.finish("RST, three times")
	res.unharmed(t)
	res.reconnected(t, times*enough)
}

// The server carries a statement out, and the connection breaks before its
// answer; or it breaks before the statement arrives. Nobody can tell which, so the
// programs must find out: an increment is done once, a login leaves one row.
func TestFaultReplyLost(t *testing.T)   { cutOff(t, "reply lost after commit", true) }
func TestFaultRequestLost(t *testing.T) { cutOff(t, "request lost", false) }

func cutOff(t *testing.T, name string, forward bool) {
	u, err := url.Parse(pgtest.URL(t))
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	p := newCutter(t, u.Host, forward)
	u.Host = p.address()
	// In this mode the text of each statement is in every message.
	u.RawQuery += "&default_query_exec_mode=exec"
	r := newRig(t, u.String(), rigOptions{timeout: ample, load: faults.Load{Mix: map[faults.Kind]int{
		faults.Read: 6, faults.Write: 3, faults.Add: 3, faults.Renew: 2, faults.Logout: 2, faults.Replay: 1,
	}}})
	const enough = 5
	p.start()
	until(t, "statements of each kind were cut off", func() bool { return p.cut(enough) })
	p.end()
	r.wait(recovery / 2)
	res := r.finish(name + ", 1 in 8")
	res.unharmed(t)
	res.reconnected(t, int64(enough*len(statements)))
}

// COMMIT of a transaction with the application's own rows is cut off, or its answer.
// What became of it is found out: an order is in the session and in the table, or in
// neither, and where only the answer was lost nobody sees anything of it.
func TestFaultTransactReplyLost(t *testing.T)   { cutCommits(t, "reply to COMMIT lost", true) }
func TestFaultTransactRequestLost(t *testing.T) { cutCommits(t, "COMMIT lost", false) }

func cutCommits(t *testing.T, name string, forward bool) {
	direct := pgtest.URL(t)
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	a := admin(t, direct)
	execute(t, a, faults.SQLOrders)
	p := newCutter(t, u.Host, forward)
	p.texts = []string{"commit\x00"}
	u.Host = p.address()
	r := newRig(t, u.String(), rigOptions{timeout: ample, load: faults.Load{Mix: map[faults.Kind]int{
		faults.Read: 6, faults.Order: 6, faults.Write: 2, faults.Add: 2, faults.Renew: 1, faults.Logout: 1,
	}}})
	p.start()
	until(t, "ten were cut off", func() bool { return p.cut(10) })
	p.end()
	r.wait(recovery / 2)
	res := r.finish(name + ", 1 in 8")
	if forward {
		res.unharmed(t)
	}
	if n := get[int](t, a, faults.SQLOrdersAmiss); n != 0 {
		t.Errorf("sessions that do not agree with their orders: got %d, want none", n)
	}
	if n := get[int](t, a, "SELECT count(*) FROM orders"); n < 80 {
		t.Errorf("orders: got %d, want more", n)
	}
}

func newCutter(t *testing.T, target string, forward bool) *cutter {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{listener: ln, target: target, forward: forward, texts: statements}
	c.all.Go(c.accept)
	t.Cleanup(c.close)
	return c
}
