package databases

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/pgsession/session"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
)

// Order is a row of the table orders.
type Order struct {
	ID   int64
	Item string
}

func openGORM(db *sql.DB) (*gorm.DB, error) {
	return gorm.Open(postgres.New(postgres.Config{Conn: db}), &gorm.Config{})
}

func orderGORM(ctx context.Context, db *gorm.DB, s *session.Session) error {
	items, _ := cart.Get(s)
	if len(items) == 0 {
		return errEmpty
	}
	var orders []Order
	for _, item := range items {
		orders = append(orders, Order{Item: item})
	}
	return db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if err := tx.Create(&orders).Error; err != nil {
			return err
		}
		under, err := sqlTx(tx)
		if err != nil {
			return err
		}
		cart.Delete(s)
		return session.SaveSQLTx(ctx, s, under)
	})
}

// sqlTx is what GORM's transaction runs on, with PrepareStmt too.
func sqlTx(tx *gorm.DB) (*sql.Tx, error) {
	pool := tx.Statement.ConnPool
	if prepared, ok := pool.(*gorm.PreparedStmtTX); ok {
		pool = prepared.Tx
	}
	if under, ok := pool.(*sql.Tx); ok {
		return under, nil
	}
	return nil, fmt.Errorf("no transaction: GORM runs on a %T", pool)
}
