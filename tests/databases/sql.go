package databases

import (
	"context"
	"database/sql"
	"errors"

	"github.com/pgsession/session"
)

const cart = session.Key[[]string]("cart")

var errEmpty = errors.New("the cart is empty")

// orderSQL makes the cart an order, both or neither.
func orderSQL(ctx context.Context, db *sql.DB, s *session.Session) error {
	items, _ := cart.Get(s) // before the transaction holds a connection
	if len(items) == 0 {
		return errEmpty
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	for _, item := range items {
		if _, err := tx.ExecContext(ctx, "INSERT INTO orders (item) VALUES ($1)", item); err != nil {
			return err
		}
	}
	cart.Delete(s)
	if err := session.SaveSQLTx(ctx, s, tx); err != nil {
		return err
	}
	return tx.Commit()
}
