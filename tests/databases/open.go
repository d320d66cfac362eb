package databases

import (
	"context"
	"database/sql"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pgsession/session"
)

// Open gives the sessions and a *sql.DB, which share the connections of pool.
func Open(ctx context.Context, pool *pgxpool.Pool) (*session.Manager, *sql.DB, error) {
	sessions, err := session.Open(ctx, pool) // SESSION_SECRET
	if err != nil {
		return nil, nil, err
	}
	return sessions, stdlib.OpenDBFromPool(pool), nil
}
