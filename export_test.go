package session

import (
	"context"
	"io"
	"net/http"
	"strings"
	"time"
	"unsafe"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/batch"
	"github.com/pgsession/session/internal/pgrun"
)

// SessionBytes is the size of a Session.
const SessionBytes = unsafe.Sizeof(Session{})

// ParseTimeout reads SESSION_TIMEOUT.
var ParseTimeout = parseTimeout

// SetRandom replaces the source of session IDs.
func (m *Manager) SetRandom(r io.Reader) { m.engine.rand = r }

// SignCookie returns the cookie value that names id.
func (m *Manager) SignCookie(id string) (string, error) {
	return m.keys.codec().Sign(m.cfg.Cookie.Name, id)
}

// UseSecrets is SetSecrets without a look at how good they are.
func (m *Manager) UseSecrets(secret string, old ...string) error {
	cfg := m.cfg
	cfg.Secret, cfg.OldSecrets = secret, old
	return m.keys.use(&cfg, &m.engine.sealer)
}

// CookieDomain returns the Domain of a cookie made on r.
func (m *Manager) CookieDomain(r *http.Request) string { return m.domain(r) }

// Waiting returns how many calls of each kind wait for a shared statement.
func (s *PostgresStore) Waiting() int {
	return s.shared.loads.Waiting() + s.shared.creations.Waiting() + s.shared.saves.Waiting() + s.shared.touches.Waiting() + s.shared.deletes.Waiting() +
		s.shared.renewals.Waiting() + s.shared.limits.Waiting()
}

// Slots returns the slots of each kind of shared statement, and Loaded notes a load
// that took so long.
func (s *PostgresStore) Slots() map[string]batch.Slots {
	return map[string]batch.Slots{
		"loads": s.shared.loads.Slots(), "creations": s.shared.creations.Slots(), "saves": s.shared.saves.Slots(),
		"touches": s.shared.touches.Slots(), "hurried": s.shared.hurried.Slots(), "deletes": s.shared.deletes.Slots(),
		"renewals": s.shared.renewals.Slots(),
	}
}

func (s *PostgresStore) Loaded(d time.Duration) { s.shared.way.took(d) }

// NewWay returns a way that tells f when it has become far, or near; Took notes a load.
func NewWay(f func(far bool)) *way { return &way{changed: f} }

func Took(w *way, d time.Duration) { w.took(d) }

const WayLoads = wayLoads

// LimitFound deletes the records of q but the newest.
func (s *PostgresStore) LimitFound(ctx context.Context, q Query, own string) error {
	_, err := s.limitFound(ctx, q, 1, own, time.Now(), time.Second)
	return err
}

// RowWaits returns how many calls have found their row locked and ask again.
func (s *PostgresStore) RowWaits() int { return int(s.rowWaits.Load()) }

// RowWaits is that of its store.
func (m *Manager) RowWaits() int { return m.store.(*PostgresStore).RowWaits() }

// SetClock makes the store's statements look at another clock, such as "clock.now()".
func (s *PostgresStore) SetClock(now string) {
	q := &s.sql
	all := []*string{&q.load, &q.loadMany, &q.loadConfirmed, &q.now, &q.peek.one, &q.peek.many}
	for _, w := range []*statement{&q.create, &q.update, &q.renew, &q.touch, &q.delete} {
		all = append(all, &w.done.one, &w.done.many, &w.full.one, &w.full.many)
	}
	for _, sql := range all {
		*sql = strings.ReplaceAll(*sql, "pg_catalog.now()", now)
	}
}

// Doubt remembers an ID as one whose last write was uncertain.
func (s *PostgresStore) Doubt(id string) { s.doubts.add(s.sid(id)) }

// Doubts returns how many are remembered.
func (s *PostgresStore) Doubts() int { return int(s.doubts.n.Load()) }

// AgeDoubts makes all of them older.
func (s *PostgresStore) AgeDoubts(by time.Duration) {
	s.doubts.mu.Lock()
	defer s.doubts.mu.Unlock()
	for id, at := range s.doubts.of {
		s.doubts.of[id] = at.Add(-by)
	}
}

// KeepsPlans reports whether statements are prepared, as on a large table.
func (s *PostgresStore) KeepsPlans() bool { return s.plans.keep && s.plans.large.Load() }

// LargeForLong makes the store believe that the table has been large for long.
func (s *PostgresStore) LargeForLong() { s.plans.since.Store(0) }

// Grown makes the store believe in a large table.
func (s *PostgresStore) Grown() { s.plans.large.Store(true) }

// ForgetShards lets the next renewal ask where the shards are.
func (s *PostgresStore) ForgetShards() { s.shards.readAt.Store(0) }

// DeletePassing is the second half of DeleteFound, where a row was locked.
func (s *PostgresStore) DeletePassing(ctx context.Context, q Query) (int64, error) {
	return s.deletePassing(ctx, &q)
}

// SetPool lets the statements of requests run on another pool.
func (s *PostgresStore) SetPool(pool *pgxpool.Pool) {
	s.runner = pgrun.New(pool, DefaultStoreTimeout, pgrun.Errors{Uncertain: ErrUncertain, Invalid: ErrInvalid})
}

// SetMostPeeked bounds the IDs of a look, and WatchEvery says how often there is one.
func SetMostPeeked(m *Manager, n int) { m.watcher.most = n }

func WatchEvery(m *Manager, d time.Duration) { m.watcher.every = d }

// WatcherRests reports whether no goroutine looks after streams.
func WatcherRests(m *Manager) bool {
	m.watcher.mu.Lock()
	defer m.watcher.mu.Unlock()
	return m.watcher.stop == nil
}

// DeleteTooOld deletes a record as a load does that finds it over its absolute timeout.
func (m *Manager) DeleteTooOld(ctx context.Context, id string) error {
	return m.engine.store.Delete(m.engine.hears(ctx, whyAbsolute), id)
}
