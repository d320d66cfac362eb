package session_test

import (
	"context"
	"errors"
	"net/http"
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

// MaxPerUser holds for whatever login SaveTx has stored.
func TestSaveTxMaxPerUser(t *testing.T) {
	shop := newShop(t, session.PostgresOptions{}, limited)
	for name, enter := range map[string]func(*session.Session){
		"once": func(s *session.Session) { handIn(t, shop, s, logIn("ada")) },
		"twice": func(s *session.Session) {
			handIn(t, shop, s, logIn("ada"), func(s *session.Session) { keyA.Set(s, "x") })
		},
		"under an ID that Save has made": func(s *session.Session) {
			keyA.Set(s, "x")
			save(t)(s)
			handIn(t, shop, s, func(s *session.Session) { userKey.Set(s, "ada") })
		},
	} {
		first, second := login(t, shop.m), &browser{m: shop.m}
		awaitNextMillisecond()
		second.visit(enter)
		if got, want := [2]string{first.user(), second.user()}, [2]string{"", "ada"}; got != want {
			t.Errorf("%s: got users %q, want %q", name, got, want)
		}
	}
}

// What two calls of SaveTx hand over is told, of each.
func TestSaveTxTellsOfEach(t *testing.T) {
	var heard ear
	shop := newShop(t, session.PostgresOptions{}, heard.use)
	b := &browser{m: shop.m}
	b.visit(func(s *session.Session) {
		handIn(t, shop, s, func(s *session.Session) { userKey.Set(s, "ada") }, func(s *session.Session) { keyA.Set(s, "x") })
	})
	b.visit(func(s *session.Session) { handIn(t, shop, s, renew, renew) })
	wantEvents(t, "the function", heard.took(t, shop.m), "created s1 ada; renewed s1 s2 ada; renewed s2 s3 ada")
}

// A stream follows a session that SaveTx has begun or renewed.
func TestWatchFollowsSaveTx(t *testing.T) {
	for _, known := range []bool{true, false} {
		shop := newShop(t, session.PostgresOptions{})
		session.WatchEvery(shop.m, 5*time.Millisecond)
		b := &browser{m: shop.m}
		if known {
			b = login(t, shop.m)
		}
		b.serve(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			ctx, cancel := s.Watch(r.Context())
			defer cancel()
			handIn(t, shop, s, logIn("eve"))
			time.Sleep(50 * time.Millisecond)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-ctx.Done():
				t.Errorf("known %t: the stream has ended with %v", known, context.Cause(ctx))
				return
			case <-time.After(100 * time.Millisecond):
			}
			if n, err := shop.m.Revoke(r.Context(), session.Everyone()); n != 1 || err != nil {
				t.Errorf("Revoke: got %d, %v", n, err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(patience):
				t.Errorf("known %t: the stream goes on after a logout", known)
			}
		})
	}
}

// What one transaction has stored stays, where a later one of the request is rolled back.
func TestSaveTxAfterSaveTx(t *testing.T) {
	shop := newShop(t, session.PostgresOptions{})
	b := &browser{m: shop.m}
	b.visit(func(s *session.Session) { keyA.Set(s, "cart") })
	b.visit(func(s *session.Session) {
		handIn(t, shop, s, logIn("ada"))
		tx := hands[0].begin(t, shop)
		s.Renew()
		if err := errors.Join(tx.save(s), tx.rollback()); err != nil {
			t.Error(err)
		}
	})
	b.wantUser(t, "ada")
}
