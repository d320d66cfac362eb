package sessiontest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/pgsession/session"
)

// Context returns a context with a session of m in it, for tests of code that calls
// [session.From] and is no handler: a service, a template's function. The session
// holds what set puts into it, stored by a request before, as with [Login]; with a
// nil set it is that of a visitor without one.
//
// It belongs to a request that lasts as long as the test, whose response has not
// begun: what the code under test changes can be read at once, is stored by
// [session.Session.Save], else when the test ends, and Renew and Destroy work. The
// context ends with the test. In a bubble of package testing/synctest call it with
// the bubble's t.
func Context(t testing.TB, m *session.Manager, set func(*session.Session)) context.Context {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/", nil).WithContext(t.Context())
	if set != nil {
		Login(t, m, r, set)
	}
	ready, over, ended := make(chan context.Context), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			ready <- r.Context()
			<-over
		})).ServeHTTP(httptest.NewRecorder(), r)
	}()
	ctx := <-ready
	t.Cleanup(func() {
		close(over)
		<-ended
	})
	return ctx
}
