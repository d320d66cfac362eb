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
	"github.com/pgsession/session/cmd/sessionctl/internal/again"
	"github.com/pgsession/session/internal/mark"
	"github.com/pgsession/session/internal/tablestats"
)

func (a *app) destroyCommand() *cobra.Command {
	var by selection
	var all, yes bool
	cmd := &cobra.Command{
		Use:   "destroy [HANDLE...]",
		Short: "End sessions: by handle, of a user, or all",
		Long: `End sessions at once: the next request of their browsers is anonymous, and
requests under way do not bring them back.

  by handle                 sessionctl destroy 0123456789abcdef0123456789abcdef
  those in which a key has a value, such as all of a user
                            sessionctl destroy --key userId --value 42
  all, Express's included   sessionctl destroy --all

Handles come from list. --all asks for the table's name first, unless --yes is
given.
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
			if err := checkHandles(a.where(), handles); err != nil {
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
				return a.destroyFound(cmd.Context(), d, m, &by)
			}
			filters := make([]session.Filter, 0, len(handles))
			for _, h := range handles {
				filters = append(filters, session.Everyone().Handle(h))
			}
			n, err := a.revoke(cmd.Context(), m, filters...)
			if err == nil && n < int64(len(handles)) {
				a.note("%s no live session: it has ended, or has another handle since it was renewed; see %s", nameless(int64(len(handles))-n, len(handles)), a.where().Command("list"))
			}
			return a.ended(cmd.Context(), n, err)
		},
	}
	by.flags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "end all sessions")
	cmd.Flags().BoolVar(&yes, "yes", false, "with --all: do not ask")
	return cmd
}

// nameless says how many handles of all name nothing.
func nameless(n int64, all int) string {
	if all == 1 {
		return "this handle names"
	}
	return fmt.Sprintf("%d of %d handles %s", n, all, map[bool]string{true: "names", false: "name"}[n == 1])
}

var handle = regexp.MustCompile(`^[0-9a-f]{32}$`)

// checkHandles does not repeat what it refuses: it may be a session ID.
func checkHandles(where again.Where, handles []string) error {
	for i, h := range handles {
		if !handle.MatchString(h) {
			return usage("argument %d is no handle: those have 32 digits from 0 to f, and come from %s", i+1, where.Command("list"))
		}
	}
	return nil
}

// revoke ends sessions, one filter after the other until ctx ends, and returns how
// many. What is under way when it ends is finished.
func (a *app) revoke(ctx context.Context, m *session.Manager, filters ...session.Filter) (total int64, err error) {
	for _, f := range filters {
		if ctx.Err() != nil {
			return total, ctx.Err()
		}
		n, err := m.Revoke(context.WithoutCancel(ctx), f)
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// ended prints how many sessions were ended, also where an error or Ctrl-C has cut
// that short.
func (a *app) ended(ctx context.Context, n int64, err error) error {
	switch {
	case err != nil && ctx.Err() != nil:
		return &codeError{ExitInterrupted, fmt.Errorf("interrupted: %s ended, others were not", plural(n, "session was", "sessions were"))}
	case err != nil && n > 0:
		return fmt.Errorf("%s ended, then: %w", plural(n, "session was", "sessions were"), err)
	case err != nil:
		return err
	}
	if a.json {
		return a.printJSON(struct {
			Destroyed int64 `json:"destroyed"`
		}{n})
	}
	if n == 0 {
		a.say("no live session: none was ended")
	} else {
		a.say("%s ended", plural(n, "live session", "live sessions"))
	}
	return nil
}

// destroyFound ends the sessions in which a key has a value.
func (a *app) destroyFound(ctx context.Context, d *database, m *session.Manager, by *selection) error {
	locked, err := d.mustFind(ctx, by.key)
	if err != nil {
		return err
	}
	n, err := a.revoke(ctx, m, by.filter())
	if err := a.ended(ctx, n, err); err != nil {
		return err
	}
	return d.doubt(locked, n)
}

func (a *app) destroyAll(ctx context.Context, d *database, m *session.Manager, yes bool) error {
	total, err := d.count(ctx, live)
	if err != nil {
		return err
	}
	if !yes && total > 0 {
		c := d.program.ConnConfig
		fmt.Fprintf(a.Err, "This ends %s in database %q at %s: everybody has to log in again.\nType %s to go on: ", ofAll(total), c.Database, c.Host, a.name())
		typed, err := a.readLine(ctx)
		if err != nil {
			return err
		}
		if typed != a.name() {
			return errors.New("that was not the table's name: nothing was ended. Without a person to ask, use --yes")
		}
	}
	var n int64
	if a.outbox == "" { // else the library ends them, at once, and writes that down
		bar := a.progress("ended", total)
		n, err = d.destroyBatches(ctx, bar.set)
		bar.end()
	}
	if err == nil { // what was renewed meanwhile to an ID that was passed already
		var more int64
		more, err = a.revoke(ctx, m, session.Everyone())
		n += more
	}
	return a.ended(ctx, n, err)
}

func ofAll(n int64) string {
	if n == 1 {
		return "the one live session"
	}
	return "all " + number(n) + " live sessions"
}

// sqlDestroyBatch ends the sessions that come next by their IDs. Their rows are
// locked first: one that is renewed meanwhile is not deleted, and left for last.
const sqlDestroyBatch = `WITH next AS MATERIALIZED (SELECT sid, expire OPERATOR(pg_catalog.>=) pg_catalog.now() AS live FROM %[1]s
		WHERE sid OPERATOR(pg_catalog.>) $1::pg_catalog.text AND NOT ` + mark.SQL + ` ORDER BY sid LIMIT %[2]d FOR UPDATE),
	gone AS (DELETE FROM %[1]s t USING next WHERE t.sid OPERATOR(pg_catalog.=) next.sid RETURNING next.live)
	SELECT (SELECT pg_catalog.count(*) FROM next), (SELECT pg_catalog.max(sid) FROM next), (SELECT pg_catalog.count(*) FROM gone WHERE live)`

// sqlDestroyShards is the same on a table that Citus has distributed, which locks no
// rows of several shards. What was renewed meanwhile is a mark then, and stays.
const sqlDestroyShards = `WITH next AS MATERIALIZED (SELECT sid, expire OPERATOR(pg_catalog.>=) pg_catalog.now() AS live FROM %[1]s
		WHERE sid OPERATOR(pg_catalog.>) $1::pg_catalog.text AND NOT ` + mark.SQL + ` ORDER BY sid LIMIT %[2]d),
	gone AS (DELETE FROM %[1]s t USING next WHERE t.sid OPERATOR(pg_catalog.=) next.sid AND NOT ` + mark.Immutable + ` RETURNING next.live)
	SELECT (SELECT pg_catalog.count(*) FROM next), (SELECT pg_catalog.max(sid) FROM next), (SELECT pg_catalog.count(*) FROM gone WHERE live)`

// destroyBatch is how many sessions one statement ends.
const destroyBatch = 500

// destroyBatches ends all sessions, so that it can stop between two batches when ctx
// ends. It returns how many were live.
func (d *database) destroyBatches(ctx context.Context, done func(int64)) (total int64, err error) {
	sql := sqlDestroyBatch
	if distributed, err := tablestats.Distributed(ctx, d.pool, d.a.quoted()); err != nil {
		return 0, err
	} else if distributed {
		sql = sqlDestroyShards
	}
	sql = fmt.Sprintf(sql, d.a.quoted(), destroyBatch)
	last := ""
	for {
		if ctx.Err() != nil {
			return total, ctx.Err()
		}
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
		var found, gone int64
		var next *string
		err := d.pool.QueryRow(bounded, sql, last).Scan(&found, &next, &gone)
		cancel()
		if err != nil {
			return total, err
		}
		total += gone
		done(total)
		if found == 0 || next == nil {
			return total, nil
		}
		last = *next
	}
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
