// Command none is the benchmark's server without sessions: what HTTP itself costs.
// It believes whatever user the cookie names and counts in memory.
package main

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/pgsession/session/bench/internal/app"
)

const cookie = "user"

func main() { app.Main(handler) }

func handler(context.Context) (http.Handler, func(), error) {
	var counters sync.Map // user: *atomic.Int64
	return app.Routes{
		Login: func(w http.ResponseWriter, r *http.Request) {
			uid := r.FormValue("u")
			counters.Store(uid, new(atomic.Int64))
			http.SetCookie(w, &http.Cookie{Name: cookie, Value: uid, Path: "/", HttpOnly: true})
			app.Text(w, http.StatusOK, "ok")
		},
		Read: func(w http.ResponseWriter, r *http.Request) {
			c, err := r.Cookie(cookie)
			if err != nil {
				app.Unauthorized(w)
				return
			}
			app.Text(w, http.StatusOK, c.Value)
		},
		Write: func(w http.ResponseWriter, r *http.Request) {
			c, err := r.Cookie(cookie)
			if err != nil {
				app.Unauthorized(w)
				return
			}
			n, ok := counters.Load(c.Value)
			if !ok {
				app.Unauthorized(w)
				return
			}
			app.Text(w, http.StatusOK, strconv.FormatInt(n.(*atomic.Int64).Add(1), 10))
		},
		New: func(w http.ResponseWriter, r *http.Request) {
			if c, err := r.Cookie(cookie); err == nil {
				app.Text(w, http.StatusOK, c.Value)
				return
			}
			app.Text(w, http.StatusOK, "anon")
		},
	}.Mux(), nil, nil
}
