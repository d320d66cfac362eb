package main_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgsession/session/internal/exampletest"
	"github.com/pgsession/session/internal/pgtest"
)

func TestMain(m *testing.M) { exampletest.Main(m) }

var must = exampletest.Must

func TestALogoutElsewhereEndsTheStream(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn)
	q := exampletest.Start(t, "DATABASE_URL="+dsn) // another program, with the same sessions
	bob := newBrowser(t)
	bob.login(p, "bob")
	bobs := bob.stream(p, 0)
	for _, tt := range []struct {
		name string
		end  func(ada, phone browser)
		want func(s *stream, t *testing.T)
	}{
		{"logout", func(ada, _ browser) { ada.Post(p.URL+"/logout", nil).Want(t, 200, "Log in") }, (*stream).wantBye},
		{"logout at another program", func(ada, _ browser) { ada.Post(q.URL+"/logout", nil).Want(t, 200, "Log in") }, (*stream).wantBye},
		{"everywhere, by another device", func(_, phone browser) { phone.Post(q.URL+"/logout-everywhere", nil).Want(t, 200, "Log in") }, (*stream).wantBye},
		{"login again", func(ada, _ browser) { ada.login(p, "ada") }, (*stream).wantEnd}, // a renewal: no logout, and the browser comes back
	} {
		t.Run(tt.name, func(t *testing.T) {
			ada, phone := newBrowser(t), newBrowser(t)
			ada.login(p, "ada")
			phone.login(p, "ada")
			one, two := ada.stream(p, 0), ada.stream(p, 0)
			tt.end(ada, phone)
			tt.want(one, t)
			tt.want(two, t)
		})
	}
	bob.say(p, "still here")
	bobs.want(t, message{User: "bob", Text: "still here", New: true, Count: 1})
	p.WantNotInLog("level=ERROR")
	p.WantNotInLog(exampletest.Secret, exampletest.Password(t, dsn))
}

// Each change is made after the first byte of the stream has left, and is there
// for another request before the browser sees the message.
func TestAChangeInTheStreamIsSaved(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn)
	ada, bob := newBrowser(t), newBrowser(t)
	ada.login(p, "ada")
	bob.login(p, "bob")
	s := ada.stream(p, 0)
	for i := 1; i <= 3; i++ {
		bob.say(p, "message "+strconv.Itoa(i))
		s.want(t, message{User: "bob", Text: "message " + strconv.Itoa(i), New: true, Count: i})
		ada.wantMe(p, "ada", i)
	}
	bob.wantMe(p, "bob", 0)

	// Another window, and one that comes back, count nothing twice.
	two, three := ada.stream(p, 0), ada.stream(p, s.last)
	for i := 1; i <= 3; i++ {
		two.want(t, message{User: "bob", Text: "message " + strconv.Itoa(i), Count: 3})
	}
	ada.say(p, "mine")
	for _, s := range []*stream{s, two, three} {
		s.want(t, message{User: "ada", Text: "mine", New: true, Count: 4})
	}
	ada.wantMe(p, "ada", 4)
	ada.Get(p.URL+"/").Want(t, 200, `<b id="count">4</b>`)

	// What the session has read outlives the program.
	p.Interrupt(os.Interrupt)
	p = exampletest.Start(t, "DATABASE_URL="+dsn)
	ada.wantMe(p, "ada", 4)
	ada.say(p, "again")
	ada.stream(p, s.last).want(t, message{User: "ada", Text: "again", New: true, Count: 5})
}

// Several windows of one browser get the same messages at the same moment, and all
// write to the one session.
func TestManyWindowsCountEachMessageOnce(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	ada := newBrowser(t)
	ada.login(p, "ada")
	const windows, messages = 6, 10
	var streams []*stream
	for range windows {
		streams = append(streams, ada.stream(p, 0))
	}
	for range messages {
		ada.say(p, "hello")
	}
	var wg sync.WaitGroup
	for _, s := range streams {
		wg.Go(func() {
			for range messages {
				if _, err := s.next(); err != nil {
					t.Errorf("got %v, want a message", err)
					return
				}
			}
		})
	}
	wg.Wait()
	ada.wantMe(p, "ada", messages)
}

