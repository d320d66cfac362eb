package pgtable

import (
	"context"
	"regexp"

	"github.com/jackc/pgx/v5"
)

// operators and types, as the catalogs' statements are written. Somebody who may
// create in a schema of the search path could have the server call his own.
var (
	plainOperator = regexp.MustCompile(` (=|<>|<|>|>=|&|@>|~\*|\|\||\+|-|\*|/) `)
	plainType     = regexp.MustCompile(`::([a-z])`)
)

// qualify puts operators between blanks and the types of casts into pg_catalog.
// They lose their precedence: mind the parentheses.
func qualify(sql string) string {
	return plainType.ReplaceAllString(plainOperator.ReplaceAllString(sql, " OPERATOR(pg_catalog.$1) "), "::pg_catalog.$1")
}

// What is asked of the server at start. The catalogs answer even a role that
// may not use the schema.
var (
	sqlServer = qualify(`SELECT pg_catalog.current_setting('server_version'), pg_catalog.current_setting('server_version_num')::int4,
		pg_catalog.current_setting('TimeZone'), current_user::text, pg_catalog.current_database()::text,
		(SELECT pg_catalog.count(DISTINCT extract(timezone FROM pg_catalog.make_timestamptz(extract(year FROM pg_catalog.now())::int4, m, 15, 12, 0, 0))) > 1
			FROM pg_catalog.generate_series(1, 12) m),
		pg_catalog.pg_backend_pid(),
		EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE pg_catalog.starts_with(name, 'stmtcache')),
		pg_catalog.current_setting('default_transaction_read_only') = 'on',
		pg_catalog.pg_is_in_recovery(),
		pg_catalog.current_setting('client_encoding'), pg_catalog.current_setting('server_encoding'),
		pg_catalog.current_setting('row_security') = 'on',
		pg_catalog.to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL`)

	sqlTable = qualify(`SELECT c.oid::int8, c.relkind::text, c.relpersistence::text,
			pg_catalog.has_schema_privilege(n.oid, 'USAGE'), pg_catalog.has_table_privilege(c.oid, 'DELETE'),
			c.relispartition,
			pg_catalog.row_security_active(c.oid),
			COALESCE((SELECT pg_catalog.format('%I.%I', pn.nspname, p.relname) FROM pg_catalog.pg_inherits i
				JOIN pg_catalog.pg_class p ON p.oid = i.inhparent JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
				WHERE i.inhrelid = c.oid LIMIT 1), ''),
			COALESCE((SELECT pg_catalog.pg_get_partkeydef(c.oid) FROM pg_catalog.pg_partitioned_table p WHERE p.partrelid = c.oid), ''),
			COALESCE((SELECT p.partnatts = 1 AND EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'sid' AND a.attnum = p.partattrs[0])
				FROM pg_catalog.pg_partitioned_table p WHERE p.partrelid = c.oid), true)
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1::name AND c.relname = $2::name`)

	// held: NOT NULL cannot be dropped. stuck: neither can the type be changed,
	// or nobody knows before whether it can.
	sqlColumns = qualify(`SELECT a.attname::text, pg_catalog.format_type(a.atttypid, NULL),
			CASE WHEN t.typnamespace = 'pg_catalog'::regnamespace::oid THEN t.typname::text ELSE '' END,
			a.atttypmod, t.typcategory = 'S', a.attnotnull,
			(a.attnotnull OR t.typtype = 'd' AND t.typnotnull) AND NOT a.atthasdef AND t.typdefault IS NULL AND a.attidentity = '',
			CASE WHEN t.typtype = 'd' THEN pg_catalog.format_type(t.typbasetype, t.typtypmod) ELSE '' END, t.typtype = 'd' AND t.typnotnull,
			a.atthasdef AND a.attgenerated = '', a.attgenerated::text,
			COALESCE((SELECT l.collisdeterministic FROM pg_catalog.pg_collation l WHERE l.oid = a.attcollation), true),
			k.held,
			a.attinhcount > 0 OR a.attidentity <> '' OR k.part
				OR EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.refclassid = 'pg_catalog.pg_class'::regclass::oid AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
					AND (d.classid = ANY (ARRAY['pg_catalog.pg_rewrite'::regclass, 'pg_catalog.pg_policy'::regclass, 'pg_catalog.pg_trigger'::regclass,
							'pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_publication_rel'::regclass]::oid[])
						OR d.classid = 'pg_catalog.pg_attrdef'::regclass::oid AND d.deptype = 'n'
						OR d.classid = 'pg_catalog.pg_class'::regclass::oid AND EXISTS (SELECT FROM pg_catalog.pg_index x WHERE x.indexrelid = d.objid
							AND (a.attname = 'sess' OR x.indexprs IS NOT NULL OR x.indpred IS NOT NULL
								OR EXISTS (SELECT FROM pg_catalog.pg_opclass o WHERE o.oid = ANY (x.indclass::oid[]) AND NOT o.opcdefault)))))
				OR EXISTS (SELECT FROM pg_catalog.pg_constraint s WHERE s.conrelid = a.attrelid AND a.attnum = ANY (s.conkey) AND s.contype::text = ANY (ARRAY['c', 'f', 'x'])
					OR s.confrelid = a.attrelid AND a.attnum = ANY (s.confkey)),
			pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT'),
			pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'INSERT') AND pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'UPDATE'),
			COALESCE((SELECT pg_catalog.string_agg(pg_catalog.format('%I.%I', sn.nspname, sc.relname), ', ') FROM pg_catalog.pg_attrdef f
				JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass::oid AND d.objid = f.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass::oid
				JOIN pg_catalog.pg_class sc ON sc.oid = d.refobjid JOIN pg_catalog.pg_namespace sn ON sn.oid = sc.relnamespace
				WHERE f.adrelid = a.attrelid AND f.adnum = a.attnum AND CASE WHEN sc.relkind = 'S' THEN NOT pg_catalog.has_sequence_privilege(sc.oid, 'USAGE, UPDATE') ELSE false END), '')
		FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid,
		LATERAL (SELECT EXISTS (SELECT FROM pg_catalog.pg_partitioned_table p WHERE p.partrelid = a.attrelid AND a.attnum = ANY (p.partattrs::int2[])) AS part,
			a.attinhcount > 0 OR EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = a.attrelid AND (i.indisprimary OR i.indisreplident) AND a.attnum = ANY (i.indkey::int2[])) AS held) k
		WHERE a.attrelid = $1::int8::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`)

	// A unique index on sid alone, compared as the column is; any index that
	// pruning can go along; a primary key, and how to replace a deferrable
	// constraint on sid: ON CONFLICT fails with one.
	sqlIndexes = qualify(`SELECT
		EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
			WHERE i.indrelid = $1::int8::oid AND a.attname = 'sid' AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indnkeyatts = 1 AND i.indpred IS NULL
				AND i.indcollation[0] = a.attcollation),
		EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
			JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_am m ON m.oid = c.relam
			WHERE i.indrelid = $1::int8::oid AND a.attname = 'expire' AND i.indisvalid AND i.indpred IS NULL AND m.amname = 'btree'),
		EXISTS (SELECT FROM pg_catalog.pg_index WHERE indrelid = $1::int8::oid AND indisprimary),
		COALESCE((SELECT pg_catalog.format('DROP CONSTRAINT %I, ADD %s', c.conname, pg_catalog.regexp_replace(pg_catalog.pg_get_constraintdef(c.oid), ' DEFERRABLE.*', ''))
			FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.conrelid AND c.conkey = ARRAY[a.attnum]
			WHERE c.conrelid = $1::int8::oid AND a.attname = 'sid' AND c.contype::text = ANY (ARRAY['p', 'u']) AND c.condeferrable LIMIT 1), '')`)
)

