// Command select is the benchmark's limit: one prepared SELECT for a request that
// reads its session, and a SELECT and an UPDATE for one that writes it.
package main

import (
	"github.com/pgsession/session/bench/internal/app"
	"github.com/pgsession/session/bench/internal/bare"
)

func main() { app.Main(new(bare.Server).Handler) }
