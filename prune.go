package session

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
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
	n, err := p.Prune(m.engine.hears(ctx, whyExpired), m.cfg.PruneInterval)
	m.engine.stats.pruned.Add(uint64(max(n, 0)))
	if err != nil {
		_ = m.engine.countError(err)
		m.cfg.Logger.LogAttrs(ctx, slog.LevelError, "session: pruning failed, tried again next time", slog.Any("error", err), slog.Int64("deleted", n))
		return n, err
	}
	if n > 0 {
		m.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "session: pruned", slog.Int64("deleted", n), slog.Int64("durationMs", time.Since(start).Milliseconds()))
	}
	return n, nil
}
