package pgtable

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgsession/session/internal/pgrun"
)

// QuotedOutbox returns the name of the outbox as statements hold it.
func (t *Table) QuotedOutbox() string { return pgx.Identifier{t.Schema, t.Outbox}.Sanitize() }

// ScalarValue is [Table.Value] for a row of the outbox: null where the key's value is
// an object or an array, or longer than one that can be searched for. sess is the
// column of the data.
func (t *Table) ScalarValue(key string) string {
	const sql = `CASE WHEN pg_catalog.%[2]s_typeof(%[3]s OPERATOR(pg_catalog.->) %[4]s) OPERATOR(pg_catalog.=) ANY (ARRAY['object'::pg_catalog.text, 'array'::pg_catalog.text])
		OR pg_catalog.octet_length(%[6]s) OPERATOR(pg_catalog.>) 200 THEN NULL ELSE %[6]s END`
	readable := strings.ReplaceAll(strings.Join(strings.Fields(sqlReadable), " "), "%[2]s", t.SessType)
	return strings.NewReplacer("%[2]s", t.SessType, "%[3]s", readable, "%[4]s", literal(key), "%[6]s", t.Value(key)).
		Replace(strings.Join(strings.Fields(sql), " "))
}

// OutboxDDL returns the SQL that makes the outbox unless it is there.
func (t *Table) OutboxDDL() string {
	if t.Schema == "schema_system" && t.Outbox == "session_outbox" {
		return t.OutboxSQL
	}
	quote := func(name string) string { return "'" + strings.ReplaceAll(name, "'", "''") + "'" }
	tag := "$session$"
	for strings.Contains(t.Schema+t.Outbox, tag) {
		tag = "$s" + tag[1:]
	}
	return strings.NewReplacer(
		"schema_system.session_outbox", t.QuotedOutbox(),
		"'schema_system'", quote(t.Schema),
		"'session_outbox'", quote(t.Outbox),
		"schema_system", pgx.Identifier{t.Schema}.Sanitize(),
		"$do$", tag,
	).Replace(t.OutboxSQL)
}

// outboxColumns are those that statements write.
var outboxColumns = []string{"kind", "handle", "old_handle", "user_value", "reason"}

// sqlOutbox asks for the table $1.$2: what it is, what of $3 it has not as a text
// that takes any length, or may not be written, and what it demands besides.
var sqlOutbox = qualify(`SELECT c.relkind::text, c.relpersistence::text, pg_catalog.has_schema_privilege(n.oid, 'USAGE'), pg_catalog.row_security_active(c.oid),
	ARRAY(SELECT v.name FROM pg_catalog.unnest($3::text[]) v(name) WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
		WHERE a.attrelid = c.oid AND a.attname = v.name::name AND NOT a.attisdropped AND a.attgenerated = ''
			AND (a.atttypid = 25::oid OR a.atttypid = 1043::oid AND a.atttypmod < 0))),
	ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attname = ANY ($3::name[]) AND NOT a.attisdropped
		AND NOT pg_catalog.has_column_privilege(c.oid, a.attnum, 'INSERT')),
	ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND NOT a.attname = ANY ($3::name[])
		AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = '')
	FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE n.nspname = $1::name AND c.relname = $2::name`)

// outboxInfo is what the catalogs say of it.
type outboxInfo struct {
	kind, persistence          string
	usage, rowSecured          bool
	missing, unwritable, extra []string
}

func (t *Table) inspectOutbox(ctx context.Context, c *pgx.Conn) (o outboxInfo, err error) {
	return o, c.QueryRow(ctx, sqlOutbox, t.Schema, t.Outbox, outboxColumns).
		Scan(&o.kind, &o.persistence, &o.usage, &o.rowSecured, &o.missing, &o.unwritable, &o.extra)
}

// setUpOutbox finds the outbox, makes it if there is none, and checks it.
func (t *Table) setUpOutbox(ctx context.Context, c *pgx.Conn, info *tableInfo) error {
	if t.Outbox == "" {
		return nil
	}
	o, err := t.inspectOutbox(ctx, c)
	if errors.Is(err, pgx.ErrNoRows) {
		if err := t.makeOutbox(ctx, c.PgConn(), info); err != nil {
			return err
		}
		t.Logger.Info("session: outbox made", "table", t.Schema+"."+t.Outbox)
		o, err = t.inspectOutbox(ctx, c)
	}
	if err != nil {
		return fmt.Errorf("session: looking at the outbox %s: %w", t.QuotedOutbox(), t.Runner.Describe(err))
	}
	return t.checkOutbox(&o, info.user)
}

// checkOutbox returns what would let statements fail, and with them every login.
func (t *Table) checkOutbox(o *outboxInfo, user string) error {
	const another = "Name another with PostgresOptions.Outbox"
	box := t.QuotedOutbox()
	switch {
	case o.kind != "r" && o.kind != "p":
		return fmt.Errorf("session: the outbox %s is not a table. %s", box, another)
	case len(o.missing) > 0:
		return fmt.Errorf("session: the outbox %s has no column %s of type text; it is not an outbox. %s", box, strings.Join(o.missing, ", "), another)
	case len(o.extra) > 0:
		return fmt.Errorf("session: the outbox %s has a column %s that must have a value and has no default. Run: ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL;",
			box, o.extra[0], box, pgx.Identifier{o.extra[0]}.Sanitize())
	case o.rowSecured:
		return fmt.Errorf("session: the outbox %s has row-level security, which may refuse its rows and with them every login. As its owner, run: ALTER TABLE %s DISABLE ROW LEVEL SECURITY;", box, box)
	case !o.usage || len(o.unwritable) > 0:
		return fmt.Errorf("session: user %q may not insert into the outbox %s. As its owner, run: %s", user, box, t.outboxGrants(user))
	case o.persistence == "u":
		t.Logger.Warn("session: the outbox is UNLOGGED: a crash of the server empties it", "table", t.Schema+"."+t.Outbox, "run", "ALTER TABLE "+box+" SET LOGGED")
	}
	return nil
}

func (t *Table) outboxGrants(user string) string {
	role := pgx.Identifier{user}.Sanitize()
	return fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s; GRANT INSERT ON %s TO %s;", pgx.Identifier{t.Schema}.Sanitize(), role, t.QuotedOutbox(), role)
}

// makeOutbox runs the DDL, one transaction.
func (t *Table) makeOutbox(ctx context.Context, c *pgconn.PgConn, info *tableInfo) error {
	_, err := c.Exec(ctx, t.OutboxDDL()).ReadAll()
	if err == nil {
		return nil
	}
	_, _ = c.Exec(ctx, "ROLLBACK").ReadAll() // the first error counts
	err = pgrun.Scrub(err)
	if pgrun.SQLState(err) != "42501" { // insufficient_privilege
		return fmt.Errorf("session: making the outbox %s: %w", t.QuotedOutbox(), err)
	}
	return fmt.Errorf("session: the outbox %s does not exist and user %q may not make it. As the owner of database %q, run: sessionctl schema --apply%s --outbox %s (or the output of session.SchemaSQL), then: %s %w",
		t.QuotedOutbox(), info.user, info.database, t.flags(), shellWord(t.Outbox), t.outboxGrants(info.user), err)
}
