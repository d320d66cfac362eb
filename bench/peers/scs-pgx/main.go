// Command scs-pgx is the benchmark's server on scs with its pgxstore. IDLE_TIMEOUT,
// a Go duration, switches the idle timeout on: every request then saves. Sessions
// may then live for 30 days: with scs's default of 24 hours in all, a day's idle
// timeout would never move an expiry.
package main

import (
	"context"
	"net/http"
	"os"
	"time"

	"github.com/alexedwards/scs/pgxstore"
	"github.com/alexedwards/scs/v2"

	"github.com/pgsession/session/bench/internal/app"
	"github.com/pgsession/session/bench/internal/scsapp"
)

func main() { app.Main(handler) }

func handler(ctx context.Context) (http.Handler, func(), error) {
	pool, err := app.Pool(ctx)
	if err != nil {
		return nil, nil, err
	}
	m := scs.New()
	if v := os.Getenv("IDLE_TIMEOUT"); v != "" {
		m.Lifetime = 30 * 24 * time.Hour
		m.IdleTimeout, err = time.ParseDuration(v)
	}
	if err == nil {
		_, err = pool.Exec(ctx, scsapp.PgxSchema)
	}
	if err != nil {
		pool.Close()
		return nil, nil, err
	}
	store := pgxstore.New(pool)
	m.Store = store
	end := func() {
		store.StopCleanup()
		pool.Close()
	}
	return scsapp.Handler(m), end, nil
}
