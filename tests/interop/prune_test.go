package interop_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

// TestPrune says that each side deletes expired rows only, its own and the
// other's, and that both at once do no harm.
func TestPrune(t *testing.T) {
	const rows = 600
	for _, major := range majors {
		db := newDatabase(t, "Australia/Lord_Howe") // half an hour of summer time
		ex, gg := db.express(t, express{Major: major}), db.golang(t)
		r := rand.New(rand.NewPCG(newSeed(t), 0))
		for _, pruners := range [][]*side{{ex}, {gg}, {ex, gg}} {
			db.exec(t, "TRUNCATE "+table)
			for range rows {
				// Nobody's end comes while the rows are counted.
				seconds := 300 + r.IntN(1<<r.IntN(20))
				if r.IntN(2) == 0 {
					seconds = -5 - r.IntN(1<<r.IntN(20))
				}
				db.exec(t, "INSERT INTO "+table+` VALUES ($1, '{"cookie":{"originalMaxAge":60000,"path":"/"}}', now() + make_interval(secs => $2))`, newID(), seconds)
			}
			live := db.number(t, "SELECT count(*) FROM "+table+" WHERE expire >= now()")
			var wait sync.WaitGroup
			name := ""
			for _, s := range pruners {
				name += fmt.Sprintf(" %s", s.name)
				wait.Go(func() { s.prune(t) })
			}
			wait.Wait()
			if got := db.number(t, "SELECT count(*) FROM "+table+" WHERE expire >= now()"); got != live {
				t.Errorf("live rows after pruning by%s: got %d, want %d", name, got, live)
			}
			if got := db.number(t, "SELECT count(*) FROM "+table+" WHERE expire < now()"); got != 0 {
				t.Errorf("expired rows after pruning by%s: got %d, want 0", name, got)
			}
			count("6 rows before a prune by either or both: the expired ones gone, no other", rows)
		}
	}
}
