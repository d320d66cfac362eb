package session

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// startPruning starts the goroutine that deletes expired records.
func (m *Manager) startPruning() {
	pruner, ok := m.store.(Pruner)
	if !ok || m.cfg.DisablePrune {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	m.stopPrune, m.pruned = stop, make(chan struct{})
	go func() {
		defer close(m.pruned)
		// At start, but not at the same moment as every other instance.
		wait := rand.N(min(m.cfg.PruneInterval, time.Minute)) // #nosec G404 -- no secret
		for {
			t := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				t.Stop()
				return
			case <-t.C:
			}
			_, _ = m.prune(ctx, pruner)                                // which logs
			wait = m.cfg.PruneInterval/2 + rand.N(m.cfg.PruneInterval) // #nosec G404 -- no secret
		}
	}()
}

// Prune deletes expired records now and returns how many, also beside an error:
// for programs without a pruning goroutine (Config.DisablePrune), such as
// serverless ones, and for tests. It works in small batches with pauses; when
// ctx ends it stops after the batch under way, without an error. It may run
// beside other Prunes, here or elsewhere.
func (m *Manager) Prune(ctx context.Context) (int64, error) {
	pruner, ok := m.store.(Pruner)
	if !ok {
		return 0, errors.New("session: Prune: the store is no Pruner")
	}
	return m.prune(ctx, pruner)
}

func (m *Manager) prune(ctx context.Context, p Pruner) (int64, error) {
	start := time.Now()
	n, err := p.Prune(ctx, m.cfg.PruneInterval)
	m.stats.pruned.Add(uint64(max(n, 0)))
	if err != nil {
		_ = m.storeError(err)
		m.cfg.Logger.LogAttrs(ctx, slog.LevelError, "session: pruning failed, tried again next time", slog.Any("error", err), slog.Int64("deleted", n))
		return n, err
	}
	if n > 0 {
		m.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "session: pruned", slog.Int64("deleted", n), slog.Int64("durationMs", time.Since(start).Milliseconds()))
	}
	return n, nil
}

// Stats are counts since the Manager was made, for a person on call.
type Stats struct {
	Loads       uint64 // records asked for
	Misses      uint64 // of these, not found: expired, destroyed or unknown
	Creates     uint64 // new sessions stored
	Saves       uint64 // existing sessions changed, renewals included
	Conflicts   uint64 // saves that met another request's and were merged
	Renewals    uint64 // IDs changed
	Touches     uint64 // expiries moved without other changes
	Destroys    uint64 // records deleted at an application's wish
	Pruned      uint64 // expired records deleted
	BadCookies  uint64 // session cookies that did not verify
	StoreErrors uint64 // failures that the store reported; what it mended by itself is not among them
}

// Stats returns the counts so far. It is safe for concurrent use, and suits
// expvar.Func.
func (m *Manager) Stats() Stats {
	c := &m.stats
	return Stats{
		Loads: c.loads.Load(), Misses: c.misses.Load(), Creates: c.creates.Load(), Saves: c.saves.Load(),
		Conflicts: c.conflicts.Load(), Renewals: c.renewals.Load(), Touches: c.touches.Load(),
		Destroys: c.destroys.Load(), Pruned: c.pruned.Load(), BadCookies: c.badCookies.Load(),
		StoreErrors: c.storeErrors.Load(),
	}
}

type counters struct {
	loads, misses, creates, saves, conflicts, renewals, touches, destroys, pruned, badCookies, storeErrors atomic.Uint64
}
