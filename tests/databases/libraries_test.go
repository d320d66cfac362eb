package databases

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	entsql "entgo.io/ent/dialect/sql"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/tests/databases/shopsql"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	conns    = 4
	patience = 30 * time.Second
)

type order func(context.Context, *session.Session) error

// libraries are the ways to write an order, each on the *sql.DB of the pool or on
// the pool itself. locks says that the second of two clicks waits, instead of a
// conflict.
var libraries = []struct {
	name  string
	locks bool
	own   bool // has connections of its own
	open  func(*testing.T, *shop) order
}{
	{name: "database/sql", open: func(_ *testing.T, shop *shop) order {
		return func(ctx context.Context, s *session.Session) error { return orderSQL(ctx, shop.db, s) }
	}},
	{name: "database/sql, lib/pq", own: true, open: func(t *testing.T, shop *shop) order {
		db := shop.openPQ(t)
		return func(ctx context.Context, s *session.Session) error { return orderSQL(ctx, db, s) }
	}},
	{name: "GORM", open: func(t *testing.T, shop *shop) order { return gormOrder(t, shop.db, false) }},
	{name: "GORM, PrepareStmt", open: func(t *testing.T, shop *shop) order { return gormOrder(t, shop.db, true) }},
	{name: "sqlx", open: func(_ *testing.T, shop *shop) order {
		x := openSQLX(shop.db)
		return func(ctx context.Context, s *session.Session) error { return orderSQLX(ctx, x, s) }
	}},
	{name: "bun", open: func(_ *testing.T, shop *shop) order {
		b := openBun(shop.db)
		return func(ctx context.Context, s *session.Session) error { return orderBun(ctx, b, s) }
	}},
	{name: "ent", open: func(t *testing.T, shop *shop) order {
		var rows entsql.Rows
		if err := openEnt(shop.db).Query(t.Context(), "SELECT FROM orders", []any{}, &rows); err != nil {
			t.Fatal(err)
		}
		_ = rows.Close()
		return func(ctx context.Context, s *session.Session) error { return orderEnt(ctx, shop.db, s) }
	}},
	{name: "sqlc, database/sql", open: func(_ *testing.T, shop *shop) order {
		return func(ctx context.Context, s *session.Session) error { return orderSQLCSQL(ctx, shop.db, s) }
	}},
	{name: "sqlc, pgx", locks: true, open: func(*testing.T, *shop) order { return orderSQLC }},
}

