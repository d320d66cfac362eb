package measure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// gates hold requests in the middle of their handlers, so that the order of two
// that overlap is not left to luck.
type gates struct {
	url string // where Express asks
	srv *http.Server

	mu   sync.Mutex
	last int
	open map[string]*gate
}

type gate struct {
	enter   sync.Once
	entered chan struct{}
	release chan struct{}
}

func newGates() (*gates, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := &gates{url: "http://" + ln.Addr().String() + "/?gate=", open: map[string]*gate{}}
	g.srv = &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { g.wait(r) })}
	go func() { _ = g.srv.Serve(ln) }()
	return g, nil
}

func (g *gates) close() { _ = g.srv.Close() }

// add makes a gate.
func (g *gates) add() (token string, made *gate) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last++
	token, made = fmt.Sprint(g.last), &gate{entered: make(chan struct{}), release: make(chan struct{})}
	g.open[token] = made
	return token, made
}

// wait announces that the request has come to its gate, if it has one, and returns
// when the gate is opened.
func (g *gates) wait(r *http.Request) {
	g.mu.Lock()
	at := g.open[r.FormValue("gate")]
	g.mu.Unlock()
	if at == nil {
		return
	}
	at.enter.Do(func() { close(at.entered) })
	<-at.release
}

// reply is what a browser gets.
type reply struct {
	status int
	header http.Header
	body   string
	broken bool // cut off before its end
	took   time.Duration
}

// page reports whether the handler's page was in it.
func (r *reply) page() bool { return strings.Contains(r.body, "page") }

// has reports whether the page shows a value for key.
func (r *reply) has(key string) bool {
	return strings.Contains(r.body, key+"="+marker) || key == "user" && strings.Contains(r.body, "user=ada")
}

var client = &http.Client{
	Timeout:       time.Minute,
	Transport:     &http.Transport{MaxIdleConnsPerHost: 8},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// browser keeps the session cookie of one application.
type browser struct {
	app    *app
	cookie string // its value
}

func (b *browser) name() string { return cmp.Or(b.app.cookie, b.app.lib.cookie) }

// get asks for a page and keeps the cookie that comes with it.
func (b *browser) get(ctx context.Context, path string) (reply, error) {
	r, err := b.peek(ctx, path)
	if err == nil {
		b.take(&r)
	}
	return r, err
}

// peek asks for a page and leaves the cookie as it is.
func (b *browser) peek(ctx context.Context, path string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.app.url+path, nil)
	if err != nil {
		return reply{}, err
	}
	if b.cookie != "" {
		req.Header.Set("Cookie", b.name()+"="+b.cookie)
	}
	start := time.Now()
	res, err := client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return reply{status: res.StatusCode, header: res.Header, body: string(body), broken: err != nil, took: time.Since(start)}, nil
}

// take does with a reply's Set-Cookie what browsers do.
func (b *browser) take(r *reply) {
	for _, c := range (&http.Response{Header: r.header}).Cookies() {
		if c.Name != b.name() {
			continue
		}
		b.cookie = c.Value
		if c.MaxAge < 0 || !c.Expires.IsZero() && c.Expires.Before(time.Now()) {
			b.cookie = ""
		}
	}
}

// must is get for a page that has to come.
func (b *browser) must(ctx context.Context, path string) error {
	r, err := b.get(ctx, path)
	if err == nil && (r.status != http.StatusOK || !r.page()) {
		err = fmt.Errorf("%s: %s: got status %d, want the page", b.app.lib.name, path, r.status)
	}
	return err
}

// loggedIn reports whether the cookie belongs to a user.
func (b *browser) loggedIn(ctx context.Context) (bool, error) {
	r, err := b.peek(ctx, "/read")
	return r.status == http.StatusOK && r.has("user"), err
}

// held is a request that waits in the middle of its handler.
type held struct {
	gate     *gate
	answered chan struct{}
	reply    reply
	err      error
}

// hold sends a request, whose path has a query, and returns when it is in the middle
// of its handler.
func (b *browser) hold(ctx context.Context, g *gates, path string) (*held, error) {
	token, at := g.add()
	h := &held{gate: at, answered: make(chan struct{})}
	sent := *b
	go func() {
		defer close(h.answered)
		h.reply, h.err = sent.peek(ctx, path+"&gate="+token)
	}()
	select {
	case <-at.entered:
		return h, nil
	case <-h.answered:
		return nil, errors.Join(h.err, fmt.Errorf("%s: %s: got status %d before the middle of the handler", b.app.lib.name, path, h.reply.status))
	}
}

// finish lets the request go on and returns its reply, timed from here.
func (h *held) finish() (reply, error) {
	start := time.Now()
	close(h.gate.release)
	<-h.answered
	h.reply.took = time.Since(start)
	return h.reply, h.err
}
