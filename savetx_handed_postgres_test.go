package session_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgsession/session"
)

// afterLoad is a store that lets something happen after a load.
type afterLoad struct {
	*session.PostgresStore
	next atomic.Pointer[func()]
}

func (s *afterLoad) Load(ctx context.Context, id string) (session.Record, error) {
	rec, err := s.PostgresStore.Load(ctx, id)
	if f := s.next.Swap(nil); f != nil {
		(*f)()
	}
	return rec, err
}

// handIn hands what f asks for to a transaction that is committed, in as many steps.
func handIn(t testing.TB, shop *shop, s *session.Session, steps ...func(*session.Session)) {
	t.Helper()
	tx := hands[0].begin(t, shop)
	var errs []error
	for _, step := range steps {
		step(s)
		errs = append(errs, tx.save(s))
	}
	if err := errors.Join(append(errs, tx.commit())...); err != nil {
		t.Error(err)
	}
}

// Of two logins at once under MaxPerUser, one by SaveTx, the browser keeps the cookie of
// the one that lives.
func TestSaveTxMaxPerUserAndTwoClicks(t *testing.T) {
	shop := newShop(t, session.PostgresOptions{})
	store := &afterLoad{PostgresStore: shop.store}
	m := patientManager(t, store, limited)
	first := &browser{m: m}
	first.visit(func(s *session.Session) { keyA.Set(s, "a cart") })
	second := first.with(m)
	resp := first.visit(func(s *session.Session) {
		handIn(t, shop, s, logIn("ada"))
		click := func() {
			time.Sleep(5 * time.Millisecond)
			second.visit(logIn("ada"))
		}
		store.next.Store(&click)
	})
	second.take(resp)
	second.wantUser(t, "ada")
}
