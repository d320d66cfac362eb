package gate_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/pgsession/session/internal/gate"
)

var errCommit = errors.New("no commit")

// hooks notes the calls and fails where it is told to.
type hooks struct {
	calls         []string
	commit, later error
	panics        bool // in Answer
	silent        bool // Answer writes nothing
}

func (h *hooks) Commit(w http.ResponseWriter, hijacked bool) error {
	h.calls = append(h.calls, "commit")
	if hijacked {
		h.calls = append(h.calls, "hijacked")
	}
	if h.commit == nil {
		w.Header().Add("X-Committed", "yes")
	}
	return h.commit
}

func (h *hooks) Answer(w http.ResponseWriter, _ *http.Request, err error) {
	h.calls = append(h.calls, "answer")
	if h.panics {
		panic("answer")
	}
	if !h.silent {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

func (h *hooks) AnswerPlainly(w http.ResponseWriter, _ *http.Request, _ error) {
	h.calls = append(h.calls, "plainly")
	w.WriteHeader(http.StatusServiceUnavailable)
}

func (h *hooks) Panicked(w http.ResponseWriter) {
	h.calls = append(h.calls, "panicked")
	w.Header().Set("X-Panicked", "yes")
}

func (h *hooks) Settle() error {
	h.calls = append(h.calls, "settle")
	return h.later
}

// serve runs handler behind a gate and returns what came out, and its panic.
func serve(t *testing.T, h *hooks, handler http.HandlerFunc) (rec *httptest.ResponseRecorder, panicked any) {
	t.Helper()
	rec = httptest.NewRecorder()
	rec.Header().Set("X-Outside", "stays")
	defer func() { panicked = recover() }()
	var g gate.Gate
	g.Serve(rec, httptest.NewRequest(http.MethodGet, "/", nil), handler, h)
	return rec, nil
}

func TestCommitComesBeforeTheHeader(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"WriteHeader": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) },
		"Write":       func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")) },
		"WriteString": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "x") },
		"ReadFrom": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.(io.ReaderFrom).ReadFrom(strings.NewReader("x"))
		},
		"Flush":  func(w http.ResponseWriter, _ *http.Request) { _ = http.NewResponseController(w).Flush() },
		"return": func(http.ResponseWriter, *http.Request) {},
	} {
		h := &hooks{}
		rec, panicked := serve(t, h, handler)
		if panicked != nil || rec.Result().Header.Get("X-Committed") != "yes" {
			t.Errorf("%s: the header left without the commit's (panic: %v)", name, panicked)
		}
		want := []string{"commit", "settle"}
		if name == "return" {
			want = want[:1]
		}
		if !slices.Equal(h.calls, want) {
			t.Errorf("%s: got calls %v, want %v", name, h.calls, want)
		}
	}
}

func TestARefusalShowsNothingOfTheHandler(t *testing.T) {
	handler := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Handler", "no")
		w.WriteHeader(http.StatusOK)
		if n, err := io.WriteString(w, "secret page"); n != 0 || !errors.Is(err, errCommit) {
			t.Errorf("a write after the refusal: got %d, %v, want 0 and the commit's error", n, err)
		}
		w.Header().Set(http.TrailerPrefix+"X-Late", "no")
	}
	for _, c := range []struct {
		name     string
		hooks    hooks
		panicked any
		calls    string
	}{
		{"answered", hooks{commit: errCommit}, nil, "commit answer"},
		{"not answered", hooks{commit: errCommit, silent: true}, nil, "commit answer plainly"},
		{"panic", hooks{commit: errCommit, panics: true}, "answer", "commit answer plainly"},
	} {
		rec, panicked := serve(t, &c.hooks, handler)
		res := rec.Result()
		if c.panicked == nil && panicked != nil || c.panicked != nil && panicked != c.panicked {
			t.Errorf("%s: got panic %v, want %v", c.name, panicked, c.panicked)
		}
		if res.StatusCode != http.StatusServiceUnavailable || strings.Contains(rec.Body.String(), "secret") ||
			res.Header.Get("X-Handler") != "" || len(res.Trailer) > 0 {
			t.Errorf("%s: got %d, header %v, body %q: something of the handler's is in it", c.name, res.StatusCode, res.Header, rec.Body)
		}
		if got := res.Header.Get("Cache-Control"); got != "no-store" || res.Header.Get("X-Outside") != "stays" {
			t.Errorf("%s: got Cache-Control %q, X-Outside %q, want no-store and stays", c.name, got, res.Header.Get("X-Outside"))
		}
		if got := strings.Join(c.hooks.calls, " "); got != c.calls {
			t.Errorf("%s: got calls %q, want %q", c.name, got, c.calls)
		}
	}
}

func TestALateFailureAbortsTheResponse(t *testing.T) {
	h := &hooks{later: errCommit}
	_, panicked := serve(t, h, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "x") })
	if panicked != http.ErrAbortHandler {
		t.Errorf("got panic %v, want ErrAbortHandler", panicked)
	}
}

// hijackable can be hijacked.
type hijackable struct{ http.ResponseWriter }

func (hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, nil }

func TestHijackIsThereWhereItIsBelow(t *testing.T) {
	serve(t, &hooks{}, func(w http.ResponseWriter, _ *http.Request) {
		if _, ok := w.(http.Hijacker); ok {
			t.Error("a Hijacker over a writer that is none")
		}
	})
	h := &hooks{}
	var g gate.Gate
	g.Serve(hijackable{httptest.NewRecorder()}, httptest.NewRequest(http.MethodGet, "/", nil), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, _, err := w.(http.Hijacker).Hijack(); err != nil {
			t.Error(err)
		}
	}), h)
	if got := strings.Join(h.calls, " "); got != "commit hijacked settle" {
		t.Errorf("got calls %q, want the commit to know of the hijack", got)
	}
}

func TestHeaderHas(t *testing.T) {
	for _, c := range []struct {
		line, token string
		want        bool
	}{
		{"private", "private", true},
		{"max-age=3, PRIVATE", "private", true},
		{`private="X"`, "private", false},
		{`private="X, private"`, "private", false},
		{`private="X", private`, "private", true},
		{"s-maxage=60", "s-maxage=", true},
		{"s-maxage", "s-maxage=", false},
		{"", "private", false},
	} {
		if got := gate.HeaderHas(http.Header{"Cache-Control": {c.line}}, "Cache-Control", c.token); got != c.want {
			t.Errorf("%q has %q: got %t, want %t", c.line, c.token, got, c.want)
		}
	}
}

func TestForbidCachingDropsWhatOverrides(t *testing.T) {
	h := http.Header{}
	for _, name := range []string{"CDN-Cache-Control", "Cloudflare-CDN-Cache-Control", "Surrogate-Control", "X-Accel-Expires", "Cache-Control", "Vary"} {
		h.Set(name, "x")
	}
	gate.ForbidCaching(h)
	if len(h) != 2 || h.Get("Cache-Control") == "" || h.Get("Vary") == "" {
		t.Errorf("got %v left, want Cache-Control and Vary", h)
	}
}
