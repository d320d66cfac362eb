package session_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// resealManager encrypts with the first secret and opens with all.
func resealManager(t testing.TB, store session.Store, userKey string, secrets ...string) *session.Manager {
	t.Helper()
	return newManager(t, store, session.Config{
		Secret: secrets[0], OldSecrets: secrets[1:], Encrypt: true, UserKey: userKey,
		StoreTimeout: patience, DisablePrune: true,
	})
}

// reseal must not fail.
func reseal(t *testing.T, m *session.Manager, opts session.ResealOptions) session.ResealCounts {
	t.Helper()
	n, err := m.Reseal(t.Context(), opts)
	if err != nil {
		t.Fatalf("Reseal: got %v, want no error", err)
	}
	return n
}

const resealState = `SELECT string_agg(md5(sid || sess::text || expire::text), ' ' ORDER BY sid) FROM schema_system.session`

func TestReseal(t *testing.T) {
	pool := pgtest.Pool(t)
	store := newStore(t, pool)
	oldest, old := "the oldest 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A", testSecretOld
	login := func(m *session.Manager, user string) string {
		return useSession(m, "", func(s *session.Session) {
			session.Key[string]("userId").Set(s, user)
			noteKey.Set(s, secretNote)
		}).newCookie()
	}
	login(resealManager(t, store, "userId", old), "expired")
	execSQL(t, pool, "UPDATE schema_system.session SET expire = now() - interval '1 hour'")
	cookies := map[string]string{
		"oldest":  login(resealManager(t, store, "userId", oldest), "ada"),
		"old":     login(resealManager(t, store, "userId", old), "ada"),
		"current": login(resealManager(t, store, "userId", testSecret), "ada"),
		"plain":   login(patientManager(t, store), "ada"),
		"lost":    login(resealManager(t, store, "userId", "that was lost 4Ft8Qs2Zr6Lm9Xv1Kc5Bn7Wd3Hj0Pg"), "ada"),
	}

	// Without UserKey, as a tool that does not know it: the searchable hash stays.
	m := resealManager(t, store, "", testSecret, old, oldest)
	before, expiries := queryOne[string](t, pool, resealState), queryOne[string](t, pool, "SELECT string_agg(expire::text, ' ' ORDER BY sid) FROM schema_system.session")
	want := session.ResealCounts{Records: 5, Plain: 1, Current: 1, Old: 2, Unopened: 1}
	if got := reseal(t, m, session.ResealOptions{DryRun: true}); got != want {
		t.Errorf("DryRun: got %+v, want %+v", got, want)
	}
	if got := queryOne[string](t, pool, resealState); got != before {
		t.Error("DryRun has changed the table")
	}
	want = session.ResealCounts{Records: 5, Plain: 1, Current: 1, Resealed: 2, Unopened: 1}
	if got := reseal(t, m, session.ResealOptions{}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := queryOne[string](t, pool, "SELECT string_agg(expire::text, ' ' ORDER BY sid) FROM schema_system.session"); got != expiries {
		t.Error("an expiry was moved")
	}
	want = session.ResealCounts{Records: 5, Plain: 1, Current: 3, Unopened: 1}
	if got := reseal(t, m, session.ResealOptions{}); got != want {
		t.Errorf("again: got %+v, want %+v", got, want)
	}

	for _, name := range []string{"oldest", "old", "current"} {
		useSession(m, cookies[name], func(s *session.Session) {
			if note, _ := noteKey.Get(s); note != secretNote {
				t.Errorf("%s: the value was lost", name)
			}
		})
	}
	alone := resealManager(t, store, "userId", testSecret) // it cannot verify the old cookies
	if got := handlesOf(t, alone, session.Key[string]("userId").Is("ada")); len(got) != 4 {
		t.Errorf("found by the user, with the current secret alone: got %d sessions, want 3 sealed ones and the plain one", len(got))
	}
	if got, err := alone.Reseal(t.Context(), session.ResealOptions{DryRun: true}); err != nil || got.Current != 3 || got.Unopened != 1 {
		t.Errorf("with the current secret alone: got %+v, %v, want 3 that open and 1 that does not", got, err)
	}
}

// A record that a trigger keeps as it was, or whose change it drops, is not called
// sealed anew.
func TestResealKnowsWhatIsKept(t *testing.T) {
	for _, row := range []string{"OLD", "NULL"} {
		t.Run(row, func(t *testing.T) {
			pool := pgtest.Pool(t)
			store := newStore(t, pool)
			useSession(resealManager(t, store, "userId", testSecretOld), "", func(s *session.Session) { noteKey.Set(s, secretNote) })
			execSQL(t, pool, `CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN `+row+`; END $$;
				CREATE TRIGGER keep BEFORE UPDATE ON schema_system.session FOR EACH ROW EXECUTE FUNCTION public.keep()`)
			got, err := resealManager(t, store, "userId", testSecret, testSecretOld).Reseal(t.Context(), session.ResealOptions{})
			if err == nil || !strings.Contains(err.Error(), "trigger") || got.Resealed != 0 {
				t.Errorf("got %+v, %v, want nothing sealed anew and an error about a trigger", got, err)
			}
		})
	}
}

// beforeUpdate calls f once, before the first UPDATE of a pool reaches the server.
func beforeUpdate(f func()) *tracer {
	var once sync.Once
	return &tracer{start: func(sql string) {
		if strings.Contains(sql, "UPDATE") && !strings.Contains(sql, "DELETE") {
			once.Do(f)
		}
	}}
}

// Reseal has read the record, and then something happens to it before Reseal
// writes.
func TestResealLosesNoRace(t *testing.T) {
	for _, tt := range []struct {
		name     string
		secrets  []string // of the program in between
		between  func(*session.Session)
		want     int64 // resealed
		wantLeft int   // the count in the session afterwards; -1: none is left
	}{
		{"a change, sealed with the current secret", []string{testSecret, testSecretOld}, increment, 0, 1},
		{"a change, sealed with the old secret", []string{testSecretOld}, increment, 1, 1},
		{"a logout", []string{testSecretOld}, (*session.Session).Destroy, 0, -1},
		{"a renewal", []string{testSecret, testSecretOld}, (*session.Session).Renew, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url := pgtest.URL(t)
			store := newStore(t, openPool(t, url))
			cookie, _ := loginCounter(t, resealManager(t, store, "", testSecretOld))
			program := resealManager(t, store, "", tt.secrets...)
			race := beforeUpdate(func() {
				if c := useSession(program, cookie, tt.between).newCookie(); c != "" {
					cookie = c
				}
			})
			racing := newStore(t, openPool(t, url, race.use))
			m := resealManager(t, racing, "", testSecret, testSecretOld)
			if got := reseal(t, m, session.ResealOptions{}); got.Resealed != tt.want || got.Old != 0 || got.Unopened != 0 || got.Records != got.Resealed+got.Current {
				t.Errorf("got %+v, want %d resealed", got, tt.want)
			}
			if got := counted(t, m, cookie); got != tt.wantLeft {
				t.Errorf("the session's count: got %d, want %d", got, tt.wantLeft)
			}
			if got := reseal(t, m, session.ResealOptions{DryRun: true}); got.Old != 0 {
				t.Errorf("under the old secret: got %d, want 0", got.Old)
			}
		})
	}
}