// orderSQLCSQL is orderSQL with what sqlc generates for database/sql.
func orderSQLCSQL(ctx context.Context, db *sql.DB, s *session.Session) error {
	items, _ := cart.Get(s)
	if len(items) == 0 {
		return errEmpty
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	for _, item := range items {
		if err := shopsql.New(tx).InsertOrder(ctx, item); err != nil {
			return err
		}
	}
	cart.Delete(s)
	if err := session.SaveSQLTx(ctx, s, tx); err != nil {
		return err
	}
	return tx.Commit()
}

func gormOrder(t *testing.T, db *sql.DB, prepare bool) order {
	g, err := openGORM(db)
	if err != nil {
		t.Fatal(err)
	}
	g.Logger = logger.Discard // it would print the COMMIT that is refused on purpose
	g = g.Session(&gorm.Session{PrepareStmt: prepare})
	return func(ctx context.Context, s *session.Session) error { return orderGORM(ctx, g, s) }
}

// shop is an application with a table of its own beside the sessions.
type shop struct {
	pool     *pgxpool.Pool
	db       *sql.DB
	sessions *session.Manager
	log      *bytes.Buffer
}

func newShop(t *testing.T) *shop {
	t.Helper()
	shop := &shop{log: new(bytes.Buffer)}
	shop.pool = pgtest.Pool(t, func(cfg *pgxpool.Config) { cfg.MaxConns = conns })
	logger := slog.New(slog.NewTextHandler(shop.log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	store, err := session.NewPostgresStore(t.Context(), shop.pool, session.PostgresOptions{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	shop.sessions, err = session.New(store, session.Config{
		Secret: "for tests only: 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A", StoreTimeout: patience, DisablePrune: true, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = shop.sessions.Close() })
	shop.db = stdlib.OpenDBFromPool(shop.pool)
	t.Cleanup(func() { _ = shop.db.Close() })
	// A reference that COMMIT checks: what is refused there, everything was written before.
	for _, statement := range []string{
		"CREATE TABLE goods (name text PRIMARY KEY)", "INSERT INTO goods VALUES ('tea'), ('milk')",
		"CREATE TABLE orders (id bigserial PRIMARY KEY, item text REFERENCES goods DEFERRABLE INITIALLY DEFERRED)",
	} {
		if _, err := shop.pool.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	return shop
}

// openPQ opens the database by lib/pq, beside the pool.
func (shop *shop) openPQ(t *testing.T) *sql.DB {
	t.Helper()
	c := shop.pool.Config().ConnConfig
	db, err := sql.Open("postgres", fmt.Sprintf("host=%s port=%d dbname=%s user=%s password='%s' sslmode=disable", c.Host, c.Port, c.Database, c.User, c.Password))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// visit serves one request of the visitor with these cookies.
func (shop *shop) visit(cookies []*http.Cookie, page http.HandlerFunc) *http.Response {
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	for _, c := range cookies {
		r.AddCookie(c)
	}
	w := httptest.NewRecorder()
	shop.sessions.Handler(page).ServeHTTP(w, r)
	return w.Result()
}

// fill gives a new visitor a cart.
func (shop *shop) fill(items ...string) []*http.Cookie {
	return shop.visit(nil, func(_ http.ResponseWriter, r *http.Request) {
		cart.Set(session.From(r.Context()), items)
	}).Cookies()
}

func (shop *shop) want(t *testing.T, cookies []*http.Cookie, orders int, items ...string) {
	t.Helper()
	var got int
	if err := shop.pool.QueryRow(t.Context(), "SELECT count(*) FROM orders").Scan(&got); err != nil || got != orders {
		t.Errorf("orders: got %d, %v, want %d", got, err, orders)
	}
	shop.visit(cookies, func(_ http.ResponseWriter, r *http.Request) {
		if got, _ := cart.Get(session.From(r.Context())); !slices.Equal(got, items) {
			t.Errorf("cart: got %q, want %q", got, items)
		}
	})
}

// With each library the order and the cart without it are one transaction: on
// COMMIT both are stored, and where COMMIT is refused neither is.
func TestLibrariesShareATransaction(t *testing.T) {
	t.Parallel()
	for _, lib := range libraries {
		t.Run(lib.name, func(t *testing.T) {
			t.Parallel()
			shop := newShop(t)
			place := lib.open(t, shop)
			visit := func(cookies []*http.Cookie) (err error) {
				shop.visit(cookies, func(_ http.ResponseWriter, r *http.Request) {
					s := session.From(r.Context())
					if err = place(r.Context(), s); err != nil {
						_ = s.Reload(r.Context())
					}
				})
				return err
			}
			nothing := shop.fill("tea", "what is not for sale")
			if err := visit(nothing); err == nil || !strings.Contains(err.Error(), "orders_item_fkey") {
				t.Errorf("an order that COMMIT refuses: got %v, want PostgreSQL's error", err)
			}
			shop.want(t, nothing, 0, "tea", "what is not for sale")
			tea := shop.fill("tea", "milk", "tea")
			if err := visit(tea); err != nil {
				t.Errorf("an order: got %v, want no error", err)
			}
			shop.want(t, tea, 3)
			var ordered []string
			if err := shop.pool.QueryRow(t.Context(), "SELECT array_agg(item ORDER BY id) FROM orders").Scan(&ordered); err != nil || !slices.Equal(ordered, []string{"tea", "milk", "tea"}) {
				t.Errorf("ordered: got %q, %v, want all of the cart", ordered, err)
			}
			if err := visit(tea); !errors.Is(err, errEmpty) {
				t.Errorf("the next: got %v, want %v", err, errEmpty)
			}
			shop.want(t, tea, 3)
			if shop.log.Len() > 0 {
				t.Errorf("log: got %s, want nothing", shop.log)
			}
		})
	}
}

// However many click at once, and though all of them have seen the full cart, there
// is one order: the others are told of a conflict, or have waited and find the cart
// empty.
func TestLibrariesOrderOnce(t *testing.T) {
	t.Parallel()
	const clicks = 8
	for _, lib := range libraries {
		t.Run(lib.name, func(t *testing.T) {
			t.Parallel()
			shop := newShop(t)
			place := lib.open(t, shop)
			tea := shop.fill("tea")
			var seen, done sync.WaitGroup
			seen.Add(clicks)
			got := make([]string, clicks)
			for i := range clicks {
				done.Go(func() {
					var err error
					answer := shop.visit(tea, func(_ http.ResponseWriter, r *http.Request) {
						s := session.From(r.Context())
						if items, _ := cart.Get(s); len(items) != 1 {
							t.Errorf("before: got %q, want a full cart", items)
						}
						seen.Done()
						seen.Wait()
						err = place(r.Context(), s)
					})
					switch {
					case errors.Is(err, session.ErrConflict):
						err = session.ErrConflict
					case errors.Is(err, errEmpty):
						err = errEmpty
					}
					got[i] = fmt.Sprint(answer.StatusCode, " ", err)
				})
			}
			done.Wait()
			want := slices.Repeat([]string{fmt.Sprint("409 ", session.ErrConflict)}, clicks-1)
			if lib.locks {
				want = slices.Repeat([]string{fmt.Sprint("200 ", errEmpty)}, clicks-1)
			}
			want = append(want, "200 <nil>")
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("answers: got %q, want %q", got, want)
			}
			shop.want(t, tea, 1)
		})
	}
}

// The library and the sessions have no more connections than the pool has, and
// when the *sql.DB is closed the sessions go on.
func TestLibrariesShareAPool(t *testing.T) {
	t.Parallel()
	const visitors = 4 * conns
	for _, lib := range libraries {
		if lib.own {
			continue
		}
		t.Run(lib.name, func(t *testing.T) {
			t.Parallel()
			shop := newShop(t)
			place := lib.open(t, shop)
			var all sync.WaitGroup
			for range visitors {
				all.Go(func() {
					tea := shop.fill("tea")
					shop.visit(tea, func(_ http.ResponseWriter, r *http.Request) {
						if err := place(r.Context(), session.From(r.Context())); err != nil {
							t.Errorf("an order: got %v, want no error", err)
						}
					})
				})
			}
			all.Wait()
			if n := shop.db.Stats().Idle; n != 0 {
				t.Errorf("connections that the *sql.DB keeps: got %d, want none: they are the pool's", n)
			}
			var backends int32
			err := shop.pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'").Scan(&backends)
			if err != nil || backends > conns {
				t.Errorf("connections: got %d, %v, want %d at most", backends, err, conns)
			}
			if err := shop.db.Close(); err != nil {
				t.Error(err)
			}
			shop.want(t, shop.fill("tea"), visitors, "tea")
		})
	}
}

// What PostgreSQL says of a statement of the session's may quote the session. Whichever
// driver it comes by, the error says its code and no more, also to whoever unwraps it.
func TestErrorsOfDriversQuoteNothing(t *testing.T) {
	t.Parallel()
	shop := newShop(t)
	if _, err := shop.pool.Exec(t.Context(), `CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN RAISE EXCEPTION 'not this: %', OLD.sess USING ERRCODE = '23514', DETAIL = OLD.sess::text; END $$`); err != nil {
		t.Fatal(err)
	}
	for name, db := range map[string]*sql.DB{"pgx": shop.db, "lib/pq": shop.openPQ(t)} {
		tea := shop.fill("tea")
		if _, err := shop.pool.Exec(t.Context(), "CREATE TRIGGER tell BEFORE UPDATE ON schema_system.session FOR EACH ROW EXECUTE FUNCTION tell()"); err != nil {
			t.Fatal(err)
		}
		var err error
		shop.visit(tea, func(_ http.ResponseWriter, r *http.Request) {
			err = orderSQL(r.Context(), db, session.From(r.Context()))
		})
		if err == nil || !strings.Contains(err.Error(), "23514") || strings.Contains(err.Error(), "cart") {
			t.Errorf("%s: got an error without the code, or with data, or none", name)
		}
		var theirs *pq.Error
		var ours *pgconn.PgError
		if errors.As(err, &theirs) || errors.As(err, &ours) && strings.Contains(fmt.Sprint(*ours), "cart") {
			t.Errorf("%s: the error that is wrapped quotes the session", name)
		}
		if _, err := shop.pool.Exec(t.Context(), "DROP TRIGGER tell ON schema_system.session"); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(shop.log.String(), "cart") {
		t.Error("the log quotes the session")
	}
}

// One click makes an order of the whole cart, and the next one none.
func TestCheckout(t *testing.T) {
	t.Parallel()
	shop := newShop(t)
	if _, err := shop.pool.Exec(t.Context(), "ALTER TABLE orders ADD items text[]"); err != nil {
		t.Fatal(err)
	}
	tea := shop.fill("tea", "milk")
	for _, want := range []error{nil, errEmpty} {
		shop.visit(tea, func(_ http.ResponseWriter, r *http.Request) {
			if err := checkout(r.Context(), shop.pool, session.From(r.Context())); !errors.Is(err, want) {
				t.Errorf("checkout: got %v, want %v", err, want)
			}
		})
		shop.want(t, tea, 1)
	}
	var items []string
	if err := shop.pool.QueryRow(t.Context(), "SELECT items FROM orders").Scan(&items); err != nil || !slices.Equal(items, []string{"tea", "milk"}) {
		t.Errorf("ordered: got %q, %v, want all of the cart", items, err)
	}
}
