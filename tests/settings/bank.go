package settings

import (
	"net/http"
	"time"

	"github.com/pgsession/session"
)

func bank(cfg session.Config) (session.Config, session.PostgresOptions) {
	cfg.UserKey = "userId"                        // nobody's ID is the same before and after a login
	cfg.IdleTimeout = 5 * time.Minute             // who leaves the desk is logged out
	cfg.TouchInterval = 5 * time.Second           // and not half a minute early
	cfg.AbsoluteTimeout = time.Hour               // nor does a script keep a session alive
	cfg.MaxPerUser = 1                            // a login elsewhere ends this one
	cfg.Encrypt = true                            // a copy of the table shows no account number
	cfg.DeviceBound.Refresh = 5 * time.Minute     // a copy of the cookies ends in minutes
	cfg.DeviceBound.Require = 2 * time.Minute     // and a browser that cannot prove its device is not let in
	cfg.Cookie.Name = "__Host-bank"               // this host's alone
	cfg.Cookie.Secure = session.SecureAlways      // never over plain HTTP
	cfg.Cookie.SameSite = http.SameSiteStrictMode // no other site's link or form brings it
	cfg.Cookie.BrowserSession = true              // it ends with the browser
	return cfg, session.PostgresOptions{
		HashIDs:   true,               // nor does a copy of the table open a session for who has the secret too
		IndexKeys: []string{"userId"}, // finds a user's sessions by a keyed hash
	}
}
