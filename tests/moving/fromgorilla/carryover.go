package fromgorilla

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"time"

	"github.com/gorilla/securecookie"
	"github.com/gorilla/sessions"
	"github.com/pgsession/session"
)

const userID = session.Key[int64]("userID")

// carryOver logs in here who is still logged in with gorilla/sessions, by the
// session called name, of whichever store. It goes inside of the Manager's Handler.
func carryOver(old sessions.Store, name string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := r.Cookie(name); err != nil {
			next.ServeHTTP(w, r) // and public pages load no session
			return
		}
		s := session.From(r.Context())
		_, here := userID.Get(s)
		if s.Err() != nil {
			next.ServeHTTP(w, r) // the response is the error handler's
			return
		}
		before, err := old.Get(r, name)
		var invalid securecookie.Error
		gone := errors.Is(err, fs.ErrNotExist) // FilesystemStore: deleted, or carried over by another request
		if err != nil && !gone && !(errors.As(err, &invalid) && invalid.IsDecode()) {
			http.Error(w, "Please try again.", http.StatusServiceUnavailable) // its database is down: not "logged out"
			return
		}
		if id, ok := before.Values["userID"].(int64); ok && !here {
			userID.Set(s, id)
			s.Renew() // an ID that somebody has planted in this browser is worth nothing now
		}
		// A cart and the like are copied here, not above: also where a user is, or none.

		// Also for a request that ends meanwhile: its old cookie would undo a logout.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 10*time.Second)
		defer cancel()
		if s.Save(ctx) != nil {
			next.ServeHTTP(w, r) // the response is the error handler's
			return
		}
		clear(before.Values)       // the cookie store signs them anew even to end the cookie: a fresh login
		before.Options.MaxAge = -1 // the other options are the store's: set here what your logins set
		if err := before.Save(r, w); err != nil {
			slog.Error("the old session", "error", err)
			http.SetCookie(w, sessions.NewCookie(name, "", before.Options))
		}
		next.ServeHTTP(w, r)
	})
}