// column is what the catalogs say of one.
type column struct {
	name, shown    string // shown: its type for people
	typ            string // its type if that is PostgreSQL's own, else ""
	typmod         int
	text           bool // a type of text
	notNull        bool
	mandatory      bool   // must have a value, and has none of its own
	base           string // what is below a domain
	baseNotNull    bool   // that must have a value
	hasDefault     bool
	generated      string
	deterministic  bool // of two texts only the same are equal
	held, stuck    bool
	reads, writes  bool   // may be read, written
	lacksSequences string // that its default uses, without a right to
}

// length is how many characters it may have, 0 for any number.
func (c column) length() int {
	if c.typ == "varchar" && c.typmod > 0 {
		return c.typmod - 4
	}
	return 0
}

// serverInfo is what is asked of the server.
type serverInfo struct {
	version                        string
	versionNum                     int
	timeZone, user, database       string
	summerTime                     bool
	pid                            int64 // of the server process
	pooled                         bool  // a pooler answers
	prepared                       bool  // the server has a statement by the name that pgx gave
	readOnly, standby              bool
	clientEncoding, serverEncoding string
	rowSecurity                    bool
	citus                          bool // its catalogs are there
}

// tableInfo is what the catalogs say of it.
type tableInfo struct {
	serverInfo
	oid                         int64
	kind, persistence           string
	usage, del                  bool
	partition                   bool
	rowSecured                  bool // row-level security counts for this user
	parent, partKey             string
	partBySID                   bool
	columns                     map[string]column
	others                      []column // by their place
	uniqueSid, indexed, primary bool
	deferrable                  string
	rows, duplicates            bool // only known where something is wrong
	guards                      []guard
	distribution                distribution
}

