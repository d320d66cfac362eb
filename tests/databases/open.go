package databases

import (
	"context"
	"database/sql"
	"errors"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pgsession/session"
)

const cart = session.Key[[]string]("cart")

var errEmpty = errors.New("the cart is empty")

// Open gives the sessions and a *sql.DB, which share the connections of pool.
func Open(ctx context.Context, pool *pgxpool.Pool) (*session.Manager, *sql.DB, error) {
	sessions, err := session.Open(ctx, pool) // SESSION_SECRET
	if err != nil {
		return nil, nil, err
	}
	return sessions, stdlib.OpenDBFromPool(pool), nil
}
