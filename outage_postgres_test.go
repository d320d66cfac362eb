package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// The numbers differ, and Windows has neither.
var sigStop, sigCont = func() (stop, cont syscall.Signal) {
	if runtime.GOOS == "linux" {
		return 19, 18
	}
	return 17, 19
}()

func signalAll(t *testing.T, pids []int, sig syscall.Signal) {
	for _, pid := range pids {
		p, err := os.FindProcess(pid)
		if err == nil {
			err = p.Signal(sig)
		}
		if err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("signal: %v", err)
		}
	}
}

// cuttingProxy is a TCP proxy before PostgreSQL that can break a connection.
type cuttingProxy struct {
	url string

	mu      sync.Mutex
	sql     string // what the statement to be cut contains; "" for none
	forward bool   // carried out, but not answered
	hangs   []*hang
}

// hang holds up the connection that first sends a text.
type hang struct {
	text string
	hit  atomic.Bool
	over chan struct{}
}

// hang holds up the connection that next sends text, until release or the end of
// the test: as if the network had swallowed what it sends.
func (p *cuttingProxy) hang(t *testing.T, text string) (h *hang, release func()) {
	h = &hang{text: text, over: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hangs = append(p.hangs, h)
	release = sync.OnceFunc(func() { close(h.over) })
	t.Cleanup(release)
	return h, release
}

// pass returns when b may go on.
func (p *cuttingProxy) pass(b []byte) {
	p.mu.Lock()
	i := slices.IndexFunc(p.hangs, func(h *hang) bool { return bytes.Contains(b, []byte(h.text)) })
	if i < 0 {
		p.mu.Unlock()
		return
	}
	h := p.hangs[i]
	p.hangs = slices.Delete(p.hangs, i, i+1)
	p.mu.Unlock()
	h.hit.Store(true)
	<-h.over
}

// cut breaks the connection that next sends a statement with sql in it; hit
// reports whether that has happened.
func (p *cuttingProxy) cut(sql string, forward bool) (hit func() bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sql, p.forward = sql, forward
	return func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.sql == ""
	}
}

func (p *cuttingProxy) pipe(client, server net.Conn) {
	defer client.Close()
	defer server.Close()
	var doomed atomic.Bool
	go func() {
		defer client.Close()
		b := make([]byte, 1<<16)
		for {
			n, err := server.Read(b)
			// The answer comes after the commit.
			if err != nil || doomed.Load() {
				return
			}
			if _, err := client.Write(b[:n]); err != nil {
				return
			}
		}
	}()
	b := make([]byte, 1<<16)
	for {
		n, err := client.Read(b)
		if err != nil {
			return
		}
		p.mu.Lock()
		hit := p.sql != "" && bytes.Contains(b[:n], []byte(p.sql))
		if hit {
			p.sql = ""
		}
		forward := p.forward
		p.mu.Unlock()
		if hit {
			doomed.Store(true)
			if !forward {
				return
			}
		}
		p.pass(b[:n])
		if _, err := server.Write(b[:n]); err != nil {
			return
		}
	}
}

func newCuttingProxy(t *testing.T, dbURL string) *cuttingProxy {
	t.Helper()
	u, err := url.Parse(dbURL)
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	target := u.Host
	u.Host = l.Addr().String()
	p := &cuttingProxy{url: u.String()}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			go p.pipe(client, server)
		}
	}()
	return p
}

