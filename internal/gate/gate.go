// Package gate is a ResponseWriter that lets nothing out before a commit. It
// asks its [Hooks] before the final header leaves, whichever way that happens:
// WriteHeader, Write, Flush, ReadFrom, Hijack or the handler's return. Where the
// commit fails, another answer takes the place of the handler's, and nothing of
// the handler's headers, body or trailers gets out; where it fails after the
// first byte, the response is aborted and never looks complete.
//
// It knows no session: what is committed, and what is answered, is up to the
// hooks.
package gate

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"reflect"
	"runtime"
	"strings"
	"sync"
)

// Hooks say what happens at the gate. They are called by the goroutine that
// writes the response.
type Hooks interface {
	// Commit saves what is to be saved and adds headers to w. It is called
	// before the final header leaves, once unless it panics: such a call has
	// committed nothing. An error refuses the response. hijacked says that no
	// header follows.
	Commit(w http.ResponseWriter, hijacked bool) error

	// Answer answers a refused request, on a header map as it was when the
	// request came in. It may panic.
	Answer(w http.ResponseWriter, r *http.Request, err error)

	// AnswerPlainly answers where Answer has not.
	AnswerPlainly(w http.ResponseWriter, r *http.Request, err error)

	// Settle saves what came after the first byte, when the handler has
	// returned. An error aborts the response.
	Settle() error

	// Panicked may add headers to w when the handler has panicked before its
	// header left: for whoever recovers and answers in its place.
	Panicked(w http.ResponseWriter)
}

// Gate is one response. It is used once, by [Gate.Serve]; keep it as a value in
// whatever lives as long as the request, and the gate costs no allocation.
type Gate struct{ writer hijackWriter }

// Serve calls next with a writer over w, which can be hijacked where w can.
func (g *Gate) Serve(w http.ResponseWriter, r *http.Request, next http.Handler, hooks Hooks) {
	g.writer.raw, g.writer.r, g.writer.hooks = w, r, hooks
	returned := false
	defer func() {
		switch {
		case returned:
			defer func() { // where the commit panics
				if g.writer.failed == nil && !g.writer.committed {
					hooks.Panicked(w)
				}
			}()
			g.writer.end()
		case g.writer.failed == nil && !g.writer.committed:
			hooks.Panicked(w)
		case g.writer.answered:
			g.writer.restoreHeader()
			// A reverse proxy aborts when its writes are refused; here the
			// answer is complete, and the browser is to see it. What the error
			// handler itself panics with passes.
			if v := recover(); v != nil && v != http.ErrAbortHandler { // as net/http compares it
				panic(v)
			}
		}
	}()
	next.ServeHTTP(g.writer.outer(), r)
	returned = true
}

// Request returns the request that the handler got, nil before Serve. A router may
// be writing its Pattern: see Serving.
func (g *Gate) Request() *http.Request { return g.writer.r }

// Serving reports whether the calling goroutine serves a request, and so may read
// what routers write into it: Serve has called what has called this. A middleware that
// leaves the handler to another goroutine and goes on must have given it a copy of the
// request, or the two race in net/http already.
func Serving() bool {
	pcs := make([]uintptr, 32)
	for skip := 2; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs)
		if n == 0 {
			return false
		}
		frames := runtime.CallersFrames(pcs[:n])
		for more := true; more; {
			var f runtime.Frame
			if f, more = frames.Next(); f.Func != nil && f.Func.Entry() == serveEntry() {
				return true
			}
		}
	}
}

// serveEntry is where the code of Serve begins.
var serveEntry = sync.OnceValue(func() uintptr { return reflect.ValueOf((*Gate).Serve).Pointer() })

// Bottom returns the writer at the bottom of those that unwrap: net/http looks for
// some of its own there, by methods that nobody else can have.
func Bottom(w http.ResponseWriter) http.ResponseWriter {
	for {
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = u.Unwrap()
	}
}

// writer is the ResponseWriter that a handler gets. It commits before the final
// header leaves, whichever way that happens, and lets nothing through once a
// commit has failed.
type writer struct {
	raw       http.ResponseWriter
	hooks     Hooks
	r         *http.Request // as the handler got it
	entry     http.Header   // the header map before the handler had it; once refused, as answered
	shown     bool          // the handler has had it
	committed bool          // the commit before the final header was done
	failed    error         // and went wrong; the error handler answers
	answered  bool          // and has come back
}