func TestWhoIsNotLoggedInGetsNoStream(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn)
	for _, cookie := range []string{"", "forged"} {
		b := newBrowser(t)
		if cookie != "" {
			b.SetCookie(cookie)
		}
		res := b.Get(p.URL + "/stream")
		res.Want(t, 401, "not logged in")
		if res.Header.Get("Set-Cookie") != "" {
			t.Error("got a cookie")
		}
		b.Post(p.URL+"/say", url.Values{"text": {"hello"}}).Want(t, 401)
	}
	if got := exampletest.Rows(t, dsn); got != 0 {
		t.Errorf("got %d rows, want none", got)
	}
}

// An outage of the database ends no stream and logs nobody out.
func TestAnOutageIsNoLogout(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgtest.Options{})
	p := exampletest.Start(t, "DATABASE_URL="+server.URL())
	ada := newBrowser(t)
	ada.login(p, "ada")
	s := ada.stream(p, 0)
	must(t, server.Stop(t.Context(), "immediate"))
	// It has been looked for in vain meanwhile: this takes as long as a stream's.
	ada.Post(p.URL+"/say", url.Values{"text": {"lost"}}).Want(t, 503)
	must(t, server.Start(t.Context()))
	ada.sayWhenBack(p, "back")
	s.want(t, message{User: "ada", Text: "back", New: true, Count: 1})
}

// The end of the program is the end of its streams, which are complete.
func TestShutdownEndsTheStreams(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	ada := newBrowser(t)
	ada.login(p, "ada")
	s := ada.stream(p, 0)
	p.Interrupt(syscall.SIGTERM)
	p.WantNotInLog("cut off") // it has not waited in vain for its streams
	if _, err := s.next(); err != io.EOF {
		t.Errorf("got %v, want a complete response", err)
	}
}

