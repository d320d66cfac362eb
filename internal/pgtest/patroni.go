package pgtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// PatroniOptions chooses a cluster. The zero value is three nodes whose commits
// wait for nobody.
type PatroniOptions struct {
	// Synchronous lets a commit wait until a second node has it, and lets no other
	// node take over: Patroni's synchronous_mode.
	Synchronous bool

	// Logger takes one line for each step. Nil discards them.
	Logger *slog.Logger
}

// Patroni is a failover cluster on this machine: three PostgreSQL servers, each
// in the care of a Patroni, one etcd in which these agree on the leader, and an
// HAProxy that leads to it and cuts the connections to whoever was it before.
// Everything ends with this process, even when it is killed. Its methods are safe
// for concurrent use; those of one [Node] are not.
type Patroni struct {
	o          PatroniOptions
	dir        string
	as         *account
	bin        binaries
	tools      map[string]string // name: path
	password   string
	etcd       int // its port
	proxy      int // HAProxy's
	supporters []*daemon
	nodes      []*Node
	watch      *watchdog
	closing    sync.Once
	closed     error
}

const (
	patroniNodes = 3
	patroniScope = "session"

	// Patroni accepts nothing shorter: the leader's lock ends after ttl without a
	// sign of life, and it is looked at every loop.
	patroniTTL   = 20
	patroniLoop  = 2
	patroniRetry = 3

	// patroniPatience bounds the wait for a cluster that is whole.
	patroniPatience = 3 * time.Minute
)

// StartPatroni starts a cluster and returns when it is whole. It needs the
// programs of PostgreSQL, patroni, etcd and haproxy; the error says what is
// missing and how to get it. ctx bounds the start, not the cluster's life.
func StartPatroni(ctx context.Context, o PatroniOptions) (*Patroni, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := signalsWork(); err != nil {
		return nil, fmt.Errorf("pgtest: a Patroni cluster does not run on this system: %w", err)
	}
	tools, err := patroniTools()
	if err != nil {
		return nil, err
	}
	as, err := serverAccount()
	if err != nil {
		return nil, err
	}
	all := findBinaries(ctx, Options{}.binDirs(), as)
	if len(all) == 0 {
		return nil, fmt.Errorf("pgtest: %w\n%s", ErrNone, install("linux"))
	}
	dir, err := as.serverDir("pgtest-patroni-")
	if err != nil {
		return nil, fmt.Errorf("pgtest: %w", err)
	}
	watch, err := watchOverAll(dir, as)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pgtest: %w", err), os.RemoveAll(dir))
	}
	p := &Patroni{o: o, dir: dir, as: as, bin: all[0], tools: tools, password: rand.Text(), watch: watch}
	if err := p.start(ctx); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// patroniTools finds the programs beside PostgreSQL's.
func patroniTools() (map[string]string, error) {
	found, missing := map[string]string{}, []string{}
	for _, name := range []string{"patroni", "etcd", "haproxy"} {
		path, err := exec.LookPath(name)
		if err != nil {
			path, err = exec.LookPath(filepath.Join("/usr/sbin", name)) // not in everybody's PATH
		}
		if err != nil {
			missing = append(missing, name)
			continue
		}
		found[name] = path
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("pgtest: a Patroni cluster needs %s; on Debian: sudo apt-get install patroni etcd-server haproxy", strings.Join(missing, ", "))
	}
	return found, nil
}

