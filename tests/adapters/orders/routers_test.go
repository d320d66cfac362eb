package orders_test

import (
	"net/http"

	"github.com/gorilla/mux"
	"github.com/julienschmidt/httprouter"

	"github.com/pgsession/session/tests/adapters/orders"
)

// These two have no middleware of their own worth the name: net/http's.

func muxAround(k *orders.Kit) http.Handler {
	outside, inside := orders.Split(k.Order, k.Around())
	return orders.Chain(k.Attach(orders.Chain(muxRoutes(k), inside)), outside)
}

func muxUse(k *orders.Kit) http.Handler {
	outside, inside := orders.Split(k.Order, k.Around())
	r := muxRoutes(k)
	for _, m := range outside {
		r.Use(m)
	}
	r.Use(k.Attach)
	for _, m := range inside {
		r.Use(m)
	}
	return r
}

func muxRoutes(k *orders.Kit) *mux.Router {
	r := mux.NewRouter()
	for path, h := range orders.Handlers(k) {
		if path == "" {
			r.NotFoundHandler = h
		} else {
			r.Handle(path, h)
		}
	}
	return r
}

func httprouterAround(k *orders.Kit) http.Handler {
	r := httprouter.New()
	for path, h := range orders.Handlers(k) {
		if path == "" {
			r.NotFound = h
		} else {
			r.HandlerFunc(http.MethodGet, path, h)
		}
	}
	if !k.Order.Recover {
		r.PanicHandler = func(w http.ResponseWriter, _ *http.Request, v any) {
			if v == http.ErrAbortHandler {
				panic(v)
			}
			http.Error(w, "recovered", http.StatusInternalServerError)
		}
	}
	outside, inside := orders.Split(k.Order, k.Around())
	return orders.Chain(k.Attach(orders.Chain(r, inside)), outside)
}
