package session

import (
	"context"
	"errors"
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
// between them.
type crossing struct {
	shards *shards
	is     bool
	tries  int
}

const crossingTries = 12 // a third of a second, about

// hop notes that the way goes from one stored ID to the next.
func (c *crossing) hop(from, to string) {
	if ranges := c.shards.ranges.Load(); ranges != nil { // it is distributed
		c.is = c.is || ranges.Len() == 0 || ranges.Of(from) != ranges.Of(to)
	}
}

// again waits, and reports whether what is not there is to be looked for once more.
func (c *crossing) again(ctx context.Context) bool {
	if !c.is || c.tries == crossingTries {
		return false
	}
	c.tries++
	_ = backoff.Pause(ctx, c.tries) // whoever looks again is told that ctx has ended
	return true
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
	case ranges.Len() == 0:
		return errNoShards
	}
	h.ranges.Store(&ranges)
	return nil
}