func (p *Patroni) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patroniPatience)
	defer cancel()
	ports, err := freePorts(3 + 2*patroniNodes)
	if err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	peer := ports[0]
	p.etcd, p.proxy = ports[1], ports[2]
	for i := range patroniNodes {
		p.nodes = append(p.nodes, &Node{
			Name: "node" + strconv.Itoa(i+1), cluster: p,
			port: ports[3+2*i], rest: ports[4+2*i], dir: filepath.Join(p.dir, "node"+strconv.Itoa(i+1)),
		})
	}
	client, peers := fmt.Sprintf("http://127.0.0.1:%d", p.etcd), fmt.Sprintf("http://127.0.0.1:%d", peer)
	// Debian's Patroni takes the leader's key without comparing where it speaks
	// etcd's newer API: two leaders at once. So it gets the older one.
	etcd, err := p.launch("etcd", p.tools["etcd"], "--enable-v2", "--name=e", "--data-dir="+filepath.Join(p.dir, "etcd-data"),
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peers, "--initial-advertise-peer-urls="+peers, "--initial-cluster=e="+peers)
	if err != nil {
		return err
	}
	p.supporters = append(p.supporters, etcd)
	if err := p.until(ctx, "etcd answers", func() bool { return p.getJSON(client+"/v2/keys/", nil) == nil }, etcd); err != nil {
		return err
	}
	for i, n := range p.nodes {
		if err := n.prepare(); err != nil {
			return err
		}
		if err := n.Start(); err != nil {
			return err
		}
		if i > 0 {
			continue
		}
		// The first makes the database, the others copy it.
		if err := p.until(ctx, "the first node leads", func() bool { return n.leads() }, n.patroni); err != nil {
			return err
		}
	}
	if err := p.launchProxy(); err != nil {
		return err
	}
	if err := p.WaitWhole(ctx); err != nil {
		return err
	}
	return p.until(ctx, "the proxy leads to the leader", func() bool { return ping(ctx, p.URL()) == nil }, p.supporters...)
}

// URL leads to the leader by the proxy.
func (p *Patroni) URL() string {
	return p.url(net.JoinHostPort("127.0.0.1", strconv.Itoa(p.proxy)), "")
}

// HostsURL names all nodes, and leaves it to the client to find the leader.
func (p *Patroni) HostsURL() string {
	var hosts []string
	for _, n := range p.nodes {
		hosts = append(hosts, net.JoinHostPort("127.0.0.1", strconv.Itoa(n.port)))
	}
	return p.url(strings.Join(hosts, ","), "&target_session_attrs=read-write")
}

func (p *Patroni) url(hosts, more string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword("postgres", p.password), Host: hosts, Path: "/postgres",
		RawQuery: "sslmode=disable&connect_timeout=2" + more,
	}
	return u.String()
}

// Nodes returns all nodes, always in the same order.
func (p *Patroni) Nodes() []*Node { return p.nodes }

// Versions says in a line what the cluster is made of.
func (p *Patroni) Versions() string {
	said := func(tool, arg string) string {
		out, _ := exec.Command(p.tools[tool], arg).CombinedOutput()
		line, _, _ := strings.Cut(string(out), "\n")
		return line
	}
	return strings.Join([]string{"PostgreSQL " + p.bin.version, said("patroni", "--version"), said("etcd", "--version"), said("haproxy", "-v")}, "; ")
}

// Logs are the last words of every program.
func (p *Patroni) Logs() string {
	var b strings.Builder
	for _, d := range p.supporters {
		fmt.Fprintf(&b, "== %s\n%s\n", d.name, d.lastWords())
	}
	for _, n := range p.nodes {
		if n.patroni != nil {
			fmt.Fprintf(&b, "== %s: %s\n%s\n", n.Name, n.State(), n.patroni.lastWords())
		}
	}
	return b.String()
}

// Leader returns the node that holds the lock and knows it, nil if none does.
func (p *Patroni) Leader() *Node {
	var key struct {
		Node struct{ Value string }
	}
	if p.getJSON(fmt.Sprintf("http://127.0.0.1:%d/v2/keys/service/%s/leader", p.etcd, patroniScope), &key) != nil {
		return nil
	}
	for _, n := range p.nodes {
		if n.Name == key.Node.Value && n.leads() {
			return n
		}
	}
	return nil
}

// WaitLeader returns the leader, once there is one that is not but.
func (p *Patroni) WaitLeader(ctx context.Context, but *Node) (*Node, error) {
	var leader *Node
	err := p.until(ctx, "another node leads", func() bool {
		leader = p.Leader()
		return leader != nil && leader != but
	})
	return leader, err
}

