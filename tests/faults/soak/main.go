// Command soak lets many users work with several processes of an application on
// one database for a long time, while processes, backends and the database are killed
// and restarted at random, and accounts for every answer. Two of these run side
// by side: one with session IDs in the table as they are, where half of the
// processes encrypt, and one with hashed IDs. From the directory tests:
//
//	go run ./faults/soak -for 10m
//
// It prints two tables: what was done and found, and whether memory, goroutines
// and connections stayed as they were. It exits with 1 if a promise was broken.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

func main() {
	if isProcess() {
		os.Exit(runProcess(nil))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("soak", flag.ExitOnError)
	duration := f.Duration("for", 10*time.Minute, "how long")
	seed := f.Uint64("seed", rand.Uint64(), "of all random choices: the same seed makes the same ones, at other moments")
	verbose := f.Bool("v", false, "log each thing that is killed or restarted")
	_ = f.Parse(args) // which exits
	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	return soakBoth(ctx, os.Stdout, options{
		duration: *duration, seed: *seed,
		logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
	})
}

// soakBoth runs the two soaks at the same time and prints their tables. The
// error says what was broken.
func soakBoth(ctx context.Context, out io.Writer, o options) error {
	fmt.Fprintf(out, "seed %d\n", o.seed)
	both := []options{o, o}
	both[0].name = "plain IDs, half encrypt"
	both[1].name, both[1].hashIDs, both[1].seed = "hashed IDs", true, o.seed+1
	results, errs := make([]*result, len(both)), make([]error, len(both))
	var running sync.WaitGroup
	for i := range both {
		running.Go(func() { results[i], errs[i] = run(ctx, both[i]) })
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	printTables(out, results)
	for _, r := range results {
		errs = append(errs, r.failures()...)
	}
	return errors.Join(errs...)
}
