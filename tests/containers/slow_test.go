package containers

import (
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"
)

// slowFaults wants an end to every wait for a client, at the balancer and in the
// program: who sends a request byte by byte would hold its connection for ever.
func slowFaults(balancer, program string) (faults []string) {
	for _, wait := range []string{"connect", "client", "server", "http-request"} {
		if !regexp.MustCompile(`(?m)^ +timeout ` + wait + ` +[1-9][0-9]*m?s$`).MatchString(balancer) {
			faults = append(faults, "haproxy.cfg: no timeout "+wait)
		}
	}
	for _, wait := range []string{"ReadHeaderTimeout", "ReadTimeout", "WriteTimeout"} {
		if !regexp.MustCompile(`\b` + wait + `: +[1-9][0-9]* \* time\.Second\b`).MatchString(program) {
			faults = append(faults, "main.go: no "+wait)
		}
	}
	return faults
}

// The balancer and the program wait for nobody without an end, and each rule finds its
// fault.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	balancer, program := read(t, folder+"/haproxy.cfg"), read(t, folder+"/main.go")
	for _, fault := range slowFaults(balancer, program) {
		t.Error(fault)
	}
	both := balancer + program
	for _, tt := range []struct{ line, want string }{
		{"    timeout connect 2s\n", "no timeout connect"},
		{"    timeout client 60s\n", "no timeout client"},
		{"    timeout server 60s\n", "no timeout server"},
		{"    timeout http-request 10s\n", "no timeout http-request"},
		{"		ReadHeaderTimeout: 10 * time.Second,", "no ReadHeaderTimeout"},
		{"		ReadTimeout:       30 * time.Second,", "no ReadTimeout"},
		{"		WriteTimeout:      30 * time.Second,", "no WriteTimeout"},
	} {
		if strings.Count(both, tt.line) != 1 {
			t.Errorf("want %q once", tt.line)
			continue
		}
		without := func(text string) string { return strings.Replace(text, tt.line, "", 1) }
		got := strings.Join(slowFaults(without(balancer), without(program)), "; ")
		if !strings.HasSuffix(got, tt.want) || strings.Contains(got, ";") {
			t.Errorf("%q is missing: got %q, want %q alone", tt.line, got, tt.want)
		}
	}
}

// HAProxy, with less patience than in the file, ends a request whose header does not,
// and a connection ahead of any request without a word.
func TestHalfARequest(t *testing.T) {
	t.Parallel()
	const nobody = "127.0.0.1:1"
	front := (&machine{t: t}).balancer(map[string]string{"one": nobody, "two": nobody}, "timeout http-request 10s", "timeout http-request 5s") // long enough to send half a one
	for sent, want := range map[string]string{"": "", "GET / HTTP/1.1\r\nHost: loc": "HTTP/1.1 408 "} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(front, "http://"))
		must(t, err)
		defer conn.Close()
		must(t, conn.SetDeadline(time.Now().Add(patience)))
		_, err = conn.Write([]byte(sent))
		must(t, err)
		got, err := io.ReadAll(conn)
		must(t, err)
		if !strings.HasPrefix(string(got), want) || want == "" && len(got) > 0 {
			t.Errorf("%q: got %q, want %q", sent, got, want)
		}
	}
}
