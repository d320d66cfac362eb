package pgtable

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// guard is something that stands between a statement and the rows: a policy, a
// trigger, a rule, a constraint, a publication. What a, b and c hold depends on
// its kind.
type guard struct{ kind, name, a, b, c string }

// sqlGuards lists them, of the table and of what is below it. %[1]s is the
// condition that a publication has the table by its schema, which there is from
// 15 on, and so is %[2]s: row filters and lists of columns.
const sqlGuards = `SELECT g.* FROM (WITH RECURSIVE tree AS (
		SELECT $1::int8::oid AS oid, 0 AS depth
		UNION ALL SELECT i.inhrelid, depth + 1 FROM pg_catalog.pg_inherits i, tree WHERE i.inhparent = tree.oid),
	rels AS (SELECT c.*, depth, pg_catalog.format('%%I.%%I', n.nspname, c.relname) AS called
		FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace),
	sent AS (SELECT r.oid, r.called, r.relreplident, p.oid AS pub, p.pubname,
			(SELECT i.indkey::int2[] FROM pg_catalog.pg_index i WHERE i.indrelid = r.oid
				AND CASE WHEN r.relreplident = 'd' THEN i.indisprimary WHEN r.relreplident = 'i' THEN i.indisreplident ELSE false END LIMIT 1) AS identity
		FROM rels r, pg_catalog.pg_publication p
		WHERE r.relkind = 'r' AND r.relpersistence = 'p' AND (p.pubupdate OR p.pubdelete) AND (p.puballtables
			OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel m WHERE m.prpubid = p.oid
				AND (m.prrelid = r.oid OR EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(r.oid::regclass) up(oid) WHERE up.oid::oid = m.prrelid)))
			OR %[1]s))
	SELECT 'policy', p.polname::text,
			CASE WHEN 0::oid = ANY (p.polroles) OR EXISTS (SELECT FROM pg_catalog.unnest(p.polroles) member WHERE member <> 0::oid AND pg_catalog.pg_has_role(member, 'USAGE'))
				THEN p.polcmd::text || CASE WHEN p.polpermissive THEN '+' ELSE '-' END ELSE '' END,
			COALESCE(pg_catalog.pg_get_expr(p.polqual, p.polrelid), ''), COALESCE(pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid), '')
		FROM pg_catalog.pg_policy p WHERE p.polrelid = $1::int8::oid
	UNION ALL SELECT 'trigger', g.tgname::text, r.called, g.tgtype::text, CASE WHEN f.prosrc ~* 'raise\s+exception' THEN 'raises' ELSE '' END
		FROM pg_catalog.pg_trigger g JOIN rels r ON r.oid = g.tgrelid JOIN pg_catalog.pg_proc f ON f.oid = g.tgfoid
		WHERE NOT g.tgisinternal AND g.tgparentid = 0::oid
			AND g.tgenabled::text = ANY (ARRAY['A', CASE WHEN pg_catalog.current_setting('session_replication_role') = 'replica' THEN 'R' ELSE 'O' END])
	UNION ALL SELECT 'rule', w.rulename::text, '', '', '' FROM pg_catalog.pg_rewrite w
		WHERE w.ev_class = $1::int8::oid AND w.ev_type <> '1'
			AND w.ev_enabled::text = ANY (ARRAY['A', CASE WHEN pg_catalog.current_setting('session_replication_role') = 'replica' THEN 'R' ELSE 'O' END])
	UNION ALL SELECT 'foreign key', s.conname::text, pg_catalog.format('%%I.%%I', n.nspname, o.relname), '', '' FROM pg_catalog.pg_constraint s
		JOIN pg_catalog.pg_class o ON o.oid = s.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace
		WHERE s.confrelid = $1::int8::oid AND s.contype = 'f' AND s.conparentid = 0::oid
			AND NOT (s.confdeltype::text = ANY (ARRAY['c', 'n', 'd']) AND s.confupdtype::text = ANY (ARRAY['c', 'n', 'd']))
	UNION ALL SELECT 'check', s.conname::text, r.called, pg_catalog.pg_get_constraintdef(s.oid), '' FROM pg_catalog.pg_constraint s JOIN rels r ON r.oid = s.conrelid
		WHERE s.contype = 'c' AND s.coninhcount = 0 AND EXISTS (SELECT FROM pg_catalog.pg_attribute a
			WHERE a.attrelid = s.conrelid AND a.attnum = ANY (s.conkey) AND a.attname::text = ANY (ARRAY['sid', 'sess', 'expire']))
	UNION ALL SELECT 'identity', called, relreplident::text,
			CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = s.oid AND i.indisprimary) THEN 'primary' ELSE '' END,
			pg_catalog.string_agg(pubname::text, ', ') FROM sent s WHERE relreplident <> 'f' AND identity IS NULL GROUP BY s.oid, called, relreplident
	%[2]s
	UNION ALL SELECT 'child', '', called, relkind::text, '' FROM rels WHERE depth > 0 AND (NOT relispartition OR relkind = 'f')
	UNION ALL SELECT 'unlogged', '', called, '', '' FROM rels WHERE depth > 0 AND relpersistence = 'u'
	UNION ALL SELECT 'subscription', called, '', '', '' FROM rels JOIN pg_catalog.pg_subscription_rel s ON s.srrelid = rels.oid
	UNION ALL SELECT 'empty', '', '', '', '' FROM rels WHERE relkind = 'p' AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = rels.oid)) g`

