package session

// SchemaSQL returns the SQL that makes the table of opts, its outbox, its indexes and those of
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
	table := opts.table()
	table.SessType = "json"
	sql := table.DDL()
	if opts.Outbox != "" {
		sql += "\n" + table.OutboxDDL()
	}
	for _, key := range opts.IndexKeys {
		sql += "\n" + table.IndexSQL(key) + ";\n"
	}
	return sql
}
