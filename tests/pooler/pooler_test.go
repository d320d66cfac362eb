package pooler_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/sessiontest"
)

const count = session.Key[int]("count")

// modes are those of pgx that need no statement to stay with a connection.
var modes = []pgx.QueryExecMode{
	pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
}

// eachMode runs a test in each of the modes, with shared statements and without.
func eachMode(t *testing.T, test func(*testing.T, pgx.QueryExecMode, session.PostgresOptions)) {
	for _, mode := range modes {
		for name, opts := range map[string]session.PostgresOptions{"shared": {}, "not shared": {DisableBatching: true}} {
			t.Run(mode.String()+", "+name, func(t *testing.T) { test(t, mode, opts) })
		}
	}
}

// newStore returns a store that must not fail, and what it logged.
func newStore(t *testing.T, pool *pgxpool.Pool, opts session.PostgresOptions) (*session.PostgresStore, string) {
	t.Helper()
	var log bytes.Buffer
	opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	store, err := session.NewPostgresStore(ctx, pool, opts)
	if err != nil {
		t.Fatalf("NewPostgresStore: got %v, want no error", err)
	}
	return store, log.String()
}

func wantWarning(t *testing.T, log string, want bool) {
	t.Helper()
	if got := strings.Contains(log, "level=WARN") && strings.Contains(log, saysWhatToSet); got != want {
		t.Errorf("warning about a pooler: got %v, want %v", got, want)
	}
}

const saysWhatToSet = "set DefaultQueryExecMode of the pool's ConnConfig to pgx.QueryExecModeCacheDescribe"

func TestTransactionMode(t *testing.T) {
	eachMode(t, func(t *testing.T, mode pgx.QueryExecMode, opts session.PostgresOptions) {
		t.Parallel()
		b := start(t, "transaction")
		pool := open(t, b.url, mode)
		store, log := newStore(t, pool, opts)
		wantWarning(t, log, false)
		sessiontest.TestStore(t, func(*testing.T) session.Store { return store })
		wantMultiplexed(t, b, pool)
	})
}

