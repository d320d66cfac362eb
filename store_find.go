package session

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/mark"
	"github.com/pgsession/session/internal/pgrun"
)

const (
	sqlHandle = `left(encode(sha256(convert_to('` + labelHandle + `' || sid, 'UTF8')), 'hex'), 32)`

	// Materialized, or the planner might walk the index on expire instead of
	// the one on the key, for the sake of the order.
	sqlFind = `WITH found AS MATERIALIZED (SELECT sid, sess, expire FROM %[1]s WHERE expire >= now() AND %[6]s)
		SELECT sid::text, sess::text, extract(epoch FROM expire::timestamptz)::float8 - extract(epoch FROM now())::float8
		FROM found ORDER BY expire DESC LIMIT %[7]s`

	sqlFindAll = `SELECT sid::text, sess::text, extract(epoch FROM expire::timestamptz)::float8 - extract(epoch FROM now())::float8
		FROM %[1]s WHERE expire >= now() AND %[6]s ORDER BY expire DESC LIMIT %[7]s`

	// One statement, so that PostgreSQL follows a row that is renewed meanwhile.
	sqlDeleteFound = `WITH gone AS (DELETE FROM %[1]s WHERE %[6]s RETURNING expire >= now() AS live)
		SELECT count(*) FILTER (WHERE live) FROM gone`
)

// Find implements [Finder]. By a key that [PostgresOptions.IndexKeys] names it
// takes milliseconds; by any other it reads the whole table.
func (s *PostgresStore) Find(ctx context.Context, q Query) ([]Found, error) {
	sql := sqlFind
	if q.Key == "" {
		sql = sqlFindAll
	}
	sql, args := s.where(sql, &q)
	return pgrun.Run(ctx, s.runner, pgrun.Repeatable, func(ctx context.Context, c *pgx.Conn) (found []Found, err error) {
		rows, err := c.Query(ctx, sql, args...)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for rows.Next() {
			var r Found
			var left float64
			if err := rows.Scan(&r.ID, &r.Data, &left); err != nil {
				return found, err
			}
			r.Handle, r.TTL = handleOf(r.ID), fromSeconds(left)
			if s.opts.HashIDs {
				r.ID = ""
			}
			found = append(found, r)
		}
		return found, rows.Err()
	})
}

// DeleteFound implements [Finder].
func (s *PostgresStore) DeleteFound(ctx context.Context, q Query) (int64, error) {
	sql, args := s.where(sqlDeleteFound, &q)
	return pgrun.Run(ctx, s.runner, pgrun.Repeatable, func(ctx context.Context, c *pgx.Conn) (live int64, err error) {
		return live, c.QueryRow(ctx, sql, args...).Scan(&live)
	})
}

// Handle implements [Finder].
func (s *PostgresStore) Handle(id string) string { return handleOf(s.sid(id)) }

// sid returns what the table holds for a session ID.
func (s *PostgresStore) sid(id string) string {
	if !s.opts.HashIDs || id == "" {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// where completes a statement with the conditions of q.
func (s *PostgresStore) where(sql string, q *Query) (string, []any) {
	conditions := []string{"NOT " + mark.SQL}
	var args []any
	condition := func(format string, arg any) {
		args = append(args, arg)
		conditions = append(conditions, fmt.Sprintf(format, len(args)))
	}
	if q.Key != "" {
		condition(strings.ReplaceAll(s.table.Value(q.Key), "%", "%%")+" = ANY($%d::text[])", slices.Clone(q.Values)) // a late statement may outlive the call
	}
	if q.Handle != "" {
		condition(sqlHandle+" = $%d::text", q.Handle)
	}
	if q.Except != "" {
		condition("sid <> $%d::text", s.sid(q.Except))
	}
	return strings.NewReplacer("%[1]s", s.table.Quoted(), "%[6]s", strings.Join(conditions, " AND "), "%[7]s", fmt.Sprint(max(q.Limit, 0))).
		Replace(strings.Join(strings.Fields(sql), " ")), args
}