const (
	sqlSchemaPublication = `EXISTS (SELECT FROM pg_catalog.pg_publication_namespace m WHERE m.pnpubid = p.oid AND (m.pnnspid = r.relnamespace
		OR EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(r.oid::regclass) up(oid) JOIN pg_catalog.pg_class a ON a.oid = up.oid::oid WHERE a.relnamespace = m.pnnspid)))`

	// PostgreSQL refuses updates where the filter needs a column that the
	// identity lacks, or the list lacks one that it has.
	sqlFilteredPublication = `UNION ALL SELECT 'filter', s.called, s.pubname::text, '', '' FROM sent s JOIN pg_catalog.pg_publication_rel m ON m.prpubid = s.pub
			AND (m.prrelid = s.oid OR EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(s.oid::regclass) up(oid) WHERE up.oid::oid = m.prrelid))
		WHERE m.prattrs IS NOT NULL AND (s.relreplident = 'f' OR NOT (m.prattrs::int2[] @> s.identity))
			OR m.prqual IS NOT NULL AND s.relreplident <> 'f' AND EXISTS (SELECT FROM pg_catalog.pg_depend d
				WHERE d.classid = 'pg_catalog.pg_publication_rel'::regclass::oid AND d.objid = m.oid AND d.refobjsubid > 0
					AND NOT d.refobjsubid = ANY (s.identity) AND (m.prattrs IS NULL OR NOT d.refobjsubid = ANY (m.prattrs::int2[])))`
)

// askGuards lists what stands between statements and rows.
func (t *Table) askGuards(ctx context.Context, c *pgx.Conn, info *tableInfo) error {
	inSchema, filters := "false", ""
	if info.versionNum >= 150000 {
		inSchema, filters = sqlSchemaPublication, sqlFilteredPublication
	}
	sql := strings.NewReplacer("%[1]s", inSchema, "%[2]s", filters, "%%", "%").Replace(sqlGuards)
	rows, err := c.Query(ctx, qualify(sql), info.oid)
	if err != nil {
		return err
	}
	info.guards, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (g guard, err error) {
		return g, row.Scan(&g.kind, &g.name, &g.a, &g.b, &g.c)
	})
	return err
}

// ofKind returns the guards of a kind.
func (info *tableInfo) ofKind(kind string) []guard {
	return slices.DeleteFunc(slices.Clone(info.guards), func(g guard) bool { return g.kind != kind })
}

