package session

import (
	"fmt"
	"strings"

	"github.com/pgsession/session/internal/mark"
	"github.com/pgsession/session/internal/pgtable"
)

// Statements. A record is live iff expire >= now(), everywhere. expire may be a
// timestamp without time zone, local time of the connection's TimeZone: so it is
// never bound nor scanned, only computed from now() and read as an epoch.
//
// %[1]s is the table, %[2]s its JSON type, %[3]s the type of expire. %[4]s is
// what a write is to do, a row for each of its members: from arrays where several
// requests share the statement, else from scalars; %[5]s is no more of it than
// their IDs and numbers ([source]).
//
// No name is looked up in the search path, where somebody else may have put an
// operator that fits better than PostgreSQL's own, and gets to see IDs and data.
// Parameters have exact types for the same reason, and so that a column that has
// been given another type is an error about types, not one that quotes a value.
//
// No write waits for a row: it locks what it can get (SKIP LOCKED), changes that,
// and says of each member what has become of it, a [fate]. Who finds its row
// locked asks again, holding no connection meanwhile. Triggers and those who
// insert the same ID may still be waited for, within lock_timeout (bound).
//
// Whatever the statistics say, each row is found by its ID's index: the estimates are
// one row for each member, and of those to be changed one row at all (the
// comparison of fate with 1), so that an index is the cheapest on a table of
// more than a few pages. On a smaller one see [plans]. IS TRUE keeps the index on
// expire out of it. Statistics from a night in which all had expired say that one
// row is live, and by that index a plan would read all who log in from then on.
const (
	sqlLive = `(s.expire OPERATOR(pg_catalog.>=) pg_catalog.now()) IS TRUE`
	// A time past a hundred years counts as one of a hundred years: timestamps reach
	// to where their conversion to a time zone fails, and with it the statement of
	// all that share it.
	sqlLeft = `extract(epoch FROM LEAST(s.expire, (pg_catalog.now() OPERATOR(pg_catalog.+) interval '100 years')::%[3]s)::pg_catalog.timestamptz)::pg_catalog.float8
		OPERATOR(pg_catalog.-) extract(epoch FROM pg_catalog.now())::pg_catalog.float8`
	sqlThis = `s.sid::pg_catalog.text OPERATOR(pg_catalog.=) v.sid`

	sqlLoad = `SELECT s.ctid, s.sess::pg_catalog.text, ` + sqlLeft + `
		FROM %[1]s s WHERE s.sid::pg_catalog.text OPERATOR(pg_catalog.=) $1::pg_catalog.text AND ` + sqlLive

	// LATERAL with a literal LIMIT asks the index for each member. Data over
	// 64 KiB comes back as null, and is then loaded alone.
	sqlLoadMany = `SELECT v.n, t.ctid, t.sess, t.ttl
		FROM %[5]s,
		LATERAL (SELECT s.ctid, CASE WHEN pg_catalog.pg_column_size(s.sess) OPERATOR(pg_catalog.<=) 65536 THEN s.sess::pg_catalog.text END AS sess,
				` + sqlLeft + ` AS ttl
			FROM %[1]s s WHERE ` + sqlThis + ` AND ` + sqlLive + ` LIMIT 1) t`

	// The same after a commit of its own that waits for the standbys: what is seen
	// has reached them.
	sqlLoadConfirmed = `WITH bound AS MATERIALIZED (SELECT ` + sqlConfirm + ` AS v)
		SELECT t.ctid, t.sess, t.ttl FROM bound LEFT JOIN
			(SELECT s.ctid, s.sess::pg_catalog.text AS sess, ` + sqlLeft + ` AS ttl
			FROM %[1]s s WHERE s.sid::pg_catalog.text OPERATOR(pg_catalog.=) $1::pg_catalog.text AND ` + sqlLive + ` LIMIT 1) t ON true`

	// What has become of each: how many seconds it has left, or less than none for what [PostgresStore.Peek] reads
	// from it. One row, however many they are.
	sqlPeek = `SELECT pg_catalog.array_agg(COALESCE(t.fate, '-3'::pg_catalog.float8) ORDER BY v.n)
		FROM %[5]s LEFT JOIN LATERAL (SELECT CASE WHEN ` + mark.SQL + ` THEN '-2'::pg_catalog.float8
				WHEN ` + sqlLive + ` THEN GREATEST(` + sqlLeft + `, '0'::pg_catalog.float8) ELSE '-1'::pg_catalog.float8 END AS fate
			FROM %[1]s s WHERE ` + sqlThis + ` LIMIT 1) t ON true`

	// A transaction that writes nothing waits for no standby, nor does one that
	// only has a number.
	sqlConfirm = `CASE WHEN pg_catalog.current_setting('synchronous_standby_names') OPERATOR(pg_catalog.<>) ''
		THEN pg_catalog.pg_logical_emit_message(true, 'session', '')::pg_catalog.text END`

	sqlBoundConfirmed = `WITH bound AS MATERIALIZED (SELECT pg_catalog.set_config('lock_timeout', $1::pg_catalog.text, true) AS v, ` + sqlConfirm + ` AS c)`
	sqlEvenIfNone     = ` LEFT JOIN bound ON true` // a CTE that nobody asks is not run

	sqlBound = `WITH bound AS MATERIALIZED (SELECT pg_catalog.set_config('lock_timeout', $1::pg_catalog.text, true) AS v)`

	// The row of a member, locked, or nothing. What locks it harder than an update
	// of its data may be waited for by foreign keys.
	sqlGet = `FROM bound, %[4]s, LATERAL (SELECT s.sid, `

	// Why a member got nothing: absent (null), or there when the statement began.
	// One that nobody has ever locked is hidden by row-level security.
	sqlWhy = `COALESCE((SELECT CASE WHEN s.xmax OPERATOR(pg_catalog.=) '0'::pg_catalog.xid THEN 5 ELSE 3 END
		FROM %[1]s s WHERE ` + sqlThis

	// What is left alone must not be compared: in the hour that comes twice an expiry
	// without a time zone may look earlier than now.
	sqlExpire = `expire = CASE WHEN l.ttl OPERATOR(pg_catalog.>) 0::pg_catalog.float8 THEN GREATEST(s.expire, ` + sqlIn + `)
		WHEN l.ttl OPERATOR(pg_catalog.<) 0::pg_catalog.float8 THEN ` + sqlIn + ` ELSE s.expire END`
	sqlIn = `(pg_catalog.now() OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => pg_catalog.abs(l.ttl)))::%[3]s`

	sqlSame = `CASE WHEN s.sess::pg_catalog.text OPERATOR(pg_catalog.=) v.old THEN 1 ELSE 2 END AS fate FROM %[1]s s
		WHERE ` + sqlThis + ` AND ` + sqlLive + ` LIMIT 1`

	// The end of a write: v's members, what l got, what u did.
	sqlFates  = `SELECT v.n, CASE WHEN u.n IS NOT NULL THEN 1 WHEN l.fate OPERATOR(pg_catalog.=) 1 THEN ` + sqlKept
	sqlKept   = `4`
	sqlOthers = ` WHEN l.n IS NOT NULL THEN l.fate ELSE `
	sqlOfAll  = ` FROM %[5]s LEFT JOIN l ON l.n OPERATOR(pg_catalog.=) v.n LEFT JOIN u ON u.n OPERATOR(pg_catalog.=) v.n`

	// An empty ID is a member that is to be passed over: its ID is in the statement
	// twice. One who waits for another's insert does not see it in the end: neither made
	// nor there, it asks again.
	sqlCreate = sqlBound + `, u AS (INSERT INTO %[1]s (sid, sess, expire)
			SELECT l.sid, l.new::%[2]s, ` + sqlIn + ` FROM bound, %[4]s WHERE l.sid OPERATOR(pg_catalog.<>) '' ON CONFLICT (sid) DO NOTHING RETURNING sid%[gone]s)%[created]s
		SELECT v.n, CASE WHEN u.sid IS NOT NULL THEN 1 ELSE COALESCE((SELECT 2 FROM %[1]s s WHERE ` + sqlThis + ` LIMIT 1), 4) END, NULL::pg_catalog.text
		FROM %[5]s LEFT JOIN u ON u.sid::pg_catalog.text OPERATOR(pg_catalog.=) v.sid`

	// l.ttl is 0 to leave the expiry alone, positive to move it forward, negative
	// to set it.
	sqlUpdate = sqlBound + `, l AS MATERIALIZED (SELECT v.n, v.old, v.new, v.ttl, t.sid, t.fate ` + sqlGet + sqlSame + ` FOR NO KEY UPDATE SKIP LOCKED) t),
		written AS (UPDATE %[1]s s SET sess = l.new::%[2]s, ` + sqlExpire + `
			FROM l WHERE l.fate OPERATOR(pg_catalog.=) 1 AND s.sid OPERATOR(pg_catalog.=) l.sid RETURNING l.n, ` + sqlChanged + ` AS there),
		u AS (SELECT written.n FROM written WHERE there)
		` + sqlFates + sqlOthers + sqlWhy + ` AND ` + sqlLive + ` LIMIT 1), 0) END, NULL::pg_catalog.text` + sqlOfAll

	// The same, of which nothing is asked but whether it was done: that of a usual
	// day, cheaper by a fifth.
	sqlUpdateDone = sqlBound + `, l AS MATERIALIZED (SELECT v.n, v.old, v.new, v.ttl, t.sid, t.fate ` + sqlGet + `1 AS fate FROM %[1]s s
			WHERE ` + sqlThis + ` AND ` + sqlLoaded + ` LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) t)
		UPDATE %[1]s s SET sess = l.new::%[2]s, ` + sqlExpire + `
			FROM l WHERE l.fate OPERATOR(pg_catalog.=) 1 AND s.sid OPERATOR(pg_catalog.=) l.sid RETURNING l.n, ` + sqlDone
	sqlLoaded = `s.sess::pg_catalog.text OPERATOR(pg_catalog.=) v.old AND ` + sqlLive
	sqlDone   = `CASE WHEN ` + sqlChanged + ` THEN 1 ELSE ` + sqlKept + ` END, NULL::pg_catalog.text`

	// And for one member ([scalars]), cheaper by a quarter.
	sqlUpdateOne = `UPDATE %[1]s s SET sess = l.new::%[2]s, ` + sqlExpire + sqlOf + sqlLoaded + sqlOne + sqlDone
	sqlOf        = ` WHERE s.sid OPERATOR(pg_catalog.=) (SELECT s.sid FROM %[1]s s
		WHERE (SELECT pg_catalog.set_config('lock_timeout', $1::pg_catalog.text, true)) IS NOT NULL AND ` + sqlThis + ` AND `
	sqlOne = ` LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) RETURNING 1::pg_catalog.int8, `

	// A trigger that returns OLD lets the statement count a row that is as it was.
	// One that stores something else has its reasons. Of a column that has got
	// another type since the start nobody knows how the new data looks in it.
	sqlChanged = `(s.sess::pg_catalog.text OPERATOR(pg_catalog.<>) l.old OR l.old OPERATOR(pg_catalog.=) (l.new::%[2]s)::pg_catalog.text
		OR pg_catalog.pg_typeof(s.sess)::pg_catalog.oid OPERATOR(pg_catalog.<>) '%[2]s'::pg_catalog.regtype::pg_catalog.oid)`

	// A statement of its own: one that may change a key locks the row harder.
	// In this order, the row moved and then the mark inserted: one who waits for
	// the row to delete it by a value follows it.
	sqlRenew = sqlBound + `, l AS MATERIALIZED (SELECT v.n, v.old, v.new, v.ttl, t.sid, t.fate ` + sqlGet + sqlSame + ` FOR UPDATE SKIP LOCKED) t),
		moved AS (UPDATE %[1]s s SET sid = $6::pg_catalog.text, sess = l.new::%[2]s, ` + sqlExpire + `
			FROM l WHERE l.fate OPERATOR(pg_catalog.=) 1 AND s.sid OPERATOR(pg_catalog.=) l.sid
			RETURNING l.n, s.sid::pg_catalog.text OPERATOR(pg_catalog.=) $6::pg_catalog.text AND ` + sqlChanged + ` AS there%[gone]s),
		marked AS (INSERT INTO %[1]s (sid, sess, expire) SELECT $2::pg_catalog.text, $7::pg_catalog.text::%[2]s,
			(pg_catalog.now() OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => $8::pg_catalog.float8))::%[3]s FROM moved WHERE there RETURNING 1),
		u AS (SELECT moved.n FROM moved, marked)%[renewed]s
		` + sqlFates + sqlUnmarked + sqlOthers + sqlWhy + ` AND ` + sqlLive + ` LIMIT 1), 0) END, NULL::pg_catalog.text` + sqlOfAll

	// A renewal whose mark is swallowed must not be: sqlKept becomes an error, which
	// rolls it back.
	sqlUnmarked = ` OPERATOR(pg_catalog.+) CASE WHEN (SELECT true FROM moved LIMIT 1) THEN pg_catalog.current_setting('session.the_mark_was_not_stored')::pg_catalog.int4 ELSE 0 END`

	sqlTouch = sqlTouching + `,
		u AS (` + sqlTouched + `RETURNING l.n)
		` + sqlFates + sqlOthers + sqlWhy + ` AND ` + sqlTouchable + ` LIMIT 1), 0) END, NULL::pg_catalog.text` + sqlOfAll
	sqlTouching = sqlBound + `, l AS MATERIALIZED (SELECT v.n, v.ttl, t.sid, t.fate ` + sqlGet + `1 AS fate FROM %[1]s s
			WHERE ` + sqlThis + ` AND ` + sqlTouchable + ` LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) t)`
	sqlTouched = sqlLater + `
			FROM l WHERE l.fate OPERATOR(pg_catalog.=) 1 AND s.sid OPERATOR(pg_catalog.=) l.sid `
	sqlTouchable = sqlLive + ` AND NOT ` + mark.SQL
	sqlLater     = `UPDATE %[1]s s SET expire = GREATEST(s.expire, ` + sqlIn + `)`

	sqlTouchDone = sqlTouching + sqlTouched + `RETURNING l.n, 1, NULL::pg_catalog.text`
	sqlTouchOne  = sqlLater + sqlOf + sqlTouchable + sqlOne + `1, NULL::pg_catalog.text`

	// A mark stays, or who deletes would lose the way when cut off in the middle;
	// its text says where to go on.
	sqlDelete = sqlBound + `, l AS MATERIALIZED (SELECT v.n%[why]s, t.sid, t.fate ` + sqlGet + `1 AS fate FROM %[1]s s
			WHERE ` + sqlThis + ` AND NOT ` + mark.SQL + ` LIMIT 1 FOR UPDATE SKIP LOCKED) t),
		u AS (DELETE FROM %[1]s s USING l WHERE l.fate OPERATOR(pg_catalog.=) 1 AND s.sid OPERATOR(pg_catalog.=) l.sid RETURNING l.n%[gone]s)%[destroyed]s
		` + sqlFates + sqlOthers + sqlWhy + ` AND NOT ` + mark.SQL + ` LIMIT 1), 0) END,
			CASE WHEN l.n IS NULL THEN (SELECT s.sess::pg_catalog.text FROM %[1]s s WHERE ` + sqlThis + ` AND ` + mark.SQL + ` LIMIT 1) END%[told]s` + sqlOfAll

	sqlAlone = `SELECT pg_catalog.current_setting('synchronous_standby_names') OPERATOR(pg_catalog.=) ''`
	sqlNow   = `SELECT extract(epoch FROM pg_catalog.now())::pg_catalog.float8`
)

