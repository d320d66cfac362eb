package settings

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pgsession/session"
)

func serverless(cfg session.Config) (session.Config, session.PostgresOptions) {
	cfg.DisablePrune = true            // an instance may sleep for hours: "sessionctl prune" by a timer, or Manager.Prune
	cfg.StoreTimeout = 3 * time.Second // the platform's own limit is near, and a 503 is better than its page
	cfg.TrustProxy = true              // TLS ends before the instance
	cfg.UserKey = "userId"
	cfg.Cookie.Name = "__Host-session"
	cfg.Cookie.Secure = session.SecureAlways
	return cfg, session.PostgresOptions{} // the table is there: "sessionctl schema" in the deployment
}

// serverlessPool is small: an instance has one request at a time, and there may be
// a thousand instances.
func serverlessPool(ctx context.Context, url string) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = 2                                // one for the session, one for a transaction of yours
	cfg.MinConns = 0                                // none while nobody asks
	cfg.MaxConnIdleTime = 30 * time.Second          // given back before the instance is frozen with it
	cfg.ConnConfig.ConnectTimeout = 2 * time.Second // a database that does not answer is a 503, soon
	return pgxpool.NewWithConfig(ctx, cfg)
}
