// Command behaviour shows what session libraries do where requests overlap, the
// database fails or a page does not use its session, and prints it as a table in
// Markdown: this library, scs with pgxstore, gorilla/sessions with pgstore, and
// express-session with connect-pg-simple. Every cell is measured, by requests
// over HTTP, on a PostgreSQL of its own.
//
//	go run ./behaviour
package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/pgsession/session/bench/behaviour/measure"
	"github.com/pgsession/session/bench/internal/rig"
)

func main() {
	var o measure.Options
	flag.IntVar(&o.Trials, "trials", 200, "how often each race is run")
	flag.DurationVar(&o.StoreTimeout, "store-timeout", 5*time.Second, "this library's Config.StoreTimeout")
	flag.BoolVar(&o.NoExpress, "no-express", false, "leave out Express, which needs Node.js and npm")
	flag.Parse()
	o.Log = rig.Log
	rig.Main(func(ctx context.Context) error {
		table, err := measure.Run(ctx, o)
		if err != nil {
			return err
		}
		fmt.Print(table.Markdown())
		return nil
	})
}
