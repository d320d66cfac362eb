package session

import (
	"context"
	"errors"
	"math"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/mark"
	"github.com/pgsession/session/internal/pgtable"
)

// Statements for a table that Citus has distributed over workers by sid. A
// statement for one session is to go to one shard as it stands, and to commit there
// without two phases. So it compares sid itself with a parameter, not what sid is
// cast to, and is one statement: a CTE that writes is run apart, in two
// phases, also where Citus accepts it. Functions that are not IMMUTABLE may neither
// stand in RETURNING, CASE or COALESCE of a write nor be given columns.
//
// A write skips a row that is locked, and returns nothing where it has done nothing. A
// look of its own then says why; what it finds may have come since, so that
// a row that is as the write wants it means that it was locked.
//
// lock_timeout is the coordinator's, where nothing waits: $1 is for nothing.
const (
	sqlShard   = `s.sid OPERATOR(pg_catalog.=) v.sid AND $1::pg_catalog.text IS NOT NULL`
	sqlShardOf = ` WHERE ` + sqlShard + ` AND s.sid OPERATOR(pg_catalog.=) (SELECT s.sid FROM %[1]s s WHERE s.sid OPERATOR(pg_catalog.=) v.sid AND `

	sqlShardDone = `) RETURNING 1::pg_catalog.int8, 1, NULL::pg_catalog.text`
	sqlShardWhy  = `SELECT 1::pg_catalog.int8, COALESCE(pg_catalog.max(%[why]s), %[none]s), NULL::pg_catalog.text FROM %[1]s s WHERE ` + sqlShard

	sqlShardLoad = `SELECT s.ctid, s.sess::pg_catalog.text, ` + sqlLeft + ` FROM %[1]s s WHERE s.sid OPERATOR(pg_catalog.=) $1::pg_catalog.text AND ` + sqlLive

	// Of many it pays to ask all shards at once that have one of them. A row says whose it is.
	sqlShardLoadMany = `SELECT s.sid::pg_catalog.text, s.ctid, CASE WHEN pg_catalog.pg_column_size(s.sess) OPERATOR(pg_catalog.<=) 65536 THEN s.sess::pg_catalog.text END, ` + sqlLeft + `
		FROM %[1]s s WHERE s.sid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text[]) AND ` + sqlLive

	sqlShardCreate = `INSERT INTO %[1]s (sid, sess, expire) VALUES (v.sid, l.new::%[2]s, ` + sqlIn + `)
		ON CONFLICT (sid) DO NOTHING RETURNING 1::pg_catalog.int8, CASE WHEN $1::pg_catalog.text IS NULL THEN 3 ELSE 1 END, NULL::pg_catalog.text`
	sqlShardTaken = sqlShardWhy + ` AND l.new IS NOT NULL AND l.ttl IS NOT NULL`

	sqlShardExpire  = `expire = GREATEST(CASE WHEN l.ttl OPERATOR(pg_catalog.<) 0::pg_catalog.float8 THEN '-infinity'::%[3]s ELSE s.expire END, ` + sqlIn + `)`
	sqlShardUpdate  = `UPDATE %[1]s s SET sess = l.new::%[2]s, ` + sqlShardExpire + sqlShardOf + sqlLoaded + ` LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED` + sqlShardDone
	sqlShardUpdated = sqlShardWhy + ` AND ` + sqlLive + ` AND l.new IS NOT NULL AND l.ttl IS NOT NULL`

	// A renewal is a transaction: the row is removed, and inserted again under its
	// new ID, beside the mark. Both IDs are in one shard, if they can ([engine.newID]).
	sqlShardRemove  = `DELETE FROM %[1]s s` + sqlShardOf + sqlLoaded + ` LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING ` + sqlShardExpiry
	sqlShardRemoved = sqlShardWhy + ` AND ` + sqlLive
	sqlShardInsert  = `INSERT INTO %[1]s (sid, sess, expire) VALUES ($1::pg_catalog.text, $2::pg_catalog.text::%[2]s, GREATEST(` + sqlShardEpoch + ` OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => $3::pg_catalog.float8),
		pg_catalog.now() OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => $4::pg_catalog.float8))) RETURNING 1`

	// An expiry in seconds since 2000: the two are exact there for as long as anybody
	// lives. What lies further away is of no matter.
	sqlShardEpoch  = `'2000-01-01 00:00:00+00'::pg_catalog.timestamptz`
	sqlShardExpiry = `extract(epoch FROM LEAST(GREATEST(s.expire, ` + sqlShardEpoch + `), '9999-12-30 00:00:00+00'::pg_catalog.timestamptz) OPERATOR(pg_catalog.-) ` + sqlShardEpoch + `)::pg_catalog.float8`

	sqlShardTouch   = sqlLater + sqlShardOf + sqlTouchable + ` LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED` + sqlShardDone
	sqlShardTouched = sqlShardWhy + ` AND l.ttl IS NOT NULL AND ` + sqlTouchable

	sqlShardDelete  = `DELETE FROM %[1]s s` + sqlShardOf + `NOT ` + mark.SQL + ` LIMIT 1 FOR UPDATE SKIP LOCKED` + sqlShardDone
	sqlShardDeleted = `SELECT 1::pg_catalog.int8, COALESCE(pg_catalog.max(CASE WHEN ` + mark.SQL + ` THEN 0 ELSE 3 END), 0), pg_catalog.max(CASE WHEN ` + mark.SQL + ` THEN s.sess::pg_catalog.text END)%[told]s
		FROM %[1]s s WHERE ` + sqlShard

	// What toldRow reads; what is live is so at $3, the database's time.
	sqlShardTold = `, CASE WHEN s.expire OPERATOR(pg_catalog.>=) $3::pg_catalog.timestamptz THEN '1' ELSE '0' END OPERATOR(pg_catalog.||) s.sid::pg_catalog.text OPERATOR(pg_catalog.||) E'\x01'
		OPERATOR(pg_catalog.||) CASE WHEN pg_catalog.octet_length(s.sess::pg_catalog.text) OPERATOR(pg_catalog.<=) 16384 THEN s.sess::pg_catalog.text ELSE '' END`
	sqlShardUntold = ` AND $3::pg_catalog.timestamptz IS NOT NULL`

	// Many rows of many shards, in two phases. A renewal that it waits for escapes it, so
	// it is repeated until there are none (deleteShards).
	sqlDeleteShards = `WITH dead AS (DELETE FROM %[1]s WHERE %[6]s RETURNING expire%[gone]s),
		gone AS (SELECT dead.*, expire OPERATOR(pg_catalog.>=) pg_catalog.now() AS live FROM dead)
		SELECT pg_catalog.count(*) FILTER (WHERE live)%[told]s FROM gone`
	sqlAnyShards = `SELECT pg_catalog.count(*) FROM %[1]s WHERE %[6]s`

	sqlPeekShards = `SELECT s.sid::pg_catalog.text, CASE WHEN ` + mark.SQL + ` THEN '-2'::pg_catalog.float8
			WHEN ` + sqlLive + ` THEN GREATEST(` + sqlLeft + `, '0'::pg_catalog.float8) ELSE '-1'::pg_catalog.float8 END
		FROM %[1]s s WHERE s.sid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text[])`

	sqlShardLock = `SELECT s.sess::pg_catalog.text, ` + sqlLeft + ` FROM %[1]s s WHERE s.sid OPERATOR(pg_catalog.=) $1::pg_catalog.text AND ` + sqlLive + ` FOR UPDATE SKIP LOCKED`
	sqlShardSee  = `SELECT s.sess::pg_catalog.text, ` + sqlLeft + ` FROM %[1]s s WHERE s.sid OPERATOR(pg_catalog.=) $1::pg_catalog.text AND ` + sqlLive
)

