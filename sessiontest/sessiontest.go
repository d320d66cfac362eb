// Package sessiontest helps to test programs that use package session, and
// stores for it. It needs no package beyond the standard library and session
// itself.
//
// To test a handler, give it a request of somebody who is logged in, with
// [Login], and see what it left in the session, with [Look]. [NewManager]
// returns a manager for that, without a database. To test a [session.Store] of
// your own, call [TestStore].
package sessiontest

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/pgsession/session"
)

// NewManager returns a manager over an empty memory store. Its secret is the
// same each time and for tests only, it logs nothing and prunes nothing, and it
// starts no goroutines, so it also works in a bubble of package
// testing/synctest. For other settings call [session.New]; Login and Look work
// with any manager.
func NewManager(t testing.TB) *session.Manager {
	t.Helper()
	m, err := session.New(session.NewMemoryStore(), session.Config{
		Secret:       "for tests only: everybody knows this secret",
		Logger:       slog.New(slog.DiscardHandler),
		DisablePrune: true,
	})
	if err != nil {
		t.Fatalf("sessiontest: NewManager: %v", err)
	}
	return m
}

// Login makes r a request with a session that holds what set puts into it: it
// stores the session, as a handler of m would, and adds its cookie to r. A
// session that r already has is changed instead; the rest of r stays as it is.
// r may be meant for a handler ([httptest.NewRequest]) or for a client
// ([http.NewRequest]).
//
// The test fails at once if the session cannot be stored, or if set puts
// nothing into it: then there is no session.
func Login(t testing.TB, m *session.Manager, r *http.Request, set func(*session.Session)) {
	t.Helper()
	s, resp := visit(t, m, r, set)
	if err := s.Err(); err != nil {
		t.Fatalf("sessiontest: Login: %v", err)
	}
	if s.ID() == "" {
		t.Fatalf("sessiontest: Login: nothing was set, so there is no session")
	}
	follow(r, resp.Cookies())
}

// Look returns the session as the browser's next request would find it: the
// browser sent r and got resp, whose cookies count over those of r. Without a
// resp (nil) it is the session of r as it is stored now. Of a user who is not
// logged in, or no longer, it is empty and IsNew.
//
// Look changes nothing, neither r nor the record and its expiry, and the
// session it returns can be read but not changed. The test fails at once if the
// session cannot be loaded.
func Look(t testing.TB, m *session.Manager, r *http.Request, resp *http.Response) *session.Session {
	t.Helper()
	next := r.Clone(t.Context())
	if resp != nil {
		follow(next, resp.Cookies())
	}
	var err error
	s, _ := visit(t, m, next, func(s *session.Session) {
		s.Keys() // loads it
		err = s.Err()
		s.Detach() // or the visit would extend its life
	})
	if err != nil {
		t.Fatalf("sessiontest: Look: %v", err)
	}
	return s
}

// visit runs f in a handler of m, for a request with the headers of r, and
// returns the session and the response.
func visit(t testing.TB, m *session.Manager, r *http.Request, f func(*session.Session)) (*session.Session, *http.Response) {
	t.Helper()
	// Not r's context, which may have a session in it already.
	r = r.Clone(t.Context())
	r.Method, r.Body, r.ContentLength = http.MethodGet, http.NoBody, 0
	var s *session.Session
	w := httptest.NewRecorder()
	m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s = m.From(r.Context())
		f(s)
	})).ServeHTTP(w, r)
	return s, w.Result()
}

// follow changes r's cookies as a browser does that was sent these.
func follow(r *http.Request, sent []*http.Cookie) {
	for _, c := range sent {
		before := r.Cookies()
		r.Header.Del("Cookie")
		for _, b := range before {
			if b.Name != c.Name {
				r.AddCookie(b)
			}
		}
		// RFC 6265, section 5.3: Max-Age counts over Expires.
		expired := c.MaxAge < 0 || c.MaxAge == 0 && !c.Expires.IsZero() && !c.Expires.After(time.Now())
		if !expired {
			r.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value}) // #nosec G124 -- a request's cookie has no attributes
		}
	}
}
