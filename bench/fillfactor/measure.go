package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"

	"github.com/pgsession/session/bench/internal/app"
	"github.com/pgsession/session/bench/internal/rig"
)

// Report is everything that was measured; fillfactor.json holds it.
type Report struct {
	rig.Occasion
	Rows  int     `json:"rows"`
	Saves int     `json:"savesOfEach"`
	Held  int     `json:"savedWhileATransactionIsOpenPercent"`
	Cells []*Cell `json:"cells"`
}

// Cell is one size of record, one fillfactor, with or without a transaction that
// stays open.
type Cell struct {
	Kind       kind      `json:"kind"`
	Bytes      int       `json:"recordBytes"` // on average, before the saves
	Factor     int       `json:"fillfactor"`
	Open       bool      `json:"openTransaction"`
	HeapOnly   []float64 `json:"heapOnly"` // share, of each round
	WAL        []float64 `json:"wal"`      // bytes a save
	CPU        []float64 `json:"cpu"`      // PostgreSQL's, microseconds a save
	TableBytes []float64 `json:"tableBytes"`
	Before     []float64 `json:"tableBytesBefore"`
}

// kind is what a session's data is like.
type kind struct {
	Bytes    int  `json:"bytes"` // of the record, about
	Compress bool `json:"compress"`
}

const database = "bench_fillfactor"

func measure(ctx context.Context, o options) (*Report, error) {
	stage, err := rig.NewStage(ctx, rig.Setup{})
	if err != nil {
		return nil, err
	}
	defer stage.Close()
	if err := stage.Postgres.Create(ctx, database, ""); err != nil {
		return nil, err
	}
	r := &Report{Occasion: rig.Now(stage.Postgres.Version), Rows: o.rows, Saves: o.saves, Held: o.held}
	for _, k := range o.kinds() {
		for _, open := range []bool{false, true} {
			for _, factor := range o.factors {
				r.Cells = append(r.Cells, &Cell{Kind: k, Factor: factor, Open: open})
			}
		}
	}
	for range o.rounds {
		for _, c := range r.Cells {
			rig.Log("%s, fillfactor %d, open transaction: %t", c.Kind, c.Factor, c.Open)
			if err := one(ctx, stage, o, c); err != nil {
				return nil, fmt.Errorf("%s, fillfactor %d: %w", c.Kind, c.Factor, err)
			}
		}
	}
	return r, nil
}

// kinds are the sizes, and for those that PostgreSQL tries to compress also such
// data as that succeeds with.
func (o options) kinds() (kinds []kind) {
	for _, n := range o.sizes {
		kinds = append(kinds, kind{Bytes: n})
		if n > 2000 {
			kinds = append(kinds, kind{Bytes: n, Compress: true})
		}
	}
	return kinds
}

func (k kind) String() string {
	s := rig.Fixed(float64(k.Bytes)/1000, 1) + " KB"
	if k.Compress {
		s += ", compressible"
	}
	return s
}

// fact is one of the values beside the counter. Hashes do not compress; half of
// what people store are words that come again.
func (k kind) fact(user string, i int) string {
	f := app.Fact(user, i)
	if k.Compress {
		f = f[:16] + strings.Repeat("in stock, ", 5)
	}
	return f
}

// one measures a cell once, on a table of its own.
func one(ctx context.Context, stage *rig.Stage, o options, c *Cell) (err error) {
	cfg, err := pgxpool.ParseConfig(stage.Postgres.URL(database))
	if err != nil {
		return err
	}
	cfg.MaxConns = 16
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, "DROP SCHEMA IF EXISTS schema_system CASCADE"); err != nil {
		return err
	}
	quiet := slog.New(slog.DiscardHandler)
	store, err := session.NewPostgresStore(ctx, pool, session.PostgresOptions{Logger: quiet})
	if err != nil {
		return err
	}
	if _, err := pool.Exec(ctx, fmt.Sprintf("ALTER TABLE schema_system.session SET (fillfactor = %d)", c.Factor)); err != nil {
		return err
	}
	m, err := session.New(store, session.Config{Secret: stage.Secret, DisablePrune: true, Logger: quiet})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	s := &savers{options: o, handler: m, pool: pool, cookies: make([]string, o.rows)}
	if err := s.login(c.Kind); err != nil {
		return err
	}
	return s.measure(ctx, stage.Postgres, c)
}

// savers have a table of sessions.
type savers struct {
	options
	handler *session.Manager
	pool    *pgxpool.Pool
	cookies []string
}

