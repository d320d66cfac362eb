package web_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/pgsession/session"
	"github.com/pgsession/session/tests/adapters/check"
	web "github.com/pgsession/session/tests/adapters/echo"
)

func TestLogin(t *testing.T) {
	check.Login(t, func(sessions *session.Manager) http.Handler { return quiet(t, sessions) })
}

func TestCrossSite(t *testing.T) {
	check.CrossSite(t, func(sessions *session.Manager) http.Handler { return quiet(t, sessions) })
}

// quiet is the application without the log lines of Echo, whose logger keeps the
// standard output that it finds when it is made.
func quiet(t *testing.T, sessions *session.Manager) http.Handler {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = null.Close() })
	defer func(out *os.File) { os.Stdout = out }(os.Stdout)
	os.Stdout = null
	return web.Routes(sessions)
}

var errHandler = errors.New("the handler's")

// routes answer in every way that Echo has.
func routes(e *echo.Echo) {
	e.Logger.SetOutput(io.Discard)
	e.Use(middleware.Recover())
	for path, answer := range map[string]echo.HandlerFunc{
		"/json":     func(c echo.Context) error { return c.JSON(http.StatusCreated, echo.Map{"a": "page"}) },
		"/string":   func(c echo.Context) error { return c.String(http.StatusOK, "page") },
		"/blob":     func(c echo.Context) error { return c.Blob(http.StatusOK, "text/plain", []byte("page")) },
		"/stream":   func(c echo.Context) error { return c.Stream(http.StatusOK, "text/plain", strings.NewReader("page")) },
		"/empty":    func(c echo.Context) error { return c.NoContent(http.StatusNoContent) },
		"/redirect": func(c echo.Context) error { return c.Redirect(http.StatusSeeOther, "/account") },
		"/nothing":  func(echo.Context) error { return nil },
		"/refused":  func(echo.Context) error { return echo.NewHTTPError(http.StatusForbidden, "the page of an error") },
		"/error":    func(echo.Context) error { return errHandler },
		"/panic":    func(echo.Context) error { panic(errHandler) },
		"/flush": func(c echo.Context) error {
			c.Response().Flush()
			_, err := io.WriteString(c.Response(), "page")
			return err
		},
		"/both": func(c echo.Context) error { return errors.Join(c.String(http.StatusOK, "page"), errHandler) },
	} {
		e.POST(path, func(c echo.Context) error {
			check.Change(c.Response(), session.From(c.Request().Context()))
			return answer(c)
		})
	}
	e.POST("/late", func(c echo.Context) error {
		err := c.String(http.StatusOK, "page")
		c.Response().Flush()
		check.Change(c.Response(), session.From(c.Request().Context()))
		return err
	})
	e.GET("/public", func(c echo.Context) error { return c.String(http.StatusOK, "public") })
}

func around(sessions *session.Manager) http.Handler {
	e := echo.New()
	routes(e)
	return sessions.Handler(e)
}

func used(sessions *session.Manager) http.Handler {
	e := echo.New()
	e.Use(echo.WrapMiddleware(sessions.Handler))
	routes(e)
	return e
}

func native(sessions *session.Manager) http.Handler {
	e := echo.New()
	e.Use(web.Sessions(sessions))
	routes(e)
	return e
}

var wirings = map[string]func(*session.Manager) http.Handler{"around": around, "Sessions": native, "WrapMiddleware": used}

func TestAnswers(t *testing.T) {
	for name, app := range wirings {
		t.Run(name, func(t *testing.T) {
			check.Answers(t, app, []check.Answer{
				{Path: "/json", Code: 201, Body: "page"},
				{Path: "/string", Code: 200, Body: "page"},
				{Path: "/blob", Code: 200, Body: "page"},
				{Path: "/stream", Code: 200, Body: "page"},
				{Path: "/empty", Code: 204},
				{Path: "/redirect", Code: 303},
				{Path: "/nothing", Code: 200},
				{Path: "/refused", Code: 403, Body: "the page of an error"},
				{Path: "/error", Code: 500, Body: "Internal Server Error"},
				{Path: "/flush", Code: 200, Body: "page"},
				{Path: "/both", Code: 200, Body: "page"},
				{Path: "/panic", Code: 500}, // Echo's Recover makes it an error like any other
			})
			check.Late(t, app, "/late")
			check.Public(t, app, "GET", "/public", 200, "public")
			check.Public(t, app, "GET", "/missing", 404, "Not Found")
			check.Public(t, app, "GET", "/json", 405, "")
		})
	}
}

