// Command scs-mem is the benchmark's server on scs with its memstore: no database.
package main

import (
	"context"
	"net/http"

	"github.com/alexedwards/scs/v2"

	"github.com/pgsession/session/bench/internal/app"
	"github.com/pgsession/session/bench/internal/scsapp"
)

func main() { app.Main(handler) }

func handler(context.Context) (http.Handler, func(), error) {
	return scsapp.Handler(scs.New()), nil, nil // memstore is the default store
}
