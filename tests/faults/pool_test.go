package faults_test

import (
	"fmt"
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/pgtest"
)

// Other clients take every connection that the server has, and the programs lose
// theirs.
func TestFaultTooManyConnections(t *testing.T) {
	server := pgtest.Own(t, pgtest.Options{Settings: map[string]string{"max_connections": "24"}})
	a := admin(t, server.URL()) // a superuser: some connections are kept for it
	execute(t, a, "CREATE ROLE ordinary LOGIN PASSWORD 'ordinary'")
	execute(t, a, "GRANT CREATE ON DATABASE postgres TO ordinary")
	u, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	u.User = url.UserPassword("ordinary", "ordinary")
	r := newRig(t, u.String(), rigOptions{timeout: brief})
	u.RawQuery += "&application_name=other"
	var others []*pgx.Conn
	release := func() {
		for _, c := range others {
			_ = c.Close(t.Context())
		}
		others = nil
	}
	defer release()
	// While their pools are held the programs do not reconnect.
	one, two := r.hold(r.programs[0]), r.hold(r.programs[1])
	execute(t, a, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", applicationName)
	const ordinary = 24 - 1 - 3 // one is ours, and three are kept for superusers
	for len(others) < ordinary {
		if c, err := pgx.Connect(t.Context(), u.String()); err == nil {
			others = append(others, c)
		}
	}
	one()
	two()
	r.waitRefused()
	release()
	r.wait(recovery)
	res := r.finish("too many connections")
	res.refused(t, brief)
	res.persisted(t, brief)
	res.reconnected(t, 2)
}

// The application's own queries hold the whole pool.
func TestFaultPoolExhausted(t *testing.T) {
	r := newRig(t, pgtest.URL(t), rigOptions{timeout: brief})
	before := r.storeErrors()
	one, two := r.hold(r.programs[0]), r.hold(r.programs[1])
	r.waitRefused()
	one()
	two()
	r.wait(recovery)
	res := r.finish("pool exhausted")
	res.refused(t, brief)
	res.kept(t)
	if got := r.storeErrors() - before; got < refusals {
		t.Errorf("Stats.StoreErrors: got %d more, want at least %d", got, refusals)
	}
}

// Statements that wait for a lock are cancelled, and their connections survive.
func TestFaultTableLocked(t *testing.T) {
	locked(t, "LOCK TABLE", rigOptions{timeout: brief})
}

func TestFaultStatementTimeout(t *testing.T) {
	locked(t, "LOCK TABLE, statement_timeout", rigOptions{timeout: ample, pool: func(cfg *pgxpool.Config) {
		cfg.ConnConfig.RuntimeParams["statement_timeout"] = fmt.Sprint(brief.Milliseconds() / 2)
	}})
}

func locked(t *testing.T, name string, o rigOptions) {
	dbURL := pgtest.URL(t)
	r := newRig(t, dbURL, o)
	a := admin(t, dbURL)
	execute(t, a, "BEGIN")
	execute(t, a, "LOCK TABLE schema_system.session IN ACCESS EXCLUSIVE MODE")
	r.waitRefused()
	execute(t, a, "COMMIT")
	r.wait(recovery)
	res := r.finish(name)
	res.refused(t, brief)
	res.kept(t)
}
