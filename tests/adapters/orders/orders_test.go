package orders_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sort"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	echo4 "github.com/labstack/echo/v4"
	echo5 "github.com/labstack/echo/v5"

	"github.com/pgsession/session/tests/adapters/orders"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	m.Run()
}

var (
	errHandler = errors.New("the handler's")
	errTeapot  = errors.New("no coffee")
	errMissing = errors.New("not found")
)

// status is what an application's error page makes of an error.
func status(err error) int {
	var coded interface{ StatusCode() int }
	var he *echo4.HTTPError
	switch {
	case errors.As(err, &he):
		return he.Code
	case errors.As(err, &coded):
		return coded.StatusCode()
	case errors.Is(err, errTeapot):
		return http.StatusTeapot
	case errors.Is(err, errMissing):
		return http.StatusNotFound
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// routes are the application for frameworks whose handlers can give back an error.
func routes(k *orders.Kit, add func(path string, h func(context.Context, http.ResponseWriter) error)) {
	changed := func(h func(context.Context, http.ResponseWriter) error) func(context.Context, http.ResponseWriter) error {
		return func(ctx context.Context, w http.ResponseWriter) error {
			k.Change(ctx)
			return h(ctx, w)
		}
	}
	add("/page", changed(func(_ context.Context, w http.ResponseWriter) error {
		_, err := w.Write([]byte(orders.Page))
		return err
	}))
	add("/fails", changed(func(context.Context, http.ResponseWriter) error { return errTeapot }))
	add("/panic", changed(func(context.Context, http.ResponseWriter) error { panic(errHandler) }))
	add("/slow", changed(func(ctx context.Context, _ http.ResponseWriter) error { return k.Slow(ctx) }))
	add("/stream", changed(func(_ context.Context, w http.ResponseWriter) error {
		k.Stream(w)
		return nil
	}))
	add("/late", func(ctx context.Context, w http.ResponseWriter) error {
		k.Stream(w)
		k.Change(ctx)
		return nil
	})
	add("", func(context.Context, http.ResponseWriter) error { return errMissing })
}

var _ = echo5.ErrNotFound

var apps = []struct {
	name string
	app  orders.App
}{
	{"chi, r.Use", chiUse},
	{"mux, around", muxAround},
	{"mux, r.Use", muxUse},
	{"httprouter, around", httprouterAround},
	{"gin, around", ginAround},
	{"echo4, around", echo4Around},
	{"echo4, Sessions", echo4Use},
	{"echo4, WrapMiddleware", echo4Wrap},
	{"echo5, around", echo5Around},
	{"echo5, Sessions", echo5Use},
	{"echo5, WrapMiddleware", echo5Wrap},
}

func TestLook(t *testing.T) {
	for _, a := range apps {
		for _, path := range []string{"/page", "/page?down", "/missing", "/fails", "/fails?down", "/panic", "/slow", "/stream", "/late"} {
			got := map[string][]string{}
			for _, o := range orders.All() {
				r := orders.Run(t, a.app, o, path).String()
				got[r] = append(got[r], o.String())
			}
			var keys []string
			for k := range got {
				keys = append(keys, k)
			}
			sort.Strings(keys)
			for _, k := range keys {
				fmt.Printf("%s %s: %s\n", a.name, path, k)
				if len(got[k]) < 16 {
					fmt.Printf("        %s\n", strings.Join(got[k], " | "))
				}
			}
		}
	}
}