// checkGuards finds what keeps statements from working, or lets them do nothing
// and call it done.
func (t *Table) checkGuards(info *tableInfo, fault func(format string, args ...any)) {
	for _, g := range info.ofKind("rule") {
		fault("%s has a rule, %q, that rewrites the statements on it: a logout could delete nothing. As its owner, run: DROP RULE %s ON %s;",
			t.Quoted(), g.name, pgx.Identifier{g.name}.Sanitize(), t.Quoted())
	}
	if info.kind == "p" && len(info.ofKind("empty")) > 0 {
		fault("%s has no partition for all rows. Make them, or name another table with PostgresOptions", t.Quoted())
	}
	for _, g := range info.ofKind("child") {
		if g.b == "f" {
			fault("%s has a part on another server, %s, where no sid is unique. Name another table with PostgresOptions", t.Quoted(), g.a)
		}
	}
	t.checkPublications(info, fault)
	t.checkRowSecurity(info, fault)
}

// checkPublications finds tables that PostgreSQL lets nobody update or delete
// from, because a subscriber could not tell which row is meant.
func (t *Table) checkPublications(info *tableInfo, fault func(format string, args ...any)) {
	for _, g := range info.ofKind("identity") {
		mend := "REPLICA IDENTITY DEFAULT"
		switch {
		case g.b == "" && info.primary: // a part has none of its own
			mend = "REPLICA IDENTITY FULL"
		case g.b == "" && g.a == "d":
			mend = "ADD PRIMARY KEY (sid)"
		case g.b == "":
			mend = "ADD PRIMARY KEY (sid), REPLICA IDENTITY DEFAULT"
		}
		table := g.name
		if strings.HasPrefix(mend, "ADD") {
			table = t.Quoted()
			if info.duplicates {
				mend, table = "REPLICA IDENTITY FULL", g.name
			}
		}
		fault("%s is in a publication, %s, and has no replica identity: PostgreSQL refuses every save, touch and logout (55000). As its owner, run: ALTER TABLE %s %s;",
			g.name, g.c, table, mend)
	}
	for _, g := range info.ofKind("filter") {
		fault("%s is in a publication, %s, whose row filter or list of columns does not go with the table's replica identity: PostgreSQL refuses saves, touches or logouts (42P10). Take the filter away, or list every column of the replica identity", g.name, g.a)
	}
}

// What row-level security is asked for, by the commands of pg_policy.
var policyCommands = []struct{ cmd, name string }{{"r", "SELECT"}, {"a", "INSERT"}, {"w", "UPDATE"}, {"d", "DELETE"}}

// policies says which commands no policy lets this user do, so that they find no
// row, and which policies may hide some: restrictive ones do so whatever others
// allow.
func (info *tableInfo) policies() (denied, hiding []string, restrictive bool) {
	hides := map[string]bool{}
	for _, c := range policyCommands {
		allowed, open := false, false
		var partly []string
		for _, g := range info.ofKind("policy") {
			if g.a == "" || g.a[:1] != c.cmd && g.a[:1] != "*" {
				continue
			}
			using, check := g.b, g.c
			if check == "" {
				check = using
			}
			if using == "" && c.cmd != "a" || check == "" { // without a condition it is as if it were not there
				continue
			}
			all := (using == "true" || c.cmd == "a") && (check == "true" || c.cmd == "r" || c.cmd == "d")
			if g.a[1:] == "+" {
				allowed, open = true, open || all
			}
			if !all {
				if g.a[1:] == "-" {
					hides[g.name], restrictive = true, true
				} else {
					partly = append(partly, g.name)
				}
			}
		}
		if !allowed {
			denied = append(denied, c.name)
		}
		if allowed && !open {
			for _, name := range partly {
				hides[name] = true
			}
		}
	}
	for name := range hides {
		hiding = append(hiding, name)
	}
	slices.Sort(hiding)
	return denied, hiding, restrictive
}

// checkRowSecurity refuses a table whose rows this user cannot see: every session
// would be gone, as if everybody had logged out.
func (t *Table) checkRowSecurity(info *tableInfo, fault func(format string, args ...any)) {
	if !info.rowSecured {
		return
	}
	if !info.rowSecurity {
		fault("row-level security counts for user %q on %s, and row_security is off, which makes every statement an error. Run: ALTER ROLE %s IN DATABASE %s SET row_security = on;",
			info.user, t.Quoted(), pgx.Identifier{info.user}.Sanitize(), pgx.Identifier{info.database}.Sanitize())
	}
	if denied, _, _ := info.policies(); len(denied) > 0 {
		fault("%s has row-level security and no policy that lets user %q %s its rows: every session would look logged out. As its owner, run: %s",
			t.Quoted(), info.user, strings.Join(denied, ", "), t.policy(info))
	}
}

