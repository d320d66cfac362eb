package fromothers

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/pgsession/session"
)

const userID = session.Key[int64]("userID")

// before are the sessions of the program that was there before.
type before interface {
	// user returns whose session the cookie's value names: 0 if nobody's.
	user(ctx context.Context, cookie string) (int64, error)
	// end lets that session live a minute more, for requests that are under way.
	end(ctx context.Context, cookie string) error
}

// carryOver logs in here who is still logged in there. It goes inside of the
// Manager's Handler: sessions.Handler(carryOver(…)). cookie has the name of the old
// program's cookie and its Path, Domain, Secure, SameSite and Partitioned: browsers
// refuse to end it with others.
func carryOver(old before, cookie http.Cookie, next http.Handler) http.Handler { // #nosec G124 -- ends a cookie
	cookie.MaxAge = -1
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie(cookie.Name)
		if err != nil {
			next.ServeHTTP(w, r) // and public pages load no session
			return
		}
		s := session.From(r.Context())
		_, here := userID.Get(s)
		if s.Err() != nil {
			next.ServeHTTP(w, r) // the response is the error handler's
			return
		}
		id, err := old.user(r.Context(), c.Value)
		if err != nil {
			slog.Error("the old sessions", "error", err)
			http.Error(w, "Please try again.", http.StatusServiceUnavailable) // not "logged out"
			return
		}
		if id != 0 && !here {
			userID.Set(s, id)
			s.Renew() // an ID that somebody has planted in this browser is worth nothing now
		}
		// Also for a request that ends meanwhile: its old cookie would undo a logout.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 10*time.Second)
		defer cancel()
		if s.Save(ctx) != nil {
			next.ServeHTTP(w, r) // the response is the error handler's
			return
		}
		if err := old.end(ctx, c.Value); err != nil {
			slog.Error("the old sessions", "error", err)
		}
		http.SetCookie(w, &cookie)
		next.ServeHTTP(w, r)
	})
}
