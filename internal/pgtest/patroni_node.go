package pgtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// Node is one server of a [Patroni] cluster: a PostgreSQL and the Patroni that
// looks after it.
type Node struct {
	Name string

	cluster    *Patroni
	dir        string
	port, rest int
	patroni    *daemon
}

const patroniConfig = `scope: ` + patroniScope + `
name: %[1]s
restapi: {listen: "127.0.0.1:%[2]d", connect_address: "127.0.0.1:%[2]d"}
etcd: {host: "127.0.0.1:%[3]d"}
bootstrap:
  dcs:
    ttl: %[4]d
    loop_wait: %[5]d
    retry_timeout: %[6]d
    maximum_lag_on_failover: 1048576
    synchronous_mode: %[7]t
    postgresql: {use_pg_rewind: true}
  initdb: [{encoding: UTF8}, {locale: C}, no-sync]
postgresql:
  listen: "127.0.0.1:%[8]d"
  connect_address: "127.0.0.1:%[8]d"
  data_dir: %[9]s/data
  bin_dir: %[10]s
  pgpass: %[9]s/pgpass
  pg_hba: ["host all all 127.0.0.1/32 scram-sha-256", "host replication all 127.0.0.1/32 scram-sha-256"]
  authentication:
    superuser: {username: postgres, password: %[11]s}
    replication: {username: replicator, password: %[11]s}
  parameters: {unix_socket_directories: "", max_connections: 100, fsync: "off", password_encryption: scram-sha-256}
watchdog: {mode: "off"}
`

// prepare writes the configuration.
func (n *Node) prepare() error {
	p := n.cluster
	if err := errors.Join(os.Mkdir(n.dir, 0o700), p.as.own(n.dir)); err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	return p.write(filepath.Join(n.dir, "patroni.yml"), fmt.Sprintf(patroniConfig, n.Name, n.rest, p.etcd,
		patroniTTL, patroniLoop, patroniRetry, p.o.Synchronous, n.port, n.dir, p.bin.dir, p.password))
}

// Start starts the node; one that runs is left alone.
func (n *Node) Start() error {
	if n.patroni != nil && !n.patroni.gone() {
		return nil
	}
	d, err := n.cluster.launch(n.Name, n.cluster.tools["patroni"], filepath.Join(n.dir, "patroni.yml"))
	if err != nil {
		return err
	}
	n.patroni = d
	n.cluster.o.Logger.Info("a node starts", "node", n.Name)
	return nil
}

// Kill ends the node at once, as when its machine loses power. [Node.Start] brings
// it back; one that does not run is left alone.
func (n *Node) Kill() error {
	err := n.Freeze() // or its Patroni would still do something about the end of its server
	for _, pid := range n.processes() {
		err = errors.Join(err, kill(pid))
	}
	if n.patroni != nil {
		<-n.patroni.ended
	}
	n.cluster.o.Logger.Info("a node is killed", "node", n.Name)
	return err
}

// KillPostgres ends the node's server at once, and leaves its Patroni, which
// starts it again or hands the lead over.
func (n *Node) KillPostgres() error {
	n.cluster.o.Logger.Info("a server is killed", "node", n.Name)
	return kill(n.postmaster())
}

// Freeze stops all processes of the node where they are, as when its machine
// hangs: its connections stay open, and nobody answers.
func (n *Node) Freeze() error {
	var err error
	frozen := map[int]bool{}
	for grown := true; grown; { // until the last child that was just being made
		grown = false
		for _, pid := range n.processes() {
			if !frozen[pid] {
				frozen[pid], grown = true, true
				err = errors.Join(err, freeze(pid))
			}
		}
	}
	n.cluster.o.Logger.Info("a node is frozen", "node", n.Name, "processes", len(frozen))
	return err
}

// FreezePatroni stops the node's Patroni alone: its server goes on, and nobody
// tells it that another node has taken over.
func (n *Node) FreezePatroni() error { return freeze(n.patroni.cmd.Process.Pid) }

// Thaw lets all processes of the node go on.
func (n *Node) Thaw() error {
	var err error
	for _, pid := range n.processes() {
		err = errors.Join(err, thaw(pid))
	}
	n.cluster.o.Logger.Info("a node goes on", "node", n.Name)
	return err
}

