package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/pgsession/session/internal/exampletest"
	"github.com/pgsession/session/internal/pgtest"
)

func TestMain(m *testing.M) { exampletest.Main(m) }

var (
	must  = exampletest.Must
	names = []string{"1", "2", "3"}
)

func TestOneLoginForAllProcesses(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := start(t, dsn)
	ada := login(t, p, "ada")
	for range 6 {
		ada.Post(p.URL+"/click", nil).Want(t, 200, "Hello, ada")
	}
	var by []string
	for range 3 {
		by = append(by, ada.wantMe(p, "ada", 6).Header.Get("X-Served-By"))
	}
	if slices.Sort(by); !slices.Equal(by, names) {
		t.Errorf("got answers by %q, want one by each", by)
	}
	// Clicks that overlap, from the same session, in three processes.
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			<-begin
			ada.PostOnly(p.URL+"/click", nil)
		})
	}
	close(begin)
	wg.Wait()
	page := ada.Get(p.URL + "/")
	for _, name := range names {
		page.Want(t, 200, `<strong>18</strong>`, `<li class="p`+name+`">`+name+`</li>`)
	}

	kept := ada.Cookie() // a logout is more than a cookie taken away
	ada.Post(p.URL+"/logout", nil).Want(t, 200, "Log in")
	ada.SetCookie(kept)
	for range 3 {
		ada.Get(p.URL+"/me").Want(t, 401)
	}
	if got := exampletest.Rows(t, dsn); got != 0 {
		t.Errorf("got %d rows after logout, want none", got)
	}
	p.WantNotInLog(kept, exampletest.Secret, exampletest.Password(t, dsn))
}

func TestThePages(t *testing.T) {
	t.Parallel()
	p := start(t, pgtest.URL(t))
	visitor := newBrowser(t)
	if res := visitor.Get(p.URL + "/"); res.Header.Get("Set-Cookie") != "" {
		t.Error("a visitor who has not logged in got a cookie")
	}
	for _, tt := range []struct {
		name, path string
		form       url.Values
		code       int
		want       string
	}{
		{"no name", "/login", url.Values{"user": {" \t "}}, 422, "Please tell us your name."},
		{"long name", "/login", url.Values{"user": {strings.Repeat("é", 41)}}, 422, "Up to 40 characters"},
		{"not UTF-8", "/login", url.Values{"user": {"\xff"}}, 422, "cannot read"},
		{"markup", "/login", url.Values{"user": {"<b>ada"}}, 200, "Hello, &lt;b&gt;ada"},
		{"click without a login", "/click", nil, 401, "not logged in"},
		{"no such process", "/cluster/kill", url.Values{"process": {"4"}}, 400, "no such process"},
		{"no such button", "/cluster/explode", url.Values{"process": {"1"}}, 400, "no such button"},
	} {
		t.Run(tt.name, func(t *testing.T) { newBrowser(t).Post(p.URL+tt.path, tt.form).Want(t, tt.code, tt.want) })
	}
	for _, path := range []string{"/login", "/cluster/kill", "/cluster/roll"} {
		req, err := http.NewRequestWithContext(t.Context(), "POST", p.URL+path, strings.NewReader("user=ada&process=1"))
		must(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Sec-Fetch-Site", "cross-site")
		res, err := http.DefaultTransport.RoundTrip(req)
		must(t, err)
		exampletest.Read(t, res).Want(t, 403)
	}

	page := visitor.Get(p.URL + "/cluster")
	page.Want(t, 200, "3 of 3 processes up", "kill -9", "Rolling restart")
	for _, name := range names {
		page.Want(t, 200, ">"+strconv.Itoa(p.pid(name))+"</dd>")
	}
	visitor.Get(p.URL+"/cluster/style.css").Want(t, 200, "prefers-color-scheme: dark")
	visitor.Get(p.URL+"/cluster/live.js").Want(t, 200, "data-live")
	visitor.Post(p.URL+"/cluster/kill", url.Values{"process": {"2"}})
	p.WaitLog(`msg="a process has ended" process=2`)
	visitor.Get(p.URL+"/cluster").Want(t, 200, "2 of 3 processes up", `<span class="state down"`, ">none</dd>")
	visitor.Post(p.URL+"/cluster/restart", url.Values{"process": {"2"}})
	p.WaitLog("restart of process 2: done")
	visitor.Get(p.URL+"/cluster").Want(t, 200, "3 of 3 processes up", "2 times")
}

// Users click all the while; every process is killed in its turn, then all at
// once, then the database. Each kill comes after a good number of further clicks,
// so that it falls among them.
func TestAKilledProcessTakesNothingWithIt(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgtest.Options{})
	p := start(t, server.URL())
	var all atomic.Int64 // clicks that were counted
	progress := make(chan struct{}, 1)
	done := make(chan struct{})
	var wg sync.WaitGroup
	var users []*user
	for i := range 6 {
		u := &user{browser: login(t, p, "user "+strconv.Itoa(i)), name: "user " + strconv.Itoa(i)}
		users = append(users, u)
		wg.Go(func() { u.clickUntil(done, p, &all, progress) })
	}
	more := func() {
		t.Helper()
		for until := all.Load() + 50; all.Load() < until; {
			<-progress
		}
	}
	kill := func(name string) {
		process, err := os.FindProcess(p.pid(name))
		must(t, err)
		must(t, process.Kill())
	}
	operator := newBrowser(t)
	restart := func(name string) {
		operator.Post(p.URL+"/cluster/restart", url.Values{"process": {name}})
	}
	for _, name := range names {
		more()
		kill(name)
		p.WaitLogTimes(`msg="a process has ended" process=`+name, 1)
		more() // by the other two
		restart(name)
		p.WaitLogTimes(`msg="a process is up" process=`+name, 2)
	}
	more()
	for _, name := range names {
		kill(name)
	}
	for _, name := range names {
		p.WaitLogTimes(`msg="a process has ended" process=`+name, 2)
	}
	users[0].browser.Get(p.URL+"/me").Want(t, 503, "You are still logged in")
	for _, name := range names {
		restart(name)
		p.WaitLogTimes(`msg="a process is up" process=`+name, 3)
	}
	more()
	must(t, server.Kill())
	must(t, server.Start(t.Context()))
	more()
	close(done)
	wg.Wait()
	unanswered := 0
	for _, u := range users {
		u.wantClicks(t, p)
		unanswered += u.unanswered
	}
	t.Logf("%d clicks counted, %d not answered", all.Load(), unanswered)
}

