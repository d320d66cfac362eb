package web_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/pgsession/session"
	"github.com/pgsession/session/tests/adapters/check"
	web "github.com/pgsession/session/tests/adapters/chi"
)

func TestMain(m *testing.M) {
	middleware.DefaultLogger = func(next http.Handler) http.Handler { return next } // its lines hold nothing of ours
	m.Run()
}

func TestLogin(t *testing.T) { check.Login(t, web.Routes) }

func TestCrossSite(t *testing.T) { check.CrossSite(t, web.Routes) }

// quiet keeps Recoverer from printing the panics that these tests make.
func quiet(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, middleware.WithLogEntry(r, noEntry{}))
	})
}

// noEntry is an entry of chi's log that is not written.
type noEntry struct{}

func (noEntry) Write(int, int, http.Header, time.Duration, any) {}
func (noEntry) Panic(any, []byte)                               {}

// app answers in the ways that chi adds to net/http's.
func app(sessions *session.Manager) http.Handler {
	r := chi.NewRouter()
	r.Use(quiet, middleware.Recoverer, sessions.Handler, middleware.Compress(5))
	change := func(answer http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			check.Change(w, session.From(r.Context()))
			answer(w, r)
		}
	}
	r.Post("/write", change(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") }))
	r.Post("/nothing", change(func(http.ResponseWriter, *http.Request) {}))
	r.Post("/wrapped", change(func(w http.ResponseWriter, r *http.Request) {
		ww := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		ww.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(ww, "page")
		ww.(http.Flusher).Flush()
	}))
	r.Post("/panic", change(func(http.ResponseWriter, *http.Request) { panic("the handler's") }))
	r.Post("/late", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "page")
		_ = http.NewResponseController(w).Flush()
		check.Change(w, session.From(r.Context()))
	})
	r.Group(func(r chi.Router) {
		r.Use(middleware.Timeout(0))
		r.Mount("/sub", http.HandlerFunc(change(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") })))
	})
	r.Get("/public", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "public") })
	r.NotFound(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		if r.URL.Query().Has("known") {
			fmt.Fprint(w, "new: ", session.From(r.Context()).IsNew())
		}
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusMethodNotAllowed)
		fmt.Fprint(w, "new: ", session.From(r.Context()).IsNew())
	})
	return r
}

func TestAnswers(t *testing.T) {
	check.Answers(t, app, []check.Answer{
		{Path: "/write", Code: 200, Body: "page"},
		{Path: "/nothing", Code: 200},
		{Path: "/wrapped", Code: 201, Body: "page"},
		{Path: "/sub", Code: 200, Body: "page"},
		{Path: "/panic", Code: 500, Lost: true},
	})
}

func TestPublic(t *testing.T) {
	check.Public(t, app, "GET", "/public", 200, "public")
	check.Public(t, app, "GET", "/missing", 404, "")
	check.Public(t, app, "GET", "/missing?known", 404, "new: true")
	check.Public(t, app, "GET", "/write", 405, "new: true")
}

// What comes before sessions.Handler sees what the browser gets.
func TestLoggerIsOutside(t *testing.T) {
	var seen int
	s := check.New(t, func(sessions *session.Manager) http.Handler {
		r := chi.NewRouter()
		r.Use(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				ww := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
				next.ServeHTTP(ww, r)
				seen = ww.Status()
			})
		}, sessions.Handler)
		r.Post("/write", func(w http.ResponseWriter, r *http.Request) {
			check.Change(w, session.From(r.Context()))
			_, _ = io.WriteString(w, "page")
		})
		return r
	})
	s.Store.Down.Store(true)
	if got, _ := s.Do(t, "POST", "/write", ""); got.Code != 503 || seen != 503 {
		t.Errorf("got %d for the browser and %d for the log, want 503 for both", got.Code, seen)
	}
}

func TestLate(t *testing.T) { check.Late(t, app, "/late") }

// The log of an outage says on which route.
func TestRoute(t *testing.T) {
	check.Route(t, func(sessions *session.Manager) http.Handler {
		r := chi.NewRouter()
		r.Use(sessions.Handler)
		r.Post("/reset/{token}", func(w http.ResponseWriter, r *http.Request) {
			check.Change(w, session.From(r.Context()))
			_, _ = io.WriteString(w, "page")
		})
		return r
	}, "POST", "/reset/5ecret", "/reset/{token}")
}
