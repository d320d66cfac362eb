package patroni_test

import (
	"bufio"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// example is the program examples/cluster with -patroni, and one browser.
type example struct {
	t      *testing.T
	url    string
	client *http.Client
}

var listening = regexp.MustCompile(`msg=listening url=http://localhost(:\d+)`)

// startExample builds and runs the example until it listens.
func startExample(t *testing.T) *example {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "cluster")
	build := exec.Command("go", "build", "-o", binary, "./examples/cluster")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(binary, "-patroni")
	cmd.Env = append(os.Environ(), "PORT=0", "SESSION_SECRET="+"kq7Vw2mT9xB4nR8sL1cZ6yH3pD5gJ0fa")
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(said); lines.Scan(); {
			t.Log(lines.Text())
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				address <- "http://127.0.0.1" + m[1]
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		<-ended
		if err := cmd.Wait(); err != nil {
			t.Errorf("the program ended with %v, want 0", err)
		}
	})
	jar, _ := cookiejar.New(nil) // never fails
	e := &example{t: t, client: &http.Client{Jar: jar}}
	select {
	case e.url = <-address:
	case <-ended:
		t.Fatal("the program ended before it listened")
	case <-time.After(patience):
		t.Fatal("the program does not listen")
	}
	return e
}

func (e *example) do(method, path string, form url.Values) (code int, page string) {
	e.t.Helper()
	req, err := http.NewRequestWithContext(e.t.Context(), method, e.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		e.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := e.client.Do(req)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// until asks for a page until it says what is wanted.
func (e *example) until(path string, want *regexp.Regexp) []string {
	e.t.Helper()
	var page string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if _, page = e.do("GET", path, nil); want.MatchString(page) {
			return want.FindStringSubmatch(page)
		}
	}
	e.t.Fatalf("%s never says %v, but:\n%s", path, want, page)
	return nil
}

// The plug of the leading database is pulled: who was logged in still is when
// another leads, and what was counted is kept.
func TestTheExampleOnPatroni(t *testing.T) {
	e := startExample(t)
	if code, page := e.do("POST", "/login", url.Values{"user": {"ada"}}); code != 200 || !strings.Contains(page, "Hello, ada") {
		t.Fatalf("login: got status %d, want 200 and a greeting", code)
	}
	if code, _ := e.do("POST", "/click", nil); code != 200 {
		t.Fatalf("click: got status %d, want 200", code)
	}
	leads := regexp.MustCompile(`id="state(node\d)" data-live>leads<`)
	before := e.until("/cluster", leads)[1]
	if code, _ := e.do("POST", "/cluster/database/melt", url.Values{"node": {before}}); code != 400 {
		t.Errorf("a button that there is not: got status %d, want 400", code)
	}
	if code, _ := e.do("POST", "/cluster/database/kill", url.Values{"node": {before}}); code != 200 {
		t.Fatalf("kill: got status %d, want 200", code)
	}
	e.until("/cluster", regexp.MustCompile(`id="state`+before+`" data-live>dead<`))
	if after := e.until("/cluster", leads)[1]; after == before {
		t.Fatalf("%s is dead and leads", before)
	}
	e.until("/me", regexp.MustCompile(`^\{"user":"ada","clicks":1,`))
	e.do("POST", "/cluster/database/resume", url.Values{"node": {before}})
	e.until("/cluster", regexp.MustCompile(`id="state`+before+`" data-live>follows<`))
	e.do("POST", "/cluster/database/switchover", nil)
	e.until("/cluster", leads)
	e.until("/me", regexp.MustCompile(`^\{"user":"ada","clicks":1,`))
}
