package session_test

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// However this program got a TimeZone that others have not.
func TestTimeZoneOfThisProgramAlone(t *testing.T) {
	url := pgtest.URL(t)
	for _, tc := range []struct {
		name, parameter, value string
		fits                   bool
	}{
		{"none", "application_name", "x", true},
		{"the database's own by another name", "timezone", "Etc/UTC", true},
		{"parameter", "timezone", "Asia/Kolkata", false},
		{"parameter in capitals", "TimeZone", "Asia/Kolkata", false},
		{"options of the connection string, which node-postgres takes too", "options", "-c TimeZone=Asia/Kolkata", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			log := &logRecorder{}
			pool := openPool(t, url, func(cfg *pgxpool.Config) { cfg.ConnConfig.RuntimeParams[tc.parameter] = tc.value })
			store := newStore(t, pool, session.PostgresOptions{Logger: log.logger()})
			if warned := strings.Contains(log.String(), "wrong TimeZone"); warned == tc.fits {
				t.Errorf("warning: got %t, want %t", warned, !tc.fits)
			}
			_, err := session.New(store, session.Config{
				Secret: postgresSecret, DisablePrune: true, Cookie: session.CookieConfig{Format: session.FormatExpress}, Logger: slog.New(slog.DiscardHandler),
			})
			if (err == nil) != tc.fits {
				t.Errorf("New with the Express format: got %v, want an error %t", err, !tc.fits)
			}
		})
	}
}

// summerEndsAfter returns a zone in which summer time ends five minutes after now, and
// began half a year before: on any day of a year, the first and the last as well.
func summerEndsAfter(now time.Time) string {
	day, minutes := now.YearDay(), (now.Hour()+1)*60+now.Minute()+5
	if day > 59 && now.Year()%4 == 0 { // J counts no 29 February, which is a day after the 28th
		if day--; day == 59 {
			minutes += 24 * 60
		}
	}
	return fmt.Sprintf("<T>0<S>-1,J%d/0,J%d/%d:%02d", (day+181)%365+1, day, minutes/60, minutes%60)
}

// A save that leaves the expiry alone does so also in the hour that comes twice, when
// the expiry of a session with a quarter of an hour left looks as if it were past.
func TestSaveInTheHourThatComesTwice(t *testing.T) {
	// Summer time ends in five minutes: what is 15 minutes away is written as it was
	// 45 minutes ago.
	zone := summerEndsAfter(time.Now().UTC())
	admin := pgtest.Pool(t)
	execSQL(t, admin, "ALTER DATABASE "+pgx.Identifier{admin.Config().ConnConfig.Database}.Sanitize()+" SET timezone = '"+zone+"'")
	pool := openPool(t, admin.Config().ConnString())
	for name, opts := range map[string]session.PostgresOptions{"batches": {}, "alone": {DisableBatching: true}} {
		t.Run(name, func(t *testing.T) {
			store := newStore(t, pool, opts)
			if got := queryOne[bool](t, pool, "SELECT (now() + interval '15 minutes')::timestamp < now()::timestamp"); !got {
				t.Fatal("got no hour that comes twice")
			}
			id := rand.Text()
			execSQL(t, pool, `INSERT INTO schema_system.session VALUES ($1, '{"n":0}', now() + interval '15 minutes')`, id)
			before := queryOne[string](t, pool, "SELECT expire::text FROM schema_system.session WHERE sid = $1", id)
			if err := store.Update(t.Context(), id, session.Change{Old: []byte(`{"n":0}`), New: []byte(`{"n":1}`)}); err != nil {
				t.Fatal(err)
			}
			if got := queryOne[string](t, pool, "SELECT expire::text FROM schema_system.session WHERE sid = $1", id); got != before {
				t.Errorf("expire: got %s, want %s as before", got, before)
			}
			renewed := rand.Text()
			if err := store.Update(t.Context(), id, session.Change{Old: []byte(`{"n":1}`), New: []byte(`{"n":2}`), NewID: renewed}); err != nil {
				t.Fatal(err)
			}
			if got := queryOne[string](t, pool, "SELECT expire::text FROM schema_system.session WHERE sid = $1", renewed); got != before {
				t.Errorf("expire after a renewal: got %s, want %s as before", got, before)
			}
		})
	}
}
