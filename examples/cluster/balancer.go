package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"sync"
	"time"
)

const (
	healthInterval = 500 * time.Millisecond
	healthTimeout  = 2 * time.Second
	answerTimeout  = time.Minute // until the first byte
)

// errNobody says that no backend takes requests.
var errNobody = errors.New("no process is up")

// balancer passes requests on to backends in turn. It knows nothing of sessions:
// any backend can answer any request.
type balancer struct {
	http.Handler

	mu       sync.Mutex
	backends []*backend
	next     int
}

// backend is one process, as the balancer sees it. Its fields are guarded by the
// balancer's mu.
type backend struct {
	name      string
	host      string          // its address
	transport *http.Transport // its connections
	open      bool            // it is there, and gets requests
	unwell    bool            // but has not answered lately
	underWay  int             // requests
	idle      chan struct{}   // closed when underWay is 0, for drain
	answered  int
}

func newBalancer() *balancer {
	b := &balancer{}
	b.Handler = &httputil.ReverseProxy{
		Transport: b,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme = "http" // the host is chosen at each attempt
			r.Out.Host = r.In.Host
			// X-Forwarded-Proto decides whether a cookie is Secure. Rewrite has
			// dropped what the browser may have sent under that name.
			r.SetXForwarded()
		},
		ErrorHandler: answerFailure,
		ErrorLog:     slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
	return b
}

// trouble is what the page says when nobody has answered.
type trouble struct{ Title, Text string }

func answerFailure(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, errNobody) {
		w.Header().Set("Retry-After", "1")
		render(w, http.StatusServiceUnavailable, troublePage, trouble{"No process is up", "There is nobody to answer you."})
		return
	}
	if r.Context().Err() == nil { // else the browser has gone
		slog.Warn("no answer", "method", r.Method, "error", err)
	}
	render(w, http.StatusBadGateway, troublePage, trouble{
		"No answer", "The process that had your request has ended. It may have done what you asked for, or not: only you can say whether to ask again.",
	})
}

func (b *balancer) add(name string) *backend {
	b.mu.Lock()
	defer b.mu.Unlock()
	be := &backend{name: name}
	b.backends = append(b.backends, be)
	return be
}

// RoundTrip sends a request to the next backend. Where the connection could not
// be made it goes on to another, and only then: a request that was sent may have
// been carried out, and must not be a second time.
func (b *balancer) RoundTrip(r *http.Request) (*http.Response, error) {
	var tried []*backend
	for {
		be, host, transport := b.take(tried)
		if be == nil {
			return nil, errNobody
		}
		out := r.Clone(r.Context())
		out.URL.Host = host
		if r.Body != nil {
			out.Body = io.NopCloser(r.Body) // a failed attempt closes it, unread
		}
		res, err := transport.RoundTrip(out)
		if err == nil {
			res.Body = &answer{ReadCloser: res.Body, done: sync.OnceFunc(func() { b.done(be, true) })}
			return res, nil
		}
		b.done(be, false)
		if op := new(net.OpError); !errors.As(err, &op) || op.Op != "dial" {
			return nil, err
		}
		b.setUnwell(be, true)
		tried = append(tried, be)
	}
}

// answer tells when a response has been read.
type answer struct {
	io.ReadCloser
	done func()
}

func (a *answer) Close() error {
	defer a.done()
	return a.ReadCloser.Close()
}

// take chooses the next backend that was not tried yet: one that is well, else
// any, for the health check may be wrong about all of them.
func (b *balancer) take(tried []*backend) (*backend, string, *http.Transport) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, unwell := range []bool{false, true} {
		for i := range b.backends {
			at := (b.next + i) % len(b.backends)
			be := b.backends[at]
			if be.open && be.unwell == unwell && !slices.Contains(tried, be) {
				b.next = at + 1
				be.underWay++
				return be, be.host, be.transport
			}
		}
	}
	return nil, "", nil
}

func (b *balancer) done(be *backend, answered bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if answered {
		be.answered++
	}
	if be.underWay--; be.underWay == 0 && be.idle != nil {
		close(be.idle)
		be.idle = nil
	}
}

// open lets a backend have requests, at a new address.
func (b *balancer) open(be *backend, host string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	be.host, be.open, be.unwell = host, true, false
	be.transport = &http.Transport{MaxIdleConnsPerHost: 100, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: answerTimeout, ExpectContinueTimeout: answerTimeout}
}

// close keeps requests away from a backend.
func (b *balancer) close(be *backend) {
	b.mu.Lock()
	defer b.mu.Unlock()
	be.open = false
	if be.transport != nil {
		be.transport.CloseIdleConnections()
	}
}

// drain keeps new requests away from a backend and waits for those under way. As
// both happen under one lock, a backend that is stopped afterwards loses none.
func (b *balancer) drain(ctx context.Context, be *backend) error {
	b.mu.Lock()
	be.open = false
	idle, underWay := be.idle, be.underWay
	if underWay > 0 && idle == nil {
		idle = make(chan struct{})
		be.idle = idle
	}
	b.mu.Unlock()
	if underWay == 0 {
		return nil
	}
	slog.Info("waiting for requests under way", "process", be.name, "requests", underWay)
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watch asks every open backend for /healthz, again and again, until ctx ends.
func (b *balancer) watch(ctx context.Context) {
	tick := time.NewTicker(healthInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		b.mu.Lock()
		backends := slices.Clone(b.backends)
		b.mu.Unlock()
		var wg sync.WaitGroup
		for _, be := range backends {
			wg.Go(func() { b.check(ctx, be) })
		}
		wg.Wait()
	}
}

func (b *balancer) check(ctx context.Context, be *backend) {
	b.mu.Lock()
	open, host, transport := be.open, be.host, be.transport
	b.mu.Unlock()
	if !open {
		return
	}
	checking, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(checking, "GET", "http://"+host+"/healthz", nil)
	if err != nil {
		panic(err) // the host is a listener's address
	}
	res, err := transport.RoundTrip(req)
	if err == nil {
		res.Body.Close()
	}
	if ctx.Err() == nil {
		b.setUnwell(be, err != nil || res.StatusCode != http.StatusOK)
	}
}

func (b *balancer) setUnwell(be *backend, unwell bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !be.open || be.unwell == unwell {
		return
	}
	be.unwell = unwell
	if unwell {
		slog.Warn("a process does not answer", "process", be.name)
	} else {
		slog.Info("a process answers again", "process", be.name)
	}
}
