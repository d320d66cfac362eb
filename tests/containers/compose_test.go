package containers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// loadCompose reads a compose file as `docker compose` does, strictly.
func loadCompose(t *testing.T, text string) (*types.Project, error) {
	t.Helper()
	dir, err := filepath.Abs(folder)
	must(t, err)
	return loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  dir,
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(dir, "compose.yaml"), Content: []byte(text)}},
		Environment: types.Mapping{},
	}, func(o *loader.Options) { o.SetProjectName("containers", true) })
}

func ourCompose(t *testing.T) *types.Project {
	t.Helper()
	p, err := loadCompose(t, read(t, folder+"/compose.yaml"))
	must(t, err)
	return p
}

// secretWords are in names of variables that hold a secret, unless a file does.
var secretWords = regexp.MustCompile(`(?i)secret|password|token|key`)

// composeFaults says what is wrong with a compose file that is valid.
func composeFaults(p *types.Project) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	for name, s := range p.Services {
		for variable, value := range s.Environment {
			switch {
			case value == nil:
				fault("%s: %s comes from whoever starts it", name, variable)
			case secretWords.MatchString(variable) && !strings.HasSuffix(variable, "_FILE"), regexp.MustCompile(`://[^@/]*:[^@/]*@`).MatchString(*value):
				fault("%s: %s holds a secret", name, variable)
			case strings.HasPrefix(*value, "/run/secrets/"):
				if !slices.ContainsFunc(s.Secrets, func(c types.ServiceSecretConfig) bool { return "/run/secrets/"+c.Source == *value }) {
					fault("%s: %s names %s, which it is not given", name, variable, *value)
				}
			}
		}
		for _, c := range s.Secrets {
			if secret, ok := p.Secrets[c.Source]; !ok || filepath.Base(filepath.Dir(secret.File)) != "secrets" {
				fault("%s: its secret %s is no file of the folder secrets", name, c.Source)
			}
		}
		if s.Image == "session-app" {
			continue
		}
		if !regexp.MustCompile(`:\d+`).MatchString(s.Image) {
			fault("%s: the image %s has no version", name, s.Image)
		}
	}
	after := func(name, of, condition string) {
		if d, ok := p.Services[name].DependsOn[of]; !ok || d.Condition != condition {
			fault("%s does not wait for %s: %s", name, of, condition)
		}
	}
	for _, name := range []string{"one", "two"} {
		after(name, "db", types.ServiceConditionHealthy)
		after(name, "schema", types.ServiceConditionCompletedSuccessfully)
		after("balancer", name, types.ServiceConditionHealthy)
		faults = append(faults, graceFaults(name, environment(p.Services[name]), time.Duration(*p.Services[name].StopGracePeriod))...)
		if p.Services[name].Environment["SESSION_SECRET_FILE"] == nil {
			fault("%s has no secret", name)
		}
		if d, _ := time.ParseDuration(environment(p.Services[name])["DRAIN"]); d < 3*time.Second {
			fault("%s: DRAIN is %v: the balancer has not heard of it by then", name, d)
		}
	}
	after("schema", "db", types.ServiceConditionHealthy)
	if h := p.Services["db"].HealthCheck; h == nil || len(h.Test) == 0 || !slices.Contains(h.Test, "--host=127.0.0.1") {
		fault("db: no health check over TCP")
	}
	for _, name := range []string{"one", "two", "schema", "balancer"} {
		if s := p.Services[name]; !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) {
			fault("%s may write to its file system, or more", name)
		}
	}
	return faults
}

// graceFaults wants time for DRAIN and SHUTDOWN_TIMEOUT before a program is killed,
// and 5 s more: Config.StoreTimeout, which closing may take.
func graceFaults(name string, env map[string]string, grace time.Duration, more ...time.Duration) []string {
	needs := 5 * time.Second
	for _, variable := range []string{"DRAIN", "SHUTDOWN_TIMEOUT"} {
		d, err := time.ParseDuration(env[variable])
		if err != nil && env[variable] != "" {
			return []string{name + ": " + err.Error()}
		}
		needs += d
	}
	for _, d := range more {
		needs += d
	}
	if grace < needs {
		return []string{fmt.Sprintf("%s is killed after %v and may need %v", name, grace, needs)}
	}
	return nil
}

func environment(s types.ServiceConfig) map[string]string {
	env := map[string]string{}
	for name, value := range s.Environment {
		if value != nil {
			env[name] = *value
		}
	}
	return env
}

