package doctor

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/cmd/sessionctl/internal/again"
	"github.com/pgsession/session/internal/pgtable"
	"github.com/pgsession/session/internal/row"
)

// parts are the table $1, or its partitions.
const parts = `WITH parts AS (SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, c.reloptions
	FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
	WHERE (c.oid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.regclass
		OR c.oid OPERATOR(pg_catalog.=) ANY (SELECT relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree($1::pg_catalog.text::pg_catalog.regclass)))
		AND c.relkind OPERATOR(pg_catalog.=) 'r') `

func (e *exam) exists(ctx context.Context) (there bool, err error) {
	err = e.scan(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
		WHERE n.nspname OPERATOR(pg_catalog.=) $1::pg_catalog.text AND c.relname OPERATOR(pg_catalog.=) $2::pg_catalog.text)`, []any{e.Schema, e.Table}, &there)
	if err == nil && !there {
		e.find("table", Error, fmt.Sprintf("there is no table %s in database %s", e.report.Table, e.Program.ConnConfig.Database)).
			advise("start the program, or run: " + e.where().Command("schema --apply") + "; is it another database, or another --schema or --table?")
	}
	return there, err
}

// indexes checks that every index is complete, and those of IndexKeys there.
func (e *exam) indexes(ctx context.Context) error {
	rows, err := e.Pool.Query(ctx, parts+`SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text, i.indisvalid AND i.indisready
		FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
		JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
		WHERE i.indrelid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.regclass OR i.indrelid OPERATOR(pg_catalog.=) ANY (SELECT oid FROM parts) ORDER BY 2`, e.table)
	if err != nil {
		return err
	}
	var schema, name string
	var valid bool
	good := 0
	_, err = pgx.ForEachRow(rows, []any{&schema, &name, &valid}, func() error {
		if valid {
			good++
			return nil
		}
		e.find("indexes", Warning, fmt.Sprintf("the index %s is not valid: somebody is making it, or was cut off while making it; it costs writes and helps nobody", name)).
			advise("unless somebody is making it, run", "REINDEX INDEX CONCURRENTLY "+pgx.Identifier{schema, name}.Sanitize()+";")
		return nil
	})
	if err != nil {
		return err
	}
	if err := e.keyIndexes(ctx); err != nil {
		return err
	}
	e.ok("indexes", fmt.Sprintf("%d valid", good))
	return nil
}

// keyIndexes looks for the indexes of IndexKeys, by what they hold: a name may be
// another table's, or chosen by somebody else.
func (e *exam) keyIndexes(ctx context.Context) error {
	if len(e.IndexKeys) == 0 {
		return nil
	}
	conn, err := e.Pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	var oid int64
	var typ string
	err = conn.QueryRow(ctx, `SELECT attrelid::bigint, pg_catalog.format_type(atttypid, NULL) FROM pg_catalog.pg_attribute
		WHERE attrelid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.regclass AND attname OPERATOR(pg_catalog.=) 'sess'`, e.table).Scan(&oid, &typ)
	if err != nil {
		return err
	}
	table := &pgtable.Table{FindPrefix: row.PrefixFind}
	for _, key := range e.IndexKeys {
		there, err := table.HasKeyIndex(ctx, conn.Conn(), oid, strings.TrimPrefix(typ, "pg_catalog."), key)
		switch {
		case err != nil:
			return err
		case !there:
			e.find("indexes", Warning, fmt.Sprintf("the key %q has no index: finding sessions by it reads the whole table", key)).
				advise("run: " + e.where().Command("schema --apply --index-key "+again.Word(key)))
		}
	}
	return nil
}

// storage looks at how the data is kept.
func (e *exam) storage(ctx context.Context) error {
	rows, err := e.Pool.Query(ctx, parts+`SELECT p.name,
			COALESCE((SELECT pg_catalog.to_json(a) OPERATOR(pg_catalog.->>) 'attcompression' FROM pg_catalog.pg_attribute a
				WHERE a.attrelid OPERATOR(pg_catalog.=) p.oid AND a.attname OPERATOR(pg_catalog.=) 'sess'), ''),
			COALESCE((SELECT 'lz4' OPERATOR(pg_catalog.=) ANY (enumvals) AND setting OPERATOR(pg_catalog.<>) 'lz4'
				FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) 'default_toast_compression'), false)
		FROM parts p ORDER BY 1`, e.table)
	if err != nil {
		return err
	}
	var compress []string
	var table, compression string
	var hasLZ4 bool
	_, err = pgx.ForEachRow(rows, []any{&table, &compression, &hasLZ4}, func() error {
		if hasLZ4 && compression != "l" {
			compress = append(compress, fmt.Sprintf("ALTER TABLE %s ALTER COLUMN sess SET COMPRESSION lz4;", table))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(compress) > 0 {
		e.find("compression", Hint, "data over 2 KB is compressed by pglz at each save, and lz4 is several times as fast").
			advise("as the table's owner, run", compress...)
	} else {
		e.ok("compression", "the fastest that this server has")
	}
	return nil
}
