// Package orders runs the same application in every framework of docs/adapters.md,
// with what lies around a session's handler in every order: what does the browser
// get, and what do the logs say?
package orders

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzhttp"

	"github.com/pgsession/session"
	"github.com/pgsession/session/tests/adapters/check"
)

// Order says which of the usual middleware lies outside of the session's handler.
// The rest lies inside. On either side the order is that of the fields.
type Order struct {
	Log, Recover, Timeout, Gzip bool
	GzipFirst                   bool // before Timeout, where both are on one side
}

// All is every order.
func All() (all []Order) {
	for n := range 32 {
		o := Order{n&1 != 0, n&2 != 0, n&4 != 0, n&8 != 0, n&16 != 0}
		if !o.GzipFirst || o.Timeout == o.Gzip {
			all = append(all, o)
		}
	}
	return all
}

func (o Order) String() string {
	out, in := Split(o, [4]string{"log", "recover", "timeout", "gzip"})
	return strings.Join(slices.Concat(out, []string{"sessions"}, in), ",")
}

// Split returns what lies outside and what inside.
func Split[M any](o Order, all [4]M) (outside, inside []M) {
	outer := [4]bool{o.Log, o.Recover, o.Timeout, o.Gzip}
	sequence := [4]int{0, 1, 2, 3}
	if o.GzipFirst {
		sequence = [4]int{0, 1, 3, 2}
	}
	for _, i := range sequence {
		if outer[i] {
			outside = append(outside, all[i])
		} else {
			inside = append(inside, all[i])
		}
	}
	return outside, inside
}

const (
	user    = session.Key[int]("user")
	changes = session.Key[int]("changes")
)

// Kit is what an application of a framework is made of, and what it tells.
type Kit struct {
	Sessions *session.Manager
	Order    Order
	Plain    bool // without sessions, to compare
	Handlers bool // set by an application whose timeout goes on without its handler

	store    *check.Store
	seen     int           // by the access log
	flushed  bool          // the first piece has left for the browser
	pieces   bool          // before the handler has written its second
	late     chan struct{} // closed when the request's time is over
	answered chan struct{} // closed when the browser has its answer
	ended    chan struct{} // closed when the session's handler has come back
	log      strings.Builder
	mu       sync.Mutex
}

// Seen is for an access log.
func (k *Kit) Seen(code int) { k.seen = code }

// Attach is Sessions.Handler.
func (k *Kit) Attach(next http.Handler) http.Handler {
	h := k.Sessions.Handler(next)
	if k.Plain {
		h = next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(k.ended)
		h.ServeHTTP(w, r)
	})
}

// Change changes the session that is found in ctx.
func (k *Kit) Change(ctx context.Context) {
	if k.Plain {
		return
	}
	changes.Update(session.From(ctx), func(n int) int { return n + 1 })
}

// Slow comes back when the request's time is over.
func (k *Kit) Slow(ctx context.Context) error {
	close(k.late)
	<-ctx.Done()
	if k.Handlers {
		<-k.answered
	}
	return ctx.Err()
}

// Stream writes two pieces, and flushes the first.
func (k *Kit) Stream(w http.ResponseWriter) {
	_, _ = io.WriteString(w, "one ")
	_ = http.NewResponseController(w).Flush()
	k.pieces = k.flushed
	_, _ = io.WriteString(w, "two")
}

const filler = "<p>This page is not here, and it takes a lot of words to say so.</p>\n"

// ErrorPage is a page of 7 KB that says who is logged in.
func (k *Kit) ErrorPage(ctx context.Context) string {
	who := "no session"
	if s, ok := session.Lookup(ctx); ok {
		who = "nobody"
		if id, ok := user.Get(s); ok {
			who = fmt.Sprint("user ", id)
		}
	}
	return "<html>" + who + "\n" + strings.Repeat(filler, 100) + "</html>"
}

// Page is what the other handlers say.
const Page = "page"

