package rig_test

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/session/bench/internal/rig"
)

func TestHistIsWithinAPercent(t *testing.T) {
	var h rig.Hist
	var all []time.Duration
	r := rand.New(rand.NewPCG(1, 2))
	for range 50_000 {
		d := time.Duration(math.Exp(r.Float64() * 23)) // from nothing to ten seconds
		h.Add(d)
		all = append(all, d)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.1, 0.5, 0.9, 0.99, 0.999} {
		got, want := h.Quantile(q), all[int(q*float64(len(all)))]
		if diff := math.Abs(float64(got-want)) / max(1, float64(want)); diff > 0.01 {
			t.Errorf("Quantile(%v): got %v, want %v", q, got, want)
		}
	}
	if got, want := h.Max(), all[len(all)-1]; got != want {
		t.Errorf("Max: got %v, want %v", got, want)
	}
	if got := h.Quantile(1); got != h.Max() {
		t.Errorf("Quantile(1): got %v, want %v", got, h.Max())
	}
	var double rig.Hist
	double.Merge(&h)
	double.Merge(&h)
	if got := double.Quantile(0.5); got != h.Quantile(0.5) || double.N() != 2*h.N() {
		t.Errorf("merged twice: got %v of %d, want %v of %d", got, double.N(), h.Quantile(0.5), 2*h.N())
	}
}

func TestHistEmpty(t *testing.T) {
	if got := new(rig.Hist).Quantile(0.99); got != 0 {
		t.Errorf("got %v, want 0", got)
	}
}

// script repeats a request and counts what comes back.
type script struct {
	request []byte
	left    int
	answers []string
	done    func(a rig.Answer) error
}

func (s *script) Next(int) (int, []byte) {
	if s.left == 0 {
		return 0, nil
	}
	s.left--
	return 7, s.request
}

func (s *script) Done(_, tag int, a rig.Answer) error {
	s.answers = append(s.answers, strings.TrimSpace(fmt.Sprintf("%d %d %s %t %s", tag, a.Status, a.Body, a.SetCookie, a.Cookie)))
	if s.done != nil {
		return s.done(a)
	}
	return nil
}

func TestLoadParsesAnswers(t *testing.T) {
	for _, tt := range []struct {
		name, answer, want, err string
	}{
		{name: "plain", answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", want: "7 200 ok false"},
		{name: "empty body", answer: "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", want: "7 204  false"},
		{name: "cookie, any case", answer: "HTTP/1.1 401 Unauthorized\r\nSET-cookie: a=b\r\nCONTENT-LENGTH:3\r\n\r\nabc", want: "7 401 abc true a=b"},
		{name: "cookie with attributes", answer: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: a=b=; Path=/; HttpOnly\r\n\r\n", want: "7 200  true a=b="},
		{name: "cookie in another header", answer: "HTTP/1.1 200 OK\r\nX-Set-Cookie: a\r\nVary: set-cookie:\r\nContent-Length: 1\r\n\r\nx", want: "7 200 x false"},
		{name: "large", answer: "HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + strings.Repeat("x", 9000), want: "7 200 " + strings.Repeat("x", 9000) + " false"},
		{name: "no length", answer: "HTTP/1.1 200 OK\r\n\r\n", err: "without Content-Length"},
		{name: "no HTTP", answer: "SSH-2.0-OpenSSH_9.2 or so\r\n\r\n", err: "no HTTP/1 answer"},
		{name: "no status", answer: "HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n", err: "no status"},
		{name: "more than asked for", answer: "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy", err: "after the answer"},
		{name: "cut", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nxy", err: "closed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &script{request: rig.Request("/x", "a=b"), left: 1}
			_, err := (rig.Load{Addrs: []string{rawServer(t, tt.answer)}, Conns: 1, Script: s}).Run(t.Context())
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got error %v, want one that says %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(s.answers, []string{tt.want}) {
				t.Errorf("got %.80q, want %.80q", s.answers, tt.want)
			}
		})
	}
}

// rawServer answers one request with these bytes, in three pieces, and hangs up.
func rawServer(t *testing.T, answer string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if _, err := c.Read(make([]byte, 1000)); err != nil {
			return
		}
		third := len(answer) / 3
		if len(answer) < 60 {
			third = 0 // whole: what stands after an answer must come with it
		}
		for _, piece := range []string{answer[:third], answer[third : 2*third], answer[2*third:]} {
			if _, err := io.WriteString(c, piece); err != nil {
				return
			}
		}
	}()
	return ln.Addr().String()
}

func TestLoadRunsUntilItsEnd(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "2")
		_, _ = io.WriteString(w, "ok")
	}))
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	t.Run("of the script", func(t *testing.T) {
		s := &script{request: rig.Request("/", ""), left: 100}
		r, err := (rig.Load{Addrs: []string{addr, addr}, Conns: 7, Script: s}).Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if r.Total != 100 || r.InTime != 100 || r.Latency.N() != 100 || r.PerSecond() <= 0 {
			t.Errorf("got %d answers, %d in time, %d latencies, %v a second, want 100 of each and a rate", r.Total, r.InTime, r.Latency.N(), r.PerSecond())
		}
	})
	t.Run("of the time", func(t *testing.T) {
		s := &script{request: rig.Request("/", ""), left: math.MaxInt}
		r, err := (rig.Load{Addrs: []string{addr}, Conns: 3, Duration: 50 * time.Millisecond, Script: s}).Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		inTime := r.Elapsed == 50*time.Millisecond || r.InTime == 1 && r.Elapsed > 50*time.Millisecond // on a machine that slow
		if !inTime || r.InTime == 0 || r.Total < r.InTime || r.Total > r.InTime+3 {
			t.Errorf("got %d answers, %d of them in %v, want some in 50ms and at most 3 later", r.Total, r.InTime, r.Elapsed)
		}
	})
	t.Run("of the first answer, where that comes late", func(t *testing.T) {
		s := &script{request: rig.Request("/", ""), left: math.MaxInt}
		r, err := (rig.Load{Addrs: []string{addr}, Conns: 3, Duration: 1, Script: s}).Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if r.Elapsed <= 1 || r.InTime != 1 || r.Total != 3 || r.PerSecond() <= 0 {
			t.Errorf("got %d answers, %d of them in %v, want 3, one of them in time", r.Total, r.InTime, r.Elapsed)
		}
	})
	t.Run("by the script's error", func(t *testing.T) {
		wrong := errors.New("wrong answer")
		s := &script{request: rig.Request("/", ""), left: 100, done: func(rig.Answer) error { return wrong }}
		if _, err := (rig.Load{Addrs: []string{addr}, Conns: 2, Script: s}).Run(t.Context()); !errors.Is(err, wrong) {
			t.Errorf("got %v, want %v", err, wrong)
		}
	})
	t.Run("by the context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &script{request: rig.Request("/", ""), left: math.MaxInt, done: func(rig.Answer) error { cancel(); return nil }}
		if _, err := (rig.Load{Addrs: []string{addr}, Conns: 2, Script: s}).Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
	})
}

