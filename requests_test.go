package session_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

const slowBytes = 16 << 20 // more than all buffers on the way

// slowHandler loads the session and waits for the whole body (/send), or saves
// it and writes a page (/read); stalled counts those that have come so far.
func slowHandler(t *testing.T, stalled *sync.WaitGroup) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		switch r.URL.Path {
		case "/send":
			countKey.Get(s)
			stalled.Done()
			body, err := io.ReadAll(r.Body)
			if err != nil || string(body) != "half and half" {
				t.Errorf("body: got %d bytes, %v, want both halves", len(body), err)
			}
			increment(s)
		case "/read":
			increment(s)
			chunk := make([]byte, 64<<10)
			for n := 0; n < slowBytes; n += len(chunk) {
				if _, err := w.Write(chunk); err != nil {
					t.Errorf("page: got %v, want no error", err)
					return
				}
				if n == 0 {
					stalled.Done()
				}
			}
		default:
			increment(s)
		}
	}
}

// slowAsk begins a request and hands its answer to read.
func slowAsk(t *testing.T, srv *testServer, path string, cookie string, body io.Reader, read func(io.Reader)) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.url+path, body)
	if err != nil {
		t.Error(err)
		return
	}
	req.Header.Set("Cookie", cookie)
	resp, err := srv.client.Do(req)
	if err != nil {
		t.Errorf("%s: got %v, want an answer", path, err)
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("%s: got status %d, want 200", path, resp.StatusCode)
	}
	read(resp.Body)
}

// Browsers that send their body slowly, or read their page slowly, hold no
// connection of the pool, which has one. The slow senders' handlers have loaded
// their sessions and wait for the second half of the body; the slow readers'
// have saved theirs and write a page that nobody reads yet.
func TestPostgresSlowClientsHoldNoConnection(t *testing.T) {
	const slow = 4
	for _, proto := range protocols {
		t.Run(proto, func(t *testing.T) {
			pool := openPool(t, pgtest.URL(t), maxConns(1))
			m := patientManager(t, newStore(t, pool))
			var stalled, done sync.WaitGroup
			srv := startServer(t, proto, m.Handler(slowHandler(t, &stalled)))
			var cookies [2*slow + 1]string
			for i := range cookies {
				cookies[i], _ = loginCounter(t, m)
			}
			nothing := func(io.Reader) {}
			stalled.Add(2 * slow)
			goOn := make(chan struct{})
			for i := range slow {
				body, half := io.Pipe()
				done.Go(func() {
					_, _ = io.WriteString(half, "half ")
					<-goOn
					_, _ = io.WriteString(half, "and half")
					_ = half.Close()
				})
				done.Go(func() { slowAsk(t, srv, "/send", cookies[i], body, nothing) })
				done.Go(func() {
					slowAsk(t, srv, "/read", cookies[slow+i], nil, func(page io.Reader) {
						<-goOn
						if n, err := io.Copy(io.Discard, page); n != slowBytes || err != nil {
							t.Errorf("page: got %d bytes, %v, want %d", n, err, slowBytes)
						}
					})
				})
			}
			stalled.Wait()
			if got := pool.Stat().AcquiredConns(); got != 0 {
				t.Errorf("connections held while browsers are slow: got %d, want 0", got)
			}
			slowAsk(t, srv, "/", cookies[2*slow], nil, nothing)
			close(goOn)
			done.Wait()
			for i, c := range cookies {
				if got := counted(t, m, c); got != 1 {
					t.Errorf("session %d: got count %d, want 1", i, got)
				}
			}
		})
	}
}