// Around makes middleware of net/http, for frameworks that have none of their own
// on that side.
func (k *Kit) Around() [4]func(http.Handler) http.Handler {
	return [4]func(http.Handler) http.Handler{k.accessLog, recoverer, func(next http.Handler) http.Handler {
		k.Handlers = true
		return http.TimeoutHandler(next, time.Minute, "timeout")
	}, func(next http.Handler) http.Handler { return gzhttp.GzipHandler(next) }}
}

// Chain puts middleware around h, the first outermost.
func Chain(h http.Handler, m []func(http.Handler) http.Handler) http.Handler {
	for _, m := range slices.Backward(m) {
		h = m(h)
	}
	return h
}

func (k *Kit) accessLog(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := &statusWriter{ResponseWriter: w}
		defer func() { k.Seen(s.code) }()
		next.ServeHTTP(s, r)
	})
}

type statusWriter struct {
	http.ResponseWriter
	code int
}

func (w *statusWriter) Flush()                      { _ = http.NewResponseController(w.ResponseWriter).Flush() }
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *statusWriter) WriteHeader(code int) {
	if w.code == 0 {
		w.code = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

func recoverer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v == http.ErrAbortHandler {
				panic(v)
			} else if v != nil {
				http.Error(w, "recovered", http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// errPanic is what handlers panic with.
var errPanic = errors.New("the handler's")

// Handlers are the application for routers of net/http's handlers; "" is for what
// is not found.
func Handlers(k *Kit) map[string]http.HandlerFunc {
	changed := func(h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			k.Change(r.Context())
			h(w, r)
		}
	}
	fails := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			page := k.ErrorPage(r.Context())
			w.WriteHeader(code)
			_, _ = io.WriteString(w, page)
		}
	}
	return map[string]http.HandlerFunc{
		"/page":   changed(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, Page) }),
		"/fails":  changed(fails(http.StatusTeapot)),
		"/panic":  changed(func(http.ResponseWriter, *http.Request) { panic(errPanic) }),
		"/slow":   changed(func(_ http.ResponseWriter, r *http.Request) { _ = k.Slow(r.Context()) }),
		"/stream": changed(func(w http.ResponseWriter, _ *http.Request) { k.Stream(w) }),
		"/late": func(w http.ResponseWriter, r *http.Request) {
			k.Stream(w)
			k.Change(r.Context())
		},
		"": fails(http.StatusNotFound),
	}
}

// Result is what came of one request.
type Result struct {
	Code  int
	Body  string // in a word or two
	Saved int    // changes
	Seen  int    // by the access log
	Log   string // the library's own
}

func (r Result) String() string {
	return fmt.Sprintf("%d %s; saved %d; access log %d; log: %s", r.Code, r.Body, r.Saved, r.Seen, r.Log)
}

// App makes an application of a framework.
type App func(*Kit) http.Handler

// Run asks an application for path, in an order, as a browser that is logged in.
func Run(t *testing.T, app App, o Order, path string) Result { return run(t, app, o, path, false) }

// RunPlain is Run without sessions.
func RunPlain(t *testing.T, app App, o Order, path string) Result { return run(t, app, o, path, true) }

func run(t *testing.T, app App, o Order, path string, plain bool) Result {
	t.Helper()
	k := &Kit{Order: o, Plain: plain, store: &check.Store{MemoryStore: session.NewMemoryStore()}}
	k.late, k.answered, k.ended = make(chan struct{}), make(chan struct{}), make(chan struct{})
	var err error
	k.Sessions, err = session.New(k.store, session.Config{
		Secret: "for tests only: 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A", DisablePrune: true, Logger: slog.New(messages{k}),
	})
	if err != nil {
		t.Fatal(err)
	}
	h := app(k)
	cookie := k.visit(t)
	k.log.Reset()
	switch path, how, _ := strings.Cut(path, "?"); {
	case how == "down":
		k.store.Down.Store(true)
	case path == "/late":
		k.store.ReadOnly.Store(true)
	}
	res := k.ask(t, h, path, cookie)
	k.store.Down.Store(false)
	k.store.ReadOnly.Store(false)
	res.Saved = k.saved(cookie)
	res.Seen = k.seen
	k.mu.Lock()
	defer k.mu.Unlock()
	res.Log = k.log.String()
	return res
}