// ask asks for what has nothing to do with the table.
func (s *serverInfo) ask(ctx context.Context, c *pgx.Conn) error {
	err := c.QueryRow(ctx, sqlServer).Scan(&s.version, &s.versionNum, &s.timeZone, &s.user, &s.database, &s.summerTime, &s.pid, &s.prepared,
		&s.readOnly, &s.standby, &s.clientEncoding, &s.serverEncoding,
		&s.rowSecurity, &s.citus)
	s.pooled = int64(c.PgConn().PID()) != s.pid
	return err
}

// inspect asks the catalogs for the table; pgx.ErrNoRows means there is none.
func (t *Table) inspect(ctx context.Context, c *pgx.Conn, info *tableInfo) error {
	err := c.QueryRow(ctx, sqlTable, t.Schema, t.Name).Scan(&info.oid, &info.kind, &info.persistence, &info.usage, &info.del,
		&info.partition, &info.rowSecured, &info.parent, &info.partKey, &info.partBySID)
	if err != nil {
		return err
	}
	rows, err := c.Query(ctx, sqlColumns, info.oid)
	if err != nil {
		return err
	}
	info.columns, info.others = map[string]column{}, nil
	var a column
	_, err = pgx.ForEachRow(rows, []any{
		&a.name, &a.shown, &a.typ, &a.typmod, &a.text, &a.notNull, &a.mandatory, &a.base, &a.baseNotNull, &a.hasDefault, &a.generated,
		&a.deterministic, &a.held, &a.stuck, &a.reads, &a.writes, &a.lacksSequences,
	}, func() error {
		switch a.name {
		case "sid", "sess", "expire":
			info.columns[a.name] = a
		default:
			info.others = append(info.others, a)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.QueryRow(ctx, sqlIndexes, info.oid).Scan(&info.uniqueSid, &info.indexed, &info.primary, &info.deferrable); err != nil {
		return err
	}
	if err := info.askDistribution(ctx, c); err != nil {
		return err
	}
	return t.askGuards(ctx, c, info)
}

// lookAtRows finds out what advice can be given where something is wrong: what
// works on an empty table may fail on rows. Where that cannot be found out the
// worst is assumed.
func (t *Table) lookAtRows(ctx context.Context, c *pgx.Conn, info *tableInfo) {
	info.rows, info.duplicates = true, true
	if c.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+t.Quoted()+")").Scan(&info.rows) != nil {
		return
	}
	if info.duplicates = info.rows; !info.rows || info.columns["sid"].name == "" {
		return
	}
	if info.uniqueSid {
		_ = c.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+t.Quoted()+" WHERE sid IS NULL)").Scan(&info.duplicates)
		return
	}
	_ = c.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+t.Quoted()+qualify(" GROUP BY sid::text HAVING pg_catalog.count(*) > 1 OR sid::text IS NULL)")).Scan(&info.duplicates)
}
