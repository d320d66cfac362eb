// Command scs-redis is the benchmark's server on scs with its goredisstore. It
// takes REDIS_ADDR (default 127.0.0.1:6379), and PGPOOL_MAX as the size of its
// pool.
package main

import (
	"cmp"
	"context"
	"net/http"
	"os"

	"github.com/alexedwards/scs/goredisstore"
	"github.com/alexedwards/scs/v2"
	"github.com/redis/go-redis/v9"

	"github.com/pgsession/session/bench/internal/app"
	"github.com/pgsession/session/bench/internal/scsapp"
)

func main() { app.Main(handler) }

func handler(ctx context.Context) (http.Handler, func(), error) {
	n, err := app.PoolMax()
	if err != nil {
		return nil, nil, err
	}
	client := redis.NewClient(&redis.Options{
		Addr:     cmp.Or(os.Getenv("REDIS_ADDR"), "127.0.0.1:6379"),
		PoolSize: n,
	})
	if err := client.Ping(ctx).Err(); err != nil {
		return nil, nil, err
	}
	m := scs.New()
	m.Store = goredisstore.New(client)
	return scsapp.Handler(m), func() { _ = client.Close() }, nil
}
