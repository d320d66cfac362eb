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
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/pgrun"
)

// MaxNameBytes is how long a name may be: PostgreSQL cuts longer ones off.
const MaxNameBytes = 63

// setupTimeout bounds Setup where its context has no deadline.
const setupTimeout = 30 * time.Second

// What is asked of the server at start. The catalogs answer even a role that
// may not use the schema.
const (
	sqlServer = `SELECT current_setting('server_version'), current_setting('TimeZone'), current_user::text,
		(SELECT count(DISTINCT extract(timezone FROM make_timestamptz(extract(year FROM now())::int, m, 15, 12, 0, 0))) > 1
			FROM generate_series(1, 12) m),
		pg_backend_pid(), EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE name LIKE 'stmtcache%')`

	sqlTable = `SELECT c.oid::bigint, c.relkind::text, c.relpersistence::text,
			has_schema_privilege(n.oid, 'USAGE'),
			has_table_privilege(c.oid, 'SELECT'), has_table_privilege(c.oid, 'INSERT'),
			has_table_privilege(c.oid, 'UPDATE'), has_table_privilege(c.oid, 'DELETE')
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1::text AND c.relname = $2::text`

	sqlColumns = `SELECT a.attname::text, pg_catalog.format_type(a.atttypid, NULL),
			CASE WHEN a.atttypid = 'varchar'::regtype AND a.atttypmod > 0 THEN a.atttypmod - 4 ELSE 0 END,
			a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
		FROM pg_catalog.pg_attribute a
		WHERE a.attrelid = $1::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped`

	// A unique index on sid alone, any index that begins with expire, a primary
	// key, and how to replace a deferrable constraint on sid: ON CONFLICT fails
	// with one.
	sqlIndexes = `SELECT
		EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
			WHERE i.indrelid = $1::bigint::oid AND a.attname = 'sid' AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indnkeyatts = 1 AND i.indpred IS NULL),
		EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
			WHERE i.indrelid = $1::bigint::oid AND a.attname = 'expire' AND i.indisvalid AND i.indpred IS NULL),
		EXISTS (SELECT FROM pg_catalog.pg_index WHERE indrelid = $1::bigint::oid AND indisprimary),
		COALESCE((SELECT format('DROP CONSTRAINT %I, ADD %s', c.conname, regexp_replace(pg_get_constraintdef(c.oid), ' DEFERRABLE.*', ''))
			FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.conrelid AND c.conkey = ARRAY[a.attnum]
			WHERE c.conrelid = $1::bigint::oid AND a.attname = 'sid' AND c.contype IN ('p', 'u') AND c.condeferrable LIMIT 1), '')`
)

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

	// Found by Setup.
	SessType, ExpireType string // json or jsonb; timestamp with or without time zone
	ForeignZone          error  // why programs in other languages cannot share the rows; nil if they can
	partitioned          bool
}

// Quoted returns the name of the table as statements hold it.
func (t *Table) Quoted() string {
	return pgx.Identifier{t.Schema, t.Name}.Sanitize()
}

// tableInfo is what the catalogs say of it.
type tableInfo struct {
	oid                          int64
	kind, persistence            string
	usage, sel, insert, upd, del bool
	types                        map[string]string
	sidLength                    int
	mandatory                    []string // other columns that must have a value
	uniqueSid, indexed, primary  bool
	version, timeZone, user      string
	summerTime                   bool
	pid                          int64 // of the server process
	prepared                     bool  // it has a statement by the name that pgx gave
	deferrable                   string
}

