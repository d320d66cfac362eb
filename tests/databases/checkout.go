package databases

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pgsession/session"
)

func checkout(ctx context.Context, pool *pgxpool.Pool, s *session.Session) error {
	items, _ := cart.Get(s) // of a second click it is empty, or SaveTx says ErrConflict
	if len(items) == 0 {
		return errEmpty
	}
	tx, err := pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	if _, err := tx.Exec(ctx, "INSERT INTO orders (items) VALUES ($1)", items); err != nil {
		return err
	}
	cart.Delete(s)
	if err := session.SaveTx(ctx, s, tx); err != nil { // SaveSQLTx for a *sql.Tx
		return err
	}
	return tx.Commit(ctx) // before the first byte of the response
}
