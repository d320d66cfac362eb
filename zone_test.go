package session_test

import (
	"log/slog"
	"strings"
	"testing"

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
