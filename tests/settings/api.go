package settings

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/pgsession/session"
)

func api(cfg session.Config) (session.Config, session.PostgresOptions) {
	cfg.TokenPrefix = "acme_"                  // clients bring "Authorization: Bearer acme_…"; found where it leaks
	cfg.IdleTimeout = 30 * 24 * time.Hour      // a phone that is used once a month stays logged in
	cfg.AbsoluteTimeout = 365 * 24 * time.Hour // and logs in again once a year
	cfg.TouchInterval = time.Hour              // clients that poll write once an hour
	cfg.UserKey = "userId"                     // a login renews the token
	cfg.MaxPerUser = 10                        // the device used least recently to log in is logged out
	cfg.MaxBytes = 4 << 10                     // no cart, no form: who stores more has a mistake
	cfg.ErrorHandler = apiError                // clients read JSON, not a page
	return cfg, session.PostgresOptions{
		IndexKeys: []string{"userId"}, // "log me out everywhere" in milliseconds
	}
}

func apiError(w http.ResponseWriter, _ *http.Request, err error) {
	status := http.StatusServiceUnavailable // the client comes again, with the token that it has
	switch {
	case errors.Is(err, session.ErrDestroyed), errors.Is(err, session.ErrConflict):
		status = http.StatusConflict
	case errors.Is(err, session.ErrInvalid), errors.Is(err, session.ErrHeaderSent):
		status = http.StatusInternalServerError
	default:
		w.Header().Set("Retry-After", "5")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"error":%q}`, http.StatusText(status))
}