func (k *Kit) visit(t *testing.T) string {
	t.Helper()
	w := httptest.NewRecorder()
	k.Sessions.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		user.Set(session.From(r.Context()), 42)
	})).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	return w.Result().Cookies()[0].String()
}

func (k *Kit) saved(cookie string) (n int) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Cookie", cookie)
	k.Sessions.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		n, _ = changes.Get(session.From(r.Context()))
	})).ServeHTTP(httptest.NewRecorder(), r)
	return n
}

// ask sends a request to h on a real server, below everything of which lies a
// context that the handler lets end, and a writer that notes when a flush arrives.
func (k *Kit) ask(t *testing.T, h http.Handler, path, cookie string) Result {
	t.Helper()
	served := make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(served)
		h.ServeHTTP(&flushWriter{statusWriter{ResponseWriter: w}, k}, r.WithContext(lateContext{r.Context(), k.late}))
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Start()
	defer server.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", cookie)
	req.Header.Set("Accept-Encoding", "gzip")
	client := &http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}, Timeout: time.Minute}
	res, err := client.Do(req)
	if err != nil {
		close(k.answered)
		<-served
		return Result{Body: "cut off"}
	}
	defer res.Body.Close()
	body, err := decode(res)
	close(k.answered)
	<-served
	if k.Handlers {
		<-k.ended
	}
	return Result{Code: res.StatusCode, Body: k.describe(body, err)}
}

// errNotGzip is a body that is not what its Content-Encoding says.
var errNotGzip = errors.New("not gzip")

func decode(res *http.Response) (string, error) {
	b, err := io.ReadAll(res.Body)
	if err != nil || res.Header.Get("Content-Encoding") != "gzip" {
		return string(b), err
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return string(b), errNotGzip
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		return "", errNotGzip
	}
	return string(plain), nil
}

// describe says in a few words what the browser shows.
func (k *Kit) describe(body string, err error) string {
	switch page, ok := strings.CutSuffix(body, strings.Repeat(filler, 100)+"</html>"); {
	case errors.Is(err, errNotGzip) && body == "":
		return "empty, called gzip"
	case errors.Is(err, errNotGzip):
		return "broken gzip"
	case err != nil:
		return "cut off"
	case ok:
		return "error page, " + strings.TrimSpace(strings.TrimPrefix(page, "<html>"))
	case body == "one two" && k.pieces:
		return "in pieces"
	case body == "one two":
		return "at once"
	case body == "":
		return "empty"
	}
	return strings.TrimSpace(body)
}

// lateContext is over when done is closed.
type lateContext struct {
	context.Context
	done chan struct{}
}

func (c lateContext) Done() <-chan struct{} { return c.done }

func (c lateContext) Err() error {
	select {
	case <-c.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// flushWriter notes a flush of what was written.
type flushWriter struct {
	statusWriter
	k *Kit
}

func (w *flushWriter) FlushError() error {
	if w.code != 0 {
		w.k.flushed = true
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *flushWriter) Flush() { _ = w.FlushError() }

// messages is a log of which the messages are kept.
type messages struct{ k *Kit }

func (messages) Enabled(context.Context, slog.Level) bool { return true }
func (m messages) WithAttrs([]slog.Attr) slog.Handler     { return m }
func (m messages) WithGroup(string) slog.Handler          { return m }

func (m messages) Handle(_ context.Context, r slog.Record) error {
	m.k.mu.Lock()
	defer m.k.mu.Unlock()
	if r.Level >= slog.LevelInfo {
		m.k.log.WriteString(r.Message)
	}
	return nil
}