func TestThePage(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	newBrowser(t).Get(p.URL+"/").Want(t, 200, `name="user"`)
	newBrowser(t).Get(p.URL+"/board.js").Want(t, 200, "EventSource")
	ada := newBrowser(t)
	ada.login(p, "<b>ada")
	ada.Get(p.URL+"/").Want(t, 200, "Hello, &lt;b&gt;ada", "/board.js", "0</b> messages")
	for _, tt := range []struct {
		name, path string
		form       url.Values
		code       int
		want       string
	}{
		{"no name", "/login", url.Values{"user": {" "}}, 422, "Please write something."},
		{"long name", "/login", url.Values{"user": {strings.Repeat("é", 41)}}, 422, "Up to 40 characters"},
		{"no message", "/say", url.Values{"text": {" "}}, 422, "Please write something."},
		{"long message", "/say", url.Values{"text": {strings.Repeat("é", 201)}}, 422, "Up to 200 characters"},
		{"not UTF-8", "/say", url.Values{"text": {"\xff"}}, 422, "cannot read"},
	} {
		t.Run(tt.name, func(t *testing.T) { ada.Post(p.URL+tt.path, tt.form).Want(t, tt.code, tt.want) })
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", p.URL+"/say", strings.NewReader("text=hello"))
	must(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	res, err := http.DefaultTransport.RoundTrip(req)
	must(t, err)
	exampletest.Read(t, res).Want(t, 403)
}

func TestADatabaseThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	p := exampletest.Command(t, "DATABASE_URL=postgres://ada:hush-hush@127.0.0.1:1/shop")
	p.WantFailure("host 127.0.0.1", "port 1", "database shop", "user ada")
	p.WantNotInLog("hush")
}

// browser knows the pages of the application.
type browser struct{ *exampletest.Browser }

func newBrowser(t *testing.T) browser { return browser{exampletest.NewBrowser(t, "session")} }

func (b browser) login(p *exampletest.Program, name string) {
	b.T.Helper()
	b.Post(p.URL+"/login", url.Values{"user": {name}}).Want(b.T, 200, "Hello, ")
}

func (b browser) say(p *exampletest.Program, text string) {
	b.T.Helper()
	b.PostOnly(p.URL+"/say", url.Values{"text": {text}})
}

// sayWhenBack says it after an outage: while the stream is the one that looks whether
// the database is back, others are refused.
func (b browser) sayWhenBack(p *exampletest.Program, text string) {
	b.T.Helper()
	client := *b.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for end := time.Now().Add(exampletest.Deadline); ; <-time.After(50 * time.Millisecond) {
		res, err := client.PostForm(p.URL+"/say", url.Values{"text": {text}})
		must(b.T, err)
		res.Body.Close()
		switch {
		case res.StatusCode == http.StatusSeeOther:
			return
		case res.StatusCode != http.StatusServiceUnavailable || time.Now().After(end):
			b.T.Fatalf("/say after an outage: got %d, want 303", res.StatusCode)
		}
	}
}

func (b browser) wantMe(p *exampletest.Program, name string, read int) {
	b.T.Helper()
	res := b.Get(p.URL + "/me")
	var me struct {
		User string
		Read int
	}
	if err := json.Unmarshal([]byte(res.Body), &me); err != nil || me.User != name || me.Read != read {
		b.T.Errorf("/me: got %d %s, want %s who has read %d", res.Code, res.Body, name, read)
	}
}

// stream is an EventSource.
type stream struct {
	lines *bufio.Reader
	last  int64
}

// message is what an event carries.
type message struct {
	ID         int64
	User, Text string
	New        bool
	Count      int
}

type sent struct {
	kind string
	data string
}

// stream connects, and returns once the first bytes have come: they were flushed,
// and the handler goes on.
func (b browser) stream(p *exampletest.Program, last int64) *stream {
	b.T.Helper()
	req, err := http.NewRequestWithContext(b.T.Context(), "GET", p.URL+"/stream", nil)
	must(b.T, err)
	if last != 0 {
		req.Header.Set("Last-Event-ID", strconv.FormatInt(last, 10))
	}
	res, err := b.Client.Do(req)
	must(b.T, err)
	b.T.Cleanup(func() { res.Body.Close() })
	if got := res.Header.Get("Content-Type"); res.StatusCode != 200 || got != "text/event-stream" {
		b.T.Fatalf("stream: got %d %s, want an event stream", res.StatusCode, got)
	}
	s := &stream{lines: bufio.NewReader(res.Body)}
	if line, err := s.lines.ReadString('\n'); line != "retry: 1000\n" {
		b.T.Fatalf("stream: got %q, %v, want it to begin", line, err)
	}
	if _, err := s.lines.ReadString('\n'); err != nil {
		b.T.Fatal(err)
	}
	return s
}

// next is the next event; comments are none.
func (s *stream) next() (e sent, err error) {
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			if line != "" || e != (sent{}) {
				err = errors.Join(err, errors.New("in the middle of an event"))
			}
			return e, err
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "event":
			e.kind = value
		case "data":
			e.data = value
		case "id":
			s.last, _ = strconv.ParseInt(value, 10, 64)
		case "":
			if e != (sent{}) {
				return e, nil
			}
		}
	}
}

// wantBye wants the stream to say so and to end, complete and not cut off.
func (s *stream) wantBye(t *testing.T) {
	t.Helper()
	if e, err := s.next(); err != nil || e.kind != "bye" {
		t.Errorf("got event %q, %v, want bye", e.kind, err)
	}
	if _, err := s.next(); err != io.EOF {
		t.Errorf("after bye: got %v, want a complete response", err)
	}
}

// wantEnd wants the stream to end without a word, complete and not cut off.
func (s *stream) wantEnd(t *testing.T) {
	t.Helper()
	if e, err := s.next(); err != io.EOF {
		t.Errorf("got event %q, %v, want a complete response", e.kind, err)
	}
}

func (s *stream) want(t *testing.T, want message) {
	t.Helper()
	e, err := s.next()
	var got message
	if err == nil {
		err = json.Unmarshal([]byte(e.data), &got)
	}
	if got.ID != s.last || got.ID == 0 {
		t.Errorf("got ID %d in the data and %d beside it, want the same", got.ID, s.last)
	}
	if got.ID = 0; err != nil || got != want {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
}
