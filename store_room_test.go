package session_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// Saves of a table as schema.sql makes it find room for the new row version on the
// page of the old one, so that they are heap-only and the table does not grow. At a
// fillfactor of 90 these, of 1,050 bytes each with the tag, do not, which shows that
// this test would see it: seven fill a page, and what is left holds none.
func TestSavesFindRoomOnTheirPage(t *testing.T) {
	const rows, rounds = 210, 3
	for _, tt := range []struct {
		factor      int // 0: what schema.sql says
		least, most int // saves that go to another page, of all
	}{{0, 0, rows * rounds * 3 / 100}, {90, rows * rounds / 10, rows * rounds}} {
		pool := openPool(t, pgtest.URL(t))
		m := patientManager(t, newStore(t, pool))
		execSQL(t, pool, "ALTER TABLE schema_system.session SET (autovacuum_enabled = false)")
		if tt.factor != 0 {
			execSQL(t, pool, fmt.Sprintf("ALTER TABLE schema_system.session SET (fillfactor = %d)", tt.factor))
		}
		browsers := make([]*browser, rows)
		for i := range browsers {
			browsers[i] = &browser{m: m}
			browsers[i].visit(func(s *session.Session) {
				countKey.Set(s, 100)
				session.Key[string]("facts").Set(s, strings.Repeat("x", 765))
			})
		}
		pages := func() []string {
			return strings.Fields(queryOne[string](t, pool, "SELECT string_agg(trim('(' FROM split_part(ctid::text, ',', 1)), ' ' ORDER BY sid) FROM schema_system.session"))
		}
		if n := len(pages()); n != rows {
			t.Fatalf("got %d rows, want %d", n, rows)
		}
		moved := 0
		for round := range rounds {
			before := pages()
			for i := range browsers {
				b := browsers[i*97%rows] // spread over the pages
				if resp := b.visit(increment); resp.status != 200 {
					t.Fatalf("round %d: got status %d, want 200", round, resp.status)
				}
			}
			for i, page := range pages() {
				if page != before[i] {
					moved++
				}
			}
		}
		if moved < tt.least || moved > tt.most {
			t.Errorf("fillfactor %d: got %d of %d saves on another page, want %d to %d", tt.factor, moved, rows*rounds, tt.least, tt.most)
		}
	}
}
