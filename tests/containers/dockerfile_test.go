package containers

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// folder is the example, root the repository that is the build's context.
const (
	root   = "../.."
	folder = root + "/examples/containers"
)

// instruction is one of a Dockerfile, its lines joined.
type instruction struct{ name, rest string }

// dockerfile is what ours says; its last stage is the image.
type dockerfile struct {
	base     string        // of the stage that builds
	build    []instruction // of the stage that builds
	final    string        // what the image is made from
	copies   [][]string    // into the image, from the stage that builds
	user     string
	entry    []string
	health   []string
	expose   string
	problems []string
}

// parseDockerfile reads a Dockerfile of two stages. What it does not know it says.
func parseDockerfile(text string) (d dockerfile) {
	text = regexp.MustCompile(`(?m)^\s*#.*\n`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`\\\n\s*`).ReplaceAllString(text, "")
	stage := 0
	fault := func(format string, args ...any) { d.problems = append(d.problems, fmt.Sprintf(format, args...)) }
	list := func(what, rest string) (words []string) {
		if json.Unmarshal([]byte(rest), &words) != nil || len(words) == 0 {
			fault("%s is no list, so it needs a shell: %s", what, rest)
		}
		return words
	}
	for line := range strings.Lines(text) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		rest = strings.TrimSpace(rest)
		switch {
		case name == "":
		case name == "FROM" && stage == 0:
			stage++
			from, as, _ := strings.Cut(rest, " AS ")
			if d.base = from; as != "build" {
				fault("the first stage is %q, want build", as)
			}
		case name == "FROM" && stage == 1:
			stage, d.final = 2, rest
		case stage == 1 && slices.Contains([]string{"WORKDIR", "COPY", "RUN"}, name):
			d.build = append(d.build, instruction{name, rest})
		case stage == 2 && name == "COPY":
			from, files, _ := strings.Cut(rest, " ")
			if from != "--from=build" {
				fault("COPY %s: not from the stage that builds", rest)
			}
			d.copies = append(d.copies, strings.Fields(files))
		case stage == 2 && name == "USER":
			d.user = rest
		case stage == 2 && name == "EXPOSE":
			d.expose = rest
		case stage == 2 && name == "HEALTHCHECK":
			_, command, _ := strings.Cut(rest, "CMD ")
			d.health = list(name, command)
		case stage == 2 && name == "ENTRYPOINT":
			d.entry = list(name, rest)
		default:
			fault("%s %s in stage %d: this test does not know what that does", name, rest, stage)
		}
	}
	if d.final != "scratch" {
		fault("the image is made from %q, want scratch", d.final)
	}
	if !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(d.user) {
		fault("USER is %q, want a user and a group by number, and not root", d.user)
	}
	if !regexp.MustCompile(`^golang:\d+\.\d+\S*$`).MatchString(d.base) {
		fault("the stage that builds is %q, want a version of golang", d.base)
	}
	if d.entry == nil || d.health == nil || d.expose == "" {
		fault("ENTRYPOINT %v, HEALTHCHECK %v and EXPOSE %q: one is missing", d.entry, d.health, d.expose)
	}
	return d
}

func ourDockerfile(t *testing.T) dockerfile {
	t.Helper()
	d := parseDockerfile(read(t, folder+"/Dockerfile"))
	for _, problem := range d.problems {
		t.Error(problem)
	}
	if t.Failed() {
		t.FailNow()
	}
	return d
}

