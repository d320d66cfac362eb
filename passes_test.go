package session_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/session"
)

// passage is something that a handler may look for in its writer.
type passage struct {
	row    string // the first column of docs/operations.md, "What the writer passes on"
	protos []string
	test   func(t *testing.T, proto string, site *testSite)
}

// bare unwraps to the writer that net/http has made.
func bare(w http.ResponseWriter) http.ResponseWriter {
	for {
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = u.Unwrap()
	}
}

// sendTooMuch posts a body of 64 KiB, more than the handlers here read, and reports
// whether the server says that it ends the connection.
func sendTooMuch(t *testing.T, h http.Handler) (closes bool) {
	t.Helper()
	srv := httptest.NewServer(h)
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\n"+strings.Repeat("x", 65536))
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("got status %d, want 413", res.StatusCode)
	}
	return res.Close
}

// readAll answers 413 where the body is over the limit.
func readAll(w http.ResponseWriter, r *http.Request) {
	_, err := io.ReadAll(r.Body)
	if errors.As(err, new(*http.MaxBytesError)) {
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
	}
}

// passages are all that net/http, and what is written for it, looks for in a
// ResponseWriter beside its three methods.
var passages = []passage{
	{"`http.MaxBytesReader`", protocols[:1], func(t *testing.T, _ string, site *testSite) {
		limited := func(writer func(http.ResponseWriter) http.ResponseWriter) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Body = http.MaxBytesReader(writer(w), r.Body, 1000)
				readAll(w, r)
			})
		}
		same := func(w http.ResponseWriter) http.ResponseWriter { return w }
		for _, c := range []struct {
			name   string
			h      http.Handler
			closes bool
		}{
			{"without sessions", limited(same), true},
			{"below, with the writer that a handler has", site.m.Handler(limited(same)), false},
			{"below, with the one underneath", site.m.Handler(limited(bare)), true},
			{"outside", http.MaxBytesHandler(site.m.Handler(http.HandlerFunc(readAll)), 1000), true},
			{"PostAgain's own, below", site.m.Handler(postAgainTooMuch(http.HandlerFunc(readAll))), true},
		} {
			if got := sendTooMuch(t, c.h); got != c.closes {
				t.Errorf("%s: got the connection closed %t, want %t", c.name, got, c.closes)
			}
		}
	}},
	{"`http.Pusher`", protocols[1:], func(t *testing.T, proto string, site *testSite) {
		startServer(t, proto, site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if _, ok := w.(http.Pusher); ok {
				t.Error("got a Pusher, want none")
			}
			if _, ok := bare(w).(http.Pusher); !ok {
				t.Error("the writer underneath: got no Pusher, want one")
			}
		}))).do(t, "POST", "").want(t, 200, "")
	}},
	{"`103 Early Hints`, `100 Continue`", protocols, func(t *testing.T, proto string, site *testSite) {
		srv := startServer(t, proto, site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "</a.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
		})))
		hints := 0
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error { hints++; return nil }})
		req, err := http.NewRequestWithContext(ctx, "POST", srv.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		srv.send(t, req, "").want(t, 200, "")
		if hints != 1 {
			t.Errorf("got %d hints, want 1", hints)
		}
	}},
	{"`http.Flusher`", protocols, func(t *testing.T, proto string, site *testSite) {
		startServer(t, proto, site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if _, ok := w.(http.Flusher); !ok {
				t.Error("got no Flusher, want one")
			}
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Errorf("Flush: got %v, want no error", err)
			}
		}))).do(t, "POST", "").want(t, 200, "")
	}},
	{"`http.Hijacker`", protocols, func(t *testing.T, proto string, site *testSite) {
		startServer(t, proto, site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if _, ok := w.(http.Hijacker); ok != (proto == "HTTP/1.1") {
				t.Errorf("got a Hijacker %t, want that of net/http's own writer", ok)
			}
		}))).do(t, "POST", "").want(t, 200, "")
	}},
	{"`io.ReaderFrom`", protocols, func(t *testing.T, proto string, site *testSite) {
		startServer(t, proto, site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			f, err := os.Open("go.mod")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, ok := w.(io.ReaderFrom); !ok {
				t.Error("got no ReaderFrom, want one")
			}
			if _, err := io.Copy(w, f); err != nil {
				t.Errorf("Copy: got %v, want no error", err)
			}
		}))).do(t, "POST", "")
	}},
	{"`io.StringWriter`", protocols, func(t *testing.T, proto string, site *testSite) {
		startServer(t, proto, site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if _, err := w.(io.StringWriter).WriteString("x"); err != nil {
				t.Errorf("WriteString: got %v, want no error", err)
			}
		}))).do(t, "POST", "").want(t, 200, "x")
	}},
	{"`http.CloseNotifier`", protocols, func(t *testing.T, proto string, site *testSite) {
		gone := make(chan bool)
		begun := make(chan bool)
		srv := startServer(t, proto, site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			c := w.(interface{ CloseNotify() <-chan bool }).CloseNotify()
			close(begun)
			<-c
			close(gone)
		})))
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-begun; cancel() }()
		req, err := http.NewRequestWithContext(ctx, "POST", srv.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := srv.send(t, req, ""); got.err == nil {
			t.Error("got a response, want none")
		}
		within(t, gone)
	}},
	{"deadlines, `EnableFullDuplex`", protocols, func(t *testing.T, proto string, site *testSite) {
		startServer(t, proto, site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			c := http.NewResponseController(w)
			end := time.Now().Add(time.Hour)
			if err := errors.Join(c.SetReadDeadline(end), c.SetWriteDeadline(end), c.EnableFullDuplex()); err != nil {
				t.Errorf("got %v, want no error", err)
			}
			if _, ok := w.(interface{ SetReadDeadline(time.Time) error }); ok {
				t.Error("asked for by its method: got it, want it by ResponseController alone")
			}
		}))).do(t, "POST", "").want(t, 200, "")
	}},
	{"trailers", protocols, func(t *testing.T, proto string, site *testSite) {
		reply := startServer(t, proto, site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-Sum")
			_, _ = io.WriteString(w, "x")
			w.Header().Set("X-Sum", "1")
		}))).do(t, "POST", "")
		if reply.want(t, 200, "x"); reply.trailer.Get("X-Sum") != "1" {
			t.Errorf("trailers: got %v, want X-Sum", reply.trailer)
		}
	}},
}

// postAgainTooMuch lets PostAgain take a request for another site's.
func postAgainTooMuch(next http.Handler) http.Handler {
	h := session.PostAgain(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		r.Header.Set("Sec-Fetch-Mode", "navigate")
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(r.Body, strings.NewReader(strings.Repeat("x", 512<<10))), r.Body}
		h.ServeHTTP(w, r)
	})
}

// Each row of the table in docs/operations.md is shown here, and each of these stands
// there.
func TestWriterPassesOn(t *testing.T) {
	text, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## What the writer passes on\n")
	section, _, _ = strings.Cut(section, "\n## ")
	if rows := strings.Count(section, "\n| ") - 1; rows != len(passages) {
		t.Errorf("docs/operations.md: got %d rows, want %d", rows, len(passages))
	}
	for _, p := range passages {
		if !strings.Contains(section, "\n| "+p.row+" |") {
			t.Errorf("docs/operations.md: got no row %s", p.row)
		}
		for _, proto := range p.protos {
			t.Run(proto+"/"+strings.ReplaceAll(p.row, "`", ""), func(t *testing.T) { p.test(t, proto, newSite(t)) })
		}
	}
}