func TestPostgresRestarts(t *testing.T) {
	server := pgtest.Own(t, pgtest.Options{})
	admin := func(t *testing.T) *pgxpool.Pool { return openPool(t, server.URL(), noPing) }
	restart := func(mode string) func(*testing.T) {
		return func(t *testing.T) {
			if err := server.Restart(context.Background(), mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	terminate := func(limit string) func(*testing.T) {
		return func(t *testing.T) {
			a := admin(t)
			pids := queryOne[[]int](t, a, `SELECT array_agg(pid) FROM (SELECT pid FROM pg_stat_activity WHERE application_name = 'victim' LIMIT `+limit+`) v`)
			execSQL(t, a, "SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) pid", pids)
			awaitSQL(t, a, "the terminated are gone", "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = ANY($1::int[])", pids)
		}
	}
	kill := func(t *testing.T) { // the postmaster then restarts everything
		a := admin(t)
		pid := queryOne[int](t, a, "SELECT pid FROM pg_stat_activity WHERE application_name = 'victim' LIMIT 1")
		p, err := os.FindProcess(pid)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(patience); ; { // until it has noticed
			var there bool
			err := a.QueryRow(context.Background(), "SELECT true FROM pg_stat_activity WHERE pid = $1", pid).Scan(&there)
			if errors.Is(err, pgx.ErrNoRows) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the killed backend is still listed after %v", patience)
			}
		}
	}
	victims := func(cfg *pgxpool.Config) {
		cfg.ConnConfig.RuntimeParams["application_name"] = "victim"
		noPing(cfg)
		cfg.MaxConns = 4
	}
	for _, tt := range []struct {
		name string
		act  func(*testing.T)
		said bool // the server says goodbye, so that nothing is uncertain
	}{
		{"fast restart", restart("fast"), true},
		{"immediate restart", restart("immediate"), false},
		{"one backend terminated", terminate("1"), true},
		{"all backends terminated", terminate("ALL"), true},
		{"a backend killed", kill, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const programs, each = 4, 8
			var managers [programs]*session.Manager
			var pools [programs]*pgxpool.Pool
			for i := range managers {
				pools[i] = openPool(t, server.URL(), victims)
				managers[i] = patientManager(t, newStore(t, pools[i]))
			}
			warm := func() {
				for _, p := range pools {
					warmUp(t, p)
				}
			}
			var cookies [3 * each]string
			for i := range cookies {
				cookies[i], _ = loginCounter(t, managers[0])
			}
			// All but the reads have loaded their sessions before and save them
			// afterwards, so that it is the saves that meet dead connections.
			var slow []func() *response
			for i, c := range cookies[each:] {
				use := increment
				if i >= each {
					use = func(s *session.Session) { s.Renew(); increment(s) }
				}
				slow = append(slow, startSlow(managers[i%programs], c, use))
			}
			warm()
			tt.act(t)
			together(len(cookies), func(i int) {
				if i < each {
					if got := counted(t, managers[i%programs], cookies[i]); got != 0 {
						t.Errorf("a read: got count %d, want 0: no outage is a logout", got)
					}
					return
				}
				resp := slow[i-each]()
				if resp.status != http.StatusOK {
					t.Errorf("a save: got status %d, want 200", resp.status)
				}
				if i < 2*each {
					return
				}
				if counted(t, managers[0], cookies[i]) != -1 {
					t.Error("the old ID: got a record, want none")
				}
				if cookies[i] = resp.newCookie(); cookies[i] == "" {
					t.Error("a renewal: got no cookie, want one")
				}
			})
			for i, c := range cookies {
				if got, want := counted(t, managers[0], c), min(i/each, 1); got != want {
					t.Errorf("count: got %d, want %d", got, want)
				}
			}

			if tt.said { // many requests change the same key
				slow = nil
				for i := range 3 * each {
					slow = append(slow, startSlow(managers[i%programs], cookies[0], increment))
				}
				warm()
				tt.act(t)
				together(3*each, func(i int) {
					if resp := slow[i](); resp.status != http.StatusOK {
						t.Errorf("a shared save: got status %d, want 200", resp.status)
					}
				})
				if got := counted(t, managers[0], cookies[0]); got != 3*each {
					t.Errorf("shared count: got %d, want %d", got, 3*each)
				}
			}
			warm()
			if got := countRecords(t, pools[0]); got != len(cookies) {
				t.Errorf("records: got %d, want %d", got, len(cookies))
			}
			execSQL(t, pools[0], "DELETE FROM schema_system.session")
		})
	}

	t.Run("stopped", func(t *testing.T) {
		store := newStore(t, openPool(t, server.URL(), victims))
		m, patient := patientManager(t, store, storeTimeout(250*time.Millisecond)), patientManager(t, store)
		cookie, _ := loginCounter(t, patientManager(t, newStore(t, openPool(t, server.URL())))) // m's time may be too short for it
		if err := server.Stop(context.Background(), "fast"); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			name   string
			cookie string
			use    func(*session.Session)
			want   int
		}{
			{"a read", cookie, func(s *session.Session) { countKey.Get(s) }, 503},
			{"a save", cookie, increment, 503},
			{"a login", "", increment, 503},
			{"a logout", cookie, func(s *session.Session) { s.Destroy() }, 503},
			{"a public page", cookie, func(*session.Session) {}, 200},
			{"a first visit", "", func(s *session.Session) { countKey.Get(s) }, 200},
			{"a page that detaches its session", cookie, func(s *session.Session) { countKey.Get(s); s.Detach() }, 200},
		} {
			slow := 0 // a machine that stands still for once is no fault
			ask := func() (failed error) {
				start := time.Now()
				resp := useSession(m, tt.cookie, func(s *session.Session) { tt.use(s); failed = s.Err() })
				if resp.status != tt.want || len(resp.cookies()) != 0 {
					t.Errorf("%s: got status %d and %d cookies, want %d and none", tt.name, resp.status, len(resp.cookies()), tt.want)
				}
				took := time.Since(start)
				if slow++; took <= 3*time.Second {
					slow = 0
				}
				if slow == 3 {
					t.Errorf("%s: took %v, and so twice before, want about a quarter of a second", tt.name, took)
				}
				return failed
			}
			failed := ask()
			for n := 1; n < 3 && slow == n; n++ {
				failed = ask()
			}
			if tt.name == "a read" {
				until(t, "a read says that the connection was refused", func() bool {
					if strings.Contains(fmt.Sprint(failed), "refused") || strings.Contains(fmt.Sprint(failed), "connect:") {
						return true
					}
					failed = ask() // on a busy machine nobody had dialled yet
					return false
				})
			}
		}
		if err := server.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
		until(t, "the store lets all in again", func() bool {
			return useSession(patient, cookie, func(s *session.Session) { countKey.Get(s) }).status == 200
		})
		useSession(patient, cookie, increment)
		if got := counted(t, patient, cookie); got != 1 {
			t.Errorf("count after it: got %d, want 1: still logged in", got)
		}
	})

	t.Run("restarted under load", func(t *testing.T) {
		const clients = 8
		m := patientManager(t, newStore(t, openPool(t, server.URL(), victims)))
		var cookies [clients]string
		for i := range cookies {
			cookies[i], _ = loginCounter(t, m)
		}
		var counts [clients]atomic.Int64
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for i := range cookies {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if resp := useSession(m, cookies[i], increment); resp.status != http.StatusOK {
						t.Errorf("a save: got status %d, want 200", resp.status)
						return
					}
					counts[i].Add(1)
				}
			})
		}
		for _, mode := range []string{"fast", "immediate"} {
			a := admin(t)
			for i := range counts {
				for want := counts[i].Load() + 5; counts[i].Load() < want && !t.Failed(); {
					nap(t, a)
				}
			}
			restart(mode)(t)
		}
		close(stop)
		wg.Wait()
		for i := range cookies {
			if got, want := counted(t, m, cookies[i]), int(counts[i].Load()); got != want {
				t.Errorf("count: got %d, want %d", got, want)
			}
		}
	})

	t.Run("frozen", func(t *testing.T) {
		const limit = 500 * time.Millisecond
		pool := openPool(t, server.URL(), victims)
		store := newStore(t, pool)
		id := createRecord(t, store, `{"a":1}`)
		warmUp(t, pool)
		frozen := []int{server.PID()}
		rows, _ := pool.Query(t.Context(), "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'")
		pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil {
			t.Fatal(err)
		}
		frozen = append(frozen, pids...)
		thaw := sync.OnceFunc(func() { signalAll(t, frozen, sigCont) })
		t.Cleanup(thaw)
		signalAll(t, frozen, sigStop)
		calls := storeMethods(store, id)
		together(len(calls), func(i int) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			start := time.Now()
			err := calls[i].call(ctx)
			if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took > limit+patience {
				t.Errorf("%s: got %v after %v, want a deadline exceeded after %v", calls[i].name, err, took, limit)
			}
		})
		thaw()
		// What was late is done first: until then others fail at once.
		for deadline := time.Now().Add(patience); ; {
			err := store.Delete(t.Context(), "none")
			if err == nil {
				break
			}
			if !strings.Contains(err.Error(), "nothing was sent") || time.Now().After(deadline) {
				t.Fatalf("a write after it: got %v, want none or that others are late", err)
			}
			nap(t, pool)
		}
		// The late Delete may have happened: no answer came.
		if err := calls[0].call(t.Context()); err != nil && !errors.Is(err, session.ErrNotFound) {
			t.Errorf("Load after it: got %v, want an answer", err)
		}
		fresh := createRecord(t, store, `{"a":1}`)
		for _, c := range storeMethods(store, fresh) {
			if err := c.call(t.Context()); err != nil {
				t.Errorf("%s after it: got %v, want no error", c.name, err)
			}
		}
	})
}

