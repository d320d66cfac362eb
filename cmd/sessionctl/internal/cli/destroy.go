package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgsession/session"
)

func (a *app) destroyCommand() *cobra.Command {
	var by selection
	var all, yes bool
	cmd := &cobra.Command{
		Use:   "destroy [HANDLE...]",
		Short: "End sessions: by handle, of a user, or all",
		Long: `End sessions at once: the next request of their browsers is anonymous, and
requests under way do not bring them back.

  by handle                    sessionctl destroy 0123456789abcdef0123456789abcdef
  those in which a key has a value, such as all of a user
                               sessionctl destroy --key userId --value 42
  all, Express's included      sessionctl destroy --all

Handles come from list. --all asks for the table's name first, unless --yes is given.
A login under way may make a session a moment later: change the password first.`,
		RunE: func(cmd *cobra.Command, handles []string) error {
			ways := 0
			for _, way := range []bool{len(handles) > 0, by.given(), all} {
				if way {
					ways++
				}
			}
			if err := by.check(); err != nil {
				return err
			}
			if ways != 1 {
				return usage("name the sessions in one way: handles, --key and --value, or --all")
			}
			if err := checkHandles(handles); err != nil {
				return err
			}
			d, _, m, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer d.close()
			switch {
			case all:
				return a.destroyAll(cmd.Context(), d, m, yes)
			case by.given():
				if err := d.needsSecret(cmd.Context()); err != nil {
					return err
				}
				return a.revoke(cmd.Context(), m, by.filter())
			}
			filters := make([]session.Filter, 0, len(handles))
			for _, h := range handles {
				filters = append(filters, session.Everyone().Handle(h))
			}
			return a.revoke(cmd.Context(), m, filters...)
		},
	}
	by.flags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "end all sessions")
	cmd.Flags().BoolVar(&yes, "yes", false, "with --all: do not ask")
	return cmd
}

var handle = regexp.MustCompile(`^[0-9a-f]{32}$`)

// checkHandles does not repeat what it refuses: it may be a session ID.
func checkHandles(handles []string) error {
	for i, h := range handles {
		if !handle.MatchString(h) {
			return usage("argument %d is no handle: those have 32 digits from 0 to f, and come from sessionctl list", i+1)
		}
	}
	return nil
}

// revoke ends sessions and prints how many.
func (a *app) revoke(ctx context.Context, m *session.Manager, filters ...session.Filter) error {
	var total int64
	for _, f := range filters {
		n, err := m.Revoke(ctx, f)
		total += n
		if err != nil {
			if ctx.Err() != nil {
				return &codeError{ExitInterrupted, fmt.Errorf("interrupted; %s sessions ended before", number(total))}
			}
			return err
		}
	}
	if a.json {
		return a.printJSON(struct {
			Destroyed int64 `json:"destroyed"`
		}{total})
	}
	a.say("%s live sessions ended", number(total))
	return nil
}

func (a *app) destroyAll(ctx context.Context, d *database, m *session.Manager, yes bool) error {
	if !yes {
		n, err := d.count(ctx, live)
		if err != nil {
			return err
		}
		c := d.program.ConnConfig
		fmt.Fprintf(a.Err, "This ends all %s live sessions in database %q at %s: everybody has to log in again.\nType %s to go on: ", number(n), c.Database, c.Host, a.name())
		typed, err := a.readLine(ctx)
		if err != nil {
			return err
		}
		if typed != a.name() {
			return errors.New("that was not the table's name: nothing was ended. Without a person to ask, use --yes")
		}
	}
	return a.revoke(ctx, m, session.Everyone())
}

// readLine reads a line of the input, until ctx ends.
func (a *app) readLine(ctx context.Context) (string, error) {
	line := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(a.In).ReadString('\n') // the end of the input is an empty answer
		line <- strings.TrimSpace(text)
	}()
	select {
	case text := <-line:
		return text, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
