// Command gorilla-pgstore is the benchmark's server on gorilla/sessions with
// antonlindstrom/pgstore.
package main

import (
	"context"
	"database/sql"
	"net/http"
	"os"
	"strconv"

	"github.com/antonlindstrom/pgstore"
	"github.com/gorilla/securecookie"
	"github.com/gorilla/sessions"

	"github.com/pgsession/session/bench/internal/app"
)

const cookie = "session"

func main() { app.Main(handler) }

type server struct{ store *pgstore.PGStore }

func handler(context.Context) (http.Handler, func(), error) {
	n, err := app.PoolMax()
	if err != nil {
		return nil, nil, err
	}
	db, err := sql.Open("postgres", os.Getenv("DATABASE_URL")) // lib/pq, which pgstore brings
	if err != nil {
		return nil, nil, err
	}
	if n > 0 {
		db.SetMaxOpenConns(n)
		db.SetMaxIdleConns(n) // as a pgx pool does; else most are closed after use
	}
	store, err := pgstore.NewPGStoreFromPool(db, securecookie.GenerateRandomKey(32))
	if err != nil {
		db.Close()
		return nil, nil, err
	}
	store.MaxLength(0) // the data may be longer than a cookie
	s := server{store}
	return app.Routes{Login: s.login, Read: s.read, Write: s.write, New: s.anon}.Mux(), store.Close, nil
}

// user returns the session and its user; ok is false if it has answered.
func (s server) user(w http.ResponseWriter, r *http.Request) (session *sessions.Session, uid string, ok bool) {
	session, err := s.store.Get(r, cookie)
	if err != nil {
		app.Fail(w, err)
		return nil, "", false
	}
	uid, _ = session.Values["user_id"].(string)
	return session, uid, true
}

func (s server) login(w http.ResponseWriter, r *http.Request) {
	session, _, ok := s.user(w, r)
	if !ok {
		return
	}
	uid := r.FormValue("u")
	session.Values["user_id"] = uid
	session.Values["counter"] = 0
	for i := range app.Facts {
		session.Values[app.FactName(i)] = app.Fact(uid, i)
	}
	if err := session.Save(r, w); err != nil {
		app.Fail(w, err)
		return
	}
	app.Text(w, http.StatusOK, "ok")
}

func (s server) read(w http.ResponseWriter, r *http.Request) {
	_, uid, ok := s.user(w, r)
	switch {
	case !ok:
	case uid == "":
		app.Unauthorized(w)
	default:
		app.Text(w, http.StatusOK, uid)
	}
}

func (s server) write(w http.ResponseWriter, r *http.Request) {
	session, uid, ok := s.user(w, r)
	switch {
	case !ok:
		return
	case uid == "":
		app.Unauthorized(w)
		return
	}
	n, _ := session.Values["counter"].(int)
	session.Values["counter"] = n + 1
	if err := session.Save(r, w); err != nil {
		app.Fail(w, err)
		return
	}
	app.Text(w, http.StatusOK, strconv.Itoa(n+1))
}

func (s server) anon(w http.ResponseWriter, r *http.Request) {
	_, uid, ok := s.user(w, r)
	switch {
	case !ok:
	case uid == "":
		app.Text(w, http.StatusOK, "anon")
	default:
		app.Text(w, http.StatusOK, uid)
	}
}
