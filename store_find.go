package session

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/mark"
	"github.com/pgsession/session/internal/pgrun"
	"github.com/pgsession/session/internal/row"
)

// Statements, with the table for %[1]s, the type of expire for %[3]s, the
// conditions of a query for %[6]s, a number for %[7]s and the parameter of the
// lock timeout for %[8]s. Names and operators are qualified: whoever may create
// in a schema of the search path must not get to see what is compared.
const (
	sqlHandle = `pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(('` + labelHandle + `' OPERATOR(pg_catalog.||) pg_catalog.replace(sid::pg_catalog.text, E'\\', E'\\\\'))::pg_catalog.bytea), 'hex'), 32)`

	sqlFoundLive = `expire OPERATOR(pg_catalog.>=) pg_catalog.now()`

	// A time past a hundred years is one of a hundred years: timestamps reach to
	// where their conversion to a time zone fails, and with it all of a statement.
	sqlFoundLeft = `extract(epoch FROM LEAST(expire, (pg_catalog.now() OPERATOR(pg_catalog.+) interval '100 years')::%[3]s)::timestamp with time zone)::double precision
		OPERATOR(pg_catalog.-) extract(epoch FROM pg_catalog.now())::double precision`

	// Materialized, or the planner might walk the index on expire instead of
	// the one on the key, for the sake of the order. A row without an ID is nobody's.
	sqlFind = `WITH found AS MATERIALIZED (SELECT sid, sess, expire FROM %[1]s WHERE ` + sqlFoundLive + ` AND %[6]s)
		SELECT sid::pg_catalog.text, sess::pg_catalog.text, ` + sqlFoundLeft + ` FROM found WHERE sid IS NOT NULL ORDER BY expire DESC LIMIT %[7]s`

	sqlFindAll = `SELECT sid::pg_catalog.text, sess::pg_catalog.text, ` + sqlFoundLeft + `
		FROM %[1]s WHERE sid IS NOT NULL AND ` + sqlFoundLive + ` AND %[6]s ORDER BY expire DESC LIMIT %[7]s`

	// A write bounds its own wait for row locks, before its first.
	sqlFoundBound = `bound AS MATERIALIZED (SELECT pg_catalog.set_config('lock_timeout', %[8]s::pg_catalog.text, true) AS v)`

	// One statement, so that PostgreSQL follows a row that is renewed meanwhile.
	// Each of gone was there when it began, so fewer of them say that some were
	// ended or renewed meanwhile, or are being kept: those are told by their ID.
	// An ordinary table without triggers and policies keeps nothing, and is not
	// read twice.
	sqlDeleteFound = `WITH ` + sqlFoundBound + `,
		gone AS (DELETE FROM %[1]s WHERE (SELECT v FROM bound) IS NOT NULL AND %[6]s RETURNING sid, ` + sqlFoundLive + ` AS live%[gone]s)%[revoked]s
		SELECT pg_catalog.count(*) FILTER (WHERE live),
			CASE WHEN ` + sqlMayKeep + ` AND (SELECT pg_catalog.count(*) FROM %[1]s WHERE %[6]s) OPERATOR(pg_catalog.>) pg_catalog.count(*) THEN
				ARRAY(SELECT sid::pg_catalog.text FROM %[1]s t WHERE %[6]s
					AND NOT EXISTS (SELECT FROM gone WHERE gone.sid::pg_catalog.text OPERATOR(pg_catalog.=) t.sid::pg_catalog.text) LIMIT 100) END%[told]s
		FROM gone`

	// The same that waits for no row, and says how many others have locked, and
	// how many are being kept.
	sqlDeletePassing = `WITH ` + sqlFoundBound + `,
		mine AS MATERIALIZED (SELECT sid FROM %[1]s WHERE (SELECT v FROM bound) IS NOT NULL AND sid IS NOT NULL AND %[6]s FOR UPDATE SKIP LOCKED),
		gone AS (DELETE FROM %[1]s s USING mine WHERE s.sid OPERATOR(pg_catalog.=) mine.sid RETURNING ` + sqlFoundLive + ` AS live%[gone]s)%[revoked]s
		SELECT pg_catalog.count(*) FILTER (WHERE live),
			(SELECT pg_catalog.count(*) FROM %[1]s WHERE sid IS NOT NULL AND %[6]s) OPERATOR(pg_catalog.-) (SELECT pg_catalog.count(*) FROM mine),
			(SELECT pg_catalog.count(*) FROM mine) OPERATOR(pg_catalog.-) pg_catalog.count(*)%[told]s
		FROM gone`

	sqlMayKeep = `(SELECT c.relkind OPERATOR(pg_catalog.<>) 'r'::pg_catalog."char" OR c.relhassubclass OR c.relhastriggers OR c.relhasrules OR c.relrowsecurity
			FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(%[9]s::pg_catalog.text)::pg_catalog.oid)`

	sqlStay = `SELECT pg_catalog.count(*) FROM %[1]s WHERE %[6]s AND sid::pg_catalog.text OPERATOR(pg_catalog.=) ANY (%[8]s::pg_catalog.text[])`
)

