package session_test

import (
	"strings"
	"testing"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// A life on PostgreSQL, with and without shared statements, hashed IDs and sealed
// data, at two instances: the statements that it costs are those of a cookie's, and
// the table does not hold what the client does.
func TestPostgresToken(t *testing.T) {
	for _, tt := range []struct {
		name    string
		opts    session.PostgresOptions
		encrypt bool
	}{
		{"shared", session.PostgresOptions{}, false},
		{"single, hashed and sealed", session.PostgresOptions{DisableBatching: true, HashIDs: true}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			trace := new(tracer)
			pool := pgtest.Pool(t, trace.use)
			store := &hookedStore{Store: newStore(t, pool, tt.opts)}
			costs := func(what, calls string) {
				t.Helper()
				wantCalls(t, what, store, calls)
				sent := 0
				for _, sql := range trace.take() {
					if strings.Contains(sql, `"session"`) { // of the table
						sent++
					}
				}
				if want := len(strings.Fields(calls)); sent != want {
					t.Errorf("%s: got %d statements, want %d", what, sent, want)
				}
			}
			open := func() *session.Manager {
				return tokenManager(t, store, func(c *session.Config) { c.Encrypt, c.StoreTimeout = tt.encrypt, patience })
			}
			a, b := open(), open()
			trace.take()
			c := &client{m: a}
			wantToken(t, "login", c.visit(tokenLogin), 200, true)
			costs("login", "Create")
			first := c.with(b)
			wantToken(t, "read", first.visit(func(s *session.Session) {
				if user, _ := userKey.Get(s); user != "ada" {
					t.Errorf("read: got user %q, want ada", user)
				}
			}), 200, false)
			costs("read", "Load")
			wantToken(t, "renewal", c.visit(func(s *session.Session) { s.Renew() }), 200, true)
			costs("renewal", "Load Update")
			if first.user() != "" || c.with(b).user() != "ada" {
				t.Error("renewal: want the new token alone to open the session")
			}
			body := c.token[len(testPrefix):]
			if n := queryOne[int](t, pool, "SELECT count(*) FROM schema_system.session WHERE strpos(sid || sess::text, $1) > 0", body); n != 0 {
				t.Errorf("got %d rows with what the client holds, want none", n)
			}
			trace.take()
			store.took()
			wantToken(t, "logout by the token of before", first.visit(func(s *session.Session) { s.Destroy() }), 200, false)
			if c.user() != "" || countRecords(t, pool) != 0 {
				t.Error("logout by the token of before: want the renewed session ended")
			}
		})
	}
}
