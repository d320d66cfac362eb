// Package scsapp is the benchmark's application on scs, for any of its stores.
package scsapp

import (
	"net/http"
	"strconv"

	"github.com/alexedwards/scs/v2"

	"github.com/pgsession/session/bench/internal/app"
)

// PgxSchema makes the table of scs's pgxstore, as its documentation has it.
const PgxSchema = `CREATE TABLE IF NOT EXISTS sessions (token TEXT PRIMARY KEY, data BYTEA NOT NULL, expiry TIMESTAMPTZ NOT NULL);
	CREATE INDEX IF NOT EXISTS sessions_expiry_idx ON sessions (expiry)`

// Handler returns the routes on m's sessions.
func Handler(m *scs.SessionManager) http.Handler {
	return m.LoadAndSave(app.Routes{
		Login: func(w http.ResponseWriter, r *http.Request) { login(m, w, r) },
		Read: func(w http.ResponseWriter, r *http.Request) {
			uid := m.GetString(r.Context(), "user_id")
			if uid == "" {
				app.Unauthorized(w)
				return
			}
			app.Text(w, http.StatusOK, uid)
		},
		Write: func(w http.ResponseWriter, r *http.Request) {
			if !m.Exists(r.Context(), "user_id") {
				app.Unauthorized(w)
				return
			}
			n := m.GetInt(r.Context(), "counter") + 1
			m.Put(r.Context(), "counter", n)
			app.Text(w, http.StatusOK, strconv.Itoa(n))
		},
		New: func(w http.ResponseWriter, r *http.Request) {
			if uid := m.GetString(r.Context(), "user_id"); uid != "" {
				app.Text(w, http.StatusOK, uid)
				return
			}
			app.Text(w, http.StatusOK, "anon")
		},
	}.Mux())
}

func login(m *scs.SessionManager, w http.ResponseWriter, r *http.Request) {
	if err := m.RenewToken(r.Context()); err != nil {
		app.Fail(w, err)
		return
	}
	uid := r.FormValue("u")
	m.Put(r.Context(), "user_id", uid)
	m.Put(r.Context(), "counter", 0)
	for i := range app.Facts {
		m.Put(r.Context(), app.FactName(i), app.Fact(uid, i))
	}
	app.Text(w, http.StatusOK, "ok")
}
