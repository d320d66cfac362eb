package orders_test

import (
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/pgsession/session/tests/adapters/orders"
)

// chiUse has everything in r.Use, chi's own.
func chiUse(k *orders.Kit) http.Handler {
	outside, inside := orders.Split(k.Order, [4]func(http.Handler) http.Handler{
		middleware.RequestLogger(chiLog{k}), middleware.Recoverer, middleware.Timeout(time.Minute), middleware.Compress(5),
	})
	r := chi.NewRouter()
	r.Use(quiet)
	r.Use(outside...)
	r.Use(k.Attach)
	r.Use(inside...)
	for path, h := range orders.Handlers(k) {
		if path == "" {
			r.NotFound(h)
		} else {
			r.Get(path, h)
		}
	}
	return r
}

// quiet keeps Recoverer from printing panics where no log lies outside of it.
func quiet(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, middleware.WithLogEntry(r, chiLog{new(orders.Kit)}))
	})
}

// chiLog is chi's log, of which only the status is kept.
type chiLog struct{ k *orders.Kit }

func (l chiLog) NewLogEntry(*http.Request) middleware.LogEntry            { return l }
func (chiLog) Panic(any, []byte)                                          {}
func (l chiLog) Write(code, _ int, _ http.Header, _ time.Duration, _ any) { l.k.Seen(code) }
