package web_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"

	"github.com/pgsession/session"
	"github.com/pgsession/session/tests/adapters/check"
	web "github.com/pgsession/session/tests/adapters/echo5"
)

func TestLogin(t *testing.T) { check.Login(t, web.Routes) }

func TestCrossSite(t *testing.T) { check.CrossSite(t, web.Routes) }

var errHandler = errors.New("the handler's")

// routes answer in every way that Echo has.
func routes(e *echo.Echo) {
	e.Logger = slog.New(slog.DiscardHandler)
	e.Use(middleware.Recover())
	for path, answer := range map[string]echo.HandlerFunc{
		"/json":     func(c *echo.Context) error { return c.JSON(http.StatusCreated, map[string]any{"a": "page"}) },
		"/string":   func(c *echo.Context) error { return c.String(http.StatusOK, "page") },
		"/blob":     func(c *echo.Context) error { return c.Blob(http.StatusOK, "text/plain", []byte("page")) },
		"/stream":   func(c *echo.Context) error { return c.Stream(http.StatusOK, "text/plain", strings.NewReader("page")) },
		"/empty":    func(c *echo.Context) error { return c.NoContent(http.StatusNoContent) },
		"/redirect": func(c *echo.Context) error { return c.Redirect(http.StatusSeeOther, "/account") },
		"/nothing":  func(*echo.Context) error { return nil },
		"/refused":  func(*echo.Context) error { return echo.NewHTTPError(http.StatusForbidden, "the page of an error") },
		"/error":    func(*echo.Context) error { return errHandler },
		"/panic":    func(*echo.Context) error { panic(errHandler) },
		"/flush": func(c *echo.Context) error {
			_ = http.NewResponseController(c.Response()).Flush()
			_, err := io.WriteString(c.Response(), "page")
			return err
		},
		"/both": func(c *echo.Context) error { return errors.Join(c.String(http.StatusOK, "page"), errHandler) },
	} {
		e.POST(path, func(c *echo.Context) error {
			check.Change(c.Response(), session.From(c.Request().Context()))
			return answer(c)
		})
	}
	e.POST("/late", func(c *echo.Context) error {
		err := c.String(http.StatusOK, "page")
		_ = http.NewResponseController(c.Response()).Flush()
		check.Change(c.Response(), session.From(c.Request().Context()))
		return err
	})
	e.GET("/public", func(c *echo.Context) error { return c.String(http.StatusOK, "public") })
}

func TestAnswers(t *testing.T) {
	for name, app := range map[string]func(*session.Manager) http.Handler{
		"around": func(sessions *session.Manager) http.Handler {
			e := echo.New()
			routes(e)
			return sessions.Handler(e)
		},
		"Sessions": func(sessions *session.Manager) http.Handler {
			e := echo.New()
			e.Use(web.Sessions(sessions))
			routes(e)
			return e
		},
	} {
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

// The log of an outage says on which route.
func TestRoute(t *testing.T) {
	page := func(c *echo.Context) error {
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
