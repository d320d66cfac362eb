package fromgorilla

import (
	"fmt"
	"net/http"
	"time"

	"github.com/pgsession/session"
)

const theme = session.Key[string]("theme")

// twoManagers keeps what a browser prefers for a year, across logins and logouts.
func twoManagers(logins, preferences session.Store, secret string) (http.Handler, error) {
	auth, err := session.New(logins, session.Config{
		Secret: secret, Cookie: session.CookieConfig{Name: "auth", BrowserSession: true},
	})
	if err != nil {
		return nil, err
	}
	prefs, err := session.New(preferences, session.Config{
		Secret: secret, IdleTimeout: 365 * 24 * time.Hour, Cookie: session.CookieConfig{Name: "prefs"},
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		login, preference := auth.From(r.Context()), prefs.From(r.Context()) // not session.From
		switch r.URL.Path {
		case "/theme":
			theme.Set(preference, r.FormValue("is"))
		case "/login":
			login.Renew()
			userID.Set(login, 42)
		case "/logout":
			login.Destroy()
		}
		color, _ := theme.Get(preference)
		id, _ := userID.Get(login)
		fmt.Fprintf(w, "%s, user %d", color, id)
	})
	return auth.Handler(prefs.Handler(mux)), nil
}
