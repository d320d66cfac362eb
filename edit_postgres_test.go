package session_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// More sessions than a batch has, a large one and a renewed half of them among them,
// in every way in which they can be kept.
func TestEditEachStore(t *testing.T) {
	eachFindingStore(t, func(t *testing.T, store session.Store, cfg session.Config) {
		cfg.MaxBytes = 1 << 20
		m := newManager(t, store, cfg)
		var all []*browser
		for i := range 60 {
			b := &browser{m: m}
			b.visit(func(s *session.Session) {
				userIDKey.Set(s, 1)
				countKey.Set(s, i)
				if i == 30 {
					large := make([]byte, 80_000)
					_, _ = rand.Read(large)
					keyA.Set(s, hex.EncodeToString(large))
				}
			})
			all = append(all, b)
		}
		other := &browser{m: m}
		other.visit(func(s *session.Session) { userIDKey.Set(s, 2) })

		turns := 0
		n, err := m.Edit(t.Context(), userIDKey.Is(1), func(s *session.Session) error {
			if turns++; turns == 20 {
				for i, b := range all {
					if i%2 == 0 {
						b.visit(func(s *session.Session) { s.Renew() })
					}
				}
			}
			_ = setPlan(s)
			return addOne(s)
		})
		if strings.Contains(t.Name(), "hashed_and_encrypted") {
			if n != 0 || turns != 0 || err == nil || !strings.Contains(err.Error(), "hashes of the session IDs") {
				t.Errorf("got %d, %v, want an error", n, err)
			}
			return
		}
		if n != int64(len(all)) || err != nil {
			t.Errorf("got %d, %v, want %d", n, err, len(all))
		}
		for i, b := range all {
			if plan, count := value(b, planKey), value(b, countKey); plan != "gold" || count != i+1 {
				t.Errorf("session %d: got %q, %d, want gold, %d", i, plan, count, i+1)
			}
		}
		if value(all[30], keyA) == "" || value(other, planKey) != "" {
			t.Error("got the large value lost, or another user's session changed")
		}
		infos, err := m.Sessions(t.Context(), userIDKey.Is(1)) // they are found as before
		if len(infos) != len(all) || err != nil {
			t.Errorf("got %d found, %v, want %d", len(infos), err, len(all))
		}
	})
}

// One statement names the sessions, one loads fifty, one stores one.
func TestPostgresEditStatements(t *testing.T) {
	const sessions = 200
	for _, tt := range []struct {
		opts session.PostgresOptions
		want int
	}{
		{session.PostgresOptions{}, 1 + sessions/50 + sessions},
		{session.PostgresOptions{HashIDs: true}, 1 + sessions/50 + sessions},
		{session.PostgresOptions{DisableBatching: true}, 1 + sessions + sessions},
	} {
		var trace tracer
		pool := pgtest.Pool(t, trace.use)
		m := patientManager(t, newStore(t, pool, tt.opts))
		usersSessions(t, m, "ada", sessions)
		expiries := queryOne[string](t, pool, "SELECT string_agg(expire::text, ' ' ORDER BY sid) FROM schema_system.session")
		ours := func(what string, want int) {
			t.Helper()
			n := 0
			for _, sql := range trace.take() {
				if strings.Contains(sql, "schema_system") {
					n++
				}
			}
			if n != want {
				t.Errorf("%+v: %s: got %d statements, want %d", tt.opts, what, n, want)
			}
		}
		trace.take()
		wantEdit(t, m, userKey.Is("ada"), setPlan, sessions)
		ours("changed", tt.want)
		wantEdit(t, m, userKey.Is("ada"), setPlan, 0)
		ours("there already", tt.want-sessions)
		if got := queryOne[string](t, pool, "SELECT string_agg(expire::text, ' ' ORDER BY sid) FROM schema_system.session"); got != expiries {
			t.Error("got an expiry that moved")
		}
	}
}

// Requests in two programs count in a few sessions, all the while that Edits do; the
// first time that an Edit comes to a session a request changes it while it works.
func TestPostgresEditBesideRequests(t *testing.T) {
	const visits, edits = 12, 3
	for _, opts := range []session.PostgresOptions{{}, {HashIDs: true}} {
		t.Run(fmt.Sprintf("hashed %t", opts.HashIDs), func(t *testing.T) {
			programs, _ := newPrograms(t, 3, opts)
			all := usersSessions(t, programs[0], "ada", 4)
			byHandle := map[string]*browser{}
			for _, b := range all {
				b.visit(func(s *session.Session) { byHandle[s.Handle()] = b })
			}
			var met sync.Map
			together(len(all)+1, func(i int) {
				if i < len(all) {
					b := all[i].with(programs[1+i%2])
					for range visits {
						if resp := b.visit(increment); resp.status != 200 {
							t.Errorf("got status %d, want 200", resp.status)
						}
					}
					return
				}
				for range edits {
					n, err := programs[0].Edit(context.Background(), userKey.Is("ada"), func(s *session.Session) error {
						if _, again := met.LoadOrStore(s.Handle(), true); !again {
							byHandle[s.Handle()].with(programs[1]).visit(increment)
						}
						return addOne(s)
					})
					if n != int64(len(all)) || err != nil {
						t.Errorf("Edit: got %d, %v, want %d", n, err, len(all))
					}
				}
			})
			for i, b := range all {
				if got := value(b, countKey); got != visits+edits+1 {
					t.Errorf("session %d: got %d, want %d", i, got, visits+edits+1)
				}
			}
		})
	}
}

// BenchmarkPostgresEdit changes a thousand sessions of a user.
func BenchmarkPostgresEdit(b *testing.B) {
	m := patientManager(b, newStore(b, pgtest.Pool(b)))
	usersSessions(b, m, "ada", 1000)
	for b.Loop() {
		if n, err := m.Edit(b.Context(), userKey.Is("ada"), addOne); n != 1000 || err != nil {
			b.Fatal(n, err)
		}
	}
}
