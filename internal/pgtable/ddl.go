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
		index := t.fit("idx_"+t.Name+"_expire", "idx_session_expire_")
		sql = strings.NewReplacer(
			"'idx_session_expire'", quote(index),
			"'schema_system.session'", quote(t.Quoted()),
			"schema_system.session", t.Quoted(),
			"'schema_system'", quote(t.Schema),
			"'session'", quote(t.Name),
			"schema_system", id(t.Schema),
			"idx_session_expire", id(index),
			"$do$", tag,
		).Replace(sql)
	}
	return sql
}

// makeTable runs the DDL, one transaction.
func (t *Table) makeTable(ctx context.Context, c *pgconn.PgConn, info *tableInfo) error {
	_, err := c.Exec(ctx, t.DDL()).ReadAll()
	if err == nil {
		return nil
	}
	_, _ = c.Exec(ctx, "ROLLBACK").ReadAll() // the first error counts
	err = pgrun.Scrub(err)                   // an event trigger may say anything
	role := pgx.Identifier{info.user}.Sanitize()
	switch state := pgrun.SQLState(err); {
	case state == "25006" && info.standby: // read_only_sql_transaction
		return fmt.Errorf("session: the table %s does not exist, and the server is a standby, where nothing can be made: %w", t.Quoted(), err)
	case state == "25006":
		return fmt.Errorf("session: the table %s does not exist, and transactions of user %q are read-only. Run: ALTER ROLE %s IN DATABASE %s SET default_transaction_read_only = off; %w",
			t.Quoted(), info.user, role, pgx.Identifier{info.database}.Sanitize(), err)
	case state != "42501": // insufficient_privilege
		return fmt.Errorf("session: making the table %s: %w", t.Quoted(), err)
	}
	return fmt.Errorf("session: the table %s does not exist and user %q may not make it. As the owner of database %q, run: sessionctl schema --apply%s (or the output of session.SchemaSQL), then: %s %w",
		t.Quoted(), info.user, info.database, t.flags(), t.grants(info.user), err)
}

func (t *Table) grants(user string) string {
	role := pgx.Identifier{user}.Sanitize()
	return fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s; GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %s;",
		pgx.Identifier{t.Schema}.Sanitize(), role, t.Quoted(), role)
}

// fit returns a name, or one with a hash instead where PostgreSQL would cut it:
// two names would become one.
func (t *Table) fit(name, short string) string {
	if len(name) > MaxNameBytes {
		return short + t.Hash(name)
	}
	return name
}
