package session_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/pgsession/session"
)

const (
	lineCount = session.Key[int]("count")
	lineFirst = session.Key[string]("first")
	lineOther = session.Key[string]("other")
)

// lineStore counts calls. Its first Update after the login waits at the gate,
// so that everybody behind it stands in line, and then at the exit, where the
// test can do what it likes to the record that was just written.
type lineStore struct {
	session.Store
	gate, exit, passed chan struct{}

	mu             sync.Mutex
	updates, loads int
}

func (s *lineStore) Load(ctx context.Context, id string) (session.Record, error) {
	s.mu.Lock()
	s.loads++
	s.mu.Unlock()
	return s.Store.Load(ctx, id)
}

func (s *lineStore) Update(ctx context.Context, id string, c session.Change) error {
	s.mu.Lock()
	s.updates++
	first := s.updates == 1
	s.mu.Unlock()
	if !first {
		return s.Store.Update(ctx, id, c)
	}
	<-s.gate
	err := s.Store.Update(ctx, id, c)
	close(s.passed)
	<-s.exit
	return err
}

// lineRun logs in, lets the handlers use the session at once in requests of
// their own, the first of them ahead of the others, and returns their errors in
// that order. meanwhile runs when the first has written and all others wait.
func lineRun(t *testing.T, meanwhile func(s *lineStore, m *session.Manager, cookie string), handlers ...func(*session.Session)) (s *lineStore, m *session.Manager, cookie string, errs []error) {
	t.Helper()
	s = &lineStore{
		Store: session.NewMemoryStore(),
		gate:  make(chan struct{}), exit: make(chan struct{}), passed: make(chan struct{}),
	}
	errs = make([]error, len(handlers))
	cfg := session.Config{
		Secret: "a secret of the tests, thirty-two bytes and more", DisablePrune: true, Logger: slog.New(slog.DiscardHandler),
	}
	m, err := session.New(s, cfg)
	if err != nil {
		t.Fatal(err)
	}
	cookie = lineVisit(m, "", func(s *session.Session) {
		lineFirst.Set(s, "login")
	})
	var loaded, done sync.WaitGroup
	loaded.Add(len(handlers))
	ahead := make(chan struct{})
	for i, h := range handlers {
		done.Go(func() {
			lineVisit(m, cookie, func(s *session.Session) {
				s.IsNew() // loads
				loaded.Done()
				loaded.Wait() // nobody saves before everybody has loaded
				h(s)
				if i > 0 {
					<-ahead
				}
				errs[i] = s.Save(context.Background())
			})
		})
	}
	synctest.Wait() // the first is at the gate
	close(ahead)
	synctest.Wait() // and the others are in line behind it
	close(s.gate)
	<-s.passed
	if meanwhile != nil {
		meanwhile(s, m, cookie)
	}
	close(s.exit)
	done.Wait()
	return s, m, cookie, errs
}

// lineVisit sends one request and returns the session cookie that it was
// answered with.
func lineVisit(m *session.Manager, cookie string, h func(*session.Session)) string {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	w := httptest.NewRecorder()
	m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		h(session.From(r.Context()))
	})).ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		return c.Name + "=" + c.Value
	}
	return ""
}

func lineIncrement(s *session.Session) { lineCount.Update(s, func(n int) int { return n + 1 }) }

// 64 requests that have all loaded the session save one after the other, each on
// what the one before has written: one statement each.
func TestQueueOverlappingIncrements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const requests = 64
		var handlers []func(*session.Session)
		for range requests {
			handlers = append(handlers, lineIncrement)
		}
		s, m, cookie, errs := lineRun(t, nil, handlers...)
		if err := errors.Join(errs...); err != nil {
			t.Errorf("saves: got %v, want no error", err)
		}
		if s.loads != requests || s.updates != requests {
			t.Errorf("store calls: got %d loads, %d updates, want %d each", s.loads, s.updates, requests)
		}
		if got := m.Stats().Conflicts; got != 0 {
			t.Errorf("conflicts: got %d, want 0", got)
		}
		var count int
		lineVisit(m, cookie, func(s *session.Session) { count, _ = lineCount.Get(s) })
		if count != requests {
			t.Errorf("count: got %d, want %d", count, requests)
		}
	})
}

