// Package shopdb is written as sqlc generates it for sql_package: "pgx/v5" and the query
//
//	-- name: InsertOrder :exec
//	INSERT INTO orders (item) VALUES ($1);
package shopdb

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// DBTX is a pool, a connection or a transaction.
type DBTX interface {
	Exec(context.Context, string, ...any) (pgconn.CommandTag, error)
	Query(context.Context, string, ...any) (pgx.Rows, error)
	QueryRow(context.Context, string, ...any) pgx.Row
}

// New returns the queries, on db.
func New(db DBTX) *Queries { return &Queries{db: db} }

// Queries has a method for each query.
type Queries struct{ db DBTX }

// WithTx returns the queries, in tx.
func (q *Queries) WithTx(tx pgx.Tx) *Queries { return &Queries{db: tx} }

const insertOrder = `-- name: InsertOrder :exec
INSERT INTO orders (item) VALUES ($1)
`

// InsertOrder adds an order.
func (q *Queries) InsertOrder(ctx context.Context, item string) error {
	_, err := q.db.Exec(ctx, insertOrder, item)
	return err
}
