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
	return echo4With(k, web.Sessions(k.Sessions))
}

func echo4Wrap(k *orders.Kit) http.Handler {
	return echo4With(k, echo.WrapMiddleware(k.Sessions.Handler))
}

func echo4With(k *orders.Kit, sessions echo.MiddlewareFunc) http.Handler {
	outside, inside := orders.Split(k.Order, echo4Middleware(k))
	e := echo4Routes(k)
	e.Use(outside...)
	e.Use(sessions)
	e.Use(inside...)
	return e
}

func echo4Middleware(k *orders.Kit) [4]echo.MiddlewareFunc {
	return [4]echo.MiddlewareFunc{
		func(next echo.HandlerFunc) echo.HandlerFunc {
			return func(c echo.Context) error {
				err := next(c)
				if err != nil {
					c.Error(err) // as Echo's Logger does
				}
				k.Seen(c.Response().Status)
				return nil
			}
		},
		middleware.RecoverWithConfig(middleware.RecoverConfig{DisablePrintStack: true}),
		echo4Timeout, middleware.Gzip(),
	}
}

// echo4Timeout is Echo's Timeout, but for the request whose time will be over: that
// would be a data race of Echo's.
func echo4Timeout(next echo.HandlerFunc) echo.HandlerFunc {
	byContext := middleware.ContextTimeout(time.Minute)(next)
	byHandler := middleware.TimeoutWithConfig(middleware.TimeoutConfig{Timeout: time.Minute})(next) //nolint:staticcheck // what applications have
	return func(c echo.Context) error {
		if c.Path() == "/slow" {
			return byContext(c)
		}
		return byHandler(c)
	}
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
