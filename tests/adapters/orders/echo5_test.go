package orders_test

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"

	web "github.com/pgsession/session/tests/adapters/echo5"
	"github.com/pgsession/session/tests/adapters/orders"
)

// echo5Around has Echo's own middleware inside, net/http's outside.
func echo5Around(k *orders.Kit) http.Handler {
	outside, _ := orders.Split(k.Order, k.Around())
	_, inside := orders.Split(k.Order, echo5Middleware(k))
	e := echo5Routes(k)
	e.Use(inside...)
	return orders.Chain(k.Attach(e), outside)
}

func echo5Use(k *orders.Kit) http.Handler {
	if k.Plain {
		return echo5With(k, func(next echo.HandlerFunc) echo.HandlerFunc { return next })
	}
	return echo5With(k, web.Sessions(k.Sessions))
}

func echo5Wrap(k *orders.Kit) http.Handler {
	return echo5With(k, echo.WrapMiddleware(k.Attach))
}

func echo5With(k *orders.Kit, sessions echo.MiddlewareFunc) http.Handler {
	outside, inside := orders.Split(k.Order, echo5Middleware(k))
	e := echo5Routes(k)
	e.Use(outside...)
	e.Use(sessions)
	e.Use(inside...)
	return e
}

func echo5Middleware(k *orders.Kit) [4]echo.MiddlewareFunc {
	return [4]echo.MiddlewareFunc{
		middleware.RequestLoggerWithConfig(middleware.RequestLoggerConfig{
			LogStatus: true,
			LogValuesFunc: func(_ *echo.Context, v middleware.RequestLoggerValues) error {
				k.Seen(v.Status)
				return nil
			},
		}),
		middleware.RecoverWithConfig(middleware.RecoverConfig{DisablePrintStack: true}),
		middleware.ContextTimeout(time.Minute), middleware.Gzip(),
	}
}

func echo5Routes(k *orders.Kit) *echo.Echo {
	e := echo.New()
	e.Logger = slog.New(slog.DiscardHandler)
	e.HTTPErrorHandler = func(c *echo.Context, err error) {
		if r, _ := echo.UnwrapResponse(c.Response()); r == nil || !r.Committed {
			_ = c.HTML(status(err), k.ErrorPage(c.Request().Context()))
		}
	}
	routes(k, func(path string, h func(context.Context, http.ResponseWriter) error) {
		answer := func(c *echo.Context) error { return h(c.Request().Context(), c.Response()) }
		if path != "" {
			e.GET(path, answer)
		}
	})
	return e
}
