package session

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/pgsession/session/internal/pgtable"
	"github.com/pgsession/session/internal/shard"
)

// shardsAge is how old the shards' ranges may be at a renewal: they change when a
// shard is split, which is rare. An ID that falls into another shard by that costs its
// renewal a commit in two phases, and no more.
const shardsAge = time.Minute

// shards are those of a table that Citus has distributed.
type shards struct {
	ranges atomic.Pointer[shard.Ranges]
	readAt atomic.Int64 // in nanoseconds since 1970
}

// read asks where the shards begin.
func (h *shards) read(ctx context.Context, t *pgtable.Table) error {
	h.readAt.Store(time.Now().UnixNano())
	ranges, ok, err := t.Shards(ctx)
	switch {
	case err != nil:
		return err
	case !ok:
		t.Logger.Warn("session: the server hashes in another way than this program, so that new session IDs cannot be chosen by their shard: each renewal commits in two phases")
		ranges = shard.Ranges{}
	}
	h.ranges.Store(&ranges)
	return nil
}