// renewalCuts are the ways in which a renewal is cut; each says what the browser
// gets, and whether the old ID must live afterwards (false: the new one must).
var renewalCuts = []struct {
	name   string
	limit  time.Duration // of the renewal
	cut    func(t *testing.T, rig *cutRig) *response
	status int
	old    bool
}{
	{"its connection is terminated while it waits for the table", patience, func(t *testing.T, rig *cutRig) *response {
		unlock := holdOpen(t, rig.admin, "LOCK TABLE schema_system.session IN SHARE MODE")
		answer := rig.renewal()
		awaitSQL(t, rig.admin, "the renewal waits", blockedSQL, 1)
		execSQL(t, rig.admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'renewing' AND wait_event_type = 'Lock'")
		unlock()
		return <-answer
	}, http.StatusOK, false},
	{"the row stays locked", time.Second, func(t *testing.T, rig *cutRig) *response {
		unlock := lockRecords(t, rig.admin, rig.id)
		defer unlock()
		return <-rig.renewal()
	}, http.StatusServiceUnavailable, true},
	{"the request is lost, and then the database", 4 * time.Second, func(_ *testing.T, rig *cutRig) *response {
		rig.lose(false)
		return <-rig.renewal()
	}, http.StatusServiceUnavailable, true},
	{"the reply is lost, and then the database", 4 * time.Second, func(_ *testing.T, rig *cutRig) *response {
		rig.lose(true)
		return <-rig.renewal()
	}, http.StatusServiceUnavailable, false},
}

// cutRig has a session whose renewal can be cut.
type cutRig struct {
	admin  *pgxpool.Pool
	proxy  *cuttingProxy
	m      *session.Manager
	plain  *session.Manager // past the proxy, and patient
	down   atomic.Bool      // no new connection, once one has been cut
	cookie string
	id     string
}

func newCutRig(t *testing.T, limit time.Duration) *cutRig {
	t.Helper()
	url := pgtest.URL(t)
	rig := &cutRig{admin: openPool(t, url), proxy: newCuttingProxy(t, url)}
	pool := openPool(t, rig.proxy.url, maxConns(1), func(cfg *pgxpool.Config) {
		cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec // for the proxy to see the SQL
		cfg.ConnConfig.RuntimeParams["application_name"] = "renewing"
		cfg.BeforeConnect = func(context.Context, *pgx.ConnConfig) error {
			if rig.down.Load() {
				return errors.New("no database")
			}
			return nil
		}
	})
	rig.m, rig.plain = patientManager(t, newStore(t, pool), storeTimeout(limit)), patientManager(t, newStore(t, rig.admin))
	rig.cookie, rig.id = loginCounter(t, rig.plain)
	return rig
}

// lose cuts the connection of the next renewal, carried out or not, and lets no
// other be made.
func (rig *cutRig) lose(carriedOut bool) {
	rig.down.Store(true)
	rig.proxy.cut("SET sid", carriedOut)
}

func (rig *cutRig) renewal() <-chan *response {
	answer := make(chan *response, 1)
	go func() { answer <- useSession(rig.m, rig.cookie, func(s *session.Session) { s.Renew() }) }()
	return answer
}

// A renewal that is cut in the middle leaves the session under the old ID or
// under the new one, never under neither, never under both.
func TestPostgresRenewalCutInTheMiddle(t *testing.T) {
	for _, tt := range renewalCuts {
		t.Run(tt.name, func(t *testing.T) {
			rig := newCutRig(t, tt.limit)
			resp := tt.cut(t, rig)
			fresh := resp.newCookie()
			if resp.status != tt.status || (fresh != "") != (tt.status == http.StatusOK) {
				t.Errorf("renewal: got status %d and a cookie %t, want %d and one only with 200", resp.status, fresh != "", tt.status)
			}
			rig.down.Store(false)
			old := queryOne[int](t, rig.admin, "SELECT count(*) FROM schema_system.session WHERE sid = $1 AND "+noMark, rig.id)
			if all := countRecords(t, rig.admin); all != 1 || (old == 1) != tt.old {
				t.Errorf("records: got %d, of them %d under the old ID, want 1, under the old ID %t", all, old, tt.old)
			}
			if fresh != "" {
				rig.cookie = fresh
			}
			want := -1
			if tt.old || fresh != "" {
				want = 0
			}
			if got := counted(t, rig.plain, rig.cookie); got != want {
				t.Errorf("the browser's session: got count %d, want %d", got, want)
			}
		})
	}
}

// Whoever looks while a session is renewed sees it once.
func TestPostgresRenewalIsOneStep(t *testing.T) {
	const renewals = 100
	url := pgtest.URL(t)
	admin := openPool(t, url)
	m := patientManager(t, newStore(t, openPool(t, url)))
	cookie, _ := loginCounter(t, m)
	stop, looked := make(chan struct{}), make(chan struct{})
	var looks atomic.Int64
	go func() {
		defer close(looked)
		for {
			if got := countRecords(t, admin); got != 1 {
				t.Errorf("records seen during a renewal: got %d, want 1", got)
			}
			looks.Add(1)
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	seen := map[string]bool{cookie: true}
	renewed := 0
	// A look may take many renewals' time: it goes on until there were enough.
	for deadline := time.Now().Add(patience); renewed < renewals || looks.Load() < renewals/4 && time.Now().Before(deadline); renewed++ {
		old := cookie
		if cookie = useSession(m, old, func(s *session.Session) { s.Renew() }).newCookie(); cookie == "" {
			t.Fatal("renewal: got no cookie, want one")
		}
		seen[cookie] = true
		if got := counted(t, m, old); got != -1 {
			t.Error("the old ID: got a record, want none")
		}
	}
	close(stop)
	<-looked
	if n := looks.Load(); n < renewals/4 {
		t.Errorf("looks: got %d, want many", n)
	}
	if len(seen) != renewed+1 {
		t.Errorf("different cookies: got %d, want %d", len(seen), renewed+1)
	}
	if got := counted(t, m, cookie); got != 0 {
		t.Errorf("after all renewals: got count %d, want 0", got)
	}
}