// processes are the Patroni, the server, and the children of both.
func (n *Node) processes() []int {
	var roots []int
	if n.patroni != nil && !n.patroni.gone() {
		roots = append(roots, n.patroni.cmd.Process.Pid)
	}
	if pid := n.postmaster(); pid != 0 && Running(pid) {
		roots = append(roots, pid)
	}
	return append(roots, childrenOf(roots)...)
}

// postmaster is the process ID of the node's server, 0 if it has none.
func (n *Node) postmaster() int {
	pm := (&local{data: filepath.Join(n.dir, "data")})
	pid := pm.postmaster().pid
	if pid == 0 || !Running(pid) || !pm.mayBePostmaster(pid) {
		return 0
	}
	return pid
}

// childrenOf lists the processes whose parent is one of parents.
func childrenOf(parents []int) []int {
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=").Output()
	if err != nil {
		return nil
	}
	var children []int
	for line := range strings.SplitSeq(string(out), "\n") {
		fields := strings.Fields(line)
		if len(fields) != 2 {
			continue
		}
		pid, _ := strconv.Atoi(fields[0])
		for _, parent := range parents {
			if fields[1] == strconv.Itoa(parent) {
				children = append(children, pid)
			}
		}
	}
	return children
}

func (n *Node) restURL(path string) string { return fmt.Sprintf("http://127.0.0.1:%d%s", n.rest, path) }

// leads reports whether the node itself says that it is the leader.
func (n *Node) leads() bool { return n.cluster.getJSON(n.restURL("/primary"), nil) == nil }

// followers counts the servers that stream from this one.
func (n *Node) followers() int {
	var said struct {
		Replication []struct{ State string }
	}
	if n.cluster.getJSON(n.restURL("/patroni"), &said) != nil {
		return 0
	}
	streaming := 0
	for _, r := range said.Replication {
		if r.State == "streaming" {
			streaming++
		}
	}
	return streaming
}

// State is what the node says of itself: "leads", "follows", "starting", or "no
// answer".
func (n *Node) State() string {
	var said struct{ Role, State string }
	switch err := n.cluster.getJSON(n.restURL("/patroni"), &said); {
	case n.patroni == nil || n.patroni.gone():
		return "dead"
	case err != nil && said.State == "":
		return "no answer"
	case said.State != "running" && said.State != "streaming":
		return said.State
	case said.Role == "master" || said.Role == "primary":
		return "leads"
	}
	return "follows"
}

// daemon is a program that runs until it is told to end.
type daemon struct {
	name, log string
	cmd       *exec.Cmd
	ended     chan struct{} // closed when it has
}

// launch starts a program as the account, with what it says in a file.
func (p *Patroni) launch(name, path string, args ...string) (*daemon, error) {
	d := &daemon{name: name, log: filepath.Join(p.dir, name+".log"), ended: make(chan struct{})}
	out, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("pgtest: %w", err)
	}
	defer out.Close()
	d.cmd = exec.Command(path, args...)
	d.cmd.Dir, d.cmd.Env = p.dir, serverEnv()
	d.cmd.Stdout, d.cmd.Stderr = out, out
	p.as.run(d.cmd)
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("pgtest: start %s: %w", name, err)
	}
	if err := p.remember(d.cmd.Process.Pid); err != nil {
		d.kill()
		return nil, err
	}
	go func() {
		defer close(d.ended)
		_ = d.cmd.Wait() // how it ended is in its log
	}()
	return d, nil
}

// remember notes a process for the watchdog.
func (p *Patroni) remember(pid int) error {
	f, err := os.OpenFile(filepath.Join(p.dir, "pids"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	_, err = fmt.Fprintln(f, pid)
	return errors.Join(err, f.Close(), p.as.own(f.Name()))
}

func (d *daemon) gone() bool {
	select {
	case <-d.ended:
		return true
	default:
		return false
	}
}

func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	if d.ended != nil {
		<-d.ended
	}
}

// lastWords is the end of what it has written, without what Patroni says every
// two seconds.
func (d *daemon) lastWords() string {
	said, _ := os.ReadFile(d.log)
	var b strings.Builder
	for line := range strings.Lines(string(said)) {
		if !strings.Contains(line, "INFO: no action") && !strings.Contains(line, "INFO: Lock owner") {
			b.WriteString(line)
		}
	}
	return lastLines([]byte(b.String()), 40)
}
