package main_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	cluster "github.com/pgsession/session/examples/cluster"
)

// backend answers with its name and what it was sent.
func backend(t *testing.T, name string) (host string, asked *atomic.Int32) {
	asked = new(atomic.Int32)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			return
		}
		asked.Add(1)
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s", name, r.Method, r.Header.Get("X-Forwarded-Proto"), body)
	}))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String(), asked
}

// nobody is an address where nobody listens.
func nobody(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	return ln.Addr().String()
}

// ask sends a request through the balancer.
func ask(h http.Handler, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", "http://example.com/", strings.NewReader(body))
	r.Header.Set("X-Forwarded-Proto", "https") // by a browser that lies
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func wantAnswer(t *testing.T, w *httptest.ResponseRecorder, code int, body string) {
	t.Helper()
	if got := w.Body.String(); w.Code != code || !strings.Contains(got, body) {
		t.Errorf("got %d %q, want %d with %q", w.Code, got, code, body)
	}
}

func TestBalancerTakesTurns(t *testing.T) {
	b := cluster.NewBalancer()
	for _, name := range []string{"a", "b", "c"} {
		host, _ := backend(t, name)
		b.Add(name, host)
	}
	for _, name := range strings.Split("abcabcabc", "") {
		wantAnswer(t, ask(b, "hello"), 200, name+" POST http hello")
	}
}

func TestBalancerWithoutBackends(t *testing.T) {
	b := cluster.NewBalancer()
	w := ask(b, "")
	wantAnswer(t, w, 503, "No process is up")
	if w.Header().Get("Retry-After") == "" {
		t.Error("got no Retry-After")
	}
}

// A connection that could not be made has carried nothing: the request goes to
// another backend, whole.
func TestBalancerGoesOnWhereNobodyListens(t *testing.T) {
	b := cluster.NewBalancer()
	b.Add("dead", nobody(t))
	host, asked := backend(t, "alive")
	b.Add("alive", host)
	b.Add("dead too", nobody(t))
	const requests = 9
	for range requests {
		wantAnswer(t, ask(b, "once"), 200, "alive POST http once")
	}
	if got := asked.Load(); got != requests {
		t.Errorf("got %d requests at the backend, want %d", got, requests)
	}
}

func TestBalancerWhereNobodyListensAtAll(t *testing.T) {
	b := cluster.NewBalancer()
	b.Add("a", nobody(t))
	b.Add("b", nobody(t))
	wantAnswer(t, ask(b, "x"), 503, "No process is up")
}

// A backend that took the request may have carried it out before it died. The
// request must not go to another.
func TestBalancerDoesNotRepeatWhatWasSent(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	var taken atomic.Int32
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.Copy(io.Discard, r.Body)
				taken.Add(1)
			}
			conn.Close()
		}
	}()
	b := cluster.NewBalancer()
	b.Add("dies", ln.Addr().String())
	host, asked := backend(t, "alive")
	b.Add("alive", host)
	const rounds = 5
	for range rounds {
		wantAnswer(t, ask(b, "once"), 502, "still logged in")
		wantAnswer(t, ask(b, "once"), 200, "alive")
	}
	if got := [2]int32{taken.Load(), asked.Load()}; got != [2]int32{rounds, rounds} {
		t.Errorf("got %d requests taken by the one that dies and the other, want %d each", got, rounds)
	}
}

func TestBalancerLeavesOutWhatIsUnwell(t *testing.T) {
	well := make(map[string]*atomic.Bool)
	b := cluster.NewBalancer()
	var check []func()
	for _, name := range []string{"a", "b"} {
		well[name] = new(atomic.Bool)
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/healthz" && !well[name].Load() {
				w.WriteHeader(http.StatusInternalServerError)
			}
			_, _ = io.WriteString(w, name)
		}))
		t.Cleanup(srv.Close)
		be := b.Add(name, srv.Listener.Addr().String())
		check = append(check, func() { b.Check(t.Context(), be) })
	}
	for _, tt := range []struct {
		name string
		well string
		want string
	}{
		{"one", "b", "bbbb"},
		{"the other", "a", "aaaa"},
		{"none, and the check may be wrong", "", "baba"},
		{"both", "ab", "baba"},
	} {
		for name, ok := range well {
			ok.Store(strings.Contains(tt.well, name))
		}
		for _, f := range check {
			f()
		}
		got := ""
		for range tt.want {
			got += ask(b, "").Body.String()
		}
		if got != tt.want {
			t.Errorf("%s: got answers of %s, want %s", tt.name, got, tt.want)
		}
	}
}

// Draining waits for what is under way, lets nothing new in, and gives up when
// its context ends.
func TestBalancerDrains(t *testing.T) {
	arrived, leave := make(chan struct{}), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(arrived) // twice would panic: one request is all it gets
		<-leave
		_, _ = io.WriteString(w, "slow")
	}))
	t.Cleanup(slow.Close)
	b := cluster.NewBalancer()
	draining := b.Add("slow", slow.Listener.Addr().String())
	host, _ := backend(t, "other")
	b.Add("other", host)

	answer := make(chan *httptest.ResponseRecorder, 1)
	go func() { answer <- ask(b, "") }()
	<-arrived
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Drain(ended, draining); !errors.Is(err, context.Canceled) {
		t.Errorf("Drain with a request under way: got %v, want it to wait until the context ends", err)
	}
	for range 3 {
		wantAnswer(t, ask(b, ""), 200, "other")
	}
	drained := make(chan error, 1)
	go func() { drained <- b.Drain(t.Context(), draining) }()
	close(leave)
	wantAnswer(t, <-answer, 200, "slow")
	must(t, <-drained)
	must(t, b.Drain(ended, draining)) // nothing is under way: no wait
}
