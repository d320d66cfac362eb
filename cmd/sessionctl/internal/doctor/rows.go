package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/mark"
	"github.com/pgsession/session/internal/secret"
	"github.com/pgsession/session/internal/tablestats"
)

const (
	// overdue is how long the table may hold expired rows: several times the
	// library's default PruneInterval.
	overdue            = "1 hour"
	overdueRowsWarning = 100

	deadRowsWarning = 10_000 // and half of the table
	manyRows        = 100_000

	fewUpdates   = 1000
	fewHeapOnly  = 0.1
	someBytes    = 8 << 20 // less is no bloat worth a word
	bytesPerKey  = 400     // of an index, several times what it needs
	tableBloat   = 4       // times what the rows need
	outOfLine    = 2000    // bytes of data that PostgreSQL stores out of line
	loadedAlone  = 64 << 10
	sampledRows  = 100_000
	openTimeout  = 30 * time.Second
	sealedMember = `"__sealed"`
)

// sample is what the first rows of the table say of the others.
type sample struct {
	rows, unreadable, cookieless, sealed, large int64
	bytes                                       float64 // of the data of one row
}

func (e *exam) statistics(ctx context.Context) (err error) {
	if e.stats, err = tablestats.Read(ctx, e.Pool, e.Schema, e.Table); err != nil {
		return err
	}
	// A record may be a JSON string that holds an object. The mark of a renewed
	// ID is none, and is as it should be.
	sql := strings.NewReplacer("%t", e.table, "%n", fmt.Sprint(sampledRows), "%s", sealedMember, "%l", fmt.Sprint(loadedAlone)).Replace(
		`SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE sess OPERATOR(pg_catalog.!~) '^[ \t\r\n]*("[ \t\r\n]*)?\{'),
			pg_catalog.count(*) FILTER (WHERE pg_catalog.strpos(sess, 'cookie') OPERATOR(pg_catalog.=) 0),
			pg_catalog.count(*) FILTER (WHERE pg_catalog.strpos(sess, '%s') OPERATOR(pg_catalog.>) 0),
			pg_catalog.count(*) FILTER (WHERE bytes OPERATOR(pg_catalog.>) %l), COALESCE(pg_catalog.avg(bytes), 0)::double precision
		FROM (SELECT sess::pg_catalog.text AS sess, pg_catalog.pg_column_size(sess) AS bytes FROM %t WHERE NOT ` + mark.SQL + ` LIMIT %n) s`)
	s := &e.sample
	return e.scan(ctx, sql, nil, &s.rows, &s.unreadable, &s.cookieless, &s.sealed, &s.large, &s.bytes)
}

// expired looks for rows that should have been pruned long ago.
func (e *exam) expired(ctx context.Context) error {
	var late int64
	sql := fmt.Sprintf("SELECT pg_catalog.count(*) FROM (SELECT 1 FROM %s WHERE expire OPERATOR(pg_catalog.<) (pg_catalog.now() OPERATOR(pg_catalog.-) interval '%s') LIMIT 1000001) s", e.table, overdue)
	if err := e.scan(ctx, sql, nil, &late); err != nil {
		return err
	}
	if late == 0 {
		e.ok("expired", fmt.Sprintf("%d expired rows, none for over an hour", e.stats.Expired))
		return nil
	}
	level := Hint
	since := time.Since(e.stats.OldestExpiry).Round(time.Minute)
	if late >= overdueRowsWarning || since > 24*time.Hour {
		level = Warning
	}
	e.find("expired", level, fmt.Sprintf("%d rows expired over an hour ago, the oldest %v ago: nobody has pruned them", late, since)).
		advise("let one program prune (its log says prune=true at start), look there for \"session: pruning failed\", and run: " + e.where().Command("prune"))
	return nil
}

