package containers

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/exampletest"
	"github.com/pgsession/session/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	// patience bounds every wait.
	patience = 2 * time.Minute

	// drain is longer than compose.yaml's, so that on a busy machine too the balancer, and
	// who looks, find an instance that drains before it has ended.
	drain = "15s"
)

// machine carries out the compose file without an engine: the same programs with
// the same environment and secrets, each in a folder that is its whole file system,
// as the image's user. Addresses alone are others.
type machine struct {
	t       *testing.T
	image   string // the file system
	uid     uint32
	secrets string
	project *types.Project
	server  *url.URL // PostgreSQL, as its superuser
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	d := ourDockerfile(t)
	m := &machine{t: t, image: d.image(t), secrets: filepath.Join(t.TempDir(), "secrets"), project: ourCompose(t)}
	wantStatic(t, m.image)
	if _, err := fmt.Sscanf(d.user, "%d:", &m.uid); err != nil {
		t.Fatal(err)
	}
	makeSecrets(t, m.secrets)
	server, err := url.Parse(pgtest.Own(t, pgtest.Options{}).URL())
	if err != nil {
		t.Fatal("the server's URL cannot be parsed")
	}
	m.server = server
	m.sql("CREATE DATABASE shop")
	m.server.Path = "/shop"
	m.roles()
	return m
}

// roles runs the script of the database's container.
func (m *machine) roles() {
	m.t.Helper()
	psql, err := exec.LookPath("psql")
	if err != nil {
		found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/psql")
		if len(found) == 0 {
			m.t.Fatal("no psql found: sudo apt-get install postgresql-client")
		}
		psql = found[len(found)-1]
	}
	cmd := exec.Command(psql, "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "--quiet", "--file", folder+"/roles.sql")
	password, _ := m.server.User.Password()
	cmd.Env = append(os.Environ(), "SECRETS="+m.secrets, "PGHOST="+m.server.Hostname(), "PGPORT="+m.server.Port(),
		"PGUSER="+m.server.User.Username(), "PGPASSWORD="+password, "PGDATABASE=shop")
	if said, err := cmd.CombinedOutput(); err != nil {
		m.t.Fatalf("roles.sql: %v\n%s", err, said)
	}
}

// sql runs a statement as the superuser, or as the user and password of another.
func (m *machine) sql(statement string) {
	m.t.Helper()
	must(m.t, m.try(m.server.User, statement))
}

func (m *machine) try(user *url.Userinfo, statement string) error {
	u := *m.server
	u.User = user
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, u.String())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, statement)
	return err
}

// process is a container's program.
type process struct {
	*exec.Cmd

	log   *output
	ended chan struct{}
	err   error
}

// output is a buffer to wait on.
type output struct {
	mu   sync.Mutex
	said bytes.Buffer // not embedded: its ReadFrom would take no lock
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.said.Write(b)
}

func (o *output) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.said.String()
}

// run starts the program of a service with what compose gives it, and the file
// system that the image is; args replace the entry point.
func (m *machine) run(service, listen string, args ...string) *process {
	m.t.Helper()
	s := m.project.Services[service]
	if len(args) == 0 {
		args = append(append([]string{}, s.Entrypoint...), s.Command...)
	}
	if len(args) == 0 {
		args = ourDockerfile(m.t).entry
	}
	run := filepath.Join(m.image, "run")
	must(m.t, os.RemoveAll(run))
	must(m.t, os.MkdirAll(filepath.Join(run, "secrets"), 0o755))
	for _, secret := range s.Secrets {
		text := read(m.t, filepath.Join(m.secrets, secret.Source))
		must(m.t, os.WriteFile(filepath.Join(run, "secrets", secret.Source), []byte(text), 0o444))
	}
	p := &process{Cmd: exec.Command(args[0], args[1:]...), log: new(output), ended: make(chan struct{})}
	p.Dir = "/"
	prefix := ""
	if os.Geteuid() == 0 {
		p.SysProcAttr = &syscall.SysProcAttr{Chroot: m.image, Credential: &syscall.Credential{Uid: m.uid, Gid: m.uid}}
	} else {
		prefix = m.image
		fmt.Fprintln(os.Stderr, "NOT ROOT: the programs run as you, and not in a file system of their own")
		p.Path, p.Dir = m.image+args[0], m.image
	}
	for name, value := range environment(s) {
		value = strings.Replace(value, "@db/", "@"+m.server.Host+"/", 1)
		if strings.HasPrefix(value, "/run/secrets/") {
			value = prefix + value
		}
		if name == "DRAIN" {
			value = drain
		}
		p.Env = append(p.Env, name+"="+value)
	}
	p.Env = append(p.Env, "LISTEN="+listen, "INSTANCE="+service)
	p.Stdout, p.Stderr = p.log, p.log
	must(m.t, p.Start())
	go func() {
		p.err = p.Wait()
		close(p.ended)
	}()
	m.t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.ended
	})
	return p
}

