package doctor

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Roles that are no strangers: superusers, who may do everything anyway, this one,
// and the owner of the thing.
const notStrange = `grantee OPERATOR(pg_catalog.<>) owner AND grantee OPERATOR(pg_catalog.<>) (SELECT oid FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) CURRENT_USER)
	AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid OPERATOR(pg_catalog.=) grantee AND r.rolsuper)`

// sqlCreators lists who may create in the schemas of the search path, and who may
// make a schema that it names and that is not there, such as "$user". A grantee 0
// is PUBLIC.
const sqlCreators = `WITH may AS (
		SELECT 'SCHEMA' AS kind, n.nspname AS name, n.nspowner AS owner, a.grantee, a.privilege_type
		FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(COALESCE(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) a
		WHERE n.nspname OPERATOR(pg_catalog.=) ANY (pg_catalog.current_schemas(false)) AND n.nspname OPERATOR(pg_catalog.<>) 'pg_catalog'
		UNION ALL SELECT 'DATABASE', d.datname, d.datdba, a.grantee, a.privilege_type
		FROM pg_catalog.pg_database d, pg_catalog.aclexplode(COALESCE(d.datacl, pg_catalog.acldefault('d', d.datdba))) a
		WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
			AND pg_catalog.strpos(pg_catalog.current_setting('search_path'), '$user') OPERATOR(pg_catalog.>) 0
			AND NOT EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) CURRENT_USER))
	SELECT DISTINCT kind, name::pg_catalog.text,
		COALESCE((SELECT rolname::pg_catalog.text FROM pg_catalog.pg_roles r WHERE r.oid OPERATOR(pg_catalog.=) grantee), '')
	FROM may WHERE privilege_type OPERATOR(pg_catalog.=) 'CREATE' AND ` + notStrange + ` ORDER BY 1, 2, 3`

// sqlShadows lists what strangers have made in the search path by the name of
// something that PostgreSQL has: functions, operators, types.
const sqlShadows = `WITH path AS (SELECT oid, nspname, nspowner FROM pg_catalog.pg_namespace
		WHERE nspname OPERATOR(pg_catalog.=) ANY (pg_catalog.current_schemas(false)) AND nspname OPERATOR(pg_catalog.<>) 'pg_catalog'),
	own AS (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) 'pg_catalog'),
	made AS (
		SELECT 'FUNCTION' AS kind, 'pg_catalog.pg_proc'::pg_catalog.regclass AS class, p.oid, n.nspname, n.nspowner AS owner, p.proowner AS grantee, p.proname AS name,
			pg_catalog.format('(%s)', pg_catalog.pg_get_function_identity_arguments(p.oid)) AS arguments
		FROM pg_catalog.pg_proc p JOIN path n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
		WHERE EXISTS (SELECT FROM pg_catalog.pg_proc o JOIN own ON own.oid OPERATOR(pg_catalog.=) o.pronamespace WHERE o.proname OPERATOR(pg_catalog.=) p.proname)
		UNION ALL SELECT 'OPERATOR', 'pg_catalog.pg_operator'::pg_catalog.regclass, p.oid, n.nspname, n.nspowner, p.oprowner, p.oprname,
			pg_catalog.format('(%s, %s)', CASE WHEN p.oprleft OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'NONE' ELSE pg_catalog.format_type(p.oprleft, NULL) END,
				CASE WHEN p.oprright OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'NONE' ELSE pg_catalog.format_type(p.oprright, NULL) END)
		FROM pg_catalog.pg_operator p JOIN path n ON n.oid OPERATOR(pg_catalog.=) p.oprnamespace
		WHERE EXISTS (SELECT FROM pg_catalog.pg_operator o JOIN own ON own.oid OPERATOR(pg_catalog.=) o.oprnamespace WHERE o.oprname OPERATOR(pg_catalog.=) p.oprname)
		UNION ALL SELECT 'TYPE', 'pg_catalog.pg_type'::pg_catalog.regclass, p.oid, n.nspname, n.nspowner, p.typowner, p.typname, ''
		FROM pg_catalog.pg_type p JOIN path n ON n.oid OPERATOR(pg_catalog.=) p.typnamespace
		WHERE EXISTS (SELECT FROM pg_catalog.pg_type o JOIN own ON own.oid OPERATOR(pg_catalog.=) o.typnamespace WHERE o.typname OPERATOR(pg_catalog.=) p.typname))
	SELECT kind, nspname::pg_catalog.text, name::pg_catalog.text, arguments FROM made
	WHERE ` + notStrange + ` AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid OPERATOR(pg_catalog.=) class::pg_catalog.oid
		AND d.objid OPERATOR(pg_catalog.=) made.oid AND d.deptype OPERATOR(pg_catalog.=) ANY (ARRAY['e', 'i']::pg_catalog."char"[])) -- an extension's, or an array's
	ORDER BY 1, 2, 3, 4 LIMIT 20`

// searchPath looks for schemas where somebody may make, or has made, an operator
// or a function that statements find before PostgreSQL's own, and is handed what
// they handle. This library's name theirs in full; Express's, and what people
// type, do not.
func (e *exam) searchPath(ctx context.Context) error {
	before := len(e.report.Findings)
	rows, err := e.Pool.Query(ctx, sqlCreators)
	if err != nil {
		return err
	}
	var kind, name, role string
	_, err = pgx.ForEachRow(rows, []any{&kind, &name, &role}, func() error {
		who, from := "everybody", "PUBLIC"
		if role != "" {
			who, from = "user "+role, pgx.Identifier{role}.Sanitize()
		}
		what := fmt.Sprintf("%s may create in the schema %s, which is on the search path", who, name)
		if kind == "DATABASE" {
			what = fmt.Sprintf("%s may make a schema in the database %s, by the name of user %s too, and that is on the search path", who, name, e.Program.ConnConfig.User)
		}
		e.find("search-path", Warning, what+": an operator or a function made there is taken for PostgreSQL's own by statements that do not name that in full (this library's do, Express's do not)").
			advise("as the owner, or a superuser, run", fmt.Sprintf("REVOKE CREATE ON %s %s FROM %s;", kind, pgx.Identifier{name}.Sanitize(), from))
		return nil
	})
	if err != nil {
		return err
	}
	if err := e.shadows(ctx); err != nil {
		return err
	}
	if len(e.report.Findings) == before {
		e.ok("search-path", "nobody but its owners may create in a schema of the search path")
	}
	return nil
}

func (e *exam) shadows(ctx context.Context) error {
	rows, err := e.Pool.Query(ctx, sqlShadows)
	if err != nil {
		return err
	}
	var names, drop []string
	var kind, schema, name, arguments string
	_, err = pgx.ForEachRow(rows, []any{&kind, &schema, &name, &arguments}, func() error {
		names = append(names, strings.ToLower(kind)+" "+name+arguments)
		quoted := pgx.Identifier{schema}.Sanitize() + "."
		if kind == "OPERATOR" {
			quoted += name
		} else {
			quoted += pgx.Identifier{name}.Sanitize()
		}
		drop = append(drop, "DROP "+kind+" "+quoted+arguments+";")
		return nil
	})
	if err == nil && len(names) > 0 {
		e.find("search-path", Warning, "somebody has made, on the search path, what has the name of something of PostgreSQL's and may be taken for it: "+strings.Join(names, "; ")).
			advise("look what it does and who needs it; else drop it", drop...)
	}
	return err
}