// A statement reaches the server and is carried out, or does not reach it, and
// the connection breaks before the answer.
func TestPostgresReplyLost(t *testing.T) {
	for _, cut := range []struct {
		name    string
		forward bool
	}{
		{"reply lost", true},
		{"request lost", false},
	} {
		t.Run(cut.name, func(t *testing.T) {
			dbURL := pgtest.URL(t)
			direct := openPool(t, dbURL)
			proxy := newCuttingProxy(t, dbURL)
			// The SQL is in every message, for the proxy to see.
			pool := openPool(t, proxy.url, func(cfg *pgxpool.Config) { cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec })
			m := patientManager(t, newStore(t, pool))
			plain := patientManager(t, newStore(t, direct))
			for _, tt := range []struct {
				name, sql string
				use       func(*session.Session)
				count     int // afterwards; -1: no record
				renewed   bool
			}{
				{name: "Load", sql: "SELECT s.ctid, s.sess", use: func(s *session.Session) { countKey.Get(s) }},
				{name: "Update", sql: "SET sess", use: increment, count: 1},
				{name: "Set", sql: "SET sess", use: func(s *session.Session) { countKey.Set(s, 7) }, count: 7},
				{name: "a shorter idle timeout", sql: "SET sess", use: func(s *session.Session) { s.SetIdleTimeout(time.Hour); increment(s) }, count: 1},
				{name: "Renew", sql: "SET sid", use: func(s *session.Session) { s.Renew() }, renewed: true},
				{name: "Renew and Update", sql: "SET sid", use: func(s *session.Session) { s.Renew(); increment(s) }, count: 1, renewed: true},
				{name: "Touch", sql: "SET expire", use: func(s *session.Session) { countKey.Get(s) }},
				{name: "Destroy", sql: "DELETE", use: func(s *session.Session) { s.Destroy() }, count: -1},
				{name: "Destroy and a new session", sql: "DELETE", use: func(s *session.Session) { s.Destroy(); increment(s) }, count: 1, renewed: true},
				{name: "Create after Destroy", sql: "INSERT", use: func(s *session.Session) { s.Destroy(); increment(s) }, count: 1, renewed: true},
			} {
				t.Run(tt.name, func(t *testing.T) {
					cookie, _ := loginCounter(t, plain)
					execSQL(t, direct, "UPDATE schema_system.session SET expire = now() + interval '23 hours'")
					hit := proxy.cut(tt.sql, cut.forward)
					resp := useSession(m, cookie, tt.use)
					if resp.status != http.StatusOK {
						t.Errorf("status: got %d, want 200", resp.status)
					}
					if !hit() {
						t.Error("the proxy has seen no such statement")
					}
					old := cookie
					if tt.renewed {
						if cookie = resp.newCookie(); cookie == "" {
							t.Fatal("cookie: got none, want the new one")
						}
						if got := counted(t, plain, old); got != -1 {
							t.Error("the old ID: got a record, want none")
						}
					}
					if got := counted(t, plain, cookie); got != tt.count {
						t.Errorf("count: got %d, want %d", got, tt.count)
					}
					want := 1
					if tt.count < 0 {
						want = 0
					}
					if got := countRecords(t, direct); got != want {
						t.Errorf("records: got %d, want %d", got, want)
					}
					if tt.name == "Touch" {
						left := queryOne[float64](t, direct, "SELECT extract(epoch FROM expire - now())::float8 / 3600 FROM schema_system.session")
						if left < 23.9 {
							t.Errorf("time left: got %.1f h, want 24", left)
						}
					}
					execSQL(t, direct, "DELETE FROM schema_system.session")
				})
			}
			t.Run("Create", func(t *testing.T) {
				hit := proxy.cut("INSERT", cut.forward)
				resp := useSession(m, "", increment)
				if cookie := resp.newCookie(); resp.status != http.StatusOK || cookie == "" || counted(t, plain, cookie) != 1 || !hit() {
					t.Errorf("login: got status %d and cookie %t, want 200 and one that works", resp.status, cookie != "")
				}
				if got := countRecords(t, direct); got != 1 {
					t.Errorf("records: got %d, want 1: no orphan", got)
				}
			})
		})
	}
}

// A server that accepts and then says nothing, as behind a firewall that drops.
func TestPostgresMuteServer(t *testing.T) {
	dbURL := pgtest.URL(t)
	u, err := url.Parse(dbURL)
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	target := u.Host
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var mute atomic.Bool
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if mute.Load() {
					_, _ = io.Copy(io.Discard, c)
					return
				}
				s, err := net.Dial("tcp", target)
				if err != nil {
					return
				}
				defer s.Close()
				go func() { _, _ = io.Copy(c, s); c.Close() }()
				_, _ = io.Copy(s, c)
			}()
		}
	}()
	u.Host = l.Addr().String()
	pool := openPool(t, u.String(), maxConns(2))
	store := newStore(t, pool)
	id := createRecord(t, store, `{"a":1}`)
	mute.Store(true)
	pool.Reset()
	const limit = 300 * time.Millisecond
	calls := storeMethods(store, id)
	together(len(calls), func(i int) {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		start := time.Now()
		err := calls[i].call(ctx)
		if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took > limit+patience {
			t.Errorf("%s: got %v after %v, want a deadline exceeded after %v", calls[i].name, err, took, limit)
		}
	})
}
