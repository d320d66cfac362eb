package pgtable_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/pgtest"
)

// patience bounds every wait that should be short.
const patience = time.Minute

// front stands before the server and answers each connection as it is told.
type front struct {
	net.Listener
	answer func(n int, conn net.Conn) // n counts from 0; the connection is closed after it
}

func newFront(t *testing.T, answer func(n int, conn net.Conn)) *front {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{l, answer}
	var all sync.WaitGroup
	all.Go(func() {
		for n := 0; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				answer(n, conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	return f
}

// says answers with an error of the server's.
func says(conn net.Conn, code, message string) {
	b := pgproto3.NewBackend(conn, conn)
	if _, err := b.ReceiveStartupMessage(); err != nil {
		return
	}
	b.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: code, Message: message})
	_ = b.Flush()
}

// through connects to the server of a URL.
func through(url string) func(conn net.Conn) {
	return func(conn net.Conn) {
		cfg, err := pgx.ParseConfig(url)
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", net.JoinHostPort(cfg.Host, fmt.Sprint(cfg.Port)))
		if err != nil {
			return
		}
		defer server.Close()
		go func() {
			_, _ = io.Copy(server, conn)
			server.Close()
		}()
		_, _ = io.Copy(conn, server)
	}
}

// poolAt returns a pool on the database of a URL, by other addresses.
func poolAt(t *testing.T, url string, opt func(*pgxpool.Config), hosts ...net.Addr) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	cfg.ConnConfig.Fallbacks = nil
	for i, addr := range hosts {
		a := addr.(*net.TCPAddr)
		if i == 0 {
			cfg.ConnConfig.Host, cfg.ConnConfig.Port = a.IP.String(), uint16(a.Port)
			continue
		}
		cfg.ConnConfig.Fallbacks = append(cfg.ConnConfig.Fallbacks, &pgconn.FallbackConfig{Host: a.IP.String(), Port: uint16(a.Port)})
	}
	if opt != nil {
		opt(cfg)
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// A program that starts before its database waits, says so once and says when it
// has come.
func TestSetupWaitsForTheDatabase(t *testing.T) {
	url := pgtest.URL(t)
	pass := through(url)
	for _, tt := range []struct {
		name string
		not  func(conn net.Conn) // yet
		want string              // of the reason, in the log
	}{
		{"closes the connection", func(net.Conn) {}, "failed to connect"}, // EOF, or a reset
		{"is starting up", func(c net.Conn) { says(c, "57P03", "the database system is starting up") }, "57P03"},
		{"is shutting down", func(c net.Conn) { says(c, "57P01", "terminating connection") }, "57P01"},
		{"has no connection left", func(c net.Conn) { says(c, "53300", "sorry, too many clients already") }, "53300"},
		{"is not there for a pooler", func(c net.Conn) {
			says(c, "08P01", "server login has been failing, cached error: connect failed (server_login_retry)")
		}, "server_login_retry"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFront(t, func(n int, conn net.Conn) {
				if n < 3 {
					tt.not(conn)
				} else {
					pass(conn)
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			table, log := newTable(t, poolAt(t, url, nil, f.Addr()), "schema_system", "session")
			if err := table.Setup(ctx); err != nil {
				t.Fatal(err)
			}
			got := log.String()
			if strings.Count(got, "session: waiting for the database") != 1 || strings.Count(got, "the database is there, after waiting") != 1 || !strings.Contains(got, tt.want) {
				t.Errorf("log: got\n%s\nwant a line about waiting with %q and one about its end", got, tt.want)
			}
		})
	}
}

// A name that no server has yet, and a port that nobody listens on.
func TestSetupWaitsForAnAddress(t *testing.T) {
	url := pgtest.URL(t)
	var tries atomic.Int64
	for _, tt := range []struct {
		name string
		opt  func(*pgxpool.Config)
	}{
		{"a name", func(cfg *pgxpool.Config) {
			lookup := cfg.ConnConfig.LookupFunc
			cfg.ConnConfig.LookupFunc = func(ctx context.Context, host string) ([]string, error) {
				if tries.Add(1) < 3 {
					return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
				}
				return lookup(ctx, host)
			}
		}},
		{"a port", func(cfg *pgxpool.Config) {
			dial := cfg.ConnConfig.DialFunc
			cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if tries.Add(1) < 3 {
					return dial(ctx, network, "127.0.0.1:1")
				}
				return dial(ctx, network, addr)
			}
		}},
		{"a standby that is promoted", func(cfg *pgxpool.Config) {
			cfg.ConnConfig.ValidateConnect = func(context.Context, *pgconn.PgConn) error {
				if tries.Add(1) < 3 {
					return pgconn.ErrReadOnlyConnection
				}
				return nil
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tries.Store(0)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			cfg, err := pgxpool.ParseConfig(url)
			if err != nil {
				t.Fatal("the URL cannot be parsed")
			}
			tt.opt(cfg)
			pool, err := pgxpool.NewWithConfig(ctx, cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			table, log := newTable(t, pool, "schema_system", "session")
			if err := table.Setup(ctx); err != nil || !strings.Contains(log.String(), "waiting for the database") {
				t.Errorf("got %v, and the log\n%s\nwant it to have waited", err, log)
			}
		})
	}
}

// What no waiting changes is an error at once: the first try is the last.
func TestSetupDoesNotWaitInVain(t *testing.T) {
	url := pgtest.URL(t)
	refused := func(net.Conn) {}
	for _, tt := range []struct {
		name  string
		hosts []func(conn net.Conn)
		want  string
	}{
		{"a wrong password", []func(net.Conn){func(c net.Conn) { says(c, "28P01", "password authentication failed") }}, "password is wrong"},
		{"no such user", []func(net.Conn){func(c net.Conn) { says(c, "28000", "role does not exist") }}, "does not let this user in"},
		{"no such database", []func(net.Conn){func(c net.Conn) { says(c, "3D000", "database does not exist") }}, "createdb"},
		{"a wrong password at the second host", []func(net.Conn){refused, func(c net.Conn) { says(c, "28P01", "password authentication failed") }}, "password is wrong"},
		{"a wrong password behind a pooler", []func(net.Conn){func(c net.Conn) {
			says(c, "08P01", "server login has been failing, cached error: password authentication failed (server_login_retry)")
		}}, "authentication failed"},
		{"an answer that no waiting changes", []func(net.Conn){func(c net.Conn) { says(c, "0A000", "no") }}, "0A000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var addrs []net.Addr
			var dials atomic.Int64
			for i, answer := range tt.hosts {
				addrs = append(addrs, newFront(t, func(_ int, c net.Conn) {
					if i == len(tt.hosts)-1 { // pgx comes to the others once more, with a cancel request
						dials.Add(1)
					}
					answer(c)
				}).Addr())
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			table, log := newTable(t, poolAt(t, url, nil, addrs...), "schema_system", "session")
			err := table.Setup(ctx)
			if err == nil || !strings.Contains(err.Error(), tt.want) || ctx.Err() != nil {
				t.Fatalf("got %v, want an error with %q", err, tt.want)
			}
			if strings.Contains(log.String(), "waiting") || dials.Load() != 1 {
				t.Errorf("got %d connections and the log\n%s\nwant one try", dials.Load(), log)
			}
		})
	}
}

// One host of two that may come is enough to wait for, and so is one way of two:
// with TLS, which the server refuses while it starts, and without.
func TestSetupWaitsForOneHostOfTwo(t *testing.T) {
	url := pgtest.URL(t)
	pass := through(url)
	first := newFront(t, func(_ int, c net.Conn) { says(c, "28000", "no pg_hba.conf entry") })
	second := newFront(t, func(n int, c net.Conn) {
		if n < 2 {
			says(c, "57P03", "starting up")
			return
		}
		pass(c)
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	table, log := newTable(t, poolAt(t, url, nil, first.Addr(), second.Addr()), "schema_system", "session")
	if err := table.Setup(ctx); err != nil || !strings.Contains(log.String(), "waiting") {
		t.Errorf("got %v, and the log\n%s\nwant it to have waited", err, log)
	}
}

// A wait that is over names the last reason, and is over at once when its context
// is, also in the middle of a dial into silence, with a pool that would dial for
// two minutes.
func TestSetupWaitEndsWithItsContext(t *testing.T) {
	url := pgtest.URL(t)
	none := func(cfg *pgxpool.Config) { cfg.ConnConfig.ConnectTimeout, cfg.MaxConns = 0, 1 }
	t.Run("between two tries", func(t *testing.T) {
		f := newFront(t, func(_ int, c net.Conn) { says(c, "57P03", "the database system is starting up") })
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		table, _ := newTable(t, poolAt(t, url, none, f.Addr()), "schema_system", "session")
		table.Logger = slog.New(slog.NewTextHandler(&countingLog{line: "session: waiting for the database", n: 1, reached: cancel}, nil))
		err := table.Setup(ctx)
		if err == nil || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "starting up") || !strings.Contains(err.Error(), "waited for") {
			t.Errorf("got %v, want one that names the reason and the wait", err)
		}
	})
	t.Run("deadline", func(t *testing.T) {
		f := newFront(t, func(_ int, c net.Conn) { says(c, "57P03", "the database system is starting up") })
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		table, _ := newTable(t, poolAt(t, url, none, f.Addr()), "schema_system", "session")
		if err := table.Setup(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
	})
	t.Run("cancelled in a dial", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		silent := make(chan struct{})
		defer close(silent)
		f := newFront(t, func(int, net.Conn) {
			cancel()
			<-silent
		})
		ended := make(chan error, 1)
		table, _ := newTable(t, poolAt(t, url, none, f.Addr()), "schema_system", "session")
		go func() { ended <- table.Setup(ctx) }()
		select {
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want it cancelled", err)
			}
		case <-time.After(patience):
			t.Error("it goes on after its context has ended")
		}
	})
	t.Run("a dial into silence does not keep the pool's only place", func(t *testing.T) {
		pass, silent := through(url), make(chan struct{})
		defer close(silent)
		f := newFront(t, func(n int, c net.Conn) {
			if n == 0 {
				<-silent
				return
			}
			pass(c)
		})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		pool := poolAt(t, url, none, f.Addr())
		table, log := newTable(t, pool, "schema_system", "session")
		if err := table.Setup(ctx); err != nil || !strings.Contains(log.String(), "waiting") {
			t.Errorf("got %v, and the log\n%s\nwant it to have waited, and less than two minutes", err, log)
		}
	})
}

// Without a deadline of its caller's there is one all the same.
func TestSetupSaysNowAndThenThatItWaits(t *testing.T) {
	f := newFront(t, func(_ int, c net.Conn) { says(c, "57P03", "starting up") })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	table, _ := newTable(t, poolAt(t, pgtest.URL(t), nil, f.Addr()), "schema_system", "session")
	log := &countingLog{line: "session: waiting for the database", n: 2, reached: cancel}
	table.Logger = slog.New(slog.NewTextHandler(log, nil))
	if err := table.Setup(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it to have gone on until it had said so twice", err)
	}
}

// countingLog calls reached when a line has been logged n times.
type countingLog struct {
	line    string
	n       int
	reached func()
}

func (l *countingLog) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(l.line)) {
		if l.n--; l.n == 0 {
			l.reached()
		}
	}
	return len(b), nil
}

// What is unwise about a pool is said before anybody waits for it.
func TestPoolWarnings(t *testing.T) {
	url := pgtest.URL(t)
	for _, tt := range []struct {
		name string
		opt  func(*pgxpool.Config)
		want string
	}{
		{"as it should be", func(cfg *pgxpool.Config) {}, ""},
		{"no connect timeout", func(cfg *pgxpool.Config) { cfg.ConnConfig.ConnectTimeout = 0 }, "ConnectTimeout"},
		{"a long connect timeout", func(cfg *pgxpool.Config) { cfg.ConnConfig.ConnectTimeout = 6 * time.Second }, "ConnectTimeout"},
		{"three connections", func(cfg *pgxpool.Config) { cfg.MaxConns = 3 }, "maxConns=3"},
		{"an encoding of its own", func(cfg *pgxpool.Config) { cfg.ConnConfig.RuntimeParams["client_encoding"] = "LATIN1" }, "clientEncoding=LATIN1"},
		{"read-only", func(cfg *pgxpool.Config) { cfg.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on" }, "read-only"},
		{"a statement timeout", func(cfg *pgxpool.Config) { cfg.ConnConfig.RuntimeParams["statement_timeout"] = "3s" }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			made, _ := newTable(t, poolAt(t, url, nil, serverOf(t, url)), "schema_system", "session")
			if err := made.Setup(t.Context()); err != nil {
				t.Fatal(err)
			}
			table, log := newTable(t, poolAt(t, url, tt.opt, serverOf(t, url)), "schema_system", "session")
			if err := table.Setup(t.Context()); err != nil {
				t.Fatal(err)
			}
			got := warnings(log)
			if len(got) != min(len(tt.want), 1) || tt.want != "" && !strings.Contains(got[0], tt.want) {
				t.Errorf("got the warnings %q, want %q", got, tt.want)
			}
		})
	}
}

func serverOf(t *testing.T, url string) net.Addr {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	addr, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(cfg.Host, fmt.Sprint(cfg.Port)))
	if err != nil {
		t.Fatal(err)
	}
	return addr
}
