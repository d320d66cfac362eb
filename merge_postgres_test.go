package session_test

import (
	"net/http"
	"sync"
	"testing"

	"github.com/pgsession/session"
)

// eachBatching runs a test with shared statements as they are by default, forced
// to batches of several sizes, and without.
func eachBatching(t *testing.T, test func(*testing.T, session.PostgresOptions)) {
	t.Run("default", func(t *testing.T) { test(t, session.PostgresOptions{}) })
	for _, v := range sharingVariants {
		t.Run(v.name, func(t *testing.T) { test(t, v.opts) })
	}
}

// startSlow starts a request that uses its session with f and then stays in its
// handler until finish lets it go on; finish returns its response.
func startSlow(m *session.Manager, cookie string, f func(*session.Session)) (finish func() *response) {
	used, gate, done := make(chan struct{}), make(chan struct{}), make(chan *response, 1)
	go func() {
		done <- useSession(m, cookie, func(s *session.Session) {
			f(s)
			close(used)
			<-gate
		})
	}()
	<-used
	return func() *response {
		close(gate)
		return <-done
	}
}

const postgresTrials = 200

// eachTrial runs the trials, a few at a time.
func eachTrial(trials int, f func(trial int)) {
	const at = 8
	var wg sync.WaitGroup
	for i := range at {
		wg.Go(func() {
			for trial := i; trial < trials; trial += at {
				f(trial)
			}
		})
	}
	wg.Wait()
}

// The slow request has loaded the session before the other begins, and saves
// after it has ended.
func TestPostgresOverlappingRequestsKeepBothKeys(t *testing.T) {
	t.Parallel()
	eachBatching(t, testOverlappingRequestsKeepBothKeys)
}

func testOverlappingRequestsKeepBothKeys(t *testing.T, opts session.PostgresOptions) {
	m, admin := newPrograms(t, 2, opts)
	a, b := session.Key[int]("a"), session.Key[int]("b")
	eachTrial(postgresTrials, func(trial int) {
		cookie, _ := loginCounter(t, m[0])
		finish := startSlow(m[0], cookie, func(s *session.Session) { a.Set(s, 1); increment(s) })
		useSession(m[1-trial%2], cookie, func(s *session.Session) { b.Set(s, 2); increment(s) })
		if resp := finish(); resp.status != http.StatusOK {
			t.Errorf("trial %d: got status %d, want 200", trial, resp.status)
		}
		useSession(m[0], cookie, func(s *session.Session) {
			va, _ := a.Get(s)
			vb, _ := b.Get(s)
			n, _ := countKey.Get(s)
			if va != 1 || vb != 2 || n != 2 {
				t.Errorf("trial %d: got a=%d b=%d count=%d, want 1, 2, 2", trial, va, vb, n)
			}
		})
	})
	if got := m[0].Stats().Conflicts; got != postgresTrials {
		t.Errorf("conflicts merged: got %d, want %d", got, postgresTrials)
	}
	if got := countRecords(t, admin); got != postgresTrials {
		t.Errorf("records: got %d, want %d", got, postgresTrials)
	}
}

// What has ended while a slow request ran stays ended.
func TestPostgresGoneStaysGone(t *testing.T) {
	t.Parallel()
	eachBatching(t, testGoneStaysGone)
}