// Setup finds the table, makes it if there is none, checks it, and notes what
// the statements have to know of it.
func (t *Table) Setup(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, setupTimeout)
		defer cancel()
	}
	start := time.Now()
	conn, err := t.Runner.Pool().Acquire(ctx)
	if err != nil {
		return t.connectError(err)
	}
	defer conn.Release()
	var info tableInfo
	if err := conn.QueryRow(ctx, sqlServer).Scan(&info.version, &info.timeZone, &info.user, &info.summerTime, &info.pid, &info.prepared); err != nil {
		return t.connectError(err)
	}
	answered := time.Since(start)
	err = t.inspect(ctx, conn.Conn(), &info)
	if errors.Is(err, pgx.ErrNoRows) {
		if err := t.makeTable(ctx, conn.Conn().PgConn(), info.user); err != nil {
			return err
		}
		t.Logger.Info("session: table made", "table", t.Schema+"."+t.Name)
		err = t.inspect(ctx, conn.Conn(), &info)
	}
	if err != nil {
		return fmt.Errorf("session: looking at the table %s: %w", t.Quoted(), t.Runner.Describe(err))
	}
	if err := t.check(&info); err != nil {
		return err
	}
	host, port, database, _ := t.target()
	t.Logger.Info("session: database answered", "host", host, "port", port, "database", database, "user", info.user,
		"table", t.Schema+"."+t.Name, "version", info.version, "timeZone", info.timeZone, "tookMs", answered.Milliseconds())
	t.warn(&info)
	t.warnPooler(conn.Conn(), &info)
	t.SessType, t.ExpireType, t.partitioned = info.types["sess"], info.types["expire"], info.kind == "p"
	t.checkZone(ctx, conn.Conn())
	return nil
}

// target says where the pool connects to.
func (t *Table) target() (host string, port int, database, user string) {
	c := t.Runner.Pool().Config().ConnConfig
	return c.Host, int(c.Port), c.Database, c.User
}

// connectError names everything but the password.
func (t *Table) connectError(err error) error {
	host, port, database, user := t.target()
	hint := "is it running, and are host and port right?"
	switch {
	case t.Runner.Pool().Config().ConnString() == "":
		hint = "is it running? No connection string was given: is DATABASE_URL set?"
	case strings.Contains(err.Error(), "server refused TLS"):
		hint = "the server does not speak TLS: add sslmode=disable if it is on this machine or in a private network"
	}
	switch pgrun.SQLState(err) {
	case "3D000": // invalid_catalog_name
		hint = fmt.Sprintf("the database does not exist, make it with: createdb -h %s -p %d %s", host, port, shellWord(database))
	case "28P01", "28000": // invalid password or authorization
		hint = "user or password is wrong, or pg_hba.conf does not let this user in"
	case "53300": // too_many_connections
		hint = "the server has no connection left: lower the pool's MaxConns or raise max_connections"
	case "57P03": // cannot_connect_now
		hint = "the server is starting up or shutting down"
	case "42P05", "26000": // duplicate or missing prepared statement
		return fmt.Errorf("session: %w", t.Runner.Describe(err))
	}
	return fmt.Errorf("session: PostgreSQL at %s, database %q, user %q does not answer: %s: %w",
		net.JoinHostPort(host, strconv.Itoa(port)), database, user, hint, err)
}

func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// inspect asks the catalogs for the table; pgx.ErrNoRows means there is none.
func (t *Table) inspect(ctx context.Context, c *pgx.Conn, info *tableInfo) error {
	err := c.QueryRow(ctx, sqlTable, t.Schema, t.Name).
		Scan(&info.oid, &info.kind, &info.persistence, &info.usage, &info.sel, &info.insert, &info.upd, &info.del)
	if err != nil {
		return err
	}
	rows, err := c.Query(ctx, sqlColumns, info.oid)
	if err != nil {
		return err
	}
	info.types = map[string]string{}
	var name, typ string
	var length int
	var mandatory bool
	_, err = pgx.ForEachRow(rows, []any{&name, &typ, &length, &mandatory}, func() error {
		info.types[name] = typ
		switch name {
		case "sid":
			info.sidLength = length
		case "sess", "expire":
		default:
			if mandatory {
				info.mandatory = append(info.mandatory, name)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.QueryRow(ctx, sqlIndexes, info.oid).Scan(&info.uniqueSid, &info.indexed, &info.primary, &info.deferrable)
}