// statements are those of a store, with its table.
type statements struct {
	load, loadMany, loadConfirmed, confirm, alone, now string

	peek form

	create, update, renew, touch, delete, deleteConfirmed statement

	deleteTold, deleteToldConfirmed statement // that say what they have deleted

	boxes  boxes
	shards distributed // of a table that Citus has distributed
}

// statement is a write.
type statement struct {
	done form // says of whom it was done; empty: there is only full
	full form // says of each member what has become of it
}

// forms are those that a statement has, in the order in which they are asked.
func (w statement) forms() []form {
	if w.done.one == "" {
		return []form{w.full}
	}
	return []form{w.done, w.full}
}

// form is a statement for one member, with scalars, and for many, with arrays.
type form struct {
	one, many string
	told      bool // it says what it has deleted
}

// of returns the text for n members.
func (f form) of(n int) string {
	if n == 1 {
		return f.one
	}
	return f.many
}

// complete writes the statements for a table.
func (s *statements) complete(t *pgtable.Table, b boxes) {
	s.boxes = b
	boxed := b.why != ""
	text := func(sql, work, ids string) string {
		sql = strings.Join(strings.Fields(sql), " ") // before the name goes in: it may have spaces
		return strings.NewReplacer("%[1]s", t.Quoted(), "%[2]s", "pg_catalog."+t.SessType, "%[3]s", t.ExpireType, "%[4]s", work, "%[5]s", ids,
			"%[created]s", b.created, "%[renewed]s", b.renewed, "%[destroyed]s", b.destroyed, "%[why]s", b.why,
		).Replace(sql)
	}
	write := func(sql, alias string, columns ...string) form {
		return form{
			one:  text(sql, source(false, 2, alias, columns...), source(false, 2, "v", "sid")),
			many: text(sql, source(true, 2, alias, columns...), source(true, 2, "v", "sid")),
		}
	}
	s.load, s.loadConfirmed = text(sqlLoad, "", ""), text(sqlLoadConfirmed, "", "")
	s.confirm, s.alone, s.now = "SELECT "+sqlConfirm, sqlAlone, sqlNow
	s.loadMany = text(sqlLoadMany, "", source(true, 1, "v", "sid"))
	s.peek = form{one: text(sqlPeek, "", source(false, 1, "v", "sid")), many: text(sqlPeek, "", source(true, 1, "v", "sid"))}
	s.create.full = write(ending(sqlCreate, sqlGonePlain, "", false, boxed), "l", "sid", "new", "ttl")
	s.update.done = write(sqlUpdateDone, "v", "sid", "old", "new", "ttl")
	s.update.done.one = text(scalars(sqlUpdateOne, 2, "sid", "old", "new", "ttl"), "", "")
	s.update.full = write(sqlUpdate, "v", "sid", "old", "new", "ttl")
	s.renew.full = write(ending(sqlRenew, ", s.sess", "", false, boxed), "v", "sid", "old", "new", "ttl")
	s.touch.done = write(sqlTouchDone, "v", "sid", "ttl")
	s.touch.done.one = text(scalars(sqlTouchOne, 2, "sid", "ttl"), "", "")
	s.touch.full = write(sqlTouch, "v", "sid", "ttl")
	remove := func(told bool) (plain, confirmed statement) {
		columns := []string{"sid"}
		of := "RETURNING l.n%[gone]s"
		if boxed {
			columns, of = append(columns, "why"), "RETURNING l.n, l.why%[gone]s"
		}
		sql := ending(strings.Replace(sqlDelete, "RETURNING l.n%[gone]s", of, 1), sqlGoneOfS, sqlToldOne, told, boxed)
		plain.full = write(sql, "v", columns...)
		confirmed.full = write(strings.Replace(sql, sqlBound, sqlBoundConfirmed, 1)+sqlEvenIfNone, "v", columns...)
		plain.full.told, confirmed.full.told = told, told
		return plain, confirmed
	}
	s.delete, s.deleteConfirmed = remove(false)
	s.deleteTold, s.deleteToldConfirmed = remove(true)
}