func TestVisitsFindWrongAnswers(t *testing.T) {
	users := &rig.Users{IDs: []string{"a", "b"}, Cookies: []string{"c=1", "c=2"}, Counters: make([]int, 2)}
	v := rig.FindVariant(rig.Session)
	for _, tt := range []struct {
		name, route string
		answer      rig.Answer
		ok          bool
	}{
		{"read", rig.Read, rig.Answer{Status: 200, Body: []byte("b")}, true},
		{"read, another user", rig.Read, rig.Answer{Status: 200, Body: []byte("a")}, false},
		{"read, status", rig.Read, rig.Answer{Status: 401, Body: []byte("b")}, false},
		{"read, touched", rig.Read, rig.Answer{Status: 200, Body: []byte("b"), SetCookie: true}, true},
		{"write", rig.Write, rig.Answer{Status: 200, Body: []byte("1")}, true},
		{"write, not counted", rig.Write, rig.Answer{Status: 200, Body: []byte("0")}, false},
		{"public", rig.Public, rig.Answer{Status: 200, Body: []byte("public")}, true},
		{"public, cookie", rig.Public, rig.Answer{Status: 200, Body: []byte("public"), SetCookie: true}, false},
		{"new", rig.New, rig.Answer{Status: 200, Body: []byte("anon")}, true},
		{"new, cookie", rig.New, rig.Answer{Status: 200, Body: []byte("anon"), SetCookie: true}, false},
		{"new, somebody", rig.New, rig.Answer{Status: 200, Body: []byte("a")}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			users.Counters[1] = 0
			err := rig.NewVisits(v, tt.route, users, 1, 0).Done(0, 1, tt.answer)
			if (err == nil) != tt.ok {
				t.Errorf("got error %v, want one: %t", err, !tt.ok)
			}
		})
	}
}

func TestVisitsKeepUsersOnTheirConnections(t *testing.T) {
	users := &rig.Users{IDs: make([]string, 10), Cookies: make([]string, 10), Counters: make([]int, 10)}
	s := rig.NewVisits(rig.FindVariant(rig.Session), rig.Read, users, 3, 9)
	owner := make(map[int]int)
	for i := range 27 {
		user, request := s.Next(i % 3)
		if request == nil {
			t.Fatalf("connection %d: got no request after %d, want 9", i%3, i/3)
		}
		if conn, ok := owner[user]; ok && conn != i%3 {
			t.Errorf("user %d: got connections %d and %d, want one", user, conn, i%3)
		}
		owner[user] = i % 3
	}
	if len(owner) != 10 {
		t.Errorf("users visited: got %d, want 10", len(owner))
	}
	if _, request := s.Next(0); request != nil {
		t.Error("got a tenth request of a connection, want an end")
	}
}

