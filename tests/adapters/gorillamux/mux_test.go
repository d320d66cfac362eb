package web_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/gorilla/mux"

	"github.com/pgsession/session"
	"github.com/pgsession/session/tests/adapters/check"
	web "github.com/pgsession/session/tests/adapters/gorillamux"
)

func TestLogin(t *testing.T) { check.Login(t, web.Routes) }

func TestCrossSite(t *testing.T) { check.CrossSite(t, web.Routes) }

func routes() *mux.Router {
	r := mux.NewRouter()
	r.HandleFunc("/write", func(w http.ResponseWriter, r *http.Request) {
		check.Change(w, session.From(r.Context()))
		_, _ = io.WriteString(w, "page")
	}).Methods("POST")
	r.HandleFunc("/late", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "page")
		_ = http.NewResponseController(w).Flush()
		check.Change(w, session.From(r.Context()))
	})
	r.HandleFunc("/public", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "public") })
	return r
}

func around(sessions *session.Manager) http.Handler {
	r := routes()
	r.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		check.Change(w, session.From(r.Context()))
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, "nothing here")
	})
	return sessions.Handler(r)
}

func used(sessions *session.Manager) http.Handler {
	r := routes()
	r.Use(sessions.Handler)
	return r
}

func TestAnswers(t *testing.T) {
	for name, app := range map[string]func(*session.Manager) http.Handler{"around": around, "Use": used} {
		t.Run(name, func(t *testing.T) {
			check.Answers(t, app, []check.Answer{{Path: "/write", Code: 200, Body: "page"}})
			check.Late(t, app, "/late")
			check.Public(t, app, "GET", "/public", 200, "public")
			check.Public(t, app, "GET", "/write", 405, "")
		})
	}
}

// A NotFoundHandler has a session where the Handler is around the router.
func TestNotFound(t *testing.T) {
	check.Answers(t, around, []check.Answer{{Path: "/missing", Code: 404, Body: "nothing here"}})
	check.Public(t, used, "GET", "/missing", 404, "")
}
