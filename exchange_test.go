package session_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/session"
)

// A session is made when it is asked for. What happened to the response before
// counts all the same.
func TestSessionAskedForLate(t *testing.T) {
	for _, tc := range []struct {
		name   string
		before func(http.ResponseWriter)
		want   error
	}{
		{"before the first byte", func(http.ResponseWriter) {}, nil},
		{"after the first byte", func(w http.ResponseWriter) { _, _ = w.Write([]byte("page")) }, session.ErrHeaderSent},
		{"after the header", func(w http.ResponseWriter) { w.WriteHeader(http.StatusOK) }, session.ErrHeaderSent},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newManager(t, session.NewMemoryStore(), session.Config{DisablePrune: true})
			resp := (&browser{m: m}).serve(func(w http.ResponseWriter, r *http.Request) {
				tc.before(w)
				s := session.From(r.Context())
				countKey.Set(s, 1)
				if !errors.Is(s.Err(), tc.want) {
					t.Errorf("Set: got %v, want %v", s.Err(), tc.want)
				}
			})
			if got := resp.setCookie() != ""; got != (tc.want == nil) {
				t.Errorf("cookie sent: got %t, want %t", got, tc.want == nil)
			}
			if got := m.Stats().Creates == 1; got != (tc.want == nil) {
				t.Errorf("session stored: got %t, want %t", got, tc.want == nil)
			}
		})
	}
}

func TestSessionAskedForAfterTheHandler(t *testing.T) {
	good := login(t, newManager(t, session.NewMemoryStore(), session.Config{DisablePrune: true}))
	m := newManager(t, failingStore("Load"), session.Config{DisablePrune: true})
	var ctx context.Context
	good.with(m).serve(func(_ http.ResponseWriter, r *http.Request) { ctx = r.Context() })
	s := session.From(ctx)
	if v, ok := countKey.Get(s); ok || !errors.Is(s.Err(), session.ErrFinished) {
		t.Errorf("Get: got %d, %t, %v, want nothing, ErrFinished and no use of the store", v, ok, s.Err())
	}
	if countKey.Set(s, 2); !errors.Is(s.Err(), session.ErrFinished) {
		t.Errorf("Set: got %v, want ErrFinished", s.Err())
	}
}

func TestFromIsTheSameForAllGoroutines(t *testing.T) {
	m := newManager(t, session.NewMemoryStore(), session.Config{DisablePrune: true})
	(&browser{m: m}).serve(func(_ http.ResponseWriter, r *http.Request) {
		sessions := make([]*session.Session, 8)
		var start, done sync.WaitGroup
		start.Add(len(sessions))
		for i := range sessions {
			done.Go(func() {
				start.Done()
				start.Wait()
				sessions[i] = session.From(r.Context())
			})
		}
		done.Wait()
		for i, s := range append(sessions, m.From(r.Context())) {
			if s != sessions[0] {
				t.Errorf("session of goroutine %d: got another one, want the same", i)
			}
		}
	})
}

func TestUnusedSessionAllocations(t *testing.T) {
	h := newManager(t, session.NewMemoryStore(), session.Config{DisablePrune: true}).Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	}))
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
	w.WriteHeader(http.StatusNoContent) // the recorder's own allocations
	if got := testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) }); got > 3 {
		t.Errorf("allocations: got %v, want at most 3", got)
	}
}

// A handler that streams and looks at no error must not hold back the 503.
func TestARefusedStreamIsAnsweredAtOnce(t *testing.T) {
	m := newManager(t, failingStore("Create"), session.Config{DisablePrune: true})
	release := make(chan struct{})
	server := httptest.NewServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		countKey.Set(session.From(r.Context()), 1)
		for range 3 {
			_, _ = io.WriteString(w, "event")
			_ = http.NewResponseController(w).Flush()
		}
		<-release
	})))
	defer server.Close()
	defer close(release)
	resp, err := server.Client().Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("got status %d, want 503", resp.StatusCode)
	}
}

// Gin's Context.Stream asserts http.CloseNotifier.
func TestCloseNotify(t *testing.T) {
	m := newManager(t, session.NewMemoryStore(), session.Config{DisablePrune: true})
	ctx, leave := context.WithCancel(t.Context())
	m.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		gone := w.(interface{ CloseNotify() <-chan bool }).CloseNotify()
		select {
		case <-gone:
			t.Error("got a notice, want none while the browser is there")
		default:
		}
		leave()
		<-gone
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx))
}

