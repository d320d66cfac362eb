package pgtable

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// HasKeyIndex reports whether the table oid, whose column sess is of a type (json
// or jsonb), has a valid index of a key's values, whatever its name. It is for
// those who only look: t needs its FindPrefix, and no Setup.
func (t *Table) HasKeyIndex(ctx context.Context, c *pgx.Conn, oid int64, sessType, key string) (bool, error) {
	look := &Table{FindPrefix: t.FindPrefix, SessType: sessType, info: tableInfo{oid: oid}}
	valid, _, err := look.keyIndexes(ctx, c, key)
	return valid, err
}

// flags are those with which sessionctl means this table.
func (t *Table) flags() (flags string) {
	if t.Schema != "schema_system" {
		flags += " --schema " + shellWord(t.Schema)
	}
	if t.Name != "session" {
		flags += " --table " + shellWord(t.Name)
	}
	return flags
}
