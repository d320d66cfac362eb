package session

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/pgrun"
)

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
