package databases

import (
	"context"
	"database/sql"

	"github.com/pgsession/session"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
)

type bunOrder struct {
	bun.BaseModel `bun:"table:orders"`

	ID   int64 `bun:",pk,autoincrement"`
	Item string
}

func openBun(db *sql.DB) *bun.DB { return bun.NewDB(db, pgdialect.New()) }

func orderBun(ctx context.Context, db *bun.DB, s *session.Session) error {
	items, _ := cart.Get(s)
	if len(items) == 0 {
		return errEmpty
	}
	var orders []bunOrder
	for _, item := range items {
		orders = append(orders, bunOrder{Item: item})
	}
	return db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewInsert().Model(&orders).Exec(ctx); err != nil {
			return err
		}
		cart.Delete(s)
		return session.SaveSQLTx(ctx, s, tx.Tx)
	})
}