// hijackWriter is a writer over one that can be hijacked.
type hijackWriter struct{ writer }

// outer returns the writer with a Hijack method where the chain below has one.
func (w *hijackWriter) outer() http.ResponseWriter {
	if supports[http.Hijacker](w.raw) {
		return w
	}
	return &w.writer
}

// supports reports whether w or a writer it wraps is a T, as
// [http.ResponseController] looks for it.
func supports[T any](w http.ResponseWriter) bool {
	for {
		switch t := w.(type) {
		case T:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			return false
		}
	}
}

// Unwrap is for [http.ResponseController]. What commits is found here first.
func (w *writer) Unwrap() http.ResponseWriter { return w.raw }

// Header keeps a copy before the handler first gets the map. A request that
// comes without that call is spared net/http's own copy as well.
func (w *writer) Header() http.Header {
	h := w.raw.Header()
	if !w.shown {
		w.shown = true
		if len(h) > 0 {
			w.entry = h.Clone()
		}
	}
	return h
}

func (w *writer) WriteHeader(code int) {
	informational := code >= 100 && code <= 199 && code != http.StatusSwitchingProtocols
	if informational || code < 100 || code > 999 { // the last two panic
		if w.failed == nil {
			w.raw.WriteHeader(code)
		}
		return
	}
	if w.commit() == nil {
		w.raw.WriteHeader(code)
	}
}

func (w *writer) Write(b []byte) (int, error) {
	if err := w.commit(); err != nil {
		return 0, err
	}
	return w.raw.Write(b)
}

func (w *writer) WriteString(s string) (int, error) {
	if err := w.commit(); err != nil {
		return 0, err
	}
	return io.WriteString(w.raw, s)
}

// ReadFrom keeps sendfile working.
func (w *writer) ReadFrom(src io.Reader) (int64, error) {
	if err := w.commit(); err != nil {
		return 0, err
	}
	if rf, ok := w.raw.(io.ReaderFrom); ok {
		return rf.ReadFrom(src)
	}
	return io.Copy(struct{ io.Writer }{w.raw}, src)
}

func (w *writer) Flush() { _ = w.FlushError() }

func (w *writer) FlushError() error {
	if w.failed == nil && !supports[http.Flusher](w.raw) && !supports[interface{ FlushError() error }](w.raw) {
		return http.ErrNotSupported
	}
	if err := w.commit(); err != nil {
		// The error handler's answer leaves, or it would wait until a handler that
		// streams and looks at no error has ended. Without what the handler has put
		// into the map since: a writer outside may read it only now.
		w.restoreHeader()
		_ = http.NewResponseController(w.raw).Flush()
		return err
	}
	return http.NewResponseController(w.raw).Flush()
}

// CloseNotify is for those who still ask for it, as Gin's Context.Stream does
// without looking whether it is there.
func (w *writer) CloseNotify() <-chan bool {
	gone := make(chan bool, 1)
	context.AfterFunc(w.r.Context(), func() { gone <- true })
	return gone
}

// Hijack commits, then takes over the connection. A cookie that is due cannot
// be sent any more unless the handler has written its header first.
func (w *hijackWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if err := w.commitOnce(true); err != nil {
		return nil, nil, err
	}
	return http.NewResponseController(w.raw).Hijack()
}

// commit commits, once. After it has failed it returns that error for ever.
func (w *writer) commit() error { return w.commitOnce(false) }

func (w *writer) commitOnce(hijacked bool) error {
	if w.committed {
		return w.failed
	}
	err := w.hooks.Commit(w.raw, hijacked)
	w.committed = true // not earlier: a store that panics has not committed
	if err != nil {
		w.fail(err)
	}
	return err
}

// end is called when the handler has returned.
func (w *writer) end() {
	switch {
	case w.failed != nil:
		w.restoreHeader()
	case !w.committed:
		_ = w.commit() // fail has answered
	case w.hooks.Settle() != nil:
		// What was sent cannot be taken back, and must not look complete.
		panic(http.ErrAbortHandler)
	}
}

