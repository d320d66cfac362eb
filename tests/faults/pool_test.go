package faults_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/tests/faults"
)

// Other clients take every connection that the server has, and the programs lose
// theirs.
func TestFaultTooManyConnections(t *testing.T) {
	server := pgtest.Own(t, pgtest.Options{Settings: map[string]string{"max_connections": "24"}})
	a := admin(t, server.URL()) // a superuser: some connections are kept for it
	execute(t, a, "CREATE ROLE ordinary LOGIN PASSWORD 'ordinary'")
	execute(t, a, "GRANT CREATE ON DATABASE postgres TO ordinary")
	u, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	u.User = url.UserPassword("ordinary", "ordinary")
	r := newRig(t, u.String(), rigOptions{timeout: brief, load: crowd})
	u.RawQuery += "&application_name=other"
	var others []*pgx.Conn
	release := func() {
		for _, c := range others {
			_ = c.Close(t.Context())
		}
		others = nil
	}
	defer release()
	// While their pools are held the programs do not reconnect.
	one, two := r.hold(r.programs[0]), r.hold(r.programs[1])
	execute(t, a, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", applicationName)
	const ordinary = 24 - 1 - 3 // one is ours, and three are kept for superusers
	for len(others) < ordinary {
		if c, err := pgx.Connect(t.Context(), u.String()); err == nil {
			others = append(others, c)
		}
	}
	one()
	two()
	r.waitRefused()
	release()
	r.wait(recovery)
	res := r.finish("too many connections")
	res.refused(t)
	res.persisted(t, brief)
	res.reconnected(t, 2)
}

// The application's own queries hold the whole pool.
func TestFaultPoolExhausted(t *testing.T) {
	dbURL := pgtest.URL(t)
	r := newRig(t, dbURL, rigOptions{timeout: brief, load: crowd})
	longest := bystander(t, dbURL)
	before := r.storeErrors()
	one, two := r.hold(r.programs[0]), r.hold(r.programs[1])
	r.waitRefused()
	one()
	two()
	r.wait(recovery)
	took := longest()
	res := r.finish("pool exhausted")
	res.refused(t)
	res.spared(t, took) // who has waited for long has little time left for the statement
	if got := r.storeErrors() - before; got < refusals {
		t.Errorf("Stats.StoreErrors: got %d more, want at least %d", got, refusals)
	}
}

// Reads that wait for a lock are cancelled, writes are left alone, and all
// connections survive.
func TestFaultTableLocked(t *testing.T) {
	locked(t, "LOCK TABLE", pgtest.URL(t), rigOptions{timeout: brief, load: crowd}, func(*pgx.Conn, string) {})
}

// The server's limit is short, so that the reads come to their end one after the other;
// it is lifted before everybody is asked again, for a busy machine may need longer.
func TestFaultStatementTimeout(t *testing.T) {
	locked(t, "LOCK TABLE, statement_timeout", newServer(t).URL(), rigOptions{timeout: ample}, func(a *pgx.Conn, to string) {
		execute(t, a, "ALTER SYSTEM SET statement_timeout = "+to)
		execute(t, a, "SELECT pg_reload_conf()")
	})
}

// locked locks the table, and limits statements meanwhile.
func locked(t *testing.T, name, dbURL string, o rigOptions, limit func(a *pgx.Conn, to string)) {
	r := newRig(t, dbURL, o)
	a := admin(t, dbURL)
	limit(a, "'500ms'")
	longest := bystander(t, dbURL)
	execute(t, a, "BEGIN")
	execute(t, a, "LOCK TABLE schema_system.session IN ACCESS EXCLUSIVE MODE")
	r.waitRefused()
	execute(t, a, "COMMIT")
	limit(a, "0")
	took := longest()
	r.wait(recovery)
	res := r.finish(name)
	res.refused(t)
	res.spared(t, took)
}

// spared checks that no connection was lost, where a bystander has needed so long to
// connect. Who cancels a late statement connects, and gives up a connection that is not
// free again two seconds later: a machine that stands still for so long costs what the
// pools hold, once.
func (r *result) spared(t *testing.T, took time.Duration) {
	t.Helper()
	if took < 500*time.Millisecond {
		r.kept(t)
	} else if r.opened > 2*conns {
		t.Errorf("connections opened: got %d, want %d at most, on a machine that needs %v to connect", r.opened, 2*conns, took)
	}
}

// bystander connects to a server again and again. The end returns how long it has taken
// at most.
func bystander(t *testing.T, dbURL string) (end func() time.Duration) {
	t.Helper()
	var most time.Duration
	ended := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for {
			start := time.Now()
			c, err := pgx.Connect(t.Context(), dbURL)
			if err != nil {
				t.Error(err)
				return
			}
			_ = c.Close(t.Context())
			most = max(most, time.Since(start))
			select {
			case <-ended:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	return func() time.Duration {
		close(ended)
		all.Wait()
		return most
	}
}

// Handlers hold every connection of the pool, by open rows in a transaction, and
// write their pages meanwhile. Their sessions' touches are due, and wait for what
// these very handlers hold. Nobody stands still for StoreTimeout.
func TestFaultHandlersHoldThePool(t *testing.T) {
	const held, times = 4, 3
	p, err := faults.StartProgram(t.Context(), pgtest.URL(t), faults.ProgramOptions{
		Pool: func(cfg *pgxpool.Config) { cfg.MaxConns = held },
		Config: func(cfg *session.Config) {
			cfg.StoreTimeout = time.Minute
			cfg.IdleTimeout = time.Hour
			cfg.TouchInterval = time.Millisecond // always due
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	var all sync.WaitGroup // until each has its connection
	pages := httptest.NewServer(p.Manager.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if session.From(r.Context()).IsNew() {
			t.Error("got no session, want one")
		}
		tx, err := p.Pool.Begin(r.Context())
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(r.Context())) }()
		rows, err := tx.Query(r.Context(), "SELECT n FROM generate_series(1, 100) n")
		if err != nil {
			t.Error(err)
			return
		}
		defer rows.Close()
		all.Done()
		all.Wait()
		for rows.Next() {
			fmt.Fprintln(w, "row")
		}
	})))
	t.Cleanup(pages.Close)
	var clients []*http.Client
	for i := range held {
		jar, _ := cookiejar.New(nil) // never fails
		c := &http.Client{Jar: jar, Timeout: time.Minute}
		resp, err := c.Post(fmt.Sprintf("%s/login?user=%d&serial=%d", p.URL, i, i), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		clients = append(clients, c)
	}
	errs := p.Manager.Stats().StoreErrors
	var rep faults.Report
	for range times {
		all.Add(held)
		var done sync.WaitGroup
		var ok atomic.Int64
		start := time.Now()
		for _, c := range clients {
			done.Go(func() {
				resp, err := c.Get(pages.URL) // cookies do not know ports
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				if body, err := io.ReadAll(resp.Body); resp.StatusCode == 200 && err == nil && strings.Count(string(body), "row\n") == 100 {
					ok.Add(1)
				}
			})
		}
		done.Wait()
		rep.Requests += held
		rep.OK += int(ok.Load())
		rep.LongestGap = max(rep.LongestGap, time.Since(start))
	}
	if rep.OK != rep.Requests {
		t.Errorf("whole pages: got %d of %d", rep.OK, rep.Requests)
	}
	if rep.LongestGap > 30*time.Second {
		t.Errorf("the slowest: got %v, want nobody to wait for StoreTimeout, a minute", rep.LongestGap)
	}
	if got := p.Manager.Stats().StoreErrors - errs; got < times {
		t.Errorf("touches given up: got %d, want %d at least, one each time", got, times)
	}
	table.add("handlers that hold the pool and write pages", &rep, faults.Findings{}, 0)
}
