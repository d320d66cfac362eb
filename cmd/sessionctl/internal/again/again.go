// Package again writes commands that people are told to run: with the flags that
// name the same table.
package again

import (
	"regexp"
	"strings"
)

// Where names a table.
type Where struct {
	Schema, Table string
	HashIDs       bool

	Outbox, OutboxUser string
}

// Command returns the command line of a command, such as "schema --apply", with
// the flags that it needs to mean the same table.
func (w Where) Command(args string) string {
	line := "sessionctl " + args
	for _, f := range []struct{ flag, value, usual string }{{"schema", w.Schema, "schema_system"}, {"table", w.Table, "session"}, {"outbox", w.Outbox, ""}, {"outbox-user", w.OutboxUser, ""}} {
		if f.value != f.usual {
			line += " --" + f.flag + " " + Word(f.value)
		}
	}
	if w.HashIDs {
		line += " --hash-ids"
	}
	return line
}

var plain = regexp.MustCompile(`^[A-Za-z0-9_./:@%+,][-A-Za-z0-9_./:@%+,]*$`)

// Word quotes a word for a shell, where it needs that.
func Word(s string) string {
	if plain.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