// A recovery that detaches the session keeps what the handler had changed from
// being saved.
func TestRecoverAbandons(t *testing.T) {
	check.Answers(t, func(sessions *session.Manager) http.Handler {
		e := echo.New()
		e.Use(middleware.RecoverWithConfig(middleware.RecoverConfig{
			LogErrorFunc: func(c echo.Context, err error, _ []byte) error {
				session.From(c.Request().Context()).Detach()
				return err
			},
		}))
		e.POST("/panic", func(c echo.Context) error {
			check.Change(c.Response(), session.From(c.Request().Context()))
			panic(errHandler)
		})
		return sessions.Handler(e)
	}, []check.Answer{{Path: "/panic", Code: 500, Lost: true}})
}

// An error page that asks who is logged in knows it where the Handler is around
// Echo, and with Sessions. Else Echo calls it after its own middleware, where it
// finds only what the handler has loaded, and may change nothing.
func TestErrorPageWithSession(t *testing.T) {
	for name, tt := range map[string]struct {
		unread string // what it finds of a session that the handler has not used
		saved  int
	}{
		"around":         {"keys: [changes]", 2},
		"Sessions":       {"keys: [changes]", 2},
		"WrapMiddleware": {"keys: []", 1},
	} {
		for _, path := range []string{"/fails", "/reads"} {
			t.Run(name+path, func(t *testing.T) {
				s := check.New(t, func(sessions *session.Manager) http.Handler { return greeting(name, sessions) })
				cookie := s.Visit(t)
				want := tt.unread
				if path == "/reads" {
					want = "keys: [changes]"
				}
				if got, _ := s.Do(t, "POST", path, cookie); got.Code != http.StatusTeapot || got.Body != want {
					t.Errorf("got %d %q, want 418 and %q", got.Code, got.Body, want)
				}
				if got := s.Changes(t, cookie); got != tt.saved {
					t.Errorf("saved changes: got %d, want %d", got, tt.saved)
				}
			})
		}
	}
}

func greeting(wiring string, sessions *session.Manager) http.Handler {
	e := echo.New()
	switch wiring {
	case "WrapMiddleware":
		e.Use(echo.WrapMiddleware(sessions.Handler))
	case "Sessions":
		e.Use(web.Sessions(sessions))
	}
	e.HTTPErrorHandler = func(_ error, c echo.Context) {
		s := session.From(c.Request().Context())
		keys := s.Keys()
		check.Change(c.Response(), s)
		_ = c.String(http.StatusTeapot, fmt.Sprint("keys: ", keys))
	}
	e.POST("/fails", func(echo.Context) error { return errHandler })
	e.POST("/reads", func(c echo.Context) error {
		session.From(c.Request().Context()).Keys()
		return errHandler
	})
	if wiring != "around" {
		return e
	}
	return sessions.Handler(e)
}

// What lies outside of Sessions and refuses has an error page without a session: it
// has to ask with Lookup.
func TestErrorPageOfWhatLiesOutside(t *testing.T) {
	s := check.New(t, func(sessions *session.Manager) http.Handler {
		e := echo.New()
		e.HTTPErrorHandler = func(_ error, c echo.Context) {
			_, ok := session.Lookup(c.Request().Context())
			_ = c.String(http.StatusTeapot, fmt.Sprint("a session: ", ok))
		}
		e.Use(func(echo.HandlerFunc) echo.HandlerFunc { return func(echo.Context) error { return errHandler } }, web.Sessions(sessions))
		return e
	})
	if got, _ := s.Do(t, "GET", "/", ""); got.Code != http.StatusTeapot || got.Body != "a session: false" {
		t.Errorf("got %d %q, want 418 and no session", got.Code, got.Body)
	}
}

// The log of an outage says on which route.
func TestRoute(t *testing.T) {
	page := func(c echo.Context) error {
		check.Change(c.Response(), session.From(c.Request().Context()))
		return c.String(http.StatusOK, "page")
	}
	check.Route(t, func(sessions *session.Manager) http.Handler {
		e := echo.New()
		e.Use(web.Sessions(sessions))
		e.POST("/reset/:token", page)
		return e
	}, "POST", "/reset/5ecret", "/reset/:token")
	check.Route(t, web.Routes, "POST", "/login", "/login")
}
