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

	"github.com/pgsession/session/internal/backoff"
	"github.com/pgsession/session/internal/mark"
	"github.com/pgsession/session/internal/pgrun"
	"github.com/pgsession/session/internal/row"
)

// Statements, with the table for %[1]s, the type of expire for %[3]s, the
// conditions of a query for %[6]s, a number for %[7]s and the parameter of the
// lock timeout for %[8]s. Names and operators are qualified: whoever may create
// in a schema of the search path must not get to see what is compared.
const (
	sqlHandle = `pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to('` + labelHandle + `' OPERATOR(pg_catalog.||) sid::pg_catalog.text, ` + sqlAsItIs + `)), 'hex'), 32)`

	// convert_to is not immutable, and Citus sends no shard what is not. This takes
	// an ID's bytes as the database has them: UTF8, or ASCII as all of our own IDs.
	sqlShardHandle = `pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(('` + labelHandle + `' OPERATOR(pg_catalog.||) pg_catalog.replace(sid::pg_catalog.text, E'\\', E'\\\\'))::pg_catalog.bytea), 'hex'), 32)`

	sqlFoundLive = `(expire OPERATOR(pg_catalog.>=) pg_catalog.now()) IS TRUE` // by another index, as sqlLive

	// A time past a hundred years is one of a hundred years: timestamps reach to
	// where their conversion to a time zone fails, and with it all of a statement.
	sqlFoundLeft = `extract(epoch FROM LEAST(expire, (pg_catalog.now() OPERATOR(pg_catalog.+) interval '100 years')::%[3]s)::timestamp with time zone)::double precision
		OPERATOR(pg_catalog.-) extract(epoch FROM pg_catalog.now())::double precision`

	// Materialized, or the planner might walk the index on expire instead of
	// the one on the key, for the sake of the order. A row without an ID is nobody's.
	sqlFind = `WITH found AS MATERIALIZED (SELECT sid, sess, expire FROM %[1]s WHERE ` + sqlFoundLive + ` AND %[6]s)
		SELECT sid::pg_catalog.text, sess::pg_catalog.text, ` + sqlFoundLeft + ` FROM found WHERE sid IS NOT NULL ORDER BY expire DESC LIMIT %[7]s`

	sqlFindAll = `SELECT sid::pg_catalog.text, sess::pg_catalog.text, ` + sqlFoundLeft + `
		FROM %[1]s WHERE sid IS NOT NULL AND expire OPERATOR(pg_catalog.>=) pg_catalog.now() AND %[6]s ORDER BY expire DESC LIMIT %[7]s`

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

// asBytes makes a statement ask for bytes where it asks for text. A database whose
// encoding is SQL_ASCII holds any, and PostgreSQL gives none that are no text to a
// client that speaks UTF8.
var asBytes = strings.NewReplacer("SELECT sid::pg_catalog.text, sess::pg_catalog.text,",
	"SELECT pg_catalog.convert_to(sid::pg_catalog.text, 'SQL_ASCII'), pg_catalog.convert_to(sess::pg_catalog.text, 'SQL_ASCII'),",
	"SELECT sid::pg_catalog.text FROM", "SELECT pg_catalog.convert_to(sid::pg_catalog.text, 'SQL_ASCII') FROM")

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
// as soon as that is over, until ctx ends. It holds no connection while it waits. What
// was renewed while a statement came to it counts as kept there, and goes with the next.
func (s *PostgresStore) deletePassing(ctx context.Context, q *Query) (live int64, err error) {
	sql, told := s.revoking(ctx, sqlDeletePassing, `, s.sid, s.sess`)
	sql, args := s.where(sql, q)
	kept := 0 // how often in a row
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
		if kept++; d.kept == 0 {
			kept = 0
		}
		switch {
		case err != nil:
			return live, err
		case kept >= keptTries:
			return live, errNotDeleted
		case d.locked == 0 && kept == 0:
			return live, nil
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return live, fmt.Errorf("other transactions hold rows of sessions that are to end, %d of them live on: %w", d.locked+d.kept, context.Cause(ctx))
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
		handle := sqlHandle
		if s.table.Distributed {
			handle = sqlShardHandle
		}
		condition(handle+" OPERATOR(pg_catalog.=) $%d::pg_catalog.text", q.Handle)
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

// deleteShards is DeleteFound. A row that a renewal has locked is waited for, and is
// gone then; what was inserted in its place nobody has deleted. So it is repeated
// until there is none: each look sees a session that is being renewed once, under one
// of its IDs, for both are in one shard (but in the minute after that was split).
func (s *PostgresStore) deleteShards(ctx context.Context, q *Query) (live int64, err error) {
	_, told := whyOf(ctx, whyRevoked)
	gone, toldAll := "", ""
	if told {
		gone, toldAll = ", sid, sess", sqlToldAll
	}
	remove, args := s.where(strings.NewReplacer("%[gone]s", gone, "%[told]s", toldAll).Replace(sqlDeleteShards), q)
	look, _ := s.where(sqlAnyShards, q)
	immutable := strings.NewReplacer(mark.SQL, mark.Immutable, join(mark.SQL), mark.Immutable)
	remove, look = immutable.Replace(remove), immutable.Replace(look) // or it would wait for what is never deleted
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
