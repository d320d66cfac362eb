// Package pgtable finds, makes and checks the table that sessions are kept in.
//
// Its promises: no DDL runs where the table exists, and twenty programs may
// start at once on an empty database. A table of another shape, a missing
// privilege or database is an error that holds the SQL that mends it, and what
// works but may hurt is a warning that does. No error or warning holds a
// password. It knows no session: what the names in a row mean comes with
// [Table].
package pgtable

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/pgrun"
)

// MaxNameBytes is how long a name may be: PostgreSQL cuts longer ones off.
const MaxNameBytes = 63

// Table is a table of sessions, and how it is reached. What it needs to know of
// sessions its caller says. [Table.DDL], [Table.Value] and [Table.IndexSQL] need
// no connection, and no Runner.
type Table struct {
	Runner *pgrun.Runner
	Logger *slog.Logger

	Schema, Name string
	SQL          string              // makes the table, by the name schema_system.session
	SIDBytes     int                 // of what is stored in sid
	FindPrefix   string              // of the member that holds the hash of a key's value
	Hash         func(string) string // 32 characters, for names that are too long

	Outbox    string // the name of a table in Schema, or ""
	OutboxSQL string // makes it, by the name schema_system.session_outbox

	// Found by Setup.
	SessType, ExpireType string // json or jsonb; timestamp with or without time zone
	Distributed          bool   // by Citus, over workers
	ForeignZone          error  // why programs in other languages cannot share the rows; nil if they can
	info                 tableInfo
	patience             time.Duration // indexPatience, if it is 0
}

// Quoted returns the name of the table as statements hold it.
func (t *Table) Quoted() string {
	return pgx.Identifier{t.Schema, t.Name}.Sanitize()
}

// Setup finds the table, makes it if there is none, checks it, and notes what
// the statements have to know of it. It waits for a database that is not there
// yet, as long as ctx allows, or setupTimeout.
func (t *Table) Setup(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, setupTimeout)
		defer cancel()
	}
	t.warnPool()
	return t.patiently(ctx, t.setUp)
}

// setUp is one try.
func (t *Table) setUp(ctx context.Context) error {
	start := time.Now()
	conn, err := t.acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	info := new(tableInfo)
	if err := info.ask(ctx, conn.Conn()); err != nil {
		return t.connectError(err)
	}
	answered := time.Since(start)
	err = t.inspect(ctx, conn.Conn(), info)
	if errors.Is(err, pgx.ErrNoRows) {
		if err := t.makeTable(ctx, conn.Conn().PgConn(), info); err != nil {
			return err
		}
		t.Logger.Info("session: table made", "table", t.Schema+"."+t.Name)
		err = t.inspect(ctx, conn.Conn(), info)
	}
	if err != nil {
		return fmt.Errorf("session: looking at the table %s: %w", t.Quoted(), t.Runner.Describe(err))
	}
	if t.suspicious(info) {
		t.lookAtRows(ctx, conn.Conn(), info)
	}
	if err := t.check(info); err != nil {
		return err
	}
	if err := t.setUpOutbox(ctx, conn.Conn(), info); err != nil {
		return err
	}
	host, port, database, _ := t.target()
	t.Logger.Info("session: database answered", "host", host, "port", port, "database", database, "user", info.user,
		"table", t.Schema+"."+t.Name, "version", info.version, "timeZone", info.timeZone, "tookMs", answered.Milliseconds())
	t.info = *info
	t.SessType, t.ExpireType = info.columns["sess"].typ, timestampTypes[info.columns["expire"].typ]
	t.Distributed = info.distribution.method != ""
	t.warn(ctx, conn.Conn(), info)
	t.warnPooler(conn.Conn(), info)
	t.checkZone(ctx, conn.Conn())
	return nil
}
