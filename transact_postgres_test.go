package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

const cartKey = session.Key[[]string]("cart")

// shop is a manager whose handlers turn carts into orders.
type shop struct {
	m     *session.Manager
	store *session.PostgresStore
	pool  *pgxpool.Pool // of the manager
	admin *pgxpool.Pool
	trace *tracer
}

func newShop(t testing.TB, opts session.PostgresOptions, cfg ...func(*session.Config)) *shop {
	t.Helper()
	s := &shop{trace: &tracer{}}
	url := pgtest.URL(t)
	s.admin = openPool(t, url)
	s.pool = openPool(t, url, s.trace.use, maxConns(8))
	s.store = newStore(t, s.pool, opts)
	s.m = patientManager(t, s.store, cfg...)
	execSQL(t, s.admin, "CREATE TABLE orders (what text, n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
	return s
}

func (s *shop) wantOrders(t testing.TB, want int) {
	t.Helper()
	if got := queryOne[int](t, s.admin, "SELECT count(*) FROM orders"); got != want {
		t.Errorf("orders: got %d, want %d", got, want)
	}
}

// fill logs a browser in that has something in its cart.
func (s *shop) fill(t testing.TB) *browser {
	t.Helper()
	b := login(t, s.m)
	b.visit(func(s *session.Session) { cartKey.Set(s, []string{"tea"}) })
	return b
}

func cartOf(b *browser) (items []string) {
	b.visit(func(s *session.Session) { items, _ = cartKey.Get(s) })
	return items
}

// order turns the cart into an order, if there is anything in it.
func order(s *session.Session) func(context.Context, pgx.Tx) error {
	return func(ctx context.Context, tx pgx.Tx) error {
		items, _ := cartKey.Get(s)
		if len(items) == 0 {
			return errEmpty
		}
		cartKey.Delete(s)
		_, err := tx.Exec(ctx, "INSERT INTO orders (what) VALUES ($1)", items[0])
		return err
	}
}

var (
	errEmpty = errors.New("the cart is empty")
	errShop  = errors.New("the shop has an error")
)

// transactions are the ways in which a store keeps records.
var transactions = []struct {
	name string
	opts session.PostgresOptions
	cfg  func(*session.Config)
}{
	{"as usual", session.PostgresOptions{}, func(*session.Config) {}},
	{"hashed IDs", session.PostgresOptions{HashIDs: true}, func(*session.Config) {}},
	{"encrypted", session.PostgresOptions{}, func(c *session.Config) { c.Encrypt = true }},
	{"single statements, with an absolute timeout", session.PostgresOptions{DisableBatching: true}, func(c *session.Config) { c.AbsoluteTimeout = 48 * time.Hour }},
	{"Express", session.PostgresOptions{}, func(c *session.Config) { c.Cookie.Format = session.FormatExpress }},
}

func TestTransact(t *testing.T) {
	for _, c := range transactions {
		t.Run(c.name, func(t *testing.T) {
			shop := newShop(t, c.opts, c.cfg)
			b := shop.fill(t)
			resp := b.visit(func(s *session.Session) {
				if err := session.Transact(t.Context(), s, order(s)); err != nil {
					t.Errorf("Transact: got %v, want no error", err)
				}
				if items, ok := cartKey.Get(s); ok {
					t.Errorf("cart after it: got %d items, want none", len(items))
				}
			})
			wantResponse(t, "order", resp, 200, "nothing")
			shop.wantOrders(t, 1)
			if got := cartOf(b); got != nil {
				t.Errorf("stored cart: got %d items, want none", len(got))
			}
			b.wantUser(t, "ada")
			b.visit(func(s *session.Session) {
				if err := session.Transact(t.Context(), s, order(s)); err != errEmpty {
					t.Errorf("the same again: got %v, want the function's error", err)
				}
			})
			shop.wantOrders(t, 1)
		})
	}
}

// What fails takes back what it has changed, and what the session was to save
// before is saved with the response.
func TestTransactUndone(t *testing.T) {
	type tx = pgx.Tx
	for _, c := range []struct {
		name string
		f    func(context.Context, *session.Session, tx) error
		want string // of the error
	}{
		{"an error of the function", func(context.Context, *session.Session, tx) error { return errShop }, errShop.Error()},
		{"a statement that fails", func(ctx context.Context, _ *session.Session, tx tx) error {
			_, err := tx.Exec(ctx, "SELECT 1/0")
			return err
		}, "22012"},
		{"one whose error is ignored", func(ctx context.Context, _ *session.Session, tx tx) error {
			_, _ = tx.Exec(ctx, "SELECT 1/0")
			return nil
		}, "a statement in the transaction has failed"},
		{"a constraint at COMMIT", func(ctx context.Context, _ *session.Session, tx tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO orders (n) VALUES (1), (1)")
			return err
		}, "23505"},
		{"COMMIT by the function", func(ctx context.Context, _ *session.Session, tx tx) error { return tx.Commit(ctx) }, "ended the transaction itself"},
		{"ROLLBACK by its SQL", func(ctx context.Context, _ *session.Session, tx tx) error {
			_, err := tx.Exec(ctx, "ROLLBACK")
			return err
		}, "ended the transaction itself"},
		{"rows left open", func(ctx context.Context, _ *session.Session, tx tx) error {
			_, err := tx.Query(ctx, "SELECT generate_series(1, 100000)")
			return err
		}, "left rows open"},
		{"its connection dies", func(ctx context.Context, _ *session.Session, tx tx) error {
			_ = tx.Conn().PgConn().Conn().Close()
			_, _ = tx.Exec(ctx, "SELECT 1")
			return nil
		}, "the connection was lost"},
		{"Renew, and an error", func(_ context.Context, s *session.Session, _ tx) error { s.Renew(); return errShop }, errShop.Error()},
		{"Destroy, and an error", func(_ context.Context, s *session.Session, _ tx) error { s.Destroy(); return errShop }, errShop.Error()},
		{"Destroy and a fresh session, and an error", func(_ context.Context, s *session.Session, _ tx) error {
			s.Destroy()
			userKey.Set(s, "eve")
			return errShop
		}, errShop.Error()},
		{"SetIdleTimeout, and an error", func(_ context.Context, s *session.Session, _ tx) error {
			s.SetIdleTimeout(time.Minute)
			return errShop
		}, errShop.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			shop := newShop(t, session.PostgresOptions{})
			b := shop.fill(t)
			cookie := b.cookie
			resp := b.visit(func(s *session.Session) {
				keyA.Set(s, "before")
				increment(s)
				err := session.Transact(t.Context(), s, func(ctx context.Context, tx pgx.Tx) error {
					if err := order(s)(ctx, tx); err != nil {
						return err
					}
					keyA.Set(s, "inside")
					increment(s)
					return c.f(ctx, s, tx)
				})
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("Transact: got %v, want an error with %q", err, c.want)
				}
				if a, _ := keyA.Get(s); a != "before" || s.Err() != nil {
					t.Errorf("after it: got %q, error %v, want what was before", a, s.Err())
				}
				keyB.Set(s, "after")
			})
			wantResponse(t, "order", resp, 200, "nothing")
			shop.wantOrders(t, 0)
			if b.cookie != cookie || countRecords(t, shop.admin) != 1 {
				t.Errorf("got another cookie, or %d records, want one session as it was", countRecords(t, shop.admin))
			}
			b.visit(func(s *session.Session) {
				a, _ := keyA.Get(s)
				z, _ := keyB.Get(s)
				if n, _ := countKey.Get(s); a != "before" || z != "after" || n != 1 {
					t.Errorf("stored: got %q, %q and %d, want before, after and 1", a, z, n)
				}
			})
			if got := cartOf(b); len(got) != 1 {
				t.Errorf("stored cart: got %d items, want the one", len(got))
			}
		})
	}
}

