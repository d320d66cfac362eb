package settings

import (
	"time"

	"github.com/pgsession/session"
)

func intranet(cfg session.Config) (session.Config, session.PostgresOptions) {
	cfg.IdleTimeout = 10 * time.Hour       // a lunch break logs nobody out
	cfg.AbsoluteTimeout = 14 * time.Hour   // a night does: rights are read anew every morning
	cfg.TrustProxy = true                  // the proxy ends TLS: believe its X-Forwarded-Proto, for the cookie's Secure
	cfg.Cookie.Name = "wiki"               // "session" is what the neighbours below the same host use
	cfg.Cookie.Path = "/wiki/"             // the program is one of several there, and gets requests with that path
	cfg.Cookie.Secure = session.SecureAuto // the default: Secure by HTTPS, and none for http://localhost:8080/wiki/
	cfg.UserKey = "userId"                 // a login renews the ID, a logout ends the session
	return cfg, session.PostgresOptions{
		Table: "wiki", // one database for all of them, each with a table of its own
	}
}
