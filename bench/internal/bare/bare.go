// Package bare is the least a session in PostgreSQL can do with one statement for
// each thing: the session ID stands in the cookie unsigned, the row's text is
// searched instead of decoded, and nothing is checked against other requests.
package bare

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/bench/internal/app"
)

const cookie = "sid"

const (
	sqlSchema = `CREATE SCHEMA IF NOT EXISTS schema_system;
		CREATE TABLE IF NOT EXISTS schema_system.session (
			sid varchar NOT NULL PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL
		) WITH (fillfactor = 70);
		CREATE INDEX IF NOT EXISTS idx_session_expire ON schema_system.session (expire)`
	sqlInsert = `INSERT INTO schema_system.session (sid, sess, expire)
		VALUES ($1, $2::text::json, now() + interval '1 day')`
	sqlLoad   = `SELECT sess::text FROM schema_system.session WHERE sid = $1 AND expire >= now()`
	sqlSave   = `UPDATE schema_system.session SET sess = $2::text::json WHERE sid = $1 AND expire >= now()`
	sqlExpire = `UPDATE schema_system.session SET expire = now() + interval '1 day' WHERE sid = $1 AND expire >= now()`
)

// Server has the table of this library, and these statements on it.
type Server struct {
	pool *pgxpool.Pool
	// Rolling moves the expiry at every read, by a statement of its own.
	Rolling bool
}

// Handler makes the table and returns the routes.
func (s *Server) Handler(ctx context.Context) (http.Handler, func(), error) {
	pool, err := app.Pool(ctx)
	if err != nil {
		return nil, nil, err
	}
	s.pool = pool
	if _, err := pool.Exec(ctx, sqlSchema); err != nil {
		pool.Close()
		return nil, nil, err
	}
	return app.Routes{Login: s.login, Read: s.read, Write: s.write, New: s.anon}.Mux(), pool.Close, nil
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	uid := r.FormValue("u")
	sid := rand.Text()
	if _, err := s.pool.Exec(r.Context(), sqlInsert, sid, "{"+string(app.JSON(uid))+"}"); err != nil {
		app.Fail(w, err)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: cookie, Value: sid, Path: "/", HttpOnly: true})
	app.Text(w, http.StatusOK, "ok")
}

// load returns the row's text, nil without a session; ok is false if it has answered.
func (s *Server) load(w http.ResponseWriter, r *http.Request) (sid string, sess []byte, ok bool) {
	c, err := r.Cookie(cookie)
	if err != nil {
		return "", nil, true
	}
	err = s.pool.QueryRow(r.Context(), sqlLoad, c.Value).Scan(&sess)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		app.Fail(w, err)
		return "", nil, false
	}
	return c.Value, sess, true
}

// field returns the text between before and after.
func field(sess []byte, before, after string) (start, end int, ok bool) {
	start = bytes.Index(sess, []byte(before))
	if start < 0 {
		return 0, 0, false
	}
	start += len(before)
	n := bytes.IndexAny(sess[start:], after)
	return start, start + n, n >= 0
}

func (s *Server) read(w http.ResponseWriter, r *http.Request) {
	sid, sess, ok := s.load(w, r)
	if !ok {
		return
	}
	start, end, found := field(sess, `"user_id":"`, `"`)
	if !found {
		app.Unauthorized(w)
		return
	}
	if s.Rolling {
		if _, err := s.pool.Exec(r.Context(), sqlExpire, sid); err != nil {
			app.Fail(w, err)
			return
		}
	}
	app.Text(w, http.StatusOK, string(sess[start:end]))
}

func (s *Server) write(w http.ResponseWriter, r *http.Request) {
	sid, sess, ok := s.load(w, r)
	if !ok {
		return
	}
	start, end, found := field(sess, `"counter":`, `,}`)
	if !found {
		app.Unauthorized(w)
		return
	}
	n, err := strconv.Atoi(string(sess[start:end]))
	if err != nil {
		app.Fail(w, err)
		return
	}
	counter := strconv.Itoa(n + 1)
	next := string(sess[:start]) + counter + string(sess[end:])
	if _, err := s.pool.Exec(r.Context(), sqlSave, sid, next); err != nil {
		app.Fail(w, err)
		return
	}
	app.Text(w, http.StatusOK, counter)
}

func (s *Server) anon(w http.ResponseWriter, r *http.Request) {
	_, sess, ok := s.load(w, r)
	if !ok {
		return
	}
	if start, end, found := field(sess, `"user_id":"`, `"`); found {
		app.Text(w, http.StatusOK, string(sess[start:end]))
		return
	}
	app.Text(w, http.StatusOK, "anon")
}
