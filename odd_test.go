package session_test

import (
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// oddRows are what other programs, or a person with psql, can leave in a table:
// SQL for sess and expire.
var oddRows = []struct{ name, sess, expire string }{
	{"for ever", `'{"cookie":{},"userId":42}'`, `'infinity'`},
	{"since ever", `'{"cookie":{},"userId":42}'`, `'-infinity'`},
	{"the last year", `'{"cookie":{},"userId":42}'`, `'294276-12-31 00:00:00'`},
	{"the last instant", `'{"cookie":{},"userId":42}'`, `'294276-12-31 23:59:59.999999'`},
	{"before Christ", `'{"cookie":{},"userId":42}'`, `'4713-01-01 00:00:00 BC'`},
	{"the year 10000", `'{"cookie":{},"userId":42}'`, `'10000-01-01'`},
	{"no expiry", `'{"cookie":{},"userId":42}'`, `NULL`},
	{"no data", `NULL`, `now() + interval '1 hour'`},
	{"neither", `NULL`, `NULL`},
	{"the null of JSON", `'null'`, `now() + interval '1 hour'`},
	{"a string", `'"text"'`, `now() + interval '1 hour'`},
	{"an empty string", `'""'`, `now() + interval '1 hour'`},
	{"an object in a string", `'"{\"userId\":42}"'`, `now() + interval '1 hour'`},
	{"a number", `'1'`, `now() + interval '1 hour'`},
	{"no cookie", `'{"userId":42}'`, `now() + interval '1 hour'`},
	{"a cookie that is none", `'{"cookie":7,"userId":42}'`, `now() + interval '1 hour'`},
	{"a lifetime beyond all", `'{"cookie":{"originalMaxAge":1e300},"userId":42}'`, `now() + interval '1 hour'`},
	{"a lifetime below all", `'{"cookie":{"originalMaxAge":-1e300},"userId":42}'`, `now() + interval '1 hour'`},
	{"huge numbers", `'{"cookie":{},"userId":42,"n":1e308,"m":123456789012345678901234567890,"__created":99999999999999999999,"__renewed":9223372036854775807}'`, `now() + interval '1 hour'`},
	{"times that are none", `'{"cookie":{},"userId":42,"__created":"x","__renewed":[1]}'`, `now() + interval '1 hour'`},
	{"a mark that leads nowhere", `'"0e"'`, `now() + interval '1 hour'`},
	{"a mark of nonsense", `'"0e999x"'`, `now() + interval '1 hour'`},
	{"half a surrogate", `'{"cookie":{},"userId":42,"a":"\ud8ff"}'`, `now() + interval '1 hour'`},
	{"the other half, escaped twice", `'{"cookie":{},"userId":42,"a":"\\\udfff"}'`, `now() + interval '1 hour'`},
	{"half an escape", `'{"cookie":{},"userId":42,"a":"\\ud8"}'`, `now() + interval '1 hour'`},
	{"half an escape at the end of a name", `'{"cookie":{},"userId":42,"\\ud8":"\\u"}'`, `now() + interval '1 hour'`},
	{"NUL", `'{"cookie":{},"userId":42,"a":"\u0000"}'`, `now() + interval '1 hour'`},
	{"NUL in the name", `'{"cookie":{},"userId":42,"\u0000":1}'`, `now() + interval '1 hour'`},
	{"deep arrays", `('{"cookie":{},"userId":42,"a":' || repeat('[', 9000) || repeat(']', 9000) || '}')`, `now() + interval '1 hour'`},
	{"deep objects", `('{"cookie":{},"userId":42,"a":' || repeat('{"a":', 9000) || '1' || repeat('}', 9000) || '}')`, `now() + interval '1 hour'`},
	{"large", `('{"cookie":{},"userId":42,"a":"' || repeat('x', 100000) || '"}')`, `now() + interval '1 hour'`},
	{"duplicate names", `'{"cookie":{},"userId":1,"userId":42}'`, `now() + interval '1 hour'`},
}

// fillOdd makes a table that allows everything and returns the IDs of its rows.
// What the type refuses is left out.
func fillOdd(t *testing.T, pool *pgxpool.Pool, column string) (ids []string) {
	t.Helper()
	execSQL(t, pool, `ALTER TABLE schema_system.session DROP CONSTRAINT session_pkey, ALTER sid DROP NOT NULL, ALTER sess DROP NOT NULL, ALTER expire DROP NOT NULL;
		CREATE UNIQUE INDEX ON schema_system.session (sid); ALTER TABLE schema_system.session ALTER sess TYPE `+column)
	for _, row := range oddRows {
		id := rand.Text() + "123456"
		_, err := pool.Exec(t.Context(), fmt.Sprintf("INSERT INTO schema_system.session VALUES ($1, %s::text::%s, %s)", row.sess, column, row.expire), id)
		switch {
		case err == nil:
			ids = append(ids, id)
		case column == "json":
			t.Fatalf("%s: %v", row.name, err)
		}
	}
	execSQL(t, pool, `INSERT INTO schema_system.session VALUES (NULL, '{"cookie":{},"userId":42}', now() + interval '1 hour'), ('', '{"cookie":{},"userId":42}', now() + interval '1 hour'),
		('ключ', '{"cookie":{},"userId":42}', now() + interval '1 hour')`)
	return append(ids, "", "ключ")
}

// No odd row breaks what is done for others, or for all: whoever lists, ends,
// limits, prunes or seals anew, and whoever's request shares a statement with it.
func TestOddRowsBreakNothingForOthers(t *testing.T) {
	for _, tt := range []struct {
		zone, column string
		indexed      bool
	}{
		{"UTC", "json", false},
		{"America/Los_Angeles", "json", true},
		{"Asia/Tokyo", "jsonb", false},
		{"America/Los_Angeles", "jsonb", true},
	} {
		t.Run(fmt.Sprintf("%s %s indexed %t", tt.zone, tt.column, tt.indexed), func(t *testing.T) {
			pool := pgtest.Pool(t, func(cfg *pgxpool.Config) { cfg.ConnConfig.RuntimeParams["timezone"] = tt.zone })
			newStore(t, pool)
			opts := session.PostgresOptions{BatchSlots: 1}
			odd := fillOdd(t, pool, tt.column)
			if tt.indexed {
				opts.IndexKeys = []string{"userId"}
			}
			log := &logRecorder{}
			m := patientManager(t, newStore(t, pool, opts), func(cfg *session.Config) {
				cfg.UserKey, cfg.MaxPerUser, cfg.Logger = "userId", 50, log.logger()
			})
			oddLoads(t, m, odd)
			if n, err := m.Prune(t.Context()); n != 2 || err != nil {
				t.Errorf("Prune: got %d, %v, want the two that have expired", n, err)
			}
			oddFinds(t, pool, m)
			if text := log.String(); strings.Contains(text, "MaxPerUser could not") {
				t.Error("MaxPerUser: got an error in the log, want none")
			}
			if _, err := m.Reseal(t.Context(), session.ResealOptions{}); err != nil {
				t.Errorf("Reseal: got %v, want no error", err)
			}
			if n, err := m.Revoke(t.Context(), session.Everyone()); n < 10 || err != nil {
				t.Errorf("Revoke of everyone: got %d, %v, want all", n, err)
			}
		})
	}
}

// oddLoads loads, saves and touches odd rows and proper sessions in shared
// statements: the proper ones notice nothing, and of the odd ones only those fail
// that cannot be saved.
func oddLoads(t *testing.T, m *session.Manager, odd []string) {
	t.Helper()
	cookies := make([]string, len(odd))
	for i := range cookies {
		cookies[i], _ = loginAs(t, m, 7, "neighbour")
	}
	together(2*len(odd), func(i int) {
		if i < len(odd) {
			if len(odd[i]) != 32 {
				return
			}
			value, err := m.SignCookie(odd[i])
			if err != nil {
				t.Error(err)
			}
			resp := useSession(m, "session="+value, func(s *session.Session) { deviceKey.Get(s) })
			if resp.status != 200 {
				t.Errorf("odd row %d: got status %d, want 200", i, resp.status)
			}
			return
		}
		resp := useSession(m, cookies[i-len(odd)], func(s *session.Session) { deviceKey.Set(s, "renamed") })
		if user := userIn(m, cookies[i-len(odd)]); resp.status != 200 || user != 7 {
			t.Errorf("neighbour: got status %d, user %d, want 200, 7", resp.status, user)
		}
	})
}

// oddFinds lists and ends sessions by their user among odd rows, which are found
// too where they can be.
func oddFinds(t *testing.T, pool *pgxpool.Pool, m *session.Manager) {
	t.Helper()
	loginAs(t, m, 42, "own")
	live := queryOne[int](t, pool, "SELECT count(*) FROM schema_system.session WHERE sid IS NOT NULL AND expire >= now() AND sess::text ~ '\"userId\": ?42[,}]' AND sess::text NOT LIKE '\"%'")
	if got := len(handlesOf(t, m, userIDKey.Is(42))); got != live {
		t.Errorf("Sessions of a user: got %d, want %d", got, live)
	}
	all := queryOne[int](t, pool, "SELECT count(*) FROM schema_system.session WHERE sid IS NOT NULL AND expire >= now() AND coalesce(left(sess::text, 3), '') <> '\"0e'")
	infos, err := m.Sessions(t.Context(), session.Everyone())
	if len(infos) != all || err != nil {
		t.Errorf("Sessions of everyone: got %d, %v, want %d", len(infos), err, all)
	}
	for _, i := range infos {
		if i.ExpiresAt.Before(time.Now()) || i.ExpiresAt.After(time.Now().AddDate(101, 0, 0)) {
			t.Errorf("ExpiresAt: got %v, want a time within a hundred years", i.ExpiresAt)
		}
	}
	one := infos[0].Handle
	if n, err := m.Revoke(t.Context(), session.Everyone().Handle(one)); n != 1 || err != nil {
		t.Errorf("Revoke by handle: got %d, %v, want 1", n, err)
	}
	if n, err := m.Revoke(t.Context(), userIDKey.Is(42)); n < int64(live)-1 || err != nil {
		t.Errorf("Revoke of a user: got %d, %v, want %d", n, err, live)
	}
	loginAs(t, m, 42, "own") // the limit reads them all
}

// Values made of what escapes are made of: what is stored is found by its value,
// and by no other, among rows that hold the raw text of escapes.
func TestFindingAmongEscapes(t *testing.T) {
	const seed = 17
	random := mathrand.New(mathrand.NewPCG(seed, seed))
	atoms := []string{`\`, `\\`, `\u`, `u`, `\ud8`, `\ud83d`, `\ude00`, `\u0000`, `\u001a`, `\u00e9`, `\u2028`, `\"`, `d8`, `0000`, "é", "€", "😀", " "}
	pick := func() (text string) {
		for range 1 + random.IntN(4) {
			text += atoms[random.IntN(len(atoms))]
		}
		return text
	}
	for _, column := range []string{"json", "jsonb"} {
		t.Run(column, func(t *testing.T) {
			pool := pgtest.Pool(t)
			newStore(t, pool)
			execSQL(t, pool, "ALTER TABLE schema_system.session ALTER sess TYPE "+column)
			m := patientManager(t, newStore(t, pool, session.PostgresOptions{IndexKeys: []string{"tenant"}}))
			for range 150 { // as another program could write them
				_, _ = pool.Exec(t.Context(), "INSERT INTO schema_system.session VALUES ($1, $2, now() + interval '1 hour')", rand.Text(), `{"cookie":{},"`+pick()+`":"`+pick()+`"}`)
			}
			var values []string
			for range 60 {
				if v := pick(); !slices.Contains(values, v) && !strings.Contains(v, "\u2028") {
					values = append(values, v)
					useSession(m, "", func(s *session.Session) { tenantKey.Set(s, v) })
				}
			}
			for _, v := range values {
				if n, err := m.Revoke(t.Context(), tenantKey.Is(v)); n != 1 || err != nil {
					t.Errorf("%q: got %d, %v, want 1, no error", v, n, err)
				}
			}
		})
	}
}