func TestChartsAreXML(t *testing.T) {
	nan := math.NaN()
	for _, tt := range []struct{ name, svg string }{
		{"bars", rig.BarChart("a < b & c", `"d"`, []rig.Bar{{Label: "x & y", Value: 3, Text: "3|1.5 ×", Ours: true}, {Label: "l", Value: 2, Limit: true}, {Label: "none"}})},
		{"no values", rig.BarChart("a", "b", []rig.Bar{{Label: "x"}})},
		{"lines", rig.LineChart("a", "b", []string{"1", "8"}, []rig.Series{{Label: "x", Values: []float64{1, 2}}, {Label: "y", Values: []float64{nan, 1000}, Colour: 1}}, false, rig.Int)},
		{"logarithmic", rig.LineChart("a", "b", []string{"1", "8"}, []rig.Series{{Label: "x", Values: []float64{0.3, 20}}}, true, rig.Int)},
		{"one step", rig.LineChart("a", "b", []string{"1"}, []rig.Series{{Label: "x", Values: []float64{10}}}, true, rig.Int)},
		{"nothing", rig.LineChart("a", "b", nil, nil, false, rig.Int)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := xml.NewDecoder(strings.NewReader(tt.svg))
			for {
				if _, err := d.Token(); err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if strings.Contains(tt.svg, "NaN") || strings.Contains(tt.svg, "Inf") {
				t.Error("got a NaN or an Inf, want numbers")
			}
		})
	}
}

func TestInsert(t *testing.T) {
	path := filepath.Join(t.TempDir(), "doc.md")
	const before = "# a\n<!-- bench:x -->\nold\n<!-- /bench:x -->\nb\n<!-- bench:y -->\n<!-- /bench:y -->\n"
	if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // again is no change
		if err := rig.Insert(path, map[string]string{"x": "new\n", "y": "1\n2\n"}); err != nil {
			t.Fatal(err)
		}
		const want = "# a\n<!-- bench:x -->\nnew\n<!-- /bench:x -->\nb\n<!-- bench:y -->\n1\n2\n<!-- /bench:y -->\n"
		if got, _ := os.ReadFile(path); string(got) != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if err := rig.Insert(path, map[string]string{"z": "?"}); err == nil {
		t.Error("got no error for a name without a place, want one")
	}
	if err := rig.Insert(path+".none", map[string]string{"x": ""}); err != nil {
		t.Errorf("a document that is not there: got %v, want no error", err)
	}
}

func TestTable(t *testing.T) {
	table := rig.Table{Head: []string{"server", "µs"}}
	table.Add("a", "1,234")
	table.Add("é")
	const want = "| server |    µs |\n|--------|------:|\n| a      | 1,234 |\n| é      |       |\n"
	if got := table.String(); got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
}

func TestNumbers(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{rig.Int(0), "0"},
		{rig.Int(999), "999"},
		{rig.Int(1000), "1,000"},
		{rig.Int(-1234567), "-1,234,567"},
		{rig.Int(math.NaN()), "–"},
		{rig.Fixed(1.005, 1), "1.0"},
		{rig.Fixed(math.Inf(1), 2), "–"},
		{rig.JoinInts([]int{1, 8}), "1,8"},
		{fmt.Sprint(rig.Median([]float64{3, 1, 2})), "2"},
		{fmt.Sprint(rig.Median([]float64{4, 1})), "2.5"},
		{fmt.Sprint(rig.MedianOf([]string{"abc", "a", "ab"}, func(s string) float64 { return float64(len(s)) })), "2"},
		{fmt.Sprint(rig.Milliseconds(1500 * time.Microsecond)), "1.5"},
		{fmt.Sprint(rig.Microseconds(1500 * time.Nanosecond)), "1.5"},
		{fmt.Sprint(rig.IsShort([]string{"-x", "--short"})), "true"},
		{fmt.Sprint(rig.IsShort([]string{"short", "-shorter"})), "false"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
	for _, bad := range []string{"", "0", "1,,2", "x"} {
		if v, err := rig.SplitInts(bad); err == nil {
			t.Errorf("SplitInts(%q): got %v, want an error", bad, v)
		}
	}
}

// CPU time is that of the process itself, and of its children.
func TestCPU(t *testing.T) {
	before, err := rig.ProcessCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	after := before
	// The clock ticks when this program has had the processor for a while, which
	// others may have just now.
	for start := time.Now(); after <= before && time.Since(start) < time.Minute; {
		for range 100_000 {
			_ = rand.Uint64()
		}
		if after, err = rig.ProcessCPU(os.Getpid()); err != nil {
			t.Fatal(err)
		}
	}
	if after <= before {
		t.Errorf("got %v after %v, want more", after, before)
	}
	family, err := rig.FamilyCPU(os.Getpid())
	if err != nil || family < after {
		t.Errorf("FamilyCPU: got %v, %v, want at least %v", family, err, after)
	}
}