// parameter returns a parameter of a statement.
func parameter(n int, column string) string {
	if column == "ttl" {
		return fmt.Sprintf("$%d::pg_catalog.float8", n)
	}
	return fmt.Sprintf("$%d::pg_catalog.text", n)
}

// scalars returns a statement with the parameters from $first on in the place of the
// columns of v and l.
func scalars(sql string, first int, columns ...string) string {
	for i, c := range columns {
		sql = strings.NewReplacer("v."+c, parameter(first+i, c), "l."+c, parameter(first+i, c)).Replace(sql)
	}
	return sql
}

// source returns what a statement takes its members from: the parameters from
// $first on, each an array if there are many, as columns of a table called alias,
// and the number of each.
//
// Arrays are wrapped in a sub-select: a bare array parameter is planned anew at
// every call while it has up to 8 members.
func source(many bool, first int, alias string, columns ...string) string {
	var from []string
	for i, c := range columns {
		p := parameter(first+i, c)
		if many {
			p = "pg_catalog.unnest((SELECT " + p + "[]))"
		}
		from = append(from, p)
	}
	names := alias + "(" + strings.Join(columns, ", ") + ", n)"
	if many {
		return "ROWS FROM (" + strings.Join(from, ", ") + ") WITH ORDINALITY " + names
	}
	return "(SELECT " + strings.Join(from, ", ") + ", 1::pg_catalog.int8) " + names
}
