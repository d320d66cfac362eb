package main

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pgsession/session"
	"github.com/pgsession/session/sessionadmin"
)

const adminPath = "/admin/sessions/"

// openAdmin makes the pages for operators, which ask nobody who he is: see onlyAdmins.
func openAdmin(pool *pgxpool.Pool, sessions *session.Manager) (*sessionadmin.Handler, error) {
	return sessionadmin.New(sessionadmin.Options{Manager: sessions, Pool: pool, Keys: []string{string(userID)}})
}

// onlyAdmins lets administrators pass who have given their password lately: whoever
// gets in can log out everybody. To all others there is no such page, so that
// nobody learns of it. Nobody becomes one by a page; the table says who is.
func (a *app) onlyAdmins(next http.Handler) http.HandlerFunc {
	asAdmin := a.member(func(w http.ResponseWriter, r *http.Request, u user) {
		switch {
		case !u.admin:
			noSuchPage(w, r)
		case time.Since(session.From(r.Context()).RenewedAt()) > stepUpAfter:
			http.Redirect(w, r, "/confirm?next="+adminPath, http.StatusSeeOther)
		default:
			if r.Method == http.MethodPost { // what was ended, sessionadmin logs
				slog.Info("audit", "admin", u.id, "path", r.URL.Path)
			}
			next.ServeHTTP(w, r)
		}
	})
	return func(w http.ResponseWriter, r *http.Request) {
		if _, ok := userID.Get(session.From(r.Context())); !ok {
			noSuchPage(w, r)
			return
		}
		asAdmin(w, r)
	}
}

func noSuchPage(w http.ResponseWriter, _ *http.Request) {
	renderError(w, http.StatusNotFound, "There is no such page.")
}