// Each rule of parseDockerfile finds its fault.
func TestDockerfileFaults(t *testing.T) {
	t.Parallel()
	text := read(t, folder+"/Dockerfile")
	if got := parseDockerfile(text).problems; got != nil {
		t.Fatalf("got %q, want none", got)
	}
	for _, tt := range []struct{ name, old, replaced, want string }{
		{"a distribution", "FROM scratch", "FROM debian:12", "want scratch"},
		{"root", "USER 65532:65532", "USER root", "USER is"},
		{"root by number", "USER 65532:65532", "USER 0:0", "USER is"},
		{"no user", "USER 65532:65532\n", "", "USER is"},
		{"a shell at the start", `ENTRYPOINT ["/app"]`, "ENTRYPOINT /app", "needs a shell"},
		{"a shell in the health check", `CMD ["/app", "-healthcheck"]`, "CMD /app -healthcheck", "needs a shell"},
		{"any Go", "golang:1.26-bookworm", "golang", "a version of golang"},
		{"a file from the context", "COPY --from=build /out/app", "COPY secrets /out/app", "not from the stage"},
		{"a step in the image", "EXPOSE 8080", "RUN true", "does not know"},
	} {
		broken := strings.Replace(text, tt.old, tt.replaced, 1)
		if got := strings.Join(parseDockerfile(broken).problems, "\n"); broken == text || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// The version of Go that builds the image builds the modules in it.
func TestDockerfileGo(t *testing.T) {
	t.Parallel()
	d := ourDockerfile(t)
	var major, minor int
	if _, err := fmt.Sscanf(d.base, "golang:%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	for _, module := range []string{"go.mod", "cmd/sessionctl/go.mod"} {
		wantMajor, wantMinor := 0, 0
		line := regexp.MustCompile(`(?m)^go .*`).FindString(read(t, root+"/"+module))
		if _, err := fmt.Sscanf(line, "go %d.%d", &wantMajor, &wantMinor); err != nil {
			t.Fatal(err)
		}
		if major != wantMajor || minor < wantMinor {
			t.Errorf("%s wants %q, the image is built by %s", module, line, d.base)
		}
	}
	if ignored := read(t, root+"/.dockerignore"); !strings.Contains(ignored, "\n**/secrets\n") {
		t.Error(".dockerignore does not keep the secrets out of the build")
	}
}

// image carries out the Dockerfile without an engine: its own commands on this
// machine, in the repository, and its copies into a folder that is the image.
func (d dockerfile) image(t *testing.T) string {
	t.Helper()
	work := t.TempDir()
	out, image := filepath.Join(work, "out"), filepath.Join(work, "image")
	ran := 0
	for _, in := range d.build {
		if in.name != "RUN" || in.rest == "go mod download" {
			continue // the modules are here, and so is what COPY brings
		}
		cmd := exec.Command("sh", "-ec", strings.ReplaceAll(in.rest, "/out/", out+"/"))
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false")
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("RUN %s: %v\n%s", in.rest, err, said)
		}
		ran++
	}
	if ran == 0 {
		t.Fatal("the Dockerfile builds nothing")
	}
	must(t, os.Mkdir(image, 0o755))
	for _, files := range d.copies {
		to := files[len(files)-1]
		for _, from := range files[:len(files)-1] {
			target := filepath.Join(image, to)
			if strings.HasSuffix(to, "/") {
				target = filepath.Join(target, filepath.Base(from))
			}
			source := from // of the distribution that the stage is made from, as here
			if name, ok := strings.CutPrefix(from, "/out/"); ok {
				source = filepath.Join(out, name)
			}
			b, err := os.ReadFile(source)
			must(t, err)
			info, err := os.Stat(source)
			must(t, err)
			must(t, os.MkdirAll(filepath.Dir(target), 0o755))
			must(t, os.WriteFile(target, b, info.Mode()))
		}
	}
	return image
}

// wantStatic wants programs that need no other file, and no file but them and the
// certificates.
func wantStatic(t *testing.T, image string) {
	t.Helper()
	var names []string
	must(t, filepath.WalkDir(image, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			names = append(names, strings.TrimPrefix(path, image))
		}
		return err
	}))
	if want := []string{"/app", "/etc/ssl/certs/ca-certificates.crt", "/sessionctl"}; !slices.Equal(names, want) {
		t.Errorf("in the image: got %q, want %q", names, want)
	}
	for _, name := range []string{"/app", "/sessionctl"} {
		f, err := elf.Open(image + name)
		must(t, err)
		defer f.Close()
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
				t.Errorf("%s needs a loader or libraries: segment %v", name, p.Type)
			}
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return string(b)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
