package settings

import (
	"time"

	"github.com/pgsession/session"
)

func shop(cfg session.Config) (session.Config, session.PostgresOptions) {
	cfg.UserKey = "userId"                   // a login renews the ID and keeps the cart; who logs in over somebody else begins without it
	cfg.IdleTimeout = 14 * 24 * time.Hour    // a cart outlives a holiday
	cfg.TouchInterval = time.Hour            // of two weeks an hour is nothing: one write an hour for who browses
	cfg.MaxPerUser = 20                      // phones and laptops, and not every bot that has a password
	cfg.TrustProxy = true                    // the proxy ends TLS and sets X-Forwarded-Proto
	cfg.Cookie.Name = "__Host-session"       // no other host below the domain can set it
	cfg.Cookie.Secure = session.SecureAlways // which that name needs
	return cfg, session.PostgresOptions{
		IndexKeys: []string{"userId"}, // or each login would read the whole table for MaxPerUser
	}
}