// A request has read the record, then Reseal writes it, then the request saves.
func TestResealDuringARequest(t *testing.T) {
	store := newStore(t, pgtest.Pool(t))
	m := resealManager(t, store, "", testSecret, testSecretOld)
	cookie, _ := loginCounter(t, resealManager(t, store, "", testSecretOld))
	resp := useSession(m, cookie, func(s *session.Session) {
		increment(s)
		if got := reseal(t, m, session.ResealOptions{}); got.Resealed != 1 {
			t.Errorf("got %+v, want 1 resealed", got)
		}
	})
	if got := counted(t, m, cookie); resp.status != http.StatusOK || got != 1 {
		t.Errorf("got status %d and count %d, want 200 and 1", resp.status, got)
	}
}

func TestResealGoesOnWhereItWasStopped(t *testing.T) {
	const records = 120
	store := newStore(t, pgtest.Pool(t))
	old := resealManager(t, store, "", testSecretOld)
	for range records {
		loginCounter(t, old)
	}
	m := resealManager(t, store, "", testSecret, testSecretOld)
	ctx, stop := context.WithCancel(t.Context())
	var seen []int64
	n, err := m.Reseal(ctx, session.ResealOptions{Progress: func(n session.ResealCounts) {
		if seen = append(seen, n.Records); len(seen) == 1 {
			stop()
		}
	}})
	if !errors.Is(err, context.Canceled) || len(seen) != 1 || n.Records != seen[0] || n.Resealed != n.Records || n.Resealed >= records {
		t.Errorf("stopped after the first batch: got %+v, %v, progress %v, want whole batches and context.Canceled", n, err, seen)
	}
	if n2 := reseal(t, m, session.ResealOptions{}); n2.Current != n.Resealed || n2.Resealed != records-n.Resealed || n2.Records != records {
		t.Errorf("again: got %+v, want %d more of %d", n2, records-n.Resealed, records)
	}
	if got := reseal(t, resealManager(t, store, "", testSecret), session.ResealOptions{DryRun: true}); got != (session.ResealCounts{Records: records, Current: records}) {
		t.Errorf("with the current secret alone: got %+v, want all %d to open", got, records)
	}
}

func TestResealRefusals(t *testing.T) {
	hashed := newStore(t, pgtest.Pool(t), session.PostgresOptions{HashIDs: true})
	gone := pgtest.Pool(t)
	dropped := newStore(t, gone)
	execSQL(t, gone, "DROP TABLE schema_system.session")
	for _, tt := range []struct {
		name  string
		store session.Store
		want  string
	}{
		{"memory", session.NewMemoryStore(), "session: Reseal: the store is no PostgresStore"},
		{"hashed IDs", hashed, "session: Reseal: the table holds hashes"},
		{"no table", dropped, "session: Reseal: "},
	} {
		n, err := resealManager(t, tt.store, "", testSecret).Reseal(t.Context(), session.ResealOptions{})
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) || n != (session.ResealCounts{}) {
			t.Errorf("%s: got %+v, %v, want %q", tt.name, n, err, tt.want)
		}
	}
}