func (e *exam) autovacuum(ctx context.Context) error {
	rows, err := e.Pool.Query(ctx, parts+`SELECT p.name, pg_catalog.current_setting('autovacuum') OPERATOR(pg_catalog.=) 'on' AND pg_catalog.current_setting('track_counts') OPERATOR(pg_catalog.=) 'on',
			COALESCE((SELECT option_value::boolean FROM pg_catalog.pg_options_to_table(p.reloptions) WHERE option_name OPERATOR(pg_catalog.=) 'autovacuum_enabled'), true),
			COALESCE((SELECT option_value::double precision FROM pg_catalog.pg_options_to_table(p.reloptions) WHERE option_name OPERATOR(pg_catalog.=) 'autovacuum_vacuum_scale_factor'),
				pg_catalog.current_setting('autovacuum_vacuum_scale_factor')::double precision)
		FROM parts p ORDER BY 1`, e.table)
	if err != nil {
		return err
	}
	var table string
	var server, enabled bool
	var factor float64
	var disabled, lazy []string
	count := 0
	on := true
	_, err = pgx.ForEachRow(rows, []any{&table, &server, &enabled, &factor}, func() error {
		count++
		on = on && server
		if !enabled {
			disabled = append(disabled, fmt.Sprintf("ALTER TABLE %s RESET (autovacuum_enabled);", table))
		}
		if factor > 0.1 {
			lazy = append(lazy, fmt.Sprintf("ALTER TABLE %s SET (autovacuum_vacuum_scale_factor = 0.02);", table))
		}
		return nil
	})
	size := e.stats.Rows() / int64(max(count, 1))
	switch {
	case err != nil:
		return err
	case !on:
		e.find("autovacuum", Warning, "autovacuum is off: the table grows without end").advise("as a superuser, run", "ALTER SYSTEM SET autovacuum = on;", "ALTER SYSTEM SET track_counts = on;", "SELECT pg_reload_conf();")
	case len(disabled) > 0:
		e.find("autovacuum", Warning, "autovacuum is off for this table: it grows without end").advise("as the table's owner, run", disabled...)
	case len(lazy) > 0 && size >= manyRows:
		e.find("autovacuum", Hint, fmt.Sprintf("autovacuum waits for %.0f%% of %d rows to change; last run: %s", factor*100, size, since(e.stats.LastAutovacuum))).
			advise("let it come more often: as the table's owner, run", lazy...)
	default:
		e.ok("autovacuum", "on; last run: "+since(e.stats.LastAutovacuum))
	}
	return nil
}

func since(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return time.Since(t).Round(time.Second).String() + " ago"
}

// uncounted says of a check that there are no statistics to look at.
func (e *exam) uncounted(check string) {
	e.find(check, Warning, "not checked: track_counts is off, or a shard does not answer").
		advise("see the check autovacuum, which says how to switch it on; where a shard is down, run this again when it is back")
}

func (e *exam) deadRows(context.Context) error {
	if e.stats.Uncounted {
		e.uncounted("dead-rows")
		return nil
	}
	rows, dead := e.stats.Rows(), e.stats.DeadRows
	what := fmt.Sprintf("%d dead row versions beside %d rows", dead, rows)
	if dead <= deadRowsWarning || dead <= rows/2 {
		e.ok("dead-rows", what)
		return nil
	}
	last := e.stats.LastAutovacuum
	if e.stats.LastVacuum.After(last) {
		last = e.stats.LastVacuum
	}
	e.find("dead-rows", Warning, what+": vacuum does not keep up, or is held back; last run: "+since(last)).
		advise("run this, and see the checks autovacuum, held-back and replication", "VACUUM (VERBOSE, ANALYZE) "+e.table+";")
	return nil
}

// bloat compares what indexes and table take with what they need.
func (e *exam) bloat(ctx context.Context) error {
	count := e.stats.Rows()
	rows, err := e.Pool.Query(ctx, parts+`SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.pg_relation_size(c.oid)
		FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
		JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
		WHERE i.indrelid OPERATOR(pg_catalog.=) ANY (SELECT oid FROM parts) ORDER BY 1`, e.table)
	if err != nil {
		return err
	}
	var bloated, rebuild []string
	var index string
	var bytes int64
	_, err = pgx.ForEachRow(rows, []any{&index, &bytes}, func() error {
		if bytes > someBytes && bytes > count*bytesPerKey {
			bloated = append(bloated, fmt.Sprintf("%s (%d MB)", index, bytes>>20))
			rebuild = append(rebuild, "REINDEX INDEX CONCURRENTLY "+index+";")
		}
		return nil
	})
	if err != nil {
		return err
	}
	need := float64(count) * (e.sample.bytes + 100)
	heap := float64(e.stats.TableBytes + e.stats.ToastBytes)
	switch {
	case len(bloated) > 0:
		e.find("bloat", Hint, fmt.Sprintf("indexes are several times as large as %d rows need: %s", count, strings.Join(bloated, ", "))).
			advise("rebuild them, which blocks nobody", rebuild...)
	case heap > someBytes && heap > tableBloat*need:
		e.find("bloat", Hint, fmt.Sprintf("the table has %d MB, and its %d rows need about %d: the rest is used again, but not given back", int64(heap)>>20, count, int64(need)>>20)).
			advise("nothing, if it will fill again; else run this at a quiet time, for it locks the table (pg_repack does not)", "VACUUM (FULL, ANALYZE) "+e.table+";")
	default:
		e.ok("bloat", fmt.Sprintf("%d kB of rows and %d kB of indexes for %d rows", int64(heap)>>10, e.stats.IndexBytes>>10, count))
	}
	return nil
}

