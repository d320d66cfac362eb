package main_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/pgsession/session/internal/exampletest"
	"github.com/pgsession/session/internal/pgtest"
)

func TestMain(m *testing.M) { exampletest.Main(m) }

var must = exampletest.Must

// Two windows of one browser tap at once. What either has been shown is saved, and
// another request sees it.
func TestTapsAreSaved(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn)
	ada := newBrowser(t)
	ada.login(p, "ada")
	one, two := ada.open(p), ada.open(p)
	one.waitFor(0)
	two.waitFor(0)
	one.tap()
	one.waitFor(1)
	ada.wantMe(p, "ada", 1)
	two.waitFor(1) // which nobody tapped here

	const each = 50
	var wg sync.WaitGroup
	for _, s := range []*socket{one, two} {
		wg.Go(func() {
			for range each {
				s.tap()
			}
		})
	}
	wg.Wait()
	one.waitFor(1 + 2*each)
	two.waitFor(1 + 2*each)
	ada.wantMe(p, "ada", 1+2*each)
	two.waitForTotal(1 + 2*each) // which a tap of the other window joins when it has been saved
	if got := two.state.Total; got != 1+2*each {
		t.Errorf("everybody’s: got %d, want %d", got, 1+2*each)
	}

	// Another user has taps of his own, and the same total.
	bob := newBrowser(t)
	bob.login(p, "bob")
	b := bob.open(p)
	b.tap()
	b.waitFor(1)
	one.waitForTotal(2 + 2*each)
	ada.wantMe(p, "ada", 1+2*each)

	p.Interrupt(os.Interrupt)
	p = exampletest.Start(t, "DATABASE_URL="+dsn)
	ada.wantMe(p, "ada", 1+2*each)
	again := ada.open(p)
	again.tap()
	again.waitFor(2 + 2*each)
}

// A browser that taps and leaves at once has tapped.
func TestATapBeforeLeavingCounts(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn)
	ada := newBrowser(t)
	ada.login(p, "ada")
	s := ada.open(p)
	for range 5 {
		s.tap()
	}
	must(t, s.conn.Close(websocket.StatusGoingAway, ""))
	p.Interrupt(os.Interrupt) // which waits for the socket's last save
	ada.wantMe(exampletest.Start(t, "DATABASE_URL="+dsn), "ada", 5)
}

func TestALogoutElsewhereClosesTheSocket(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn)
	for _, tt := range []struct {
		name  string
		end   func(ada browser)
		after func(s *socket)
		code  websocket.StatusCode
		why   string
	}{
		{"logout", func(ada browser) { ada.Post(p.URL+"/logout", nil).Want(t, 200, "Log in") }, func(*socket) {}, websocket.StatusPolicyViolation, "logged out"},
		{"tap after logout", func(ada browser) { ada.Post(p.URL+"/logout", nil).Want(t, 200, "Log in") }, func(s *socket) { // which may be closed already
			_ = s.conn.Write(s.t.Context(), websocket.MessageText, []byte("tap"))
		}, websocket.StatusPolicyViolation, "logged out"},
		{"login again", func(ada browser) { ada.login(p, "ada") }, func(*socket) {}, websocket.StatusServiceRestart, "logged in again"}, // a renewal: the page comes back with the new cookie
	} {
		t.Run(tt.name, func(t *testing.T) {
			ada := newBrowser(t)
			ada.login(p, "ada")
			one, two := ada.open(p), ada.open(p)
			one.waitFor(0)
			two.waitFor(0)
			tt.end(ada)
			for _, s := range []*socket{one, two} {
				tt.after(s)
				s.wantClosed(tt.code, tt.why)
			}
			if tt.code == websocket.StatusServiceRestart {
				ada.wantMe(p, "ada", 0)
			} else {
				ada.Get(p.URL+"/me").Want(t, 401)
			}
		})
	}
	if got := exampletest.Rows(t, dsn); got == 0 || got > 3 {
		t.Errorf("got %d rows, want those of the last case alone", got)
	}
	p.WantNotInLog("level=ERROR")
	p.WantNotInLog(exampletest.Secret, exampletest.Password(t, dsn))
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	p := exampletest.Start(t, "DATABASE_URL="+dsn)
	ada, anonymous, forged := newBrowser(t), newBrowser(t), newBrowser(t)
	ada.login(p, "ada")
	forged.SetCookie("forged")
	port := p.URL[strings.LastIndex(p.URL, ":"):]
	for _, tt := range []struct {
		name    string
		browser browser
		origin  string
		code    int
	}{
		{"this site", ada, p.URL, 101},
		{"no browser", ada, "", 101},
		{"another site", ada, "https://evil.example", 403},
		{"another port", ada, "http://127.0.0.1:1", 403},
		{"another name", ada, "http://localhost" + port, 403},
		{"a page without a site", ada, "null", 403},
		{"not logged in", anonymous, p.URL, 401},
		{"forged cookie", forged, p.URL, 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, res, err := tt.browser.dial(t.Context(), p, tt.origin)
			if conn != nil {
				defer conn.CloseNow()
			}
			if res == nil {
				t.Fatal(err)
			}
			if res.StatusCode != tt.code || res.Proto != "HTTP/1.1" {
				t.Errorf("got %d by %s, want %d by HTTP/1.1", res.StatusCode, res.Proto, tt.code)
			}
			if res.Header.Get("Set-Cookie") != "" {
				t.Error("got a cookie")
			}
		})
	}
	if got := exampletest.Rows(t, dsn); got != 1 {
		t.Errorf("got %d rows, want ada’s", got)
	}
}