// wantMultiplexed checks that PgBouncer does what it is for: otherwise these tests
// would show nothing.
func wantMultiplexed(t *testing.T, b bouncer, pool *pgxpool.Pool) {
	t.Helper()
	for range clients {
		conn, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
	}
	direct := open(t, b.direct, pgx.QueryExecModeExec)
	got := 0
	for end := time.Now().Add(patience); time.Now().Before(end); { // one that was closed may still be there
		got = get[int](t, direct, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()")
		if got <= servers {
			break
		}
	}
	if got < 1 || got > servers {
		t.Errorf("connections of the server for %d of the clients: got %d, want 1 to %d", clients, got, servers)
	}
}

// site is some programs that share a database, as real HTTP servers.
type site struct{ urls []string }

// newSite starts programs. A request to /increment counts in its session; one to
// /together does so too, but saves only when all that are expected have loaded it.
func newSite(t *testing.T, programs int, together *sync.WaitGroup, newStore func() session.Store) site {
	t.Helper()
	var s site
	mux := http.NewServeMux()
	increment := func(r *http.Request) {
		count.Update(session.From(r.Context()), func(n int) int { return n + 1 })
	}
	mux.HandleFunc("/increment", func(_ http.ResponseWriter, r *http.Request) { increment(r) })
	mux.HandleFunc("/together", func(_ http.ResponseWriter, r *http.Request) {
		increment(r)
		together.Done()
		together.Wait()
	})
	mux.HandleFunc("/renew", func(_ http.ResponseWriter, r *http.Request) { session.From(r.Context()).Renew() })
	mux.HandleFunc("/logout", func(_ http.ResponseWriter, r *http.Request) { session.From(r.Context()).Destroy() })
	mux.HandleFunc("/is", func(w http.ResponseWriter, r *http.Request) {
		n, _ := count.Get(session.From(r.Context()))
		w.WriteHeader(http.StatusOK + n) // the count, without a body to read
	})
	for range programs {
		m, err := session.New(newStore(), session.Config{
			Secret: "for tests only: 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A", StoreTimeout: patience,
			PruneInterval: time.Second, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(m.Handler(mux))
		t.Cleanup(func() {
			server.Close()
			_ = m.Close()
		})
		s.urls = append(s.urls, server.URL)
	}
	return s
}

// browser visits the programs in turn.
type browser struct {
	t    *testing.T
	site site
	http.Client
}

func (s site) browser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &browser{t: t, site: s, Client: http.Client{Jar: jar, Transport: transport, Timeout: patience}}
}

// get returns the status of an answer; turn says which program is asked.
func (b *browser) get(turn int, path string) int {
	b.t.Helper()
	resp, err := b.Get(b.site.urls[turn%len(b.site.urls)] + path)
	if err != nil {
		b.t.Errorf("%s: got %v, want an answer", path, err)
		return 0
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func (b *browser) want(turn int, path string, want int) {
	b.t.Helper()
	if got := b.get(turn, path); got != want {
		b.t.Errorf("%s: got status %d, want %d", path, got, want)
	}
}

// 64 requests of one session, all of which have loaded it before the first saves
// it, while others log in, count, renew and log out.
func TestLoadOverHTTP(t *testing.T) {
	const programs, requests, others, rounds = 2, 64, 8, 10
	eachMode(t, func(t *testing.T, mode pgx.QueryExecMode, opts session.PostgresOptions) {
		b := start(t, "transaction")
		var together sync.WaitGroup
		s := newSite(t, programs, &together, func() session.Store {
			store, _ := newStore(t, open(t, b.url, mode), opts)
			return store
		})
		ada := s.browser(t)
		ada.want(0, "/increment", http.StatusOK)
		together.Add(requests)
		var wg sync.WaitGroup
		for i := range requests {
			wg.Go(func() { ada.want(i, "/together", http.StatusOK) })
		}
		for range others {
			other := s.browser(t)
			wg.Go(func() {
				for round := range rounds {
					other.want(round, "/increment", http.StatusOK)
				}
				other.want(0, "/renew", http.StatusOK)
				other.want(1, "/is", http.StatusOK+rounds)
				other.want(0, "/logout", http.StatusOK)
				other.want(1, "/is", http.StatusOK)
			})
		}
		wg.Wait()
		for i := range programs {
			ada.want(i, "/is", http.StatusOK+1+requests)
		}
		direct := open(t, b.direct, pgx.QueryExecModeExec)
		if got := get[int](t, direct, `SELECT count(*) FROM schema_system.session WHERE left(sess::text, 3) <> '"0e'`); got != 1 {
			t.Errorf("records: got %d, want ada's alone", got)
		}
	})
}

// In pgx's default mode the first program starts with a warning. The next finds
// the prepared statements of the first on the connection of the server.
func TestDefaultModeSaysWhatToSet(t *testing.T) {
	more := []string{"default_pool_size = 1"}
	if keepsStatements(t) {
		more = append(more, "max_prepared_statements = 0")
	}
	b := start(t, "transaction", more...)
	var started atomic.Bool
	var together sync.WaitGroup
	together.Add(clients)
	pool := open(t, b.url, pgx.QueryExecModeCacheStatement, func(cfg *pgxpool.Config) {
		cfg.PrepareConn = func(context.Context, *pgx.Conn) (bool, error) {
			if started.Load() {
				together.Done()
				together.Wait() // so that nobody gets the connection of another
			}
			return true, nil
		}
	})
	store, log := newStore(t, pool, session.PostgresOptions{DisableBatching: true})
	wantWarning(t, log, true)

	_, err := session.NewPostgresStore(t.Context(), open(t, b.url, pgx.QueryExecModeCacheStatement), session.PostgresOptions{Logger: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), saysWhatToSet) || strings.Contains(err.Error(), "does not answer") {
		t.Errorf("the second start: got %v, want what to set", err)
	}

	// What is sent to a table of a few pages is not prepared: here it has more, and
	// the store has seen it.
	direct := open(t, b.direct, pgx.QueryExecModeExec)
	get[int](t, direct, `WITH many AS (INSERT INTO schema_system.session SELECT 'row ' || n, json_build_object('cookie', repeat('x', 200)), now() + interval '1 hour'
		FROM generate_series(1, 5000) n RETURNING 1) SELECT count(*) FROM many`)
	if _, err := store.Load(t.Context(), "row 5000"); err != nil {
		t.Fatal(err)
	}
	var conns []*pgxpool.Conn
	for range clients { // so that nobody dials below, two at once
		c, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	for _, c := range conns {
		c.Release()
	}
	started.Store(true)
	var wg sync.WaitGroup
	errs := make([]error, clients)
	for i := range errs {
		wg.Go(func() { _, errs[i] = store.Load(t.Context(), rand.Text()) })
	}
	wg.Wait()
	failed := 0
	for _, err := range errs {
		switch {
		case errors.Is(err, session.ErrNotFound):
		case err != nil && strings.Contains(err.Error(), saysWhatToSet):
			failed++
		default:
			t.Errorf("Load: got %v, want ErrNotFound or what to set", err)
		}
	}
	if failed != clients-1 { // one of them has prepared the statement
		t.Errorf("calls that failed: got %d, want %d", failed, clients-1)
	}
}

// A pooler that keeps a connection of the server for each client is no trouble.
func TestSessionMode(t *testing.T) {
	b := start(t, "session", "default_pool_size = 50")
	store, log := newStore(t, open(t, b.url, pgx.QueryExecModeCacheStatement), session.PostgresOptions{})
	wantWarning(t, log, true) // its mode does not show
	sessiontest.TestStore(t, func(*testing.T) session.Store { return store })
}

// Nothing that the store does needs a transaction of several statements, except the
// making of the table, which goes as one message.
func TestStatementMode(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			b := start(t, "statement")
			store, _ := newStore(t, open(t, b.url, mode), session.PostgresOptions{})
			sessiontest.TestStore(t, func(*testing.T) session.Store { return store })
		})
	}
}

func TestNoPooler(t *testing.T) {
	_, log := newStore(t, open(t, pgtest.URL(t), pgx.QueryExecModeCacheStatement), session.PostgresOptions{})
	wantWarning(t, log, false)
}

// PgBouncer from 1.21 on can keep prepared statements for its clients.
func TestPgBouncerKeepsStatements(t *testing.T) {
	if !keepsStatements(t) {
		t.Log("this PgBouncer is older than 1.21: nothing to test")
		return
	}
	b := start(t, "transaction", "max_prepared_statements = 200")
	pool := open(t, b.url, pgx.QueryExecModeCacheStatement)
	store, log := newStore(t, pool, session.PostgresOptions{})
	wantWarning(t, log, false)
	sessiontest.TestStore(t, func(*testing.T) session.Store { return store })
	wantMultiplexed(t, b, pool)
}

// A statement that is late is cancelled through PgBouncer too, and neither
// connection is lost.
func TestDeadline(t *testing.T) {
	b := start(t, "transaction")
	pool := open(t, b.url, pgx.QueryExecModeCacheDescribe)
	store, _ := newStore(t, pool, session.PostgresOptions{DisableBatching: true})
	id := rand.Text()
	if err := store.Create(t.Context(), id, session.Record{Data: []byte("{}"), TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	direct := open(t, b.direct, pgx.QueryExecModeExec)
	tx, err := direct.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), "SELECT FROM schema_system.session FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	before := pool.Stat().NewConnsCount()
	// It answers a quarter of a second before the deadline: where the machine stands still
	// just then, the next one shows it.
	inTime := func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := store.Touch(ctx, id, 2*time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Touch of a locked row: got %v, want a deadline exceeded", err)
		}
		return ctx.Err() == nil
	}
	for end := time.Now().Add(patience); !inTime(); {
		if time.Now().After(end) {
			t.Fatal("Touch: got an answer after the deadline, want one before")
		}
	}
	if got := get[int](t, direct, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"); got != 0 {
		t.Errorf("statements that still wait for the lock: got %d, want none", got)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := store.Touch(t.Context(), id, 2*time.Hour); err != nil {
		t.Errorf("Touch of the row after it: got %v, want no error", err)
	}
	if got := pool.Stat().NewConnsCount() - before; got != 0 {
		t.Errorf("connections lost: got %d, want none", got)
	}
}