// share lets the workers take turns at n calls of f, in no order.
func (s *savers) share(n int, f func(i int) error) error {
	errs := make([]error, s.workers)
	var next atomic.Int64
	var wg sync.WaitGroup
	for w := range s.workers {
		wg.Go(func() {
			for errs[w] == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				errs[w] = f(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// visit makes one request and returns the cookie that was sent.
func (s *savers) visit(cookie string, f func(*session.Session)) (string, error) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	w := httptest.NewRecorder()
	s.handler.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { f(session.From(r.Context())) })).ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		return "", fmt.Errorf("got status %d, want 200", w.Code)
	}
	cookie, _, _ = strings.Cut(w.Header().Get("Set-Cookie"), ";")
	return cookie, nil
}

const counter session.Key[int] = "counter"

const (
	first  = 100 // of the counters: no save makes one longer
	others = 215 // bytes of a record beside the facts
	aFact  = 73  // bytes of a fact with its name
)

// login makes the sessions.
func (s *savers) login(k kind) error {
	return s.share(s.rows, func(i int) (err error) {
		user := fmt.Sprintf("user-%06d", i)
		s.cookies[i], err = s.visit("", func(x *session.Session) {
			session.Key[string]("user_id").Set(x, user)
			counter.Set(x, first)
			for n := range max(1, (k.Bytes-others)/aFact) {
				session.Key[string](fmt.Sprintf("k%02d", n)).Set(x, k.fact(user, n))
			}
		})
		if err == nil && s.cookies[i] == "" {
			err = errors.New("login: got no cookie")
		}
		return err
	})
}

// measure saves every session as often as asked for, in an order of chance, and
// looks at what that has come to.
func (s *savers) measure(ctx context.Context, pg *rig.Postgres, c *Cell) error {
	if _, err := s.pool.Exec(ctx, "VACUUM ANALYZE schema_system.session"); err != nil {
		return err
	}
	var before, after int64
	if err := s.pool.QueryRow(ctx, "SELECT pg_table_size('schema_system.session'), avg(octet_length(sess::text))::int FROM schema_system.session").Scan(&before, &c.Bytes); err != nil {
		return err
	}
	order := s.order()
	var reader *pgx.Conn
	if c.Open {
		var err error
		if reader, err = pg.Connect(ctx, database); err != nil {
			return err
		}
		defer func() { _ = reader.Close(context.WithoutCancel(ctx)) }()
	}
	wal, cpu, err := used(ctx, pg)
	if err != nil {
		return err
	}
	for len(order) > 0 {
		part := order
		if c.Open {
			part = order[:min(len(order), max(1, s.rows*s.held/100))]
		}
		order = order[len(part):]
		if err := s.save(ctx, reader, part); err != nil {
			return err
		}
	}
	endWAL, endCPU, err := used(ctx, pg)
	if err != nil {
		return err
	}
	updates, err := pg.Updates(ctx, wal, endWAL)
	if err != nil {
		return err
	}
	if err := s.pool.QueryRow(ctx, "SELECT pg_table_size('schema_system.session')").Scan(&after); err != nil {
		return err
	}
	saves := float64(s.rows * s.saves)
	share, _ := updates.Share()
	c.HeapOnly, c.WAL, c.CPU = append(c.HeapOnly, share), append(c.WAL, float64(endWAL-wal)/saves), append(c.CPU, (endCPU-cpu)/saves)
	c.Before, c.TableBytes = append(c.Before, float64(before)), append(c.TableBytes, float64(after))
	return nil
}

// used returns how much log and CPU time, in microseconds, PostgreSQL has needed so far.
func used(ctx context.Context, pg *rig.Postgres) (wal int64, cpu float64, err error) {
	if wal, err = pg.WAL(ctx); err != nil {
		return 0, 0, err
	}
	d, err := pg.CPU()
	return wal, rig.Microseconds(d), err
}

// order names every session as often as it is to be saved, each round in another
// order.
func (s *savers) order() (order []int) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range s.saves {
		order = append(order, rnd.Perm(s.rows)...)
	}
	return order
}

// save saves sessions, inside a transaction of reader's unless that is nil.
func (s *savers) save(ctx context.Context, reader *pgx.Conn, sessions []int) error {
	var tx pgx.Tx
	if reader != nil {
		var err error
		if tx, err = reader.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}); err != nil {
			return err
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
		if _, err := tx.Exec(ctx, "SELECT count(*) FROM pg_class"); err != nil { // takes the snapshot
			return err
		}
	}
	return s.share(len(sessions), func(i int) error {
		got := 0
		_, err := s.visit(s.cookies[sessions[i]], func(x *session.Session) {
			counter.Update(x, func(n int) int { return n + 1 })
			got, _ = counter.Get(x)
		})
		if err == nil && (got <= first || got > first+s.saves) {
			err = fmt.Errorf("got %d, want one more than before", got)
		}
		return err
	})
}
