// Package trial_test moves two small applications to this library: what it costs to
// write, and what the browser notices.
package trial_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/session/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// Go's test cache does not see changes of a file outside of the module: use -count=1.
const document = "../../../docs/adapters.md"

// most is how many lines a move may cost to write.
const most = 14

// The document shows the whole change, and says how long it is.
func TestChangeIsShort(t *testing.T) {
	page := read(t, document)
	for _, app := range []string{"chi", "gin"} {
		t.Run(app, func(t *testing.T) {
			_, after, _ := strings.Cut(page, "adapters/trial/"+app+"/before/main.go)")
			_, after, _ = strings.Cut(after, "```diff\n")
			diff, _, ok := strings.Cut(after, "```\n")
			if !ok {
				t.Fatal("the document shows no diff")
			}
			got := patch(t, read(t, app+"/before/main.go"), diff)
			if want := read(t, app+"/after/main.go"); got != want {
				t.Errorf("the document's change makes of before/main.go:\n%s\nwant after/main.go", got)
			}
			written, dropped := strings.Count("\n"+diff, "\n+"), strings.Count("\n"+diff, "\n-")
			if written > most {
				t.Errorf("lines to write: got %d, want %d at most", written, most)
			}
			if said := fmt.Sprintf("%d lines to write, %d to drop", written, dropped); !strings.Contains(page, said) {
				t.Errorf("the document does not say %q", said)
			}
		})
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// patch applies a unified diff whose context is enough to find its place.
func patch(t *testing.T, text, diff string) string {
	t.Helper()
	rest := strings.SplitAfter(text, "\n")
	var out strings.Builder
	for line := range strings.Lines(diff) {
		sign, line := line[0], line[1:]
		if line == "" {
			line = "\n" // an editor may have cut the space
		}
		switch sign {
		case '@':
			continue
		case '+':
			out.WriteString(line)
			continue
		}
		for {
			if len(rest) == 0 {
				t.Fatalf("the change has a line that is not there: %q", line)
			}
			next := rest[0]
			rest = rest[1:]
			if next != line {
				out.WriteString(next)
				continue
			}
			if sign != '-' {
				out.WriteString(next)
			}
			break
		}
	}
	return out.String() + strings.Join(rest, "")
}

// step is a form that a browser sends, or a page that it asks for.
type step struct {
	method, path string
	form         url.Values
	code         int
	body         string
}

var (
	wrong = url.Values{"name": {"Ada"}, "password": {"1234"}}
	right = url.Values{"name": {"Ada"}, "password": {"open"}}
)

var guestbook = []step{
	{"GET", "/", nil, 200, "Hello <"},
	{"POST", "/sign", url.Values{"entry": {"none"}}, 401, "log in first"},
	{"POST", "/login", wrong, 403, "wrong password"},
	{"POST", "/login", right, 303, ""},
	{"GET", "/", nil, 200, "Hello Ada"},
	{"POST", "/sign", url.Values{"entry": {"I was here"}}, 303, ""},
	{"GET", "/", nil, 200, "Ada: I was here"},
	{"POST", "/logout", nil, 303, ""},
	{"GET", "/", nil, 200, "Hello <"},
	{"POST", "/sign", url.Values{"entry": {"none"}}, 401, "log in first"},
}

var todo = []step{
	{"GET", "/tasks", nil, 401, "log in first"},
	{"POST", "/login", wrong, 403, "wrong password"},
	{"POST", "/login", right, 200, "Ada"},
	{"POST", "/tasks", url.Values{"task": {"tea"}}, 201, ""},
	{"GET", "/tasks", nil, 200, `"tasks":["tea"],"user":"Ada"`},
	{"POST", "/logout", nil, 204, ""},
	{"GET", "/tasks", nil, 401, "log in first"},
}

// Before and after, a browser finds the same application. A copy of the cookie
// is good after the logout before, and worth nothing after; and a page of another
// site that logs it in, by a name and password of its own, does so before only.
func TestApplications(t *testing.T) {
	for _, tt := range []struct {
		app    string
		steps  []step
		inside step // what only those see who are logged in
		before bool // a copy of the cookie survives the logout, other sites log in
	}{
		{"chi/before", guestbook, step{"GET", "/", nil, 200, "Hello Ada"}, true},
		{"chi/after", guestbook, step{"GET", "/", nil, 200, "Hello Ada"}, false},
		{"gin/before", todo, step{"GET", "/tasks", nil, 200, "Ada"}, true},
		{"gin/after", todo, step{"GET", "/tasks", nil, 200, "Ada"}, false},
	} {
		t.Run(tt.app, func(t *testing.T) {
			t.Parallel()
			site := start(t, tt.app)
			client := browser(t)
			for _, s := range tt.steps {
				if code, body := do(t, client, site, s); code != s.code || !strings.Contains(body, s.body) {
					t.Fatalf("%s %s: got %d %q, want %d and %q", s.method, s.path, code, body, s.code, s.body)
				}
			}
			do(t, client, site, step{"POST", "/login", right, 0, ""})
			thief := browser(t)
			u, err := url.Parse(site)
			if err != nil {
				t.Fatal(err)
			}
			thief.Jar.SetCookies(u, client.Jar.Cookies(u))
			do(t, client, site, step{"POST", "/logout", nil, 0, ""})
			code, body := do(t, thief, site, tt.inside)
			if got := code == tt.inside.code && strings.Contains(body, tt.inside.body); got != tt.before {
				t.Errorf("a copy of the cookie after the logout: got inside: %t, want %t", got, tt.before)
			}
			victim := browser(t)
			do(t, victim, site, step{"POST", "/login", right, 0, ""}, "Sec-Fetch-Site", "cross-site")
			if got := len(victim.Jar.Cookies(u)) > 0; got != tt.before {
				t.Errorf("logged in by another site: got a cookie: %t, want %t", got, tt.before)
			}
		})
	}
}

func browser(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{
		Jar:           jar,
		Timeout:       time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func do(t *testing.T, client *http.Client, site string, s step, headers ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), s.method, site+s.path, strings.NewReader(s.form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// start builds and runs a program, until the test ends.
func start(t *testing.T, app string) (site string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "app")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./"+app).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	database := pgtest.URL(t)
	var said []string
	for range 5 { // another program may take the port
		// Below those that are given out to whoever does not choose.
		site, output := run(t, program, fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000)), database)
		if site != "" {
			return site
		}
		said = append(said, output)
	}
	t.Fatalf("the program ended: %q", said)
	return ""
}

// run runs a program until the test ends, and returns its address when it answers, or
// what it has said where it has ended.
func run(t *testing.T, program, addr, database string) (site, said string) {
	t.Helper()
	var output bytes.Buffer
	cmd := exec.Command(program)
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.Env = append(os.Environ(), "ADDR="+addr, "DATABASE_URL="+database, "PASSWORD=open", "GIN_MODE=release",
		"SESSION_SECRET=thirty-two bytes, and some more, for the test")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		select {
		case <-exited:
		case <-time.After(time.Minute):
			t.Error("the program does not end")
		}
	})
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if conn, err := net.Dial("tcp", addr); err == nil {
			_ = conn.Close()
			return "http://" + addr, ""
		}
		select {
		case <-tick.C:
		case err := <-exited:
			exited <- err
			return "", fmt.Sprintf("%v\n%s", err, output.Bytes())
		case <-t.Context().Done():
			t.Fatal("the program does not answer")
		}
	}
}
