package citus

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/citustest"
)

// What sessionctl does to a table that is spread over workers.
func TestSessionctl(t *testing.T) {
	pool, store := openTable(t, session.PostgresOptions{})
	program := filepath.Join(t.TempDir(), "sessionctl")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-C", "../../cmd/sessionctl", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const oldSecret, secret = "kq7Vw2mT9xB4nR8sL1cZ6yH3pD5gJ0fa", "Zt5Nw8pQ2rX7vB1mK4dH9sJ6gL3cF0ya"
	run := func(want string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, append([]string{"--schema", schema, "--json"}, args...)...)
		cmd.Env = append(os.Environ(), "DATABASE_URL="+pool.Config().ConnString(), "SESSION_SECRET="+secret, "SESSION_SECRET_OLD="+oldSecret)
		var compact bytes.Buffer
		out, err := cmd.Output()
		if err == nil {
			err = json.Compact(&compact, out)
		}
		if err != nil || !strings.Contains(compact.String(), want) {
			t.Errorf("%s: got %v, %s, want %s", strings.Join(args, " "), err, out, want)
		}
	}
	m, err := session.New(store, session.Config{Secret: oldSecret, Encrypt: true, UserKey: "user", DisablePrune: true, StoreTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	const live = 30
	for range live {
		c := visit(t, m, nil, func(s *session.Session) { user.Set(s, "mia") })
		visit(t, m, c, func(s *session.Session) { s.Renew() })
	}
	var handle string
	visit(t, m, nil, func(s *session.Session) { user.Set(s, "ada"); _ = s.Save(t.Context()); handle = s.Handle() })
	citustest.Exec(t, pool, "INSERT INTO "+schema+".session SELECT 'expired ' || n, '{\"cookie\":{}}', now() - interval '1 hour' FROM generate_series(1, 120) n")
	run(`"pruned":120,"left":0`, "prune")
	run(`"live":31,"expired":0,"marks":30`, "stats")
	run(`"resealed":31`, "rotate")
	run(`"destroyed":1`, "destroy", handle)
	run(`"destroyed":30`, "destroy", "--key", "user", "--value", "mia")
	var c *http.Cookie
	for range live {
		c = visit(t, m, nil, func(s *session.Session) { user.Set(s, "mia") })
	}
	run(`"destroyed":30`, "destroy", "--all", "--yes")
	visit(t, m, c, func(s *session.Session) {
		if _, is := user.Get(s); is {
			t.Error("alive after destroy --all")
		}
	})
}