// A stream that was told of a logout by Reload ends as usual; one that has lost
// something must not look complete.
func TestStreamEndsAfterReload(t *testing.T) {
	for _, tc := range []struct {
		name          string
		before, after func(*session.Session)
		complete      bool
	}{
		{"nothing changed", func(*session.Session) {}, func(*session.Session) {}, true},
		{"read afterwards", func(*session.Session) {}, func(s *session.Session) { countKey.Get(s) }, true},
		{"a change before", func(s *session.Session) { countKey.Set(s, 2) }, func(*session.Session) {}, false},
		{"an idle timeout before", func(s *session.Session) { s.SetIdleTimeout(time.Hour) }, func(*session.Session) {}, false},
		{"a change afterwards", func(*session.Session) {}, func(s *session.Session) { countKey.Set(s, 2) }, false},
		{"a failed save", func(s *session.Session) {
			countKey.Set(s, 2)
			if err := s.Save(context.Background()); !errors.Is(err, session.ErrDestroyed) {
				t.Errorf("Save: got %v, want ErrDestroyed", err)
			}
		}, func(*session.Session) {}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			store := session.NewMemoryStore()
			m := newManager(t, store, session.Config{DisablePrune: true})
			mux := http.NewServeMux()
			mux.HandleFunc("/login", func(_ http.ResponseWriter, r *http.Request) { countKey.Set(session.From(r.Context()), 1) })
			mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				countKey.Get(s)
				_, _ = io.WriteString(w, "begun ")
				_ = http.NewResponseController(w).Flush()
				if err := store.Delete(r.Context(), s.ID()); err != nil {
					t.Error(err)
				}
				tc.before(s)
				if err := s.Reload(r.Context()); !errors.Is(err, session.ErrDestroyed) {
					t.Errorf("Reload: got %v, want ErrDestroyed", err)
				}
				tc.after(s)
				_, _ = io.WriteString(w, "bye")
			})
			server := httptest.NewServer(m.Handler(mux))
			defer server.Close()
			jar, err := cookiejar.New(nil)
			if err != nil {
				t.Fatal(err)
			}
			client := server.Client()
			client.Jar = jar
			for _, path := range []string{"/login", "/stream"} {
				resp, err := client.Get(server.URL + path)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if path == "/stream" && (err == nil && string(body) == "begun bye") != tc.complete {
					t.Errorf("got %q, %v, want complete %t", body, err, tc.complete)
				}
			}
		})
	}
}

// A middleware outside may send its header only when it is flushed.
func TestARefusedStreamHasNoHeaderOfTheHandlers(t *testing.T) {
	m := newManager(t, failingStore("Create"), session.Config{DisablePrune: true})
	w := httptest.NewRecorder()
	m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		countKey.Set(session.From(r.Context()), 1)
		_, _ = io.WriteString(w, "page")
		w.Header().Set("Cache-Control", "public, max-age=3600")
		w.Header().Set("X-Handler", "of the page")
		_ = http.NewResponseController(w).Flush()
	})).ServeHTTP(&headerLater{ResponseWriter: w}, httptest.NewRequest(http.MethodGet, "/", nil))
	got := w.Result()
	if got.StatusCode != http.StatusServiceUnavailable || got.Header.Get("X-Handler") != "" || got.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("got status %d, Cache-Control %q, X-Handler %q, want 503, no-store and none", got.StatusCode, got.Header.Get("Cache-Control"), got.Header.Get("X-Handler"))
	}
}

// headerLater keeps the response back until it is flushed.
type headerLater struct {
	http.ResponseWriter
	code int
	body []byte
}

func (w *headerLater) WriteHeader(code int)        { w.code = code }
func (w *headerLater) Write(b []byte) (int, error) { w.body = append(w.body, b...); return len(b), nil }

func (w *headerLater) Flush() {
	if w.code != 0 {
		w.ResponseWriter.WriteHeader(w.code)
		w.code = 0
	}
	_, _ = w.ResponseWriter.Write(w.body)
	w.body = nil
}
