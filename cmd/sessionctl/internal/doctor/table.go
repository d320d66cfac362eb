package doctor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
)

// parts are the table $1, or its partitions.
const parts = `WITH parts AS (SELECT c.oid, c.relname, c.relkind, c.reloptions FROM pg_catalog.pg_class c
	WHERE (c.oid = $1::text::regclass OR c.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree($1::text::regclass))) AND c.relkind = 'r') `

func (e *exam) exists(ctx context.Context) (there bool, err error) {
	err = e.scan(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1::text AND c.relname = $2::text)`, []any{e.Schema, e.Table}, &there)
	if err == nil && !there {
		e.find("table", Error, fmt.Sprintf("there is no table %s in database %s", e.report.Table, e.Program.ConnConfig.Database)).
			advise("start the program, or run: sessionctl schema --apply; is it another database, or another --schema or --table?")
	}
	return there, err
}

// startChecks are what the library itself looks at when it starts, with what it
// is when it has found nothing to say.
var startChecks = []struct{ check, message, ok string }{
	{"expire-index", "session: no index on expire", "expire has an index"},
	{"logged", "session: the table is UNLOGGED", "the table survives a crash of the server"},
	{"daylight-saving", "session: the connection's TimeZone observes daylight saving", "no clock is turned back where expire is kept"},
}

// toRun is where the library's errors come to the SQL that mends the fault.
var toRun = regexp.MustCompile(`\. (As its owner, run|Name another with PostgresOptions, or run|Run): `)

// start does what the program does when it starts, on the program's own kind of
// connections, and takes over what the library says.
func (e *exam) start(ctx context.Context) error {
	cfg := e.Program.Copy()
	cfg.MinConns, cfg.MaxConns = 0, 2
	if e.badNames { // found already, and would hide the rest
		cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer pool.Close()
	said := &listener{}
	_, err = session.NewPostgresStore(ctx, pool, session.PostgresOptions{Schema: e.Schema, Table: e.Table, HashIDs: e.HashIDs, Logger: slog.New(said)})
	if err != nil {
		for _, fault := range split(err) {
			text := strings.TrimPrefix(fault.Error(), "session: ")
			f := e.find("table", Error, text)
			if m := toRun.FindStringSubmatchIndex(text); m != nil {
				f.What = text[:m[0]]
				f.advise("as the table's owner, run", text[m[1]:])
			}
		}
		return nil
	}
	e.ok("table", fmt.Sprintf("%s has the right columns, and user %s may read and write it", e.report.Table, e.Program.ConnConfig.User))
	for _, c := range startChecks {
		i := slices.IndexFunc(said.warnings, func(w warning) bool { return strings.HasPrefix(w.message, c.message) })
		if i < 0 {
			e.ok(c.check, c.ok)
			continue
		}
		f := e.find(c.check, Warning, strings.TrimPrefix(said.warnings[i].message, "session: "))
		if run := said.warnings[i].run; run != "" {
			f.advise("as the table's owner, run", run+";")
		} else {
			f.advise("while nobody is logged in, run", e.sqlSet("timezone", "UTC")[0])
		}
	}
	return e.scan(ctx, "SELECT format_type(atttypid, NULL) FROM pg_catalog.pg_attribute WHERE attrelid = $1::text::regclass AND attname = 'expire'", []any{e.table}, &e.expire)
}

// split takes apart what errors.Join has joined.
func split(err error) []error {
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) && strings.Contains(err.Error(), "\n") {
		return many.Unwrap()
	}
	return []error{err}
}

// listener keeps the warnings that the library logs.
type listener struct{ warnings []warning }

type warning struct{ message, run string }

func (*listener) Enabled(context.Context, slog.Level) bool { return true }
func (l *listener) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l *listener) WithGroup(string) slog.Handler          { return l }

func (l *listener) Handle(_ context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		return nil
	}
	w := warning{message: r.Message}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "run" {
			w.run = a.Value.String()
		}
		return true
	})
	l.warnings = append(l.warnings, w)
	return nil
}

// indexes checks that every index is complete, and those of IndexKeys there.
func (e *exam) indexes(ctx context.Context) error {
	rows, err := e.Pool.Query(ctx, parts+`SELECT n.nspname::text, c.relname::text, i.indisvalid AND i.indisready
		FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE i.indrelid = $1::text::regclass OR i.indrelid IN (SELECT oid FROM parts) ORDER BY 2`, e.table)
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
	for _, key := range e.IndexKeys {
		var there bool
		if err := e.scan(ctx, "SELECT to_regclass($1::text) IS NOT NULL", []any{e.indexOf(key)}, &there); err != nil {
			return err
		}
		if !there {
			e.find("indexes", Warning, fmt.Sprintf("the key %q has no index: finding sessions by it reads the whole table", key)).
				advise(fmt.Sprintf("run: sessionctl schema --apply --index-key %s", key))
		}
	}
	e.ok("indexes", fmt.Sprintf("%d valid", good))
	return nil
}

// indexOf returns the quoted name of a key's index, as the library calls it.
func (e *exam) indexOf(key string) string {
	sql := session.SchemaSQL(session.PostgresOptions{Schema: e.Schema, Table: e.Table, IndexKeys: []string{key}})
	_, sql, _ = strings.Cut(sql, "CREATE INDEX CONCURRENTLY IF NOT EXISTS ")
	name, _, _ := strings.Cut(sql, " ON "+e.table+" ((")
	return pgx.Identifier{e.Schema}.Sanitize() + "." + name
}

// storage looks at how the rows are kept.
func (e *exam) storage(ctx context.Context) error {
	rows, err := e.Pool.Query(ctx, parts+`SELECT p.oid::regclass::text,
			COALESCE((SELECT option_value::int FROM pg_options_to_table(p.reloptions) WHERE option_name = 'fillfactor'), 100),
			COALESCE((SELECT to_json(a)->>'attcompression' FROM pg_catalog.pg_attribute a WHERE a.attrelid = p.oid AND a.attname = 'sess'), ''),
			COALESCE((SELECT 'lz4' = ANY (enumvals) AND setting <> 'lz4' FROM pg_catalog.pg_settings WHERE name = 'default_toast_compression'), false)
		FROM parts p ORDER BY 1`, e.table)
	if err != nil {
		return err
	}
	var fill, compress []string
	var table, compression string
	var factor int
	var hasLZ4 bool
	_, err = pgx.ForEachRow(rows, []any{&table, &factor, &compression, &hasLZ4}, func() error {
		if factor > 95 {
			fill = append(fill, fmt.Sprintf("ALTER TABLE %s SET (fillfactor = 90);", table))
		}
		if hasLZ4 && compression != "l" {
			compress = append(compress, fmt.Sprintf("ALTER TABLE %s ALTER COLUMN sess SET COMPRESSION lz4;", table))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(fill) > 0 {
		e.find("fillfactor", Hint, "pages are filled to the brim: an update finds no room on its page, and must then write to every index").
			advise("as the table's owner, run (it is for new pages; VACUUM FULL, which locks the table, rewrites the old ones)", fill...)
	} else {
		e.ok("fillfactor", "pages leave room for updates")
	}
	if len(compress) > 0 {
		e.find("compression", Hint, "data over 2 KB is compressed by pglz at each save, and lz4 is several times as fast").
			advise("as the table's owner, run", compress...)
	} else {
		e.ok("compression", "the fastest that this server has")
	}
	return nil
}

// rowSecurity looks for policies that hide rows from the program.
func (e *exam) rowSecurity(ctx context.Context) error {
	var active bool
	if err := e.scan(ctx, "SELECT row_security_active($1::text)", []any{e.table}, &active); err != nil {
		return err
	}
	if !active {
		e.ok("row-security", "no policy hides rows")
		return nil
	}
	e.find("row-security", Warning, "row-level security hides rows from this user: a session may be there and not be found").
		advise("as the table's owner, run", "ALTER TABLE "+e.table+" DISABLE ROW LEVEL SECURITY;")
	return nil
}