func TestMessagesThatAreNone(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	ada := newBrowser(t)
	ada.login(p, "ada")
	for _, tt := range []struct {
		name    string
		kind    websocket.MessageType
		message string
		code    websocket.StatusCode
	}{
		{"other words", websocket.MessageText, "tip", websocket.StatusUnsupportedData},
		{"nothing", websocket.MessageText, "", websocket.StatusUnsupportedData},
		{"bytes", websocket.MessageBinary, "tap", websocket.StatusUnsupportedData},
		{"too much", websocket.MessageText, strings.Repeat("tap", 100), websocket.StatusMessageTooBig},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := ada.open(p)
			s.t = t
			must(t, s.conn.Write(t.Context(), tt.kind, []byte(tt.message)))
			s.wantClosed(tt.code, "")
		})
	}
	ada.wantMe(p, "ada", 0)
}

// An outage closes no socket that only waits. One that cannot save says so, and
// the browser comes back; nobody is logged out.
func TestAnOutageIsNoLogout(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgtest.Options{})
	p := exampletest.Start(t, "DATABASE_URL="+server.URL())
	ada := newBrowser(t)
	ada.login(p, "ada")
	taps, waits := ada.open(p), ada.open(p)
	taps.tap()
	taps.waitFor(1)
	waits.waitFor(1)
	must(t, server.Stop(t.Context(), "immediate"))
	taps.tap()
	taps.wantClosed(websocket.StatusTryAgainLater, "not saved")
	if _, res, err := ada.dial(t.Context(), p, p.URL); err == nil || res == nil || res.StatusCode != 503 {
		t.Errorf("handshake in an outage: got %v, want 503", err)
	}
	must(t, server.Start(t.Context()))
	taps = ada.openWhenBack(p)
	taps.tap()
	taps.waitFor(2)
	waits.waitFor(2)
}

func TestShutdownClosesTheSockets(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	ada := newBrowser(t)
	ada.login(p, "ada")
	s := ada.open(p)
	s.waitFor(0)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.wantClosed(websocket.StatusServiceRestart, "restarting")
	}()
	p.Interrupt(syscall.SIGTERM)
	<-closed
	p.WantNotInLog("cut off")
}