// policy makes one for this user.
func (t *Table) policy(info *tableInfo) string {
	name := "session_store"
	for n := 2; slices.ContainsFunc(info.ofKind("policy"), func(g guard) bool { return g.name == name }); n++ {
		name = fmt.Sprintf("session_store_%d", n)
	}
	return fmt.Sprintf("CREATE POLICY %s ON %s TO %s USING (true) WITH CHECK (true);", name, t.Quoted(), pgx.Identifier{info.user}.Sanitize())
}

// The bits of pg_trigger.tgtype.
const (
	triggerRow, triggerBefore                   = 1, 2
	triggerInsert, triggerDelete, triggerUpdate = 4, 8, 16
)

// warnGuards logs what may swallow or refuse a statement; nobody but its author
// knows whether it does.
func (t *Table) warnGuards(info *tableInfo) {
	log, table := t.Logger, slog.String("table", t.Schema+"."+t.Name)
	if info.rowSecured {
		if _, hiding, restrictive := info.policies(); len(hiding) > 0 {
			run := t.policy(info)
			if restrictive {
				run = "" // another policy would not help
			}
			log.Warn("session: row-level security may hide sessions from this user: one that is hidden looks logged out, and a logout does not delete it. These policies have conditions",
				table, slog.Any("policies", hiding), slog.String("run", run))
		}
	}
	for _, g := range info.ofKind("trigger") {
		t.warnTrigger(g, table)
	}
	for _, g := range info.ofKind("foreign key") {
		log.Warn("session: another table refers to this one: a logout, a renewal or pruning fails where it has a row for the session. Use ON DELETE CASCADE and ON UPDATE CASCADE, or better no reference",
			table, slog.String("constraint", g.name), slog.String("of", g.a))
	}
	for _, g := range info.ofKind("check") {
		log.Warn("session: a check constraint is on what this library writes: what it refuses cannot be saved. A renewal leaves a JSON string in sess that is no object, for 15 minutes",
			slog.String("table", g.a), slog.String("constraint", g.name), slog.String("check", g.b))
	}
	for _, g := range info.ofKind("child") {
		log.Warn("session: a table inherits from this one: its rows are found as sessions, and no ID is unique across both", table,
			slog.String("child", g.a), slog.String("run", "ALTER TABLE "+g.a+" NO INHERIT "+t.Quoted()))
	}
	for _, g := range info.ofKind("unlogged") {
		log.Warn("session: a partition is UNLOGGED: a crash of the database logs everybody in it out", slog.String("table", g.a), slog.String("run", "ALTER TABLE "+g.a+" SET LOGGED"))
	}
	if len(info.ofKind("subscription")) > 0 {
		log.Warn("session: a subscription writes to this table too: a logout here does not end the session there, and may be undone from there", table)
	}
}

// warnTrigger logs that a trigger may swallow a statement, or refuse it.
func (t *Table) warnTrigger(g guard, table slog.Attr) {
	var bits int
	_, _ = fmt.Sscan(g.b, &bits)
	var events []string
	for _, e := range []struct {
		bit  int
		name string
	}{{triggerInsert, "INSERT"}, {triggerUpdate, "UPDATE"}, {triggerDelete, "DELETE"}} {
		if bits&e.bit != 0 {
			events = append(events, e.name)
		}
	}
	if len(events) == 0 { // TRUNCATE
		return
	}
	on := slog.String("events", strings.Join(events, ", "))
	switch {
	case bits&triggerRow != 0 && bits&triggerBefore != 0:
		t.Logger.Warn("session: a trigger runs before a row is written: where it returns NULL nothing is written, so a login is not stored, a save is lost, or a logout ends nothing and is an error. A BEFORE DELETE trigger must return OLD",
			table, slog.String("trigger", g.name), slog.String("of", g.a), on)
	case g.c == "raises":
		t.Logger.Warn("session: a trigger may refuse a statement, which is then an error", table, slog.String("trigger", g.name), slog.String("of", g.a), on)
	}
}
