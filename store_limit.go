package session

import (
	"context"
	"slices"
	"time"
)

// sqlLimit deletes those of a user's live records that were logged in before the
// %[7]s newest. A row is locked before it is deleted, the rows of all in one order,
// or two logins of the user at once could wait for each other. Ten thousand at a
// time: no login is to wait for a million, and the next one goes on.
//
// What is no number of milliseconds is no time, and before all that are. The
// parameters %[9]s and %[10]s and what follows are: the ID of the login's own
// record, now and the slack of clocks, in milliseconds.
const sqlLimit = `WITH ` + sqlFoundBound + `,
	mine AS MATERIALIZED (SELECT sid::pg_catalog.text AS sid, ` + sqlHandle + ` AS handle, %[11]s AS renewed, %[12]s AS created
		FROM %[1]s WHERE (SELECT v FROM bound) IS NOT NULL AND sid IS NOT NULL AND ` + sqlFoundLive + ` AND %[6]s),
	told AS (SELECT sid, handle, CASE
			WHEN renewed OPERATOR(pg_catalog.~) '^-?[0-9]{1,18}$' THEN CASE WHEN renewed::bigint OPERATOR(pg_catalog.>) 0 THEN renewed::bigint ELSE -62135596800000 END
			WHEN created OPERATOR(pg_catalog.~) '^-?[0-9]{1,18}$' THEN created::bigint
			ELSE -62135596800000 END AS at FROM mine),
	timed AS (SELECT sid, handle, CASE
			WHEN sid OPERATOR(pg_catalog.=) %[9]s::pg_catalog.text AND at OPERATOR(pg_catalog.<) (%[10]s::bigint OPERATOR(pg_catalog.-) %[13]s::bigint) THEN %[10]s::bigint
			WHEN at OPERATOR(pg_catalog.>) (%[10]s::bigint OPERATOR(pg_catalog.+) %[13]s::bigint) THEN %[10]s::bigint OPERATOR(pg_catalog.-) %[13]s::bigint
			ELSE at END AS at FROM told),
	surplus AS MATERIALIZED (SELECT sid FROM (SELECT sid FROM timed ORDER BY at DESC, handle OFFSET %[7]s LIMIT 10000) o ORDER BY sid),
	locked AS MATERIALIZED (SELECT l.sid FROM surplus, LATERAL (SELECT s.sid FROM %[1]s s
		WHERE s.sid::pg_catalog.text OPERATOR(pg_catalog.=) surplus.sid AND (%[6]s) IS TRUE LIMIT 1 FOR UPDATE) l),
	gone AS (DELETE FROM %[1]s s USING locked WHERE s.sid OPERATOR(pg_catalog.=) locked.sid RETURNING s.sid%[gone]s)%[limited]s
	SELECT pg_catalog.count(*), CASE WHEN (SELECT pg_catalog.count(*) FROM surplus) OPERATOR(pg_catalog.>) pg_catalog.count(*) THEN
		ARRAY(SELECT sid FROM surplus WHERE NOT EXISTS (SELECT FROM gone WHERE gone.sid::pg_catalog.text OPERATOR(pg_catalog.=) surplus.sid) LIMIT 100) END%[told]s
	FROM gone`

// limits reports whether limitFound can be had.
func (s *PostgresStore) limits() bool { return !s.table.Distributed }

// limitFound deletes the records of q but the keep newest logins, as
// engine.loginTime knows their times, in one statement.
func (s *PostgresStore) limitFound(ctx context.Context, q Query, keep int, own string, now time.Time, slack time.Duration) (int64, error) {
	ctx, cancel := s.runner.Bounded(ctx)
	defer cancel()
	q.Limit = keep
	_, told := whyOf(ctx, whyLimit)
	sql, args := s.where(ending(sqlLimit, `, s.sess, `+sqlLive+` AS live`, sqlToldAll, told, s.opts.Outbox != ""), &q)
	one := func(ctx context.Context) (int64, error) {
		return s.deleteAll(ctx, &q, sql, told, func(ctx context.Context) []any {
			return append(slices.Clip(args), rowLockTimeout(ctx), s.sid(own), now.UnixMilli(), slack.Milliseconds())
		})
	}
	if s.shared == nil {
		return one(ctx)
	}
	deleted, err := s.shared.limits.Do(ctx, one)
	return deleted, explainTimeout(ctx, err)
}