func TestThePage(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	newBrowser(t).Get(p.URL+"/").Want(t, 200, `name="user"`)
	newBrowser(t).Get(p.URL+"/tap.js").Want(t, 200, "WebSocket")
	ada := newBrowser(t)
	ada.login(p, "<b>ada")
	ada.Get(p.URL+"/").Want(t, 200, "Hello, &lt;b&gt;ada", "/tap.js", `<strong id="taps">0</strong>`)
	for _, tt := range []struct {
		name, user string
		want       string
	}{
		{"no name", " ", "Please tell us your name."},
		{"long name", strings.Repeat("é", 41), "Up to 40 characters"},
		{"not UTF-8", "\xff", "cannot read"},
	} {
		t.Run(tt.name, func(t *testing.T) { ada.Post(p.URL+"/login", url.Values{"user": {tt.user}}).Want(t, 422, tt.want) })
	}
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

func (b browser) wantMe(p *exampletest.Program, name string, taps int) {
	b.T.Helper()
	res := b.Get(p.URL + "/me")
	var me struct {
		User string
		Taps int
	}
	if err := json.Unmarshal([]byte(res.Body), &me); err != nil || me.User != name || me.Taps != taps {
		b.T.Errorf("/me: got %d %s, want %s with %d taps", res.Code, res.Body, name, taps)
	}
}

// dial opens a socket as a page of an origin does.
func (b browser) dial(ctx context.Context, p *exampletest.Program, origin string) (*websocket.Conn, *http.Response, error) {
	h := http.Header{}
	if origin != "" {
		h.Set("Origin", origin)
	}
	return websocket.Dial(ctx, p.URL+"/socket", &websocket.DialOptions{HTTPClient: b.Client, HTTPHeader: h})
}

// socket is one that the program has accepted.
type socket struct {
	t     *testing.T
	conn  *websocket.Conn
	state struct{ Taps, Total int }
}

func (b browser) open(p *exampletest.Program) *socket {
	b.T.Helper()
	conn, _, err := b.dial(b.T.Context(), p, p.URL)
	must(b.T, err)
	b.T.Cleanup(func() { _ = conn.CloseNow() })
	return &socket{t: b.T, conn: conn}
}

// openWhenBack opens one after an outage: while another socket is the one that looks
// whether the database is back, others are refused.
func (b browser) openWhenBack(p *exampletest.Program) *socket {
	b.T.Helper()
	for end := time.Now().Add(exampletest.Deadline); ; <-time.After(50 * time.Millisecond) {
		conn, res, err := b.dial(b.T.Context(), p, p.URL)
		switch {
		case err == nil:
			b.T.Cleanup(func() { _ = conn.CloseNow() })
			return &socket{t: b.T, conn: conn}
		case res == nil || res.StatusCode != http.StatusServiceUnavailable || time.Now().After(end):
			b.T.Fatalf("handshake after an outage: got %v, want a socket", err)
		}
	}
}

// tap may be called by other goroutines than the test's.
func (s *socket) tap() {
	if err := s.conn.Write(s.t.Context(), websocket.MessageText, []byte("tap")); err != nil {
		s.t.Errorf("tap: %v", err)
	}
}

// next reads the next state.
func (s *socket) next() error {
	ctx, cancel := context.WithTimeout(s.t.Context(), exampletest.Deadline)
	defer cancel()
	_, message, err := s.conn.Read(ctx)
	if err != nil {
		return err
	}
	return json.Unmarshal(message, &s.state)
}

// waitFor waits until so many taps are saved.
func (s *socket) waitFor(taps int) {
	s.t.Helper()
	for first := true; first || s.state.Taps < taps; first = false {
		must(s.t, s.next())
	}
	if s.state.Taps != taps {
		s.t.Errorf("got %d taps, want %d", s.state.Taps, taps)
	}
}

func (s *socket) waitForTotal(total int) {
	s.t.Helper()
	for s.state.Total < total {
		must(s.t, s.next())
	}
}

// wantClosed wants the program to close the socket, after whatever it still says.
// It may be called by other goroutines than the test's.
func (s *socket) wantClosed(code websocket.StatusCode, reason string) {
	s.t.Helper()
	var err error
	for err == nil {
		err = s.next()
	}
	var closed websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != code || reason != "" && closed.Reason != reason {
		s.t.Errorf("got %v, want close code %d %q", err, code, reason)
	}
}