// The whole of -rolling: one process after the other, under load, with no error.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	p := exampletest.Command(t, "DATABASE_URL="+pgtest.URL(t), "-rolling", "-clients", "8", "-phase", "500ms")
	var out bytes.Buffer
	p.Stdout = &out
	p.Begin()
	if err := p.Wait(); err != nil {
		t.Fatalf("got %v, want exit code 0\n%s\n%s", err, out.String(), p.Log())
	}
	for _, name := range append([]string{"before", "after"}, names...) {
		if !strings.Contains(out.String(), name) {
			t.Errorf("the table has no phase %q", name)
		}
	}
	_, all, _ := strings.Cut(out.String(), "all ")
	// seconds, requests, answered, errors, logged out, lost
	f := strings.Fields(all)
	if requests, err := strconv.Atoi(f[1]); err != nil || requests < 50 || f[2] != f[1] || !slices.Equal(f[3:6], []string{"0", "0", "0"}) {
		t.Errorf("got\n%s\nwant 50 requests or more, all answered", out.String())
	}
	for _, name := range names {
		p.WaitLogTimes(`msg="a process is up" process=`+name, 2)
	}
}

// A process that is told to end answers what it has begun, whoever tells it.
func TestARequestUnderWayIsAnswered(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		end  func(t *testing.T, p program)
	}{
		{"rolling restart", func(t *testing.T, p program) {
			newBrowser(t).Post(p.URL+"/cluster/roll", nil)
			p.WaitLog("waiting for requests under way")
		}},
		{"SIGTERM", func(t *testing.T, p program) { // behind the balancer's back
			for _, name := range names {
				process, err := os.FindProcess(p.pid(name))
				must(t, err)
				must(t, process.Signal(syscall.SIGTERM))
			}
			p.WaitLogTimes("finishing the requests under way", 3)
			p.WaitLogTimes(`msg="a process has ended"`, 2)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, pgtest.URL(t))
			finish := slowLogin(t, p)
			tt.end(t, p)
			finish()
			for _, name := range names { // each of the first three has ended
				p.WaitLog(`msg="a process has ended" process=` + name)
			}
		})
	}
}

// slowLogin sends half of a form, and returns once a process waits for the rest,
// which finish sends. It wants a good answer.
func slowLogin(t *testing.T, p program) (finish func()) {
	t.Helper()
	body, send := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), "POST", p.URL+"/login", body)
	must(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Expect", "100-continue")
	answer := make(chan error, 1)
	go func() {
		transport := &http.Transport{ExpectContinueTimeout: exampletest.Deadline}
		res, err := transport.RoundTrip(req)
		if err == nil {
			res.Body.Close()
			if res.StatusCode != http.StatusSeeOther || res.Header.Get("Set-Cookie") == "" {
				err = errors.New("got " + res.Status + ", or no cookie")
			}
		}
		answer <- err
	}()
	_, err = send.Write([]byte("user=")) // taken once the process has asked for it: 100 Continue
	must(t, err)
	return func() {
		t.Helper()
		_, err := send.Write([]byte("ada"))
		must(t, errors.Join(err, send.Close()))
		must(t, <-answer)
	}
}

