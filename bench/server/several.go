package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"

	"github.com/pgsession/session/bench/internal/app"
)

// place is one of several databases: BENCH_DATABASES has their URLs, with spaces
// between them. Each has a Manager and a pool of its own, and the host name says whose
// a request is: that of the second database begins with "d1.", of the third with "d2.",
// and the first gets all the others. What they have come to is at /used.
type place struct {
	sessions *session.Manager
	handler  http.Handler
	pool     *pgxpool.Pool
	traffic  traffic
}

// traffic are the bytes of all connections to one database.
type traffic struct{ sent, received atomic.Int64 }

// counted is a connection whose bytes are counted.
type counted struct {
	net.Conn
	of *traffic
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.of.received.Add(int64(n))
	return n, err
}

func (c counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.of.sent.Add(int64(n))
	return n, err
}

func several(ctx context.Context, urls []string, opts session.PostgresOptions) (http.Handler, func(), error) {
	var all []*place
	end := func() {
		for _, p := range all {
			_ = p.sessions.Close()
			p.pool.Close()
		}
	}
	for _, url := range urls {
		p, err := openPlace(ctx, url, opts)
		if err != nil {
			end()
			return nil, nil, err
		}
		all = append(all, p)
	}
	h := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/used" {
			used(w, all)
			return
		}
		all[choose(r.Host, len(all))].handler.ServeHTTP(w, r)
	}
	return http.HandlerFunc(h), end, nil
}

// choose returns whose a request with this host name is.
func choose(host string, n int) int {
	label, _, _ := strings.Cut(host, ".")
	if digits, ok := strings.CutPrefix(label, "d"); ok {
		if i, err := strconv.Atoi(digits); err == nil && i >= 0 && i < n {
			return i
		}
	}
	return 0
}

func openPlace(ctx context.Context, url string, opts session.PostgresOptions) (*place, error) {
	cfg, err := app.PoolConfig(url)
	if err != nil {
		return nil, err
	}
	p := new(place)
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return counted{c, &p.traffic}, nil
	}
	if p.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return nil, err
	}
	m, store, err := open(ctx, p.pool, opts)
	if err != nil {
		p.pool.Close()
		return nil, err
	}
	p.sessions, p.handler = m, m.Handler(routes(store))
	return p, nil
}

// used answers with what each database has come to so far.
func used(w http.ResponseWriter, all []*place) {
	answer := make([]app.Used, len(all))
	for i, p := range all {
		s := p.sessions.Stats()
		answer[i] = app.Used{
			Sent: p.traffic.sent.Load(), Received: p.traffic.received.Load(),
			Loads: s.Loads, Creates: s.Creates, Saves: s.Saves, Touches: s.Touches, Destroys: s.Destroys,
		}
	}
	b, err := json.Marshal(answer)
	if err != nil {
		app.Fail(w, err)
		return
	}
	app.Text(w, http.StatusOK, string(b))
}
