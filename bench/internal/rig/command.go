package rig

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
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
	Docs   string // the page of the documentation with them; empty: performance.md
}

// Main runs the program. measure adds flags of its own to the command before it
// calls [Command.Parse].
func (p Program) Main(measure func(context.Context, *Command) error) {
	Main(func(ctx context.Context) error {
		c, err := p.Command(ctx, os.Args[1:])
		if err != nil {
			return err
		}
		return measure(ctx, c)
	})
}

// Command returns the command line of these arguments, for measure.
func (p Program) Command(ctx context.Context, args []string) (*Command, error) {
	module, err := ModuleDir(ctx)
	if err != nil {
		return nil, err
	}
	page := cmp.Or(p.Docs, "performance.md")
	c := &Command{FlagSet: flag.NewFlagSet(p.Name, flag.ExitOnError), Module: module, Short: IsShort(args), args: args, page: page}
	c.Bool("short", false, "the shortest measurements: shows that everything works, judges nothing")
	c.StringVar(&c.flags.Out, "out", "", "directory of "+p.Files+" (default bench/results; a temporary one with -short)")
	c.StringVar(&c.flags.Docs, "docs", "", "document whose "+p.Tables+" replaced (default docs/"+page+"; none with -short); \"none\" for none")
	return c, nil
}

// Command is the command line of a program, with the flags that all have: -short,
// -out and -docs.
type Command struct {
	*flag.FlagSet
	Place         // filled by Parse
	Module string // the directory of the benchmark's module
	Short  bool

	args   []string
	page   string // see Program.Docs
	flags  Place  // as they were given
	checks []func() error
}

// Choose returns the options that are the flags' defaults.
func Choose[O any](c *Command, full, short O) O {
	if c.Short {
		return short
	}
	return full
}

// textVar adds a flag whose text becomes *p, which holds the default.
func textVar[T any](c *Command, p *T, name, text, usage string, read func(string) (T, error)) {
	given := c.String(name, text, usage)
	c.check(name, func() error {
		v, err := read(*given)
		if err == nil {
			*p = v
		}
		return err
	})
}

// check adds what Parse checks about a flag.
func (c *Command) check(name string, f func() error) {
	c.checks = append(c.checks, func() error {
		if err := f(); err != nil {
			return fmt.Errorf("-%s: %w", name, err)
		}
		return nil
	})
}

// IntsVar adds a flag for numbers from 1, separated by commas. p holds the default.
func (c *Command) IntsVar(p *[]int, name, usage string) {
	textVar(c, p, name, JoinInts(*p), usage, SplitInts)
}

// NamesVar adds a flag for some of the known names, separated by commas. p holds the
// default.
func (c *Command) NamesVar(p *[]string, name, usage string, known []string) {
	textVar(c, p, name, strings.Join(*p, ","), usage, func(s string) ([]string, error) { return SplitNames(s, known) })
}

// GroundsVar adds a flag for grounds, separated by commas. p holds the default.
func (c *Command) GroundsVar(p *[]Ground, name string) {
	textVar(c, p, name, joinGrounds(*p), GroundUsage, SplitGrounds)
}

// CountVar adds a flag for a number from 1. p holds the default.
func (c *Command) CountVar(p *int, name, usage string) {
	c.IntVar(p, name, *p, usage)
	c.check(name, func() error {
		if *p < 1 {
			return fmt.Errorf("%d is not a whole number from 1", *p)
		}
		return nil
	})
}

// TimeVar adds a flag for a time over 0. p holds the default.
func (c *Command) TimeVar(p *time.Duration, name, usage string) {
	c.DurationVar(p, name, *p, usage)
	c.check(name, func() error {
		if *p <= 0 {
			return fmt.Errorf("%v is no time over 0", *p)
		}
		return nil
	})
}

// Parse reads the flags. It ends the process where they are unknown.
func (c *Command) Parse() (err error) {
	_ = c.FlagSet.Parse(c.args) // which exits
	if c.NArg() > 0 {
		return fmt.Errorf("%q is no flag", c.Arg(0))
	}
	for _, check := range c.checks {
		if err := check(); err != nil {
			return err
		}
	}
	c.Place, err = places(c.Module, c.page, c.flags, c.Short)
	return err
}

// Given reports whether the command line has a flag.
func (c *Command) Given(name string) (given bool) {
	c.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	return given
}

// Aside keeps figures that are not those of the documents apart from them: unless
// -out and -docs say otherwise they go to a temporary directory alone.
func (c *Command) Aside() (err error) {
	c.Place, err = places(c.Module, c.page, c.flags, true)
	return err
}

// Save writes what a measurement has come to, unless that is an error.
func (c *Command) Save(r Reporter, err error) error {
	if err != nil {
		return err
	}
	return Save(c.Place, r)
}