// end waits for a program that ends by itself.
func (p *process) end(t *testing.T) error {
	t.Helper()
	select {
	case <-p.ended:
		return p.err
	case <-time.After(patience):
		t.Fatalf("the program does not end\n%s", p.log.text())
		return nil
	}
}

var listens = regexp.MustCompile(`"msg":"listening","address":"([^"]+)"`)

// instance starts one and returns the address that it listens on.
func (m *machine) instance(service, listen string) (*process, string) {
	m.t.Helper()
	p := m.run(service, listen)
	p.waitLog(m.t, `"msg":"listening"`)
	return p, listens.FindStringSubmatch(p.log.text())[1]
}

// waitLog waits until the program has logged that.
func (p *process) waitLog(t *testing.T, text string) {
	t.Helper()
	for timeout := time.After(patience); !strings.Contains(p.log.text(), text); {
		select {
		case <-p.ended:
			t.Fatalf("the program ended: %v\n%s", p.err, p.log.text())
		case <-timeout:
			t.Fatalf("the program does not say %s\n%s", text, p.log.text())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// balancer runs haproxy.cfg by Debian's HAProxy and returns its URL. The listener
// is handed over, so nobody can take its port; more has texts and what replaces them.
func (m *machine) balancer(addresses map[string]string, more ...string) string {
	m.t.Helper()
	path, err := exec.LookPath("haproxy")
	if err != nil {
		if path = "/usr/sbin/haproxy"; !exists(path) {
			m.t.Fatal("no haproxy found: sudo apt-get install haproxy")
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(m.t, err)
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	must(m.t, err)
	defer f.Close()
	replaced := append([]string{"bind :8080", "bind fd@3"}, more...)
	for service, address := range addresses {
		replaced = append(replaced, service+":8080", address)
	}
	text := read(m.t, folder+"/haproxy.cfg")
	for i := 0; i < len(replaced); i += 2 {
		if strings.Count(text, replaced[i]) != 1 {
			m.t.Fatalf("haproxy.cfg: want %q once", replaced[i])
		}
	}
	config := filepath.Join(m.t.TempDir(), "haproxy.cfg")
	must(m.t, os.WriteFile(config, []byte(strings.NewReplacer(replaced...).Replace(text)), 0o600))
	cmd := exec.Command(path, "-db", "-f", config)
	log := new(output)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{f}
	must(m.t, cmd.Start())
	m.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if m.t.Failed() {
			m.t.Logf("haproxy: %s", log.text())
		}
	})
	return "http://" + ln.Addr().String()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (m *machine) schema(want string) {
	m.t.Helper()
	p := m.run("schema", "")
	if err := p.end(m.t); err != nil || !strings.Contains(p.log.text(), want) {
		m.t.Fatalf("sessionctl: got %v, %s, want %q", err, p.log.text(), want)
	}
}

var answeredBy = regexp.MustCompile(`Answered by (\w+)`)

// visit wants the page of the user and returns who has answered.
func visit(t *testing.T, b *exampletest.Browser, address string) string {
	t.Helper()
	res := b.Get(address + "/")
	by := answeredBy.FindStringSubmatch(res.Body)
	if res.Code != http.StatusOK || by == nil || !strings.Contains(res.Body, "Hello, ada") {
		t.Fatalf("got %d %s, want ada's page", res.Code, res.Body)
	}
	return by[1]
}

// visitBoth visits until both instances have answered.
func visitBoth(t *testing.T, b *exampletest.Browser, address string) {
	t.Helper()
	seen := map[string]bool{}
	for end := time.Now().Add(patience); len(seen) < 2; time.Sleep(10 * time.Millisecond) {
		if seen[visit(t, b, address)] = true; time.Now().After(end) {
			t.Fatalf("answers came from %v alone", seen)
		}
	}
}

// The steps of compose.yaml, in its order: roles, table, two instances, balancer.
// Then each instance is updated, and one is killed; the user, who goes on clicking,
// notices nothing.
func TestComposeWithoutAnEngine(t *testing.T) {
	t.Parallel()
	m := newMachine(t)

	early := m.run("one", "127.0.0.1:0")
	if err := early.end(t); err == nil || !strings.Contains(early.log.text(), "shop_app") {
		t.Errorf("an instance before the table is there: got %v, %s, want an error that names the role", err, early.log.text())
	}
	m.schema("made the table schema_system.session")
	m.schema("was there, and is as it should be")
	app := url.UserPassword("shop_app", read(t, filepath.Join(m.secrets, "app_password")))
	must(t, m.try(app, "SELECT FROM schema_system.session"))
	for _, statement := range []string{"DROP TABLE schema_system.session", "CREATE TABLE schema_system.other ()", "CREATE SCHEMA mine", "TRUNCATE schema_system.session"} {
		if err := m.try(app, statement); err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("%s as the instances' role: got %v, want 42501", statement, err)
		}
	}

	addresses, instances := map[string]string{}, map[string]*process{}
	for _, name := range []string{"one", "two"} {
		instances[name], addresses[name] = m.instance(name, "127.0.0.1:0")
	}
	health := ourDockerfile(t).health
	if err := m.run("one", addresses["one"], health...).end(t); err != nil {
		t.Errorf("the health check of an instance that lives: %v", err)
	}
	front := m.balancer(addresses)
	ada := exampletest.NewBrowser(t, "session")
	ada.Post(front+"/login", url.Values{"user": {"ada"}}).Want(t, 200, "Hello, ada")
	visitBoth(t, ada, front)
	wantFrontRules(t, front)

	for _, name := range []string{"one", "two"} {
		p := instances[name]
		must(t, p.Process.Signal(syscall.SIGTERM))
		p.waitLog(t, `"msg":"draining"`)
		for probe, want := range map[string]int{"/readyz": http.StatusServiceUnavailable, "/livez": http.StatusOK} {
			if got := exampletest.NewBrowser(t, "session").Get("http://" + addresses[name] + probe).Code; got != want {
				t.Errorf("%s of %s, which is draining: got %d, want %d", probe, name, got, want)
			}
		}
		for ended := false; !ended; {
			visit(t, ada, front)
			select {
			case <-p.ended:
				ended = true
			default:
			}
		}
		if p.err != nil {
			t.Errorf("%s ended with %v\n%s", name, p.err, p.log.text())
		}
		if by := visit(t, ada, front); by == name {
			t.Errorf("got an answer of %s, which has ended", by)
		}
		if err := m.run(name, addresses[name], health...).end(t); err == nil {
			t.Errorf("the health check of %s, which has ended: got no error", name)
		}
		instances[name], _ = m.instance(name, addresses[name])
		visitBoth(t, ada, front)
	}

	must(t, instances["one"].Process.Kill())
	<-instances["one"].ended
	for range 10 {
		visit(t, ada, front)
	}
	for _, p := range instances {
		for _, secret := range []string{"session_secret", "app_password"} {
			if strings.Contains(p.log.text(), read(t, filepath.Join(m.secrets, secret))) {
				t.Errorf("%s is in the log", secret)
			}
		}
	}
}

// wantFrontRules wants nobody to reach the probes, and nobody to be believed about
// HTTPS.
func wantFrontRules(t *testing.T, front string) {
	t.Helper()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Timeout: patience}
	do := func(method, path string) *http.Response {
		r, err := http.NewRequestWithContext(t.Context(), method, front+path, strings.NewReader("user=eve"))
		must(t, err)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("X-Forwarded-Proto", "https")
		res, err := client.Do(r)
		must(t, err)
		res.Body.Close()
		return res
	}
	for _, probe := range []string{"/livez", "/readyz", "/%72eadyz", "/livez?x=1"} {
		if res := do("GET", probe); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s through the balancer: got %d, want 404", probe, res.StatusCode)
		}
	}
	res := do("POST", "/login")
	if cookies := res.Cookies(); len(cookies) != 1 || cookies[0].Secure {
		t.Errorf("a login that says it came by HTTPS: got %d and %d cookies, want one without Secure", res.StatusCode, len(cookies))
	}
}

// In an engine, where there is one: the image is built, and compose brings up all.
func TestInAnEngine(t *testing.T) {
	if said, err := exec.Command("docker", "info").CombinedOutput(); err != nil {
		fmt.Fprintln(os.Stderr, "NO CONTAINER ENGINE: nothing was built into an image or run in a container")
		t.Skipf("NO CONTAINER ENGINE HERE, so nothing was built into an image or run in a container: docker info: %v\n%s", err, said)
	}
	makeSecrets(t, folder+"/secrets")
	compose := func(args ...string) {
		t.Helper()
		cmd := exec.Command("docker", append([]string{"compose", "--project-name", "sessiontest", "--file", folder + "/compose.yaml"}, args...)...)
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("docker compose %v: %v\n%s", args, err, said)
		}
	}
	t.Cleanup(func() { compose("down", "--volumes") })
	compose("up", "--build", "--detach", "--wait")
	ada := exampletest.NewBrowser(t, "session")
	ada.Post("http://127.0.0.1:8080/login", url.Values{"user": {"ada"}}).Want(t, 200, "Hello, ada")
	visitBoth(t, ada, "http://127.0.0.1:8080")
	for _, name := range []string{"one", "two"} {
		compose("restart", name)
		visit(t, ada, "http://127.0.0.1:8080")
	}
}
