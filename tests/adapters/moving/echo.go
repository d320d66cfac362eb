package web

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/pgsession/session"
)

// appContext stands for an application's own context.
type appContext struct{ echo.Context }

func (c *appContext) session() *session.Session { return session.From(c.Request().Context()) }

func echoRoutes(sessions *session.Manager) http.Handler {
	e := echo.New()
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error { return next(&appContext{c}) }
	})
	e.GET("/", func(c echo.Context) error {
		s := c.(*appContext).session() // was sess, err := session.Get("app", c)
		id, ok := userID.Get(s)        // was sess.Values["userId"].(int64)
		return c.JSON(http.StatusOK, echo.Map{
			"user": id, "in": ok,
			"errors": takeFlashes(s, "error"), "news": takeFlashes(s, "success"),
		})
	})
	e.POST("/login", func(c echo.Context) error {
		s := c.(*appContext).session()
		if c.FormValue("password") != "correct horse" {
			addFlash(s, "error", "wrong password")
			return c.Redirect(http.StatusSeeOther, "/")
		}
		s.Renew()
		userID.Set(s, 42)                           // was sess.Values["userId"] = int64(42)
		s.SetIdleTimeout(30 * 24 * time.Hour)       // was sess.Options = &sessions.Options{Path: "/", MaxAge: 30 * 86400}
		return c.Redirect(http.StatusSeeOther, "/") // was sess.Save(c.Request(), c.Response()) and its error
	})
	e.POST("/logout", func(c echo.Context) error {
		s := c.(*appContext).session()
		s.Destroy() // was sess.Options.MaxAge = -1, sess.Save(…)
		addFlash(s, "success", "Good bye")
		return c.Redirect(http.StatusSeeOther, "/")
	})
	return sessions.Handler(e) // was e.Use(session.Middleware(store)), and e.Start
}
