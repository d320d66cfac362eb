package orders_test

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/gin-contrib/gzip"
	"github.com/gin-gonic/gin"

	"github.com/pgsession/session/tests/adapters/orders"
)

// ginAround has Gin's own middleware inside, net/http's outside.
func ginAround(k *orders.Kit) http.Handler {
	return ginWith(k, func(c *gin.Context, _ any) { c.AbortWithStatus(http.StatusInternalServerError) }) // as gin.Recovery
}

// Below its gzip, a recovery of Gin's is to write something.
func TestGinRecoveryWithAPage(t *testing.T) {
	app := func(k *orders.Kit) http.Handler {
		return ginWith(k, func(c *gin.Context, _ any) {
			c.String(http.StatusInternalServerError, "sorry")
			c.Abort()
		})
	}
	for _, o := range orders.All() {
		if got := orders.Run(t, app, o, "/panic"); !o.Recover && (got.Code != 500 || got.Body != "sorry") {
			t.Errorf("%v: got %v, want 500 and the recovery's page", o, got)
		}
	}
}

func ginWith(k *orders.Kit, recovery gin.RecoveryFunc) http.Handler {
	outside, _ := orders.Split(k.Order, k.Around())
	_, inside := orders.Split(k.Order, [4]gin.HandlerFunc{
		gin.LoggerWithConfig(gin.LoggerConfig{Output: io.Discard, Formatter: func(p gin.LogFormatterParams) string {
			k.Seen(p.StatusCode)
			return ""
		}}),
		gin.CustomRecoveryWithWriter(io.Discard, recovery),
		ginTimeout, gzip.Gzip(5),
	})
	r := gin.New()
	r.Use(inside...)
	r.Use(func(c *gin.Context) { ginErrors(k, c) })
	routes(k, func(path string, h func(context.Context, http.ResponseWriter) error) {
		answer := func(c *gin.Context) {
			if err := h(c.Request.Context(), c.Writer); err != nil {
				_ = c.Error(err)
			}
		}
		if path == "" {
			r.NoRoute(answer)
		} else {
			r.GET(path, answer)
		}
	})
	return orders.Chain(k.Attach(r), outside)
}

// ginErrors is the usual middleware that answers what handlers give to c.Error.
func ginErrors(k *orders.Kit, c *gin.Context) {
	c.Next()
	if len(c.Errors) > 0 && !c.Writer.Written() {
		code := status(c.Errors.Last().Err)
		c.Data(code, "text/html", []byte(k.ErrorPage(c.Request.Context())))
	}
}

// ginTimeout is the usual middleware for a timeout: Gin has none.
func ginTimeout(c *gin.Context) {
	ctx, cancel := context.WithTimeout(c.Request.Context(), time.Minute)
	defer cancel()
	c.Request = c.Request.WithContext(ctx)
	c.Next()
}