// What happens to the record between two members of the line is found out as if
// the second had started from what it loaded.
func TestQueueRecordChangesBetweenTwo(t *testing.T) {
	set := func(key session.Key[string], value string) func(*session.Session) {
		return func(s *session.Session) { key.Set(s, value) }
	}
	destroy := func(_ *lineStore, m *session.Manager, cookie string) {
		lineVisit(m, cookie, (*session.Session).Destroy)
	}
	// Another program, which does not stand in this one's line.
	elsewhere := func(h func(*session.Session)) func(*lineStore, *session.Manager, string) {
		return func(s *lineStore, _ *session.Manager, cookie string) {
			m, err := session.New(s.Store, session.Config{
				Secret: "a secret of the tests, thirty-two bytes and more", DisablePrune: true, Logger: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				panic(err)
			}
			lineVisit(m, cookie, h)
		}
	}
	for _, tc := range []struct {
		name          string
		first, second func(*session.Session)
		meanwhile     func(*lineStore, *session.Manager, string)
		want          error // of the second
		count         int   // this and the next two afterwards, if the session lives
		firstKey      string
		otherKey      string
		conflicts     uint64 // of this program's two
	}{
		{"nothing", lineIncrement, lineIncrement, nil, nil, 2, "login", "", 0},
		{"nothing, different keys", set(lineFirst, "a"), set(lineOther, "b"), nil, nil, 0, "a", "b", 0},
		{"nothing, the same value", set(lineFirst, "a"), set(lineFirst, "a"), nil, nil, 0, "a", "", 1},
		{"nothing, one deletes", set(lineOther, "a"), lineFirst.Delete, nil, nil, 0, "", "a", 0},
		{"another program saves", lineIncrement, lineIncrement, elsewhere(lineIncrement), nil, 3, "login", "", 1},
		{"another program sets another key", lineIncrement, lineIncrement, elsewhere(set(lineOther, "b")), nil, 2, "login", "b", 1},
		{"destroyed", lineIncrement, lineIncrement, destroy, session.ErrDestroyed, 0, "", "", 0},
		{"destroyed, the same value", set(lineFirst, "a"), set(lineFirst, "a"), destroy, session.ErrDestroyed, 0, "", "", 0},
		{"destroyed elsewhere", lineIncrement, lineIncrement, elsewhere((*session.Session).Destroy), session.ErrDestroyed, 0, "", "", 0},
		{"renewed elsewhere", lineIncrement, lineIncrement, elsewhere((*session.Session).Renew), session.ErrDestroyed, 0, "", "", 0},
		{"renewed by the first", func(s *session.Session) { s.Renew(); lineIncrement(s) }, lineIncrement, nil, session.ErrDestroyed, 0, "", "", 0},
		{"both renew", (*session.Session).Renew, (*session.Session).Renew, nil, session.ErrDestroyed, 0, "", "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, m, cookie, errs := lineRun(t, tc.meanwhile, tc.first, tc.second)
				if errs[0] != nil {
					t.Errorf("first save: got %v, want no error", errs[0])
				}
				if !errors.Is(errs[1], tc.want) {
					t.Errorf("second save: got %v, want %v", errs[1], tc.want)
				}
				if got := m.Stats().Conflicts; got != tc.conflicts {
					t.Errorf("conflicts: got %d, want %d", got, tc.conflicts)
				}
				lineVisit(m, cookie, func(s *session.Session) {
					if gone := s.IsNew(); gone != (tc.want != nil) {
						t.Errorf("session gone: got %t, want %t", gone, tc.want != nil)
					}
					count, _ := lineCount.Get(s)
					first, _ := lineFirst.Get(s)
					other, _ := lineOther.Get(s)
					if count != tc.count || first != tc.firstKey || other != tc.otherKey {
						t.Errorf("keys: got %d, %q, %q, want %d, %q, %q", count, first, other, tc.count, tc.firstKey, tc.otherKey)
					}
				})
			})
		})
	}
}

// A member that fails or gives up leaves the line as it was.
func TestQueueAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tooMuch := func(s *session.Session) { lineOther.Set(s, string(make([]byte, session.DefaultMaxBytes))) }
		_, m, cookie, errs := lineRun(t, nil, lineIncrement, tooMuch, lineIncrement)
		if errs[0] != nil || !errors.Is(errs[1], session.ErrInvalid) || errs[2] != nil {
			t.Errorf("saves: got %v, want the second alone to be ErrInvalid", errs)
		}
		lineVisit(m, cookie, func(s *session.Session) {
			if n, _ := lineCount.Get(s); n != 2 {
				t.Errorf("count: got %d, want 2", n)
			}
		})
	})
}
