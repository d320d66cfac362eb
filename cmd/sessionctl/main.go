// Command sessionctl looks after a table of sessions: it makes and examines it,
// lists, counts, ends and prunes sessions, and reseals encrypted ones after a
// change of the secret. See README.md, or run sessionctl help.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/pgsession/session/cmd/sessionctl/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	os.Exit(cli.Run(ctx, os.Args[1:], cli.IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
