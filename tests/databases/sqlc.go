package databases

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/pgsession/session"
	"github.com/pgsession/session/tests/databases/shopdb" // what sqlc generates
)

func orderSQLC(ctx context.Context, s *session.Session) error {
	return session.Transact(ctx, s, func(ctx context.Context, tx pgx.Tx) error {
		items, _ := cart.Get(s)
		if len(items) == 0 {
			return errEmpty
		}
		cart.Delete(s)
		for _, item := range items {
			if err := shopdb.New(tx).InsertOrder(ctx, item); err != nil {
				return err
			}
		}
		return nil
	})
}