const (
	staleFactor = 10 // times as many rows as when they were counted
	fewRows     = 1000
)

// planner compares the table with what PostgreSQL plans for.
func (e *exam) planner(ctx context.Context) error {
	var planned float64
	var analysed bool
	err := e.scan(ctx, parts+`SELECT COALESCE(pg_catalog.sum(pg_catalog.float8larger(c.reltuples::double precision, 0)), 0)::double precision,
			COALESCE(pg_catalog.bool_or(s.last_analyze IS NOT NULL OR s.last_autoanalyze IS NOT NULL), false)
		FROM parts p JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) p.oid JOIN pg_catalog.pg_stat_all_tables s ON s.relid OPERATOR(pg_catalog.=) p.oid`,
		[]any{e.table}, &planned, &analysed)
	if err != nil {
		return err
	}
	rows := e.stats.Rows()
	if (analysed || planned > 0) && rows > fewRows && float64(rows) > staleFactor*max(planned, 1) {
		e.find("planner", Warning, fmt.Sprintf("PostgreSQL plans for %.0f rows, and there are %d: statements of other programs, and searches, may read the whole table for each row", planned, rows)).
			advise("run this, and see the check autovacuum, which should do it", "ANALYZE "+e.table+";")
		return nil
	}
	e.ok("planner", fmt.Sprintf("%d rows, planned for are %.0f", rows, planned))
	return nil
}

const (
	bestFactor = 70   // schema.sql's
	pageBytes  = 8168 // of a page, for rows
	rowBytes   = 100  // of a row beside its data
	versions   = 2    // of a row that a page should have room for: one replaces what somebody's transaction still sees
)

