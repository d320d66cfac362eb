package rig_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/pgsession/session/bench/internal/rig"
)

func TestWrkResult(t *testing.T) {
	const line = `result {"requests":500,"microseconds":250000,"p50":70,"p99":90,"errors":0}`
	r, err := rig.WrkResultIn("Running 1s test\n" + line + "\n")
	if err != nil || r.Requests != 500 || r.PerSecond != 2000 || r.P50 != 70 || r.P99 != 90 {
		t.Errorf("got %+v, %v, want 500 requests, 2000 a second", r, err)
	}
	for name, bad := range map[string]string{
		"no result":  "Running 1s test\n",
		"not JSON":   "\nresult {\n",
		"errors":     "\n" + strings.Replace(line, `"errors":0`, `"errors":1`, 1),
		"no request": "\n" + strings.Replace(line, `500`, `0`, 1),
		"no time":    "\n" + strings.Replace(line, `250000`, `0`, 1),
	} {
		if r, err := rig.WrkResultIn(bad); err == nil {
			t.Errorf("%s: got %+v, want an error", name, r)
		}
	}
}

// wrk sends each of the cookies, on so many connections, to the route that it was
// told, and an answer that is no success is an error.
func TestWrk(t *testing.T) {
	if err := rig.Install(t.Context(), rig.PackageWrk); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	seen, remotes := make(map[string]int), make(map[string]bool)
	status := http.StatusOK
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen[r.URL.Path+" "+r.Header.Get("Cookie")]++
		remotes[r.RemoteAddr] = true
		w.WriteHeader(status)
	}))
	defer srv.Close()
	load := rig.Wrk{Addr: srv.Listener.Addr().String(), Route: "/x", Cookies: []string{"a=1", "a=2; b=3", ""}, Conns: 3, Seconds: 1, Seed: 1}
	r, err := load.Run(t.Context())
	for err != nil && load.Seconds < 60 { // a second may be too short for any answer
		mu.Lock()
		clear(seen)
		clear(remotes)
		mu.Unlock()
		load.Seconds *= 4
		r, err = load.Run(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	total := 0
	for _, n := range seen {
		total += n
	}
	if len(seen) != 3 || seen["/x a=1"] == 0 || seen["/x a=2; b=3"] == 0 || seen["/x "] == 0 {
		t.Errorf("requests: got %v, want those of the three cookies", seen)
	}
	// It measures the server's speed with a connection of its own first, if at all.
	if r.Requests > total || r.PerSecond <= 0 || len(remotes) < 3 || len(remotes) > 4 {
		t.Errorf("got %+v, %d requests at the server on %d connections, want no fewer requests there, and three", r, total, len(remotes))
	}
	status, load.Seconds = http.StatusServiceUnavailable, 1
	mu.Unlock()
	if r, err := load.Run(t.Context()); err == nil {
		t.Errorf("answers of status 503: got %+v, want an error", r)
	}
}
