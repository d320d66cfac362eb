// Package web is an application of its framework, as docs/adapters.md shows it.
package web

import (
	"fmt"
	"net/http"

	"github.com/labstack/echo/v5"
	"github.com/pgsession/session"
)

const userID = session.Key[int64]("userId")

// Routes is the application: http.ListenAndServe(":8080", Routes(sessions)),
// instead of e.Start.
func Routes(sessions *session.Manager) http.Handler {
	e := echo.New()
	e.POST("/login", login)
	e.GET("/account", account)
	e.POST("/logout", logout)
	csrf := http.NewCrossOriginProtection() // no other site logs a user in
	return csrf.Handler(sessions.Handler(e))
}

func login(c *echo.Context) error {
	s := session.From(c.Request().Context())
	s.Renew()
	userID.Set(s, 42)
	return c.Redirect(http.StatusSeeOther, "/account")
}

func account(c *echo.Context) error {
	id, ok := userID.Get(session.From(c.Request().Context()))
	if !ok {
		return echo.NewHTTPError(http.StatusUnauthorized, "log in first")
	}
	return c.JSON(http.StatusOK, map[string]any{"account": fmt.Sprintf("user %d", id)})
}

func logout(c *echo.Context) error {
	session.From(c.Request().Context()).Destroy()
	return c.Redirect(http.StatusSeeOther, "/")
}
