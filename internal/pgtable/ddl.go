package pgtable

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgsession/session/internal/pgrun"
)

// DDL returns the SQL that makes this table unless it is there.
func (t *Table) DDL() string {
	sql := t.SQL
	if t.Schema != "schema_system" || t.Name != "session" {
		quote := func(name string) string { return "'" + strings.ReplaceAll(name, "'", "''") + "'" }
		id := func(name string) string { return pgx.Identifier{name}.Sanitize() }
		tag := "$session$"
		for strings.Contains(t.Schema+t.Name, tag) {
			tag = "$s" + tag[1:]
		}
		sql = strings.NewReplacer(
			"'schema_system.session'", quote(t.Quoted()),
			"schema_system.session", t.Quoted(),
			"'schema_system'", quote(t.Schema),
			"'session'", quote(t.Name),
			"schema_system", id(t.Schema),
			"idx_session_expire", id("idx_"+t.Name+"_expire"),
			"$do$", tag,
		).Replace(sql)
	}
	return sql
}

// makeTable runs the DDL, one transaction.
func (t *Table) makeTable(ctx context.Context, c *pgconn.PgConn, user string) error {
	_, err := c.Exec(ctx, t.DDL()).ReadAll()
	if err == nil {
		return nil
	}
	_, _ = c.Exec(ctx, "ROLLBACK").ReadAll() // the first error counts
	if pgrun.SQLState(err) != "42501" {      // insufficient_privilege
		return fmt.Errorf("session: making the table %s: %w", t.Quoted(), err)
	}
	_, _, database, _ := t.target()
	return fmt.Errorf("session: the table %s does not exist and user %q may not make it. As the owner of database %q, run: sessionctl schema --apply (or the output of session.SchemaSQL), then: %s %w",
		t.Quoted(), user, database, t.grants(user), err)
}

func (t *Table) grants(user string) string {
	role := pgx.Identifier{user}.Sanitize()
	return fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s; GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %s;",
		pgx.Identifier{t.Schema}.Sanitize(), role, t.Quoted(), role)
}
