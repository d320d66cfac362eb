package session_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session"
)

// What a transaction begins, renews and ends is told once it is committed, and never
// where it was rolled back; a row of the outbox is of the same transaction.
func TestTransactTells(t *testing.T) {
	for _, c := range transactions {
		t.Run(c.name, func(t *testing.T) {
			var heard ear
			shop := newShop(t, withOutbox(c.opts), c.cfg, heard.use)
			do := func(b *browser, result error, f func(*session.Session)) {
				t.Helper()
				b.visit(func(s *session.Session) {
					err := session.Transact(t.Context(), s, func(context.Context, pgx.Tx) error {
						f(s)
						return result
					})
					if err != result {
						t.Errorf("Transact: got %v, want %v", err, result)
					}
				})
			}
			login := func(s *session.Session) { userKey.Set(s, "ada") }
			renew := func(s *session.Session) { s.Renew() }
			end := func(s *session.Session) { s.Destroy() }
			b := &browser{m: shop.m}
			do(b, errShop, login)
			do(b, nil, login)
			do(b, errShop, renew)
			do(b, nil, renew)
			do(b, errShop, end)
			do(b, nil, end)
			want := "created s1 ada; renewed s1 s2 ada; destroyed s2 ada"
			wantEvents(t, "the function", heard.took(t, shop.m), want)
			if got := queryOne[string](t, shop.admin, "SELECT string_agg(kind, ' ' ORDER BY id) FROM "+outbox); got != "created renewed destroyed" {
				t.Errorf("the outbox: got %q, want each once", got)
			}
		})
	}
}

// What was handed to the caller's own transaction is told when the response has
// found it committed.
func TestSaveTxTells(t *testing.T) {
	for _, h := range hands {
		t.Run(h.name, func(t *testing.T) {
			var heard ear
			shop := newShop(t, withOutbox(session.PostgresOptions{}), heard.use)
			b := &browser{m: shop.m}
			do := func(end func(handed) error, f func(*session.Session)) {
				t.Helper()
				b.visit(func(s *session.Session) {
					tx := h.begin(t, shop)
					f(s)
					if err := errors.Join(tx.save(s), end(tx)); err != nil {
						t.Error(err)
					}
				})
			}
			commit, rollback := func(tx handed) error { return tx.commit() }, func(tx handed) error { return tx.rollback() }
			login := func(s *session.Session) { userKey.Set(s, "ada") }
			renew := func(s *session.Session) { s.Renew() }
			do(rollback, login)
			do(commit, login)
			do(rollback, renew)
			do(commit, renew)
			wantEvents(t, "the function", heard.took(t, shop.m), "created s1 ada; renewed s1 s2 ada")
			if got := queryOne[string](t, shop.admin, "SELECT string_agg(kind, ' ' ORDER BY id) FROM "+outbox); got != "created renewed" {
				t.Errorf("the outbox: got %q, want each once", got)
			}
		})
	}
}
