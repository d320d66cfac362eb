package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// nowhere is a ResponseWriter that costs next to nothing, so that what is
// measured is the middleware. Its header map is emptied for every request.
type nowhere struct {
	header http.Header
	wrote  int
}

func (w *nowhere) Header() http.Header { return w.header }
func (w *nowhere) WriteHeader(int)     {}

func (w *nowhere) Write(b []byte) (int, error) {
	w.wrote += len(b)
	return len(b), nil
}

func (w *nowhere) WriteString(s string) (int, error) {
	w.wrote += len(s)
	return len(s), nil
}

// serve answers n requests and returns how long that took.
func (a *app) serve(r *http.Request, w *nowhere, n int) time.Duration {
	fresh := new(http.Request)
	start := time.Now()
	for range n {
		clear(w.header)
		*fresh = *r // gorilla/sessions keeps the session in the request
		a.handler.ServeHTTP(w, fresh)
	}
	return time.Since(start)
}

func apps(b *testing.B, path string) []*app {
	b.Helper()
	all, err := newApps()
	if err != nil {
		b.Fatal(err)
	}
	for _, a := range all {
		if err := a.check(path); err != nil {
			b.Fatal(err)
		}
	}
	return all
}

// BenchmarkRead reads one key of a 1 KB session: cookie verified, record loaded
// from memory and decoded, key read, page written.
func BenchmarkRead(b *testing.B) { each(b, "/read") }

// BenchmarkUnused is a request with a session cookie whose handler does not use
// the session.
func BenchmarkUnused(b *testing.B) { each(b, "/unused") }

func each(b *testing.B, path string) {
	for _, a := range apps(b, path) {
		b.Run(a.name, func(b *testing.B) {
			r, w := a.request(path), &nowhere{header: make(http.Header)}
			b.ReportAllocs()
			a.serve(r, w, b.N)
		})
	}
}

// BenchmarkReadRatio is BenchmarkRead in turns, as ratios.
func BenchmarkReadRatio(b *testing.B) { inTurns(b, "/read") }

// BenchmarkUnusedRatio is BenchmarkUnused in turns, as ratios.
func BenchmarkUnusedRatio(b *testing.B) { inTurns(b, "/unused") }

// inTurns measures the applications in turns of 1 ms or so, so that whatever
// else the machine does meets all of them, and reports medians.
func inTurns(b *testing.B, path string) {
	const requests = 200
	all := apps(b, path)
	turns := newTurns(len(all))
	reqs := make([]*http.Request, len(all))
	w := &nowhere{header: make(http.Header)}
	for i, a := range all {
		reqs[i] = a.request(path)
		a.serve(reqs[i], w, requests)
	}
	for b.Loop() {
		turns.round(func(i int) time.Duration { return all[i].serve(reqs[i], w, requests) })
	}
	for i, a := range all {
		b.ReportMetric(turns.median(i)/requests, a.name+"-ns/request")
		b.ReportMetric(mallocs(func() { a.serve(reqs[i], w, requests) })/requests, a.name+"-allocs/request")
	}
	b.ReportMetric(turns.ratio(1, 0), "session/bare")
	b.ReportMetric(turns.ratio(1, 2), "session/scs")
	b.ReportMetric(turns.ratio(1, 3), "session/gorilla")
	b.ReportMetric(0, "ns/op") // of a round: nobody's figure
}

// mallocs counts the allocations of f.
func mallocs(f func()) float64 {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs - before.Mallocs)
}

// turns are the durations of several competitors that take turns.
type turns [][]float64

func newTurns(n int) turns { return make(turns, n) }

// round gives each competitor one turn. Every second round goes backwards, so
// that nobody always follows the same neighbour or gains from a drift.
func (t turns) round(turn func(i int) time.Duration) {
	backwards := len(t[0])%2 == 1
	for i := range t {
		if backwards {
			i = len(t) - 1 - i
		}
		t[i] = append(t[i], float64(turn(i)))
	}
}

func (t turns) median(i int) float64 {
	s := slices.Sorted(slices.Values(t[i]))
	return s[len(s)/2]
}

// ratio is the median of the rounds' own ratios: what slows a whole round down
// is not in it.
func (t turns) ratio(i, j int) float64 {
	r := make([]float64, len(t[i]))
	for n := range r {
		r[n] = t[i][n] / t[j][n]
	}
	slices.Sort(r)
	return r[len(r)/2]
}

// BenchmarkUnusedLoopback is a request that does not use its session, sent to
// real servers over loopback by several keep-alive connections, in turns. The
// client writes prepared bytes and looks only for the answer's end, so that the
// server's share of the work is as large as it can be.
//
// name/bare is the share of the throughput that is left, name/bare-cpu the CPU
// time of a request, client included, which other programs disturb less.
func BenchmarkUnusedLoopback(b *testing.B) { loopback(b, "/unused") }

// BenchmarkReadLoopback is the same with a key read.
func BenchmarkReadLoopback(b *testing.B) { loopback(b, "/read") }

func loopback(b *testing.B, path string) {
	const (
		connections = 8
		requests    = 250 // of each connection in a turn
	)
	all := apps(b, path)
	clients := make([][]*client, len(all))
	for i, a := range all {
		server := httptest.NewServer(a.handler)
		b.Cleanup(server.Close)
		for range connections {
			c := dial(b, server.Listener.Addr().String(), a, path)
			b.Cleanup(func() { _ = c.conn.Close() })
			clients[i] = append(clients[i], c)
		}
	}
	turns, cpu := newTurns(len(all)), newTurns(len(all))
	turn := func(i int) time.Duration {
		runtime.GC() // what the one before has left behind is not this one's
		var wg sync.WaitGroup
		start, used := time.Now(), cpuTime(b)
		for _, c := range clients[i] {
			wg.Go(func() {
				for range requests {
					if err := c.get(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		took := time.Since(start)
		cpu[i] = append(cpu[i], float64(cpuTime(b)-used))
		return took
	}
	for i := range all {
		turn(i)
		cpu[i] = nil
	}
	for b.Loop() {
		turns.round(turn)
	}
	for i, a := range all {
		b.ReportMetric(connections*requests/(turns.median(i)/1e9), a.name+"-requests/s")
	}
	for i, a := range all[1:] {
		b.ReportMetric(1/turns.ratio(i+1, 0), a.name+"/bare")
		b.ReportMetric(cpu.ratio(i+1, 0), a.name+"/bare-cpu")
	}
	b.ReportMetric(0, "ns/op")
}

// cpuTime returns what this process has used.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// client is one keep-alive connection.
type client struct {
	conn    net.Conn
	r       *bufio.Reader
	request []byte
	status  []byte
}

func dial(b *testing.B, addr string, a *app, path string) *client {
	b.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	var req bytes.Buffer
	if err := a.request(path).Write(&req); err != nil {
		b.Fatal(err)
	}
	return &client{conn: conn, r: bufio.NewReader(conn), request: req.Bytes(), status: []byte("HTTP/1.1 200 OK\r\n")}
}

// get sends the request and reads the answer to its end.
func (c *client) get() error {
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.Equal(line, c.status) {
		return fmt.Errorf("got %q, want %q", line, c.status)
	}
	length := -1
	for {
		if line, err = c.r.ReadSlice('\n'); err != nil {
			return err
		}
		if len(line) == 2 {
			break
		}
		if v, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(strings.TrimSpace(string(v))); err != nil {
				return err
			}
		}
	}
	if length != len(user) {
		return fmt.Errorf("got a body of %d bytes, want %d", length, len(user))
	}
	_, err = io.CopyN(io.Discard, c.r, int64(length))
	return err
}
