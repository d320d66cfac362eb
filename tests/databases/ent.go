package databases

import (
	"context"
	"database/sql"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	"github.com/pgsession/session"
)

// openEnt is for all that is no transaction: ent.NewClient(ent.Driver(openEnt(db))).
func openEnt(db *sql.DB) dialect.Driver { return entsql.OpenDB(dialect.Postgres, db) }

// entTx is for a transaction: ent.NewClient(ent.Driver(entTx(tx))). Commit and roll
// back tx, not the client, and do not call the client's Tx.
func entTx(tx *sql.Tx) dialect.Driver {
	return entsql.NewDriver(dialect.Postgres, entsql.Conn{ExecQuerier: tx})
}

func orderEnt(ctx context.Context, db *sql.DB, s *session.Session) error {
	items, _ := cart.Get(s)
	if len(items) == 0 {
		return errEmpty
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	insert := entsql.Dialect(dialect.Postgres).Insert("orders").Columns("item")
	for _, item := range items {
		insert.Values(item) // with your generated client: client.Order.Create().SetItem(item).Exec(ctx)
	}
	query, args := insert.Query()
	if err := entTx(tx).Exec(ctx, query, args, nil); err != nil {
		return err
	}
	cart.Delete(s)
	if err := session.SaveSQLTx(ctx, s, tx); err != nil {
		return err
	}
	return tx.Commit()
}
