package orders_test

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	web "github.com/pgsession/session/tests/adapters/echo"
	"github.com/pgsession/session/tests/adapters/orders"
)

// echo4Around has Echo's own middleware inside, net/http's outside.
func echo4Around(k *orders.Kit) http.Handler {
	outside, _ := orders.Split(k.Order, k.Around())
	_, inside := orders.Split(k.Order, echo4Middleware(k))
	e := echo4Routes(k)
	e.Use(inside...)
	return orders.Chain(k.Attach(e), outside)
}

func echo4Use(k *orders.Kit) http.Handler {
	return echo4With(k, echo4Sessions(k), echo4Middleware(k))
}

// echo4UseTimeout has Echo's Timeout, which is deprecated and in use.
func echo4UseTimeout(k *orders.Kit) http.Handler {
	return echo4With(k, echo4Sessions(k), echo4OldMiddleware(k))
}

func echo4Sessions(k *orders.Kit) echo.MiddlewareFunc {
	if k.Plain {
		return func(next echo.HandlerFunc) echo.HandlerFunc { return next }
	}
	return web.Sessions(k.Sessions)
}

func echo4Wrap(k *orders.Kit) http.Handler {
	return echo4With(k, echo.WrapMiddleware(k.Attach), echo4Middleware(k))
}

func echo4WrapTimeout(k *orders.Kit) http.Handler {
	return echo4With(k, echo.WrapMiddleware(k.Attach), echo4OldMiddleware(k))
}

func echo4With(k *orders.Kit, sessions echo.MiddlewareFunc, middleware [4]echo.MiddlewareFunc) http.Handler {
	outside, inside := orders.Split(k.Order, middleware)
	e := echo4Routes(k)
	e.Use(outside...)
	e.Use(sessions)
	e.Use(inside...)
	return e
}

func echo4Middleware(k *orders.Kit) [4]echo.MiddlewareFunc {
	return [4]echo.MiddlewareFunc{
		middleware.RequestLoggerWithConfig(middleware.RequestLoggerConfig{
			LogStatus: true,
			LogValuesFunc: func(_ echo.Context, v middleware.RequestLoggerValues) error {
				k.Seen(v.Status)
				return nil
			},
		}),
		middleware.RecoverWithConfig(middleware.RecoverConfig{DisablePrintStack: true}),
		middleware.ContextTimeout(time.Minute), middleware.Gzip(),
	}
}

// echo4OldMiddleware has Timeout instead, but for the request whose time will be
// over: that would be a data race of Echo's.
func echo4OldMiddleware(k *orders.Kit) [4]echo.MiddlewareFunc {
	all := echo4Middleware(k)
	byContext := all[2]
	//lint:ignore SA1019 applications have it
	byHandler := middleware.TimeoutWithConfig(middleware.TimeoutConfig{Timeout: time.Minute})
	all[2] = func(next echo.HandlerFunc) echo.HandlerFunc {
		byContext, byHandler := byContext(next), byHandler(next)
		return func(c echo.Context) error {
			if c.Path() == "/slow" {
				return byContext(c)
			}
			return byHandler(c)
		}
	}
	return all
}

func echo4Routes(k *orders.Kit) *echo.Echo {
	e := echo.New()
	e.Logger.SetOutput(io.Discard)
	e.HTTPErrorHandler = func(err error, c echo.Context) {
		if !c.Response().Committed {
			_ = c.HTML(status(err), k.ErrorPage(c.Request().Context()))
		}
	}
	routes(k, func(path string, h func(context.Context, http.ResponseWriter) error) {
		answer := func(c echo.Context) error { return h(c.Request().Context(), c.Response()) }
		if path != "" {
			e.GET(path, answer)
		}
	})
	return e
}
