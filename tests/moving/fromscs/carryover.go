package fromscs

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/pgsession/session"
)

const userID = session.Key[int64]("userID")

// carryOver logs in here who is still logged in with scs. It goes inside of the
// Manager's Handler: sessions.Handler(carryOver(old, mux)). There is no LoadAndSave
// any more.
func carryOver(old *scs.SessionManager, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		before, err := r.Cookie(old.Cookie.Name)
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
		ctx, err := old.Load(r.Context(), before.Value)
		if err != nil {
			http.Error(w, "Please try again.", http.StatusServiceUnavailable) // not "logged out"
			return
		}
		id := old.GetInt64(ctx, "userID")
		if id != 0 && !here {
			userID.Set(s, id)
			s.Renew() // an ID that somebody has planted in this browser is worth nothing now
		}
		// Also for a request that ends meanwhile: its old cookie would undo a logout.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if s.Save(ctx) != nil {
			next.ServeHTTP(w, r) // the response is the error handler's
			return
		}
		// Requests that are under way with the old cookie find it for a minute, which
		// no copy extends; after that nobody does, or it would undo a logout.
		if d := time.Now().Add(time.Minute); id != 0 && old.Deadline(ctx).After(d) {
			old.SetDeadline(ctx, d)
			if _, _, err := old.Commit(ctx); err != nil {
				slog.Error("the old session", "error", err)
			}
		}
		http.SetCookie(w, &http.Cookie{ // #nosec G124 -- as scs made it, or browsers refuse to end it
			Name: before.Name, MaxAge: -1, Path: old.Cookie.Path, Domain: old.Cookie.Domain,
			Secure: old.Cookie.Secure, Partitioned: old.Cookie.Partitioned, SameSite: old.Cookie.SameSite,
		})
		next.ServeHTTP(w, r)
	})
}
