package web

import (
	"net/http"

	"github.com/labstack/echo/v4"
	"github.com/pgsession/session"
)

// Sessions is sessions.Handler for e.Use. Echo's error pages are written inside of
// it: they know who is logged in, and are sent with what they and the handler save.
func Sessions(sessions *session.Manager) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			outside := c.Response()
			defer c.SetResponse(outside) // for what lies outside: it has what the browser got
			sessions.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Pattern = c.Path() // the library's log names the route
				c.SetRequest(r)
				c.SetResponse(echo.NewResponse(w, c.Echo()))
				if err := next(c); err != nil {
					c.Error(err)
				}
			})).ServeHTTP(outside, c.Request())
			return nil // it is answered
		}
	}
}