// distributed are the statements that only such a table has.
type distributed struct{ remove, insert, peek, lock, see string }

// distribute replaces those of s for which there is another form.
func (s *statements) distribute(t *pgtable.Table) {
	text := func(sql, told string, columns ...string) string {
		sql = scalars(strings.Join(strings.Fields(sql), " "), 2, columns...) // before the name goes in: it may look like a column
		return strings.NewReplacer("%[1]s", t.Quoted(), "%[2]s", "pg_catalog."+t.SessType, "%[3]s", t.ExpireType, "%[told]s", told).Replace(sql)
	}
	why := func(sql, why, none string, columns ...string) form {
		return form{one: text(strings.NewReplacer("%[why]s", why, "%[none]s", none).Replace(sql), "", columns...)}
	}
	const same = `CASE WHEN s.sess::pg_catalog.text OPERATOR(pg_catalog.=) v.old THEN 3 ELSE 2 END`
	s.shards = distributed{
		remove: text(sqlShardRemove, "", "sid", "old"), insert: text(sqlShardInsert, ""),
		peek: text(sqlPeekShards, ""), lock: text(sqlShardLock, ""), see: text(sqlShardSee, ""),
	}
	s.load = text(sqlShardLoad, "")
	s.loadConfirmed, s.loadMany = s.load, text(sqlShardLoadMany, "")
	s.create = statement{form{one: text(sqlShardCreate, "", "sid", "new", "ttl")}, why(sqlShardTaken, "2", "3", "sid", "new", "ttl")}
	s.update = statement{form{one: text(sqlShardUpdate, "", "sid", "old", "new", "ttl")}, why(sqlShardUpdated, same, "0", "sid", "old", "new", "ttl")}
	s.renew = statement{full: why(sqlShardRemoved, same, "0", "sid", "old")}
	s.touch = statement{form{one: text(sqlShardTouch, "", "sid", "ttl")}, why(sqlShardTouched, "3", "0", "sid", "ttl")}
	s.delete = statement{form{one: text(sqlShardDelete, "", "sid")}, form{one: text(sqlShardDeleted, "", "sid")}}
	s.deleteTold = statement{
		form{one: text(sqlShardDelete+sqlShardTold, "", "sid"), told: true},
		form{one: text(sqlShardDeleted+sqlShardUntold, ", NULL::pg_catalog.text", "sid"), told: true},
	}
	s.deleteConfirmed, s.deleteToldConfirmed = s.delete, s.deleteTold
}

// move removes a record and inserts it again, beside its mark, in a transaction, in
// which row asks for one row. moved is false if there was none to be had.
func (d *distributed) move(ctx context.Context, row func(ctx context.Context, sql string, args []any, into ...any) error, id, old, data string, ttl float64, newID string) (moved bool, err error) {
	var expiry float64
	switch err := row(ctx, d.remove, []any{"", id, old}, &expiry); {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err != nil:
		return false, err
	}
	if ttl < 0 { // it may come sooner
		expiry = 0
	}
	for _, r := range []struct {
		id, data     string
		expiry, left float64
	}{{newID, data, expiry, math.Abs(ttl)}, {id, mark.Of(newID), 0, markLife.Seconds()}} {
		var one int
		if err := row(ctx, d.insert, []any{r.id, r.data, r.expiry, r.left}, &one); err != nil {
			return false, err
		}
	}
	return true, nil
}