// The compose file is one that compose takes, and each rule finds its fault.
func TestCompose(t *testing.T) {
	t.Parallel()
	text := read(t, folder+"/compose.yaml")
	p, err := loadCompose(t, text)
	must(t, err)
	for _, fault := range composeFaults(p) {
		t.Error(fault)
	}
	for _, tt := range []struct{ name, old, replaced, want string }{
		{"an unknown field", "    cap_drop: [ALL]\n", "    cap_dropped: [ALL]\n", "cap_dropped"},
		{"an unknown condition", "condition: service_healthy", "condition: service_well", "must be one of"},
		{"a service that is not there", "      one: {condition", "      three: {condition", "three"},
		{"nobody waits for the database", "    db: {condition: service_healthy}\n    schema", "    db: {condition: service_started}\n    schema", "does not wait for db"},
		{"nobody waits for the table", "service_completed_successfully", "service_started", "does not wait for schema"},
		{"the database is never healthy", "--host=127.0.0.1", "--host=/tmp", "no health check over TCP"},
		{"a password in the environment", "PGPASSFILE: /run/secrets/app_pgpass", "PGPASSWORD: hush", "holds a secret"},
		{"a password in the URL", "shop_app@db", "shop_app:hush@db", "holds a secret"},
		{"the secret in the environment", "SESSION_SECRET_FILE: /run/secrets/session_secret", "SESSION_SECRET: hush", "holds a secret"},
		{"a variable from outside", "DRAIN: 5s", "DRAIN:", "whoever starts it"},
		{"a secret that it is not given", "secrets: [session_secret, app_pgpass]", "secrets: [session_secret]", "not given"},
		{"a secret from elsewhere", "./secrets/session_secret", "./session_secret", "no file of the folder"},
		{"killed too early", "stop_grace_period: 30s\n  restart", "stop_grace_period: 10s\n  restart", "is killed after"},
		{"no time to drain", "DRAIN: 5s", "DRAIN: 0s", "has not heard"},
		{"the newest of all", "haproxy:2.6", "haproxy", "no version"},
		{"a file system to write to", "  read_only: true\n  cap_drop", "  cap_drop", "may write"},
	} {
		broken := strings.Replace(text, tt.old, tt.replaced, 1)
		if broken == text {
			t.Errorf("%s: the file has no %q", tt.name, tt.old)
			continue
		}
		var got string
		if p, err := loadCompose(t, broken); err != nil {
			got = err.Error()
		} else {
			got = strings.Join(composeFaults(p), "\n")
		}
		if !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Debian's docker-compose, the one in Python, takes the file too.
func TestComposeV1(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("docker-compose")
	if err != nil {
		t.Fatal("no docker-compose found: sudo apt-get install docker-compose")
	}
	cmd := exec.Command(path, "--file", "compose.yaml", "config", "--services")
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "COMPOSE_PROJECT_NAME=containers")
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	for _, name := range []string{"balancer", "db", "one", "schema", "two"} {
		if !slices.Contains(strings.Fields(string(said)), name) {
			t.Errorf("got no service %s in %q", name, said)
		}
	}
}

// The secrets are made by one command, once, and are those that compose and
// Kubernetes are told of.
func TestSecretsScript(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "secrets")
	makeSecrets(t, dir)
	p := ourCompose(t)
	for _, s := range p.Secrets {
		if _, err := os.Stat(filepath.Join(dir, filepath.Base(s.File))); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
	info, err := os.Stat(dir)
	must(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: got %v, want 0700", info.Mode().Perm())
	}
	before := map[string]string{}
	files, err := os.ReadDir(dir)
	must(t, err)
	for _, f := range files {
		text := read(t, filepath.Join(dir, f.Name()))
		if slices.ContainsFunc(slices.Collect(mapValues(before)), func(other string) bool { return other == text }) {
			t.Errorf("%s is not of its own", f.Name())
		}
		if before[f.Name()] = text; len(text) < 64 {
			t.Errorf("%s: got %d bytes, want 64 or more", f.Name(), len(text))
		}
	}
	makeSecrets(t, dir)
	for name, text := range before {
		if read(t, filepath.Join(dir, name)) != text {
			t.Errorf("%s was made anew", name)
		}
	}
	if !strings.Contains(read(t, folder+"/.gitignore"), "/secrets/\n") {
		t.Error("git does not ignore the secrets")
	}
}

func mapValues(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}

func makeSecrets(t *testing.T, dir string) {
	t.Helper()
	if said, err := exec.Command(folder+"/secrets.sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("secrets.sh: %v\n%s", err, said)
	}
}
