package interop_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pgsession/session"
)

var zones = []string{"UTC", "America/New_York", "Asia/Kolkata"}

// TestTimeZones says that both sides agree on who is alive, and prune nobody who
// is, whatever the TimeZone of the database.
func TestTimeZones(t *testing.T) {
	for _, zone := range zones {
		t.Run(zone, func(t *testing.T) {
			db := newDatabase(t, zone)
			wantAgreement(t, db, zone)
		})
	}
}

// TestPGTZ sets PGTZ for the Go program, which pgx heeds and node-postgres does
// not. Where it is the database's own TimeZone all is well. Where it is another,
// each side would take the other's expiries for hours off and prune them: a
// Manager for Express refuses to start and says why.
func TestPGTZ(t *testing.T) {
	for _, zone := range zones {
		for _, pgtz := range zones {
			t.Run(zone+", PGTZ "+pgtz, func(t *testing.T) {
				db := newDatabase(t, zone)
				var w browser
				w.must(t, db.express(t, express{}), "/login", object{"user": "ada"})
				t.Setenv("PGTZ", pgtz)
				if pgtz == zone {
					wantAgreement(t, db, zone)
					return
				}
				wantZoneRefused(t, db.connect(t), "PGTZ", pgtz, zone)
				if got := db.number(t, "SELECT count(*) FROM "+table); got != 1 {
					t.Errorf("rows of Express after that: got %d, want 1", got)
				}
				count("4 programs with another PGTZ than the database's: refused, no row lost", 1)
			})
		}
	}
}

// TestTimeZoneOfTheSame says that another name for the same zone, and a column
// that has a time zone, are no reason to refuse.
func TestTimeZoneOfTheSame(t *testing.T) {
	db := newDatabase(t, "UTC")
	t.Setenv("PGTZ", "Etc/GMT")
	wantAgreement(t, db, "UTC")

	db = newDatabase(t, "America/New_York")
	db.exec(t, "ALTER TABLE "+table+" ALTER COLUMN expire TYPE timestamptz")
	t.Setenv("PGTZ", "Asia/Kolkata")
	wantAgreement(t, db, "America/New_York")
}

// wantAgreement lets each side make sessions and looks at them from the other,
// then lets each prune.
func wantAgreement(t *testing.T, db *database, zone string) {
	t.Helper()
	for _, major := range majors {
		ex, gg := db.express(t, express{Major: major}), db.golang(t)
		var answer struct{ Timezone string }
		program.call(t, "timezone", map[string]string{"url": db.url}, &answer)
		if answer.Timezone != zone {
			t.Fatalf("node-postgres's TimeZone: got %s, want the database's, %s", answer.Timezone, zone)
		}
		for _, maker := range []*side{ex, gg} {
			var alive, dead []*browser
			for range 4 {
				var w browser
				w.must(t, maker, "/login", object{"user": "ada"})
				alive = append(alive, &w)
				if r := db.mustRow(t, idOf(w.cookie)).left; !isMinute(r) {
					t.Errorf("time left of a session made by %s, as Express counts it: got %.0f s, want 60", maker.name, r)
				}
			}
			// Express's own words for an expiry; all comparisons are with it.
			for i, seconds := range []int{-2, -3600, 40, 3600} {
				w := alive[i]
				db.exec(t, "UPDATE "+table+" SET expire = to_timestamp($1) WHERE sid = $2", float64(time.Now().Unix()+int64(seconds)), idOf(w.cookie))
				if seconds < 0 {
					dead = append(dead, w)
				}
			}
			alive = alive[len(dead):]
			for _, s := range []*side{gg, ex} {
				for _, w := range dead {
					wantNone(t, w.cookie, s)
				}
			}
			for _, s := range []*side{ex, gg} {
				s.prune(t)
				for _, w := range alive {
					w.wantData(t, s, `{"user":"ada"}`)
				}
			}
			for _, w := range dead {
				if _, err := db.row(t, idOf(w.cookie)); err == nil {
					t.Errorf("row of an expired session of %s after a prune by both: got one, want none", maker.name)
				}
			}
			for _, w := range alive {
				for _, s := range []*side{gg, ex} {
					db.exec(t, "UPDATE "+table+" SET expire = to_timestamp($1) WHERE sid = $2", float64(time.Now().Unix()+20), idOf(w.cookie))
					w.wantData(t, s, `{"user":"ada"}`) // a touch
					if r := db.mustRow(t, idOf(w.cookie)).left; !isMinute(r) {
						t.Errorf("time left after a touch by %s, as Express counts it: got %.0f s, want 60", s.name, r)
					}
				}
			}
			count("4 sessions that both sides agree on in each TimeZone, before and after prunes", len(alive)+len(dead))
		}
	}
}

// isMinute reports whether so many seconds are left of a minute that has just begun, on
// a machine that may be busy. Time zones are half an hour apart or more.
func isMinute(left float64) bool { return left > 30 && left < 63 }

// wantZoneRefused says that a store on this pool warns, and that a Manager which
// shares its sessions with Express refuses it; one that does not works.
func wantZoneRefused(t *testing.T, pool *pgxpool.Pool, parts ...string) {
	t.Helper()
	log := &logs{}
	store, err := session.NewPostgresStore(t.Context(), pool, session.PostgresOptions{Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	warning := log.take()
	cfg := session.Config{Secret: secret, DisablePrune: true, Logger: quiet}
	if _, err := session.New(store, cfg); err != nil {
		t.Errorf("Manager that shares nothing with Express: got %v, want none", err)
	}
	cfg.Cookie.Format = session.FormatExpress
	_, err = session.New(store, cfg)
	if err == nil {
		t.Fatal("got a Manager in another TimeZone than Express's, want an error")
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) || !strings.Contains(warning, part) {
			t.Errorf("got error %q and log %q, want both to name %s", err, warning, part)
		}
	}
}

// TestTimeZoneOfThePool says that a TimeZone which the program sets in another
// way is noticed too, and that one which node-postgres takes over from the same
// connection string is not.
func TestTimeZoneOfThePool(t *testing.T) {
	db := newDatabase(t, "America/New_York")
	with := func(parameter string) *database {
		separator := "?"
		if strings.Contains(db.url, "?") {
			separator = "&"
		}
		return &database{url: db.url + separator + parameter}
	}
	wantZoneRefused(t, with("timezone=UTC").connect(t), "UTC", "America/New_York")

	cfg, err := pgxpool.ParseConfig(db.url)
	if err != nil {
		t.Fatal(err)
	}
	cfg.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, "SET timezone = 'Asia/Kolkata'")
		return err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	wantZoneRefused(t, pool, "Asia/Kolkata", "America/New_York")

	both := with("options=-c%20timezone%3DAsia/Kolkata")
	both.pool = both.connect(t)
	t.Cleanup(func() { program.call(t, "end", map[string]string{"url": both.url}, nil) })
	wantAgreement(t, both, "Asia/Kolkata")
}