// errNotDeleted says that PostgreSQL has reported no error, and deleted nothing.
var errNotDeleted = errors.New("rows were not deleted, and their sessions live on: a BEFORE DELETE trigger or a rule keeps them, or row-level security has no DELETE policy for this role")

// Find implements [Finder]. By a key that [PostgresOptions.IndexKeys] names it
// takes milliseconds; by any other it reads the whole table.
func (s *PostgresStore) Find(ctx context.Context, q Query) ([]Found, error) {
	sql := sqlFind
	if q.Key == "" {
		sql = sqlFindAll
	}
	sql, args := s.where(sql, &q)
	return pgrun.Run(ctx, s.runner, pgrun.Read, func(ctx context.Context, c *pgx.Conn) ([]Found, error) {
		found, err := s.find(ctx, c, sql, args)
		if pgrun.SQLState(err) == "22021" { // character_not_in_repertoire: of one record, and all would be lost
			found, err = s.find(ctx, c, asBytes.Replace(sql), args)
		}
		return found, err
	})
}

// asBytes makes a statement ask for bytes where it asks for text. A database whose
// encoding is SQL_ASCII holds any, and PostgreSQL gives none that are no text to a
// client that speaks UTF8.
var asBytes = strings.NewReplacer("SELECT sid::pg_catalog.text, sess::pg_catalog.text,",
	"SELECT pg_catalog.convert_to(sid::pg_catalog.text, 'SQL_ASCII'), pg_catalog.convert_to(sess::pg_catalog.text, 'SQL_ASCII'),",
	"SELECT sid::pg_catalog.text FROM", "SELECT pg_catalog.convert_to(sid::pg_catalog.text, 'SQL_ASCII') FROM")

func (s *PostgresStore) find(ctx context.Context, c *pgx.Conn, sql string, args []any) (found []Found, err error) {
	rows, err := c.Query(ctx, sql, s.planned(args...)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r Found
		var id []byte
		var left float64
		if err := rows.Scan(&id, &r.Data, &left); err != nil {
			return found, err
		}
		r.ID = string(id)
		r.Handle, r.TTL = handleOf(r.ID), fromSeconds(left)
		if s.opts.HashIDs {
			r.ID = ""
		}
		found = append(found, r)
	}
	return found, rows.Err()
}

// DeleteFound implements [Finder].
func (s *PostgresStore) DeleteFound(ctx context.Context, q Query) (int64, error) {
	ctx, cancel := s.runner.Bounded(ctx)
	defer cancel()
	if s.table.Distributed {
		return s.deleteShards(ctx, &q)
	}
	sql, told := s.revoking(ctx, sqlDeleteFound, sqlGonePlain)
	sql, args := s.where(sql, &q)
	n, err := s.deleteAll(ctx, &q, sql, told, func(ctx context.Context) []any {
		return append(slices.Clip(args), rowLockTimeout(ctx), s.table.Quoted())
	})
	if pgrun.SQLState(err) == "55P03" { // lock_not_available
		var more int64
		more, err = s.deletePassing(ctx, &q)
		n += more
	}
	if n == 0 && err == nil { // nothing of ours has waited for the standbys; see Delete
		err = s.confirmNothing(ctx)
	}
	return n, err
}

