package session

import (
	"context"
	"slices"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/batch"
	"github.com/pgsession/session/internal/pgrun"
)

// sqlList names records without their data, as they all are at one moment: a session
// that is renewed meanwhile is there once, by one of its IDs.
const sqlList = `SELECT sid::pg_catalog.text FROM %[1]s WHERE sid IS NOT NULL AND ` + sqlFoundLive + ` AND %[6]s`

// lister is a [Finder] that can name records without their data, and load many in one
// statement. Others are asked to find them with all that they hold.
type lister interface {
	list(ctx context.Context, q Query) ([]string, error)
	loadAll(ctx context.Context, ids []string) []batch.Answer[Record]
}

func (s *PostgresStore) list(ctx context.Context, q Query) ([]string, error) {
	sql, args := s.where(sqlList, &q)
	return pgrun.Run(ctx, s.runner, pgrun.Read, func(ctx context.Context, c *pgx.Conn) ([]string, error) {
		ids, err := s.listOn(ctx, c, sql, args)
		if pgrun.SQLState(err) == "22021" { // as in Find
			ids, err = s.listOn(ctx, c, asBytes.Replace(sql), args)
		}
		return ids, err
	})
}

func (s *PostgresStore) listOn(ctx context.Context, c *pgx.Conn, sql string, args []any) (ids []string, err error) {
	rows, err := c.Query(ctx, sql, s.planned(args...)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var id []byte
	for rows.Next() {
		switch err := rows.Scan(&id); {
		case err != nil:
			return nil, err
		case !utf8.Valid(id): // nobody can ask for it
		case s.opts.HashIDs:
			ids = append(ids, asStored+string(id))
		default:
			ids = append(ids, string(id))
		}
	}
	return ids, rows.Err()
}

// loadAll is Load for many IDs, in one statement as far as that goes: what is in doubt
// or large is left to Load, by errAlone.
func (s *PostgresStore) loadAll(ctx context.Context, ids []string) []batch.Answer[Record] {
	sids := make([]string, len(ids))
	for i, id := range ids {
		sids[i] = s.sid(id)
	}
	if s.shared == nil || slices.ContainsFunc(sids, s.doubts.has) {
		answers := make([]batch.Answer[Record], len(ids))
		for i := range answers {
			answers[i].Err = errAlone
		}
		return answers
	}
	return s.loadMany(ctx, sids)
}