func TestTransactPanic(t *testing.T) {
	shop := newShop(t, session.PostgresOptions{})
	b := shop.fill(t)
	b.visit(func(s *session.Session) {
		func() {
			defer func() {
				if v := recover(); v != errShop {
					t.Errorf("panic: got %v, want the function's", v)
				}
			}()
			_ = session.Transact(t.Context(), s, func(ctx context.Context, tx pgx.Tx) error {
				if err := order(s)(ctx, tx); err != nil {
					t.Error(err)
				}
				panic(errShop)
			})
		}()
		if err := session.Transact(t.Context(), s, order(s)); err != nil {
			t.Errorf("another one: got %v, want no error", err)
		}
	})
	shop.wantOrders(t, 1)
}

// The function sees what is stored when it has the lock, and what the request has
// asked for before is done on that.
func TestTransactSeesWhatIsStored(t *testing.T) {
	shop := newShop(t, session.PostgresOptions{})
	b := shop.fill(t)
	r := b.begin()
	r.do(func(s *session.Session) { cartKey.Get(s); increment(s) })
	b.visit(func(s *session.Session) { cartKey.Set(s, []string{"milk"}); countKey.Set(s, 10) })
	r.do(func(s *session.Session) {
		err := session.Transact(t.Context(), s, func(ctx context.Context, tx pgx.Tx) error {
			items, _ := cartKey.Get(s)
			if n, _ := countKey.Get(s); !slices.Equal(items, []string{"milk"}) || n != 11 {
				t.Errorf("in the function: got %v and %d, want what another request has stored, and 11", items, n)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	wantResponse(t, "the request", r.end(), 200, "nothing")
	if got := counted(t, shop.m, b.cookie); got != 11 {
		t.Errorf("count: got %d, want 11", got)
	}
}

// Of overlapping orders of one cart, by one program or several, one is made: the
// others wait, for the queue of their program or for the row, and then find it empty.
func TestTransactOnce(t *testing.T) {
	url := pgtest.URL(t)
	admin := openPool(t, url)
	var shops []*session.Manager
	var pools []*pgxpool.Pool
	for range 3 {
		pools = append(pools, openPool(t, url, maxConns(4)))
		shops = append(shops, patientManager(t, newStore(t, pools[len(pools)-1])))
	}
	execSQL(t, admin, "CREATE TABLE orders (what text)")
	b := login(t, shops[0])
	b.visit(func(s *session.Session) { cartKey.Set(s, []string{"tea"}) })

	inside, leave := make(chan bool), make(chan bool)
	release := sync.OnceFunc(func() { close(leave) })
	t.Cleanup(release) // or the pools could not be closed
	var waiting, done sync.WaitGroup
	var made, empty atomic.Int64
	click := func(m *session.Manager, first bool) {
		b.with(m).visit(func(s *session.Session) {
			cartKey.Get(s)
			waiting.Done()
			err := session.Transact(t.Context(), s, func(ctx context.Context, tx pgx.Tx) error {
				if first {
					inside <- true
					<-leave
				}
				return order(s)(ctx, tx)
			})
			switch err {
			case nil:
				made.Add(1)
			case errEmpty:
				empty.Add(1)
			default:
				t.Errorf("Transact: got %v", err)
			}
		})
	}
	waiting.Add(1)
	done.Go(func() { click(shops[0], true) })
	<-inside
	const clicks = 60
	waiting.Add(clicks)
	for i := range clicks {
		done.Go(func() { click(shops[i%3], false) })
	}
	waiting.Wait()
	// The other two programs wait for the row, with a connection each; the others of
	// each wait behind that one, and hold none.
	awaitSQL(t, admin, "two wait for the row", blockedSQL, 2)
	for i, p := range pools {
		if got := p.Stat().AcquiredConns(); got != 1 {
			t.Errorf("connections of program %d while %d clicks wait: got %d, want one", i, clicks, got)
		}
	}
	// Nobody else does: another session is saved, and this one can be read.
	other := login(t, shops[1])
	other.wantUser(t, "ada")
	b.with(shops[2]).wantUser(t, "ada")
	release()
	done.Wait()
	if made.Load() != 1 || empty.Load() != clicks {
		t.Errorf("orders: got %d, %d found the cart empty, want 1 and %d", made.Load(), empty.Load(), clicks)
	}
	if got := queryOne[int](t, admin, "SELECT count(*) FROM orders"); got != 1 {
		t.Errorf("stored orders: got %d, want 1", got)
	}
}

// A request of the session that saves meanwhile waits for the transaction, and is
// merged with what that has stored.
func TestTransactBesideASave(t *testing.T) {
	shop := newShop(t, session.PostgresOptions{})
	b := shop.fill(t)
	saved := make(chan *response)
	b.visit(func(s *session.Session) {
		err := session.Transact(t.Context(), s, func(ctx context.Context, tx pgx.Tx) error {
			go func() {
				saved <- useSession(shop.m, b.cookie, func(s *session.Session) { increment(s); keyA.Set(s, "saved") })
			}()
			awaitRowWaits(t, shop.admin, 1, shop.store)
			increment(s)
			return order(s)(ctx, tx)
		})
		if err != nil {
			t.Error(err)
		}
	})
	if resp := <-saved; resp.status != 200 {
		t.Errorf("the save: got status %d, want 200", resp.status)
	}
	if got := counted(t, shop.m, b.cookie); got != 2 || cartOf(b) != nil {
		t.Errorf("count: got %d, want 2, and the cart empty", got)
	}
	shop.wantOrders(t, 1)
}

// The cookie of an ID that the function makes waits for COMMIT.
func TestTransactNewIDs(t *testing.T) {
	for _, c := range transactions {
		t.Run(c.name, func(t *testing.T) {
			shop := newShop(t, c.opts, c.cfg)
			set := func(s *session.Session, user string, err error) error {
				return session.Transact(t.Context(), s, func(context.Context, pgx.Tx) error {
					s.Renew()
					userKey.Set(s, user)
					if n := countRecords(t, shop.admin); n > 1 {
						t.Errorf("records while it runs: got %d", n)
					}
					return err
				})
			}
			b := &browser{m: shop.m}
			wantResponse(t, "a new session that is rolled back", b.visit(func(s *session.Session) { _ = set(s, "ada", errShop) }), 200, "nothing")
			if n := countRecords(t, shop.admin); n != 0 {
				t.Fatalf("records: got %d, want none", n)
			}
			wantResponse(t, "a new session", b.visit(func(s *session.Session) {
				if err := set(s, "ada", nil); err != nil {
					t.Error(err)
				}
			}), 200, "set")
			b.wantUser(t, "ada")

			old := b.cookie
			wantResponse(t, "a renewal that is rolled back", b.visit(func(s *session.Session) { _ = set(s, "eve", errShop) }), 200, "nothing")
			b.wantUser(t, "ada")
			late := b.begin()
			wantResponse(t, "a renewal", b.visit(func(s *session.Session) {
				if err := set(s, "bob", nil); err != nil {
					t.Error(err)
				}
			}), 200, "set")
			b.wantUser(t, "bob")
			(&browser{shop.m, old}).wantUser(t, "")
			late.do(func(s *session.Session) { keyA.Set(s, "late") })
			if resp := late.end(); resp.status != 409 {
				t.Errorf("a request of before: got status %d, want 409", resp.status)
			}

			wantResponse(t, "a logout", b.visit(func(s *session.Session) {
				err := session.Transact(t.Context(), s, func(context.Context, pgx.Tx) error { s.Destroy(); return nil })
				if err != nil || s.ID() != "" {
					t.Errorf("Destroy: got %v, and an ID: %t", err, s.ID() != "")
				}
			}), 200, "expired")
			if n := countRecords(t, shop.admin); n != 0 {
				t.Errorf("records after a logout: got %d, want none", n)
			}
		})
	}
}

// Where the session has ended meanwhile the function does not run.
func TestTransactEnded(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(*session.Session)
		want error
	}{
		{"destroyed", destroy, session.ErrDestroyed},
		{"renewed", logIn("bob"), session.ErrRenewed},
	} {
		t.Run(c.name, func(t *testing.T) {
			shop := newShop(t, session.PostgresOptions{})
			b := shop.fill(t)
			r := (&browser{shop.m, b.cookie}).begin()
			r.do(func(s *session.Session) { cartKey.Get(s) })
			b.visit(c.end)
			r.do(func(s *session.Session) {
				err := session.Transact(t.Context(), s, func(context.Context, pgx.Tx) error {
					t.Error("the function runs")
					return nil
				})
				if !errors.Is(err, c.want) || errors.Is(err, session.ErrRenewed) != (c.want == session.ErrRenewed) || !errors.Is(s.Err(), c.want) {
					t.Errorf("got %v, want %v, and that it sticks", err, c.want)
				}
			})
			if resp := r.end(); resp.status != 409 || resp.sent() != "nothing" {
				t.Errorf("got status %d, cookie %s, want 409 and none", resp.status, resp.sent())
			}
		})
	}
}

func TestTransactMisused(t *testing.T) {
	none := func(context.Context, pgx.Tx) error { return nil }
	for _, c := range []struct {
		name string
		f    func(context.Context, *session.Session, pgx.Tx)
	}{
		{"Save", func(ctx context.Context, s *session.Session, _ pgx.Tx) { _ = s.Save(context.Background()) }},
		{"Reload", func(ctx context.Context, s *session.Session, _ pgx.Tx) { _ = s.Reload(ctx) }},
		{"Transact", func(ctx context.Context, s *session.Session, _ pgx.Tx) { _ = session.Transact(ctx, s, none) }},
		{"SaveTx", func(ctx context.Context, s *session.Session, tx pgx.Tx) { _ = session.SaveTx(ctx, s, tx) }},
		{"a value that is none", func(_ context.Context, s *session.Session, _ pgx.Tx) { session.Key[any]("x").Set(s, func() {}) }},
		{"too much data", func(_ context.Context, s *session.Session, _ pgx.Tx) { keyA.Set(s, strings.Repeat("x", 1<<17)) }},
		{"the row changed by hand", func(ctx context.Context, s *session.Session, tx pgx.Tx) {
			keyA.Set(s, "x")
			_, _ = tx.Exec(ctx, `UPDATE schema_system.session SET sess = '{"cookie":{}}'`)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			shop := newShop(t, session.PostgresOptions{})
			b := shop.fill(t)
			resp := b.visit(func(s *session.Session) {
				err := session.Transact(t.Context(), s, func(ctx context.Context, tx pgx.Tx) error {
					if err := order(s)(ctx, tx); err != nil {
						t.Error(err)
					}
					c.f(ctx, s, tx)
					return nil
				})
				if !errors.Is(err, session.ErrInvalid) {
					t.Errorf("got %v, want ErrInvalid", err)
				}
			})
			if resp.status != 500 {
				t.Errorf("got status %d, want 500", resp.status)
			}
			shop.wantOrders(t, 0)
			if got := cartOf(b); len(got) != 1 {
				t.Errorf("cart: got %d items, want the one", len(got))
			}
		})
	}
	t.Run("the first byte", func(t *testing.T) {
		shop := newShop(t, session.PostgresOptions{})
		b := shop.fill(t)
		resp := b.serve(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			_ = session.Transact(t.Context(), s, func(ctx context.Context, tx pgx.Tx) error {
				_ = order(s)(ctx, tx)
				_, _ = io.WriteString(w, "ordered")
				return nil
			})
		})
		if resp.status != 500 || strings.Contains(resp.body, "ordered") {
			t.Errorf("got %d %q, want 500", resp.status, resp.body)
		}
		shop.wantOrders(t, 0)
	})
	shop := newShop(t, session.PostgresOptions{})
	b := shop.fill(t)
	b.visit(func(s *session.Session) {
		countKey.Update(s, func(n int) int {
			if err := session.Transact(t.Context(), s, none); !errors.Is(err, session.ErrInvalid) {
				t.Errorf("in a function of Update: got %v, want ErrInvalid", err)
			}
			return n
		})
	})
	b.visit(func(s *session.Session) {
		s.Detach()
		if err := session.Transact(t.Context(), s, none); !errors.Is(err, session.ErrInvalid) || s.Err() != nil {
			t.Errorf("after Detach: got %v, want ErrInvalid, which does not stick", err)
		}
	})
	var after *session.Session
	b.visit(func(s *session.Session) { after = s })
	if err := session.Transact(t.Context(), after, none); !errors.Is(err, session.ErrFinished) {
		t.Errorf("after the handler: got %v, want ErrFinished", err)
	}
	memory := login(t, newManager(t, session.NewMemoryStore(), session.Config{}))
	memory.visit(func(s *session.Session) {
		if err := session.Transact(t.Context(), s, none); !errors.Is(err, session.ErrInvalid) || !strings.Contains(err.Error(), "*session.MemoryStore") {
			t.Errorf("a memory store: got %v, want ErrInvalid that names it", err)
		}
		if err := session.SaveTx(t.Context(), s, nil); !errors.Is(err, session.ErrInvalid) {
			t.Errorf("a memory store, SaveTx: got %v, want ErrInvalid", err)
		}
	})
	embedding := login(t, newManager(t, struct{ *session.PostgresStore }{shop.store}, session.Config{DisablePrune: true}))
	embedding.visit(func(s *session.Session) {
		if err := session.Transact(t.Context(), s, none); err != nil {
			t.Errorf("a store that embeds one: got %v, want no error", err)
		}
	})
}

// Its context bounds the wait for the row, and the connection survives it.
func TestTransactBounded(t *testing.T) {
	const limit = time.Second
	shop := newShop(t, session.PostgresOptions{})
	b := shop.fill(t)
	brief := b.with(patientManager(t, shop.store, storeTimeout(limit)))
	warmUp(t, shop.pool)
	before := backendPIDs(t, shop.pool)
	unlock := holdOpen(t, shop.admin, "SELECT FROM schema_system.session FOR UPDATE")
	never := func(context.Context, pgx.Tx) error {
		t.Error("the function runs")
		return nil
	}
	inTime := false
	for tries := 0; tries < 10 && !inTime; tries++ { // what a busy machine hears too late is cut
		before = backendPIDs(t, shop.pool)
		inTime = true
		transact := func(ctx context.Context, s *session.Session) error {
			start := time.Now()
			err := session.Transact(ctx, s, never)
			inTime = inTime && time.Since(start) < limit
			return err
		}
		brief.visit(func(s *session.Session) {
			if userKey.Get(s); s.Err() != nil {
				inTime = false
				return
			}
			if err := transact(context.Background(), s); !errors.Is(err, context.DeadlineExceeded) || s.Err() != nil {
				t.Errorf("without a deadline: got %v, want one of StoreTimeout, which does not stick", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			if err := transact(ctx, s); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("with a deadline: got %v, want it", err)
			}
		})
	}
	if got := backendPIDs(t, shop.pool); !inTime || !slices.Equal(got, before) {
		t.Errorf("server processes: got %v, want the %v of before; back before the deadline: %t", got, before, inTime)
	}
	unlock()
	b.visit(func(s *session.Session) {
		ctx, cancel := context.WithCancel(t.Context())
		err := session.Transact(ctx, s, func(ctx context.Context, tx pgx.Tx) error {
			err := order(s)(ctx, tx)
			cancel()
			return err
		})
		if !errors.Is(err, context.Canceled) || s.Err() != nil {
			t.Errorf("cancelled: got %v, want that it was", err)
		}
	})
	shop.wantOrders(t, 0)
	if got := backendPIDs(t, shop.pool); !slices.Equal(got, before) {
		t.Errorf("server processes: got %v, want the %v of before", got, before)
	}
}

// Transactions leave half of the pool to others.
func TestTransactLeavesConnections(t *testing.T) {
	url := pgtest.URL(t)
	pool := openPool(t, url, maxConns(4))
	m := patientManager(t, newStore(t, pool))
	var inside, done sync.WaitGroup
	leave := make(chan bool)
	inside.Add(2)
	var begun atomic.Int64
	for range 6 {
		b := login(t, m)
		done.Go(func() {
			b.visit(func(s *session.Session) {
				err := session.Transact(t.Context(), s, func(context.Context, pgx.Tx) error {
					if begun.Add(1) <= 2 {
						inside.Done()
						<-leave
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		})
	}
	inside.Wait()
	login(t, m).wantUser(t, "ada")
	if n := begun.Load(); n != 2 {
		t.Errorf("transactions on four connections: got %d, want 2", n)
	}
	close(leave)
	done.Wait()
}

// losing breaks connections at COMMIT: before the server hears of it, or after it
// has answered.
type losing struct {
	next atomic.Value // "request", "reply" or ""
}

func (l *losing) use(cfg *pgxpool.Config) {
	dial := (&net.Dialer{}).DialContext
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		return &losingConn{Conn: c, l: l}, err
	}
}

type losingConn struct {
	net.Conn
	l    *losing
	lost atomic.Bool
}

func (c *losingConn) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("commit\x00")) {
		switch c.l.next.Swap("") {
		case "request":
			c.Conn.Close()
			return 0, net.ErrClosed
		case "reply":
			c.lost.Store(true)
		}
	}
	return c.Conn.Write(p)
}

func (c *losingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.lost.Load() {
		c.Conn.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// Whether a COMMIT without an answer has happened is found out.
func TestTransactLostReply(t *testing.T) {
	for _, c := range transactions {
		t.Run(c.name, func(t *testing.T) {
			l := &losing{}
			l.next.Store("")
			url := pgtest.URL(t)
			admin := openPool(t, url)
			execSQL(t, admin, "CREATE TABLE orders (what text)")
			shop := &shop{admin: admin, m: patientManager(t, newStore(t, openPool(t, url, l.use), c.opts), c.cfg)}
			b := shop.fill(t)
			for i, what := range []string{"request", "reply"} {
				b.visit(func(s *session.Session) {
					l.next.Store(what)
					err := session.Transact(t.Context(), s, order(s))
					if (err == nil) != (what == "reply") || errors.Is(err, session.ErrUncertain) || s.Err() != nil {
						t.Errorf("%s lost: got %v, want that it is known", what, err)
					}
					if l.next.Load() != "" {
						t.Errorf("nothing was lost")
					}
				})
				shop.wantOrders(t, i)
				if got := len(cartOf(b)); got != 1-i {
					t.Errorf("%s lost: cart has %d items, want %d", what, got, 1-i)
				}
			}
			b.visit(func(s *session.Session) {
				l.next.Store("reply")
				if err := session.Transact(t.Context(), s, func(context.Context, pgx.Tx) error { s.Renew(); return nil }); err != nil {
					t.Errorf("a renewal: got %v, want no error", err)
				}
			})
			b.wantUser(t, "ada")
		})
	}
}

func TestTransactStatements(t *testing.T) {
	shop := newShop(t, session.PostgresOptions{})
	b := shop.fill(t)
	b.visit(func(s *session.Session) {
		userKey.Get(s)
		shop.trace.take()
		err := session.Transact(t.Context(), s, func(ctx context.Context, tx pgx.Tx) error {
			var timeout string
			if err := tx.QueryRow(ctx, "SELECT current_setting('lock_timeout')").Scan(&timeout); err != nil || timeout != "0" {
				t.Errorf("lock_timeout in the function: got %s, %v, want the pool's", timeout, err)
			}
			keyA.Set(s, "x")
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		got := shop.trace.take()
		if len(got) != 5 || got[0] != "begin isolation level read committed" || !strings.Contains(got[1], "FOR UPDATE OF s") || !strings.Contains(got[3], "SET sess") || got[4] != "commit" {
			t.Errorf("statements: got %q, want begin, lock, the function's, save, commit", got)
		}
		_ = session.Transact(t.Context(), s, func(context.Context, pgx.Tx) error { return nil })
		if got := shop.trace.take(); len(got) != 3 {
			t.Errorf("statements without a change: got %q, want begin, lock, commit", got)
		}
	})
	if got := shop.trace.take(); len(got) != 0 {
		t.Errorf("statements of the response: got %q, want none", got)
	}
	visitor := &browser{m: shop.m}
	visitor.visit(func(s *session.Session) {
		_ = session.Transact(t.Context(), s, func(context.Context, pgx.Tx) error { userKey.Set(s, "ada"); return nil })
		if got := shop.trace.take(); len(got) != 4 {
			t.Errorf("statements of a new session: got %q, want begin, its number, insert, commit", got)
		}
	})
	visitor.wantUser(t, "ada")
}

// MaxPerUser holds, once the transaction is committed.
func TestTransactMaxPerUser(t *testing.T) {
	shop := newShop(t, session.PostgresOptions{}, func(c *session.Config) { c.UserKey, c.MaxPerUser = string(userKey), 1 })
	first, second := login(t, shop.m), &browser{m: shop.m}
	awaitNextMillisecond()
	second.visit(func(s *session.Session) {
		if err := session.Transact(t.Context(), s, func(context.Context, pgx.Tx) error { userKey.Set(s, "ada"); return nil }); err != nil {
			t.Error(err)
		}
	})
	first.wantUser(t, "")
	second.wantUser(t, "ada")
	if got := shop.m.Stats(); got.Creates != 2 || got.Destroys != 1 {
		t.Errorf("counts: got %d created, %d destroyed, want 2 and 1", got.Creates, got.Destroys)
	}
}

// Other goroutines of the request may use the session meanwhile.
func TestTransactAndGoroutines(t *testing.T) {
	shop := newShop(t, session.PostgresOptions{})
	b := shop.fill(t)
	b.visit(func(s *session.Session) {
		var others sync.WaitGroup
		saved := make(chan error, 1)
		err := session.Transact(t.Context(), s, func(ctx context.Context, tx pgx.Tx) error {
			for i := range 8 {
				others.Go(func() { session.Key[int](fmt.Sprint("key", i)).Set(s, i) })
			}
			others.Wait()
			others.Go(func() { saved <- s.Save(context.Background()) }) // waits
			return order(s)(ctx, tx)
		})
		others.Wait()
		if err := errors.Join(err, <-saved); err != nil {
			t.Error(err)
		}
	})
	b.visit(func(s *session.Session) {
		if got := len(s.Keys()); got != 9 {
			t.Errorf("keys: got %d, want 9", got)
		}
	})
	shop.wantOrders(t, 1)
}

// UseToken is taken back too where the function fails.
func TestTransactTakesUseTokenBack(t *testing.T) {
	shop := newShop(t, session.PostgresOptions{}, func(c *session.Config) { c.TokenPrefix = "t_" })
	b := &browser{m: shop.m}
	resp := b.visit(func(s *session.Session) {
		err := session.Transact(context.Background(), s, func(context.Context, pgx.Tx) error {
			s.UseToken()
			return errShop
		})
		if err != errShop {
			t.Error(err)
		}
		userKey.Set(s, "ada")
	})
	if resp.newCookie() == "" {
		t.Errorf("no cookie; token %t", resp.header.Get("Session-Token") != "")
	}
}
