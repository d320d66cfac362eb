package cli

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/pgsession/session"
)

// mostListed is how many sessions the library lists at most.
const mostListed = 1000

// selection is the flags that name sessions by a value.
type selection struct {
	key, value string
	cmd        *cobra.Command
}

func (s *selection) flags(cmd *cobra.Command) {
	s.cmd = cmd
	cmd.Flags().StringVar(&s.key, "key", "", "a key of the session, such as userId")
	cmd.Flags().StringVar(&s.value, "value", "", "that key's value: a string, a number, true or false")
}

// given reports whether sessions are named by a value.
func (s *selection) given() bool {
	return s.cmd.Flags().Changed("key") && s.cmd.Flags().Changed("value")
}

// check refuses half a selection.
func (s *selection) check() error {
	if s.cmd.Flags().Changed("key") != s.cmd.Flags().Changed("value") {
		return usage("--key and --value belong together")
	}
	return nil
}

func (s *selection) filter() session.Filter { return session.Key[string](s.key).Is(s.value) }

// listed is a session in the answer of list.
type listed struct {
	Handle     string     `json:"handle"`
	CreatedAt  *time.Time `json:"createdAt"`
	RenewedAt  *time.Time `json:"renewedAt"`
	LastSeenAt *time.Time `json:"lastSeenAt"`
	ExpiresAt  *time.Time `json:"expiresAt"`
	Token      *bool      `json:"token"` // the client holds a token; null: not known
	Bound      *bool      `json:"bound"` // to the browser's device; null: not known
}

// client says what the client of a session holds. Whether the data could be read
// shows in the cookie object, which every record has, a token's too.
func client(i session.Info) (token, bound *bool, text string) {
	_, readable := session.Key[any]("cookie").Of(i)
	switch {
	case !readable:
		return nil, nil, "-"
	case i.Token:
		text = "token"
	case i.Bound:
		text = "bound cookie"
	default:
		text = "cookie"
	}
	return &i.Token, &i.Bound, text
}

func (a *app) listCommand() *cobra.Command {
	var by selection
	limit := mostListed
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List live sessions, of a user or all",
		Long: `List the live sessions, the last seen first: those in which --key has --value,
else all. Handles are what destroy takes. CLIENT is what the client holds: a
cookie, one that is bound to its device, a token, or - where the secrets given
here do not open the data. Without an index on the key it reads the whole table.`,
		Example: "  sessionctl list --key userId --value 42",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 || limit > mostListed {
				return usage("--limit must be 1 to %d", mostListed)
			}
			if err := by.check(); err != nil {
				return err
			}
			d, _, m, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer d.close()
			filter, locked := session.Everyone(), sealed{}
			if by.given() {
				if locked, err = d.mustFind(cmd.Context(), by.key); err != nil {
					return err
				}
				filter = by.filter()
			}
			found, err := m.Sessions(cmd.Context(), filter)
			if err != nil {
				return err
			}
			if err := a.printSessions(found, limit); err != nil {
				return err
			}
			return d.doubt(locked, int64(len(found)))
		},
	}
	by.flags(cmd)
	cmd.Flags().IntVar(&limit, "limit", limit, "list at most so many")
	return cmd
}

func (a *app) printSessions(found []session.Info, limit int) error {
	all := len(found)
	found = found[:min(all, limit)]
	if a.json {
		list := make([]listed, 0, len(found))
		for _, i := range found {
			token, bound, _ := client(i)
			list = append(list, listed{i.Handle, moment(i.CreatedAt), moment(i.RenewedAt), moment(i.LastSeenAt), moment(i.ExpiresAt), token, bound})
		}
		if err := a.printJSON(list); err != nil {
			return err
		}
		a.noteLimit(all, len(found))
		return nil
	}
	if len(found) == 0 {
		a.note("no live session")
	}
	if err := a.printTable(a.listRows(found)); err != nil {
		return err
	}
	a.noteLimit(all, len(found))
	return nil
}

// listWidth is what the rows of a list take.
const listWidth = 134

// listRows are the lines of a list: a session each, or three on a terminal that
// would break them.
func (a *app) listRows(found []session.Info) (rows [][]string) {
	const created, renewed, seen, expires, held = "CREATED", "RENEWED", "LAST SEEN", "EXPIRES", "CLIENT"
	wide := !a.narrow(listWidth)
	if wide {
		rows = append(rows, []string{"HANDLE", created, renewed, seen, expires, held})
	}
	for _, i := range found {
		_, _, text := client(i)
		if wide {
			rows = append(rows, []string{i.Handle, instant(i.CreatedAt), instant(i.RenewedAt), instant(i.LastSeenAt), instant(i.ExpiresAt), text})
			continue
		}
		rows = append(rows, []string{i.Handle, held, text},
			[]string{"  " + created + "  " + instant(i.CreatedAt), renewed, instant(i.RenewedAt)},
			[]string{"  " + seen + "  " + instant(i.LastSeenAt), expires, instant(i.ExpiresAt)})
	}
	return rows
}

// noteLimit says that the list is not whole.
func (a *app) noteLimit(all, listed int) {
	switch {
	case listed < all && listed == 1:
		a.note("only the last seen is listed, of %s", number(int64(all)))
	case listed < all:
		a.note("only the %s last seen are listed", number(int64(listed)))
	case all == mostListed:
		a.note("only the %s that expire last are listed: the list stops there, and stats counts all", number(mostListed))
	}
}
