package session

import (
	_ "embed"
	"strings"

	"github.com/pgsession/session/internal/mark"
	"github.com/pgsession/session/internal/pgtable"
)

//go:embed outbox.sql
var outboxSQL string

// boxes are what makes a statement write a row of the outbox for each session that it
// begins, renews or ends, and for no other: a CTE each, and for a Delete why. Where
// there is no outbox all are empty.
type boxes struct{ created, renewed, destroyed, why, revoked, limited, pruned string }

// The columns that a CTE which the row comes from has are sid, sess and live.
const (
	sqlBoxed = `, boxed AS (INSERT INTO %[outbox]s (kind, handle, old_handle, user_value, reason) SELECT %[kind]s, %[handle]s, %[old]s, %[user]s, %[reason]s FROM %[from]s)`

	sqlBoxHandle = `pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to('` + labelHandle + `' OPERATOR(pg_catalog.||) %[sid]s::pg_catalog.text, ` + sqlAsItIs + `)), 'hex'), 32)`
	sqlBoxWhy    = `pg_catalog.split_part(why, ' ', `
)

// newBoxes writes them for a table. key says whose session it is, "" if nothing does.
func newBoxes(t *pgtable.Table, key string) boxes {
	if t.Outbox == "" {
		return boxes{}
	}
	user := "NULL::pg_catalog.text"
	if key != "" {
		user = t.ScalarValue(key)
	}
	box := func(kind, handle, old, reason, from string) string {
		of := func(sid string) string { return strings.Replace(join(sqlBoxHandle), "%[sid]s", sid, 1) }
		if old == "" {
			old = "NULL::pg_catalog.text"
		} else {
			old = of(old)
		}
		return strings.NewReplacer("%[outbox]s", t.QuotedOutbox(), "%[kind]s", kind, "%[handle]s", of(handle), "%[old]s", old,
			"%[user]s", user, "%[reason]s", reason, "%[from]s", from).Replace(sqlBoxed)
	}
	gone := func(why, from string) string {
		kind, reason := splitWhy(why)
		live := func(yes, no string) string { return "CASE WHEN live THEN '" + yes + "' ELSE '" + no + "' END" }
		return box(live(kind, "expired"), "sid", "", live(reason, ""), from)
	}
	b := boxes{
		created: box("'created'", "sid", "", "''", "u"),
		renewed: box("'renewed'", "$6::pg_catalog.text", "$2::pg_catalog.text", "''", "moved, marked"),
		why:     ", v.why",
		revoked: gone(whyRevoked, "gone"),
		limited: gone(whyLimit, "gone"),
		pruned:  gone(whyExpired, "gone WHERE NOT "+join(mark.SQL)),
	}
	expired := "(live OR " + sqlBoxWhy + "1) OPERATOR(pg_catalog.=) 'expired')"
	b.destroyed = box("CASE WHEN "+expired+" THEN "+sqlBoxWhy+"1) ELSE 'expired' END", "sid", "",
		"CASE WHEN "+expired+" THEN "+sqlBoxWhy+"2) ELSE '' END", "u")
	return b
}

// join is a statement on one line, before names go in, which may have spaces.
func join(sql string) string { return strings.Join(strings.Fields(sql), " ") }