func testGoneStaysGone(t *testing.T, opts session.PostgresOptions) {
	m, admin := newPrograms(t, 2, opts)
	for _, tt := range []struct {
		name string
		end  func(t *testing.T, cookie, id string) (fresh string)
	}{
		{"logout", func(_ *testing.T, cookie string, _ string) string {
			useSession(m[1], cookie, func(s *session.Session) { s.Destroy() })
			return ""
		}},
		{"renewal", func(_ *testing.T, cookie string, _ string) string {
			return useSession(m[1], cookie, func(s *session.Session) { s.Renew() }).newCookie()
		}},
		{"expiry", func(t *testing.T, _ string, id string) string {
			execSQL(t, admin, "UPDATE schema_system.session SET expire = now() - interval '1 second' WHERE sid = $1", id)
			return ""
		}},
		{"pruning", func(t *testing.T, _ string, id string) string {
			execSQL(t, admin, "UPDATE schema_system.session SET expire = '-infinity' WHERE sid = $1", id)
			if _, err := m[1].Prune(t.Context()); err != nil {
				t.Errorf("Prune: got %v, want no error", err)
			}
			return ""
		}},
	} {
		for _, request := range []struct {
			name   string
			use    func(*session.Session)
			trials int
			want   int
		}{
			{"mutating", increment, postgresTrials, http.StatusConflict},
			{"touch only", func(s *session.Session) { countKey.Get(s) }, postgresTrials, http.StatusOK},
			{"renewing", func(s *session.Session) { s.Renew() }, postgresTrials / 10, http.StatusConflict},
			{"new idle timeout", func(s *session.Session) { s.SetIdleTimeout(patience) }, postgresTrials / 10, http.StatusConflict},
		} {
			t.Run(tt.name+", "+request.name, func(t *testing.T) {
				eachTrial(request.trials, func(trial int) {
					cookie, id := loginCounter(t, m[0])
					// Make a touch due.
					execSQL(t, admin, "UPDATE schema_system.session SET expire = now() + interval '1 hour' WHERE sid = $1", id)
					finish := startSlow(m[0], cookie, request.use)
					fresh := tt.end(t, cookie, id)
					resp := finish()
					if resp.status != request.want || len(resp.cookies()) != 0 {
						t.Errorf("trial %d: got status %d and %d cookies, want %d and none", trial, resp.status, len(resp.cookies()), request.want)
					}
					if got := counted(t, m[0], cookie); got != -1 {
						t.Errorf("trial %d: the session lives again", trial)
					}
					if fresh != "" {
						if got := counted(t, m[0], fresh); got != 0 {
							t.Errorf("trial %d: the renewed session: got count %d, want 0", trial, got)
						}
						useSession(m[1], fresh, func(s *session.Session) { s.Destroy() })
					}
				})
				if got := queryOne[int](t, admin, "SELECT count(*) FROM schema_system.session WHERE expire >= now() AND "+noMark); got != 0 {
					t.Errorf("live records: got %d, want 0", got)
				}
			})
		}
	}
}

// All 64 requests have loaded the session before the first saves it.
func TestPostgresOverlappingIncrements(t *testing.T) {
	eachBatching(t, testOverlappingIncrements)
}

func testOverlappingIncrements(t *testing.T, opts session.PostgresOptions) {
	const programs, requests = 4, 64
	m, _ := newPrograms(t, programs, opts)
	for _, tt := range []struct {
		name  string
		renew bool // one of them gives the session a new ID, and others may end with it
	}{
		{name: "one session"},
		{name: "and a renewal", renew: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cookie, _ := loginCounter(t, m[0])
			var at sync.WaitGroup
			at.Add(requests)
			responses := make([]*response, requests)
			together(requests, func(i int) {
				responses[i] = useSession(m[i%programs], cookie, func(s *session.Session) {
					increment(s)
					if tt.renew && i == requests/2 {
						s.Renew()
					}
					at.Done()
					at.Wait()
				})
			})
			want := 0
			for i, resp := range responses {
				switch resp.status {
				case http.StatusOK:
					want++
				case http.StatusConflict:
				default:
					t.Errorf("status: got %d, want 200 or 409", resp.status)
				}
				if tt.renew && i == requests/2 {
					cookie = resp.newCookie()
				}
			}
			if !tt.renew && want != requests {
				t.Errorf("answered with 200: got %d, want %d", want, requests)
			}
			if cookie == "" {
				t.Fatal("the renewal: got no cookie")
			}
			if got := counted(t, m[0], cookie); got != want {
				t.Errorf("count: got %d, want %d", got, want)
			}
			var conflicts uint64
			for _, m := range m {
				conflicts += m.Stats().Conflicts
			}
			t.Logf("%d saves met others", conflicts)
		})
	}
}