// confirmNothing returns when the standbys have what was committed before, so that
// what was not found does not come back with one of them.
func (s *PostgresStore) confirmNothing(ctx context.Context) error {
	_, err := confirmed(ctx, s, func(ctx context.Context) (struct{}, error) {
		return pgrun.Run(ctx, s.runner, pgrun.Repeatable, func(ctx context.Context, c *pgx.Conn) (none struct{}, err error) {
			var record *string
			return none, c.QueryRow(ctx, s.sql.confirm, s.planned()...).Scan(&record)
		})
	}, func(context.Context) (none struct{}, err error) { return none, nil })
	return err
}

// rowPatience is how long a statement that deletes many rows waits for one that
// somebody else has locked. It holds a connection, perhaps the only one for writes.
const rowPatience = 250 * time.Millisecond

// rowLockTimeout is pgrun.LockTimeout, rowPatience at most.
func rowLockTimeout(ctx context.Context) string {
	timeout := pgrun.LockTimeout(ctx)
	if d, err := time.ParseDuration(timeout); err == nil && d > rowPatience {
		return fmt.Sprintf("%dms", rowPatience.Milliseconds())
	}
	return timeout
}

// deletePassing deletes the records of q that nobody has locked, and those others
// as soon as that is over, until ctx ends. It holds no connection while it waits.
func (s *PostgresStore) deletePassing(ctx context.Context, q *Query) (live int64, err error) {
	sql, told := s.revoking(ctx, sqlDeletePassing, `, s.sid, s.sess`)
	sql, args := s.where(sql, q)
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		type result struct {
			live, locked, kept, all int64
			told                    [][]byte
		}
		d, err := pgrun.Run(ctx, s.runner, pgrun.Repeatable, func(ctx context.Context, c *pgx.Conn) (d result, err error) {
			return d, c.QueryRow(ctx, sql, s.planned(append(slices.Clip(args), rowLockTimeout(ctx))...)...).Scan(into(told, &d.all, &d.told, &d.live, &d.locked, &d.kept)...)
		})
		if live += d.live; err == nil {
			s.tellRows(ctx, d.told, d.all)
		}
		switch {
		case err != nil:
			return live, err
		case d.kept > 0:
			return live, errNotDeleted
		case d.locked == 0:
			return live, nil
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return live, fmt.Errorf("other transactions hold rows of sessions that are to end, %d of them live on: %w", d.locked, context.Cause(ctx))
		}
	}
}

// deleted is what a statement has deleted, and what was there before and is not
// among that: a hundred of the IDs at most.
type deleted struct {
	live int64
	left []string

	all  int64 // and what it says of that, if it is to
	told [][]byte
}

// into is what such a statement is scanned into.
func into(told bool, all *int64, rows *[][]byte, more ...any) []any {
	if told {
		more = append(more, all, rows)
	}
	return more
}

// deleteAll runs a statement that deletes records of q, again while it cannot be
// known whether any of them is left, and looks at those that may be.
func (s *PostgresStore) deleteAll(ctx context.Context, q *Query, sql string, told bool, args func(context.Context) []any) (live int64, err error) {
	for {
		d, err := pgrun.Run(ctx, s.runner, pgrun.Repeatable, func(ctx context.Context, c *pgx.Conn) (d deleted, err error) {
			err = c.QueryRow(ctx, sql, s.planned(args(ctx)...)...).Scan(into(told, &d.all, &d.told, &d.live, &d.left)...)
			if pgrun.SQLState(err) == "22021" { // as in Find; nothing was deleted
				err = c.QueryRow(ctx, asBytes.Replace(sql), s.planned(args(ctx)...)...).Scan(into(told, &d.all, &d.told, &d.live, &d.left)...)
			}
			return d, err
		})
		if live += d.live; err == nil {
			s.tellRows(ctx, d.told, d.all)
		}
		if pgrun.SQLState(err) == "0A000" { // feature_not_supported: as of a rule
			err = fmt.Errorf("%w: %w", errNotDeleted, err)
		}
		if err != nil || len(d.left) == 0 {
			return live, err
		}
		sql, args := s.where(sqlStay, q)
		args = append(args, d.left)
		stay, err := pgrun.Run(ctx, s.runner, pgrun.Read, func(ctx context.Context, c *pgx.Conn) (n int64, err error) {
			return n, c.QueryRow(ctx, sql, s.planned(args...)...).Scan(&n)
		})
		switch {
		case err != nil:
			return live, err
		case stay > 0:
			return live, errNotDeleted
		case len(d.left) < 100:
			return live, nil
		}
	}
}

