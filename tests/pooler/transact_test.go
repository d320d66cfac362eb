package pooler_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session"
)

const cart = session.Key[[]string]("cart")

var errEmpty = errors.New("the cart is empty")

// Transactions, numbers that are final, changes from outside, and an outbox: each
// transaction stays on one connection of the server, whatever the clients share.
func TestTransactionsInTransactionMode(t *testing.T) {
	const clicks, calls = 8, 16
	eachMode(t, func(t *testing.T, mode pgx.QueryExecMode, opts session.PostgresOptions) {
		b := start(t, "transaction")
		pool := open(t, b.url, mode)
		opts.Outbox = "session_outbox"
		store, _ := newStore(t, pool, opts)
		m, err := session.New(store, session.Config{
			Secret: "for tests only: 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A", StoreTimeout: patience, DisablePrune: true, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		direct := open(t, b.direct, pgx.QueryExecModeExec)
		if _, err := direct.Exec(t.Context(), "CREATE TABLE orders (what text)"); err != nil {
			t.Fatal(err)
		}
		var drawn sync.Map
		mux := http.NewServeMux()
		mux.HandleFunc("/fill", func(_ http.ResponseWriter, r *http.Request) {
			cart.Set(session.From(r.Context()), []string{"tea"})
		})
		mux.HandleFunc("/order", func(_ http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			err := session.Transact(r.Context(), s, func(ctx context.Context, tx pgx.Tx) error {
				items, _ := cart.Get(s)
				if len(items) == 0 {
					return errEmpty
				}
				cart.Delete(s)
				_, err := tx.Exec(ctx, "INSERT INTO orders VALUES ($1)", items[0])
				return err
			})
			if err != nil && !errors.Is(err, errEmpty) {
				t.Errorf("Transact: got %v, want no error", err)
			}
		})
		mux.HandleFunc("/save", func(_ http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			tx, err := pool.Begin(r.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = tx.Rollback(r.Context()) }()
			cart.Set(s, []string{"milk"})
			s.Renew()
			if err := errors.Join(session.SaveTx(r.Context(), s, tx), tx.Commit(r.Context())); err != nil {
				t.Errorf("SaveTx: got %v, want no error", err)
			}
		})
		mux.HandleFunc("/number", func(_ http.ResponseWriter, r *http.Request) {
			n, err := count.UpdateNow(r.Context(), session.From(r.Context()), func(n int) int { return n + 1 })
			if _, again := drawn.LoadOrStore(n, true); again || err != nil {
				t.Errorf("UpdateNow: got %d, again %t, %v, want a number of its own", n, again, err)
			}
		})
		server := httptest.NewServer(m.Handler(mux))
		t.Cleanup(func() {
			server.Close()
			_ = m.Close()
		})
		ada := site{urls: []string{server.URL}}.browser(t)
		at := func(n int, path string) {
			var all sync.WaitGroup
			for range n {
				all.Go(func() { ada.want(0, path, http.StatusOK) })
			}
			all.Wait()
		}
		at(1, "/fill")
		at(clicks, "/order")
		if got := get[int](t, direct, "SELECT count(*) FROM orders"); got != 1 {
			t.Errorf("orders after %d clicks: got %d, want one", clicks, got)
		}
		at(1, "/save")
		at(1, "/order")
		if got := get[string](t, direct, "SELECT string_agg(what, ' ') FROM orders"); got != "tea milk" {
			t.Errorf("orders: got %q, want tea and milk", got)
		}
		at(calls, "/number")
		n, err := m.Edit(t.Context(), session.Everyone(), func(s *session.Session) error {
			count.Update(s, func(n int) int { return n + 1 })
			return nil
		})
		if n != 1 || err != nil {
			t.Errorf("Edit: got %d, %v, want the one session", n, err)
		}
		at(1, "/number")
		if _, ok := drawn.Load(calls + 2); !ok {
			t.Error("the number after an Edit: it is not the next but one")
		}
		if got := get[string](t, direct, "SELECT string_agg(kind, ' ' ORDER BY id) FROM schema_system.session_outbox"); got != "created renewed" {
			t.Errorf("the outbox: got %q, want created and renewed", got)
		}
	})
}