// WaitWhole returns when a node leads and all others follow it, one of them
// synchronously if that was asked for.
func (p *Patroni) WaitWhole(ctx context.Context) error {
	return p.until(ctx, "the cluster is whole", func() bool {
		leader := p.Leader()
		if leader == nil {
			return false
		}
		var said struct {
			Members []struct {
				Role, State string
				Lag         any
			}
		}
		if p.getJSON(leader.restURL("/cluster"), &said) != nil || len(said.Members) != len(p.nodes) {
			return false
		}
		synchronous := 0
		for _, m := range said.Members {
			if m.State != "running" && m.State != "streaming" || m.Lag == "unknown" {
				return false
			}
			if m.Role == "sync_standby" {
				synchronous++
			}
		}
		return leader.followers() == len(p.nodes)-1 && (synchronous > 0) == p.o.Synchronous
	})
}

// Switchover hands the lead to another node, as before maintenance, and returns
// when that leads.
func (p *Patroni) Switchover(ctx context.Context) error {
	leader := p.Leader()
	if leader == nil {
		return errors.New("pgtest: there is no leader that could hand over")
	}
	body, err := json.Marshal(map[string]string{"leader": leader.Name})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, leader.restURL("/switchover"), bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("pgtest: switchover: %w", err)
	}
	defer resp.Body.Close()
	said, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("pgtest: switchover: status %d: %s", resp.StatusCode, said)
	}
	_, err = p.WaitLeader(ctx, leader)
	return err
}

// Close ends everything and removes its files. Later calls return what the first
// has returned.
func (p *Patroni) Close() error {
	p.closing.Do(func() {
		var errs []error
		for _, n := range p.nodes {
			errs = append(errs, n.Kill())
		}
		for _, d := range p.supporters {
			d.kill()
		}
		p.closed = errors.Join(append(errs, os.RemoveAll(p.dir), p.watch.end())...)
	})
	return p.closed
}

const haproxyConfig = `defaults
  mode tcp
  timeout connect 1s
  timeout check 1s
  timeout client 1d
  timeout server 1d
listen primary
  bind 127.0.0.1:%d
  option httpchk OPTIONS /primary
  http-check expect status 200
  default-server inter 1s fall 2 rise 1 on-marked-down shutdown-sessions
`

// launchProxy starts HAProxy. That it cuts connections to a node which is no
// longer the leader is what keeps a pool from writing to one that still lives.
func (p *Patroni) launchProxy() error {
	var b strings.Builder
	fmt.Fprintf(&b, haproxyConfig, p.proxy)
	for _, n := range p.nodes {
		fmt.Fprintf(&b, "  server %s 127.0.0.1:%d check port %d\n", n.Name, n.port, n.rest)
	}
	path := filepath.Join(p.dir, "haproxy.cfg")
	if err := p.write(path, b.String()); err != nil {
		return err
	}
	d, err := p.launch("haproxy", p.tools["haproxy"], "-db", "-f", path)
	if err != nil {
		return err
	}
	p.supporters = append(p.supporters, d)
	return nil
}

// write writes a file that only the account can read.
func (p *Patroni) write(path, text string) error {
	if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), p.as.own(path)); err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	return nil
}

// until polls until something has come true, and gives up when one of the
// programs that it needs has ended.
func (p *Patroni) until(ctx context.Context, what string, come func() bool, needs ...*daemon) error {
	for !come() {
		for _, d := range needs {
			if d.gone() {
				return fmt.Errorf("pgtest: %s has ended: %s", d.name, d.lastWords())
			}
		}
		if wait(ctx) != nil {
			return fmt.Errorf("pgtest: not in time: %s: %w", what, ctx.Err())
		}
	}
	return nil
}

// quick asks programs on this machine: one that is frozen does not answer.
var quick = &http.Client{Timeout: time.Second}

// getJSON reads what an address answers with; v nil means that any answer of 200 will do.
func (p *Patroni) getJSON(address string, v any) error {
	resp, err := quick.Get(address)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("status %d", resp.StatusCode)
	case v == nil:
		return nil
	}
	return json.Unmarshal(body, v)
}

// freePorts chooses ports that differ.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		port := freePort()
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return nil, err
		}
		defer ln.Close() // when all are chosen
		ports = append(ports, port)
	}
	return ports, nil
}
