package session

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
)

// writer is the ResponseWriter that a handler gets. It commits the session
// before the final header leaves, whichever way that happens, and lets nothing
// through once a commit has failed.
type writer struct {
	raw       http.ResponseWriter
	x         *exchange
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
	if !w.committed {
		if s := w.x.begun(true); s != nil {
			s.headerGone()
		}
	}
	if err := w.commit(); err != nil {
		return nil, nil, err
	}
	return http.NewResponseController(w.raw).Hijack()
}

// commit saves the session and adds its headers, once. After it has failed it
// returns that error for ever.
func (w *writer) commit() error {
	if w.committed {
		return w.failed
	}
	s := w.x.begun(true)
	if s == nil {
		w.committed = true
		return nil
	}
	err := s.commit(true)
	w.committed = true // not earlier: a store that panics has not committed
	if err != nil {
		w.fail(err)
		return err
	}
	s.addHeaders(w.raw)
	return nil
}

// end is called when the handler has returned.
func (w *writer) end() {
	if w.failed != nil {
		w.restoreHeader()
		return
	}
	if !w.committed {
		_ = w.commit() // fail has answered
		return
	}
	s := w.x.begun(true)
	if s == nil {
		return
	}
	known := s.Err()
	err := s.settle()
	if err == nil {
		return
	}
	if errors.Is(err, ErrHeaderSent) {
		if known == nil { // else it was logged when it happened
			s.log(slog.LevelError, "session: not saved", err)
		}
		return
	}
	s.log(slog.LevelError, "session: not saved after the first byte, response aborted", err)
	// What was sent cannot be taken back, and must not look complete.
	panic(http.ErrAbortHandler)
}

// fail answers with the error handler. Where that panics, the default answer
// comes before the panic: a middleware of the handler's may recover, and
// net/http would call a response without any a success.
func (w *writer) fail(err error) {
	w.failed = err
	w.restoreHeader()
	level := slog.LevelError
	if errors.Is(err, ErrDestroyed) {
		level = slog.LevelInfo
	}
	w.x.session.log(level, "session: request refused", err)
	w.x.session.closeIO()
	a := &answer{ResponseWriter: w.raw}
	defer func() {
		if !a.wrote {
			answerError(a, w.r, err)
		}
		// A writer outside may read the map only later, as
		// http.TimeoutHandler's does.
		w.entry, w.shown = w.raw.Header().Clone(), true
	}()
	a.Header().Set("Cache-Control", "no-store")
	w.x.m.cfg.ErrorHandler(a, w.r, err)
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
	if code >= 200 && !a.wrote {
		a.wrote = true
		forbidCaching(a.Header())
		a.Header().Set("Cache-Control", "no-store")
	}
	a.ResponseWriter.WriteHeader(code)
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

// addHeaders adds what the session has to say to the final header. It never
// lets a cache keep a session cookie, or a page that depends on one without
// saying so.
func (s *Session) addHeaders(w http.ResponseWriter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.used {
		return
	}
	h := w.Header()
	if !headerHas(h, "Vary", "cookie") && !headerHas(h, "Vary", "*") {
		h.Add("Vary", "Cookie")
	}
	cookie := s.header(headerHas(h, "Cache-Control", "public") || headerHas(h, "Cache-Control", "s-maxage="))
	if cookie == "" {
		return
	}
	h.Add("Set-Cookie", cookie)
	if !headerHas(h, "Cache-Control", "private") && !headerHas(h, "Cache-Control", "no-store") {
		h.Set("Cache-Control", "no-store")
	}
	forbidCaching(h)
}

// forbidCaching drops what overrides Cache-Control in a shared cache: targeted
// fields, whose names end alike (RFC 9213, section 2), and what they replace.
func forbidCaching(h http.Header) {
	for name := range h {
		if strings.HasSuffix(name, "-Cache-Control") {
			delete(h, name)
		}
	}
	h.Del("Surrogate-Control")
	h.Del("X-Accel-Expires")
}

// headerHas reports whether the list-valued header name has a member token,
// whatever its case. A token that ends in = stands for any argument; without,
// it does not: private="X" (RFC 9111, section 5.2.2.7) protects only that field,
// and private="X, private" no more.
func headerHas(h http.Header, name, token string) bool {
	for _, line := range h[name] {
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
