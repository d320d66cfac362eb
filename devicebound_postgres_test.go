package session_test

import (
	"strings"
	"testing"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// A life on PostgreSQL, with and without shared statements, hashed IDs and sealed
// data, at two instances: the statements that a key costs there, that it survives a
// renewal, and that a second one and a logout end it.
func TestPostgresDeviceBound(t *testing.T) {
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
			store := &hookedStore{Store: newStore(t, pgtest.Pool(t, trace.use), tt.opts)}
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
			open := func() *boundSite {
				return newBoundSiteOver(t, store, func(c *session.Config) { c.Encrypt, c.StoreTimeout = tt.encrypt, patience })
			}
			a, b := open(), open()
			trace.take()
			u := a.unit()
			u.send("POST", "/login")
			costs("login", "Create")
			v := u.at(b)
			want(t, "registration", v.register(), 200, "refresh_url")
			costs("registration", "Load Update")
			u.id = v.id
			want(t, "first proven request", u.get("/"), 200, "ada true")
			costs("first proven request", "Load Update")
			want(t, "later request", v.get("/"), 200, "ada true")
			costs("later request", "Load")
			challenge := u.forget().challenge()
			costs("challenge", "")
			want(t, "refresh", u.prove(u.id, u.jws(proofHeader, claim(challenge))), 200, "")
			costs("refresh", "Load")

			old := u.copied()
			old.device = u.device
			want(t, "renewal", v.send("POST", "/renew"), 200, "ada true")
			costs("renewal", "Load Update")
			want(t, "refresh with the ID of before", old.refresh(), 503, "")
			want(t, "refresh with the new one", u.forget().refresh(), 200, "")
			want(t, "page", v.get("/"), 200, "ada true")
			want(t, "second key", u.copied().register(), 200, `"continue":false`)
			want(t, "after it", u.get("/"), 200, "nobody false")

			w := a.unit()
			w.send("POST", "/login")
			want(t, "registration", w.register(), 200, "refresh_url")
			want(t, "page", w.get("/"), 200, "ada true")
			want(t, "logout", w.at(b).send("POST", "/logout"), 200, "nobody false")
			want(t, "refresh after the logout", w.prove(w.id, ""), 200, `"continue":false`)
		})
	}
}
