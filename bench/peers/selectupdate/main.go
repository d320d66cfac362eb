// Command selectupdate is the benchmark's second limit: a SELECT and an UPDATE for
// every request that uses its session, also for one that only reads it: the expiry
// then moves at once.
package main

import (
	"github.com/pgsession/session/bench/internal/app"
	"github.com/pgsession/session/bench/internal/bare"
)

func main() { app.Main((&bare.Server{Rolling: true}).Handler) }
