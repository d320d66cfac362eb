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
	"os"
	"os/signal"
	"time"

	"github.com/pgsession/session/bench/behaviour/measure"
)

func main() {
	var o measure.Options
	flag.IntVar(&o.Trials, "trials", 200, "how often each race is run")
	flag.DurationVar(&o.StoreTimeout, "store-timeout", 5*time.Second, "this library's Config.StoreTimeout")
	flag.BoolVar(&o.NoExpress, "no-express", false, "leave out Express, which needs Node.js and npm")
	flag.Parse()
	o.Log = func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	table, err := measure.Run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Print(table.Markdown())
}
