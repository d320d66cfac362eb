package session

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

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

// readShards asks where the shards begin.
func (s *PostgresStore) readShards(ctx context.Context) error {
	s.shards.readAt.Store(time.Now().UnixNano())
	ranges, ok, err := s.table.Shards(ctx)
	switch {
	case err != nil:
		return err
	case !ok:
		s.opts.Logger.Warn("session: the server hashes in another way than this program, so that new session IDs cannot be chosen by their shard: each renewal commits in two phases")
		ranges = shard.Ranges{}
	}
	s.shards.ranges.Store(&ranges)
	return nil
}

// near reports whether a new ID is where that of a renewal should be: in the shard of
// the old one, or the renewal would have to commit on two workers. A worker that dies
// between the two phases leaves the session without a row for as long as Citus takes
// to find out.
func (s *PostgresStore) near(ctx context.Context, old string) func(id string) bool {
	if !s.table.Distributed {
		return nil
	}
	if age := time.Since(time.Unix(0, s.shards.readAt.Load())); age > shardsAge {
		if err := s.readShards(ctx); err != nil {
			s.opts.Logger.LogAttrs(ctx, levelOf(err), "session: the shards could not be read, and are taken for what they were", slog.Any("error", err))
		}
	}
	ranges := s.shards.ranges.Load()
	of := ranges.Of(s.sid(old))
	return func(id string) bool { return ranges.Of(s.sid(id)) == of }
}