// fail answers with the error handler. Where that panics, the default answer
// comes before the panic: a middleware of the handler's may recover, and
// net/http would call a response without any a success.
func (w *writer) fail(err error) {
	w.failed = err
	w.restoreHeader()
	a := &hijackAnswer{answer{ResponseWriter: w.raw}}
	defer func() {
		if !a.wrote {
			w.hooks.AnswerPlainly(a.outer(), w.r, err)
		}
		// A writer outside may read the map only later, as
		// http.TimeoutHandler's does.
		w.entry, w.shown = w.raw.Header().Clone(), true
	}()
	a.Header().Set("Cache-Control", "no-store")
	w.hooks.Answer(a.outer(), w.r, err)
	w.answered = true
}

// restoreHeader takes back what the handler has put into the header map,
// trailers included.
func (w *writer) restoreHeader() {
	if !w.shown {
		return
	}
	h := w.raw.Header()
	clear(h)
	for k, v := range w.entry {
		h[k] = append([]string(nil), v...)
	}
}

// answer is the ResponseWriter of the error handler. It keeps the answer out
// of caches.
type answer struct {
	http.ResponseWriter
	wrote bool
}

func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answer) WriteHeader(code int) {
	final := code >= 200 && !a.wrote
	if final {
		ForbidCaching(a.Header())
		a.Header().Set("Cache-Control", "no-store")
	}
	a.ResponseWriter.WriteHeader(code) // which panics if there is no such status
	a.wrote = a.wrote || final
}

// hijackAnswer is an answer over a writer that can be hijacked.
type hijackAnswer struct{ answer }

// outer returns the writer with a Hijack method where the chain below has one.
func (a *hijackAnswer) outer() http.ResponseWriter {
	if supports[http.Hijacker](a.ResponseWriter) {
		return a
	}
	return &a.answer
}

// Hijack leaves the answer to whoever takes the connection.
func (a *hijackAnswer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(a.ResponseWriter).Hijack()
	a.wrote = a.wrote || err == nil
	return conn, buf, err
}

func (a *answer) Flush() { _ = a.FlushError() }

func (a *answer) FlushError() error {
	if !a.wrote {
		a.WriteHeader(http.StatusServiceUnavailable)
	}
	return http.NewResponseController(a.ResponseWriter).Flush()
}

func (a *answer) Write(b []byte) (int, error) {
	if !a.wrote {
		a.WriteHeader(http.StatusServiceUnavailable)
	}
	return a.ResponseWriter.Write(b)
}

// ForbidCaching drops what overrides Cache-Control in a shared cache: targeted
// fields, whose names end alike (RFC 9213, section 2), and what they replace. A
// name that a handler has put into the map by itself, in any case, leaves as it
// stands there, and caches do not look at case (RFC 9110, section 5.1).
func ForbidCaching(h http.Header) {
	for name := range h {
		switch canonical := http.CanonicalHeaderKey(name); {
		case strings.HasSuffix(canonical, "-Cache-Control"), canonical == "Surrogate-Control", canonical == "X-Accel-Expires",
			canonical == "Cache-Control" && name != canonical:
			delete(h, name)
		}
	}
}

// HeaderHas reports whether the list-valued header name, in any case, has a
// member token, whatever its case. A token that ends in = stands for any
// argument; without, it does not: private="X" (RFC 9111, section 5.2.2.7)
// protects only that field, and private="X, private" no more.
func HeaderHas(h http.Header, name, token string) bool {
	for key, lines := range h {
		if len(key) == len(name) && strings.EqualFold(key, name) && listHas(lines, token) {
			return true
		}
	}
	return false
}

func listHas(lines []string, token string) bool {
	for _, line := range lines {
		quoted := false
		for member := range strings.SplitSeq(line, ",") {
			inside := quoted
			if strings.Count(member, `"`)%2 == 1 {
				quoted = !quoted
			}
			if inside {
				continue
			}
			member = strings.TrimSpace(member)
			if strings.HasSuffix(token, "=") && len(member) > len(token) {
				member = member[:len(token)]
			}
			if strings.EqualFold(member, token) {
				return true
			}
		}
	}
	return false
}
