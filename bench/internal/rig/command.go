package rig

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Main runs a program until it has ended or is interrupted. An error goes to
// standard error and makes the exit status 1.
func Main(run func(context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Program is a program that measures and leaves a report behind.
type Program struct {
	Name   string
	Files  string // what it writes into a directory, for the usage of -out
	Tables string // "table is" or "tables are", for that of -docs
}

// Main runs the program. measure adds flags of its own to the command before it
// calls [Command.Parse].
func (p Program) Main(measure func(context.Context, *Command) error) {
	Main(func(ctx context.Context) error {
		c, err := p.command(ctx, os.Args[1:])
		if err != nil {
			return err
		}
		return measure(ctx, c)
	})
}

func (p Program) command(ctx context.Context, args []string) (*Command, error) {
	module, err := ModuleDir(ctx)
	if err != nil {
		return nil, err
	}
	c := &Command{FlagSet: flag.NewFlagSet(p.Name, flag.ExitOnError), Module: module, Short: IsShort(args), args: args}
	c.Bool("short", false, "the shortest measurements: shows that everything works, judges nothing")
	c.StringVar(&c.Out, "out", "", "directory of "+p.Files+" (default bench/results; a temporary one with -short)")
	c.StringVar(&c.Docs, "docs", "", "document whose "+p.Tables+" replaced (default docs/performance.md; none with -short); \"none\" for none")
	return c, nil
}

// Command is the command line of a program, with the flags that all have: -short,
// -out and -docs.
type Command struct {
	*flag.FlagSet
	Place         // filled by Parse
	Module string // the directory of the benchmark's module
	Short  bool

	args  []string
	lists []func() error
}

// Choose returns the options that are the flags' defaults.
func Choose[O any](c *Command, full, short O) O {
	if c.Short {
		return short
	}
	return full
}

// IntsVar adds a flag for numbers from 1, separated by commas. p holds the default.
func (c *Command) IntsVar(p *[]int, name, usage string) {
	text := c.String(name, JoinInts(*p), usage)
	c.lists = append(c.lists, func() error {
		v, err := SplitInts(*text)
		if err != nil {
			return fmt.Errorf("-%s: %w", name, err)
		}
		*p = v
		return nil
	})
}

// Parse reads the flags. It ends the process where they are unknown.
func (c *Command) Parse() (err error) {
	_ = c.FlagSet.Parse(c.args) // which exits
	for _, read := range c.lists {
		if err := read(); err != nil {
			return err
		}
	}
	c.Place, err = places(c.Module, c.Out, c.Docs, c.Short)
	return err
}

// Save writes what a measurement has come to, unless that is an error.
func (c *Command) Save(r Reporter, err error) error {
	if err != nil {
		return err
	}
	return Save(c.Place, r)
}