// Handle implements [Finder].
func (s *PostgresStore) Handle(id string) string { return handleOf(s.sid(id)) }

// asStored, before what the table holds in the place of an ID, makes that an ID for
// the methods of a PostgresStore, where the ID itself is not known. No cookie and no
// table can hold it.
const asStored = "\x00"

// sid returns what the table holds for a session ID.
func (s *PostgresStore) sid(id string) string {
	if !s.opts.HashIDs || id == "" {
		return id
	}
	if stored, ok := strings.CutPrefix(id, asStored); ok {
		return stored
	}
	sum := sha256.Sum256([]byte(id))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// planned are the arguments of a statement that is planned anew each time. What is
// prepared keeps the plan of the day on which the table was small, which reads all
// of it; and these statements are rare. Poolers that want no prepared statements
// get what they want.
func (s *PostgresStore) planned(args ...any) []any {
	if s.runner.Pool().Config().ConnConfig.DefaultQueryExecMode != pgx.QueryExecModeCacheStatement {
		return args
	}
	return append([]any{pgx.QueryExecModeCacheDescribe}, args...)
}

// where completes a statement with the conditions of q. args are their parameters; the
// statement may have more after them, the lock timeout and others.
func (s *PostgresStore) where(sql string, q *Query) (string, []any) {
	conditions := []string{"NOT " + mark.SQL}
	var args []any
	condition := func(format string, arg any) {
		args = append(args, arg)
		conditions = append(conditions, fmt.Sprintf(format, len(args)))
	}
	if q.Key != "" {
		condition(strings.ReplaceAll(s.table.Value(q.Key), "%", "%%")+" OPERATOR(pg_catalog.=) ANY ($%d::pg_catalog.text[])", slices.Clone(q.Values)) // a late statement may outlive the call
	}
	if q.Handle != "" {
		condition(sqlHandle+" OPERATOR(pg_catalog.=) $%d::pg_catalog.text", q.Handle)
	}
	if q.Except != "" {
		condition("sid::pg_catalog.text OPERATOR(pg_catalog.<>) $%d::pg_catalog.text", s.sid(q.Except))
	}
	further := func(n int) string { return fmt.Sprintf("$%d", len(args)+n) }
	// All at once: a name or a key may look like one of these.
	return strings.NewReplacer("%[1]s", s.table.Quoted(), "%[3]s", s.table.ExpireType, "%[6]s", strings.Join(conditions, " AND "),
		"%[7]s", fmt.Sprint(max(q.Limit, 0)), "%[8]s", further(1), "%[9]s", further(2), "%[10]s", further(3), "%[13]s", further(4),
		"%[11]s", s.table.Value(row.MemberRenewed), "%[12]s", s.table.Value(row.MemberCreated),
		"%[revoked]s", s.sql.boxes.revoked, "%[limited]s", s.sql.boxes.limited).
		Replace(strings.Join(strings.Fields(sql), " ")), args
}

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
		WHERE s.sid::pg_catalog.text OPERATOR(pg_catalog.=) surplus.sid AND %[6]s LIMIT 1 FOR UPDATE) l),
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

// revoking completes a statement of DeleteFound, which also ends what is over
// Config.MaxPerUser where a store around this one hides that it can do so itself.
func (s *PostgresStore) revoking(ctx context.Context, sql, gone string) (_ string, told bool) {
	why, told := whyOf(ctx, whyRevoked)
	if why == whyLimit {
		sql = strings.Replace(sql, "%[revoked]s", "%[limited]s", 1)
	}
	return ending(sql, gone, sqlToldAll, told, s.opts.Outbox != ""), told
}

// tellRows tells of rows, and of how many there were.
func (s *PostgresStore) tellRows(ctx context.Context, rows [][]byte, all int64) {
	gone := make([]ended, 0, len(rows))
	for _, b := range rows {
		if e, ok := toldRow(b, "", s.opts.HashIDs); ok {
			gone = append(gone, e)
		}
	}
	tellEnded(ctx, gone, int(max(0, all-int64(len(gone)))))
}
