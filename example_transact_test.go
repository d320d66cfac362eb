package session_test

import (
	"context"
	"errors"
	"log"
	"net/http"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
)

// A cart becomes an order exactly once, however often the button is clicked: the
// second click waits for the first, and then finds the cart empty.
func ExampleTransact() {
	const cart = session.Key[[]string]("cart")
	errEmpty := errors.New("the cart is empty")

	order := func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		err := session.Transact(r.Context(), s, func(ctx context.Context, tx pgx.Tx) error {
			items, _ := cart.Get(s) // as it is now that nobody else can change it
			if len(items) == 0 {
				return errEmpty
			}
			cart.Delete(s)
			_, err := tx.Exec(ctx, "INSERT INTO orders (items) VALUES ($1)", items)
			return err
		})
		if err != nil && !errors.Is(err, errEmpty) {
			log.Print(err)
			http.Error(w, "Please click again: it will not be ordered twice.", http.StatusServiceUnavailable)
			return
		}
		http.Redirect(w, r, "/thanks", http.StatusSeeOther)
	}
	http.HandleFunc("POST /order", order)
}

// The session is saved in a transaction that the application has begun. Where
// another request has changed it since, that is ErrConflict, and nothing is stored.
func ExampleSaveTx() {
	const cart = session.Key[[]string]("cart")
	errEmpty := errors.New("the cart is empty")

	checkout := func(ctx context.Context, pool *pgxpool.Pool, s *session.Session) error {
		items, _ := cart.Get(s) // of a second click it is empty, or SaveTx says ErrConflict
		if len(items) == 0 {
			return errEmpty
		}
		tx, err := pool.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(ctx)
		if _, err := tx.Exec(ctx, "INSERT INTO orders (items) VALUES ($1)", items); err != nil {
			return err
		}
		cart.Delete(s)
		if err := session.SaveTx(ctx, s, tx); err != nil {
			return err
		}
		return tx.Commit(ctx) // before the first byte of the response
	}
	_ = checkout
}
