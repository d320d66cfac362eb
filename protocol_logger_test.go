package session_test

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/pgsession/session"
)

// readingLog is a log that adds to each record whose session it is about, as logs
// of applications do.
type readingLog struct {
	s    atomic.Pointer[session.Session]
	read atomic.Int32
}

func (*readingLog) Enabled(context.Context, slog.Level) bool { return true }

func (l *readingLog) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l *readingLog) WithGroup(string) slog.Handler { return l }

func (l *readingLog) Handle(context.Context, slog.Record) error {
	if s := l.s.Load(); s != nil {
		readUser(s)
		s.Handle()
		_ = s.Err()
		l.read.Add(1)
	}
	return nil
}

// A logger may read the session that it is told about: nothing waits for itself.
func TestProtocolLoggerReadsTheSession(t *testing.T) {
	express := func(c *session.Config) { c.Cookie.Format, c.Cookie.Name = session.FormatExpress, "session" }
	secret := func(c *session.Config) { c.Secret = testSecret }
	badAttributes := `{"cookie":{"originalMaxAge":3600000,"path":"/a;b"},"user":"ada"}`
	for _, tt := range []struct {
		name  string
		opt   func(*session.Config)
		known bool
		use   func(w http.ResponseWriter, s *session.Session)
		after func(*session.Session)
	}{
		{"a renewal too late", secret, true, func(w http.ResponseWriter, s *session.Session) { readUser(s); w.WriteHeader(200); s.Renew() }, nil},
		{"a session too late", secret, false, func(w http.ResponseWriter, s *session.Session) { w.WriteHeader(200); keyA.Set(s, "1") }, nil},
		{"a change after the handler", secret, true, func(_ http.ResponseWriter, s *session.Session) { readUser(s) }, func(s *session.Session) { keyA.Set(s, "1") }},
		{"a Destroy after the handler", secret, true, func(_ http.ResponseWriter, s *session.Session) { readUser(s) }, destroy},
		{"a first use after the handler", secret, true, func(http.ResponseWriter, *session.Session) {}, readUser},
		{"another type", secret, true, func(_ http.ResponseWriter, s *session.Session) { session.Key[int]("user").Get(s) }, nil},
		{"a proxy's header", secret, false, func(_ http.ResponseWriter, s *session.Session) { keyA.Set(s, "1") }, nil},
		{"bad attributes in a cookie", express, true, func(_ http.ResponseWriter, s *session.Session) { s.Renew() }, nil},
		{"bad attributes in a logout", express, true, func(_ http.ResponseWriter, s *session.Session) { readUser(s); s.Destroy() }, nil},
		{"rounded digits", express, true, func(_ http.ResponseWriter, s *session.Session) { session.Key[int64]("n").Set(s, 1<<60+1) }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log, store := &readingLog{}, newHookedStore()
			m := newManager(t, store, func() (c session.Config) { tt.opt(&c); c.Logger = slog.New(log); return c }())
			r := request("POST", "")
			r.Header.Set("X-Forwarded-Proto", "https")
			if tt.known {
				b := seededRow(t, store, m, badAttributes, session.DefaultIdleTimeout)
				r.Header.Set("Cookie", b.cookie)
			}
			done := make(chan bool)
			go func() {
				defer close(done)
				survive(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					s := session.From(r.Context())
					log.s.Store(s)
					tt.use(w, s)
				})), r)
				if tt.after != nil {
					tt.after(log.s.Load())
				}
			}()
			within(t, done)
			if log.read.Load() == 0 {
				t.Error("logged: got nothing about the session, want something")
			}
		})
	}
}
