package databases

import (
	"context"
	"database/sql"

	"github.com/jmoiron/sqlx"
	"github.com/pgsession/session"
)

func openSQLX(db *sql.DB) *sqlx.DB { return sqlx.NewDb(db, "pgx") }

func orderSQLX(ctx context.Context, db *sqlx.DB, s *session.Session) error {
	items, _ := cart.Get(s)
	if len(items) == 0 {
		return errEmpty
	}
	tx, err := db.BeginTxx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var orders []map[string]any
	for _, item := range items {
		orders = append(orders, map[string]any{"item": item})
	}
	if _, err := tx.NamedExecContext(ctx, "INSERT INTO orders (item) VALUES (:item)", orders); err != nil {
		return err
	}
	cart.Delete(s)
	if err := session.SaveSQLTx(ctx, s, tx.Tx); err != nil {
		return err
	}
	return tx.Commit()
}
