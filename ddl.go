package session

import (
	"fmt"

	"github.com/jackc/pgx/v5"
)

// SchemaSQL returns the SQL that makes the table of opts, its indexes and those of
// opts.IndexKeys, unless they are there: for migration tools, and for the owner of
// a database whose programs may not make tables. [NewPostgresStore] runs the
// same. A sess column of another type than JSON needs other indexes on keys,
// those that NewPostgresStore makes.
//
// It ends with a CREATE INDEX CONCURRENTLY for each of opts.IndexKeys, which
// PostgreSQL refuses inside a transaction.
func SchemaSQL(opts PostgresOptions) string {
	setDefault(&opts.Schema, "schema_system")
	setDefault(&opts.Table, "session")
	s := PostgresStore{opts: opts, sessType: "json"}
	sql := s.ddl()
	for _, key := range opts.IndexKeys {
		sql += fmt.Sprintf("\nCREATE INDEX CONCURRENTLY IF NOT EXISTS %s ON %s ((%s));\n", pgx.Identifier{s.indexName(key)}.Sanitize(), s.table(), s.value(key))
	}
	return sql
}