// fillfactor compares the room that the pages leave with what a row takes.
func (e *exam) fillfactor(ctx context.Context) error {
	rows, err := e.Pool.Query(ctx, parts+`SELECT p.name,
			COALESCE((SELECT option_value::int FROM pg_catalog.pg_options_to_table(p.reloptions) WHERE option_name OPERATOR(pg_catalog.=) 'fillfactor'), 100)
		FROM parts p ORDER BY 1`, e.table)
	if err != nil {
		return err
	}
	bytes := e.sample.bytes + rowBytes
	if e.sample.bytes > outOfLine {
		bytes = rowBytes
	}
	var table string
	var factor, highest int
	var sql []string
	_, err = pgx.ForEachRow(rows, []any{&table, &factor}, func() error {
		if factor > bestFactor && float64(100-factor)/100*pageBytes < versions*bytes {
			highest = max(highest, factor)
			sql = append(sql, fmt.Sprintf("ALTER TABLE %s SET (fillfactor = %d);", table, bestFactor))
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case len(sql) == 0:
		e.ok("fillfactor", "pages leave room for updates")
		return nil
	}
	e.find("fillfactor", Hint, fmt.Sprintf("pages are filled to %d%%, and a row has about %.0f bytes: an update that finds no room on its page must write to another page and to every index", highest, bytes)).
		advise("if sessions are often changed: as the table's owner, run (it is for new pages; VACUUM FULL, which locks the table, or pg_repack, which does not, rewrites the old ones)", sql...)
	return nil
}

func (e *exam) heapOnly(context.Context) error {
	if e.stats.Uncounted {
		e.uncounted("heap-only")
		return nil
	}
	share, ok := e.stats.HeapOnlyShare()
	what := fmt.Sprintf("%.0f%% of %d updates left the indexes alone", 100*share, e.stats.Updates)
	switch {
	case !ok:
		e.ok("heap-only", "no updates yet")
		return nil
	case e.stats.Updates < fewUpdates || share >= fewHeapOnly:
		e.ok("heap-only", what)
		return nil
	}
	e.find("heap-only", Hint, what+". A save can, unless a key has an index; moving an expiry never can").
		advise("if sessions are mostly read: nothing, or a longer Config.TouchInterval; if they are mostly changed: fillfactor 70, and no index on a key that nobody searches by")
	return nil
}

func (e *exam) rows(context.Context) error {
	s, of := &e.sample, ""
	if s.rows == sampledRows {
		of = fmt.Sprintf(" of the first %d", s.rows)
	}
	if s.unreadable > 0 {
		e.find("rows", Warning, fmt.Sprintf("%d rows%s are no JSON object: their sessions are treated as absent", s.unreadable, of)).
			advise("find what writes such rows, and delete them", fmt.Sprintf(`DELETE FROM %s WHERE sess::text !~ '^\s*("\s*)?\{' AND left(sess::text, 3) <> '"0e';`, e.table))
	}
	if s.cookieless > s.unreadable && !e.HashIDs {
		e.find("rows", Hint, fmt.Sprintf("%d rows%s have no cookie object: Express fails on them", s.cookieless-s.unreadable, of)).
			advise("nothing where Express is not used: the next save adds one")
	}
	switch {
	case s.large > 0:
		e.find("rows", Hint, fmt.Sprintf("%d rows%s have over 64 KiB: each is loaded by a statement of its own", s.large, of)).
			advise("keep IDs in a session, and what they stand for in tables")
	case s.bytes > outOfLine:
		e.find("rows", Hint, fmt.Sprintf("a row has %.0f bytes of data on average: over 2 KB each save writes all of it anew, out of line", s.bytes)).
			advise("keep IDs in a session, and what they stand for in tables")
	case s.unreadable == 0:
		e.ok("rows", fmt.Sprintf("all readable, %.0f bytes of data on average", s.bytes))
	}
	return nil
}

// encryption tries to open what is encrypted.
func (e *exam) encryption(ctx context.Context) error {
	switch {
	case e.sample.sealed == 0:
		e.ok("encryption", "no encrypted rows")
		return nil
	case e.HashIDs:
		e.ok("encryption", "there are encrypted rows, and with hashed IDs nobody but their browsers can open them")
		return nil
	case e.Secret == "":
		e.find("encryption", Hint, "there are encrypted rows, and SESSION_SECRET is not set here: not checked whether they open").
			advise("run this again with the program's SESSION_SECRET and SESSION_SECRET_OLD")
		return nil
	}
	rotate, current, old := "run: "+e.where().Command("rotate"), "the current one", "an old secret"
	if v, _ := secret.Judge(e.Secret); v == secret.Public { // rotate refuses it, and to Open it is an old one
		rotate = "give every program a new SESSION_SECRET, with this one in SESSION_SECRET_OLD, and " + rotate
		current, old = "one that can stay", "SESSION_SECRET, which the library refuses, or an old secret"
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	m, err := e.Open(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	n, err := m.Reseal(ctx, session.ResealOptions{DryRun: true})
	switch {
	case errors.Is(err, context.DeadlineExceeded) && n.Unopened == 0:
		e.find("encryption", Hint, fmt.Sprintf("%d of many live sessions were looked at, and all encrypted ones open", n.Records)).
			advise("to look at all, " + rotate + " --dry-run")
	case err != nil && n.Unopened == 0:
		return err
	case n.Unopened > 0:
		e.find("encryption", Error, fmt.Sprintf("%d live sessions are encrypted with a secret that is not set here: their users get a 503", n.Unopened)).
			advise("add the secret that was dropped to SESSION_SECRET_OLD, then " + rotate + "; if the programs hash IDs, use --hash-ids here")
	case n.Old > 0:
		e.find("encryption", Hint, fmt.Sprintf("%d live sessions are encrypted with %s, %d with %s", n.Old, old, n.Current, current)).
			advise("before SESSION_SECRET_OLD is dropped, " + rotate)
	default:
		e.ok("encryption", fmt.Sprintf("%d live sessions are encrypted with the current secret, %d are plain", n.Current, n.Plain))
	}
	return nil
}