// Whoever ends first and however, nothing is left behind but the sessions.
func TestTheProcessesEndWithTheProgram(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := start(t, dsn)
	ada := login(t, p, "ada")
	ada.Post(p.URL+"/click", nil).Want(t, 200)
	p.Interrupt(syscall.SIGTERM)
	for _, name := range names {
		exampletest.Gone(t, p.pid(name))
	}
	p = start(t, dsn)
	ada.wantMe(p, "ada", 1)
	p.MayFail = true
	must(t, p.Process.Kill())
	for _, name := range names {
		exampletest.Gone(t, p.pid(name))
	}
	p = start(t, dsn)
	ada.wantMe(p, "ada", 1)
	p.Interrupt(os.Interrupt)
}

func TestWhatIsWrongIsSaidInPlainWords(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	for _, tt := range []struct {
		name string
		more []string
		want []string
	}{
		{"database", []string{"DATABASE_URL=postgres://ada:hush-hush@127.0.0.1:1/shop"}, []string{"host 127.0.0.1", "port 1", "database shop", "user ada"}},
		{
			"no PostgreSQL",
			[]string{"PATH=" + empty, "PGTEST_BINDIR=" + empty, "DOCKER_HOST=unix://" + empty + "/none"},
			[]string{"no PostgreSQL found", "Install one of:"},
		},
		{"secret", []string{"DATABASE_URL=" + pgtest.URL(t), "SESSION_SECRET=hush"}, []string{"SESSION_SECRET", "needs at least 32", "process=3"}},
		{"clients", []string{"-rolling", "-clients", "0"}, []string{"-clients"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := exampletest.Command(t, tt.more...)
			p.WantFailure(tt.want...)
			p.WantNotInLog("hush")
		})
	}
}

// program is the running example.
type program struct{ *exampletest.Program }

func start(t *testing.T, dsn string) program {
	t.Helper()
	return program{exampletest.Start(t, "DATABASE_URL="+dsn)}
}

var isUp = regexp.MustCompile(`msg="a process is up" process=(\d) pid=(\d+)`)

// pid is that of the process which has a name now.
func (p program) pid(name string) (pid int) {
	for _, m := range isUp.FindAllStringSubmatch(p.Log(), -1) {
		if m[1] == name {
			pid, _ = strconv.Atoi(m[2])
		}
	}
	return pid
}

// browser knows the pages of the application.
type browser struct{ *exampletest.Browser }

func newBrowser(t *testing.T) browser { return browser{exampletest.NewBrowser(t, "session")} }

func login(t *testing.T, p program, name string) browser {
	t.Helper()
	b := newBrowser(t)
	b.Post(p.URL+"/login", url.Values{"user": {name}}).Want(t, 200, "Hello, "+name)
	return b
}

func (b browser) me(p program) (res exampletest.Response, name string, clicks int) {
	b.T.Helper()
	res = b.Get(p.URL + "/me")
	var me struct {
		User   string
		Clicks int
	}
	if err := json.Unmarshal([]byte(res.Body), &me); err != nil || res.Code != 200 {
		b.T.Errorf("/me: got %d %s, want 200", res.Code, res.Body)
	}
	return res, me.User, me.Clicks
}

func (b browser) wantMe(p program, name string, clicks int) exampletest.Response {
	b.T.Helper()
	res, gotName, gotClicks := b.me(p)
	if gotName != name || gotClicks != clicks {
		b.T.Errorf("got %s with %d clicks, want %s with %d", gotName, gotClicks, name, clicks)
	}
	return res
}

// user is one who clicks, and keeps count.
type user struct {
	browser    browser
	name       string
	counted    int
	unanswered int // counted or not
}

// clickUntil clicks until done, and sends word of each click that was counted.
func (u *user) clickUntil(done <-chan struct{}, p program, all *atomic.Int64, progress chan<- struct{}) {
	client := *u.browser.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for {
		select {
		case <-done:
			return
		default:
		}
		res, err := client.PostForm(p.URL+"/click", nil)
		if err != nil {
			u.unanswered++
			continue
		}
		res.Body.Close()
		switch {
		case res.StatusCode >= 500:
			u.unanswered++
			if res.Header.Get("Set-Cookie") != "" {
				u.browser.T.Errorf("%s: got a cookie with a %d", u.name, res.StatusCode)
			}
			continue
		case res.StatusCode != http.StatusSeeOther:
			u.browser.T.Errorf("%s: got %d, want 303 or an outage", u.name, res.StatusCode)
			return
		}
		u.counted++
		all.Add(1)
		select {
		case progress <- struct{}{}:
		default:
		}
	}
}

// wantClicks wants every click that was acknowledged, and none twice.
func (u *user) wantClicks(t *testing.T, p program) {
	t.Helper()
	_, name, clicks := u.browser.me(p)
	if name != u.name || clicks < u.counted || clicks > u.counted+u.unanswered {
		t.Errorf("got %s with %d clicks, want %s with %d, or up to %d more", name, clicks, u.name, u.counted, u.unanswered)
	}
}
