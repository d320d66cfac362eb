package session

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/backoff"
	"github.com/pgsession/session/internal/mark"
	"github.com/pgsession/session/internal/pgrun"
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

	sqlShardUpdate  = `UPDATE %[1]s s SET sess = l.new::%[2]s, ` + sqlExpire + sqlShardOf + sqlLoaded + ` LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED` + sqlShardDone
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
	// it is repeated until there are none ([PostgresStore.deleteShards]).
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
		sql = strings.Join(strings.Fields(sql), " ")
		sql = strings.NewReplacer("%[1]s", t.Quoted(), "%[2]s", "pg_catalog."+t.SessType, "%[3]s", t.ExpireType, "%[told]s", told).Replace(sql)
		return scalars(sql, 2, columns...)
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

// renewInShards is a renewal, in a transaction.
func (s *PostgresStore) renewInShards(ctx context.Context, v *save, newID string) (fate, error) {
	removed, err := pgrun.Run(ctx, s.runner, pgrun.Once, func(ctx context.Context, c *pgx.Conn) (removed bool, err error) {
		tx, err := c.Begin(ctx)
		if err != nil {
			return false, err
		}
		if removed, err = s.moveInShards(ctx, s.pgxRows(tx), s.sql.shards.remove, s.sql.shards.insert, v, newID); err != nil || !removed {
			return false, errors.Join(err, tx.Rollback(ctx))
		}
		return true, tx.Commit(ctx)
	})
	if err != nil || removed {
		return fate{what: fateDone}, err
	}
	return s.writeOne(ctx, pgrun.Repeatable, s.sql.renew, v.id, v.old)
}

// moveInShards removes a record and inserts it again, beside its mark, in a
// transaction. removed is false if there was none to be had.
func (s *PostgresStore) moveInShards(ctx context.Context, row rower, remove, insert string, v *save, newID string) (removed bool, err error) {
	var expiry float64
	switch err := row(ctx, remove, []any{"", v.id, v.old}, &expiry); {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err != nil:
		return false, err
	}
	if v.ttl < 0 { // it may come sooner
		expiry = 0
	}
	for _, r := range []struct {
		id, data     string
		expiry, left float64
	}{{newID, v.new, expiry, math.Abs(v.ttl)}, {v.id, mark.Of(newID), 0, markLife.Seconds()}} {
		var one int
		if err := row(ctx, insert, []any{r.id, r.data, r.expiry, r.left}, &one); err != nil {
			return false, err
		}
	}
	return true, nil
}

// deleteShards is DeleteFound. A row that a renewal has locked is waited for, and is
// gone then; what was inserted in its place nobody has deleted. So it is repeated
// until there is none: each look sees a session that is being renewed once, under one
// of its IDs, for both are in one shard.
func (s *PostgresStore) deleteShards(ctx context.Context, q *Query) (live int64, err error) {
	_, told := whyOf(ctx, whyRevoked)
	gone, toldAll := "", ""
	if told {
		gone, toldAll = ", sid, sess", sqlToldAll
	}
	remove, args := s.where(strings.NewReplacer("%[gone]s", gone, "%[told]s", toldAll).Replace(sqlDeleteShards), q)
	look, _ := s.where(sqlAnyShards, q)
	immutable := strings.NewReplacer(mark.SQL, mark.Immutable, join(mark.SQL), mark.Immutable)
	remove = immutable.Replace(remove)
	for try := 0; ; try++ {
		type result struct {
			live, all int64
			told      [][]byte
		}
		d, err := pgrun.Run(ctx, s.runner, pgrun.Repeatable, func(ctx context.Context, c *pgx.Conn) (d result, err error) {
			return d, c.QueryRow(ctx, remove, s.planned(args...)...).Scan(into(told, &d.all, &d.told, &d.live)...)
		})
		if live += d.live; err != nil {
			return live, err
		}
		s.tellRows(ctx, d.told, d.all)
		left, err := pgrun.Run(ctx, s.runner, pgrun.Read, func(ctx context.Context, c *pgx.Conn) (n int64, err error) {
			return n, c.QueryRow(ctx, look, s.planned(args...)...).Scan(&n)
		})
		if err != nil || left == 0 {
			return live, err
		}
		if err := backoff.Pause(ctx, try); err != nil {
			return live, fmt.Errorf("%d sessions that are to end live on, renewed all the while or kept by a trigger: %w", left, err)
		}
	}
}

// peekShards is peek of many.
func (s *PostgresStore) peekShards(ctx context.Context, sids []string) ([]Peeked, error) {
	left, err := pgrun.Run(ctx, s.runner, pgrun.Read, func(ctx context.Context, c *pgx.Conn) (map[string]float64, error) {
		rows, err := c.Query(ctx, s.sql.shards.peek, pgrun.Sized(c, s.plans.args(sids))...)
		if err != nil {
			return nil, err
		}
		left := make(map[string]float64, len(sids))
		var sid string
		var seconds float64
		_, err = pgx.ForEachRow(rows, []any{&sid, &seconds}, func() error {
			left[sid] = seconds
			return nil
		})
		return left, err
	})
	if err != nil {
		return nil, err
	}
	seconds := make([]float64, len(sids))
	for i, sid := range sids {
		var ok bool
		if seconds[i], ok = left[sid]; !ok {
			seconds[i] = peekNone
		}
	}
	return peeked(seconds), nil
}

// lockInShard loads a record and locks it, in a transaction, as [PostgresStore.begin] does. It
// waits without a connection's doing anything.
func (s *PostgresStore) lockInShard(ctx context.Context, row rower, sid string) (data []byte, left *float64, err error) {
	left = new(float64)
	for try := 0; ; try++ {
		err := row(ctx, s.inTx.lock, []any{sid}, &data, left)
		if !errors.Is(err, pgx.ErrNoRows) {
			return data, left, err
		}
		switch err := row(ctx, s.inTx.see, []any{sid}, &data, left); {
		case errors.Is(err, pgx.ErrNoRows):
			return nil, nil, nil // there is none
		case err != nil:
			return nil, nil, err
		}
		if err := backoff.Pause(ctx, try); err != nil {
			return nil, nil, fmt.Errorf("no answer in time, another transaction holds the session: nothing was written: %w", err)
		}
	}
}

// renewInShards is [PostgresStore.renewInShards] in a transaction of others.
func (x *txStore) renewInShards(ctx context.Context, v *save, newID string) (fate, error) {
	for try := 0; ; try++ {
		removed, err := x.s.moveInShards(ctx, x.row, x.s.inTx.remove, x.s.inTx.insert, v, newID)
		switch {
		case err != nil:
			return fate{}, x.fail(explainRefusal(x.s.runner.Describe(err)))
		case removed:
			return fate{what: fateDone}, nil
		}
		var r scannedFate
		err = x.row(ctx, x.s.inTx.renew[0], []any{"", v.id, v.old}, &r.n, &r.what, &r.mark)
		if err != nil {
			return fate{}, x.fail(explainRefusal(x.s.runner.Describe(err)))
		}
		if f := r.fate(); f.what != fateLocked {
			return f, nil
		}
		if err := backoff.Pause(ctx, try); err != nil {
			return fate{}, x.fail(fmt.Errorf("no answer in time, another transaction holds the row: %w", err))
		}
	}
}
