package session

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pgsession/session/internal/backoff"
	"github.com/pgsession/session/internal/pgtable"
	"github.com/pgsession/session/internal/shard"
)

// shardsAge is how old the shards' ranges may be at a renewal: they change when a
// shard is split, which is rare. A renewal into another shard commits in two phases:
// between the two its mark can be seen and its record cannot, or the other way round.
const shardsAge = time.Minute

// shards are those of a table that Citus has distributed.
type shards struct {
	ranges atomic.Pointer[shard.Ranges]
	readAt atomic.Int64 // in nanoseconds since 1970
}

var errNoShards = errors.New("there are no shards of the table any more")

// crossing follows a Delete along marks. One that leads into another shard may be there
// before the record is: two phases take milliseconds, but where a worker dies
// between them. Who has renewed so did not know the shards, and perhaps this store does
// not either: it asks for them, where nothing is found.
type crossing struct {
	shards *shards
	table  *pgtable.Table
	hops   [][2]string
	known  bool // the shards were asked for
	is     bool
	tries  int
}

const crossingTries = 12 // a third of a second, about

// hop notes that the way goes from one stored ID to the next.
func (c *crossing) hop(from, to string) {
	if c.table.Distributed {
		c.hops = append(c.hops, [2]string{from, to})
	}
}

// crosses reports whether a hop has led into another shard, as the shards are known.
func (c *crossing) crosses() bool {
	ranges := c.shards.ranges.Load()
	return slices.ContainsFunc(c.hops, func(h [2]string) bool { return ranges.Len() == 0 || ranges.Of(h[0]) != ranges.Of(h[1]) })
}

// again waits, and reports whether what is not there is to be looked for once more.
func (c *crossing) again(ctx context.Context) bool {
	if len(c.hops) == 0 || c.tries == crossingTries {
		return false
	}
	if !c.is && !c.known {
		c.known = true
		c.is = c.crosses() || c.shards.read(ctx, c.table) != nil || c.crosses()
	}
	if !c.is {
		return false
	}
	c.tries++
	_ = backoff.Pause(ctx, c.tries) // whoever looks again is told that ctx has ended
	return true
}

// old reports whether a renewal is to ask for the shards.
func (h *shards) old() bool { return time.Since(time.Unix(0, h.readAt.Load())) > shardsAge }

// read asks where the shards begin.
func (h *shards) read(ctx context.Context, t *pgtable.Table) error {
	h.readAt.Store(time.Now().UnixNano())
	ranges, ok, err := t.Shards(ctx)
	return h.set(t, ranges, ok, err)
}

// set notes an answer.
func (h *shards) set(t *pgtable.Table, ranges shard.Ranges, ok bool, err error) error {
	switch {
	case err != nil:
		return err
	case !ok:
		t.Logger.Warn("session: the server hashes in another way than this program, so that new session IDs cannot be chosen by their shard: each renewal commits in two phases")
		ranges = shard.Ranges{}
	case ranges.Len() == 0:
		return errNoShards
	}
	h.ranges.Store(&ranges)
	return nil
}
