package session_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgrun"
	"github.com/pgsession/session/internal/pgtest"
)

// holders are handlers that hold all connections of a pool while they write their
// pages: rows are open, or a transaction.
type holders struct {
	pool *pgxpool.Pool
	all  sync.WaitGroup // until each has its connection
}

// page serves a page that holds a connection until it is written.
func (h *holders) page(t *testing.T, b *browser, use func(*session.Session)) *response {
	return b.serve(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		userKey.Get(s) // what is loaded before needs no connection any more
		tx, err := h.pool.Begin(r.Context())
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(r.Context())) }()
		rows, err := tx.Query(r.Context(), "SELECT n FROM generate_series(1, 3) n")
		if err != nil {
			t.Error(err)
			return
		}
		defer rows.Close()
		h.all.Done()
		h.all.Wait()
		use(s)
		for rows.Next() {
			if _, err := io.WriteString(w, "row\n"); err != nil { // the first commits
				return
			}
		}
	})
}

// Handlers that hold every connection of the pool and write their pages: what
// waits for a connection then waits for them. A touch does not, as long as most
// of the idle timeout is left; one that matters waits until there is a connection,
// and a save says what is wrong.
func TestPostgresHandlersThatHoldThePool(t *testing.T) {
	const conns = 4
	pool := pgtest.Pool(t, maxConns(conns), noPing) // a ping could take an impatient one's time
	admin := openPool(t, pool.Config().ConnString(), maxConns(1))
	open := func(timeout time.Duration, log *logRecorder) (*session.Manager, *holders, [conns]*browser) {
		opts := func(cfg *session.Config) {
			cfg.IdleTimeout, cfg.TouchInterval, cfg.Logger = 10*time.Hour, time.Minute, slog.New(log)
		}
		m := patientManager(t, newStore(t, pool), storeTimeout(timeout), opts)
		h := &holders{pool: pool}
		h.all.Add(conns)
		var browsers [conns]*browser
		patient := patientManager(t, newStore(t, pool), opts)
		for i := range browsers {
			browsers[i] = login(t, patient).with(m)
		}
		return m, h, browsers
	}
	const expiry = "SELECT round(extract(epoch FROM expire::timestamptz - now()) / 3600)::int FROM schema_system.session WHERE sid = $1"
	left := func(id string, hours int) {
		execSQL(t, admin, "UPDATE schema_system.session SET expire = now() + make_interval(hours => $2) WHERE sid = $1", id, hours)
	}

	t.Run("touches", func(t *testing.T) {
		log := &logRecorder{}
		m, h, browsers := open(patience, log)
		var ids [conns]string
		for i, b := range browsers {
			ids[i] = b.id()
			left(ids[i], 9)
		}
		left(ids[0], 4)
		together(conns, func(i int) {
			if resp := h.page(t, browsers[i], func(*session.Session) {}); resp.status != http.StatusOK || resp.body != "row\nrow\nrow\n" {
				t.Errorf("got status %d, body %q, want the page", resp.status, resp.body)
			}
		})
		// The first to give up lets its connection go, which the others may get.
		const early = "within 250ms: 4 of the 4 connections of the pool are held by others: handlers that keep rows or a transaction open?"
		lines := log.from(slog.LevelError)
		if text := strings.Join(lines, "\n"); !strings.Contains(text, early) || strings.Contains(text, "in time") {
			t.Errorf("got %q, want that handlers hold the pool, and nothing that has waited", text)
		}
		if errs := m.Stats().StoreErrors; errs != uint64(len(lines)) {
			t.Errorf("Stats.StoreErrors: got %d, want %d", errs, len(lines))
		}
		if got := queryOne[int](t, admin, expiry, ids[0]); got != 10 {
			t.Errorf("the one that had to wait: got %d hours left, want 10", got)
		}
		for i, b := range browsers {
			if b.user(); queryOne[int](t, admin, expiry, ids[i]) != 10 {
				t.Errorf("session %d: the next request has not extended it", i)
			}
		}
	})

	t.Run("saves", func(t *testing.T) {
		log := &logRecorder{}
		_, h, browsers := open(2*time.Second, log)
		var refused atomic.Int32
		together(conns, func(i int) {
			switch resp := h.page(t, browsers[i], func(s *session.Session) { countKey.Set(s, 1) }); resp.status {
			case http.StatusServiceUnavailable:
				refused.Add(1)
			case http.StatusOK: // by a connection that another let go
			default:
				t.Errorf("got status %d, want 503", resp.status)
			}
		})
		if lines := strings.Join(log.from(slog.LevelError), "\n"); refused.Load() == 0 || !strings.Contains(lines, "connections of the pool are held by others: handlers that keep rows or a transaction open?") {
			t.Errorf("got %q, want that handlers hold the pool", lines)
		}
	})
}

// Touches share statements, and one that is in a hurry takes nobody along.
func TestPostgresImpatientTouches(t *testing.T) {
	pool := pgtest.Pool(t, maxConns(2))
	store := newStore(t, pool, session.PostgresOptions{BatchSlots: 1})
	var ids []string
	for range 6 {
		ids = append(ids, createRecord(t, store, `{"a":1}`))
	}
	var held []*pgxpool.Conn
	for range 2 {
		c, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	var hurried, patient sync.WaitGroup
	for i, id := range ids {
		if i%2 == 0 {
			hurried.Go(func() {
				if err := store.Touch(pgrun.Impatient(t.Context()), id, 2*time.Hour); !errors.Is(err, context.DeadlineExceeded) || t.Context().Err() != nil {
					t.Errorf("an impatient one: got %v, want that no connection came", err)
				}
			})
			continue
		}
		patient.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := store.Touch(ctx, id, 2*time.Hour); err != nil {
				t.Errorf("a patient one: got %v, want no error", err)
			}
		})
	}
	hurried.Wait()
	for _, c := range held {
		c.Release()
	}
	patient.Wait()
	if n := queryOne[int](t, pool, "SELECT count(*) FROM schema_system.session WHERE expire > now() + interval '90 minutes'"); n != len(ids)/2 {
		t.Errorf("extended: got %d, want %d", n, len(ids)/2)
	}
}
